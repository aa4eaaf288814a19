"""A snapshot, a resize, a copy or a merge under a running machine: whoever dies at whatever step, nothing that was
flushed is missed."""

from __future__ import annotations

from typing import Any

import pytest

from engine.data.model import Status, aligned
from engine.data.records import Record
from engine.doors.hypervisor import Move
from engine.errors import BadRequest, ImageBusy, Refused, Stopped, ToolFailed
from engine.gate import gate
from engine.host import merging, paths
from engine.tags import changes, leasing
from engine.triage import rules
from engine.verbs import resize, snapshot
from engine.verbs.live import resize as live_resize
from sim.disk.content import Content
from sim.disk.files import Fault
from sim.explore.cases.driver import Driver, MiB, read
from sim.explore.cases.fixtures import images
from sim.explore.together.live import (
    DEATHS,
    MACHINE,
    MERGE,
    POWER,
    RESIZE,
    SNAPSHOT,
    VERB,
)
from sim.hosts.crash import Crashed
from sim.hosts.machine import UNSAFE, SimMachine
from sim.hosts.processes import SimProcess
from sim.hosts.world import NFS, World
from tests.sim.live_kit import MONITOR, a_merge, is_found, start, wrong


@pytest.mark.parametrize(("death", "every"), [(VERB, 11), (MACHINE, 13), (POWER, 9)])
def test_nothing_is_missed_whoever_dies(death: str, every: int):
    """Some of the steps, of a raw disk, whose format changes."""
    assert not wrong(SNAPSHOT, images.a_raw_disk, deaths=(death,), every=every, first=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prepare", "format", "every"), [(images.a_raw_disk, "localfs-1.0", 5), (images.a_chain, NFS, 11)]
)
def test_nothing_is_missed_at_any_step(prepare: Any, format: str, every: int):
    """More of them, with a chain, on a server. All of them: ``make live``."""
    assert not wrong(SNAPSHOT, prepare, format, DEATHS, every, 2)


@pytest.mark.parametrize("prepare", [images.a_raw_disk, images.a_chain])
def test_a_disk_is_longer_or_is_not_whoever_dies(prepare: Any):
    """Its machine and its record agree in the end, and what was written behind its old end is there."""
    assert not wrong(RESIZE, prepare, every=11, first=2)


@pytest.mark.slow
def test_a_disk_is_longer_or_is_not_at_any_step():
    """More of them, on a server. All of them: ``make live``."""
    assert not wrong(RESIZE, images.a_raw_disk, NFS, every=6)


def test_a_merge_beside_a_machine_loses_nothing():
    """Some of the steps, with a snapshot below what is merged."""
    assert not wrong(MERGE, images.a_removed_middle, every=61, first=35)


def test_a_merge_further_down_loses_nothing_and_changes_no_snapshot():
    """Some of the steps of one of two layers that the disk stands on."""
    assert not wrong(MERGE, images.a_removed_one_further_down, deaths=(VERB, MACHINE), every=83, first=47)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prepare", "every"), [(images.a_removed_snapshot, 47), (images.a_removed_one_at_the_bottom, 31)]
)
def test_a_merge_beside_a_machine_loses_nothing_at_any_step(prepare: Any, every: int):
    """More of them, on a server, with nothing below. All of them: ``make live``."""
    assert not wrong(MERGE, prepare, NFS, DEATHS, every)


def strong_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    original = snapshot.frozen_record

    def strong(*arguments: Any) -> Record:
        return original(*arguments)._replace(strong=True, operation=None)

    monkeypatch.setattr(snapshot, "frozen_record", strong)


def path_first(monkeypatch: pytest.MonkeyPatch) -> None:
    renew, extend = paths.renew, paths.extend

    def early(*arguments: Any) -> None:
        monkeypatch.setattr(paths, "extend", extend)
        renew(*arguments)
        monkeypatch.setattr(paths, "extend", early)

    monkeypatch.setattr(paths, "extend", early)


def path_never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "renew", paths.extend)


def nobody_below(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "unsealed", lambda below, overlay: False)


