"""A host that shares a volume group freezes as a whole, another takes over, and then the first one wakes up.

For every effect and look of the first host, which is the manager: it stands still in the middle of that call, is
proven dead after a while, the second host becomes the manager and does its operation to the end, and the first one
goes on. The call that it was in the middle of still happens, then its process is killed; without a watchdog that is
all that is promised. Then it boots, and a third host compares with everything that may have counted, fixes all, and
compares again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from sim.explore.cases.case import Case, prepared
from sim.explore.cases.driver import Driver
from sim.explore.together.frozen_processes import Freeze, Woken, every_place
from sim.explore.together.overtaking import Overtaking
from sim.hosts.lease_areas import DEAD_S
from sim.hosts.processes import SimProcess
from sim.hosts.world import SHARED, World


def run_frozen_hosts(freeze: Freeze, every: int = 1, first: int = 1) -> Iterator[Woken | None]:
    """What went wrong, None for nothing, for each place at which the first host can freeze; of all places only each
    so-many-th."""
    driver = prepared(Case(freeze.name, freeze.prepare, lambda driver: None, format=SHARED))
    return every_place(freeze.name, lambda call: _Run(driver, freeze, call), itertools.count(first, every))


class _Run(Overtaking):
    """One of them."""

    looks = ("shared_leases.try_acquire", "handle.read_at", "volume_groups.report")

    def __init__(self, driver: Driver, freeze: Freeze, call: int) -> None:
        super().__init__(driver, freeze.frozen(driver), freeze.meanwhile(driver), call)

    def begin(self) -> None:
        self.world.host("two")

    def meanwhile(self, process: SimProcess) -> None:
        self.world.machine("one").freeze()
        self.world.advance(DEAD_S + 1)
        self.world.manage("two")
        self.do(self.world.host("two"), 1)
        self.world.machine("one").thaw()

    def recovered(self, world: World) -> list[str]:
        world.host("one")  # what it had under way is over now
        return super().recovered(world)
