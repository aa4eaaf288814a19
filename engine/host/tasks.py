"""Tasks: the processes of this host that run fixes, found again by every other process of the host.

A task is a convenience of its host and holds no truth: what it does is in the records of the images, and
any host can carry it on when the process is gone.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import Any

from engine.data.model import Fix
from engine.data.options import require_rate
from engine.doors import Doors
from engine.doors.leases import Lease
from engine.doors.processes import ProcessState
from engine.errors import DiskwrightError, NotFound, Refused, StorageError, from_os_error
from engine.fixes.work import Work
from engine.formats.base import Repository
from engine.host.live import switches
from engine.host.state import HostState, Task
from engine.tags import sources
from engine.tags.context import Connection, Context
from engine.tags.freeing import freeing
from engine.tags.leasing import LeaseSet, holder
from engine.triage.rules import BY_CODE

LOOK_AGAIN_S = 0.02
_STOP_WAIT_S = 60.0
_LOG_LIMIT = 16 * 1024 * 1024


def start(
    context: Context, state: HostState, repo_id: str, wanted: Sequence[Work], leases: LeaseSet, rate: int = 0
) -> Task:
    """Run fixes one after the other in a process that inherits the leases, and moves ``rate`` bytes per second at most
    (0: as fast as it goes); returns when it is noted on this host.

    A process that could not be noted is ended: nobody could see it, wait for it or stop it."""
    doors = context.doors
    repository = context.repository(repo_id)
    fixes = [work.fix for work in wanted]
    uses = {repository.identity, *(name for fix in fixes for name in _sources(context, repository, fix))}
    task_id = doors.ids.new_id()
    spec = {
        "host": doors.ids.host_id,
        "state": state.directory,
        "repo_id": repo_id,
        "task": task_id,
        "rate": rate,
        "fixes": [work.to_json() for work in wanted],
        "leases": {tag: lease.token for tag, lease in leases.leases.items()},
    }
    single = len(fixes) == 1
    task = Task(
        id=task_id,
        process=doors.processes.own(),
        repository=repository.identity,
        repo_id=repo_id,
        image=(fixes[0].images or ("",))[0] if single else "",
        verb=str(fixes[0].type) if single else f"{len(fixes)} fixes",
        rule=fixes[0].rule if single else "",
        started=doors.clock.wall(),
        log="",
        images=tuple(sorted({image for fix in fixes for image in fix.images})),
        uses=tuple(sorted(uses)),
        rate=rate,
    )
    connection, handed = context.connections[repo_id], list(leases.leases.values())
    if all(BY_CODE[fix.rule].frees for fix in fixes) and _stands_there(repository, state):
        return freeing(repository, lambda: _begin(doors, state, connection, task, spec, handed))
    return _begin(doors, state, connection, task, spec, handed)


def _stands_there(repository: Repository, state: HostState) -> bool:
    """Tell whether the notes of this host are on the storage that is to be freed, and which may be full."""
    with contextlib.suppress(OSError):
        return repository.ballast is not None and repository.ballast.serves(state.directory)
    return False


def _begin(
    doors: Doors, state: HostState, connection: Connection, task: Task, spec: dict[str, Any], leases: list[Lease]
) -> Task:
    """Start the process of ``task`` and return the task with that process and its log, noted."""
    task = task._replace(log=state.task_log(task.id))
    path = state.save_spec(task.id, spec)
    with state.starting(connection):
        return _start_process(doors, state, task, path, leases)


def _start_process(doors: Doors, state: HostState, task: Task, spec: str, leases: list[Lease]) -> Task:
    try:
        process = doors.processes.spawn("engine.host.runner", [spec], leases, task.log)
    except OSError as error:
        raise from_os_error(error, "start a process for the fix") from error
    task = task._replace(process=process)
    try:
        state.save_task(task)
    except DiskwrightError:
        doors.processes.terminate(process)
        raise
    return task


def _sources(context: Context, repository: Repository, fix: Fix) -> list[str]:
    """Return the identities of the other storage that a fix reads from, as far as it can be told beforehand."""
    found = [str(fix.plan.get("source", ""))]
    with contextlib.suppress(DiskwrightError):
        entry = repository.tags.read(fix.target) if fix.target else None
        operation = entry.record.operation if entry and entry.record else None
        if operation is not None and operation.source:
            source, _ = sources.find(context, operation)
            found += [operation.source_repository, source.repository.identity if source else ""]
    return [identity for identity in found if identity]


def events(doors: Doors, task: Task) -> list[dict[str, Any]]:
    """Return what a task has said so far in its log: events start, done, stale, failed, end. StorageError."""
    try:
        raw = doors.files.read_file(task.log, _LOG_LIMIT)
    except OSError as error:
        raise from_os_error(error, "read the log of the task") from error
    found = []
    for line in raw.decode("utf-8", "replace").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            event = {"event": "output", "error": line}
        found.append(event if isinstance(event, dict) else {"event": "output", "error": line})
    return found


def image(doors: Doors, task: Task) -> str:
    """Return the image a task works on now; "" between two fixes, and for a fix of the repository itself."""
    if task.image:
        return task.image
    now = ""
    for event in events(doors, task):
        now = str(event.get("image", "")) if event.get("event") == "start" else ""
    return now


def _images(doors: Doors, task: Task) -> tuple[str, ...]:
    """Return the images of the fix that a task runs now; all that it may work on where its log cannot be read."""
    if task.image:
        return task.images
    try:
        said = events(doors, task)
    except StorageError:
        return task.images
    started = [event for event in said if event.get("event") == "start"]
    return tuple(started[-1].get("images", ())) if started else ()


def is_running(doors: Doors, task: Task) -> bool:
    """Tell whether the task's process is alive (also when it is stopped by a signal)."""
    return doors.processes.state(task.process) is not ProcessState.GONE


