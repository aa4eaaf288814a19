"""What an operator does to a volume group with LVM's own tools, in a guest of the lab."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from engine.tools.lvm.commands import failure
from engine.tools.lvm.volume_groups import LvmVolumeGroups
from sim.lab.guest import Guest
from sim.lab.remote import RemotePython
from sim.scenario.backends.real.clusters import LOCAL, TOP
from sim.scenario.backends.real.doors import real_doors_of

_MODULE = "sim.scenario.backends.real.groups"
_PIECE_BYTES = 4 << 20
_COPY = [f"bs={_PIECE_BYTES}", "status=none"]


class LabGroupTools:
    """A ``GroupTools``. What is kept lies on the private disk of the host."""

    def __init__(self, python: Callable[[str], RemotePython], guest: Callable[[str], Guest]) -> None:
        self._python = python
        self._guest = guest

    def back_up(self, host: str, root: str, name: str, data: bool) -> None:
        """``vgcfgbackup``, or a copy of each device of the group ``root``, up to the last of its volumes."""
        if not data:
            self._lvm(host, root, "vgcfgbackup", ["--file", f"{LOCAL}/{name}.cfg", root])
            return
        for number, (device, length) in enumerate(self._devices(host, root)):
            pieces = f"count={-(-length // _PIECE_BYTES)}"
            source, target = f"if={device}", f"of={LOCAL}/{name}.{number}"
            self._guest(host).run(["dd", source, target, pieces, "iflag=direct", "conv=sparse", *_COPY])

    def put_back(self, host: str, root: str, name: str, data: bool) -> None:
        """``vgcfgrestore``, or the copies."""
        if not data:
            self._lvm(host, root, "vgcfgrestore", ["--yes", "--file", f"{LOCAL}/{name}.cfg", root])
            return
        for number, (device, _) in enumerate(self._devices(host, root)):
            self._guest(host).run(["dd", f"if={LOCAL}/{name}.{number}", f"of={device}", "oflag=direct", *_COPY])

    def permit(self, host: str, root: str, volume: str, writable: bool) -> None:
        """``lvchange --permission``."""
        self._lvm(host, root, "lvchange", ["--permission", "rw" if writable else "r", f"{root}/{volume}"])

    def _devices(self, host: str, group: str) -> list[tuple[str, int]]:
        return cast(list[tuple[str, int]], self._python(host).call(f"{_MODULE}:devices", host, group))

    def _lvm(self, host: str, group: str, command: str, arguments: list[str]) -> None:
        self._python(host).call(f"{_MODULE}:lvm", host, group, command, arguments)


def lvm(host: str, group: str, command: str, arguments: list[str]) -> None:
    """Run a command of LVM as the host does, in its guest. ToolFailed, or what it says otherwise."""
    done = _groups(host)._commands.on_group(command, group, arguments)
    if done.exit_code:
        raise failure(command, group, done)


def devices(host: str, group: str) -> list[tuple[str, int]]:
    """Return the devices of a group, in the guest of a host, each with where the last of its volumes ends."""
    report = _groups(host).report(group)
    ranges = [part for volume in report.volumes.values() for part in volume.ranges]
    return [
        (device, max((part.start + part.length for part in ranges if part.device == device), default=_PIECE_BYTES))
        for device in sorted(report.devices)
    ]


def _groups(host: str) -> LvmVolumeGroups:
    return cast(LvmVolumeGroups, real_doors_of(host, TOP, 0).volume_groups)
