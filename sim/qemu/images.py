"""The image door of the simulator: what qemu's tools do, on the files of any ``Files`` door.

Images are real: a qcow2 file written here is one that qemu opens, and the other way round. What
a tool does to a file are calls of the file door, in qemu's order, so whatever a simulated storage
does to files and syncs it does to images: a power cut between any two of them, an error of any.
``OSError`` becomes what the real tool raises; ``Crashed`` passes.

A process is one ``SimImageTool``. When it dies ``abandon`` drops its locks and open images as they
are; ``close`` of a session instead is the end of a server that goes on living until it has written
back its caches, as qemu-nbd does when its client is gone, also when the client was killed.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import NamedTuple

from engine.data.model import FileFormat, VolumeFormat
from engine.doors.files import Files
from engine.doors.images import Chain, CheckReport, Data, Extent, Layer, Unpacked
from engine.errors import MAKE_ROOM, BadRequest, NoSpace, StorageError, ToolFailed, ToolMissing, from_os_error
from engine.tools.qemu.qcow2 import MAX_BACKING_NAME_BYTES
from sim.qemu import layers as model
from sim.qemu.image_file import ImageFile
from sim.qemu.layers import ImageLocks, OpenLayer, Permissions, Raw, View
from sim.qemu.qcow2.check import Findings, repair_all, repair_leaks
from sim.qemu.qcow2.image import Qcow2
from sim.qemu.qcow2.tables import Kind

PIECE_BYTES = 2 << 20
"""Largest read or write at once, as over NBD."""

_CLUSTER = 65536  # of images that do not exist yet


class _Opened(NamedTuple):
    layer: OpenLayer
    permissions: Permissions


class SimSession:
    """A ``Session``. A failed write, zero or flush is final, as with the real one."""

    def __init__(
        self,
        opened: list[_Opened],
        writable: bool,
        label: str,
        ended: Callable[[SimSession], None],
        let_go: Callable[[Sequence[_Opened]], None],
    ) -> None:
        """Owns what is ``opened``, top first. ``ended`` is called once, when it is over; ``let_go`` closes layers."""
        self._let_go = let_go
        self._opened = opened
        self._writable = writable
        self._label = label
        self._ended = ended
        self._top = opened[0].layer
        self._look()
        self._error: StorageError | None = None
        self._closed = False

    def _look(self) -> None:
        self._view = View([entry.layer for entry in self._opened])
        self._below = View([entry.layer for entry in self._opened[1:]])

    @property
    def size(self) -> int:
        return self._view.size

    def stream(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        for start, length in ranges:
            self._check_range(start, length)
            for at in range(start, start + length, PIECE_BYTES):
                count = min(PIECE_BYTES, start + length - at)
                self._require_open()
                try:
                    data = self._view.read(at, count)
                except OSError as error:
                    raise _failed(error, f"reading {count} bytes at {at} of {self._label}") from None
                yield at, data

    def read(self, start: int, length: int) -> bytes:
        return b"".join([data for _, data in self.stream([(start, length)])])

    def write(self, start: int, data: Data) -> None:
        self._check_range(start, len(data))
        view = memoryview(data)
        for at in range(0, len(data), PIECE_BYTES):
            piece = view[at : at + PIECE_BYTES]
            doing = f"writing {len(piece)} bytes at {start + at} of {self._label}"
            with self._changing(doing):
                self._top.write(start + at, piece, self._below)

    def zero(self, start: int, length: int) -> None:
        self._check_range(start, length)
        with self._changing(f"zeroing {length} bytes at {start} of {self._label}"):
            self._top.zero(start, length, self._below)

    def flush(self) -> None:
        with self._changing(f"flushing {self._label}"):
            self._top.flush()

    def grow(self, size: int) -> None:
        """Of a machine: make the top layer longer, as block_resize does."""
        with self._changing(f"making {self._label} {size} bytes long"):
            if isinstance(self._top, Qcow2):
                self._top.resize(size)
            elif self._top.file.device:
                if self._top.file.look_again() < size:
                    raise OSError(errno.EINVAL, "Cannot grow device files")
                self._top.size = self._top.file.length
            else:
                self._top.file.truncate(size)
                self._top.size = size

    def shown_below(self, start: int, level: int) -> tuple[int, int, bool] | None:
        """Of a machine: the first range from ``start`` on that shows in a layer of the one directly below, and whether
        it is zeros; None for none."""
        layers = [entry.layer for entry in self._opened[level:]]
        for run, of, has in View(layers).runs(start, layers[0].size):
            if of == 1 and has:
                return run.start, run.length, run.kind is Kind.ZERO
        return None

    def pull(self, start: int, length: int, zero: bool, level: int) -> None:
        """Of a machine: write into a layer what it shows there. An error of that is no matter of its guest."""
        layers = [entry.layer for entry in self._opened[level:]]
        below = View(layers[1:])
        with self._told(f"writing {length} bytes at {start} of layer {level} of {self._label}"):
            if zero:
                layers[0].zero(start, length, below)
            else:
                layers[0].write(start, View(layers).read(start, length), below)

    def flush_layer(self, level: int) -> None:
        """Of a machine: flush one layer."""
        with self._told(f"flushing layer {level} of {self._label}"):
            self._opened[level].layer.flush()

    def leave_out(self, backing: str, format: str, level: int) -> None:
        """Of a machine: have a layer stand on what is below the next one, which is let go."""
        with self._told(f"rewriting the header of layer {level} of {self._label}"):
            layer = self._opened[level].layer
            assert isinstance(layer, Qcow2), "nothing is below a raw one"
            layer.rewrite_backing(backing.encode(), format.encode(), synced=False)
        self._let_go([self._opened.pop(level + 1)])
        self._look()

    def reopened(self, level: int, opened: _Opened) -> None:
        """Of a machine: go on with another handle of a layer."""
        self._opened[level] = opened
        self._look()

    @contextlib.contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        self._require_open()
        try:
            yield
        except OSError as error:
            raise _failed(error, doing) from None

    def close(self) -> None:
        """The server ends: it writes back what it holds, and nobody is told when that fails; one whose storage failed
        otherwise is killed."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._writable and (self._error is None or isinstance(self._error, NoSpace)):
                with contextlib.suppress(OSError, StorageError):
                    self._top.flush()
        finally:
            self._end()

    def abandon(self) -> None:
        """The server is gone: nothing more reaches the file. Idempotent."""
        if not self._closed:
            self._closed = True
            self._end()

    def _end(self) -> None:
        self._ended(self)

    @contextlib.contextmanager
    def _changing(self, doing: str) -> Iterator[None]:
        self._require_open()
        if self._error is not None:
            raise self._error
        try:
            if not self._writable:
                raise OSError(errno.EPERM, "the session is for reading only")
            yield
        except OSError as error:
            self._error = _failed(error, doing)
            raise self._error from None
        except StorageError as error:
            self._error = error
            raise

    def _check_range(self, start: int, length: int) -> None:
        if start < 0 or length < 0 or start + length > self.size:
            raise BadRequest(f"{length} bytes at {start} are not inside {self._label} of {self.size} bytes")

    def _require_open(self) -> None:
        if self._closed:
            raise ToolFailed(f"the session on {self._label} is over", "Open a new one")


