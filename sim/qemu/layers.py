"""Layers of a chain as opened, what they show together, and the locks that qemu takes on them."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from engine.doors.images import Extent
from engine.errors import ToolFailed
from sim.qemu.image_file import ImageFile
from sim.qemu.qcow2.image import Below
from sim.qemu.qcow2.tables import Kind, Run

SECTOR_BYTES = 512


class OpenLayer(Protocol):
    """One opened layer."""

    file: ImageFile
    size: int

    def runs(self, start: int, end: int) -> Iterator[Run]: ...

    def write(self, start: int, data: bytes | memoryview, below: Below) -> None: ...

    def zero(self, start: int, length: int, below: Below) -> None: ...

    def flush(self) -> None: ...


class Raw:
    """A raw file: its virtual size is its length in whole sectors, or what it is told to be."""

    def __init__(self, file: ImageFile, length: int = 0) -> None:
        if length > file.length:
            raise OSError(errno.EINVAL, "the file is shorter than it is said to be", file.path)
        self.file = file
        self.size = length or -(-file.length // SECTOR_BYTES) * SECTOR_BYTES

    def runs(self, start: int, end: int) -> Iterator[Run]:
        """Data and holes; nothing is ever absent."""
        for data_start, length in self.file.data_ranges(start, end):
            if data_start > start:
                yield Run(start, data_start - start, Kind.ZERO, start)
            yield Run(data_start, length, Kind.DATA, data_start)
            start = data_start + length
        if start < end:
            yield Run(start, end - start, Kind.ZERO, start)

    def write(self, start: int, data: bytes | memoryview, below: Below) -> None:
        self.file.write(start, data)

    def zero(self, start: int, length: int, below: Below) -> None:
        self.file.zero(start, length)

    def flush(self) -> None:
        self.file.sync()


class View:
    """What some layers show together, top first; zeros where none of them has anything."""

    def __init__(self, layers: Sequence[OpenLayer]) -> None:
        self._layers = layers

    @property
    def size(self) -> int:
        """Virtual size of the top layer."""
        return self._layers[0].size

    def runs(self, start: int, end: int, level: int = 0) -> Iterator[tuple[Run, int | None, bool]]:
        """(run, the layer that it is from, whether that layer has it) for a range; None and False: nowhere.

        Beyond the end of a layer nothing below it shows."""
        if level >= len(self._layers):
            yield Run(start, end - start, Kind.ZERO, None), None, False
            return
        layer = self._layers[level]
        inside = max(start, min(end, layer.size))
        for run in layer.runs(start, inside):
            if run.kind is Kind.ABSENT:
                yield from self.runs(run.start, run.start + run.length, level + 1)
            else:
                yield run, level, True
        if inside < end:
            yield Run(inside, end - inside, Kind.ZERO, None), None, False

    def read(self, start: int, length: int) -> bytes:
        """The content of a range."""
        parts = []
        for layer, run in self._pieces(start, start + length):
            if layer is not None and run.host is not None:
                parts.append(layer.file.read(run.host, run.length))
            else:
                parts.append(bytes(run.length))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _pieces(self, start: int, end: int) -> Iterator[tuple[OpenLayer | None, Run]]:
        """(layer to read from, run), neighbours joined; None: zeros. Raw layers are read without a look at holes."""
        last: tuple[OpenLayer | None, Run] | None = None
        for layer, run in self._sources(start, end, 0):
            if last is not None and last[0] is layer and (layer is None or _follows(last[1], run)):
                last = layer, last[1]._replace(length=last[1].length + run.length)
                continue
            if last is not None:
                yield last
            last = layer, run
        if last is not None:
            yield last

    def _sources(self, start: int, end: int, level: int) -> Iterator[tuple[OpenLayer | None, Run]]:
        layer = self._layers[level] if level < len(self._layers) else None
        inside = max(start, min(end, layer.size)) if layer is not None else start
        if isinstance(layer, Raw) and start < inside:
            yield layer, Run(start, inside - start, Kind.DATA, start)
        elif layer is not None:
            for run in layer.runs(start, inside):
                if run.kind is Kind.ABSENT:
                    yield from self._sources(run.start, run.start + run.length, level + 1)
                else:
                    yield (layer if run.kind is Kind.DATA else None), run
        if inside < end:
            yield None, Run(inside, end - inside, Kind.ZERO, None)

    def is_zero(self, start: int, length: int) -> bool:
        """Whether a range is known to be zeros without reading it."""
        return length <= 0 or all(run.kind is Kind.ZERO for run, _, _ in self.runs(start, start + length))

    def extents(self) -> list[Extent]:
        """As ``qemu-img map`` tells them."""
        found: list[Extent] = []
        for run, _, present in self.runs(0, self.size):
            data = run.kind is Kind.DATA
            extent = Extent(run.start, run.length, present, not data, data, run.host)
            if found and _alike(found[-1], extent):
                found[-1] = found[-1]._replace(length=found[-1].length + extent.length)
            else:
                found.append(extent)
        return found


def _follows(run: Run, after: Run) -> bool:
    return run.host is not None and after.host == run.host + run.length


def _alike(last: Extent, extent: Extent) -> bool:
    if (last.present, last.data) != (extent.present, extent.data):
        return False
    return extent.offset == (None if last.offset is None else last.offset + last.length)


class Permissions(NamedTuple):
    """What an open of a file does, and what it lets nobody else do meanwhile."""

    takes: frozenset[str]
    forbids: frozenset[str]


_NOTHING: frozenset[str] = frozenset()
_CHANGE = frozenset({"write", "resize"})

# As measured with qemu 7.2. A raw layer is only as protected as what is above it asks for, and neither a server
# nor qemu-img asks that nobody else may write.
QCOW2_WRITER = Permissions(_CHANGE, _CHANGE)
QCOW2_READER = Permissions(_NOTHING, _CHANGE)
RAW_SERVED_WRITER = Permissions(frozenset({"write"}), frozenset({"resize"}))
RAW_SERVED_READER = Permissions(_NOTHING, frozenset({"resize"}))
RAW_RESIZER = Permissions(_CHANGE, _NOTHING)
RAW_READER = Permissions(_NOTHING, _NOTHING)


class ImageLocks:
    """The locks of all processes on one file system. Shared by the tools that can see each other's locks."""

    def __init__(
        self,
        kept: Callable[[tuple[int, int]], bool] = lambda identity: False,
        handed_out: Callable[[tuple[int, int]], bool] = lambda identity: False,
    ) -> None:
        """``kept``: somebody has a file so locked that nobody writes to it; ``handed_out``: for a machine."""
        self._held: dict[tuple[int, int], list[tuple[Permissions, str]]] = {}
        self._whole: set[tuple[int, int]] = set()
        self._unlocked: list[tuple[tuple[int, int], str]] = []
        self._kept = kept
        self._handed_out = handed_out

    @property
    def held(self) -> bool:
        """Whether anybody has any image open."""
        return bool(self._held)

    def users(self, identity: tuple[int, int], but: str) -> list[tuple[str, bool]]:
        """Who has the file open as an image, other than the process ``but``, and whether it may write."""
        held = [(owner, bool(taken.takes)) for taken, owner in self._held.get(identity, []) if owner != but]
        return held + ([("", True)] if identity in self._whole else [])

    def unlocked(self, identity: tuple[int, int], but: str) -> list[str]:
        """Who has the file open for writing and has locked nothing, other than the process ``but``."""
        return [owner for opened, owner in self._unlocked if opened == identity and owner != but]

    def take_whole(self, identity: tuple[int, int]) -> bool:
        """As ``FileHandle.lock``: False when anybody has the file open as an image, or so locked."""
        if identity in self._held or identity in self._whole or self._kept(identity) or self._handed_out(identity):
            return False
        self._whole.add(identity)
        return True

    def is_whole(self, identity: tuple[int, int]) -> bool:
        """Whether somebody has that."""
        return identity in self._whole

    def release_whole(self, identity: tuple[int, int]) -> None:
        """Give that back."""
        self._whole.remove(identity)

    def take(self, file: ImageFile, permissions: Permissions, owner: str = "") -> None:
        """Lock it for the process ``owner``. ToolFailed when somebody forbids it, or does what this would forbid."""
        if file.identity in self._whole or (permissions.takes and self._kept(file.identity)):
            raise _locked('"write"', file)
        held = self._held.setdefault(file.identity, [])
        for other, _ in held:
            for what in ("write", "resize"):
                if what in permissions.takes and what in other.forbids:
                    raise _locked(f'"{what}"', file)
                if what in permissions.forbids and what in other.takes:
                    raise _locked(f'shared "{what}"', file)
        held.append((permissions, owner))

    def release(self, file: ImageFile, permissions: Permissions, owner: str = "") -> None:
        """Give back what was taken."""
        held = self._held[file.identity]
        held.remove((permissions, owner))
        if not held:
            del self._held[file.identity]


class NoImageLocks(ImageLocks):
    """What programs take that lock nothing (file.locking=off, a loop device): only the kernel knows of them."""

    def __init__(self, known: ImageLocks) -> None:
        super().__init__()
        self._known = known._unlocked

    def take(self, file: ImageFile, permissions: Permissions, owner: str = "") -> None:
        if permissions.takes:
            self._known.append((file.identity, owner))

    def release(self, file: ImageFile, permissions: Permissions, owner: str = "") -> None:
        if permissions.takes:
            self._known.remove((file.identity, owner))


def _locked(what: str, file: ImageFile) -> ToolFailed:
    return ToolFailed(f"Failed to get {what} lock; Is another process using the image [{file.path}]?")
