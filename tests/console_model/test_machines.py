"""What is prepared on a host, as both faces show it: who has it open, who holds it, what is below, what waits."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.data.amounts import human
from engine.doors.users import User
from engine.errors import ToolFailed
from engine.triage import rules
from sim.explore.cases.case import Case, prepared
from sim.explore.cases.driver import Driver
from sim.explore.cases.fixtures.images import a_chain, a_disk, disk, snap
from sim.hosts.machine import SimMachine
from tui.view import live, machines
from tui.view.estimates import Times, pace_of
from tui.view.gather import about, from_lines, gather, to_lines
from tui.view.machines import MachineRow, MachineState, UserRow
from tui.view.plan import make
from tui.view.why import explain

MONITOR = "qmp:/run/vm"


def on(fixture: Any) -> Driver:
    return prepared(Case("machines", fixture, lambda driver: None))


_LIBVIRT = "libvirt:qemu:///system/machine"


def start(driver: Driver, image: str, monitor: str = MONITOR) -> tuple[SimMachine, Any]:
    entry = driver.engine().prepare_image("a", image, monitor=monitor)
    host = driver.world.process_of(driver.engine()).host
    return SimMachine(host, entry.path, entry.format, monitor=monitor), entry


def row_of(driver: Driver) -> MachineRow:
    engine = driver.engine()
    (row,) = machines.seen(engine, "a", machines.noted(engine))
    return row


def test_a_machine_is_told_as_it_is_until_it_is_torn_down():
    """Prepared, open, without a holder, left over: each by what the notes, the processes and the data say."""
    driver = on(a_disk)
    engine = driver.engine()
    assert machines.noted(engine) == ()
    entry = engine.prepare_image("a", disk(driver), monitor=MONITOR)
    row = row_of(driver)
    assert (row.state, row.users, row.held, row.monitor) == (MachineState.READY, (), True, MONITOR)
    assert row.holder == entry.process.pid and row.since > 0 and row.path == entry.given
    host = driver.world.process_of(engine).host
    machine = SimMachine(host, entry.path, entry.format, monitor=MONITOR)
    row = row_of(driver)
    assert row.state is MachineState.RUNS and [user.writes for user in row.users] == [True]
    assert str(machine.process.identity.pid) in row.who
    engine.doors.processes.kill(entry.process)
    row = row_of(driver)
    assert row.state is MachineState.UNHELD and not row.held and "NO HOLDER" in row.in_brief
    engine.prepare_image("a", disk(driver), take_over=True)
    again = row_of(driver)
    assert again.state is MachineState.RUNS and again.since == row.since and again.key == row.key
    engine.doors.processes.kill(engine.list_prepared()[0].process)
    machine.kill()
    assert row_of(driver).state is MachineState.LEFT
    assert engine.list_unheld() == [] and machines.noted(engine) == (), "the next look has forgotten it"


def test_what_a_machine_reads_below_and_what_waits_for_it_is_told():
    """The layers by name, the fixes that nobody can run meanwhile; the merge that it does itself is offered as that."""
    driver = on(a_chain)
    engine = driver.engine()
    engine.set_user_data("a", disk(driver), {"name": "web"})
    engine.set_strategy("a", disk(driver), "performance")
    machine, _ = start(driver, disk(driver))
    engine.remove_image("a", snap(driver))
    (flat,) = (one for one in gather(engine, "a").fixes if one.rule == rules.O_FLAT)
    assert flat.machine == "web" and "each write of its guest goes into both" in machines.beside(flat)
    driver.world.process_of(engine).host.monitors[_LIBVIRT] = machine  # by which it goes on in no other volume
    engine.attach_monitor("a", disk(driver), _LIBVIRT)
    view = gather(engine, "a")
    (row,) = view.machines
    assert row.name == "web" and row.below[0][0] == snap(driver)
    assert row.waits == ("optimize web (O-FLAT)",)
    (merge,) = (one for one in view.fixes if one.rule == rules.M_CHAIN)
    assert merge.machine == "web" and "its guest goes on, and waits for no switch" in machines.beside(merge)
    plan = make(view, [merge], Times(), view.scanned_at)
    assert plan.live[0] == f"Step 1: {machines.beside(merge)}"
    assert plan.live[1].startswith("web is used by")
    assert plan.live[1].endswith("optimize web (O-FLAT) waits until it is torn down.")
    if merge.peak_bytes:
        assert human(merge.peak_bytes) in plan.live[0]
    came = from_lines(to_lines(view))
    assert (came.machines, came.fixes, came.tasks) == (view.machines, view.fixes, view.tasks), "as the scan sends it"
    told = explain(view, disk(driver), view.scanned_at)
    assert told is not None
    labels = {line.label: line.text for line in told.lines}
    assert labels["Action"].startswith("merge (M-CHAIN") and "waits for no switch" in labels["Live"]
    assert labels["Via"] == _LIBVIRT and "writes" in labels["Used"] and "O-FLAT" in labels["Waits"]
    found = about(engine, "a", disk(driver))
    assert found is not None and found[1].machines == view.machines
    engine.restore_image("a", snap(driver))
    told = explain(gather(engine, "a"), disk(driver), view.scanned_at)
    assert told is not None and "go on beside its machine" in told.text()[4]
    beside = about(engine, "a", driver.engine().create_virtual_disk("a", 1 << 20))
    assert beside is not None and beside[1].machines == (), "no other image has to do with it"


def test_a_repository_that_cannot_be_read_hides_no_machine(monkeypatch: pytest.MonkeyPatch):
    """The note alone is shown, and why there is no more."""
    driver = on(a_disk)
    engine = driver.engine()
    start(driver, disk(driver))
    noted = machines.noted(engine)
    monkeypatch.setattr("tui.view.machines.gate.users", broken)
    (row,) = machines.seen(engine, "a", noted)
    assert row.state is MachineState.UNKNOWN and row.problem == "no answer" and row.monitor == MONITOR
    assert ("Used", "who has it open could not be asked") in machines.told(row)


def broken(*given: object) -> list[Any]:
    raise ToolFailed("no answer")


def test_a_machine_that_is_asked_tells_what_it_has_open_and_does():
    """By its monitor, which is closed again; one that is gone is an error with its words."""
    driver = on(a_chain)
    machine, _ = start(driver, disk(driver))
    row = row_of(driver)
    told = machines.asked(driver.engine(), row)
    assert told[0].startswith("It has 2 layers open") and told[1].startswith("writes ") and told[2].startswith("reads ")
    assert told[-1] == "It has no job under way."
    machine.kill()
    with pytest.raises(ToolFailed):
        machines.asked(driver.engine(), row)


def test_a_machine_does_no_fix_that_needs_a_deep_look():
    """Such a one waits, and is told of as that."""
    able = {"disk": True, "layer": False}
    for image, deep, whether in (("disk", False, True), ("disk", True, False), ("layer", False, False)):
        assert rules.by_machine(rules.O_OVERSIZE, (image,), able, deep) is whether
    assert rules.by_machine(rules.M_CHAIN, ("layer", "snap"), able) and not rules.by_machine(rules.M_CHAIN, (), able)


def test_what_works_on_a_prepared_disk_is_told_with_its_rate():
    """With the image of which that is noted, which is what the rate is set of."""
    driver = on(a_chain)
    engine = driver.engine()
    start(driver, disk(driver))
    engine.remove_image("a", snap(driver))
    fix = next(one for one in engine.check_storage_repository("a") if one.rule == rules.M_CHAIN)
    task = engine.fix_storage_repository("a", fix, {"rate": 1 << 20, "irreversible": True})
    (row,) = live.at_work(engine, machines.seen(engine, "a", machines.noted(engine)))
    assert row.work.startswith("merge") and "1.0M/s at most" in row.work and str(task.process.pid) in row.work
    assert row.worked_on in task.images and row.involves(row.worked_on)


def row(state: MachineState, name: str = "web", **more: Any) -> MachineRow:
    users = (UserRow(4242, "/usr/bin/qemu-system-x86_64 -name web", True),)
    return MachineRow(
        f"/run/{name}", "pool", "1" * 32, name, True, "qcow2", f"/run/{name}", "", 0.0, 4243, True, state, users, **more
    )


def test_what_needs_somebody_is_first():
    """The order of the list, whatever the names are."""
    rows = [row(state, name) for name, state in zip("edcba", MachineState, strict=True)]
    assert [one.name for one in machines.ordered(reversed(rows))] == list("edcba")


def test_a_program_is_called_by_its_name_and_hostile_commands_are_harmless(monkeypatch: pytest.MonkeyPatch):
    """Of a command line the program alone; where no process is seen what there is instead. A command tells a terminal
    nothing, and comes from a scan as it is."""
    assert row(MachineState.RUNS).who == "4242 qemu-system-x86_64"
    assert UserRow(0, "the loop device /dev/loop0", True).program == "the loop device /dev/loop0"
    assert UserRow(0, "", True).program == "somebody" and UserRow(7, "", False).program == "7"
    driver = on(a_disk)
    start(driver, disk(driver))
    monkeypatch.setattr("tui.view.machines.gate.users", lambda *given: [User(7, "/bin/\x1b[2J\u202ex -y\n", True)])
    found = row_of(driver)
    assert found.who.isprintable() and all(text.isprintable() for _, text in machines.told(found))
    assert machines.from_data(json.loads(json.dumps(found))) == found
    long = row(MachineState.RUNS, "n" * 60_000, below=(("2" * 32, "b" * 60_000),))
    assert len(long.label) == 80 and max(len(text) for label, text in machines.told(long) if label != "Path") < 200


def test_work_that_does_not_come_on_is_told_and_slow_work_is_not_called_so():
    """By how long a percent takes: of what is large one may take minutes."""
    size = 100 << 30
    steady = [(float(60 * n), n << 30) for n in range(5)]
    assert pace_of(steady, size, 250.0) == "" and pace_of(steady, size, 500.0) == ""
    assert pace_of(steady, size, 700.0) == "It has not come on for 8m: as it goes it does not converge."
    slower = [*((float(n), n << 30) for n in range(9)), (200.0, 9 << 30), (500.0, 10 << 30), (900.0, 11 << 30)]
    assert pace_of(slower, size, 901.0).startswith("It gets slower: ")
    for too_little in ([], [(0.0, 0)], [(0.0, 0), (0.0, 0)], [(5.0, 3), (6.0, 2)]):
        assert pace_of(too_little, size, 1e6) == ""
