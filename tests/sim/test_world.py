"""The engine, unchanged, on simulated storage: directly and scheduled, with runners, holders and crashes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.api import Engine
from engine.data.model import RepositoryReport, Risk, Status
from engine.doors.processes import ProcessState
from engine.errors import DiskwrightError, ImageBusy, Overtaken
from sim.disk.files import Fault
from sim.disk.profiles import POSIX, crash_states, pending_count
from sim.disk.storage import SimStorage
from sim.hosts.crash import FILE_EFFECTS, HANDLE_EFFECTS, Crashed
from sim.hosts.faults import Faults
from sim.hosts.guard import watched
from sim.hosts.processes import SimProcess
from sim.hosts.tape import Tape
from sim.hosts.world import World

MiB = 1 << 20
SIZE = 3 * MiB
EFFECTS = {f"files.{name}" for name in FILE_EFFECTS} | {f"handle.{name}" for name in HANDLE_EFFECTS}


@pytest.fixture
def world() -> World:
    made = World()
    made.create("a", "b")
    return made


def write(engine: Engine, repo: str, disk: str, offset: int, data: bytes) -> None:
    """Write into a disk as its machine would: prepared, through the image tool."""
    from engine.data.model import VolumeFormat
    from engine.doors.images import Layer

    engine.prepare_image(repo, disk)
    repository = engine.context.repository(repo)
    entry = repository.tags.read(disk)
    assert entry is not None and entry.record is not None and entry.record.volume is not None
    volume = entry.record.volume
    assert volume.format is VolumeFormat.QCOW2 or not volume.parent
    chain = [repository.volumes.layer(volume)]
    while volume.parent:
        below = repository.tags.read(volume.parent)
        assert below is not None and below.record is not None and below.record.volume is not None
        volume = below.record.volume
        chain.append(Layer(repository.volumes.layer(volume).path, volume.format))
    session = engine.doors.images.open_session(chain, True, False)
    try:
        session.write(offset, data)
        session.flush()
    finally:
        session.close()
    engine.teardown_image(repo, disk)


def content(engine: Engine, repo: str, image: str) -> bytes:
    engine.export_image(repo, image, "/srv/export", "raw")
    data = engine.doors.files.read_file("/srv/export", SIZE)
    engine.doors.files.unlink("/srv/export")
    return data


def settle(engine: Engine, repo: str) -> RepositoryReport:
    for _ in range(40):
        report = engine.inspect_repository(repo)
        todo = [fix for fix in report.fixes if not fix.waits_for and fix.risk is not Risk.LOSES_DATA]
        if not todo:
            return report
        engine.run_fix_here(repo, todo[0])
    raise AssertionError("no end of fixes")


def test_verbs_work_directly(world: World):
    """Create, write, snapshot, copy elsewhere, remove and merge: contents are kept, and no real file is touched."""
    with watched():
        engine = world.host("one")
        disk = engine.create_virtual_disk("a", SIZE)
        write(engine, "a", disk, MiB, b"hello" * 1000)
        snapshot = engine.create_snapshot("a", disk)
        write(engine, "a", disk, 2 * MiB, b"world" * 1000)
        before = content(engine, "a", disk), content(engine, "a", snapshot)
        assert before[0][MiB : MiB + 5] == before[1][MiB : MiB + 5] == b"hello"
        assert before[0][2 * MiB : 2 * MiB + 5] == b"world" and not any(before[1][2 * MiB :])
        engine.copy_image("b", snapshot)
        for task in engine.list_tasks():
            engine.wait_for_task(task)
        assert content(engine, "b", snapshot) == before[1]
        engine.remove_image("a", snapshot)
        settle(engine, "a")
        assert content(engine, "a", disk) == before[0]
        settle(engine, "b")


def test_a_spawned_runner_does_its_work_when_somebody_waits(world: World):
    """fix_storage_repository returns a task that is RUNNING; waiting lets it run; its log tells what it did; its
    leases came with it and are free afterwards."""
    engine = world.host("one")
    disk = engine.create_virtual_disk("a", SIZE)
    snapshot = engine.create_snapshot("a", disk)
    copy = engine.copy_image("b", snapshot, options={"auto_fix": False})
    (fix,) = engine.check_storage_repository("b")
    task = engine.fix_storage_repository("b", fix)
    assert engine.doors.processes.state(task.process) is ProcessState.RUNNING
    assert engine.context.repository("b").leases.held(copy)
    assert [one.id for one in engine.list_tasks()] == [task.id]
    engine.wait_for_task(task)
    assert [event["event"] for event in engine.task_events(task)] == ["start", "done", "end"]
    assert not engine.context.repository("b").leases.held(copy)
    assert engine.get_image_status("b", copy).status is Status.OPTIMIZED
    assert engine.list_tasks() == []


def test_a_prepared_image_is_held_by_a_process_of_its_own(world: World):
    """The holder outlives the command that started it, and its death means not prepared."""
    engine = world.host("one")
    disk = engine.create_virtual_disk("a", SIZE)
    prepared = engine.prepare_image("a", disk)
    world.process_of(engine).end(killed=True)
    engine = world.host("one")
    assert engine.list_prepared() == [prepared]
    with pytest.raises(ImageBusy):
        world.host("two").prepare_image("a", disk)
    world.bury("one")
    engine = world.host("one")
    assert engine.list_prepared() == []
    assert not engine.context.repository("a").leases.held(disk)


def test_a_fork_is_a_world_of_its_own(world: World):
    """It starts from the given state with the same connections, and neither world sees what the other does then."""
    engine = world.host("one")
    disk = engine.create_virtual_disk("a", SIZE)
    other = world.fork(world.storage.clone())
    mine = other.host("one")
    extra = mine.create_virtual_disk("a", SIZE)
    assert extra != disk
    assert {image.id for image in mine.list_images("a")} == {disk, extra}
    assert {image.id for image in engine.list_images("a")} == {disk}
    assert {image.id for image in mine.list_images("b")} == set()


def test_the_least_unused_ids_repeat_for_equal_states():
    """Two runs from one state make equal trees; ids that are mentioned anywhere are never given again."""
    world = World(least_ids=True)
    world.create("a")
    world.host("one").create_virtual_disk("a", SIZE)
    prints = []
    for _ in range(2):
        fork = world.fork(world.storage.clone())
        engine = fork.host("two")
        engine.create_virtual_disk("a", SIZE)
        assert len(engine.list_images("a")) == 2
        prints.append(fork.storage.fingerprint())
    assert prints[0] == prints[1]


class Shots:
    """A copy of the storage before each effect of one run."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.taken: list[SimStorage] = []

    def __call__(self, process: SimProcess, call: str, what: str) -> Fault:
        if call in EFFECTS and process.files.storage_of(what.partition(" ")[0]) is self.world.storage:
            self.taken.append(self.world.storage.clone())
        return Fault.NONE