class SimImageTool:
    """An ``ImageTool``, for one process."""

    def __init__(self, files: Files, locks: ImageLocks | None = None, owner: str = "") -> None:
        """``locks`` are shared with the other processes and hosts that could see qemu's locks on these files."""
        self._files = files
        self._locks = locks if locks is not None else ImageLocks()
        self._owner = owner
        self._sessions: dict[SimSession, list[_Opened]] = {}

    def abandon(self) -> None:
        """The process is dead with all that it started: locks are free, nothing is written any more."""
        for session in list(self._sessions):
            session.abandon()

    # -- reading

    def map_layer(self, layer: Layer, written: bool = False) -> list[Extent]:
        if not written:
            return self.map_chain([layer])
        try:
            with contextlib.closing(ImageFile(self._files, layer.path, False, layer.device)) as file:
                return View([Qcow2(file, False, False)]).extents()
        except OSError as error:
            raise _failed(error, f"qemu-img map of {layer.path}") from None

    def extents(self, layer: Layer) -> Generator[Extent, None, None]:
        yield from self.map_layer(layer)

    def map_chain(self, chain: Chain) -> list[Extent]:
        with self._tool("map", chain) as opened:
            return View(opened).extents()

    def required_bytes(self, chain: Chain, format: VolumeFormat) -> int:
        with self._tool("measure", chain) as opened:
            view = View(opened)
            if format is VolumeFormat.RAW:
                return view.size
            return _measure(view)

    def unpacked(self, layer: Layer, most: int, most_data: int) -> Unpacked:
        raise ToolMissing(f"a simulated host has no program that unpacks {layer.path}")

    def check(self, layer: Layer) -> CheckReport:
        with self._checking(layer, False) as image:
            found = Findings(image)
        return CheckReport(len(found.corruptions), len(found.leaks), found.allocated, found.end_offset, found.detail)

    def open_session(self, chain: Chain, writable: bool, direct: bool, later: bool = False) -> SimSession:
        """``direct`` makes no difference here: the simulated storage knows no page cache of its own."""
        try:
            opened = self._open(chain, writable, served=True)
        except OSError as error:
            raise _cannot_open(error, chain[0].path) from None
        session = SimSession(opened, writable, chain[0].path, self._session_ended, self._release)
        self._sessions[session] = opened
        return session

    def reopen(self, session: SimSession, level: int, layer: Layer, writable: bool) -> None:
        """Of a machine: open a layer below the top one anew, for writing or for reading again, or as it was."""
        before = self._sessions[session][level]
        try:
            before.layer.flush()
            self._locks.release(before.layer.file, before.permissions, self._owner)
            try:
                now = self._open_layer(layer, writable, False, False)
            except BaseException:
                self._locks.take(before.layer.file, before.permissions, self._owner)
                raise
            before.layer.file.close()
        except OSError as error:
            raise _cannot_open(error, layer.path) from None
        session.reopened(level, now)

    def _session_ended(self, session: SimSession) -> None:
        self._release(self._sessions.pop(session))

    # -- changing

    def repair_leaks(self, layer: Layer) -> None:
        with self._checking(layer, True) as image:
            found = repair_leaks(image)
        if found.corruptions or found.leaks:
            raise ToolFailed(f"qemu-img check of {layer.path} failed with exit code 2: {found.detail}")

    def repair_all(self, layer: Layer) -> None:
        with self._checking(layer, True) as image:
            found = repair_all(image)
        if found.corruptions:
            raise ToolFailed(f"qemu-img check of {layer.path} failed with exit code 2: {found.detail}")

    def lay_out(self, layer: Layer, size: int) -> None:
        raise ToolFailed(f"the simulator lays out no {layer.format} of {size} bytes")

    def set_backing(self, layer: Layer, name: str | None, format: VolumeFormat | None) -> None:
        if layer.format is not VolumeFormat.QCOW2:
            raise BadRequest(f"raw layer {layer.path!r:.200} cannot have a backing name")
        if name is not None and (not name or "\0" in name or len(name.encode()) > MAX_BACKING_NAME_BYTES):
            raise BadRequest(f"backing name {name!r:.80} must have 1 to {MAX_BACKING_NAME_BYTES} bytes")
        if (name is None) != (format is None):
            raise BadRequest(f"backing name {name!r:.80} with format {format}: both are needed or none")
        with self._tool("rebase", [layer], writable=True) as opened:
            image = opened[0]
            assert isinstance(image, Qcow2)
            image.rewrite_backing((name or "").encode(), format.value.encode() if format else b"")

    def resize(self, layer: Layer, size: int) -> None:
        with self._tool("resize", [layer], writable=True) as opened:
            image = opened[0]
            if size < image.size or size <= 0 or (isinstance(image, Qcow2) and size % 512):
                raise ToolFailed(f"qemu-img resize of {layer.path} failed with exit code 1: cannot be {size} bytes")
            if isinstance(image, Qcow2):
                image.resize(size)
            elif size > image.file.length:
                image.file.truncate(size)
            image.flush()

    # -- opening

    @contextlib.contextmanager
    def _tool(self, verb: str, chain: Chain, writable: bool = False) -> Iterator[list[OpenLayer]]:
        """One run of qemu-img."""
        path = chain[0].path if chain else ""
        try:
            opened = self._open(chain, writable, served=False)
        except OSError as error:
            raise _cannot_open(error, path) from None
        try:
            yield [entry.layer for entry in opened]
        except OSError as error:
            raise _failed(error, f"qemu-img {verb} of {path}") from None
        finally:
            self._release(opened)

    @contextlib.contextmanager
    def _checking(self, layer: Layer, writable: bool) -> Iterator[Qcow2]:
        if layer.format is not VolumeFormat.QCOW2:
            raise ToolFailed(f"{layer.path} has a format that cannot be checked")
        with self._tool("check", [layer], writable) as opened:
            image = opened[0]
            assert isinstance(image, Qcow2)
            yield image

    def _open(self, chain: Chain, writable: bool, served: bool) -> list[_Opened]:
        """Open and lock each layer; a writable image that was not closed cleanly is repaired first."""
        if not chain:
            raise BadRequest("a chain has at least one layer")
        if any(layer.format is VolumeFormat.RAW for layer in chain[:-1]):
            raise BadRequest("a raw layer cannot have another below it")
        repairing = writable and not served
        with contextlib.ExitStack() as undo:
            opened: list[_Opened] = []
            undo.callback(self._release, opened)
            for index, layer in enumerate(chain):
                opened.append(self._open_layer(layer, writable and index == 0, served and index == 0, repairing))
            top = opened[0].layer
            if writable and served and isinstance(top, Qcow2) and top.header.dirty:
                repair_all(top)
            undo.pop_all()
        return opened

    def _open_layer(self, layer: Layer, writable: bool, served: bool, repairing: bool) -> _Opened:
        if isinstance(layer.format, FileFormat):
            raise ToolFailed(f"the simulator opens no {layer.format}")
        file = ImageFile(self._files, layer.path, writable, layer.device)
        permissions = _permissions(layer.format, writable, served)
        with contextlib.ExitStack() as undo:
            undo.callback(file.close)
            self._locks.take(file, permissions, self._owner)
            undo.callback(self._locks.release, file, permissions, self._owner)
            opened: OpenLayer = (
                Raw(file, layer.length) if layer.format is VolumeFormat.RAW else Qcow2(file, writable, repairing)
            )
            undo.pop_all()
        return _Opened(opened, permissions)

    def _release(self, opened: Sequence[_Opened]) -> None:
        for entry in opened:
            self._locks.release(entry.layer.file, entry.permissions, self._owner)
            with contextlib.suppress(OSError):
                entry.layer.file.close()


