"""Who runs: threads that hand one baton round, and a tape that says to whom.

Every door call is a switch point. Exactly one simulated process runs at a time, in a thread of its
own (threads are kept and used again); what it does between two door calls is atomic for all others.
``Uniform`` asks the tape at each switch point; ``Pct`` gives each process a priority and lowers
the running one's at a few places (it finds races that need few switches far more often). Virtual
time passes only when nobody can run. A process that is killed while it waits is unwound when the
run is over: by then none of its doors reaches anything.

A door that is called from another thread than the process's own raises ``StrayThread``: such a
call would not be deterministic.
"""

from __future__ import annotations

import threading
from _thread import get_ident
from collections.abc import Callable, Sequence
from typing import Protocol

from sim.disk.files import Fault
from sim.hosts.crash import Crashed
from sim.hosts.faults import FaultSource
from sim.hosts.guard import watched
from sim.hosts.processes import SimProcess
from sim.hosts.tape import Tape
from sim.hosts.trace import Trace

MAX_STEPS = 200_000


class StrayThread(AssertionError):
    """A door was called from a thread that is no simulated process."""


class Endless(AssertionError):
    """The run has more steps than it may have: nobody gets anywhere."""


class Strategy(Protocol):
    """Chooses who goes on."""

    def pick(self, runnable: Sequence[SimProcess], current: SimProcess | None) -> SimProcess:
        """Return one of ``runnable``, in which the current process, if it can run, comes first."""


class Uniform:
    """Anybody may go on at each switch point; 0: the same one."""

    def __init__(self, tape: Tape, rarity: int = 0) -> None:
        self._tape = tape
        self._rarity = rarity

    def pick(self, runnable: Sequence[SimProcess], current: SimProcess | None) -> SimProcess:
        return runnable[self._tape.choose(len(runnable), "run", self._rarity)]


class Pct:
    """Probabilistic concurrency testing: random priorities, and ``depth`` - 1 points at which the running
    process becomes the last. ``steps``: about how long the run is."""

    def __init__(self, tape: Tape, depth: int, steps: int) -> None:
        self._tape = tape
        self._order: list[SimProcess] = []
        self._points = {tape.choose(steps + 1, "change point") for _ in range(depth - 1)}
        self._step = 0

    def pick(self, runnable: Sequence[SimProcess], current: SimProcess | None) -> SimProcess:
        self._step += 1
        for process in runnable:
            if process not in self._order:
                # 0 on the tape: those that came earlier go first.
                place = len(self._order) - self._tape.choose(len(self._order) + 1, "priority")
                self._order.insert(place, process)
        if self._step in self._points and current is not None and current in self._order:
            self._order.remove(current)
            self._order.append(current)
        return min(runnable, key=self._order.index)


