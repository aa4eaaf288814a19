"""What the kernel has active of a volume group, asked of the kernel itself: LVM takes a tenth of a second for it.

A device of a logical volume has the uuid ``LVM-<group><volume>`` (32 characters each, without hyphens),
whatever its name is by now.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from engine.doors.volume_groups import PhysicalRange
from engine.errors import ToolFailed
from engine.tools.local.command import CommandRunner, failure
from engine.tools.lvm.names import MAPPER, unmapped

PACKAGE = "dmsetup"
_CONTROL = f"{MAPPER}control"
_SYSTEM = "/sys/class/block"
_DEVICE_STATUS = 0xC138FD07  # linux/dm-ioctl.h: DM_DEV_STATUS and so on, the same on all 64-bit machines
_TABLE_STATUS = 0xC138FD0C
_TABLE_NOT_STATUS = 1 << 4
_BUFFER_FULL = 1 << 8
_REQUEST = struct.Struct("=3IIIIiIIIQ128s129s7x")
_TARGET = struct.Struct("=QQiI16s")
_TABLE_BYTES = 1000
"""What Python passes to an ioctl without a buffer of ours; room for a dozen pieces."""
_SECTOR_BYTES = 512
_UUID_BYTES = 32
_UDEV = "/run/udev/control"
_PATIENCE_S = 60.0


class Mapped(NamedTuple):
    """A device of the kernel's device-mapper."""

    name: str
    uuid: str
    opened: int
    """How often it is open on this host, through whichever name."""

    @property
    def volume(self) -> str:
        """The uuid of the logical volume, as ``plain`` makes it."""
        return self.uuid[4 + _UUID_BYTES : 4 + 2 * _UUID_BYTES]

    @property
    def group(self) -> str:
        """The name that the volume group had when the device was made."""
        return unmapped(self.name)[0]


def plain(uuid: str) -> str:
    """Return LVM's uuid as device-mapper has it."""
    return uuid.replace("-", "")


def uuid_of(group: str, volume: str) -> str:
    """Return the uuid of the device of a logical volume."""
    return f"LVM-{plain(group)}{plain(volume)}"


def devices_of(group: str) -> list[Mapped]:
    """Return the active devices of the volume group with that uuid, in order of their names. Plain OSError."""
    prefix = f"LVM-{plain(group)}"
    found = []
    for device in os.listdir(_SYSTEM):
        if device.startswith("dm-"):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # gone meanwhile
                uuid, name = (_line(f"{_SYSTEM}/{device}/dm/{item}") for item in ("uuid", "name"))
                if uuid.startswith(prefix):
                    found.append((name, uuid))
    return [Mapped(name, uuid, _opened(uuid)) for name, uuid in sorted(found)]


def remove(device: Mapped) -> None:
    """Take a device away, whatever LVM thinks of its volume; success when it is gone. ToolFailed while it is open."""
    alone = not os.path.exists(_UDEV)
    arguments = ["dmsetup", "remove", *(["--noudevrules", "--noudevsync"] if alone else []), "--uuid", device.uuid]
    result = CommandRunner(PACKAGE).run(arguments, patience_s=_PATIENCE_S)
    if "resource busy" in result.words:
        raise ToolFailed(f"{device.name} is in use", "Close what has it open on this host and try again")
    if result.exit_code and "No such device" not in result.words:
        raise failure("dmsetup remove", device.name, result)
    if alone:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{MAPPER}{device.name}")


def tidy(directory: str) -> None:
    """Take away links in a group's directory of ``/dev`` that lead nowhere: without udev nobody else does."""
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            path = f"{directory}/{name}"
            if os.path.islink(path) and not os.path.exists(path):
                os.unlink(path)
        os.rmdir(directory)


def _line(path: str) -> str:
    with open(path, encoding="utf-8", errors="backslashreplace") as file:
        return file.read().rstrip("\n")


def _opened(uuid: str) -> int:
    """Return how often a device is open; 0 when it is gone meanwhile."""
    try:
        count: int = _REQUEST.unpack_from(_asked(_DEVICE_STATUS, uuid, 0))[6]
    except OSError as error:
        if error.errno == errno.ENXIO:
            return 0
        raise
    return count


def _asked(command: int, uuid: str, flags: int) -> bytes:
    """Return the kernel's answer about one device. Plain OSError; ENXIO: there is none."""
    import fcntl

    length = _TABLE_BYTES
    request = _REQUEST.pack(4, 0, 0, length, _REQUEST.size, 0, 0, flags, 0, 0, 0, b"", uuid.encode())
    descriptor = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        return fcntl.ioctl(descriptor, command, request.ljust(length, b"\0"))
    finally:
        os.close(descriptor)


def lies_there(path: str, uuid: str, ranges: Sequence[PhysicalRange]) -> bool:
    """Tell whether the device that ``path`` names is that one, and means exactly these ranges. False also when that
    cannot be found out."""
    try:
        answer = _asked(_TABLE_STATUS, uuid, _TABLE_NOT_STATUS)
        header = _REQUEST.unpack_from(answer)
        flags, number = header[7], header[10]
        device = os.stat(path).st_rdev
        if flags & _BUFFER_FULL or (number & 0xFFF00) >> 8 != os.major(device) or _minor(number) != os.minor(device):
            return False
        wanted = [(os.stat(place.device).st_rdev, place.start, place.length) for place in ranges]
        return _joined(_table(answer, header[4], header[5])) == _joined(wanted)
    except (OSError, ValueError, struct.error):
        return False


def _minor(number: int) -> int:
    """Return the minor number of a device out of the kernel's own number, as it stands in structures."""
    return (number & 0xFF) | ((number >> 12) & 0xFFF00)


def _table(answer: bytes, start: int, targets: int) -> Iterator[tuple[int, int, int]]:
    """Return (device, start, length) of each piece in order, in bytes. ValueError: it is not made of linear ones."""
    at = start
    for _ in range(targets):
        _, length, _, following, kind = _TARGET.unpack_from(answer, at)
        words = answer[at + _TARGET.size :].split(b"\0", 1)[0].decode("ascii").split()
        if kind.rstrip(b"\0") != b"linear" or len(words) != 2:
            raise ValueError("not linear")
        major, _, minor = words[0].partition(":")
        yield os.makedev(int(major), int(minor)), int(words[1]) * _SECTOR_BYTES, length * _SECTOR_BYTES
        at = start + following


def _joined(pieces: Iterable[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Return the ranges with neighbours made one."""
    found: list[tuple[int, int, int]] = []
    for device, start, length in pieces:
        if found and found[-1][0] == device and found[-1][1] + found[-1][2] == start:
            found[-1] = device, found[-1][1], found[-1][2] + length
        else:
            found.append((device, start, length))
    return found
