"""Block devices opened for direct I/O.

The kernel's cache of a device is per host and not told what other hosts write, so nothing here
goes through it. Direct I/O needs aligned memory, which anonymous mappings are.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from engine.doors.files import Access
from engine.doors.volume_groups import BLOCK_BYTES
from engine.tools.local.files import give_away

_BLKGETSIZE64 = 0x80081272  # linux/fs.h, on every architecture with this encoding of _IOR
_BLKZEROOUT = 0x127F
_RANGE = struct.Struct("QQ")

PIECE_BYTES = 1024 * 1024
"""The most that one system call reads or writes."""

ZERO_PIECE_BYTES = 256 * 1024 * 1024
"""The most that one command zeroes: the kernel does not let itself be interrupted in it."""


class AlignedBuffer:
    """Memory that direct I/O can use. Fresh memory is costly: keep one for many transfers."""

    def __init__(self, length: int) -> None:
        import mmap

        self._memory = mmap.mmap(-1, length)

    def of(self, length: int) -> memoryview:
        """Return a view of the first ``length`` bytes; to be released before ``close``."""
        with memoryview(self._memory) as whole:
            return whole[:length]

    def close(self) -> None:
        """Give the buffer back."""
        self._memory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:  # a traceback may still refer to a part of it
            self.close()


class DirectBlockHandle:
    """The real ``BlockHandle``."""

    def __init__(self, path: str, writable: bool = False) -> None:
        """Open the device. OSError: not there, no block device, no right to it."""
        flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_DIRECT | os.O_CLOEXEC | os.O_NONBLOCK
        self.path = path
        self._descriptor = os.open(path, flags)
        try:
            if not stat.S_ISBLK(os.fstat(self._descriptor).st_mode):
                raise OSError(errno.ENOTBLK, os.strerror(errno.ENOTBLK), path)
            self._size = _device_bytes(self._descriptor)
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        """Bytes of the device, as many as it had when it was opened."""
        return self._size

    def fileno(self) -> int:
        """Return the descriptor, for locks on it."""
        return self._descriptor

    def give(self, access: Access) -> None:
        """Change the node; udev may change it back when something happens to the device."""
        give_away(self._descriptor, access)

    def read_at(self, offset: int, length: int) -> bytes:
        """Read all of the range, continuing short reads; EIO where the device ends within it."""
        self._check(offset, length)
        pieces = []
        with AlignedBuffer(max(BLOCK_BYTES, min(length, PIECE_BYTES))) as buffer:
            for done in range(0, length, PIECE_BYTES):
                with buffer.of(min(length - done, PIECE_BYTES)) as view:
                    self.read_into(offset + done, [view])
                    pieces.append(bytes(view))
        return b"".join(pieces)

    def read_into(self, offset: int, views: Sequence[memoryview]) -> None:
        """Read as ``read_at`` does, into aligned memory, one piece after the other."""
        self._move(os.preadv, offset, views)

    def write_at(self, offset: int, data: bytes) -> None:
        """Write all, continuing short writes."""
        length = len(data)
        self._check(offset, length)
        with AlignedBuffer(max(BLOCK_BYTES, min(length, PIECE_BYTES))) as buffer:
            for done in range(0, length, PIECE_BYTES):
                with buffer.of(min(length - done, PIECE_BYTES)) as view:
                    view[:] = data[done : done + len(view)]
                    self.write_from(offset + done, [view])

    def write_from(self, offset: int, views: Sequence[memoryview]) -> None:
        """Write as ``write_at`` does, from aligned memory, one piece after the other."""
        self._move(os.pwritev, offset, views)

    def _move(
        self, call: Callable[[int, Sequence[memoryview], int], int], offset: int, views: Sequence[memoryview]
    ) -> None:
        length, done = sum(len(view) for view in views), 0
        self._check(offset, length)
        while done < length:
            rest = views if not done else _behind(views, done)
            count = call(self._descriptor, rest, offset + done)
            del rest
            done += count
            if count <= 0 or (count % BLOCK_BYTES and done < length):
                raise OSError(errno.EIO, f"{done} of {length} bytes at {offset}", self.path)

    def zero(self, offset: int, length: int) -> None:
        """Zero the range by BLKZEROOUT: write-zeroes where the device has it, else zeros that the kernel writes.
        Reading zeros back is promised in both cases, which discarding does not."""
        self._check(offset, length)
        end = offset + length
        while offset < end:
            count = min(end - offset, ZERO_PIECE_BYTES)
            try:
                fcntl.ioctl(self._descriptor, _BLKZEROOUT, _RANGE.pack(offset, count))
            except InterruptedError:
                continue  # the whole piece once more: zeroing is idempotent
            except OSError as error:
                error.filename = self.path
                raise
            offset += count

    def sync(self) -> None:
        """Flush the device's volatile cache (fsync)."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            error.filename = self.path
            raise

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check(self, offset: int, length: int) -> None:
        """Assert that a range is aligned, which is the caller's to see to; EIO where it is beyond the end, which a
        record or table from disk may say."""
        assert offset % BLOCK_BYTES == 0 and length % BLOCK_BYTES == 0 and length >= 0, (offset, length)
        if not 0 <= offset <= self._size - length:
            message = f"{length} bytes at {offset} do not lie in a device of {self._size}"
            raise OSError(errno.EIO, message, self.path)


def _behind(views: Sequence[memoryview], done: int) -> list[memoryview]:
    """Return what is left of the views behind the first ``done`` bytes."""
    rest = []
    for view in views:
        if done < len(view):
            rest.append(view[done:])
        done = max(0, done - len(view))
    return rest


def flush_device(path: str) -> None:
    """Make everything written to a block device durable, whoever wrote it. OSError, also when it is none."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISBLK(os.fstat(descriptor).st_mode):
            raise OSError(errno.ENOTBLK, os.strerror(errno.ENOTBLK), path)
        os.fsync(descriptor)
    except OSError as error:
        error.filename = error.filename or path
        raise
    finally:
        os.close(descriptor)


def is_block_device(path: str) -> bool:
    """Tell whether the name leads to a block device; OSError only when that cannot be found out."""
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _device_bytes(descriptor: int) -> int:
    raw: bytes = fcntl.ioctl(descriptor, _BLKGETSIZE64, bytes(8))
    size: int = struct.unpack("Q", raw)[0]
    return size
