"""The file under a simulated image: one handle of a ``Files`` door, as qemu's file driver uses it.

Works on any ``FileHandle``. A handle that also has ``segments``, ``fill`` and ``punch`` (``SimHandle``)
tells holes from data, and takes zeros as holes; without them holes are found by looking for zeros.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, cast

from engine.doors.files import FileHandle, Files

SCAN_BYTES = 65536
_ZERO_PIECE_BYTES = 1 << 20


class Segment(Protocol):
    """A range as SEEK_DATA tells it."""

    @property
    def start(self) -> int: ...

    @property
    def length(self) -> int: ...

    @property
    def data(self) -> bool: ...


class SparseHandle(Protocol):
    """What a handle may offer beyond its contract."""

    def segments(self, offset: int = 0, length: int | None = None) -> Iterable[Segment]: ...

    def fill(self, offset: int, length: int, byte: int) -> None: ...

    def punch(self, offset: int, length: int) -> None: ...


class Opener(Protocol):
    """A file door that also opens devices."""

    def open_block(self, path: str, writable: bool) -> FileHandle: ...


class ImageFile:
    """An open file. Errors of the handle pass as they are."""

    def __init__(self, files: Files, path: str, writable: bool, device: bool = False) -> None:
        self.path = path
        self.device = device
        opener = cast(Opener, files).open_block if device and hasattr(files, "open_block") else files.open
        self.handle: FileHandle = opener(path, writable)
        try:
            found = self.handle.stat()
        except BaseException:
            self.handle.close()
            raise
        self.identity = (found.device, found.inode)
        """The file itself, whatever its names are."""
        self.length = found.size
        self._sparse = cast(SparseHandle, self.handle) if hasattr(self.handle, "segments") else None
        self._unsynced = False

    def look_again(self) -> int:
        """Return how long it is by now; nothing else tells that a device has become longer."""
        self.length = self.handle.stat().size
        return self.length

    def read_up_to(self, offset: int, length: int) -> bytes:
        """Shorter at the end of the file."""
        return self.handle.read_at(offset, length)

    def read(self, offset: int, length: int) -> bytes:
        """Zeros after the end of the file."""
        data = self.handle.read_at(offset, length) if offset < self.length else b""
        return data if len(data) == length else data + bytes(length - len(data))

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write some bytes; they are not durable yet."""
        self._unsynced = True
        self.handle.write_at(offset, _bytes(data))
        self.length = max(self.length, offset + len(data))

    def extend(self, offset: int, length: int) -> bool:
        """Make a range behind the end of the file zeros without writing them; False: it is not behind the end."""
        if self.device or offset < self.length:
            return False
        self.truncate(offset + length)
        return True

    def fill(self, offset: int, data: bytes, length: int) -> None:
        """Write ``data`` and zeros after it, ``length`` bytes in all."""
        if self.extend(offset, length):
            if data:
                self.write(offset, data)
        else:
            self.write(offset, data + bytes(length - len(data)))

    def truncate(self, size: int) -> None:
        """Set the size."""
        self._unsynced = True
        self.handle.truncate(size)
        self.length = size

    def sync(self) -> None:
        """Make everything durable; nothing is asked of the handle when nothing was changed since the last time."""
        if self._unsynced:
            self.handle.sync()
            self._unsynced = False

    def punch(self, offset: int, length: int) -> None:
        """Give the room of a range back where the handle can; its content is then unknown to the caller."""
        if self._sparse is not None and not self.device:
            self._unsynced = True
            self._sparse.punch(offset, length)

    def zero(self, offset: int, length: int) -> None:
        """Make a range of the file zeros, as holes where the handle can; of a device by its own command."""
        if self._sparse is not None:
            if self.device:
                self._unsynced = True
                self._sparse.fill(offset, length, 0)
            else:
                self.punch(offset, length)
            return
        for start, count in self.data_ranges(offset, offset + length):
            for at in range(start, start + count, _ZERO_PIECE_BYTES):
                self.write(at, bytes(min(_ZERO_PIECE_BYTES, start + count - at)))

    def data_ranges(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """(start, length) of what is no hole, in order."""
        end = min(end, self.length)
        if self._sparse is not None:
            for segment in self._sparse.segments(start, max(0, end - start)):
                if segment.data:
                    yield segment.start, segment.length
            return
        while start < end:
            length = min(SCAN_BYTES - start % SCAN_BYTES, end - start)
            if any(self.read(start, length)):
                yield start, length
            start += length

    def close(self) -> None:
        """Close the handle."""
        self.handle.close()


def _bytes(data: bytes | memoryview) -> bytes:
    """Without a copy when all of a bytes object is meant: contents are shared, not copied, by the storage."""
    if isinstance(data, memoryview):
        whole = data.obj
        return whole if isinstance(whole, bytes) and len(whole) == len(data) else data.tobytes()
    return data