def shots_of_a_snapshot() -> tuple[World, str, str, list[SimStorage]]:
    """(a world, the disk, its snapshot, the storage before each effect of making it and after all of them)."""
    world = World(least_ids=True)
    world.create("a")
    disk = world.host("one").create_virtual_disk("a", SIZE)
    world.host("two")
    world.storage.settle()
    run = world.fork(world.storage.clone())
    shots = Shots(run)
    run.hook = shots
    snapshot = run.host("one").create_snapshot("a", disk)
    run.hook = None
    return run, disk, snapshot, [*shots.taken, run.storage]


def recovered(world: World, storage: SimStorage, disk: str, snapshot: str) -> set[str]:
    """The images that another host has after fixing everything. AssertionError: not all of them are whole."""
    report = settle(world.fork(storage).host("two"), "a")
    ids = {image.id for image in report.images if not image.hidden and not image.removed}
    assert disk in ids and ids <= {disk, snapshot}
    assert all(image.status in (Status.OPTIMIZED, Status.DEGRADED) for image in report.images)
    assert not report.fixes
    return ids


@pytest.mark.parametrize("profile", ["posix", "journal"])
def test_every_crash_state_of_a_snapshot_is_recovered(profile: str):
    """Power cut before each effect, in every legal state: another host finds all images, fixes, and nothing is left;
    never more than eight operations are pending."""
    world, disk, snapshot, shots = shots_of_a_snapshot()
    assert max(map(pending_count, shots)) <= 8
    seen: dict[bytes, SimStorage] = {}
    for shot in shots[:-1]:
        for state in crash_states(shot, profile):
            seen.setdefault(state.fingerprint, state.storage)
    assert len(seen) > 20
    for storage in seen.values():
        recovered(world, storage, disk, snapshot)
    for state in crash_states(shots[-1], profile):
        assert snapshot in recovered(world, state.storage, disk, snapshot), f"acknowledged and lost: {state.lost}"


@pytest.mark.parametrize("call", ["SimHandle.sync", "SimFiles.sync_directory"])
def test_the_model_notices_an_engine_that_does_not_sync(call: str, monkeypatch: pytest.MonkeyPatch):
    """With one kind of sync doing nothing, some state after the acknowledgement has lost the snapshot or is bad."""
    monkeypatch.setattr(f"sim.disk.files.{call}", lambda *arguments: None)
    world, disk, snapshot, shots = shots_of_a_snapshot()
    monkeypatch.undo()
    bad: list[object] = []
    for state in crash_states(shots[-1], POSIX._replace(max_pending=20)):
        try:
            if snapshot not in recovered(world, state.storage, disk, snapshot):
                bad.append(state.lost)
        except (AssertionError, DiskwrightError) as error:
            bad.append(error)
        if bad:
            break
    assert bad


