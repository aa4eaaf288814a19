"""The content of a simulated file: an immutable, sparse, sorted list of runs.

A run is real bytes or one byte repeated (a fill), so a 100 GB file of a few patterns costs a few
tuples and a hole costs nothing. Every change returns a new ``Content`` that shares all data with
the old one; slices of long byte runs are remembered as (bytes, skip) and never copied.

A run of zeros that was written is kept apart from a hole: both read as zeros and have the same
digest, but the first one occupies room. Blocks that occupy room are counted in units of 4 KiB,
as ext4 does; a file system that compresses, deduplicates or shares blocks is not modelled.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from hashlib import blake2b
from typing import NamedTuple

BLOCK = 4096
_JOIN_BYTES = 4096
_UNIFORM_FROM = 512

Run = tuple[int, int, bytes | int, int]
"""(start, end, bytes or the byte repeated, offset of ``start`` in the bytes)."""


class Segment(NamedTuple):
    """A range of a file as SEEK_DATA sees it."""

    start: int
    length: int
    data: bool
    """False: a hole."""
    zero: bool
    """Known to read as zeros: a hole, or zeros that were written."""


class Content:
    """What is in a file, and how long it is. Immutable."""

    __slots__ = ("_allocated", "_digest", "runs", "size")

    def __init__(self, size: int, runs: tuple[Run, ...]) -> None:
        self.size = size
        self.runs = runs
        self._digest: bytes | None = None
        self._allocated = -1

    # -- reading

    def read(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes, shorter at the end of the file only."""
        end = min(self.size, offset + length)
        if offset >= end:
            return b""
        runs = self.runs
        if len(runs) == 1:
            start, stop, data, skip = runs[0]
            if start <= offset and end <= stop:
                return _part(data, skip + offset - start, end - offset)
        parts = []
        position = offset
        for start, stop, data, skip in runs[_first(runs, offset) :]:
            if start >= end:
                break
            if start > position:
                parts.append(bytes(start - position))
                position = start
            until = min(stop, end)
            parts.append(_part(data, skip + position - start, until - position))
            position = until
        if position < end:
            parts.append(bytes(end - position))
        return b"".join(parts)

    def segments(self, offset: int = 0, length: int | None = None) -> Iterator[Segment]:
        """The range in order without gaps; holes are told whole, neighbours that are alike are one."""
        end = self.size if length is None else min(self.size, offset + length)
        last: Segment | None = None
        for segment in self._segments(offset, end):
            if last is not None and (last.data, last.zero) == (segment.data, segment.zero):
                last = last._replace(length=last.length + segment.length)
                continue
            if last is not None:
                yield last
            last = segment
        if last is not None:
            yield last

    def _segments(self, position: int, end: int) -> Iterator[Segment]:
        for start, stop, data, _ in self.runs[_first(self.runs, position) :]:
            if start >= end:
                break
            if start > position:
                yield Segment(position, start - position, False, True)
                position = start
            until = min(stop, end)
            yield Segment(position, until - position, True, data == 0)
            position = until
        if position < end:
            yield Segment(position, end - position, False, True)

    @property
    def allocated(self) -> int:
        """Bytes that the file occupies."""
        if self._allocated < 0:
            blocks, known = 0, 0
            for start, stop, _, _ in self.runs:
                first, last = max(known, start // BLOCK), (stop + BLOCK - 1) // BLOCK
                if last > first:
                    blocks += last - first
                    known = last
            self._allocated = blocks * BLOCK
        return self._allocated

    # -- changing

    def write(self, offset: int, data: bytes) -> Content:
        """With ``data`` at ``offset``."""
        if not data:
            return self
        length = len(data)
        if length >= _UNIFORM_FROM and data[0] == data[-1] == data[length // 2] and data.count(data[:1]) == length:
            return self.fill(offset, length, data[0])
        end = offset + length
        if not self.runs:
            return Content(max(self.size, end), ((offset, end, data, 0),))
        return self._put((offset, end, data, 0))

    def fill(self, offset: int, length: int, byte: int) -> Content:
        """With ``byte`` repeated; 0 allocates zeros."""
        return self._put((offset, offset + length, byte, 0)) if length else self

    def punch(self, offset: int, length: int) -> Content:
        """With a hole; the size stays."""
        end = min(self.size, offset + length)
        if offset >= end:
            return self
        before, after = self._around(offset, end)
        return Content(self.size, before + after)

    def truncate(self, size: int) -> Content:
        """With another size; growth reads as zeros."""
        if size >= self.size:
            return Content(size, self.runs) if size > self.size else self
        before, _ = self._around(size, self.size)
        return Content(size, before)

    def _put(self, run: Run) -> Content:
        start, end, _, _ = run
        before, after = self._around(start, end)
        middle = [run]
        if before and before[-1][1] == start and (joined := _join(before[-1], run)):
            before, middle = before[:-1], [joined]
        if after and after[0][0] == end and (joined := _join(middle[0], after[0])):
            middle, after = [joined], after[1:]
        return Content(max(self.size, end), (*before, *middle, *after))

    def _around(self, start: int, end: int) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
        """What stays before and after a range that is replaced."""
        runs = self.runs
        low, high = _first(runs, start), bisect_left(runs, (end,))
        before, after = runs[:low], runs[high:]
        if low < high:
            left, right = runs[low], runs[high - 1]
            if left[0] < start:
                before = (*before, (left[0], start, left[2], left[3]))
            if right[1] > end:
                after = ((end, right[1], right[2], right[3] + end - right[0]), *after)
        return before, after

    # -- identity

    @property
    def digest(self) -> bytes:
        """The same for all contents that read the same, however they came to be."""
        if self._digest is None:
            found = blake2b(self.size.to_bytes(8, "big"), digest_size=16)
            for start, count, token, uniform in _tokens(self.runs):
                found.update(b"%d %d %d %d\n" % (start, count, len(token), uniform))
                found.update(token)
            self._digest = found.digest()
        return self._digest

    def same(self, other: Content) -> bool:
        """Whether both read the same."""
        return self is other or (self.size == other.size and self.digest == other.digest)


EMPTY = Content(0, ())


def _first(runs: tuple[Run, ...], position: int) -> int:
    """Index of the first run that ends after ``position``."""
    index = bisect_left(runs, (position,))
    return index - 1 if index and runs[index - 1][1] > position else index


def _part(data: bytes | int, skip: int, length: int) -> bytes:
    if isinstance(data, int):
        return bytes((data,)) * length if data else bytes(length)
    return data if not skip and length == len(data) else data[skip : skip + length]


def _join(left: Run, right: Run) -> Run | None:
    """Both as one run where that is cheap."""
    if isinstance(left[2], int) or isinstance(right[2], int):
        return (left[0], right[1], left[2], 0) if left[2] == right[2] else None
    if right[1] - left[0] > _JOIN_BYTES:
        return None
    data = _part(left[2], left[3], left[1] - left[0]) + _part(right[2], right[3], right[1] - right[0])
    return (left[0], right[1], data, 0)


def _tokens(runs: tuple[Run, ...]) -> Iterator[tuple[int, int, bytes, bool]]:
    """The canonical form: (first block, number of blocks, the repeated byte or the block without the
    zeros at its end, whether it is repeated). Equal uniform blocks are one token; zeros are none."""
    held: tuple[int, int, bytes, bool] | None = None
    for start, count, token, uniform in _blocks(runs):
        if held is not None and uniform and held[2] == token and held[0] + held[1] == start:
            held = (held[0], held[1] + count, token, True)
            continue
        if held is not None:
            yield held
            held = None
        if uniform:
            held = (start, count, token, True) if token != b"\0" else None
        elif token:
            yield (start, count, token, False)
    if held is not None:
        yield held


def _blocks(runs: tuple[Run, ...]) -> Iterator[tuple[int, int, bytes, bool]]:
    """(block, count, token, uniform): long fills as one item, everything else block by block."""
    partial = bytearray()
    number = -1
    for start, stop, data, skip in runs:
        position = start
        while position < stop:
            block, inside = divmod(position, BLOCK)
            if number not in (-1, block):
                yield _block(number, bytes(partial))
                number, partial = -1, bytearray()
            if isinstance(data, int) and not inside and stop - position >= BLOCK:
                count = (stop - position) // BLOCK
                yield (block, count, bytes((data,)), True)
                position += count * BLOCK
                continue
            until = min(stop, (block + 1) * BLOCK)
            piece = _part(data, skip + position - start, until - position)
            if number == -1 and len(piece) == BLOCK:
                yield _block(block, piece)
            else:
                number = block
                partial += bytes(inside - len(partial)) + piece
            position = until
    if number != -1:
        yield _block(number, bytes(partial))


def _block(number: int, piece: bytes) -> tuple[int, int, bytes, bool]:
    if len(piece) == BLOCK and piece.count(piece[:1]) == BLOCK:
        return number, 1, piece[:1], True
    return number, 1, piece.rstrip(b"\0"), False
