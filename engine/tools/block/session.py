"""A raw image on a block device, read and written by this process: the image door's ``Session`` without a server.

Such an image has no format that a program would have to know. Without a server the data need not be copied at all: it
is written from where it was read to. All I/O is direct. Reading goes on in threads ahead of the caller, who writes: so
both go on at once, with few turns between threads, which cost much where processors are few.

A process that is killed ends, and gives its leases back, only when the kernel has finished what it had
under way, so what must be true of a server that writes is true of this one without further means.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple

from engine.doors.images import Data, Layer
from engine.doors.volume_groups import BLOCK_BYTES
from engine.errors import MAKE_ROOM, BadRequest, NoSpace, ReadFailed, StorageError, ToolFailed, from_os_error
from engine.tools.block.device import DirectBlockHandle
from engine.tools.local.leases import ofd_lock, ofd_locked
from engine.tools.local.lending import PIECE_BYTES, Lender, as_read, is_lent

REQUEST_BYTES = 4 << 20
"""Largest read or write: pieces that follow each other are one."""

DEPTH = 4
"""Reads under way at once, of ``AHEAD_BYTES`` in all."""

AHEAD_BYTES = 8 << 20
ZERO_BYTES = 256 << 20

_KEPT = (AHEAD_BYTES + 2 * REQUEST_BYTES) // PIECE_BYTES
_MAX_PIECES = 64

# The bytes of an image that qemu locks, each as long as it does this.
_READS, _WRITES, _SHARES_NO_WRITES = 100, 101, 201
_NO_SPACE_CODES = (errno.ENOSPC, errno.EDQUOT)

_Range = tuple[int, int]


class _Read(NamedTuple):
    """Pieces that follow each other, and are being read."""

    start: int
    end: int
    found: Future[list[Data | StorageError]]


class BlockSession:
    """A ``Session``. Not for use by two threads at once.

    A failed write, zero or flush is final: every later one raises the same error, so a flush never succeeds after
    something before it was lost. A failed read concerns that read only.
    """

    def __init__(self, layer: Layer, writable: bool) -> None:
        """Open the device. ToolFailed: no such device, or (``writable``) a virtual machine or another writer has it
        open."""
        self._label = layer.path
        try:
            self._handle = DirectBlockHandle(layer.held or layer.path, writable)
        except OSError as error:
            raise ToolFailed(from_os_error(error, f"open the layer {layer.path!r:.200}").message) from None
        self._size = layer.length or self._handle.size
        self._pool: ThreadPoolExecutor | None = None
        self._memory = Lender(_KEPT)
        self._reads: deque[_Read] = deque()
        self._unwritten: list[memoryview] = []
        self._unwritten_start = self._unwritten_end = 0
        self._write_error: StorageError | None = None
        try:
            if self._size > self._handle.size:
                raise ToolFailed(f"{layer.path} has {self._handle.size} of {self._size} bytes")
            if writable and not _alone(self._handle.fileno()):
                raise ToolFailed(f"{layer.path} is in use by another program", "Stop what uses it and try again")
            self._pool = ThreadPoolExecutor(DEPTH)
        except BaseException:
            self._handle.close()
            raise

    @property
    def size(self) -> int:
        """Virtual size in bytes."""
        return self._size

    # -- reading

    def stream(self, ranges: Iterable[_Range]) -> Iterator[tuple[int, Data]]:
        """Read in order and ahead; each piece has up to ``PIECE_BYTES``. May be abandoned."""
        ahead: deque[_Read] = deque()
        for pieces in _requests(self._checked(ranges)):
            start, end = pieces[0][0], sum(pieces[-1])
            while ahead and (len(ahead) >= DEPTH or end - start + _total(ahead) > AHEAD_BYTES):
                yield from self._taken(ahead.popleft())
            if self._unwritten and start < self._unwritten_end and self._unwritten_start < end:
                self._write_out()
            ahead.append(_Read(start, end, self._running().submit(self._read, pieces)))
            self._reads.append(ahead[-1])
        while ahead:
            yield from self._taken(ahead.popleft())

    def read(self, start: int, length: int) -> bytes:
        """Read one range into memory."""
        return b"".join([data for _, data in self.stream([(start, length)])])

    def _taken(self, read: _Read) -> Iterator[tuple[int, Data]]:
        with contextlib.suppress(ValueError):
            self._reads.remove(read)
        found, start = deque(read.found.result()), read.start
        del read  # the pieces are the caller's from here on
        while found:
            data = found.popleft()
            if isinstance(data, StorageError):
                raise data
            yield start, data
            start += len(data)

    def _read(self, pieces: list[_Range]) -> list[Data | StorageError]:
        """Read all pieces at once, or, where that fails, as many as can be read and then raise the error of the
        next."""
        try:
            return list(self._read_request(pieces))
        except OSError as error:
            if len(pieces) == 1:
                return [self._read_failure(*pieces[0], error)]
        found: list[Data | StorageError] = []
        for piece in pieces:
            found += self._read([piece])
            if isinstance(found[-1], StorageError):
                break
        return found

    def _read_request(self, pieces: list[_Range]) -> list[Data]:
        views = []
        low, _ = _outwards(*pieces[0])
        for start, length in pieces:
            first, high = _outwards(start, length)
            views.append(self._memory.lend()[: high - first])
        self._handle.read_into(low, views)
        return [as_read(view, start % BLOCK_BYTES, length) for view, (start, length) in zip(views, pieces, strict=True)]

    def _read_failure(self, start: int, length: int, error: OSError) -> StorageError:
        kind = ToolFailed if error.errno in (errno.ENOMEM, errno.EPERM) else ReadFailed
        return kind(self._says("reading", start, length, error), "Check the storage and try again")

    # -- writing

    def write(self, start: int, data: Data) -> None:
        """Queue a write, which is done at the latest by ``flush``, together with what follows it."""
        self._check_range(start, len(data))
        for piece, count in _pieces(start, len(data), PIECE_BYTES):
            self._write_piece(piece, memoryview(data)[piece - start : piece - start + count])

    def _write_piece(self, start: int, data: memoryview) -> None:
        self._ready()
        low, high = _outwards(start, len(data))
        if (low, high) != (start, start + len(data)):
            self._write_out()
            data = self._with_what_is_around(low, high, start, data)
        elif not is_lent(data, BLOCK_BYTES):
            copy = self._memory.lend()[: len(data)]
            copy[:] = data
            data = copy
        waiting = self._unwritten_end - self._unwritten_start
        if low != self._unwritten_end or waiting + len(data) > REQUEST_BYTES or len(self._unwritten) >= _MAX_PIECES:
            self._write_out()
            self._unwritten_start = low
        self._unwritten.append(data)
        self._unwritten_end = high

    def _with_what_is_around(self, low: int, high: int, start: int, data: memoryview) -> memoryview:
        """Return the blocks that a range is in, with the range changed."""
        view = self._memory.lend()[: high - low]
        try:
            self._handle.read_into(low, [view])
        except OSError as error:
            self._write_error = self._write_failure("writing", start, len(data), error)
            raise self._write_error from None
        view[start - low : start - low + len(data)] = data
        return view

    def zero(self, start: int, length: int) -> None:
        """Zero a range before returning, by the device's own command where it has one."""
        self._check_range(start, length)
        self._ready()
        self._write_out()
        low, high = -(-start // BLOCK_BYTES) * BLOCK_BYTES, (start + length) // BLOCK_BYTES * BLOCK_BYTES
        if low >= high:
            self.write(start, bytes(length))
            return
        self._wait_for_reads(low, high)
        for piece, count in _pieces(low, high - low, ZERO_BYTES):
            try:
                self._handle.zero(piece, count)
            except OSError as error:
                self._write_error = self._write_failure("zeroing", piece, count, error)
                raise self._write_error from None
        for begin, end in ((start, low), (high, start + length)):
            if begin < end:
                self.write(begin, bytes(end - begin))

    def flush(self) -> None:
        """Write all that is queued, then fsync."""
        self._ready()
        self._write_out()
        try:
            self._handle.sync()
        except OSError as error:
            self._write_error = ToolFailed(
                f"flushing {self._label} failed: {os.strerror(error.errno or 0)}", "Check the storage and try again"
            )
            raise self._write_error from None

    def _ready(self) -> None:
        self._running()
        if self._write_error:
            raise self._write_error

    def _write_out(self) -> None:
        views, self._unwritten = self._unwritten, []
        start, end = self._unwritten_start, self._unwritten_end
        self._unwritten_start = self._unwritten_end = 0
        if not views:
            return
        self._wait_for_reads(start, end)
        try:
            self._handle.write_from(start, views)
        except OSError as error:
            self._write_error = self._write_failure("writing", start, end - start, error)
            raise self._write_error from None

    def _wait_for_reads(self, start: int, end: int) -> None:
        """Wait for reads that were asked for before: they get what was there before."""
        for read in [read for read in self._reads if read.start < end and start < read.end]:
            self._reads.remove(read)
            wait([read.found])

    def _write_failure(self, doing: str, start: int, length: int, error: OSError) -> StorageError:
        message = self._says(doing, start, length, error)
        if error.errno in _NO_SPACE_CODES:
            return NoSpace(message, MAKE_ROOM)
        return ToolFailed(message, "Check the storage and try again")

    def _says(self, doing: str, start: int, length: int, error: OSError) -> str:
        return f"{doing} {length} bytes at {start} of {self._label} failed: {os.strerror(error.errno or 0)}"

    # -- inside

    def close(self) -> None:
        """Wait for what is under way, and close: a thread must not read through a descriptor that means something
        else."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
            self._unwritten = []
            with contextlib.suppress(OSError):
                self._handle.close()

    def _running(self) -> ThreadPoolExecutor:
        if self._pool is None:
            raise ToolFailed(f"the session on {self._label} is over", "Open a new one")
        return self._pool

    def _check_range(self, start: int, length: int) -> None:
        if start < 0 or length < 0 or start + length > self._size:
            raise BadRequest(f"{length} bytes at {start} are not inside {self._label} of {self._size} bytes")

    def _checked(self, ranges: Iterable[_Range]) -> Iterator[_Range]:
        for start, length in ranges:
            self._check_range(start, length)
            yield from _pieces(start, length, PIECE_BYTES)


def _requests(pieces: Iterable[_Range]) -> Iterator[list[_Range]]:
    """Join pieces that follow each other, and meet where blocks do, to what is read at once."""
    request: list[_Range] = []
    size = 0
    for start, length in pieces:
        follows = request and sum(request[-1]) == start and start % BLOCK_BYTES == 0
        if request and (not follows or size + length > REQUEST_BYTES):
            yield request
            request, size = [], 0
        request.append((start, length))
        size += length
    if request:
        yield request


def _total(reads: Iterable[_Read]) -> int:
    return sum(read.end - read.start for read in reads)


def _alone(descriptor: int) -> bool:
    """Say in qemu's way that we write and nobody else may, and look whether somebody else has said so."""
    for byte in (_READS, _WRITES, _SHARES_NO_WRITES):
        if not ofd_lock(descriptor, fcntl.F_RDLCK, byte, 1):
            return False
    return not any(ofd_locked(descriptor, byte, 1) for byte in (_WRITES, _SHARES_NO_WRITES))


def _outwards(start: int, length: int) -> tuple[int, int]:
    """Return the blocks that hold a range, as (first byte, end)."""
    return start // BLOCK_BYTES * BLOCK_BYTES, -(-(start + length) // BLOCK_BYTES) * BLOCK_BYTES


def _pieces(start: int, length: int, limit: int) -> Iterator[tuple[int, int]]:
    """Split a range where multiples of ``limit`` are."""
    end = start + length
    while start < end:
        stop = min(end, (start // limit + 1) * limit)
        yield start, stop - start
        start = stop
