"""What every verb works with: the doors, the connected repositories, and finding images in them."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from engine.data.model import OperationStatus, require_id
from engine.data.options import Options
from engine.data.records import Record
from engine.doors import Doors
from engine.errors import Ambiguous, DiskwrightError, Moved, NotFound, StorageError
from engine.formats.base import Repository
from engine.formats.registry import detach_repository, open_repository
from engine.tags import anchors, changes
from engine.tags.imports import ImportNotes


class Connection(NamedTuple):
    """A repository as this host has it connected; the handle is not stored in the repository."""

    repo_id: str
    format: str
    parameters: dict[str, object]
    identity: str
    anchors: dict[str, object] = {}  # noqa: RUF012 - never changed
    """What the repository stood on when it was connected; empty: not known."""

    @staticmethod
    def from_json(handle: str, data: dict[str, Any]) -> Connection:
        """Return the connection that a note of this host tells of. TypeError, KeyError, ValueError when it does not."""
        anchors = data.get("anchors", {})
        return Connection(handle, data["format"], dict(data["parameters"]), data["identity"], dict(anchors))

    def to_json(self) -> dict[str, Any]:
        """Return it for a note, without its handle."""
        data: dict[str, Any] = {"format": self.format, "parameters": self.parameters, "identity": self.identity}
        return data | ({"anchors": self.anchors} if self.anchors else {})

    def same(self, other: Connection | None) -> bool:
        """Tell whether both connect the same under the same handle, whatever was noted of it."""
        return other is not None and self._replace(anchors={}) == other._replace(anchors={})

    @property
    def words(self) -> str:
        """The parameters as words of a command."""
        return shlex.join(f"{key}={value}" for key, value in self.parameters.items())

    @property
    def command(self) -> str:
        """The command that connects the repository."""
        return f"diskwright connect {shlex.join([self.repo_id, self.format])} {self.words}"


class Found(NamedTuple):
    """An image and where it is."""

    repo_id: str
    repository: Repository
    generation: int
    record: Record


class HostNotes(ImportNotes, Protocol):
    """What this host remembers for itself, as far as verbs and fixes ask; ``engine.host.state`` keeps it."""

    def connected(self, repo_id: str) -> Connection | None:
        """Return the connection as the notes have it now."""

    def last_seen(self, identity: str) -> Connection | None:
        """Return how a repository was connected that is not connected now."""

    def note_anchors(self, connection: Connection) -> None:
        """Note what a repository stands on, for connections that do not know it or whose host has booted."""

    def throughput(self, repository: str) -> float | None:
        """Return the bytes per second that copies reached here on that repository, None when not known."""

    def monitored(self, repository: str) -> dict[str, str]:
        """Return the images of a repository that a machine of this host has open, and how that can be spoken to."""

    def note_throughput(self, repository: str, moved_bytes: int, seconds: float) -> None:
        """Average a finished run into the throughput."""


TakeOver = Callable[["Context", Repository, str], None]
"""Puts a new holder beside the machine of this host that has an image open, and lost its holder."""


class Context:
    """Connected repositories, opened when first needed and kept open."""

    def __init__(
        self,
        doors: Doors,
        connections: dict[str, Connection],
        notes: HostNotes,
        take_over: TakeOver,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self.doors = doors
        self.take_over = take_over
        self.connections = connections
        self.stopping = stopping
        self.rate: Callable[[], int] = lambda: 0
        """Bytes per second that work may move now; 0: as fast as it goes."""
        self.throughput = notes.throughput
        self.report_throughput = notes.note_throughput
        self.monitored = notes.monitored
        self.imports: ImportNotes = notes
        self._noted = notes.connected
        self._note = notes.note_anchors
        self._last_seen = notes.last_seen
        self._open: dict[str, Repository] = {}
        self._away: dict[str, DiskwrightError] | None = None
        """What could not be opened, in a ``waiting_once``."""

    def committed(self, verb: str) -> OperationStatus:
        """Return the status of an operation whose intent is being committed."""
        return OperationStatus(verb, self.doors.ids.host_id, 0, 0, -1, "", self.doors.clock.wall(), "committed")

    def repository(self, repo_id: str) -> Repository:
        """Return the open repository of a handle, which is the one that was connected. NotFound when nothing is
        connected under it, StorageError when what was connected is not there, Moved when something else is."""
        if not isinstance(repo_id, str) or repo_id not in self.connections:
            known = ", ".join(sorted(self.connections)) or "none"
            raise NotFound(f"no repository is connected as {repo_id!r:.80}", f"Connected: {known}")
        try:
            return self._connected(repo_id)
        except DiskwrightError:
            now = self._noted(repo_id)
            if now is None or now == self.connections[repo_id] or now.identity != self.connections[repo_id].identity:
                raise
            self._drop(repo_id)  # another command of this host was told meanwhile where it stands now
            self.connections[repo_id] = now
            if self._away is not None:
                self._away.pop(repo_id, None)
            return self._connected(repo_id)

    def open_together(self, repo_ids: Iterable[str]) -> dict[str, DiskwrightError]:
        """Open those of the connected repositories that are not open, all at once, and return why the others cannot be:
        servers that do not answer are waited for together, and those named here need not be tried again."""
        shut = [repo_id for repo_id in repo_ids if repo_id in self.connections and repo_id not in self._open]
        failed = {repo_id: self._away[repo_id] for repo_id in shut if repo_id in self._away} if self._away else {}
        shut = [repo_id for repo_id in shut if repo_id not in failed]
        for repo_id, opened in zip(shut, self.doors.processes.at_once(self._try_opened, shut), strict=True):
            if isinstance(opened, DiskwrightError):
                failed[repo_id] = opened
            else:
                self._open[repo_id] = opened
        if self._away is not None:
            self._away.update(failed)
        return failed

    @contextlib.contextmanager
    def waiting_once(self) -> Iterator[None]:
        """While the body runs, a storage that does not answer is waited for once, and then told at once to be away."""
        outermost = self._away is None
        self._away = {} if self._away is None else self._away
        try:
            yield
        finally:
            if outermost:
                self._away = None

    def open_named(self, identities: Iterable[str]) -> None:
        """Open the connected ones of the repositories with these identities, all at once. In a ``waiting_once``: those
        that do not answer are not waited for again."""
        named = set(identities)
        self.open_together([one.repo_id for one in self.connections.values() if one.identity in named])

    def _try_opened(self, repo_id: str) -> Repository | DiskwrightError:
        try:
            return self._opened(repo_id)
        except DiskwrightError as error:
            return error

    def _connected(self, repo_id: str) -> Repository:
        away = self.open_together([repo_id])
        if repo_id in away:
            raise away[repo_id]
        try:
            self.require_connected(self._open[repo_id])
        except Moved:
            self._drop(repo_id)  # what it remembers is of another
            raise
        return self._open[repo_id]

    def _drop(self, repo_id: str) -> None:
        if repo_id in self._open:
            self._open.pop(repo_id).close()

    def require_connected(self, repository: Repository) -> None:
        """Return if what stands at the place of an open repository is still what was connected; Moved when it was
        replaced, StorageError when it is not there. A few calls of the file system: at each step, for no image."""
        connection = next((c for c in self.connections.values() if c.identity == repository.identity), None)
        if connection is None:
            return
        now = anchors.noted(repository.anchors(), self.doors.processes.own().boot_id)
        differing = anchors.differences(connection.anchors, now)
        if differing:
            raise anchors.moved(connection.repo_id, repository.place, connection.command, differing)
        seen = connection._replace(anchors={**connection.anchors, **now})  # what is missing now is expected as it was
        if seen != connection:  # an older program has connected it, or this host has booted
            self.connections[connection.repo_id] = seen
            with contextlib.suppress(DiskwrightError):
                self._note(seen)

    def expect_anew(self, repository: Repository, part: str) -> None:
        """Note that a part of the repository is about to be made again, so it will be another one. Durable."""
        for connection in list(self.connections.values()):
            rest = anchors.without(connection.anchors, part)
            if connection.identity == repository.identity and rest != connection.anchors:
                self.connections[connection.repo_id] = seen = connection._replace(anchors=rest)
                self._note(seen)

    def _opened(self, repo_id: str) -> Repository:
        connection = self.connections[repo_id]
        try:
            repository = open_repository(connection.format, connection.parameters, self.doors)
        except NotFound as error:  # it was there when it was connected: a mount that is gone, not a wrong name
            raise StorageError(
                f"the storage of {repo_id} is not there: {error.message}", "Bring it back, or disconnect it"
            ) from error
        if not connection.same(self._noted(repo_id)):
            # Opening may have mounted again what another command has just unmounted and forgotten.
            self._undo(repository, connection)
            raise NotFound(f"{repo_id} was disconnected at this moment", "Connect it again")
        if repository.identity != connection.identity:
            repository.close()
            raise StorageError(
                f"what is at {repository.place} now is not the repository that was connected as {repo_id}",
                "Disconnect it and connect what is there now",
            )
        return repository

    def _undo(self, repository: Repository, connection: Connection) -> None:
        repository.close()
        with contextlib.suppress(DiskwrightError):  # another user of it is left, and takes it away
            detach_repository(connection.format, connection.parameters, self.doors)

    def by_identity(self, identity: str) -> Repository | None:
        """Return the connected repository with that identity, None when it is not connected or away."""
        for connection in self.connections.values():
            if connection.identity == identity:
                try:
                    return self.repository(connection.repo_id)
                except DiskwrightError:
                    return None
        return None

    def why_away(self, identity: str) -> str:
        """Return why the repository with that identity cannot be used, and the command that changes it as far as this
        host remembers how it was connected."""
        for connection in self.connections.values():
            if connection.identity == identity:
                try:
                    self.repository(connection.repo_id)
                except Moved as error:
                    return error.message
                except DiskwrightError:
                    pass
                return f"{connection.repo_id}, the repository that holds it, is not there"
        left = self._last_seen(identity)
        if left is None:
            return "the repository that holds it is not connected, and never was on this host"
        command = left._replace(repo_id="NAME").command if left.repo_id in self.connections else left.command
        return f"{left.repo_id}, the repository that holds it, is not connected; connect it: {command}"

    def reachable(self, only: tuple[str, ...] | None = None) -> Iterator[tuple[str, Repository]]:
        """Return the connected repositories that can be opened now; those in ``only`` must be connected."""
        wanted = only if only is not None else sorted(self.connections)
        away = self.open_together(wanted)
        for repo_id in wanted:
            if repo_id not in self.connections:
                self.repository(repo_id)  # raises NotFound naming it
            if repo_id in away:
                continue
            try:
                yield repo_id, self.repository(repo_id)
            except DiskwrightError:
                continue  # one lost mount must not stop work on the others

    def find(self, image: str, options: Options, prefer: str | None = None) -> Found:
        """Return the repository in which ``image`` is to be read, and its record there. A hint decides and must be
        right. Else ``prefer`` (the target) wins, then the only other repository that has it; two of them are reported,
        not guessed."""
        hint = options.hint(image)
        if hint is not None:
            found = self._look(hint, self.repository(hint), image)
            if found is None:
                raise NotFound(
                    f"image {image} is not in {hint}, where it was said to be",
                    "Give another --hint (image_hints), or none",
                )
            return found
        if prefer is not None:
            found = self._look(prefer, self.repository(prefer), image)
            if found is not None:
                return found
        everywhere: list[Found] = []
        trouble: list[DiskwrightError] = []
        for repo_id, repository in self.reachable(options.participating_repositories):
            try:
                found = self._look(repo_id, repository, image)
            except DiskwrightError as error:
                trouble.append(error)  # a damaged record in one must not hide an intact replica in another
                continue
            if found is not None:
                everywhere.append(found)
        if trouble and not everywhere:
            raise trouble[0]
        whole = [found for found in everywhere if found.record.whole] or everywhere
        if not whole:
            raise self._nowhere(image, options.participating_repositories)
        if len(whole) > 1:
            names = ", ".join(found.repo_id for found in whole)
            raise Ambiguous(
                f"image {image} is in {names}",
                f"Say which one: --hint {image}=REPO (the option image_hints of the API)",
            )
        return whole[0]

    def visible(self, repo_id: str, image: str) -> Record:
        """Return the record of an image that users can see; NotFound when it was removed or is hidden."""
        require_id(image, "image_id")
        record = changes.read(self.repository(repo_id), image).record
        if not record.strong:
            raise self.not_visible(self.repository(repo_id), record)
        return record

    def not_visible(self, repository: Repository, record: Record) -> NotFound:
        """Return the error for a tag that is no image: one that was removed, or data that others need."""
        known = (name for name, one in self.connections.items() if one.identity == repository.identity)
        repo_id = next(known, repository.place)
        if record.removed is None:
            return NotFound(
                f"{record.id} is no image of {repo_id} but hidden data, which images need or an unfinished operation "
                "left",
                "diskwright images lists the images",
            )
        if record.purging or record.absorber:
            return NotFound(
                f"image {record.id} was removed from {repo_id} and is being deleted", "It does not come back"
            )
        return NotFound(
            f"image {record.id} was removed from {repo_id}",
            f"It can be brought back: diskwright restore {shlex.quote(repo_id)} {record.id}",
        )

    def _nowhere(self, image: str, only: tuple[str, ...] | None) -> DiskwrightError:
        """Return the error for an image that no repository has to use: removed in one, perhaps in one that is away, or
        known to none."""
        away: list[str] = []
        gone: DiskwrightError | None = None
        for repo_id in only if only is not None else sorted(self.connections):
            try:
                entry = self.repository(repo_id).tags.read(image)
            except DiskwrightError as error:
                away.append(f"{repo_id} cannot be asked: {error.message}")
                continue
            if entry is not None and entry.record is not None:
                return self.not_visible(self.repository(repo_id), entry.record)
            if entry is not None and entry.tombstone:
                gone = changes.deleted(image, repo_id)
        if away:
            return StorageError(
                f"image {image} is in none of the repositories that are there, and {'; '.join(away)}",
                "Bring back what is away, or disconnect it",
            )
        return gone or NotFound(
            f"image {image} is in none of the connected repositories",
            "Connect the repository that has it, or look with diskwright images",
        )

    @staticmethod
    def _look(repo_id: str, repository: Repository, image: str) -> Found | None:
        entry = repository.tags.read(image)
        if entry is None or entry.tombstone or (entry.record is not None and not entry.record.strong):
            return None
        tag = changes.readable(entry, image, repository.place)
        return Found(repo_id, repository, tag.generation, tag.record)

    def deactivate(self) -> None:
        """Leave no volume active on behalf of this process. An error is not raised: whoever uses the volume next is
        told."""
        for repository in self._open.values():
            if repository.activation is not None:
                with contextlib.suppress(DiskwrightError):
                    repository.activation.deactivate()

    def close(self) -> None:
        """Close what was opened."""
        for repository in self._open.values():
            repository.close()
        self._open.clear()
