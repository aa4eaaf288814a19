"""The door to LVM: volume groups, logical volumes, and their bytes as block devices.

Every command touches only the devices of the group it names. Outcomes of a command that died:
the old or the new state of the group, never a mixture (LVM commits its metadata at one place).
LVM flushes nothing: nothing is durable before ``sync``. Sizes are in bytes and multiples of the
group's extent where they are about logical volumes.

Errors: ``BadRequest`` (LVM takes no such name), ``NotFound`` (no such group or volume), ``Conflict``
(the name is taken), ``Ambiguous`` (two groups have the name), ``Refused`` (the group belongs to another
host; by all that changes it, and by ``activate``), ``NoSpace`` (on the devices, or in the metadata
areas), ``ToolMissing``, ``StorageError`` for the rest (a device is gone, the volume is open, LVM says no).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from engine.doors.files import Access
from engine.doors.users import User

BLOCK_BYTES = 4096
"""Offsets and lengths of direct reads and writes are multiples of this on every device."""
_UNSEEN = User(0, "what is mounted from it, or stands on it", True)


class PhysicalRange(NamedTuple):
    """Where a piece of a logical volume lies."""

    device: str
    start: int
    length: int


class LogicalVolume(NamedTuple):
    """One logical volume as LVM reports it."""

    name: str
    size: int
    tags: frozenset[str]
    active: bool
    """On this host."""
    open: bool
    """Some process of this host has it open."""
    ranges: tuple[PhysicalRange, ...]
    """In order, covering the whole volume; empty for one that is not linear, a snapshot, or on a missing device."""
    kind: str = "linear"
    """LVM's types of its segments, joined by commas."""
    origin: str = ""
    """Of what volume it is a snapshot; "" for one that is none."""
    uuid: str = ""
    """LVM's, which stays when it is renamed."""
    read_only: bool = False
    """Its device is, wherever it is active."""
    autoactivated: bool = False
    """A host makes it active by itself, when it boots or its devices appear: so LVM has it unless it is told."""

    def pieces(self, offset: int, length: int) -> Iterator[PhysicalRange]:
        """Yield where a part of the volume lies, in order; less where it ends before."""
        end = offset + length
        at = 0
        for device, start, extent in self.ranges:
            low, high = max(offset, at), min(end, at + extent)
            if low < high:
                yield PhysicalRange(device, start + low - at, high - low)
            at += extent


class VolumeGroup(NamedTuple):
    """One volume group as LVM reports it."""

    name: str
    uuid: str
    system_id: str
    """LVM's own mark of the only host that may use it, "" when shared."""
    extent_bytes: int
    size: int
    free: int
    partial: bool
    """A physical volume is missing."""
    devices: tuple[str, ...]
    metadata_free: int
    """Bytes left in the smallest metadata area."""
    volumes: dict[str, LogicalVolume]
    missing: tuple[str, ...] = ()
    """LVM's uuids of the physical volumes that are missing, as far as it knows them."""
    tags: frozenset[str] = frozenset()

    def lacks(self) -> str:
        """Return why a volume without ranges cannot be read, for messages."""
        return self.say_missing() if self.partial else "it is not linear"

    def say_missing(self) -> str:
        """Name what is missing of a partial group, for messages."""
        if not self.missing:
            return f"a device of the volume group {self.name} is missing"
        return f"of the volume group {self.name} is missing the physical volume {', '.join(self.missing)}"