def test_a_crash_in_a_hook_ends_the_process(world: World):
    """A hook that kills leaves what was done, and the engine of that process is dead for good."""
    count = 0

    def kill(process: SimProcess, call: str, what: str) -> Fault:
        nonlocal count
        count += call in EFFECTS
        if count == 12:
            process.kill()
        return Fault.NONE

    world.host("one")
    other = world.fork(world.storage.clone())
    other.host("two")
    other.hook = kill
    engine = other.host("one")
    with pytest.raises(Crashed):
        engine.create_virtual_disk("a", SIZE)
    with pytest.raises(Crashed):
        engine.list_images("a")
    other.hook = None
    assert settle(other.host("two"), "a").fixes == ()


@pytest.mark.parametrize("seed", range(6))
def test_two_hosts_that_change_one_disk_agree_in_the_end(seed: int):
    """Snapshots of one disk from two hosts under any schedule: each is there or was refused, the chain is in order."""
    world = World(Tape.seeded(seed))
    world.create("a")
    disk = world.host("one").create_virtual_disk("a", SIZE)
    world.host("two")
    jobs = [world.start(host, lambda engine: engine.create_snapshot("a", disk)) for host in ("one", "two")]
    world.run(world.pct(3, 150))
    assert all(job.done for job in jobs)
    made = {job.result for job in jobs if job.result}
    assert all(job.error is None or isinstance(job.error, ImageBusy | Overtaken) for job in jobs)
    report = settle(world.host("three"), "a")
    assert {image.id for image in report.images if not image.hidden} == made | {disk}
    assert {image.status for image in report.images} <= {Status.OPTIMIZED, Status.DEGRADED}


def test_a_task_is_stopped_by_another_process_of_its_host():
    """SIGTERM reaches the runner at its next step, whatever runs between; its work is kept and can be finished."""

    def stop(engine: Engine) -> None:
        for _ in range(300):  # it does not sleep: time passes only when nobody can run
            if engine.list_tasks():
                engine.stop_task("b", snapshot)
                return

    stopped = 0
    for seed in range(20):
        world = World(Tape.seeded(seed))
        world.create("a", "b")
        engine = world.host("one")
        snapshot = engine.create_snapshot("a", engine.create_virtual_disk("a", SIZE))
        world.start("one", copy_to_b(snapshot))
        job = world.start("one", stop)
        world.run()
        assert job.done
        engine = world.host("one")
        assert not engine.list_tasks()
        stopped += engine.get_image_status("b", snapshot).status is Status.BROKEN
        settle(engine, "b")
        assert {image.status for image in engine.list_images("b")} == {Status.OPTIMIZED}
    assert stopped


def copy_to_b(image: str) -> Callable[[Engine], str]:
    return lambda engine: engine.copy_image("b", image)


@pytest.mark.parametrize("seed", range(8))
def test_faults_end_in_errors_of_the_engine_or_in_death(seed: int):
    """Whatever strikes a copy and a snapshot, no other exception comes out, and the rest is fixed by another host."""
    world = World(Tape.seeded(seed))
    world.create("a", "b")
    engine = world.host("one")
    disk = engine.create_virtual_disk("a", SIZE)
    snapshot = engine.create_snapshot("a", disk)
    world.host("two")
    engine.close()

    def copy(engine: Engine) -> None:
        engine.copy_image("b", snapshot)
        for task in engine.list_tasks():
            engine.wait_for_task(task)

    world.start("one", copy)
    world.start("two", lambda engine: engine.create_snapshot("a", disk))
    world.run(faults=Faults(("eio", "enospc", "estale", "short", "kill", "freeze", "clock", "power"), 100, 3))
    world.storage.settle()
    for host in list(world.hosts):
        world.bury(host)
    rescuer = world.host("three")
    for repo in "ab":
        report = settle(rescuer, repo)
        assert not [fix for fix in report.fixes if not fix.waits_for]
        assert all(image.status is not Status.BROKEN for image in report.images), report.images
    assert {image.id for image in rescuer.list_images("a")} >= {disk, snapshot}


def test_the_whole_engine_is_deterministic():
    """The same seed gives the same trace, call for call, with runners, faults and schedules; and so does its record."""

    def play(tape: Tape) -> World:
        world = World(tape)
        world.create("a", "b")
        engine = world.host("one")
        disk = engine.create_virtual_disk("a", SIZE)
        snapshot = engine.create_snapshot("a", disk)
        world.host("two")
        world.start("one", lambda engine: engine.copy_image("b", snapshot))
        world.start("two", lambda engine: engine.create_snapshot("a", disk))
        world.run(faults=Faults(("eio", "enospc", "kill", "freeze"), 150, 2))
        return world

    for seed in range(3):
        first, second = play(Tape.seeded(seed)), play(Tape.seeded(seed))
        assert first.trace.lines == second.trace.lines and len(first.trace.lines) > 50
        assert play(Tape(first.tape.values)).trace.digest == first.trace.digest
        assert first.storage.fingerprint() == second.storage.fingerprint()


def test_an_error_of_the_engine_is_the_result_of_its_job(world: World):
    """What a verb refuses is told by the job and fails nothing else."""
    world.host("one")
    job = world.start("one", lambda engine: engine.create_snapshot("a", "0" * 32))
    world.run()
    assert job.done and isinstance(job.error, DiskwrightError)
