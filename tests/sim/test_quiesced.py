"""A snapshot of a running disk with the file systems of its guest frozen: it is of that moment, and whoever dies the
guest goes on."""

from __future__ import annotations

from collections.abc import Callable
from errno import EAGAIN
from typing import Any

import pytest

from engine.data import monitors
from engine.errors import BadRequest, DiskwrightError, Refused, ToolFailed
from engine.host import machines
from engine.verbs.live import snapshot
from sim.disk.content import Content
from sim.disk.files import Fault
from sim.explore.cases.driver import Driver, MiB, read
from sim.explore.cases.fixtures import images
from sim.explore.together.guests import SimGuest
from sim.explore.together.live import LIBVIRT, MACHINE, POWER, SNAPSHOT, VERB
from sim.explore.together.quiescing import MONITORS, Quiesced, quiesced
from sim.hosts.doors import spawning
from sim.hosts.machine import SimMachine
from sim.hosts.processes import SimProcess
from sim.hosts.world import FORMAT
from tests.sim.live_kit import a_merge, start

MONITOR = "qmp:/run/vm,agent=/run/agent"
QUIESCE = {"quiesce": True}


def problems(*arguments: Any, **named: Any) -> list[str]:
    played = list(quiesced(*arguments, **named))
    assert len(played) > 1, "nobody died"
    return [problem for run in played if run is not None for problem in run.problems]


@pytest.mark.parametrize(("death", "every", "first"), [(VERB, 90, 44), (MACHINE, 90, 50), (POWER, 90, 36)])
def test_no_guest_stays_frozen_whoever_dies(death: str, every: int, first: int):
    """Some of the steps."""
    assert not problems(images.a_disk, deaths=(death,), every=every, first=first)


@pytest.mark.slow
def test_no_guest_stays_frozen_at_any_step():
    """More of them, behind libvirt. All of them: ``make live``."""
    assert not problems(images.a_raw_disk, every=29, first=7, monitor=LIBVIRT)


def no_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawning, "watch", lambda process, arguments: None)


def nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "let_go", lambda doors, state: None)


def thawed_early(monkeypatch: pytest.MonkeyPatch) -> None:
    switch = snapshot.switch

    def late(context: Any, state: Any, repository: Any, parts: Any, guest: Any) -> None:
        guest.thaw()
        switch(context, state, repository, parts, guest)

    monkeypatch.setattr(snapshot, "switch", late)


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        (no_watchdog, "its guest stays frozen"),
        (nobody_looks, "its guest stays frozen"),
        (thawed_early, "when its guest was not frozen"),
    ],
)
def test_planted_bugs_are_found(plant: Callable[[Any], None], found: str, monkeypatch: pytest.MonkeyPatch):
    """Nobody who goes on for a process that is dead; nor for its watchdog; a guest that goes on before its machine
    has."""
    plant(monkeypatch)
    played = quiesced(images.a_disk, deaths=(VERB,), first=44, every=50)
    assert any(found in problem for run in played if run is not None for problem in run.problems)


def test_a_snapshot_that_counts_and_was_told_to_nobody_is_judged_too(monkeypatch: pytest.MonkeyPatch):
    """Its process is killed before its last effect; a guest that goes on too early is found in what it left."""
    whole = Quiesced(SNAPSHOT, images.a_disk, FORMAT, MONITORS[0])
    assert whole.judged() is None
    thawed_early(monkeypatch)
    killed = Quiesced(SNAPSHOT, images.a_disk, FORMAT, MONITORS[0], VERB, whole.count).judged()
    assert killed is not None and any("when its guest was not frozen" in problem for problem in killed.problems)


def running(driver: Driver, monitor: str = MONITOR) -> tuple[str, SimMachine]:
    """A disk with some data and its machine."""
    disk = driver.create("a", MiB)
    driver.write("a", disk, 0, b"\1" * 4096)
    return disk, start(driver, disk, monitor)


@pytest.mark.parametrize("trouble", ["no agent is told", "silent", "frozen already", "freezes nothing", "fails"])
def test_what_cannot_be_frozen_is_refused_with_nothing_done(driver: Driver, trouble: str, monkeypatch):
    """The disk is as it was, its machine and its holder too, and no guest waits that we have frozen; without the
    option the snapshot is taken."""
    disk, machine = running(driver, "qmp:/run/vm" if trouble == "no agent is told" else MONITOR)
    machine.has_agent = trouble != "silent"
    if trouble == "frozen already":
        machine.freeze_guest()
    if trouble == "freezes nothing":
        monkeypatch.setattr(machine, "freeze_guest", lambda: 0)
    if trouble == "fails":

        def half() -> int:
            machine.guest_frozen = True
            raise ToolFailed("it took too long")

        monkeypatch.setattr(machine, "freeze_guest", half)
    engine = driver.engine()
    before = engine.inspect_repository("a"), machine.nodes()
    with pytest.raises(ToolFailed if trouble in ("silent", "fails") else Refused):
        engine.create_snapshot("a", disk, None, QUIESCE)
    assert machine.guest_frozen == (trouble == "frozen already")
    assert machine.nodes() == before[1]
    assert [image.id for image in engine.list_images("a")] == [image.id for image in before[0].images]
    assert len(engine.list_prepared()) == 1
    assert not engine.state.frozen()
    assert engine.create_snapshot("a", disk)