@pytest.mark.parametrize(("plant", "found"), [
    (strong_at_once, "the snapshot"),
    (path_never, "the disk does not show"),
    (path_first, ""),
    (nobody_below, ""),
])  # fmt: skip
def test_planted_bugs_are_found(plant: Any, found: str, monkeypatch: pytest.MonkeyPatch):
    """S strong before the switch; a path that stays behind, or goes ahead; a gate that asks nobody who writes below."""
    plant(monkeypatch)
    assert is_found(found, SNAPSHOT, images.a_disk, deaths=(VERB,), every=3)


def recorded_first(monkeypatch: pytest.MonkeyPatch) -> None:
    original = live_resize._make_longer

    def late(context: Any, repository: Any, machine: Any, disk: str, volume: Any, size: int) -> None:
        record = changes.read(repository, disk).record
        changes.change(repository, disk, lambda now: resize.longer(context, now, record, volume, size))
        original(context, repository, machine, disk, volume, size)

    monkeypatch.setattr(live_resize, "_make_longer", late)


def behind_its_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimMachine, "grow", lambda self, node, size: None)


@pytest.mark.parametrize(("plant", "found"), [
    (recorded_first, "the disk is broken"),
    (behind_its_back, "was not made"),
])  # fmt: skip
def test_planted_bugs_of_a_resize_are_found(plant: Any, found: str, monkeypatch: pytest.MonkeyPatch):
    """The record before the machine. A machine that does nothing is not believed."""
    plant(monkeypatch)
    assert is_found(found, RESIZE, images.a_raw_disk, deaths=(POWER,), every=5, first=14)


def never_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "_is_written", lambda *arguments: -1)
    monkeypatch.setattr(merging, "_make_durable", lambda *arguments: None)


def not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "_merge", lambda attempt, machine, run, links: None)


@pytest.mark.parametrize(("plant", "prepare", "deaths"), [
    (never_asked, images.a_removed_snapshot, (MACHINE,)),
    (not_waited_for, images.a_removed_snapshot, ()),
    (not_waited_for, images.a_removed_one_further_down, ()),
])  # fmt: skip
def test_planted_bugs_of_a_merge_are_found(
    plant: Any, prepare: Any, deaths: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
):
    """A machine that leaves out a layer while what it has of that is in its caches; a merge recorded at once. (Further
    down the first is none: the machine writes its caches back as it opens that layer for reading again.)"""
    plant(monkeypatch)
    assert is_found("the disk does not show", MERGE, prepare, deaths=deaths, every=2, first=50)


def test_a_monitor_that_is_gone_or_of_another_machine_changes_nothing(driver: Driver):
    """A sentence each, and the machine still has its holder."""
    one, other = driver.create("a", MiB), driver.create("a", MiB)
    engine = driver.engine()
    machine = start(driver, one)
    before = engine.list_prepared()
    engine.prepare_image("a", other)
    with pytest.raises(Refused, match="does not have image"):
        engine.attach_monitor("a", other, MONITOR)
    with pytest.raises(ToolFailed, match="does not answer"):
        engine.attach_monitor("a", other, "qmp:/run/nobody")
    machine.kill()
    with pytest.raises(ToolFailed, match="does not answer"):
        engine.create_snapshot("a", one)
    with pytest.raises(ToolFailed, match="does not answer"):
        engine.resize_disk("a", one, 2 * MiB)
    assert [entry for entry in engine.list_prepared() if entry.image == one] == before
    assert [report.mutable for report in engine.list_images("a")] == [True, True]


def test_a_monitor_can_be_told_later(driver: Driver):
    """Attach looks whether the machine has the disk; after that a snapshot is taken beside it."""
    disk = driver.create("a", MiB)
    engine = driver.engine()
    entry = engine.prepare_image("a", disk)
    host = driver.world.process_of(engine).host
    machine = SimMachine(host, entry.path, entry.format, monitor=MONITOR)
    with pytest.raises(ImageBusy, match="attach"):
        engine.create_snapshot("a", disk)
    with pytest.raises(ImageBusy, match="attach"):
        engine.resize_disk("a", disk, 2 * MiB)
    engine.attach_monitor("a", disk, MONITOR)
    for _ in range(3):
        engine.create_snapshot("a", disk)
    machine.write(0, images.data(1))
    machine.stop()
    engine.teardown_image("a", disk)
    assert len(engine.list_images("a")) == 4


