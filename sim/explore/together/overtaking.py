"""One host stands still at one of its calls, another does its operation meanwhile, and the first one goes on."""

from __future__ import annotations

from collections.abc import Iterable

from engine.api import Engine
from engine.errors import DiskwrightError
from sim.disk.files import Fault
from sim.explore.cases import operations
from sim.explore.cases.driver import Driver
from sim.explore.cases.operations import Operation, outcomes
from sim.explore.oracle.recovery import recover
from sim.explore.oracle.reference import Model
from sim.explore.search.explorer import EFFECTS
from sim.hosts.crash import Crashed
from sim.hosts.processes import SimProcess
from sim.hosts.world import Job, World


class Overtaking:
    """One such run. Who tells a kind of it says at which calls the first host may stand still, and what comes to pass
    there."""

    looks: tuple[str, ...] = ()
    """Beside effects: between two of all these it does not matter when others act."""

    def __init__(self, driver: Driver, first: Operation, second: Operation, call: int) -> None:
        """``call``: the how manieth of those calls of the first host it is at which the second one acts."""
        self.models = driver.models
        self.operations = (first, second)
        self.jobs = [Job(), Job()]
        self.world = driver.world.fork(driver.world.storage.clone(), self._hook)
        self.before = ""
        """The call at which the first host stood still; "" when it did not come to it."""
        self._call = call
        self._calls = 0
        self._one: SimProcess | None = None

    def play(self) -> list[str]:
        """What is wrong after it."""
        engine = self.world.host("one")
        self.begin()
        self._one = self.world.process_of(engine)
        self.do(engine, 0)
        self._one = None
        if not self.before:
            return []
        for host in list(self.world.hosts):
            self.world.bury(host)
        return self.judge()

    def begin(self) -> None:
        """Before the first host begins."""

    def may_stop(self, process: SimProcess, call: str, what: str) -> bool:
        """Whether this is a call of the first host at which it may stand still."""
        return process is self._one and (call in EFFECTS or call in self.looks)

    def meanwhile(self, process: SimProcess) -> None:
        """What comes to pass while it stands still."""
        raise NotImplementedError

    def judge(self) -> list[str]:
        """What is wrong when nobody runs any more and all is durable."""
        self.world.storage.settle()
        return self.recovered(self.world)

    def recovered(self, world: World) -> list[str]:
        """What is wrong while another host brings everything in order."""
        models = self.outcomes()
        if not models:
            return ["no order of the operations explains what was acknowledged"]
        return self.with_summaries(recover(world, models))

    def outcomes(self) -> tuple[Model, ...]:
        """All that may be true by now."""
        return outcomes(self.models, self.operations, self.jobs)

    def with_summaries(self, problems: Iterable[str]) -> list[str]:
        """Return problems, each with what came of the operations."""
        done = "; ".join(operations.summaries(self.operations, self.jobs))
        return [f"{problem} ({done})" for problem in problems]

    def do(self, engine: Engine, number: int) -> None:
        """Do one of the two operations, to the end or to the death of its process."""
        job = self.jobs[number]
        try:
            job.result = self.operations[number].run(engine)
            job.done = True
        except DiskwrightError as error:
            job.error, job.done = error, True
        except Crashed:
            return

    def _hook(self, process: SimProcess, call: str, what: str) -> Fault:
        if self._one is not None and self.may_stop(process, call, what):
            self._calls += 1
            if self._calls == self._call:
                self.before = f"{call} {what}"
                self.meanwhile(process)
        return Fault.NONE
