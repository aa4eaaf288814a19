"""The doors: everything the engine does to the world goes through one of these.

``files`` (real or simulated storage), ``leases`` (who may write), ``images`` (qemu's tools),
``processes`` (runners and holders), ``clock``, ``ids``, ``mounts`` (NFS), ``volume_groups`` (LVM),
``shared_leases`` (who may write, between hosts).
The simulator replaces the doors and never the engine, so nothing else in ``engine`` may touch
``os``, ``subprocess`` or ``time``.
"""

from __future__ import annotations

from typing import NamedTuple

from engine.doors.clock import Clock, Ids
from engine.doors.files import Files
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
