"""The lab: hosts with device-mapper, LVM and NFS on machines that have none of it.

Each host is a User-Mode Linux guest: an ordinary process that boots in two seconds, sees this
machine's files read-only, and whose SIGKILL is the death of a host. ::

    with Lab() as lab:
        disk = lab.disk("shared", 1 << 30, shared=True)
        host = lab.boot("host-a", disks=[disk])
        print(host.run(["lvm", "version"]).stdout)

``lab`` has the Lab, ``guest`` one host, ``wire`` and ``channel`` how commands get into it, ``inside`` what
runs there, ``keeper`` the process that forwards packets and leaves nothing behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim.lab.channel import Done, Running
    from sim.lab.errors import CommandFailed, CommandNotStarted, GuestDied, LabError
    from sim.lab.guest import Disk, Guest
    from sim.lab.lab import Lab

__all__ = ["CommandFailed", "CommandNotStarted", "Disk", "Done", "Guest", "GuestDied", "Lab", "LabError", "Running"]
_WHERE = {
    "Done": "channel",
    "Running": "channel",
    "CommandFailed": "errors",
    "CommandNotStarted": "errors",
    "GuestDied": "errors",
    "LabError": "errors",
    "Disk": "guest",
    "Guest": "guest",
    "Lab": "lab",
}


def __getattr__(name: str) -> Any:
    """The names above; process 1 of a guest imports from this package too, and needs none of them."""
    from importlib import import_module

    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
