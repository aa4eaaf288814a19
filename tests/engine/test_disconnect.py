"""disconnect beside what is just being started: it is refused, or what was to be started is; nothing runs without
its repository."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.api import Engine
from engine.errors import DiskwrightError, NotFound, Refused, StorageError
from sim.hosts.schedule import Uniform
from sim.hosts.tape import explore
from sim.hosts.world import NFS, World

SIZE = 65536


def made(format: str) -> tuple[World, str]:
    """A repository with a disk that has yet to be made."""
    world = World(format=format, profile="nfs" if format == NFS else "posix", least_ids=True)
    world.create("a")
    engine = world.host("one")
    disk = engine.create_virtual_disk("a", SIZE, options={"auto_fix": False})
    engine.close()
    world.bury("one")
    world.storage.settle()
    return world, disk


def start_mend(engine: Engine, disk: str) -> Any:
    (fix,) = engine.check_storage_repository("a")
    return engine.fix_storage_repository("a", fix)


def prepare(engine: Engine, disk: str) -> Any:
    engine.run_fix_here("a", engine.check_storage_repository("a")[0])
    return engine.prepare_image("a", disk)


@pytest.mark.parametrize("format", ["localfs-1.0", NFS])
@pytest.mark.parametrize("act", [start_mend, prepare])
def test_nothing_that_was_just_started_loses_its_repository(format: str, act: Callable[[Engine, str], Any]):
    """Every schedule with one change of turn. Found so: a task was started, its note came a moment too late for
    disconnect to see it, and its runner found nothing connected."""
    world, disk = made(format)
    seen = set()
    for tape in explore(changes=1):
        run = world.fork(world.storage.clone())
        run.tape = tape
        job = run.start("one", lambda engine: act(engine, disk))
        leaver = run.start("one", lambda engine: engine.disconnect_storage_repository("a"))
        run.run(Uniform(tape))
        seen.add((outcome(job.error), outcome(leaver.error)))
        after = run.host("one", connect=False)
        if leaver.error is None:
            assert not after.list_repositories()
            assert not after.list_prepared(), "an image stays prepared of which nobody knows any more"
            assert not run.machine("one").mounts.sources
            assert not lost_its_repository(after, job.result, act)
        else:
            assert isinstance(leaver.error, (Refused, StorageError)), leaver.error
            assert list(after.list_repositories()) == ["a"]
    assert {("done", "refused"), ("refused", "done")} <= seen, seen


def outcome(error: DiskwrightError | None) -> str:
    return "done" if error is None else "refused"


def lost_its_repository(engine: Engine, task: Any, act: Callable[[Engine, str], Any]) -> bool:
    if act is not start_mend or task is None:
        return False
    return any(event.get("event") == "failed" for event in engine.task_events(task))


def test_disconnect_says_who_uses_the_mount():
    """By process and command; after it has waited as long as a check may take."""
    world, _ = made(NFS)
    reader, leaver = world.host("one"), world.host("one")
    reader.list_images("a")
    pid = world.process_of(reader).identity.pid
    with pytest.raises(StorageError, match=rf"process {pid} \(direct\)"):
        leaver.disconnect_storage_repository("a")
    reader.close()
    leaver.disconnect_storage_repository("a")
    with pytest.raises(NotFound):
        reader.list_images("a")