class UnsafeImageTool(SimImageTool):
    """One whose flushes write qemu's caches back and reach no storage: cache=unsafe."""

    def _open_layer(self, layer: Layer, writable: bool, served: bool, repairing: bool) -> _Opened:
        opened = super()._open_layer(layer, writable, served, repairing)
        opened.layer.file.sync = lambda: None  # type: ignore[method-assign]
        return opened


def _permissions(format: VolumeFormat, writable: bool, served: bool) -> Permissions:
    if format is VolumeFormat.QCOW2:
        return model.QCOW2_WRITER if writable else model.QCOW2_READER
    if served:
        return model.RAW_SERVED_WRITER if writable else model.RAW_SERVED_READER
    return model.RAW_RESIZER if writable else model.RAW_READER


def _cannot_open(error: OSError, path: str) -> ToolFailed:
    return ToolFailed(from_os_error(error, f"open the layer {path!r:.200}").message)


def _failed(error: OSError, doing: str) -> StorageError:
    reason = f"{error.strerror or error} [{errno.errorcode.get(error.errno or 0, '')}]"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"{doing} failed: {reason}", MAKE_ROOM)
    return ToolFailed(f"{doing} failed: {reason}", "Check the storage and try again")


def _measure(view: View) -> int:
    """Length of a qcow2 file for what the view shows: metadata as for a full image, and the clusters with data."""
    size = -(-view.size // _CLUSTER) * _CLUSTER
    needed, done = 0, 0
    for extent in view.extents():
        if extent.data and extent.start + extent.length > done:
            first = max(done, extent.start // _CLUSTER * _CLUSTER)
            done = -(-(extent.start + extent.length) // _CLUSTER) * _CLUSTER
            needed += done - first
    return _metadata_bytes(size) + needed


def _metadata_bytes(size: int) -> int:
    entries = _CLUSTER // 8
    tables = -(-(size // _CLUSTER) // entries)
    clusters = 1 + tables + -(-tables // entries) + size // _CLUSTER
    counts = table = 0
    while True:
        total = clusters + counts + table
        counts = -(-total // (_CLUSTER // 2))
        table = -(-counts // entries)
        if clusters + counts + table == total:
            return (1 + tables + -(-tables // entries) + counts + table) * _CLUSTER
