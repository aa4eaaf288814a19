"""What holds of a machine whose disk lies in a volume group, besides what holds of any: for ``live``.

Its guest has all of a device, the volume that it writes to has room for all of that from the start, other hosts know of
each volume that it has open, and nothing stays active when it is gone.
"""

from __future__ import annotations

from engine.api import Engine
from engine.data.model import VolumeFormat
from engine.formats.lvm.metadata import layout
from engine.formats.lvm.volumes.sizes import most_bytes
from sim.disk.content import Content
from sim.hosts.machine import SimMachine
from sim.hosts.processes import SimHost
from sim.hosts.world import LVM, World
from sim.lvm.group_model import EXTENT_BYTES
from sim.lvm.volume_groups import DEVICE_ROOT, groups_of


def fitted(engine: Engine, disk: str, machine: SimMachine, content: Content) -> Content:
    """Make a disk as long as its machine has it, as a snapshot asks for; return what it shows then."""
    if machine.size <= content.size or engine.context.repository("a").activation is None:
        return content
    engine.resize_disk("a", disk, machine.size)
    return content.truncate(machine.size)


def longer(world: World, machine: SimMachine, otherwise: int) -> int:
    """How long a disk is to become: on LVM so that its volume does, too."""
    return otherwise if world.format != LVM else machine.size + EXTENT_BYTES + 100


def problems(world: World, host: SimHost, machine: SimMachine) -> list[str]:
    """What is wrong with the volumes of a machine that runs."""
    if world.format != LVM:
        return []
    found = []
    path = machine.written_path()
    for group in groups_of(world.storage).values():
        for name, volume in group.volumes.items():
            if path == f"{DEVICE_ROOT}{group.name}/{name}":
                room = len(volume.extents) * EXTENT_BYTES
                if room < most_bytes(VolumeFormat(machine.nodes()[0].format), machine.size):
                    found.append(f"the volume that the machine writes to has {room} bytes")
            if host.opened.get(volume.uuid) and volume.uuid not in host.active:
                found.append(f"{name} is open and not active")
    return found


def left(world: World, host: SimHost) -> list[str]:
    """What stays active although nobody uses it."""
    if world.format != LVM:
        return []
    return [
        f"{name} stays active"
        for group in groups_of(world.storage).values()
        for name, volume in group.volumes.items()
        if layout.data_of(name) is not None and volume.uuid in host.active
    ]