class BlockHandle(Protocol):
    """An open block device: direct I/O, so nothing is cached on this host."""

    @property
    def size(self) -> int:
        """Bytes."""

    def give(self, access: Access) -> None:
        """Set owner, group and mode of the device on this host, as long as it is there. EINVAL when this host does not
        know a name, EPERM when it may not."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Read exactly ``length`` bytes; OSError when they are not there."""

    def write_at(self, offset: int, data: bytes) -> None:
        """Write all of it. A power cut may leave any subset of its sectors written."""

    def zero(self, offset: int, length: int) -> None:
        """Make the range read as zeros, by the device's own command where it has one."""

    def sync(self) -> None:
        """Make what was written durable. After an error the content is unknown: never retry."""

    def close(self) -> None:
        """Close the device. Idempotent."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class VolumeGroups(Protocol):
    """LVM of this host."""

    @property
    def system_id(self) -> str:
        """LVM's mark of this host, never empty; different hosts have different ones."""

    @property
    def former_system_id(self) -> str:
        """The mark that older programs give a host of this name: other hosts of the name have the same."""

    def report(self, group: str) -> VolumeGroup:
        """Return everything about one group as it is now, in at most a constant number of commands; also about one of
        another host."""

    def create_group(self, group: str, devices: Sequence[str], system_id: str) -> None:
        """Make physical volumes of unused devices and a group of them: two metadata areas of 16 MiB at least,
        autoactivation off. Conflict when a device is in use or the name is taken."""

    def set_system_id(self, group: str, system_id: str, present: str) -> None:
        """Change the only host that may use the group ("" for none), given that it is ``present`` now.
        Conflict when it is another; success when it is both already."""

    def create(self, group: str, name: str, size: int, tags: Sequence[str]) -> tuple[PhysicalRange, ...]:
        """Make a linear volume with its tags in one command, not active, its bytes as they are on the devices.
        The size is rounded up to whole extents. Returns where it lies; () when a report has to tell that."""

    def resize(self, group: str, name: str, size: int) -> None:
        """Extend or reduce to ``size``, rounded up to whole extents; what is cut off is lost."""

    def change_tags(self, group: str, name: str, add: Sequence[str], remove: Sequence[str]) -> None:
        """Add and remove tags of a volume in one commit."""

    def set_autoactivation(self, group: str, name: str, wanted: bool) -> None:
        """Say in one commit whether a host makes a volume active by itself; success when that was said already."""

    def rename(self, group: str, name: str, new: str) -> None:
        """Give a volume another name in one commit."""

    def remove(self, group: str, name: str) -> None:
        """Deactivate and remove; success when it is gone already, StorageError while it is open."""

    def activate(self, group: str, name: str) -> str:
        """Make the volume a device of this host and return its path. One that is a device already gets the
        place and size that the group gives it now, which another host may have changed."""

    def deactivate(self, group: str, name: str) -> None:
        """Take a device away; success when it is not there, StorageError while it is open. Also of a group that belongs
        to another host by now."""

    def deactivate_each(self, group: str, names: Sequence[str]) -> list[str]:
        """Take many devices away, as ``deactivate`` does; return the names of those that stay: somebody has them
        open."""

    def remove_devices(self, uuid: str) -> list[str]:
        """Take away every device that this host has of the group with that uuid, whoever may use the group now and
        whatever has become of their volumes. Returns what is open and stays. For a host that leaves."""

    def sync(self, group: str) -> None:
        """Make every change to the group durable: flush each of its devices."""

    def open_device(self, path: str, writable: bool = False) -> BlockHandle:
        """Open a device (a volume's path, or a device of the group) for direct I/O. Plain OSError."""

    def users(self, group: str, name: str) -> list[User]:
        """Return the processes of this host, other than this one, that have the volume open, as far as they may be
        looked at. ``LogicalVolume.open`` tells whether anybody has."""

    def attach_files(self, files: Sequence[str], sector_bytes: int, file_bytes: int = 0) -> list[str]:
        """Return devices over these files, in their order; success where they are attached already. With ``file_bytes``
        files that are missing are made first, durable. NotFound when a file is missing."""

    def detach_files(self, files: Sequence[str]) -> None:
        """Take those devices away; success where there are none, also when a file is missing. StorageError while
        one is in use."""


def users_of(groups: VolumeGroups, group: str, volume: LogicalVolume) -> list[User]:
    """Return who has a volume open on this host, as a report told it: somebody wherever LVM says that it is open."""
    return (groups.users(group, volume.name) or [_UNSEEN]) if volume.open else []
