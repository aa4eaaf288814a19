"""What is written into disks and expected to be in them: named patterns that differ at every place.

The bytes of a pattern depend on its name and on their offset in the disk, so data that was moved,
mixed up or left out is noticed. ``zeros`` are zeros, ``0x5a`` is that byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from hashlib import shake_128
from typing import NamedTuple

BLOCK_BYTES = 4096
MAX_BYTES = 64 << 20
"""Most that one step writes, and the largest image whose content is looked at."""

_BYTE = re.compile(r"0x([0-9a-fA-F]{1,2})\Z")


class Piece(NamedTuple):
    """A pattern over a range, and again ``every`` so many bytes, so many ``times``."""

    pattern: str
    at: int = 0
    length: int = 0
    every: int = 0
    times: int = 1

    def ranges(self) -> list[tuple[int, int]]:
        """(start, length) of each place."""
        return [(self.at + number * self.every, self.length) for number in range(self.times)]

    @property
    def end(self) -> int:
        """The first byte after all of it."""
        return self.at + (self.times - 1) * self.every + self.length


@lru_cache(maxsize=64)
def data(pattern: str, at: int, length: int) -> bytes:
    """The bytes of a pattern at an offset."""
    if pattern == "zeros":
        return bytes(length)
    match = _BYTE.match(pattern)
    if match is not None:
        return bytes([int(match[1], 16)]) * length
    first = at // BLOCK_BYTES
    blocks = range(first, -(-(at + length) // BLOCK_BYTES))
    whole = b"".join(shake_128(f"{pattern}:{block}".encode()).digest(BLOCK_BYTES) for block in blocks)
    return whole[at - first * BLOCK_BYTES :][:length]


def chunks(pieces: Iterable[Piece]) -> list[tuple[int, bytes]]:
    """(start, data) of all that the pieces write, in order."""
    return [(start, data(piece.pattern, start, length)) for piece in pieces for start, length in piece.ranges()]


def content(pieces: Iterable[Piece], size: int) -> bytes:
    """A disk of ``size`` bytes with these pieces in it, one over the other, and zeros elsewhere."""
    found = bytearray(size)
    for start, part in chunks(pieces):
        part = part[: max(0, size - start)]
        found[start : start + len(part)] = part
    return bytes(found)


def difference(expected: bytes, found: bytes) -> str:
    """Where two contents begin to differ, "" when they are alike."""
    if expected == found:
        return ""
    if len(expected) != len(found):
        return f"{len(expected)} bytes were expected, there are {len(found)}"
    low, high = 0, len(expected)
    while high - low > 1:  # the first difference is in [low, high)
        middle = (low + high) // 2
        if expected[low:middle] == found[low:middle]:
            low = middle
        else:
            high = middle
    return f"they differ from byte {low} on"