@pytest.mark.parametrize("fails", ["files.link", "processes.spawn", "hypervisors.switch"])
@pytest.mark.parametrize("group", [False, True])
def test_a_guest_goes_on_before_what_was_begun_is_taken_back(group: bool, fails: str, driver: Driver):
    """Where the record cannot be published, no holder be started, or the machine not go on in the overlay: its guest
    does not wait for overlays to be closed, nor for the holder that is started then."""
    disk, machine = running(driver)
    engine = driver.engine()
    failed, still = list[str](), list[str]()

    def look(process: SimProcess, call: str, what: str) -> Fault:
        if machine.guest_frozen and call == fails and not failed:
            failed.append(call)
            raise ToolFailed("no") if fails.startswith("hypervisors") else OSError(EAGAIN, "not now")
        if machine.guest_frozen and failed and call in ("processes.spawn", "hypervisors.close_node"):
            still.append(f"{call} {what}")
        return Fault.NONE

    driver.world.process_of(engine).hook = look
    with pytest.raises(DiskwrightError):
        if group:
            engine.create_snapshot_group("a", [disk, driver.create("a", MiB)], None, QUIESCE)
        else:
            engine.create_snapshot("a", disk, None, QUIESCE)
    driver.world.process_of(engine).hook = None
    assert failed and not still
    assert not machine.guest_frozen and len(engine.list_prepared()) == 1


def test_a_guest_that_went_on_by_itself_has_no_such_snapshot(driver: Driver):
    """It is told, what was taken is hidden data, and the disk shows all; the merge is offered."""
    disk, machine = running(driver)
    engine = driver.engine()

    def look(process: SimProcess, call: str, what: str) -> Fault:
        if call == "hypervisors.switch":
            machine.thaw_guest()
        return Fault.NONE

    driver.world.process_of(engine).hook = look
    with pytest.raises(ToolFailed, match="by somebody else"):
        engine.create_snapshot("a", disk, None, QUIESCE)
    driver.world.process_of(engine).hook = None
    assert [image.id for image in engine.list_images("a")] == [disk]
    assert machine.read()[:4096] == b"\1" * 4096
    engine.run_fix_here("a", a_merge(driver))
    assert engine.create_snapshot("a", disk, None, QUIESCE)


def test_an_agent_that_is_gone_when_the_guest_is_to_go_on(driver: Driver):
    """The snapshot does not count; once the agent answers, the next look of this host lets the guest go on, unless its
    watchdog, which tries for an hour, has."""
    disk, machine = running(driver)
    engine = driver.engine()

    def look(process: SimProcess, call: str, what: str) -> Fault:
        machine.has_agent = machine.has_agent and call != "hypervisors.switch"
        return Fault.NONE

    process = driver.world.process_of(engine)
    process.hook = look
    with pytest.raises(ToolFailed, match="does not answer"):
        engine.create_snapshot("a", disk, None, QUIESCE)
    process.hook = None
    assert machine.guest_frozen
    machine.has_agent = True
    process.end(killed=True)
    driver.world.direct.run_waiting()
    assert not machine.guest_frozen
    assert not driver.world.host("one").state.frozen()


def test_all_disks_of_a_group_are_of_the_frozen_moment(driver: Driver):
    """Of one machine, where only one disk tells of the agent, and one beside it that nobody uses."""
    disks = [driver.create("a", MiB) for _ in range(3)]
    engine, told = driver.engine(), (MONITOR, "qmp:/run/vm")
    entries = [engine.prepare_image("a", disk, monitor=one) for disk, one in zip(disks, told, strict=False)]
    host = driver.world.process_of(engine).host
    parts = [SimMachine(host, entry.path, entry.format, nodes=f"#{at}b") for at, entry in enumerate(entries)]
    machine = SimGuest(host, parts, "qmp:/run/vm")
    frozen = list[bool]()

    def look(process: SimProcess, call: str, what: str) -> Fault:
        if call == "hypervisors.switch":
            frozen.append(machine.guest_frozen)
        return Fault.NONE

    driver.world.process_of(engine).hook = look
    assert len(engine.create_snapshot_group("a", disks, None, QUIESCE)) == 3
    assert frozen == [True]
    assert not machine.guest_frozen


def test_backups_are_of_the_frozen_moment(driver: Driver):
    """A copy, an export and a stream. What no machine has open is read as it is, without an agent."""
    disk, machine = running(driver)
    engine = driver.engine()
    freezes = list[str]()

    def look(process: SimProcess, call: str, what: str) -> Fault:
        if call == "hypervisors.switch":
            assert machine.guest_frozen
            freezes.append(call)
        return Fault.NONE

    driver.world.process_of(engine).hook = look
    image = engine.copy_image("b", disk, options={**QUIESCE, "auto_fix": False})
    engine.export_image("a", disk, "/srv/out.raw", "raw", options=QUIESCE)
    engine.stream_image("a", disk, lambda data: None, QUIESCE)
    assert len(freezes) == 3
    driver.world.process_of(engine).hook = None
    for fix in engine.check_storage_repository("b"):
        engine.run_fix_here("b", fix)
    assert read(engine, "b", image, 4096).same(Content(0, ()).write(0, b"\1" * 4096))
    alone = driver.create("a", MiB)
    assert engine.create_snapshot("a", alone, None, QUIESCE)
    with pytest.raises(BadRequest):
        engine.create_snapshot("a", alone, None, {"quiesce": "yes"})


def test_guests_are_named():
    """What a monitor tells of an agent is part of it, and is told as it was written."""
    assert str(monitors.parse(MONITOR)) == MONITOR
    assert monitors.has_agent(MONITOR) and not monitors.has_agent("qmp:/run/vm")
    assert monitors.has_agent("libvirt:qemu:///system/web")
    assert monitors.same(MONITOR, "qmp:/run/vm") and not monitors.same(MONITOR, "qmp:/run/vm,agent=/run/other")
    for nonsense in ("qmp:/run/vm,agent=", "qmp:/run/vm,agent=relative", "qmp:/run/vm,agent=/a\nb"):
        with pytest.raises(BadRequest):
            monitors.parse(nonsense)