def stop(context: Context, state: HostState, repo_id: str, image_id: str) -> None:
    """Stop the tasks that work on an image; return when they have stopped. NotFound when there is none, Refused when
    somebody else works on it, StorageError when a process did not stop in a minute."""
    doors, tasks = context.doors, _working_on(context, state, repo_id, image_id)
    deadline = doors.clock.monotonic() + _STOP_WAIT_S
    for task in tasks:
        doors.processes.terminate(task.process)
        while is_running(doors, task):
            if doors.clock.monotonic() > deadline:
                raise StorageError(
                    f"process {task.process.pid} has not stopped in {_STOP_WAIT_S:.0f} s; the storage may hang",
                    "It stops at its next step; or kill it, nothing is lost",
                )
            doors.clock.sleep(LOOK_AGAIN_S)


def limit(context: Context, state: HostState, repo_id: str, image_id: str, rate: int) -> None:
    """Have the tasks that work on an image, and exports of it, move ``rate`` bytes per second at most from now on, 0:
    as fast as it goes. Noted on return; each looks about once a second. NotFound, Refused as ``stop``."""
    require_rate(rate)
    wanted = (context.repository(repo_id).identity, image_id)
    found = [export for export in state.exports() if (export.repository, export.image) == wanted]
    try:
        found += _working_on(context, state, repo_id, image_id)
    except (NotFound, Refused):
        if not found:
            raise
    for task in found:
        state.save_task(task._replace(rate=rate))


def clear_away(doors: Doors, state: HostState, repository: Repository) -> None:
    """Have nothing wait for processes of this host that are gone: volumes of a repository that nobody uses are no
    longer active, guests that were frozen, or wait for another volume, go on. What cannot be done now is left to
    whoever looks next."""
    with contextlib.suppress(DiskwrightError):
        if repository.activation is not None:
            repository.activation.end_unheld()
    with contextlib.suppress(DiskwrightError):
        switches.see_to(doors, state, repository.identity, patience_s=0)
    if state.frozen():
        from engine.host import machines  # hardly ever

        machines.let_go(doors, state)


def _is_held_here(state: HostState, repository: Repository, image_id: str) -> bool:
    """Tell whether a holder of this host has the lease of a disk: then nobody else works on it."""
    place = repository.identity
    return any(entry.writable and (entry.repository, entry.image) == (place, image_id) for entry in state.prepared())


def _working_on(context: Context, state: HostState, repo_id: str, image_id: str) -> list[Task]:
    doors, repository = context.doors, context.repository(repo_id)
    here = [task for task in state.tasks() if task.repository == repository.identity]
    tasks = [task for task in here if image_id in _images(doors, task)]
    if not tasks:
        if repository.leases.held(image_id) and not _is_held_here(state, repository, image_id):
            who = holder(doors, repository, image_id)
            raise Refused(f"image {image_id} is worked on, but not by a task of this host: {who}", "Do it there")
        context.visible(repo_id, image_id)
        raise NotFound(f"nothing runs on image {image_id}", "diskwright tasks lists what runs here")
    return tasks