def test_a_longer_disk_is_told_its_machine_and_no_shorter_one(driver: Driver):
    """With a snapshot below; the same length again is a success, also of what was made longer by the machine alone."""
    disk = driver.create("a", MiB)
    engine = driver.engine()
    machine = start(driver, disk)
    engine.create_snapshot("a", disk)
    for size in (2 * MiB, 2 * MiB, 3 * MiB + 100):
        engine.resize_disk("a", disk, size)
        assert (engine.get_image_status("a", disk).size_bytes, machine.size) == (size, aligned(size))
    with pytest.raises(BadRequest, match="shorter"):
        engine.resize_disk("a", disk, MiB)
    machine.grow(machine.nodes()[0].name, 4 * MiB)
    with pytest.raises(Refused, match="O-GROWN"):
        engine.resize_disk("a", disk, 3 * MiB + 200)
    engine.resize_disk("a", disk, 4 * MiB)
    machine.write(4 * MiB - images.BLOCK, images.data(1))
    machine.stop()
    assert len(engine.list_prepared()) == 1
    engine.teardown_image("a", disk)
    assert engine.get_image_status("a", disk).status == "optimized"


def test_a_machine_that_keeps_what_it_merged_in_its_caches_is_waited_for(driver: Driver):
    """Nobody can tell it to write that; when its guest flushes the same fix goes on, in the job that is there."""
    images.a_removed_snapshot(driver)
    disk, engine = driver.named["disk"], driver.engine()
    machine = start(driver, disk)
    machine.obeys = False
    with pytest.raises(ToolFailed, match="written nothing"):
        engine.run_fix_here("a", a_merge(driver))
    assert engine.list_prepared() and not machine.jobs()
    machine.flush()
    machine.write(0, images.data(9))
    assert a_merge(driver).plan["direction"] == "up"
    with pytest.raises(Refused, match="unfinished merge"):
        engine.create_snapshot("a", disk)
    machine.obeys = True
    engine.run_fix_here("a", a_merge(driver))
    assert len(machine.nodes()) == 1
    driver.fix("a", rules.C_REMOVED)
    machine.stop()
    engine.teardown_image("a", disk)
    assert [image.id for image in engine.inspect_repository("a").images] == [disk]


def test_a_merge_that_somebody_else_has_ended_is_waited_for_too(driver: Driver):
    """The manager of the machine may end its jobs, before all that was merged is in the file: the layer below counts
    until it is."""
    images.a_removed_snapshot(driver)
    engine = driver.engine()
    machine = start(driver, driver.named["disk"])
    machine.obeys = False

    def end_jobs() -> bool:
        for name, job in machine.jobs().items():
            if job.status == "pending":
                machine.finish(name)
        return False

    engine.context.stopping = end_jobs
    with pytest.raises(ToolFailed, match="written nothing"):
        engine.run_fix_here("a", a_merge(driver))
    assert len(machine.nodes()) == 1 and not machine.jobs()
    machine.flush()
    engine.run_fix_here("a", a_merge(driver))
    driver.fix("a", rules.C_REMOVED)


def test_a_merge_that_a_machine_cannot_do_is_refused(driver: Driver):
    """One whose job is another one's, or that has something else below; and beside one that is gone nothing is done."""
    images.a_removed_snapshot(driver)
    disk, engine = driver.named["disk"], driver.engine()
    machine = start(driver, disk)
    fix = a_merge(driver)
    machine.pull("of-somebody", machine.nodes()[0].name, "")
    with pytest.raises(Refused, match="job under way: stream 'of-somebody'"):
        engine.run_fix_here("a", fix)
    machine.kill()
    with pytest.raises(ToolFailed, match="does not answer"):
        engine.run_fix_here("a", fix)
    engine.teardown_image("a", disk)
    driver.fix("a", rules.M_CHAIN)


def test_a_machine_is_known_again_when_nothing_is_below_its_disk_any_more(driver: Driver):
    """It was told to open the layer, and has merged into it all that was below: it uses it all the same."""
    disk = images.a_disk(driver)
    engine = driver.engine()
    machine = start(driver, disk)
    for _ in range(2):
        engine.remove_image("a", engine.create_snapshot("a", disk))
        engine.run_fix_here("a", a_merge(driver))
        driver.fix("a", rules.C_REMOVED)
        assert len(machine.nodes()) == 1
    engine.resize_disk("a", disk, MiB)


