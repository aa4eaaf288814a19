"""An OVA: a tar archive with the description of a machine and its disks. Which disks it has, and where in the file.

Nothing is unpacked and no name in it becomes a path: a disk is read where it lies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from engine.errors import BadRequest, NotFound

_BLOCK = 512
_MOST_MEMBERS = 1000
_MAX_NAME_BYTES = 4096
_LONG_NAME, _PAX = b"L", b"x"


class Disk(NamedTuple):
    """A disk in an archive."""

    name: str
    offset: int
    length: int


def disks(read: Callable[[int, int], bytes], length: int, path: str) -> list[Disk]:
    """Return the VMDK files of an archive of ``length`` bytes, in its order. ``read`` takes (offset, length).

    BadRequest: it is no tar archive, it ends before its members do, or it has too many."""
    found: list[Disk] = []
    at, name = 0, ""
    for _ in range(_MOST_MEMBERS):
        header = read(at, _BLOCK)
        if not header.strip(b"\0"):
            return found
        if len(header) < _BLOCK or header[257:262] != b"ustar":
            raise _wrong(path, "it is no tar archive" if not at else f"its member at {at} has no header")
        size = _number(header[124:136], path)
        start = at + _BLOCK
        if start + size > length:
            raise _wrong(path, f"it is cut off: a member ends at {start + size}, and the file at {length}")
        kind = header[156:157]
        if kind == _LONG_NAME:
            name = _text(read(start, min(size, _MAX_NAME_BYTES)))
        elif kind == _PAX:
            name = _pax_path(read(start, min(size, _MAX_NAME_BYTES))) or name
        else:
            name = name or _text(header[:100])
            if kind in (b"0", b"\0") and name.lower().endswith(".vmdk"):
                found.append(Disk(name, start, size))
            name = ""
        at = start + -(-size // _BLOCK) * _BLOCK
    raise _wrong(path, f"it has more than {_MOST_MEMBERS} members")


def disk(read: Callable[[int, int], bytes], length: int, path: str, number: int) -> Disk:
    """Return one disk of an archive, counted from 1. NotFound; errors as ``disks``."""
    found = disks(read, length, path)
    if not 1 <= number <= len(found):
        raise NotFound(f"{path!r:.200} has {len(found)} disks (.vmdk), and disk {number} was asked for", "Name another")
    return found[number - 1]


def _number(field: bytes, path: str) -> int:
    if field[0] & 0x80:
        return int.from_bytes(field, "big") & ((1 << 88) - 1)
    digits = field.strip(b" \0")
    if not digits or any(digit not in b"01234567" for digit in digits):
        raise _wrong(path, f"the length of a member is {field!r:.40}")
    return int(digits, 8)


def _pax_path(records: bytes) -> str:
    """The name in an extended header, of records "LENGTH KEY=VALUE\\n"; "" where it has none."""
    at = 0
    while at < len(records):
        digits = records[at : at + 8].split(b" ", 1)[0]
        length = int(digits) if digits.isdigit() else 0
        key, _, value = records[at + len(digits) + 1 : at + length - 1].partition(b"=")
        if length <= 0 or key == b"path":
            return _text(value) if length > 0 else ""
        at += length
    return ""


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def _wrong(path: str, what: str) -> BadRequest:
    return BadRequest(f"{path!r:.200} is no OVA: {what}", "State the right format, or get it again whole")
