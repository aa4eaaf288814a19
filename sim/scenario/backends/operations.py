"""What one process does in a step: a verb of the engine to the end of its work, in that one process.

Arguments and results are JSON data, so that an operation can be done here or by a process that is killed.
The work that a verb would leave to a runner (``auto_fix``) is done by the operation itself: its effects
then have the same numbers on every backend. With ``BY_RUNNER`` the engine starts its runner, which the
backend watches instead, and the operation waits for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from engine.api import Engine
from engine.data.model import Fix, FixType, Risk
from engine.data.records import Record
from engine.doors.images import Layer
from engine.errors import DiskwrightError, NotFound, Refused
from engine.formats.base import Repository
from sim.scenario.language.patterns import Piece, chunks

MAX_FIXES = 60

Operation = Callable[..., Any]

HERE, BY_RUNNER, LATER = "here", "by runner", "later"
"""Who does the work of a verb; the argument ``work`` of the operations that have some."""

RUNNER = "engine.host.runner"


def is_by_runner(arguments: dict[str, Any]) -> bool:
    """Whether an operation has its work done by a process that the engine starts."""
    return arguments.get("work") == BY_RUNNER


def _committed(options: dict[str, Any], work: str) -> dict[str, Any]:
    return {**options, "auto_fix": work == BY_RUNNER}


def _finish(engine: Engine, repo: str, image: str, work: str) -> str:
    """Do what a runner would be started for, or wait for it."""
    if work == BY_RUNNER:
        for task in engine.list_tasks():
            engine.wait_for_task(task)
    for _ in range(MAX_FIXES if work == HERE else 0):
        mends = [
            fix
            for fix in engine.check_storage_repository(repo)
            if fix.type is FixType.MEND and fix.target == image and not fix.waits_for
        ]
        if not mends:
            break
        engine.run_fix_here(repo, mends[0])
    return image


def create_disk(
    engine: Engine, repo: str, size: int, base: str | None, user_data: Any, options: dict[str, Any], work: str
) -> str:
    """Create a virtual disk; return its id."""
    image = engine.create_virtual_disk(repo, size, base, user_data, _committed(options, work))
    return _finish(engine, repo, image, work)


def create_snapshot(engine: Engine, repo: str, disk: str, user_data: Any, options: dict[str, Any]) -> str:
    """Create a snapshot; return its id."""
    return engine.create_snapshot(repo, disk, user_data, options)


def create_snapshot_group(
    engine: Engine, repo: str, disks: list[str], user_data: Any, options: dict[str, Any]
) -> dict[str, str]:
    """Create snapshots of several disks; return their ids by disk."""
    return engine.create_snapshot_group(repo, disks, user_data, options)


def copy(
    engine: Engine, repo: str, image: str, base: str | None, user_data: Any, options: dict[str, Any], work: str
) -> str:
    """Copy an image; return the id of the copy."""
    made = engine.copy_image(repo, image, base, user_data, _committed(options, work))
    return _finish(engine, repo, made, work)


def import_file(
    engine: Engine, repo: str, path: str, format: str, user_data: Any, options: dict[str, Any], work: str
) -> str:
    """Import a file as a disk; return the id of the disk."""
    image = engine.import_image(repo, path, format, user_data, _committed(options, work))
    return _finish(engine, repo, image, work)


def export(engine: Engine, repo: str, image: str, path: str, format: str) -> None:
    """Write the content of an image to a file."""
    engine.export_image(repo, image, path, format)


def set_user_data(engine: Engine, repo: str, image: str, data: Any) -> None:
    """Replace the user data of an image."""
    engine.set_user_data(repo, image, data)


def check(engine: Engine, repo: str, deep: bool) -> list[dict[str, Any]]:
    """Check a repository; return the fixes as JSON data."""
    return [fix.to_json() for fix in engine.check_storage_repository(repo, {"deep": True} if deep else None)]


def fix(
    engine: Engine,
    repo: str,
    kind: str,
    image: str,
    lose_data: bool,
    deep: bool,
    given: list[dict[str, Any]] | None,
    nth: int,
) -> list[str]:
    """Run what is offered and wanted until nothing of it is left, or only the ``nth`` of it, once; the rules in the
    order in which they ran. ``kind``: a rule or a type, "" for everything.

    With ``given`` exactly those are run that are wanted, without another check. NotFound: none was offered."""

    def wanted(fix: Fix) -> bool:
        if image and image != fix.target and image not in fix.images:
            return False
        if kind:
            return kind in (fix.rule, str(fix.type))
        return not fix.waits_for and (lose_data or fix.risk is not Risk.LOSES_DATA)

    ran: list[str] = []
    if given is not None:
        todo = [one for one in map(Fix.from_json, given) if wanted(one)][max(0, nth - 1) : nth or None]
        for one in todo:
            engine.run_fix_here(repo, one)
            ran.append(one.rule)
        return _some(engine, repo, ran, bool(kind))
    for _ in range(MAX_FIXES):
        offered = [one for one in engine.check_storage_repository(repo, {"deep": deep}) if wanted(one)]
        if nth:
            offered = [] if ran else offered[nth - 1 : nth]
        if not offered:
            return _some(engine, repo, ran, bool(kind))
        offered.sort(key=lambda one: bool(one.waits_for))
        if ran and offered[0].waits_for:
            return ran
        engine.run_fix_here(repo, offered[0])
        ran.append(offered[0].rule)
    raise Refused(f"{MAX_FIXES} fixes have run and there is no end of them: {', '.join(ran[-6:])}")


def _some(engine: Engine, repo: str, ran: list[str], needed: bool) -> list[str]:
    if not ran and needed:
        offered = [one.rule for one in engine.check_storage_repository(repo)]
        raise NotFound(f"check offers no such fix; it offers: {', '.join(offered) or 'none'}")
    return ran


def write(engine: Engine, repo: str, disk: str, pieces: list[list[Any]]) -> None:
    """Write into a disk as the machine of the disk: prepared (for this time, if it is not), one flush at the end."""
    identity = engine.context.repository(repo).identity
    prepared = any((one.repository, one.image) == (identity, disk) for one in engine.list_prepared())
    if not prepared:
        engine.prepare_image(repo, disk)
    try:
        session = engine.doors.images.open_session(layers(engine.context.repository(repo), disk), True, False)
        try:
            for start, part in chunks(Piece(*piece) for piece in pieces):
                session.write(start, part)
            session.flush()
        finally:
            session.close()
    finally:
        if not prepared:
            with contextlib.suppress(DiskwrightError):
                engine.teardown_image(repo, disk)


def prepare(engine: Engine, repo: str, image: str, writable: bool, take_over: bool) -> None:
    """Prepare an image; its holder lives on."""
    engine.prepare_image(repo, image, writable, take_over)


def _record(repository: Repository, tag: str) -> Record:
    entry = repository.tags.read(tag)
    if entry is None or entry.record is None or entry.record.volume is None:
        raise NotFound(f"there is no data of image {tag}")
    return entry.record


def volume_path(repository: Repository, image: str) -> str:
    """Where the data of an image can be opened, as long as the repository is."""
    volume = _record(repository, image).volume
    assert volume is not None
    return repository.volumes.layer(volume).path


def layers(repository: Repository, image: str) -> list[Layer]:
    """The chain of an image as records tell it, top first, without a judgement."""
    found: list[Layer] = []
    while image and len(found) < 100:
        volume = _record(repository, image).volume
        assert volume is not None
        found.append(repository.volumes.layer(volume))
        image = volume.parent
    return found


def read(engine: Engine, repo: str, image: str) -> bytes:
    """The whole content of an image, to its exact size."""
    repository = engine.context.repository(repo)
    size = _record(repository, image).size
    session = engine.doors.images.open_session(layers(repository, image), False, False)
    try:
        return session.read(0, size)
    finally:
        session.close()


OPERATIONS: dict[str, Operation] = {
    "create_disk": create_disk,
    "create_snapshot": create_snapshot,
    "create_snapshot_group": create_snapshot_group,
    "copy": copy,
    "import": import_file,
    "export": export,
    "remove": lambda engine, repo, image: engine.remove_image(repo, image),
    "restore": lambda engine, repo, image: engine.restore_image(repo, image),
    "set_user_data": set_user_data,
    "set_strategy": lambda engine, repo, image, strategy: engine.set_strategy(repo, image, strategy),
    "resize": lambda engine, repo, disk, size: engine.resize_disk(repo, disk, size),
    "record_digest": lambda engine, repo, image: engine.record_digest(repo, image),
    "check": check,
    "fix": fix,
    "write": write,
    "prepare": prepare,
    "teardown": lambda engine, repo, image: engine.teardown_image(repo, image),
    "stop_task": lambda engine, repo, image: engine.stop_task(repo, image),
    "disconnect": lambda engine, repo: engine.disconnect_storage_repository(repo),
    "connect": lambda engine, repo, format, parameters, accept_moved: engine.connect_storage_repository(
        repo, format, parameters, accept_moved
    ),
    "take_srm": lambda engine, repo, dead: engine.take_srm(repo, dead),
    "release_srm": lambda engine, repo: engine.release_srm(repo),
}


def do(engine: Engine, verb: str, arguments: dict[str, Any], stopping: Callable[[], bool]) -> Any:
    """Do an operation; return its result. ``stopping``: whether an operator asked this process to stop."""
    engine.context.stopping = stopping
    return OPERATIONS[verb](engine, **arguments)
