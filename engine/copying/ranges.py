"""Pure arithmetic on extents: which ranges of an image must be read.

Ranges are ``(start, length)``, in ascending order, aligned to digest blocks and cut at digest
chunks, so that a reader sees each chunk's pieces together and the cursor can stand between two.
"""

from __future__ import annotations

from collections.abc import Iterable

from engine.data.digests import BLOCK_BYTES, CHUNK_BYTES
from engine.doors.images import Extent

Range = tuple[int, int]


def merged(ranges: Iterable[Range], size: int) -> list[Range]:
    """Return the ranges aligned outwards to blocks, clipped to ``size``, sorted, and joined where they touch."""
    result: list[list[int]] = []
    aligned = sorted(
        (start // BLOCK_BYTES * BLOCK_BYTES, -(-(start + length) // BLOCK_BYTES) * BLOCK_BYTES)
        for start, length in ranges
        if length > 0 and start < size
    )
    for start, end in aligned:
        end = min(end, size)
        if result and start <= result[-1][1]:
            result[-1][1] = max(result[-1][1], end)
        else:
            result.append([start, end])
    return [(start, end - start) for start, end in result]


def pieces(ranges: Iterable[Range], cursor: int = 0) -> list[Range]:
    """Cut at chunk boundaries and drop everything below ``cursor``, which stands at one."""
    cut: list[Range] = []
    for start, length in ranges:
        end = start + length
        start = max(start, cursor)
        while start < end:
            stop = min(end, (start // CHUNK_BYTES + 1) * CHUNK_BYTES)
            cut.append((start, stop - start))
            start = stop
    return cut


def total(ranges: Iterable[Range]) -> int:
    """Return the sum of the lengths."""
    return sum(length for _, length in ranges)


def data_ranges(extents: Iterable[Extent]) -> list[Range]:
    """Return what must be read to know the content of the image the extents describe."""
    return [(e.start, e.length) for e in extents if e.data and not e.zero]


def present_ranges(extents: Iterable[Extent]) -> list[Range]:
    """Return what a layer alone decides, zeros included."""
    return [(e.start, e.length) for e in extents if e.present]


def subtract(ranges: Iterable[Range], hidden: Iterable[Range]) -> list[Range]:
    """Return the parts of ``ranges`` outside ``hidden``; both ascending and without overlap."""
    result: list[Range] = []
    holes = list(hidden)
    index = 0
    for start, length in ranges:
        end = start + length
        while index < len(holes) and holes[index][0] + holes[index][1] <= start:
            index += 1
        probe = index
        while start < end and probe < len(holes) and holes[probe][0] < end:
            hole_start, hole_length = holes[probe]
            if hole_start > start:
                result.append((start, hole_start - start))
            start = max(start, hole_start + hole_length)
            probe += 1
        if start < end:
            result.append((start, end - start))
    return result


def exact(ranges: Iterable[Range]) -> list[Range]:
    """Join touching ranges without aligning them."""
    result: list[list[int]] = []
    for start, length in sorted(ranges):
        if result and start <= result[-1][0] + result[-1][1]:
            result[-1][1] = max(result[-1][1], start + length - result[-1][0])
        else:
            result.append([start, length])
    return [(start, length) for start, length in result]
