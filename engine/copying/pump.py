"""The one loop that moves data: read, compare, hash, write, flush, record where we are.

The order at a checkpoint is what makes a copy resumable: the target's flush is complete before
the digests below the cursor are stored, and both before the cursor is recorded. After a crash
everything below the cursor is right, and at most one window is done again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from engine.copying.pace import Pace
from engine.copying.ranges import Range, pieces, subtract, total
from engine.data.digests import CHUNK_BYTES, DigestList, chunk_digest, data_runs
from engine.doors.images import Data, Session
from engine.errors import StorageError
from engine.tools.local.hashing import HashThread

MIN_WINDOW_BYTES = 16 * 1024 * 1024
WINDOW_FRACTION = 0.02
WINDOW_SECONDS = 5.0
MIN_TIMED_FRACTION = 0.002
ZERO_BYTES = 64 * 1024 * 1024
"""Most that one request zeroes: between two of them the cursor can stand, and the operator can stop."""

Checkpoint = Callable[[int, int], None]
"""Called with (cursor, percent) after everything below ``cursor`` is durable. May raise to stop."""

ReadBelow = Callable[[int, int], bytes]

Part = tuple[int, Data]
"""(start, data), never across the end of a chunk."""


class Job(NamedTuple):
    """What to move."""

    source: Session
    target: Session
    ranges: list[Range]
    """What to look at, from ``ranges.merged``."""
    size: int
    """Virtual size of the source."""
    blank: bool
    """The target reads as zeros wherever nothing was written: zeros need no writing."""
    zeroed_to: int = 0
    """Of a target that shows anything where nothing was written: up to here, what is in no range is zeroed. 0: what
    is in no range stays as it is."""
    compare: Session | None = None
    """Write only blocks that differ from this image."""
    compare_size: int = 0
    compare_digests: DigestList | None = None
    """Proven digests of ``compare``: a chunk that agrees with them is not read there."""
    digests: DigestList | None = None
    """Filled on the way; ranges not looked at must be zeros."""


class _Step(NamedTuple):
    """What is done between two places of the cursor."""

    start: int
    """Here the cursor can stand when all before it is done."""
    parts: list[Part]
    """What was read, of one chunk."""
    zeros: list[Range]
    """What becomes zeros without a look at the source."""


def run(job: Job, cursor: int, checkpoint: Checkpoint, now: Callable[[], float], pace: Pace | None = None) -> int:
    """Move everything from ``cursor`` on, not faster than its ``pace``, calling ``checkpoint`` at least once per window
    and once at the end. Returns the bytes read from the source. Errors propagate; what the last
    checkpoint recorded stays true."""
    assert not (job.blank and job.zeroed_to), "a blank target has nothing to be zeroed"
    todo = pieces(job.ranges, cursor)
    all_bytes = max(1, job.zeroed_to or total(job.ranges))
    done = cursor if job.zeroed_to else all_bytes - total(todo)
    window = max(MIN_WINDOW_BYTES, int(job.size * WINDOW_FRACTION))
    hashing = HashThread(job.digests.set) if job.digests is not None else None
    below = _reader_below(job, todo)
    zeros = _Zeros(job.target)
    read = since = 0
    last_time = now()
    try:
        for step in _steps(job, todo, cursor):
            timed = now() - last_time >= WINDOW_SECONDS and since >= job.size * MIN_TIMED_FRACTION
            if since and (since >= window or timed):
                _barrier(job, zeros, hashing)
                checkpoint(step.start, min(99, done * 100 // all_bytes))
                since, last_time = 0, now()
            _move(job, step, zeros, hashing, below)
            moved = sum(len(data) for _, data in step.parts)
            read += moved
            if pace is not None:
                pace.moved(moved)
            moved += total(step.zeros)
            since += moved
            done += moved
        _barrier(job, zeros, hashing)
        checkpoint(max(job.size, job.zeroed_to), 100)
        return read
    finally:
        if hashing is not None:
            hashing.close()


def _steps(job: Job, todo: list[Range], cursor: int) -> Iterator[_Step]:
    done = cursor
    for chunk, parts in _grouped(job.source.stream(todo)):
        start = chunk * CHUNK_BYTES
        yield from _gap(done, min(start, job.zeroed_to))
        start, done = max(start, done), min(start + CHUNK_BYTES, job.zeroed_to)
        seen = [(at, len(data)) for at, data in parts]
        yield _Step(start, parts, subtract([(start, done - start)], seen) if start < done else [])
    yield from _gap(done, job.zeroed_to)


def _gap(start: int, end: int) -> Iterator[_Step]:
    while start < end:
        stop = min(end, (start // ZERO_BYTES + 1) * ZERO_BYTES)
        yield _Step(start, [], [(start, stop - start)])
        start = stop


class _Zeros:
    """Ranges that follow each other become one request: a device zeroes many blocks as fast as one."""

    def __init__(self, target: Session) -> None:
        self._target = target
        self._start = self._end = 0

    def add(self, start: int, length: int) -> None:
        """Zero a range, at the latest with ``issue``."""
        if start != self._end or self._end - self._start + length > ZERO_BYTES:
            self.issue()
            self._start = start
        self._end = start + length

    def issue(self) -> None:
        """Ask the target for what is collected."""
        if self._start < self._end:
            self._target.zero(self._start, self._end - self._start)
        self._start = self._end


def digest_of(session: Session, ranges: list[Range], size: int, checkpoint: Checkpoint | None = None) -> DigestList:
    """Return the digests of a whole image by reading ``ranges`` of it (everything else is zeros)."""
    digests = DigestList(size)
    todo = pieces(ranges)
    all_bytes, read = max(1, total(todo)), 0
    hashing = HashThread(digests.set)
    try:
        for chunk, parts in _grouped(session.stream(todo)):
            hashing.submit(chunk, _digest_work(chunk, parts))
            read += sum(len(data) for _, data in parts)
            if checkpoint is not None and chunk % 32 == 31:
                checkpoint(chunk * CHUNK_BYTES, read * 100 // all_bytes)
        hashing.drain()
    finally:
        hashing.close()
    return digests


def _grouped(stream: Iterable[Part]) -> Iterator[tuple[int, list[Part]]]:
    current = -1
    parts: list[Part] = []
    for start, data in stream:
        chunk = start // CHUNK_BYTES
        if chunk != current and parts:
            yield current, parts
            parts = []
        current = chunk
        parts.append((start, data))
    if parts:
        yield current, parts


def _digest_work(chunk: int, parts: list[Part]) -> Callable[[], bytes]:
    base = chunk * CHUNK_BYTES
    relative = [(start - base, data) for start, data in parts]
    return lambda: chunk_digest(relative)


def _barrier(job: Job, zeros: _Zeros, hashing: HashThread | None) -> None:
    zeros.issue()
    try:
        job.target.flush()
    except StorageError as error:
        error.lost_writes = True
        raise
    if hashing is not None:
        hashing.drain()


def _reader_below(job: Job, todo: list[Range]) -> ReadBelow | None:
    """Return what reads the image to compare with: ahead, in step with the source, when all of it is wanted."""
    if job.compare is None or job.compare_digests is not None:
        return job.compare.read if job.compare is not None else None
    known = [(start, min(length, job.compare_size - start)) for start, length in todo if start < job.compare_size]
    stream = job.compare.stream(known)

    def read(start: int, length: int) -> bytes:
        found: list[bytes] = []
        while length > 0:
            at, data = next(stream)
            assert at == start and len(data) <= length, "the two streams are out of step"
            found.append(bytes(data))
            start, length = start + len(data), length - len(data)
        return b"".join(found)

    return read


def _move(job: Job, step: _Step, zeros: _Zeros, hashing: HashThread | None, below: ReadBelow | None) -> None:
    chunk, parts = step.start // CHUNK_BYTES, step.parts
    if hashing is not None and parts:
        hashing.submit(chunk, _digest_work(chunk, parts))
    if job.compare_digests is not None and _agrees(job.compare_digests, chunk, parts):
        return
    holes = deque(step.zeros)
    for start, data in parts:
        while holes and holes[0][0] < start:
            zeros.add(*holes.popleft())
        if below is not None:
            _write_differences(job, start, data, below)
        else:
            _write(job, start, data, zeros)
    for hole in holes:
        zeros.add(*hole)


def _agrees(known: DigestList, chunk: int, parts: list[Part]) -> bool:
    inside = (chunk + 1) * CHUNK_BYTES <= known.size
    return inside and _digest_work(chunk, parts)() == known.get(chunk)


def _write(job: Job, start: int, data: Data, zeros: _Zeros) -> None:
    runs = data_runs(data, zero_too=not job.blank)
    if len(runs) == 1 and runs[0][1] == len(data) and runs[0][2]:
        job.target.write(start, data)
        return
    for offset, length, is_data in runs:
        if is_data:
            job.target.write(start + offset, data[offset : offset + length])
        else:
            zeros.add(start + offset, length)


def _write_differences(job: Job, start: int, read: Data, read_below: ReadBelow) -> None:
    data = bytes(read)  # a view is compared byte by byte
    known = max(0, min(len(data), job.compare_size - start))
    below = read_below(start, known) if known else b""
    if known < len(data):
        below += bytes(len(data) - known)
    if below == data:
        return
    for offset, length, is_data in data_runs(data, zero_too=True):
        step = min(length, 64 * 1024)
        for inner in range(offset, offset + length, step):
            size = min(step, offset + length - inner)
            if data[inner : inner + size] == below[inner : inner + size]:
                continue
            if is_data:
                job.target.write(start + inner, data[inner : inner + size])
            else:
                job.target.zero(start + inner, size)