def a_snapshot_that_was_the_disk(driver: Driver) -> tuple[SimMachine, Content]:
    """Below a running disk, above one that is removed: the machine has it open by the name of the disk."""
    images.a_chain(driver)
    disk, engine = driver.named["disk"], driver.engine()
    content = driver.image("a", disk).content
    machine = start(driver, disk)
    engine.create_snapshot("a", disk)
    engine.remove_image("a", driver.named["snapshot"])
    return machine, content


def test_a_layer_that_was_opened_by_another_name_is_not_written_to(driver: Driver):
    """qemu would open it anew by that name, which leads to the disk by now. Nothing is done; at rest it is merged."""
    machine, content = a_snapshot_that_was_the_disk(driver)
    disk, engine = driver.named["disk"], driver.engine()
    with pytest.raises(Refused, match="a name that leads elsewhere"):
        engine.run_fix_here("a", a_merge(driver))
    assert engine.list_prepared() and not machine.jobs()
    machine.stop()
    engine.teardown_image("a", disk)
    driver.fix("a", rules.M_CHAIN)
    assert read(engine, "a", disk, content.size).same(content)


def test_a_merge_further_down_needs_the_snapshot_alone(driver: Driver):
    """While another machine reads it too it is in use, and both have their holders; stopped, others may use it."""
    images.a_removed_one_further_down(driver)
    disk, engine = driver.named["disk"], driver.engine()
    machine = start(driver, disk)
    above = a_merge(driver).images[0]
    other = engine.create_virtual_disk("a", images.SIZE, above)
    fix = a_merge(driver)
    entry = engine.prepare_image("a", other)
    with pytest.raises(ImageBusy):
        engine.run_fix_here("a", fix)
    assert {one.image for one in engine.list_prepared()} == {disk, other}
    engine.teardown_image("a", entry.image)
    engine.context.stopping = lambda: bool(machine.jobs())
    with pytest.raises(Stopped):
        engine.run_fix_here("a", a_merge(driver))
    engine.context.stopping = lambda: False
    engine.teardown_image("a", engine.prepare_image("a", other).image)
    engine.run_fix_here("a", a_merge(driver))
    assert len(machine.nodes()) == 3 and engine.list_prepared()
    driver.fix("a", rules.C_REMOVED)


def test_a_snapshot_that_a_machine_still_writes_to_is_given_to_nobody(driver: Driver, monkeypatch):
    """Its merge was stopped, and it was told so, and did not stop. The same fix goes on, in that job."""
    images.a_removed_one_further_down(driver)
    engine = driver.engine()
    machine = start(driver, driver.named["disk"])
    above, repository = a_merge(driver).images[0], engine.context.repository("a")
    engine.context.stopping = lambda: bool(machine.jobs())
    with monkeypatch.context() as deaf:
        deaf.setattr(machine, "cancel", lambda job: None)
        deaf.setattr(machine, "_get_on", lambda job: None)
        with pytest.raises(Stopped):
            engine.run_fix_here("a", a_merge(driver))
        with pytest.raises(ImageBusy):
            leasing.take(engine.doors, repository, [], [above])
    engine.context.stopping = lambda: False
    engine.run_fix_here("a", a_merge(driver))
    assert len(machine.nodes()) == 3
    leasing.take(engine.doors, repository, [], [above]).release()


def test_what_a_job_moves_data_between_is_had_by_nobody_else(driver: Driver):
    """As with qemu: no snapshot, no other length and no second job there, until it has ended."""
    images.a_removed_one_further_down(driver)
    machine = start(driver, driver.named["disk"])
    top, upper, lower, *_ = machine.nodes()
    machine.pull("first", top.name, upper.backing)
    for tried in (
        lambda: machine.switch([Move(top.name, "overlay", "")]),
        lambda: machine.grow(top.name, machine.size),
        lambda: machine.pull("second", upper.name, lower.backing),
    ):
        with pytest.raises(ToolFailed, match="in use by the job first"):
            tried()
    machine.cancel("first")
    machine.grow(top.name, machine.size)
    machine.pull("second", top.name, upper.backing)


