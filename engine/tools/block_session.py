"""A raw image on a block device, read and written by this process: the image door's ``Session`` without a server.

Such an image has no format that a program would have to know. Without a server the data is copied once and not three
times (in a guest of the lab: 4.3 s of processor time per GiB read through qemu-nbd, 0.9 s so). All I/O is direct, by
threads that hold no lock of the interpreter meanwhile.

A process that is killed ends, and gives its leases back, only when the kernel has finished what it had
under way, so what must be true of a server that writes is true of this one without further means.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import NamedTuple

from engine.doors.images import Layer
from engine.doors.leases import ofd_lock
from engine.doors.volume_groups import BLOCK_BYTES
from engine.errors import BadRequest, NoSpace, ReadFailed, StorageError, ToolFailed, from_os_error
from engine.tools.block import AlignedBuffer, DirectBlockHandle

PIECE_BYTES = 2 << 20
"""Largest read or write, and largest piece that ``stream`` yields."""

DEPTH = 4
"""Reads, and writes, under way at once."""

ZERO_BYTES = 256 << 20

_ZEROS = bytes(PIECE_BYTES)

# The bytes of an image that qemu locks, each as long as it does this.
_READS, _WRITES, _SHARES_NO_WRITES = 100, 101, 201
_F_OFD_GETLK = 36
_FLOCK = struct.Struct("hhqqi4x")
_NO_SPACE_CODES = (errno.ENOSPC, errno.EDQUOT)


class _Write(NamedTuple):
    """One that is under way."""

    start: int
    end: int
    done: Future[None]


class _Read(NamedTuple):
    """One that is under way, or was not asked for yet."""

    start: int
    end: int
    data: Future[bytes]


class BlockSession:
    """A ``Session``. Not for use by two threads at once.

    A failed write, zero or flush is final: every later one raises the same error, so a flush never succeeds after
    something before it was lost. A failed read concerns that read only.
    """

    def __init__(self, layer: Layer, writable: bool) -> None:
        """ToolFailed: no such device, or (``writable``) a virtual machine or another writer has it open."""
        self._label = layer.path
        try:
            self._handle = DirectBlockHandle(layer.path, writable)
        except OSError as error:
            raise ToolFailed(from_os_error(error, f"open the layer {layer.path!r:.200}").message) from None
        self._size = layer.length or self._handle.size
        self._pool: ThreadPoolExecutor | None = None
        self._buffers = threading.local()
        self._writes: deque[_Write] = deque()
        self._reads: deque[_Read] = deque()
        self._write_error: StorageError | None = None
        try:
            if self._size > self._handle.size:
                raise ToolFailed(f"{layer.path} has {self._handle.size} of {self._size} bytes")
            if writable and not _alone(self._handle.fileno()):
                raise ToolFailed(f"{layer.path} is in use by another program", "Stop what uses it and try again")
            self._pool = ThreadPoolExecutor(2 * DEPTH)
        except BaseException:
            self._handle.close()
            raise

    @property
    def size(self) -> int:
        """Virtual size in bytes."""
        return self._size

    # -- reading

    def stream(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        """Read in order with ``DEPTH`` reads under way; each piece has up to ``PIECE_BYTES``. May be abandoned."""
        ahead: deque[_Read] = deque()
        for start, length in ranges:
            self._check_range(start, length)
            for piece, count in _pieces(start, length, PIECE_BYTES):
                self._wait_for_writes(piece, piece + count)
                ahead.append(_Read(piece, piece + count, self._running().submit(self._read, piece, count)))
                self._reads.append(ahead[-1])
                if len(ahead) > DEPTH:
                    yield self._taken(ahead.popleft())
        while ahead:
            yield self._taken(ahead.popleft())

    def read(self, start: int, length: int) -> bytes:
        """Read one range into memory."""
        return b"".join([data for _, data in self.stream([(start, length)])])

    def _taken(self, read: _Read) -> tuple[int, bytes]:
        with contextlib.suppress(ValueError):
            self._reads.remove(read)
        return read.start, read.data.result()

    def _read(self, start: int, length: int) -> bytes:
        low, high = _outwards(start, length)
        try:
            buffer = self._buffer()
            with buffer.of(high - low) as view:
                self._handle.read_into(low, view)
                if buffer.is_zero(high - low):
                    return _ZEROS[:length]  # of a whole piece this is no copy, and compares equal at once
                return bytes(view[start - low : start - low + length])
        except OSError as error:
            kind = ToolFailed if error.errno in (errno.ENOMEM, errno.EPERM) else ReadFailed
            raise kind(self._says("reading", start, length, error), "Check the storage and try again") from None

    # -- writing

    def write(self, start: int, data: bytes) -> None:
        """Begin a write; waits while ``DEPTH`` others are under way."""
        self._check_range(start, len(data))
        for piece, count in _pieces(start, len(data), PIECE_BYTES):
            view = memoryview(data)[piece - start : piece - start + count]
            self._begin(piece, count, partial(self._write, piece, view))

    def zero(self, start: int, length: int) -> None:
        """As ``write``, by the device's own command where it has one."""
        self._check_range(start, length)
        for piece, count in _pieces(start, length, ZERO_BYTES):
            self._begin(piece, count, partial(self._zero, piece, count))

    def flush(self) -> None:
        """All writes done, then an fsync."""
        self._wait_for_writes(0, self._size)
        self._raise_write_error()
        try:
            self._handle.sync()
        except OSError as error:
            self._write_error = ToolFailed(
                f"flushing {self._label} failed: {os.strerror(error.errno or 0)}", "Check the storage and try again"
            )
            raise self._write_error from None

    def _begin(self, start: int, length: int, work: Callable[[], None]) -> None:
        low, high = _outwards(start, length)
        self._wait_for_writes(low, high)
        while len(self._writes) >= DEPTH:
            self._finish(self._writes.popleft())
        self._raise_write_error()
        for read in [read for read in self._reads if read.start < high and low < read.end]:
            self._reads.remove(read)
            wait([read.data])
        self._writes.append(_Write(low, high, self._running().submit(work)))

    def _wait_for_writes(self, start: int, end: int) -> None:
        """Whatever overlaps one that is under way takes effect after it."""
        for write in [write for write in self._writes if write.start < end and start < write.end]:
            self._writes.remove(write)
            self._finish(write)

    def _finish(self, write: _Write) -> None:
        wait([write.done])
        error = write.done.exception()
        if isinstance(error, StorageError):
            self._write_error = self._write_error or error
        elif error is not None:
            raise error

    def _raise_write_error(self) -> None:
        if self._write_error:
            raise self._write_error

    def _write(self, start: int, data: memoryview) -> None:
        low, high = _outwards(start, len(data))
        try:
            with self._buffer().of(high - low) as view:
                if (low, high) != (start, start + len(data)):
                    self._handle.read_into(low, view)
                view[start - low : start - low + len(data)] = data
                self._handle.write_from(low, view)
        except OSError as error:
            raise self._write_failure("writing", start, len(data), error) from None

    def _zero(self, start: int, length: int) -> None:
        low, high = -(-start // BLOCK_BYTES) * BLOCK_BYTES, (start + length) // BLOCK_BYTES * BLOCK_BYTES
        if low >= high:
            self._write(start, memoryview(bytes(length)))
            return
        try:
            self._handle.zero(low, high - low)
        except OSError as error:
            raise self._write_failure("zeroing", start, length, error) from None
        for begin, end in ((start, low), (high, start + length)):
            if begin < end:
                self._write(begin, memoryview(bytes(end - begin)))

    def _write_failure(self, doing: str, start: int, length: int, error: OSError) -> StorageError:
        message = self._says(doing, start, length, error)
        if error.errno in _NO_SPACE_CODES:
            return NoSpace(message, "Make room (check lists what can be cleaned) and try again")
        return ToolFailed(message, "Check the storage and try again")

    def _says(self, doing: str, start: int, length: int, error: OSError) -> str:
        return f"{doing} {length} bytes at {start} of {self._label} failed: {os.strerror(error.errno or 0)}"

    # -- inside

    def close(self) -> None:
        """What is under way is waited for: a thread must not write through a descriptor that means something else."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
            with contextlib.suppress(OSError):
                self._handle.close()

    def _running(self) -> ThreadPoolExecutor:
        if self._pool is None:
            raise ToolFailed(f"the session on {self._label} is over", "Open a new one")
        return self._pool

    def _buffer(self) -> AlignedBuffer:
        """One per thread: fresh memory costs more than what is done with it."""
        found: AlignedBuffer | None = getattr(self._buffers, "own", None)
        if found is None:
            found = self._buffers.own = AlignedBuffer(PIECE_BYTES + 2 * BLOCK_BYTES)
        return found

    def _check_range(self, start: int, length: int) -> None:
        if start < 0 or length < 0 or start + length > self._size:
            raise BadRequest(f"{length} bytes at {start} are not inside {self._label} of {self._size} bytes")


def _alone(descriptor: int) -> bool:
    """Say in qemu's way that we write and nobody else may, and look whether somebody else has said so."""
    for byte in (_READS, _WRITES, _SHARES_NO_WRITES):
        if not ofd_lock(descriptor, fcntl.F_RDLCK, byte, 1):
            return False
    return not any(_locked(descriptor, byte) for byte in (_WRITES, _SHARES_NO_WRITES))


def _locked(descriptor: int, byte: int) -> bool:
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    kind: int = _FLOCK.unpack(fcntl.fcntl(descriptor, _F_OFD_GETLK, asked))[0]
    return kind != fcntl.F_UNLCK


def _outwards(start: int, length: int) -> tuple[int, int]:
    """The blocks that hold a range."""
    return start // BLOCK_BYTES * BLOCK_BYTES, -(-(start + length) // BLOCK_BYTES) * BLOCK_BYTES


def _pieces(start: int, length: int, limit: int) -> Iterator[tuple[int, int]]:
    """Split a range where multiples of ``limit`` are."""
    end = start + length
    while start < end:
        stop = min(end, (start // limit + 1) * limit)
        yield start, stop - start
        start = stop
