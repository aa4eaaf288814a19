"""How fast work moves data: as fast as it is told, also while it goes on. Time is simulated."""

from __future__ import annotations

from typing import Any

import pytest

from engine.copying.pace import Pace
from engine.errors import BadRequest, NotFound, Stopped, ToolFailed
from sim.disk.files import Fault
from sim.explore.cases.driver import Driver, MiB
from sim.hosts.processes import SimProcess
from tests.sim.live_kit import a_merge, start


class Clock:
    """Time passes while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def wall(self) -> float:
        return self.now


def test_what_moved_is_waited_for_and_no_pause_is_made_up_for():
    """One second a mebibyte; after an hour in which nothing moved, too."""
    clock = Clock()
    pace = Pace(clock, lambda: MiB, lambda: None)
    for _ in range(10):
        pace.moved(MiB)
    assert 9.9 <= clock.now <= 10.1
    clock.now += 3600
    for _ in range(10):
        pace.moved(MiB)
    assert 3618 <= clock.now <= 3620.1
    assert pace.waited


def test_a_limit_changes_while_it_is_waited_for():
    """From a byte a second, which would take days, to none; and it can be stopped in that wait."""
    clock = Clock()
    Pace(clock, lambda: 1 if clock.now < 5 else 0, lambda: None).moved(MiB)
    assert 5 <= clock.now <= 5.5

    def stop() -> None:
        raise Stopped("enough")

    with pytest.raises(Stopped):
        Pace(clock, lambda: 1, stop).moved(MiB)
    assert clock.now <= 6
    unlimited = Pace(clock, lambda: 0, stop)
    unlimited.moved(1 << 40)
    assert not unlimited.waited


def a_copy(driver: Driver, pieces: int, rate: int) -> float:
    """Copy so many mebibytes, which lie apart; return how long its task took."""
    disk = driver.create("a", pieces * 2 * MiB)
    for at in range(pieces):
        driver.write("a", disk, at * 2 * MiB, b"\1" * MiB)
    engine = driver.engine()
    image = engine.copy_image("b", disk, options={"auto_fix": False})
    (fix,) = (one for one in engine.check_storage_repository("b") if one.target == image)
    clock = engine.doors.clock
    begun = clock.monotonic()
    engine.wait_for_task(engine.fix_storage_repository("b", fix, {"rate": rate}))
    assert engine.get_image_status("b", image).status == "optimized"
    return clock.monotonic() - begun


def test_a_task_moves_no_more_than_it_was_told(driver: Driver):
    """A copy of 4 MiB with 1 MiB a second, and without a limit; what limited a longer one is no measure of the
    storage."""
    assert a_copy(driver, 4, 0) < 1
    assert 3.5 < a_copy(driver, 4, MiB) < 6
    assert 4 < a_copy(driver, 20, 4 * MiB) < 6
    engine = driver.engine()
    assert engine.context.throughput(engine.list_repositories()["b"].identity) is None


def test_what_runs_goes_on_at_another_rate(driver: Driver):
    """A machine that merges is told, at once and when its task is told; a rate that is none, and an image on which
    nothing runs, are told of."""
    disk, engine = driver.create("a", MiB), driver.engine()
    driver.write("a", disk, 0, b"\1" * MiB)
    driver.remove("a", driver.snapshot("a", disk))
    machine = start(driver, disk)
    seen: list[int] = []

    def look(process: SimProcess, call: str, what: str) -> Fault:
        if call == "hypervisors.jobs" and machine.rates():
            rate = machine.rates().popitem()[1]
            if rate not in seen:
                seen.append(rate)
            if rate == 4096 and len(seen) == 2:
                engine.limit_task("a", disk, 8192)
        return Fault.NONE

    driver.world.hook = look
    engine.wait_for_task(engine.fix_storage_repository("a", a_merge(driver), {"irreversible": True, "rate": 4096}))
    assert seen == [0, 4096, 8192]
    assert len(machine.nodes()) == 1
    for nonsense in (-1, True, "fast", 1 << 63):
        wrong: Any = nonsense
        with pytest.raises(BadRequest):
            engine.limit_task("a", disk, wrong)
        with pytest.raises(BadRequest):
            engine.copy_image("b", disk, options={"rate": wrong})
    with pytest.raises(NotFound, match="nothing runs"):  # its machine has it, and no task
        engine.limit_task("a", disk, 1)


@pytest.mark.parametrize("running", [False, True])
def test_an_export_goes_on_at_another_rate(driver: Driver, running: bool):
    """A file and a stream, of a disk that nobody uses and of one whose machine runs: not faster than they are told,
    also meanwhile; after them nothing runs that could be told. One that was not given a rate is not noted."""
    disk, engine = driver.create("a", 8 * MiB), driver.engine()
    for at in range(8):
        driver.write("a", disk, at * MiB, bytes([at + 1]) * MiB)
    if running:
        start(driver, disk)
    clock, gone, told = engine.doors.clock, list[bytes](), list[int]()

    def write(data: Any) -> None:
        gone.append(bytes(data))
        if len(gone) == 2:
            engine.limit_task("a", disk, MiB)

    begun = clock.monotonic()
    engine.stream_image("a", disk, write, {"rate": 4 * MiB})
    assert b"".join(gone) == b"".join(bytes([at + 1]) * MiB for at in range(8))
    assert 2.5 < clock.monotonic() - begun < 8  # not told, it would take 2 s; it looks once a second

    def look(process: SimProcess, call: str, what: str) -> Fault:
        if clock.monotonic() > begun + 2.5 and not told:
            told.append(MiB)
            engine.limit_task("a", disk, 100 * MiB)
        return Fault.NONE

    begun, driver.world.process_of(engine).hook = clock.monotonic(), look
    engine.export_image("a", disk, "/srv/limited", "raw", options={"rate": MiB})
    driver.world.process_of(engine).hook = None
    assert told and 2.5 < clock.monotonic() - begun < 6
    begun = clock.monotonic()
    engine.export_image("a", disk, "/srv/as-fast-as-it-goes", "raw")
    assert clock.monotonic() - begun < 1
    with pytest.raises(NotFound, match="nothing runs"):
        engine.limit_task("a", disk, 1)
    with pytest.raises(BadRequest):
        engine.export_image("a", disk, "/srv/nonsense", "raw", options={"rate": -1})
    assert not engine.list_tasks()


@pytest.mark.parametrize("rate", [0, 1024])
def test_a_machine_that_waits_as_its_limit_says_is_not_given_up(driver: Driver, rate: int, monkeypatch):
    """It tells of nothing for longer than one is waited for that has no limit."""
    disk, engine = driver.create("a", MiB), driver.engine()
    driver.write("a", disk, 0, b"\1" * MiB)
    driver.remove("a", driver.snapshot("a", disk))
    machine = start(driver, disk)
    engine.context.rate = lambda: rate
    clock, get_on = engine.doors.clock, machine._get_on
    moves = clock.monotonic() + 400
    monkeypatch.setattr(machine, "_get_on", lambda job: get_on(job) if clock.monotonic() > moves else None)
    if rate:
        engine.run_fix_here("a", a_merge(driver))
    else:
        with pytest.raises(ToolFailed, match="for 300 s"):
            engine.run_fix_here("a", a_merge(driver))
    assert len(machine.nodes()) == (1 if rate else 2)
