"""The real doors of this machine, put together. The simulator puts others in their place."""

from __future__ import annotations

from engine.doors import Doors
from engine.doors.clock import RealClock, RealIds
from engine.doors.files import RealFiles
from engine.doors.leases import OfdLeases
from engine.doors.processes import RealProcesses
from engine.tools.qemu import QemuImageTool


def real_doors(host_id: str) -> Doors:
    """Doors for a host of that name. Programs that write inherit the leases held at that moment."""
    leases = OfdLeases()
    return Doors(RealFiles(), leases, QemuImageTool(leases.descriptors), RealProcesses(), RealClock(), RealIds(host_id))
