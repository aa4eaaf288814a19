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
from types import TracebackType
from typing import Self

from engine.doors.volume_groups import BLOCK_BYTES

_BLKGETSIZE64 = 0x80081272  # linux/fs.h, on every architecture with this encoding of _IOR
_BLKZEROOUT = 0x127F
_RANGE = struct.Struct("QQ")

PIECE_BYTES = 1024 * 1024
"""The most that one system call reads or writes."""

ZERO_PIECE_BYTES = 256 * 1024 * 1024
"""The most that one command zeroes: the kernel does not let itself be interrupted in it."""


class DirectBlockHandle:
    """The real ``BlockHandle``."""

    def __init__(self, path: str, writable: bool = False) -> None:
        """OSError: not there, no block device, no right to it."""
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
        """As it was when it was opened."""
        return self._size

    def read_at(self, offset: int, length: int) -> bytes:
        """Short reads are continued; the end of the device within the range is EIO."""
        import mmap

        self._check(offset, length)
        pieces = []
        with mmap.mmap(-1, max(BLOCK_BYTES, min(length, PIECE_BYTES))) as memory, memoryview(memory) as view:
            done = 0
            while done < length:
                wanted = min(length - done, PIECE_BYTES)
                with view[:wanted] as part:
                    count = os.preadv(self._descriptor, [part], offset + done)
                    if count <= 0 or (count % BLOCK_BYTES and done + count < length):
                        raise OSError(errno.EIO, f"{done + count} of {length} bytes at {offset}", self.path)
                    pieces.append(bytes(part[:count]))
                done += count
        return b"".join(pieces)

    def write_at(self, offset: int, data: bytes) -> None:
        """Short writes are continued."""
        import mmap

        length = len(data)
        self._check(offset, length)
        with mmap.mmap(-1, max(BLOCK_BYTES, min(length, PIECE_BYTES))) as memory, memoryview(memory) as view:
            done = 0
            while done < length:
                wanted = min(length - done, PIECE_BYTES)
                with view[:wanted] as part:
                    part[:] = data[done : done + wanted]
                    count = os.pwritev(self._descriptor, [part], offset + done)
                if count <= 0 or count % BLOCK_BYTES:
                    raise OSError(errno.EIO, f"{done + count} of {length} bytes at {offset}", self.path)
                done += count

    def zero(self, offset: int, length: int) -> None:
        """BLKZEROOUT: write-zeroes where the device has it, else zeros that the kernel writes. Reading them
        back is promised in both cases, which discarding does not."""
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
        """fsync: the device's volatile cache is flushed."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            error.filename = self.path
            raise

    def close(self) -> None:
        """Idempotent."""
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
        """Misaligned is a mistake of the caller; beyond the end is what a record or table from disk may say."""
        assert offset % BLOCK_BYTES == 0 and length % BLOCK_BYTES == 0 and length >= 0, (offset, length)
        if not 0 <= offset <= self._size - length:
            message = f"{length} bytes at {offset} do not lie in a device of {self._size}"
            raise OSError(errno.EIO, message, self.path)


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
    """Whether the name leads to a block device; OSError only when that cannot be found out."""
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _device_bytes(descriptor: int) -> int:
    raw: bytes = fcntl.ioctl(descriptor, _BLKGETSIZE64, bytes(8))
    size: int = struct.unpack("Q", raw)[0]
    return size
