"""Random runs in which several disks are often frozen at one moment. Nobody may ever find some of their snapshots only.

The model says so: what came to no end has made all of them, or none (``sim.explore.cases.operations.snapshots``). All
else is as in other runs: hosts that die, faults, machines, operators, fixes that clean away what was begun.
"""

from __future__ import annotations

from sim.explore.cases import operations
from sim.explore.cases.driver import Driver
from sim.explore.cases.fixtures.images import two_disks
from sim.explore.cases.operations import Operation
from sim.explore.oracle.reference import Model
from sim.explore.random.rounds import HOSTS, RandomRun, RemoteRun

_MOST_IMAGES = 12
_MOST_DISKS = 3
"""Of a group."""


class GroupsRun(RandomRun):
    """One run."""

    def _begin(self) -> None:
        """Two disks are there."""
        driver = Driver(self.world, host=HOSTS[0])
        two_disks(driver)
        driver.close()
        self.models = driver.models

    def _operation(self, model: Model) -> Operation:
        repo = self._repository()
        disks = sorted(
            image
            for (where, image), known in model.images.items()
            if where == repo and known.mutable and not known.removed
        )
        if len(disks) < 2 or len(model.images) > _MOST_IMAGES or not self._tape.choose(2, "several disks"):
            return super()._operation(model)
        first = self._tape.choose(len(disks), "disk with the seal")
        return operations.snapshots(repo, (disks[first:] + disks[:first])[:_MOST_DISKS])


class RemoteGroupsRun(GroupsRun, RemoteRun):
    """The same on a server."""
