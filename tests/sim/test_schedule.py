"""Scheduling: one baton, one tape, faults at door calls, and nothing past the doors."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from engine.api import Engine
from engine.doors.processes import ProcessState
from sim.hosts.crash import Crashed
from sim.hosts.faults import Faults, possible
from sim.hosts.guard import Escaped, watched
from sim.hosts.schedule import Endless, StrayThread
from sim.hosts.tape import Tape, explore
from sim.hosts.world import World

PATH = "/srv/counter"


def counted(world: World) -> World:
    """A file with a number in it."""
    with engine_files(world, "setup").create(PATH) as handle:
        handle.write_at(0, b"0")
        handle.sync()
    world.storage.settle()
    return world


def engine_files(world: World, host: str) -> Any:
    return world.machine(host).process("test").files


def value(world: World) -> int:
    return int(engine_files(world, "look").read_file(PATH, 10))


def increment(engine: Engine) -> None:
    """Read, then write: two that do it at the same time lose one."""
    number = int(engine.doors.files.read_file(PATH, 10))
    with engine.doors.files.open(PATH, True) as handle:
        handle.write_at(0, str(number + 1).encode())
        handle.sync()


def two_increments(tape: Tape, strategy: Callable[[World], Any] = lambda world: None) -> World:
    world = counted(World(tape))
    world.start("a", increment)
    world.start("b", increment)
    world.run(strategy(world))
    return world


def test_the_empty_tape_runs_one_after_the_other():
    """0 means that the same process goes on: no update is lost, and no choice was anything but 0."""
    world = two_increments(Tape())
    assert value(world) == 2
    assert {choice.value for choice in world.tape.record} == {0}


def test_all_schedules_can_be_explored():
    """Exploration finds the lost update, and the record of such a run finds it again with the same trace."""
    found: dict[int, World] = {}
    for tape in explore(changes=1):
        world = two_increments(tape)
        found.setdefault(value(world), world)
    assert set(found) == {1, 2}
    again = two_increments(Tape(found[1].tape.values))
    assert value(again) == 1
    assert again.trace.digest == found[1].trace.digest


@pytest.mark.parametrize("strategy", [lambda world: None, lambda world: world.pct(3, 20)], ids=["uniform", "pct"])
def test_the_same_tape_gives_the_same_trace(strategy: Callable[[World], Any]):
    """Seed for seed the traces are equal, run for run; and seeds differ."""
    runs = [[two_increments(Tape.seeded(seed), strategy) for seed in range(20)] for _ in range(2)]
    digests = [[world.trace.digest for world in each] for each in runs]
    assert digests[0] == digests[1]
    assert len(set(digests[0])) > 3
    replayed = [two_increments(Tape(world.tape.values), strategy).trace.digest for world in runs[0]]
    assert replayed == digests[0]


def test_priorities_find_a_race_that_needs_one_switch():
    """PCT loses the update in a good part of its runs, however long the processes are."""

    def slow_increment(engine: Engine) -> None:
        for _ in range(100):
            engine.doors.files.stat(PATH)
        increment(engine)
        for _ in range(100):
            engine.doors.files.stat(PATH)

    lost = 0
    for seed in range(60):
        world = counted(World(Tape.seeded(seed)))
        world.start("a", increment)
        world.start("b", slow_increment)
        world.run(world.pct(2, 12))
        lost += value(world) == 1
    assert lost >= 5


def test_a_killed_process_has_done_what_it_did_and_does_nothing_more():
    """Its finally blocks run into dead doors; its leases are free and its state is GONE for others."""
    seen = []

    def victim(engine: Engine) -> None:
        files = engine.doors.files
        try:
            lease = engine.doors.leases.try_acquire(PATH, 1, False)
            assert lease is not None
            files.create("/srv/done").close()
            engine.doors.processes.kill(engine.doors.processes.own())
            files.create("/srv/never").close()
        finally:
            for call in (lambda: files.unlink("/srv/done"), lambda: files.create("/srv/x"), lambda: files.stat("/")):
                try:
                    call()
                except Crashed as crash:
                    seen.append(crash)
                    continue
                raise AssertionError("a dead process reached the storage")

    world = counted(World())
    job = world.start("a", victim)
    other = world.start("a", lambda engine: engine.doors.leases.try_acquire(PATH, 1, False) is not None)
    world.run()
    assert len(seen) == 3 and not job.done and job.process is not None and job.process.killed
    assert other.result is True
    assert [entry.name for entry in world.storage.list_directory("/srv")] == ["counter", "done"]


def test_a_frozen_process_keeps_its_leases_and_others_go_on():
    """Frozen, it is STOPPED and not run; others make progress and find its lease held; thawed, it goes on."""
    log: list[str] = []

    def frozen(engine: Engine) -> None:
        lease = engine.doors.leases.try_acquire(PATH, 1, False)
        log.append("frozen soon")
        engine.doors.files.stat(PATH)  # frozen here, by the tape
        log.append("thawed")
        assert lease is not None
        lease.release()

    def other(engine: Engine) -> None:
        processes = engine.doors.processes
        identity = first.process.identity  # type: ignore[union-attr]
        log.append(f"{processes.state(identity)} {engine.doors.leases.held(PATH, 1)}")
        while processes.state(identity) is not ProcessState.GONE:
            engine.doors.clock.sleep(1)
        log.append(f"{processes.state(identity)} {engine.doors.leases.held(PATH, 1)}")

    # "b" gets the lower priority; no fault at the lease; frozen at the stat; for 5 s.
    world = counted(World(Tape([0, 0, 1, 1])))
    first = world.start("a", frozen)
    world.start("a", other)
    world.run(strategy=world.pct(1), faults=Faults(("freeze",), budget=1))
    assert log == ["frozen soon", "stopped True", "thawed", "gone False"]
    assert world.now >= 5


def test_sleeping_takes_no_real_time():
    """A day passes in an instant, and time passes only when nobody can run."""
    times = []

    def sleeper(engine: Engine) -> None:
        engine.doors.clock.sleep(86_400)
        times.append(engine.doors.clock.monotonic())

    def worker(engine: Engine) -> None:
        for _ in range(50):
            engine.doors.files.stat(PATH)
        times.append(engine.doors.clock.monotonic())

    world = counted(World(Tape.seeded(5)))
    world.start("a", sleeper)
    world.start("b", worker)
    world.run()
    assert times == [0, 86_400]


def test_a_power_cut_ends_everybody_and_what_was_not_synced_may_be_lost():
    """At any call of any process: afterwards all are dead and the storage is a legal state."""
    found = set()
    for tape in explore(changes=2):
        world = counted(World(tape))
        jobs = [world.start(host, increment) for host in "ab"]
        world.run(faults=Faults(("power",), budget=1))
        if any(line.partition(" ")[2].startswith("power cut") for line in world.trace.lines):
            assert all(job.process is not None and job.process.dead for job in jobs)
            assert not world.storage.pending()
        found.add(value(world))
    assert found == {0, 1, 2}


def test_errors_strike_and_do_nothing():
    """A failed call raises the errno of the fault, changes nothing, and the trace says so."""
    for kind, number in (("eio", errno.EIO), ("enospc", errno.ENOSPC), ("estale", errno.ESTALE), ("eacces", 13)):
        seen = []

        def work(engine: Engine) -> None:
            try:
                engine.doors.files.create("/srv/new")
            except OSError as error:
                seen.append(error.errno)  # noqa: B023 - called in this turn of the loop

        world = counted(World(Tape([1])))
        world.start("a", work)
        world.run(faults=Faults((kind,), budget=1))
        assert seen == [number]
        assert world.trace.lines[-1].endswith(f"!{kind}")
        assert "/srv/new" not in [path for path, _, _ in world.storage.walk()]


def test_a_short_write_and_a_failed_sync_are_carried_out_by_the_handle():
    """A write that is short is continued unless the process dies in between; a failed sync loses its data."""

    def work(engine: Engine) -> None:
        with engine.doors.files.open(PATH, True) as handle:
            handle.write_at(0, b"12345678")
            handle.sync()

    # At the open only "kill" is possible; 1 at the write is "short", 2 before its rest is "kill".
    for kinds, tape, content in ((("short",), [1], b"12345678"), (("short", "kill"), [0, 1, 2], b"1234")):
        world = counted(World(Tape(tape)))
        world.start("a", work)
        world.run(faults=Faults(kinds, budget=2))
        assert world.storage.file(PATH)[1].content.read(0, 100) == content
    world = counted(World(Tape([1])))
    world.start("a", work)
    with pytest.raises(OSError, match="Input/output"):
        world.run(faults=Faults(("sync",), budget=1))
    assert world.storage.file(PATH)[1].content.read(0, 100) == b"12345678"
    (state,) = world.crash_states()
    assert state.storage.file(PATH)[1].content.read(0, 100) == b"0"


def test_only_fitting_faults_are_offered():
    """ENOSPC strikes what needs room, short writes strike writes, death strikes anything."""
    assert possible("enospc", "files.create") and not possible("enospc", "files.unlink")
    assert possible("short", "handle.write_at") and not possible("short", "handle.sync")
    assert possible("kill", "clock.sleep") and not possible("eio", "clock.sleep")


ESCAPES: dict[str, Callable[[], object]] = {
    "open": lambda: open("/dev/null").close(),
    "os.rename": lambda: os.rename("/nonexistent-a", "/nonexistent-b"),
    "os.listdir": lambda: os.listdir("/"),
    "os.mkdir": lambda: os.mkdir("/nonexistent/x"),
    "subprocess": lambda: subprocess.run([sys.executable, "-V"], check=True),
    "socket": socket.socket,
}


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("swallow", [False, True])
def test_an_effect_past_the_doors_fails_the_run(name: str, swallow: bool):
    """Also when the process that did it hides the error."""

    def work(engine: Engine) -> None:
        try:
            ESCAPES[name]()
        except BaseException:
            if not swallow:
                raise

    world = World()
    world.start("a", work)
    with pytest.raises(Escaped):
        world.run()


def test_outside_of_a_run_nothing_is_watched():
    """The guard is on for simulated processes only, and off again after them."""
    with pytest.raises(Escaped), watched():
        open("/dev/null")  # noqa: SIM115
    with open("/dev/null") as stream:
        assert stream.read() == ""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_door_call_from_a_foreign_thread_fails_the_run():
    """Only the thread of a process may use its doors, because only that one has the baton."""
    caught = []

    def work(engine: Engine) -> None:
        def stray() -> None:
            try:
                engine.doors.files.stat("/")
            except StrayThread as error:
                caught.append(error)

        thread = threading.Thread(target=stray)
        thread.start()
        thread.join()

    world = World()
    world.start("a", work)
    world.run()
    assert len(caught) == 1


def test_a_run_that_gets_nowhere_ends():
    """More steps than allowed is an error, and the processes are buried."""

    def work(engine: Engine) -> None:
        while True:
            engine.doors.files.stat("/")

    world = World()
    job = world.start("a", work)
    with pytest.raises(Endless):
        world.run(max_steps=100)
    assert job.process is not None and job.process.dead
    world.start("a", lambda engine: engine.doors.files.stat("/"))
    world.run()


def test_what_a_process_should_not_raise_is_raised_by_the_run():
    """A programmer's error in one process ends the run; the others are unwound without reaching the storage."""

    def wrong(engine: Engine) -> None:
        engine.doors.files.stat("/")
        raise ZeroDivisionError

    def other(engine: Engine) -> None:
        try:
            engine.doors.clock.sleep(1000)
        finally:
            engine.doors.files.create("/srv/late")

    world = World()
    world.start("a", other)
    world.start("a", wrong)
    with pytest.raises(ZeroDivisionError):
        world.run(world.pct(1))
    assert "/srv/late" not in [path for path, _, _ in world.storage.walk()]
