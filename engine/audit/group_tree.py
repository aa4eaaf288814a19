"""A volume group as a tree: each logical volume a file of the root. Nothing is activated, nothing is written.

A linear volume is read where it lies on the devices of the group, active or not; one that is open on this host by its
own device, which sees what this host has not written back yet. What is neither linear nor active cannot be looked into.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from zlib import crc32

from engine.doors.files import Kind, Stat
from engine.doors.trees import Held, Member, Start
from engine.doors.volume_groups import BLOCK_BYTES, BlockHandle, LogicalVolume, VolumeGroup, VolumeGroups, users_of
from engine.errors import DiskwrightError
from engine.tools.lvm.names import check_volume

_READINGS = 50
"""Volumes that are begun with one report: LVM moves and extends them meanwhile."""


class GroupTree:
    """The logical volumes of one group, as a report told them; each is read where a late one says that it lies."""

    def __init__(self, groups: VolumeGroups, name: str) -> None:
        """Ask for the group. As ``VolumeGroups.report``."""
        self._groups = groups
        self._group = groups.report(name)
        self._inodes = {volume: number for number, volume in enumerate(sorted(self._group.volumes), start=1)}
        self._device = -1 - crc32(self._group.uuid.encode())
        self._handles: dict[str, BlockHandle] = {}
        self._now, self._begun = self._group, 0

    @property
    def names(self) -> tuple[str, ...]:
        """The directory in which devices of active volumes are."""
        return (f"/dev/{self._group.name}",)

    @property
    def group(self) -> VolumeGroup:
        """As it was reported first."""
        return self._group

    def list(self, path: str) -> list[Member]:
        """List the volumes."""
        if path:
            raise OSError(errno.ENOTDIR, "it is a logical volume", path)
        return [
            Member(name, Stat(Kind.FILE, volume.size, volume.size, self._inodes[name], 1, 0, self._device), "")
            for name, volume in self._group.volumes.items()
        ]

    def start(self, path: str, length: int) -> Start:
        """Read the beginning, and ask who has the device open on this host."""
        self._begun += 1
        if self._begun % _READINGS == 0:
            with _plain():
                self._now = self._groups.report(self._group.name)
        volume = self._volume(path)
        with _plain():
            users = tuple(users_of(self._groups, self._group.name, volume))
        return Start(self.read(path, 0, length), volume.size, users)

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Read from the devices of the group, in whole blocks."""
        volume = self._volume(path)
        end = min(offset + length, volume.size)
        if offset < 0 or offset >= end:
            return b""
        first = offset - offset % BLOCK_BYTES
        last = min(-(-end // BLOCK_BYTES) * BLOCK_BYTES, volume.size)
        with _plain():
            data = self._read(volume, first, last)
        return data[offset - first : end - first]

    def _read(self, volume: LogicalVolume, first: int, last: int) -> bytes:
        if volume.active and (volume.open or not volume.ranges):
            with self._groups.open_device(self._path(volume)) as handle:  # not kept: it would keep others from removing
                return handle.read_at(first, last - first)
        if not volume.ranges:
            kind = f"is a snapshot of {volume.origin}" if volume.origin else f"is not linear ({volume.kind})"
            away = self._now.partial and not volume.origin and volume.kind == "linear"
            raise OSError(errno.EIO, self._now.lacks() if away else f"it is not active and {kind}")
        pieces = volume.pieces(first, last - first)
        return b"".join(self._handle(piece.device).read_at(piece.start, piece.length) for piece in pieces)

    @contextlib.contextmanager
    def hold(self, path: str) -> Iterator[Held]:
        """Name the device of an active volume. LVM's names are its administrators', so nobody else swaps it."""
        volume = self._volume(path)
        if not volume.active:
            words = f"it is not active, and nothing is activated here (lvchange -ay {self._of(path)})"
            raise OSError(errno.ENXIO, words)
        yield Held(self._path(volume), self._device, self._inodes[path], block=True)

    def close(self) -> None:
        """Close the devices of the group."""
        for handle in self._handles.values():
            handle.close()
        self._handles.clear()

    def _volume(self, path: str) -> LogicalVolume:
        volume = self._now.volumes.get(path)
        if volume is None:
            raise OSError(errno.ENOENT, "no such logical volume", path)
        return volume

    def _of(self, volume: str) -> str:
        return f"{self._group.name}/{volume}"

    def _path(self, volume: LogicalVolume) -> str:
        """The device of an active volume; EINVAL for a name that LVM would not take, which may lead anywhere."""
        return f"/dev/{self._of(check_volume(volume.name))}"

    def _handle(self, device: str) -> BlockHandle:
        found = self._handles.get(device)
        if found is None:
            found = self._handles[device] = self._groups.open_device(device)
        return found


@contextlib.contextmanager
def _plain() -> Iterator[None]:
    """Make OSErrors of what a door to LVM raises."""
    try:
        yield
    except DiskwrightError as error:
        raise OSError(errno.EIO, error.message) from error
