"""A host that shares a volume group freezes as a whole, another takes over, and then the first one wakes up.

For every effect and look of the first host, which is the manager: it stands still in the middle of that call, is proven
dead after a while, the second host becomes the manager and does its act to the end, and the first one goes on. The call
that it was in the middle of still happens, then its process is killed; without a watchdog that is all that is
promised. Then it boots, and a third host compares with everything that may have counted, fixes all, and compares again.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.api import Engine
from engine.errors import DiskwrightError
from sim.disk.files import Fault
from sim.explore import acts
from sim.explore.acts import outcomes
from sim.explore.explorer import EFFECTS, Story, prepared
from sim.explore.freezes import Freeze, Woken
from sim.explore.recovery import recover
from sim.explore.stage import Stage
from sim.hosts.crash import Crashed
from sim.hosts.processes import SimProcess
from sim.hosts.shared_leases import DEAD_S
from sim.hosts.world import SHARED, Job

LOOKS = ("shared_leases.try_acquire", "handle.read_at", "volume_groups.report")


def run_frozen_hosts(freeze: Freeze, every: int = 1, first: int = 1) -> Iterator[Woken | None]:
    """What went wrong, None for nothing, for each place at which the first host can freeze; of all places only each
    so-many-th."""
    stage = prepared(Story(freeze.name, freeze.prepare, lambda stage: None, format=SHARED))
    call = first
    while True:
        run = _Run(stage, freeze, call)
        problems = run.play()
        if not run.before:
            return
        yield Woken(freeze.name, call, run.before, tuple(problems)) if problems else None
        call += every


class _Run:
    """One of them."""

    def __init__(self, stage: Stage, freeze: Freeze, call: int) -> None:
        self._stage = stage
        self._acts = (freeze.frozen(stage), freeze.meanwhile(stage))
        self._call = call
        self._jobs = (Job(), Job())
        self._world = stage.world.fork(stage.world.storage.clone(), self._hook)
        self._one: SimProcess | None = None
        self._calls = 0
        self.before = ""
        """The call in which the first host stood still; "" when it did not come to it."""

    def play(self) -> list[str]:
        """What is wrong after it."""
        world = self._world
        engine = world.host("one")
        world.host("two")
        self._one = world.process_of(engine)
        self._do(engine, 0)
        self._one = None
        if not self.before:
            return []
        for host in list(world.hosts):
            world.bury(host)
        world.storage.settle()
        models = outcomes(self._stage.models, self._acts, self._jobs)
        if not models:
            return ["no order of the acts explains what was acknowledged"]
        world.host("one")  # what it had under way is over now
        found = recover(world, models)
        return [f"{problem} ({'; '.join(acts.told(self._acts, self._jobs))})" for problem in found]

    def _do(self, engine: Engine, number: int) -> None:
        job = self._jobs[number]
        try:
            job.result = self._acts[number].run(engine)
            job.done = True
        except DiskwrightError as error:
            job.error, job.done = error, True
        except Crashed:
            return

    def _hook(self, process: SimProcess, call: str, what: str) -> Fault:
        if process is self._one and (call in EFFECTS or call in LOOKS):
            self._calls += 1
            if self._calls == self._call:
                self.before = f"{call} {what}"
                self._freeze()
        return Fault.NONE

    def _freeze(self) -> None:
        world = self._world
        world.machine("one").freeze()
        world.advance(DEAD_S + 1)
        world.manage("two")
        self._do(world.host("two"), 1)
        world.machine("one").thaw()
