"""The doors of a host of a scenario on a real kernel: those of production, but for what must be the same everywhere.

Blocks are never shared (reflink), so that effects have the same numbers on every file system; ids are counted, so
that things which are alike come in the order that the simulator has them in.
"""

from __future__ import annotations

import os
from typing import cast

from engine.assembly import real_doors
from engine.doors import Doors
from engine.doors.files import Abilities, FileHandle, RunPlace
from engine.tools.local.files import RealFiles
from engine.tools.local.leases import OfdLeases
from engine.tools.sanlock.shared_leases import SanlockLeases
from sim.hosts.doors.clock import uuid4

SANLOCK_TIMEOUT_S = 1
"""As short as sanlock allows: a host that died is known to be dead soon."""


class PlainFiles(RealFiles):
    """The kernel's files, of which none shares blocks; what a boot clears is below the directory ``top``."""

    def __init__(self, top: str) -> None:
        self._top = top

    def run_place(self) -> RunPlace:
        return RunPlace(f"{self._top}/run", True)

    def probe(self, path: str) -> Abilities:
        return super().probe(path)._replace(reflink=False)

    def clone(self, source: FileHandle, target: FileHandle) -> bool:
        return False


class CountedIds:
    """The ids that a simulated host of that name gets: the order of things that are otherwise alike depends on ids.

    How many were given stands in a file, for all processes of the host."""

    def __init__(self, host: str, counter: str, seed: int) -> None:
        self.host_id = host
        self.host_nonce = ""
        self._counter = counter
        self._seed = seed

    def new_id(self) -> str:
        descriptor = os.open(self._counter, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            count = int(os.pread(descriptor, 20, 0) or b"0") + 1
            os.pwrite(descriptor, b"%020d" % count, 0)
        finally:
            os.close(descriptor)
        return uuid4(f"{self._seed}/{self.host_id}/{count}")  # as sim.hosts.doors.clock.IdSource


def real_doors_of(host: str, top: str, seed: int) -> Doors:
    """Make the doors of a process of a host whose counts lie in ``ids`` below the directory ``top``."""
    doors = real_doors(host)
    return doors._replace(
        files=PlainFiles(top),
        ids=CountedIds(host, f"{top}/ids/{host}", seed),
        shared_leases=SanlockLeases(cast(OfdLeases, doors.leases).descriptors, SANLOCK_TIMEOUT_S),
    )