def test_a_merge_that_is_stopped_leaves_no_job(driver: Driver):
    """What was moved stays, and the same fix goes on."""
    images.a_removed_snapshot(driver)
    engine = driver.engine()
    machine = start(driver, driver.named["disk"])
    engine.context.stopping = lambda: bool(machine.jobs())
    with pytest.raises(Stopped):
        engine.run_fix_here("a", a_merge(driver))
    assert not machine.jobs()
    engine.context.stopping = lambda: False
    engine.run_fix_here("a", a_merge(driver))
    assert len(machine.nodes()) == 1


def test_a_merge_is_offered_to_a_machine_that_runs_and_once(driver: Driver):
    """Not before it has started, nor while somebody has it merge; again when that one is dead."""
    images.a_removed_snapshot(driver)
    disk = driver.named["disk"]
    engine = driver.engine()
    entry = engine.prepare_image("a", disk, monitor=MONITOR)
    assert not engine.check_storage_repository("a")
    machine = SimMachine(driver.world.process_of(engine).host, entry.path, entry.format, monitor=MONITOR)
    fix = a_merge(driver)
    offered: list[bool] = []

    def look_and_die(process: SimProcess, call: str, what: str) -> Fault:
        if call == "hypervisors.finish":
            offered.append(bool(driver.world.host("one").check_storage_repository("a")))
            process.kill()
        return Fault.NONE

    driver.world.process_of(engine).hook = look_and_die
    with pytest.raises(Crashed):
        engine.run_fix_here("a", fix)
    assert offered == [False]
    again = driver.world.host("one")
    (fix,) = (fix for fix in again.check_storage_repository("a") if fix.rule == rules.M_CHAIN)
    again.run_fix_here("a", fix)
    assert len(machine.nodes()) == 1


def test_a_disk_at_rest_is_no_matter_of_a_machine_that_died_with_its_holder(driver: Driver):
    """Its note stays until somebody looks, and speaks of nobody."""
    disk = images.a_disk(driver)
    engine = driver.engine()
    start(driver, disk).kill()
    (entry,) = engine.list_prepared()
    engine.doors.processes.terminate(entry.process)
    engine.create_snapshot("a", disk)
    assert engine.get_image_status("a", disk).status is Status.OPTIMIZED


def test_a_machine_that_flushes_nothing_merges_nothing(driver: Driver):
    """What is durable below would not be any more above."""
    images.a_removed_snapshot(driver)
    entry = driver.engine().prepare_image("a", driver.named["disk"], monitor=MONITOR)
    host = driver.world.process_of(driver.engine()).host
    SimMachine(host, entry.path, entry.format, UNSAFE, MONITOR)
    with pytest.raises(Refused, match="unsafe"):
        driver.engine().run_fix_here("a", a_merge(driver))


def test_a_merge_runs_as_a_task_beside_its_machine(driver: Driver):
    """As any other fix: the task asks the holder for the leases."""
    images.a_removed_snapshot(driver)
    engine = driver.engine()
    machine = start(driver, driver.named["disk"])
    engine.wait_for_task(engine.fix_storage_repository("a", a_merge(driver), {"irreversible": True}))
    assert len(machine.nodes()) == 1
    assert len(engine.list_prepared()) == 1


def test_what_a_machine_is_started_with_is_told_when_it_dies_in_the_switch(monkeypatch: pytest.MonkeyPatch):
    """The path of a raw disk leads to an overlay then, and the note of who has prepared it says the same."""
    world = World()
    world.create("a")
    driver = Driver(world)
    images.a_raw_disk(driver)
    disk = driver.named["disk"]
    machine = start(driver, disk)

    def die(*given: object) -> None:
        machine.kill()
        raise ToolFailed("the machine has ended")

    monkeypatch.setattr(machine, "switch", die)
    engine = driver.engine()
    with pytest.raises(ToolFailed):
        engine.create_snapshot("a", disk)
    (entry,) = engine.list_prepared()
    assert entry.format == "qcow2" and engine.doors.files.stat(entry.path).size
