"""An OVA: a tar archive with the description of a machine and its disks. Which disks it has, and where in the file.

Nothing is unpacked and no name in it becomes a path: a disk is read where it lies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from engine.errors import BadRequest

_BLOCK = 512
_MOST_MEMBERS = 1000
_MAX_SAID_BYTES = 4096
"""Of what a header says of the member after it, that are read."""
_MAX_DIGITS = 20
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
    at = 0
    said: dict[bytes, bytes] = {}
    for _ in range(_MOST_MEMBERS):
        header = read(at, _BLOCK)
        if not header.strip(b"\0"):
            return found
        if len(header) < _BLOCK or header[257:262] != b"ustar":
            raise _wrong(path, "it is no tar archive" if not at else f"its member at {at} has no header")
        kind = header[156:157]
        before = kind in (_LONG_NAME, _PAX)  # it says of the next member what that cannot say itself
        size = _decimal(said[b"size"], path) if b"size" in said and not before else _number(header[124:136], path)
        start = at + _BLOCK
        if start + size > length:
            raise _wrong(path, f"it is cut off: a member ends at {start + size}, and the file at {length}")
        if before:
            text = read(start, min(size, _MAX_SAID_BYTES))
            said |= {b"path": text} if kind == _LONG_NAME else _records(text)
        else:
            name = _text(said.get(b"path", header[:100]))
            if kind in (b"0", b"\0") and name.lower().endswith(".vmdk"):
                found.append(Disk(name, start, size))
            said = {}
        at = start + -(-size // _BLOCK) * _BLOCK
    raise _wrong(path, f"it has more than {_MOST_MEMBERS} members")


def _number(field: bytes, path: str) -> int:
    if field[0] & 0x80:
        return int.from_bytes(field, "big") & ((1 << 88) - 1)
    digits = field.strip(b" \0")
    if not digits or any(digit not in b"01234567" for digit in digits):
        raise _wrong(path, f"the length of a member is {field!r:.40}")
    return int(digits, 8)


def _decimal(digits: bytes, path: str) -> int:
    if not digits.isdigit() or len(digits) > _MAX_DIGITS:
        raise _wrong(path, f"the length of a member is {digits!r:.40}")
    return int(digits)


def _records(text: bytes) -> dict[bytes, bytes]:
    """The values in an extended header, of records "LENGTH KEY=VALUE\\n", up to the first that is none."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(text):
        digits = text[at : at + 8].split(b" ", 1)[0]
        length = int(digits) if digits.isdigit() else 0
        if length <= len(digits) + 1:
            break
        key, _, value = text[at + len(digits) + 1 : at + length - 1].partition(b"=")
        found[key] = value
        at += length
    return found


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def _wrong(path: str, what: str) -> BadRequest:
    return BadRequest(f"{path!r:.200} is no OVA: {what}", "State the right format, or get it again whole")
