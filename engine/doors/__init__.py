"""The doors: everything the engine does to the world goes through one of these.

``files`` (real or simulated storage), ``leases`` (who may write), ``images`` (qemu's tools),
``processes`` (runners and holders), ``clock``, ``ids``, ``mounts`` (NFS), ``volume_groups`` (LVM),
``shared_leases`` (who may write, between hosts), ``hypervisors`` (running machines).
Here are interfaces and plain data alone. What is behind them on a real host is in ``engine.tools``, the only place that
may touch ``os``, ``subprocess`` or ``time``; the simulator puts models there, and never replaces the engine.
"""

from __future__ import annotations

from typing import NamedTuple

from engine.doors.clock import Clock, Ids
from engine.doors.files import Files
from engine.doors.hypervisor import Hypervisors
from engine.doors.images import ImageTool
from engine.doors.leases import Leases
from engine.doors.mounts import Mounts
from engine.doors.processes import Processes
from engine.doors.shared_leases import SharedLeases
from engine.doors.volume_groups import VolumeGroups


class Doors(NamedTuple):
    """One host's access to the world."""

    files: Files
    leases: Leases
    images: ImageTool
    processes: Processes
    clock: Clock
    ids: Ids
    mounts: Mounts
    volume_groups: VolumeGroups
    shared_leases: SharedLeases
    hypervisors: Hypervisors
