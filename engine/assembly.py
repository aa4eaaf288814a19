"""The real doors of this machine, put together. The simulator puts others in their place."""

from __future__ import annotations

from engine.doors import Doors
from engine.errors import BadRequest
from engine.tools.hypervisor.monitors import Monitors
from engine.tools.local.clock import RealClock, RealIds
from engine.tools.local.files import RealFiles
from engine.tools.local.leases import OfdLeases
from engine.tools.local.processes import RealProcesses
from engine.tools.lvm.volume_groups import LvmVolumeGroups
from engine.tools.nfs.mounts import NfsMounts
from engine.tools.qemu.images import QemuImageTool
from engine.tools.sanlock.shared_leases import SanlockLeases

MAX_HOST_BYTES = 64


def real_doors(host_id: str, state: str = "") -> Doors:
    """Return the doors for a host of that name, whose notes are in the directory ``state``. Programs that write inherit
    the leases held at that moment.

    BadRequest for a name that cannot stand in records: up to 64 bytes, printable, no slash."""
    if not host_id.isprintable() or "/" in host_id or len(host_id.encode("utf-8", "replace")) > MAX_HOST_BYTES:
        raise BadRequest(f"{host_id!r:.80} cannot name a host", f"Use up to {MAX_HOST_BYTES} printable bytes, no slash")
    leases, ids = OfdLeases(), RealIds(host_id, state)
    return Doors(
        files=RealFiles(),
        leases=leases,
        images=QemuImageTool(leases.descriptors),
        processes=RealProcesses(),
        clock=RealClock(),
        ids=ids,
        mounts=NfsMounts(leases.descriptors),
        volume_groups=LvmVolumeGroups(host_id, lambda: ids.host_nonce),
        shared_leases=SanlockLeases(leases.descriptors),
        hypervisors=Monitors(),
    )