class _Baton:
    """What a thread waits for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.give = self._lock.release
        self.take = self._lock.acquire


class _Worker(_Baton):
    """A thread that runs one process after the other."""

    idle: list[_Worker] = []  # noqa: RUF012 - a pool is what it is for

    def __init__(self) -> None:
        super().__init__()
        self.job: Callable[[], None] | None = None
        self.ident = 0
        threading.Thread(target=self._loop, name="sim-process", daemon=True).start()

    def _loop(self) -> None:
        self.ident = get_ident()
        while True:
            self.take()
            job, self.job = self.job, None
            assert job is not None
            job()


class Scheduler:
    """Runs processes until all have ended. The caller's thread waits meanwhile."""

    def __init__(
        self,
        strategy: Strategy,
        trace: Trace,
        advance: Callable[[float], None],
        now: Callable[[], float],
        faults: FaultSource | None = None,
        max_steps: int = MAX_STEPS,
    ) -> None:
        self._strategy = strategy
        self._trace = trace
        self._advance = advance
        self._now = now
        self._faults = faults
        self._max_steps = max_steps
        self.steps = 0
        self._processes: list[SimProcess] = []
        self._workers: dict[SimProcess, _Worker] = {}
        self._main = _Baton()
        self._running = False
        self._closing = False
        self._stopped: BaseException | None = None

    # -- for the world

    def launch(self, process: SimProcess) -> None:
        """Have a process run when it is chosen for the first time."""
        process.hook = self.step
        self._processes.append(process)

    def run(self) -> None:
        """Run everybody to the end. Raises the first error of a process that is none of the engine's own."""
        self._running = True
        self._pass_on(None)
        self._main.take()
        self._closing = True
        for process, worker in list(self._workers.items()):
            process.end(killed=True)  # one that nobody will ever wake
            worker.give()
            self._main.take()
        self._processes.clear()
        self._running = self._closing = False
        if self._stopped is not None:
            stopped, self._stopped = self._stopped, None
            raise stopped

    def sleep(self, process: SimProcess, seconds: float) -> None:
        """Others run until it is time."""
        process.asleep_until = self._now() + seconds
        self._pass_on(process)
        if process.dead:
            raise Crashed

    def step(self, process: SimProcess, call: str, what: str) -> Fault:
        """A door call of a running process: others may go first, and something may befall it."""
        worker = self._workers.get(process)
        if worker is None or worker.ident != get_ident():
            raise StrayThread(f"{call} {what} of {process!r} from thread {threading.current_thread().name}")
        self.steps += 1
        if self.steps > self._max_steps:
            raise Endless(f"{self._max_steps} steps and no end; now {process!r} {call} {what}")
        self._pass_on(process)
        if process.dead:
            raise Crashed
        struck = len(self._faults.happened) if self._faults is not None else 0
        try:
            fault = self._faults.strike(process, call, what) if self._faults is not None else Fault.NONE
        finally:
            note = ""
            if self._faults is not None and len(self._faults.happened) > struck:
                note = self._faults.happened[-1].partition(" ")[0]
            self._trace.step(self._now(), process, call, what, note)
        if process.frozen:
            self._pass_on(process)
            if process.dead:
                raise Crashed
        return fault

    # -- the baton

    def _pass_on(self, current: SimProcess | None) -> None:
        """Let somebody run, perhaps the same one; returns when ``current`` is to run (or is dead)."""
        runnable = self._runnable(current)
        if not runnable:  # everybody has ended or is dead; who waited and died while time passed is unwound at the end
            assert current is None or current.dead, f"{current!r} waits for nothing"
            self._main.give()
            if current is not None:
                self._workers[current].take()
            return
        chosen = runnable[0] if len(runnable) == 1 else self._strategy.pick(runnable, current)
        if chosen is not current:
            self._switch(current, chosen)

    def _switch(self, current: SimProcess | None, chosen: SimProcess) -> None:
        own = self._workers.get(current) if current is not None else None
        self._wake(chosen)
        if own is not None:
            own.take()

    def _wake(self, process: SimProcess) -> None:
        worker = self._workers.get(process)
        if worker is None:
            worker = _Worker.idle.pop() if _Worker.idle else _Worker()
            self._workers[process] = worker
            worker.job = lambda: self._live(process, worker)
        worker.give()

    def _live(self, process: SimProcess, worker: _Worker) -> None:
        """A whole process, in its thread."""
        assert process.main is not None
        try:
            with watched():
                process.main()
        except Crashed as crash:
            if not process.dead:
                self._stopped = self._stopped or crash
        except BaseException as error:  # noqa: BLE001 - it must reach whoever runs the world, not this thread's end
            process.error = error
            self._stopped = self._stopped or error
        process.end()
        self._processes.remove(process)
        del self._workers[process]
        _Worker.idle.append(worker)
        if self._closing or self._stopped is not None:
            self._main.give()
        else:
            self._pass_on(None)

    def _alive(self) -> list[SimProcess]:
        return [process for process in self._processes if not process.dead]

    def _runnable(self, current: SimProcess | None) -> list[SimProcess]:
        """Who can run now, ``current`` first; when nobody can, time passes until somebody can."""
        while True:
            found = [p for p in self._processes if not p.dead and p.asleep_until is None and p.frozen_until is None]
            if found:
                if current is not None and found[0] is not current and current in found:
                    found.remove(current)
                    found.insert(0, current)
                return found
            times = [t for p in self._alive() for t in (p.asleep_until, p.frozen_until) if t is not None]
            if not times:
                return []
            self._advance(max(0.0, min(times) - self._now()))
            for process in self._alive():
                if process.asleep_until is not None and process.asleep_until <= self._now():
                    process.asleep_until = None
                if process.frozen_until is not None and process.frozen_until <= self._now():
                    process.frozen_until = None
                    process.host.thaw()


class Direct:
    """No threads: whoever is called runs, and spawned processes run to their end when somebody sleeps."""

    def __init__(self, advance: Callable[[float], None]) -> None:
        self._advance = advance
        self._waiting: list[SimProcess] = []

    def launch(self, process: SimProcess) -> None:
        self._waiting.append(process)

    def sleep(self, process: SimProcess, seconds: float) -> None:
        self.run_waiting()
        self._advance(seconds)
        if process.dead:
            raise Crashed

    def run_waiting(self) -> None:
        """Run everything that was spawned and has not run."""
        while self._waiting:
            process = self._waiting.pop(0)
            if process.dead or process.main is None:
                continue
            try:
                process.main()
            except Crashed:
                if not process.dead:
                    raise
            finally:
                process.end()
