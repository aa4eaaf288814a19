"""Random runs of hosts that share a volume group on LVM.

Beside what befalls processes, a whole host stands still, loses its power, is apart from the storage for a while or is
evicted; with a watchdog it is reset when it has lost its presence, without one it goes on. The manager is another host
in each round, hosts that others may have lost wait until that is proven and take its role, and between two rounds a
host boots or only loses its processes, so that what it said is active there counts on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from engine.api import Engine
from engine.errors import DiskwrightError
from sim.explore.cases.driver import Driver
from sim.explore.cases.fixtures import images
from sim.explore.cases.operations import Operation
from sim.explore.oracle.reference import Model
from sim.explore.random.rounds import HOSTS, REPOSITORIES, RESCUER, ROUNDS, RandomRun
from sim.hosts.faults import APART_S, SHARED_KINDS
from sim.hosts.lease_areas import DEAD_S
from sim.hosts.tape import Tape
from sim.hosts.world import SHARED, Job

_WAITS_S = (30.0, DEAD_S + 1)


class SharedRun(RandomRun):
    """One run."""

    format = SHARED
    kinds = SHARED_KINDS
    pace = 1000
    outside = False
    acts = ()

    def __init__(self, tape: Tape, rounds: int = ROUNDS) -> None:
        super().__init__(tape, rounds)
        self.world.watchdog = self._watchdogs()
        self.world.manage(HOSTS[0])
        driver = Driver(self.world, host=HOSTS[0])
        images.a_chain(driver)
        for repo in REPOSITORIES:
            driver.engine().release_srm(repo)
        driver.close()
        self.models = driver.models

    def _watchdogs(self) -> bool:
        """Whether hosts have some."""
        return bool(self._tape.choose(2, "watchdogs"))

    def _start(self, doing: list[Operation]) -> list[Job]:
        manager = HOSTS[self._tape.choose(len(HOSTS), "manager")]
        self.told.append(f"{manager} manages")
        hosts = sorted(HOSTS, key=lambda host: host != manager)[: len(doing)]
        for host in hosts:
            self.world.host(host)  # joined, and it knows who lives
        self.world.manage(manager)
        for host in hosts:
            self._end_processes(host)
        return [self.world.start(host, operation.run) for host, operation in zip(hosts, doing, strict=True)]

    def _operation(self, model: Model) -> Operation:
        operation = super()._operation(model)
        late = self._tape.choose(4, "when")
        return _later(operation, _WAITS_S[late - 1]) if 0 < late <= len(_WAITS_S) else operation

    def _end(self) -> None:
        if any(host.apart for host in self.world.hosts.values()):
            self.world.advance(APART_S[-1])
        for host in HOSTS:
            if self._tape.choose(3, "boots"):
                self._end_processes(host)
            else:
                self.world.bury(host)

    def _end_processes(self, host: str) -> None:
        for process in list(self.world.machine(host).processes.values()):
            process.end(killed=True)

    def _manager(self, host: str) -> Engine:
        """Nobody else runs, so it may say that whoever manages is dead."""
        for other in HOSTS:
            self.world.host(other)
            self._end_processes(other)
        engine = self.world.host(host)
        for repo in REPOSITORIES:
            engine.take_srm(repo, engine.get_srm(repo))
        return engine

    @contextlib.contextmanager
    def _rescuer(self) -> Iterator[Engine]:
        engine = self._manager(RESCUER)
        yield engine
        for repo in REPOSITORIES:
            engine.release_srm(repo)
        engine.close()
        self._end_processes(RESCUER)

    def _make_peace(self) -> None:
        """Every host is back: what it had under way is over, and each has looked what is left of that on it."""
        for host in HOSTS:
            self.world.host(host)
            self._end_processes(host)
            engine = self.world.host(host)
            for repo in REPOSITORIES:
                engine.check_storage_repository(repo)
            self._end_processes(host)


class WatchedRun(SharedRun):
    """One run in which each host has a watchdog, and machines run.

    They do so for as long as a round, since whoever looks has to be sure that nobody else is alive. Without watchdogs a
    machine goes on where its host has lost its leases."""

    outside = True

    def _begin(self) -> None:
        """What there is was made by the manager."""

    def _watchdogs(self) -> bool:
        return True


def _later(operation: Operation, seconds: float) -> Operation:
    """The same after a while, by who is the manager then if it can be."""

    def run(engine: Engine) -> Any:
        engine.doors.clock.sleep(seconds)
        for repo in engine.list_repositories():
            with contextlib.suppress(DiskwrightError):
                engine.take_srm(repo)
        return operation.run(engine)

    return operation._replace(name=f"{operation.name} after {seconds:g} s", run=run)
