"""Connecting a repository to this host and disconnecting it: the note, what was done to reach the storage, and what it
stood on.

Opening what is connected is ``tags.context``'s; what the formats do to reach their storage is theirs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from engine.doors import Doors
from engine.doors.files import Access
from engine.errors import BadRequest, Conflict, DiskwrightError, NotFound, Refused
from engine.formats import access
from engine.formats.base import Repository
from engine.formats.registry import detach_repository, open_repository, same_on_host
from engine.host.state import HostState
from engine.tags import anchors
from engine.tags.context import Connection

_REPO_ID_CHARACTERS = 64


def connect(
    doors: Doors, state: HostState, repo_id: str, format: str, parameters: dict[str, Any], accept_moved: bool
) -> list[str]:
    """Connect what ``Engine.connect_storage_repository`` says; return what differs from what was known."""
    _require_handle(repo_id)
    parameters, given = access.take_out(parameters)
    if given is None:
        return _connect(doors, state, repo_id, format, parameters, accept_moved)
    before, differing = state.connected(repo_id), list[str]()
    if accept_moved or before is None or (before.format, before.parameters) != (format, parameters):
        differing = _connect(doors, state, repo_id, format, parameters, accept_moved)
    try:
        _give(doors, find(state, repo_id), given)
    except DiskwrightError:
        if before is None:
            disconnect(doors, state, repo_id)
        raise
    return differing


def _give(doors: Doors, connection: Connection, given: Access) -> None:
    """State in a connected repository whose its volumes are."""
    repository = open_repository(connection.format, connection.parameters, doors)
    try:
        now = anchors.noted(repository.anchors(), doors.processes.own().boot_id)
        differing = anchors.differences(connection.anchors, now)
        if differing or repository.identity != connection.identity:
            raise anchors.moved(connection.repo_id, repository.place, connection.command, differing)
        repository.give(given)
    finally:
        repository.close()


def _connect(
    doors: Doors, state: HostState, repo_id: str, format: str, parameters: dict[str, Any], accept_moved: bool
) -> list[str]:
    aside = state.put_damaged_connections_aside()
    before = state.connected(repo_id)
    if not accept_moved:
        _require_free(repo_id, state.connections())
    try:
        repository = open_repository(format, parameters, doors)
        try:
            differing = _add(doors, state, repo_id, repository, parameters, accept_moved)
        finally:
            repository.close()
    except BaseException:
        with contextlib.suppress(DiskwrightError):  # the error to report is another
            _detach_unless_connected(doors, state, format, parameters)
        raise
    if before is not None:
        with contextlib.suppress(DiskwrightError):  # where it was: away now, or used otherwise
            _detach_unless_connected(doors, state, before.format, before.parameters)
    if aside:
        differing.append(f"what was connected before is not known: the note could not be understood, it is {aside} now")
    return differing


def _add(
    doors: Doors,
    state: HostState,
    repo_id: str,
    repository: Repository,
    parameters: dict[str, Any],
    accept_moved: bool,
) -> list[str]:
    now = anchors.noted(repository.anchors(), doors.processes.own().boot_id)
    new = Connection(repo_id, repository.format, parameters, repository.identity, now)
    with state.alone("connections.json"):
        connections = state.connections()
        if accept_moved and repo_id in connections:
            _require_the_same(state, connections[repo_id], new, repository.place)
        else:
            _require_free(repo_id, connections)
        _require_no_second(connections, new, repository.place)
        known = connections.get(repo_id) or state.last_seen(repository.identity)
        differing = _differences(known, new)
        if known is not None and not accept_moved and anchors.differences(known.anchors, now):
            raise anchors.moved(f"{known.repo_id} before", repository.place, new.command, differing)
        state.save_connections(connections | {repo_id: new})
    return differing


def _differences(known: Connection | None, new: Connection) -> list[str]:
    if known is None:
        return []
    found = anchors.differences(known.anchors, new.anchors)
    if known.parameters != new.parameters:
        found.append(f"it was connected with {known.words}")
    return found


def _require_the_same(state: HostState, known: Connection, new: Connection, place: str) -> None:
    """Let another place have the handle only when it holds the same repository, and nothing uses the one before."""
    if known.identity != new.identity:
        raise Conflict(
            f"{place} is another repository than the one that is connected as {known.repo_id}",
            "Disconnect that one first, or use another name",
        )
    require_not_in_use(state, known.repo_id, known.identity)


def _require_no_second(connections: Mapping[str, Connection], new: Connection, place: str) -> None:
    for other in connections.values():
        if other.identity == new.identity and other.repo_id != new.repo_id:
            moved = new._replace(repo_id=other.repo_id).command
            raise Conflict(
                f"{place} is the repository that is connected as {other.repo_id} (or a copy of it)",
                f"Use {other.repo_id}, or disconnect it first; if it has moved there: {moved} --accept-moved",
            )


def disconnect(doors: Doors, state: HostState, repo_id: str) -> None:
    """Disconnect what ``Engine.disconnect_storage_repository`` says."""
    connection = find(state, repo_id)
    # First what is on this host, then the note that says so: a crash in between leaves nothing that nobody knows.
    detach_repository(connection.format, connection.parameters, doors)
    with state.alone("connections.json"):
        require_not_in_use(state, repo_id, connection.identity)  # by what was started since; nothing more can be now
        connections = state.connections()
        state.save_connections({name: other for name, other in connections.items() if name != repo_id})
        try:  # another command that knew of the connection may have made its storage reachable again
            detach_repository(connection.format, connection.parameters, doors)
        except DiskwrightError:
            state.save_connections(connections)
            raise


def find(state: HostState, repo_id: str) -> Connection:
    """Return the connection of a handle. NotFound when there is none."""
    connections = state.connections()
    if repo_id not in connections:
        names = ", ".join(sorted(connections)) or "none"
        raise NotFound(f"no repository is connected as {repo_id!r:.80}", f"Connected: {names}")
    return connections[repo_id]


def require_not_in_use(state: HostState, repo_id: str, identity: str) -> None:
    """Raise Refused while an image of the repository is prepared or a task uses it on this host."""
    for entry, _ in state.entries():
        if entry.repository == identity:
            raise Refused(f"image {entry.image} of {repo_id} is prepared here", "Tear it down first")
    for path in state.not_understood():
        if identity in path:
            raise Refused(
                f"the note {path} says that an image of {repo_id} is prepared here, and cannot be understood",
                "Tear the image down with the version of diskwright that prepared it; or move the note away",
            )
    for task in state.tasks():
        if identity in task.uses:
            raise Refused(f"{task.verb} of image {task.image} in {repo_id} runs here", "Stop it or wait for it")


def _detach_unless_connected(doors: Doors, state: HostState, format: str, parameters: dict[str, Any]) -> None:
    for other in state.connections().values():
        if same_on_host((format, parameters), (other.format, other.parameters), doors):
            return
    detach_repository(format, parameters, doors)


def _require_handle(repo_id: object) -> None:
    good = isinstance(repo_id, str) and 0 < len(repo_id) <= _REPO_ID_CHARACTERS and repo_id.isprintable()
    if not good or "/" in str(repo_id):
        raise BadRequest(f"{repo_id!r:.80} cannot name a repository", "Use up to 64 printable characters, no slash")


def _require_free(repo_id: str, connections: Mapping[str, Connection]) -> None:
    if repo_id in connections:
        raise Conflict(f"the name {repo_id!r} is in use for a connected repository", "Choose another name")
