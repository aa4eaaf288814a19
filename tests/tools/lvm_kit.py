"""LVM on loop devices of this machine; without device-mapper in its kernel all but activation works."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path

from engine.doors.volume_groups import BLOCK_BYTES, BlockHandle
from engine.errors import StorageError
from engine.tools.block.loop import LoopDevices
from engine.tools.local.environment import of_a_tool
from engine.tools.lvm.volume_groups import LvmVolumeGroups

MiB = 1 << 20
EXTENT = 4 * MiB
"""LVM's default."""

Group = Callable[[str], None]


class Bench:
    """A directory with LVM's configuration, which shows LVM the devices made here and no others."""

    def __init__(self, directory: Path, activation: bool = False) -> None:
        """``activation``: the kernel has device-mapper, and LVM is to use it."""
        self.activation = activation
        self.directory = directory
        self.loops = LoopDevices()
        self.paths: list[str] = []
        self.devices: dict[str, str] = {}
        """What is attached: files by device."""

    def device(self, size: int = 512 * MiB, sector_bytes: int = 512) -> str:
        """A new empty device that LVM sees."""
        path = str(self.directory / f"device{len(self.paths)}")
        self.loops.create_file(path, size)
        self.paths.append(path)
        return self.attach(path, sector_bytes)

    def attach(self, path: str, sector_bytes: int = 512) -> str:
        """Make the file a device that LVM sees."""
        device = self.loops.attach(path, sector_bytes).device
        self.devices[device] = path
        self.show(list(self.devices))
        return device

    def detach(self, device: str) -> str:
        """Take the device away; returns its file. LVM looks for it no more: it is now whoever's is next to ask."""
        path = self.devices.pop(device)
        self.show(list(self.devices))
        self.loops.detach(path)
        return path

    def show(self, devices: list[str]) -> None:
        """Let LVM find these devices alone."""
        seen = ", ".join(f'"a|^{device}$|"' for device in devices)
        (self.directory / "lvm.conf").write_text(
            f'devices {{ filter = [ {seen}, "r|.*|" ] }}\n'
            f'global {{ activation = {self.activation:d} locking_dir = "{self.directory}/lock" }}\n'
        )

    def end(self) -> None:
        """Take all devices away."""
        for path in self.paths:
            with contextlib.suppress(StorageError):  # somebody's LVM looks at it: the kernel takes it away afterwards
                self.loops.detach(path)


def lvm(directory: Path, *arguments: str, system_id: str = "") -> str:
    """A command of somebody else's on the host with that mark."""
    import subprocess

    surroundings = of_a_tool() | {"LVM_SYSTEM_DIR": str(directory)}
    without_udev = (
        "devices { use_devicesfile=0 obtain_device_list_from_udev=0 } activation { udev_sync=0 udev_rules=0 }"
    )
    owner = f' global {{ system_id_source="lvmlocal" }} local {{ system_id="{system_id}" }}' if system_id else ""
    command = ["lvm", arguments[0], "--config", without_udev + owner, *arguments[1:]]
    done = subprocess.run(command, env=surroundings, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{arguments}: {done.stderr}"
    return done.stdout


def commands(door: LvmVolumeGroups) -> list[str]:
    """The verbs that were run so far."""
    return [command.arguments[1] for command in door.recent_commands]


def fill(directory: Path, group: str, count: int, system_id: str = "") -> None:
    """Give an empty group of one device ``count`` volumes of one extent, each with a tag, in one command."""
    import re

    backup = directory / "backup"
    lvm(directory, "vgcfgbackup", "-f", str(backup), group, system_id=system_id)
    text = backup.read_text()
    volumes = "".join(
        f'v{number} {{\nid = "{number:06d}-0000-0000-0000-0000-0000-000000"\nstatus = ["READ", "WRITE", '
        f'"VISIBLE"]\ntags = ["dw.p={number:032x}"]\nsegment_count = 1\nsegment1 {{\nstart_extent = 0\n'
        f'extent_count = 1\ntype = "striped"\nstripe_count = 1\nstripes = [\n"pv0", {number}\n]\n}}\n}}\n'
        for number in range(count)
    )
    after_devices = r"(\n\tphysical_volumes \{.*?\n\t\}\n)"
    filled = re.sub(after_devices, rf"\1logical_volumes {{\n{volumes}}}\n", text, flags=re.DOTALL)
    backup.write_text(filled)
    lvm(directory, "vgcfgrestore", "--force", "-f", str(backup), group, system_id=system_id)


def write_pieces(device: BlockHandle, pieces: Iterable[tuple[int, bytes]], at: int = 0) -> None:
    """Write what stands at offsets from ``at``, each piece in whole blocks."""
    for offset, data in pieces:
        device.write_at(at + offset, data + bytes(-len(data) % BLOCK_BYTES))
