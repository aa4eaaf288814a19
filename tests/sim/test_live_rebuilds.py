"""A running disk gets another volume: whoever dies at whatever step, nothing that was flushed is missed."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from engine.doors.hypervisor import Job
from engine.errors import Conflict, ImageBusy, OutcomeUnknown, Refused, Stopped, StorageError, ToolFailed
from engine.fixes import rebuild
from engine.host import holding, machines, mirroring, paths
from engine.host.live import switches, watchdog
from engine.host.state import HostState
from engine.tags import chains, changes
from engine.triage import rules
from sim.disk.files import Fault
from sim.explore.cases.driver import Driver
from sim.explore.cases.fixtures import images
from sim.explore.together.live import MACHINE, POWER, VERB
from sim.explore.together.rebuilds import BOTH, rebuilt
from sim.hosts.crash import Crashed
from sim.hosts.doors import spawning
from sim.hosts.machine import SimMachine
from sim.hosts.processes import SimProcess
from sim.hosts.world import NFS
from tests.sim.live_kit import start

_OTHER = images.a_flat_disk_that_wants_the_other_format
_FLAT = images.an_overlay_that_wants_to_be_flat


def problems(*arguments: Any, **named: Any) -> list[str]:
    played = list(rebuilt(*arguments, **named))
    assert len(played) > 1, "nobody died"
    return [problem for run in played if run is not None for problem in run.problems]


@pytest.mark.parametrize(
    ("death", "every", "first"), [(VERB, 41, 30), (MACHINE, 37, 20), (POWER, 29, 9), (BOTH, 45, 70)]
)
def test_nothing_is_missed_whoever_dies(death: str, every: int, first: int):
    """Some of the steps."""
    assert not problems(_OTHER, deaths=(death,), every=every, first=first)


@pytest.mark.slow
def test_nothing_is_missed_at_any_step():
    """More of them, of a disk that stands on a snapshot, on a server. All of them: ``make live``."""
    assert not problems(_FLAT, NFS, every=19, first=4)


def early(monkeypatch: pytest.MonkeyPatch) -> None:
    publish = mirroring._publish

    def first(attempt: Any, entry: Any, machine: Any, fresh: Any, lost: Any) -> None:
        attempt.publish(lambda record: rebuild.on_another(record, fresh, "", lost=lost))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(attempt, "publish", lambda derive: None)
            publish(attempt, entry, machine, fresh, lost)

    monkeypatch.setattr(mirroring, "_publish", first)


def late(monkeypatch: pytest.MonkeyPatch) -> None:
    wait = mirroring._wait

    def finished(context: Any, monitor: Any, job: str, status: str) -> None:
        wait(context, monitor, job, status)
        if status == "pending":
            monitor.finish(job)

    monkeypatch.setattr(mirroring, "_wait", finished)


def no_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawning, "watch", lambda process, arguments: None)


def no_second_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switches, "see_to", lambda *arguments, **named: None)


def path_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "take_away", lambda context, run: None)


def path_never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirroring, "_lead", lambda *arguments: None)


@pytest.mark.parametrize(("plant", "found", "death", "first"), [
    (early, "the disk does not show", POWER, 70),
    (late, "the disk does not show", VERB, 68),
    (no_watchdog, "its guest waits", VERB, 67),
    (no_second_watchdog, "its guest waits", BOTH, 67),
    (path_stays, "the disk does not show", VERB, 72),
    (path_never, "cannot be started anew", VERB, 70),
])  # fmt: skip
def test_planted_bugs_are_found(plant: Any, found: str, death: str, first: int, monkeypatch: pytest.MonkeyPatch):
    """The record before the machine is pending; after it was finished; nobody who goes on for a runner that is dead, or
    for a watchdog that is as well; a path that leads to the old volume meanwhile, or never to the new one."""
    plant(monkeypatch)
    played = rebuilt(_OTHER, deaths=(death,), first=first)
    assert any(found in problem for run in played if run is not None for problem in run.problems)


def _beside(driver: Driver) -> str:
    """A file as long as the disk."""
    with driver.engine().doors.files.create("/srv/beside.raw") as handle:
        handle.truncate(images.SIZE)
    return "/srv/beside.raw"


def a_rebuild(driver: Driver) -> Any:
    return next(fix for fix in driver.engine().check_storage_repository("a") if fix.rule in rules.BESIDE)


def test_through_libvirt_it_is_not_offered(driver: Driver):
    """It would end the job itself: asked for all the same the disk is in use. By its own monitor it is."""
    _OTHER(driver)
    disk, engine = driver.named["disk"], driver.engine()
    fix = a_rebuild(driver)
    start(driver, disk, "libvirt:qemu:///system/machine")
    assert not engine.check_storage_repository("a")
    with pytest.raises(ImageBusy):
        engine.run_fix_here("a", fix)
    monitor = engine.doors.hypervisors.connect("libvirt:qemu:///system/machine")
    with pytest.raises(Refused, match="no moment"):
        monitor.mirror("job", "node", "target")


def test_the_plan_tells_what_it_costs_the_guest(driver: Driver):
    """The guest is not stopped for it, and there is room for both volumes."""
    _OTHER(driver)
    start(driver, driver.named["disk"])
    fix = a_rebuild(driver)
    assert not fix.unavailable
    assert "stands still" in fix.facts[-1] and fix.cost.peak_extra_bytes > 0


def test_one_that_is_stopped_leaves_its_machine_as_it_was(driver: Driver, monkeypatch: pytest.MonkeyPatch):
    """The job is ended, the fresh volume is closed, and the same fix begins anew."""
    _OTHER(driver)
    disk, engine = driver.named["disk"], driver.engine()
    machine = start(driver, disk)

    def stop(process: SimProcess, call: str, what: str) -> Fault:
        if call == "hypervisors.mirror":
            monkeypatch.setattr(engine.context, "stopping", lambda: True)
        return Fault.NONE

    driver.world.process_of(engine).hook = stop
    with pytest.raises(Stopped):
        engine.run_fix_here("a", a_rebuild(driver))
    monkeypatch.undo()
    driver.world.process_of(engine).hook = None
    assert (len(machine.nodes()), machine.jobs(), len(engine.list_prepared())) == (1, {}, 1)
    engine.run_fix_here("a", a_rebuild(driver))
    assert [node.format for node in machine.nodes()] == ["qcow2"]


def test_a_job_that_has_ended_and_was_not_forgotten_holds_nothing_up(driver: Driver):
    """Of ours: whoever was to forget it is dead."""
    _OTHER(driver)
    disk, engine = driver.named["disk"], driver.engine()
    machine = start(driver, disk)
    machine.add_overlay("dw-target", machine._chain[0]._replace(path=_beside(driver)))
    machine.mirror("dw-target", machine.nodes()[0].name, "dw-target")
    machine.cancel("dw-target")
    machine.close_node("dw-target")
    engine.run_fix_here("a", a_rebuild(driver))
    assert [node.format for node in machine.nodes()] == ["qcow2"] and not machine.jobs()


def test_a_watchdog_stays_where_nobody_can_end_the_switch(driver: Driver, monkeypatch: pytest.MonkeyPatch):
    """The storage is away in that moment, and for minutes: whoever has begun it ends, and the watchdog tries on."""
    _OTHER(driver)
    disk, engine = driver.named["disk"], driver.engine()
    machine = start(driver, disk)

    def away(*arguments: Any) -> None:
        raise StorageError("the storage is away")

    monkeypatch.setattr(mirroring, "_publish", away)
    monkeypatch.setattr(mirroring, "take_up", away)
    with pytest.raises(StorageError):
        engine.run_fix_here("a", a_rebuild(driver))
    host = driver.world.process_of(engine).host
    assert [one.name for one in host.processes.values()].count(switches.WATCHDOG) == 1
    monkeypatch.undo()
    take_up, since = mirroring.take_up, driver.world.now

    def back_later(*arguments: Any) -> None:
        if driver.world.now < since + 600:
            raise StorageError("the storage is away")
        take_up(*arguments)

    monkeypatch.setattr(mirroring, "take_up", back_later)
    driver.world.process_of(engine).end(killed=True)
    driver.world.direct.run_waiting()
    assert not machine.jobs() and len(machine.nodes()) == 1


def test_a_machine_that_cannot_go_on_in_the_fresh_volume_keeps_the_old_one(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
):
    """Its record is set back, the path leads there again, and nothing that it writes is missed."""
    _OTHER(driver)
    disk, engine = driver.named["disk"], driver.engine()
    machine = start(driver, disk)
    before = engine.list_prepared()[0].path

    def fail(self: SimMachine, job: str) -> None:
        self.cancel(job)

    monkeypatch.setattr(SimMachine, "finish", fail)
    with pytest.raises(ToolFailed, match="could not go on"):
        engine.run_fix_here("a", a_rebuild(driver))
    monkeypatch.undo()
    assert [entry.path for entry in engine.list_prepared()] == [before]
    machine.write(0, bytes(range(256)) * 16)
    machine.flush()
    shown = machine.read()
    machine.stop()
    engine.teardown_image("a", disk)
    assert SimMachine.read(start(driver, disk)) == shown


def test_what_is_between_two_volumes_waits_for_the_watchdog(driver: Driver, monkeypatch: pytest.MonkeyPatch):
    """The machine is on the old volume, its record on the fresh one, and the storage away: whoever comes first when it
    is back would take the node that nobody uses for the disk, and leaves it alone."""
    _OTHER(driver)
    disk, engine = driver.named["disk"], driver.engine()
    machine = start(driver, disk)
    before = changes.read(engine.context.repository("a"), disk).record.volume

    def away(*arguments: Any) -> None:
        raise StorageError("the storage is away")

    monkeypatch.setattr(SimMachine, "finish", SimMachine.cancel)
    monkeypatch.setattr(mirroring, "_put_back", away)
    with pytest.raises(OutcomeUnknown, match="is not known"):
        engine.run_fix_here("a", a_rebuild(driver))
    monkeypatch.undo()
    with pytest.raises(Refused, match="between two volumes"):
        engine.create_snapshot("a", disk)
    driver.world.process_of(engine).end(killed=True)
    driver.world.direct.run_waiting()
    assert changes.read(driver.world.host("one").context.repository("a"), disk).record.volume == before
    assert not machine.jobs() and len(machine.nodes()) == 1


def test_what_fails_after_the_seal_and_can_be_ended_is_told_as_done(driver: Driver, monkeypatch: pytest.MonkeyPatch):
    """Somebody else has made the machine forget the job: the disk is on the fresh volume, with a holder that has that
    locked, and the old one is deleted."""
    _OTHER(driver)
    disk, engine = driver.named["disk"], driver.engine()
    machine = start(driver, disk)
    forget = SimMachine.forget

    def too_late(self: SimMachine, job: str) -> None:
        forget(self, job)
        raise ToolFailed(f"there is no job {job}")

    monkeypatch.setattr(SimMachine, "forget", too_late)
    engine.run_fix_here("a", a_rebuild(driver))
    record = changes.read(engine.context.repository("a"), disk).record
    assert record.volume is not None and record.last is not None and not record.last.last_error
    assert engine.context.repository("a").volumes.guarded(record.volume) and not record.scrap
    assert [node.format for node in machine.nodes()] == ["qcow2"] and not machine.jobs()


@pytest.mark.parametrize("ends", [True, False])
def test_a_holder_that_fails_after_the_switch_is_told_as_it_is(
    ends: bool, driver: Driver, monkeypatch: pytest.MonkeyPatch
):
    """The disk is on the fresh volume. With another holder there it is done; not so while the old one does not end,
    which has the old volume locked."""
    _OTHER(driver)
    disk, engine = driver.named["disk"], driver.engine()
    start(driver, disk)
    over, end, hold = switches.over, holding.end, machines.hold

    def fail(*arguments: Any, **named: Any) -> Any:
        monkeypatch.setattr(machines, "hold", hold)
        raise StorageError("a holder is in the way")

    def then(*arguments: Any) -> None:
        over(*arguments)
        monkeypatch.setattr(*((machines, "hold", fail) if ends else (holding, "end", fail)))

    monkeypatch.setattr(switches, "over", then)
    with contextlib.nullcontext() if ends else pytest.raises(OutcomeUnknown, match="no holder keeps others away"):
        engine.run_fix_here("a", a_rebuild(driver))
    monkeypatch.setattr(holding, "end", end)
    record = changes.read(engine.context.repository("a"), disk).record
    assert record.volume is not None and str(record.volume.format) == "qcow2"
    assert engine.context.repository("a").volumes.guarded(record.volume) == ends
    assert len(engine.list_prepared()) == 1


def test_a_watchdog_has_a_disk_held_where_it_is(driver: Driver, monkeypatch: pytest.MonkeyPatch):
    """A snapshot was taken of it after that was looked at, and the holder that it got has ended."""
    disk = driver.create("a", 1 << 20)
    start(driver, disk)
    engine = driver.engine()
    repository, host = engine.context.repository("a"), driver.world.process_of(engine).host
    before = changes.read(repository, disk).record.volume
    assert before is not None
    usable = chains.usable

    def then(*arguments: Any) -> list[chains.Link]:
        monkeypatch.undo()
        links = usable(*arguments)
        other = driver.world.host(host.name)
        other.create_snapshot("a", disk)
        holder = host.find(other.list_prepared()[0].process)
        assert holder is not None
        holder.end(killed=True)
        return links

    monkeypatch.setattr(chains, "usable", then)
    with pytest.raises(Conflict, match="changed at the same moment"):
        mirroring.hold_there(engine.context, engine.state, "a", disk, before.id)
    volume = changes.read(repository, disk).record.volume
    assert volume is not None and volume != before and repository.volumes.guarded(volume)
    assert len(engine.list_prepared()) == 1


def test_a_watchdog_does_nothing_for_a_preparation_that_is_gone(driver: Driver, monkeypatch: pytest.MonkeyPatch):
    """The machine was killed and the disk prepared anew before the watchdog could do anything: that leads its path, and
    has its record, as if there had been no switch."""
    _OTHER(driver)
    disk, engine = driver.named["disk"], driver.engine()
    machine = start(driver, disk)
    process = driver.world.process_of(engine)

    def dies(*arguments: Any) -> None:
        process.kill()

    monkeypatch.setattr(mirroring, "_publish", dies)
    with pytest.raises(Crashed):
        engine.run_fix_here("a", a_rebuild(driver))
    monkeypatch.undo()
    machine.kill()
    other = driver.world.host(process.host.name)
    other.teardown_image("a", disk)
    entry = other.prepare_image("a", disk)
    record = changes.read(other.context.repository("a"), disk)
    driver.world.direct.run_waiting()
    assert changes.read(other.context.repository("a"), disk) == record and other.list_prepared() == [entry]


def test_a_watchdog_tries_on_while_the_notes_of_its_host_cannot_be_read(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
):
    """Its runner is dead, and its guest waits; whether a switch is over is not known meanwhile."""
    _OTHER(driver)
    disk, engine = driver.named["disk"], driver.engine()
    machine, process = start(driver, disk), driver.world.process_of(engine)

    def dies(*arguments: Any) -> None:
        process.kill()

    monkeypatch.setattr(mirroring, "_publish", dies)
    with pytest.raises(Crashed):
        engine.run_fix_here("a", a_rebuild(driver))
    monkeypatch.undo()
    since = driver.world.now
    connections, entries = HostState.connections, HostState.entries

    def later(read: Any) -> Any:
        def call(state: HostState) -> Any:
            if driver.world.now < since + 10:
                raise StorageError("it cannot be read")
            return read(state)

        return call

    monkeypatch.setattr(HostState, "entries", later(entries))
    assert not watchdog._is_over(driver.world.host(process.host.name).state, disk, "fresh", "old")
    monkeypatch.setattr(HostState, "connections", later(connections))
    driver.world.direct.run_waiting()
    assert not machine.jobs() and len(machine.nodes()) == 1


def test_a_watchdog_leaves_a_runner_alone_that_is_past_its_switch(driver: Driver):
    """However long that goes on with something else."""
    engine = driver.engine()
    runner = driver.world.process_of(engine).host.process("runner")
    watchdog.wait(engine.doors, runner.identity, 60.0, lambda: True)
    assert not runner.dead


def test_a_job_of_somebody_else_and_an_interrupted_snapshot_are_refused(driver: Driver, monkeypatch: Any):
    """With nothing done."""
    _OTHER(driver)
    disk, engine = driver.named["disk"], driver.engine()
    start(driver, disk)
    fix = a_rebuild(driver)
    generation = changes.read(engine.context.repository("a"), disk).generation
    find = machines.find
    monkeypatch.setattr(machines, "find", lambda *arguments: find(*arguments)._replace(lags=True))
    with pytest.raises(Refused, match="snapshot was interrupted"):
        engine.run_fix_here("a", fix)
    monkeypatch.undo()
    monkeypatch.setattr(SimMachine, "jobs", lambda self: {"other": Job("backup", "running")})
    with pytest.raises(Refused, match="job under way"):
        engine.run_fix_here("a", fix)
    assert changes.read(engine.context.repository("a"), disk).generation == generation


def test_a_watchdog_kills_a_runner_that_stands_still(driver: Driver, monkeypatch: pytest.MonkeyPatch):
    """After seconds where it was stopped by a signal, after a minute where it does not get on."""
    engine = driver.engine()
    host = driver.world.process_of(engine).host
    for frozen, seconds in ((True, 5), (False, 65)):
        runner = host.process("runner")
        runner.frozen_until = float("inf") if frozen else None
        since = driver.world.now
        watchdog.wait(engine.doors, runner.identity, 60.0, lambda: False)
        assert runner.dead and driver.world.now - since < seconds
