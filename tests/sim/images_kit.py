"""Helpers: the simulated and the real image tool do the same to files of their own, and are compared."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

from engine.data.model import VolumeFormat
from engine.doors import Doors
from engine.doors.files import Files
from engine.doors.images import Chain, Extent, ImageTool, Layer
from engine.errors import ToolFailed
from engine.tools.local.files import RealFileHandle, RealFiles
from engine.tools.qemu.images import QemuImageTool
from engine.tools.qemu.qcow2 import fresh_image
from sim.disk.content import Segment
from sim.hosts.crash import Effects, crashing
from sim.qemu.images import SimImageTool

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
CLUSTER = 64 * KIB
QCOW2, RAW = VolumeFormat.QCOW2, VolumeFormat.RAW
Step = tuple[Any, ...]


def crashing_files(effects: Effects, files: Files | None = None) -> Files:
    """File door that ends the process before an effect."""
    nothing = cast(Any, None)
    return crashing(Doors(files or RealFiles(), *[nothing] * 9), effects).files


def make_layer(files: Files, layer: Layer, size: int) -> None:
    with files.create(layer.path) as handle:
        if layer.format is QCOW2:
            image = fresh_image(size, None, None)
            for offset, data in image.pieces:
                handle.write_at(offset, data)
            handle.truncate(image.length)
        else:
            handle.truncate(size)


class SparseHandle(RealFileHandle):
    """A real file that tells its holes and makes them, as simulated ones do."""

    def segments(self, offset: int = 0, length: int | None = None) -> Iterator[Segment]:
        size = os.fstat(self.descriptor).st_size
        end = size if length is None else min(size, offset + length)
        while offset < end:
            data = self._seek(offset, os.SEEK_DATA, end)
            if data > offset:
                yield Segment(offset, data - offset, False, True)
            hole = self._seek(data, os.SEEK_HOLE, end) if data < end else end
            if hole > data:
                yield Segment(data, hole - data, True, False)
            offset = hole

    def _seek(self, offset: int, what: int, end: int) -> int:
        try:
            return min(end, os.lseek(self.descriptor, offset, what))
        except OSError as error:
            assert error.errno == errno.ENXIO
            return end

    def fill(self, offset: int, length: int, byte: int) -> None:
        self.write_at(offset, bytes((byte,)) * length)

    def punch(self, offset: int, length: int) -> None:
        fallocate = ctypes.CDLL(None, use_errno=True).fallocate
        fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
        assert fallocate(self.descriptor, 3, offset, length) == 0, ctypes.get_errno()


class SparseFiles(RealFiles):
    """The real file door with such handles."""

    def open(self, path: str, writable: bool = False) -> SparseHandle:
        descriptor, _ = self._open_regular(path, os.O_RDWR if writable else os.O_RDONLY)
        return SparseHandle(descriptor, path)


class Twins:
    """Two directories with the same images: one is worked on by the model, one by qemu."""

    def __init__(self, folder: Path, files: Files | None = None) -> None:
        self.model_folder, self.real_folder = folder / "model", folder / "real"
        self.model_folder.mkdir()
        self.real_folder.mkdir()
        self.model: ImageTool = SimImageTool(files or SparseFiles())
        self.real: ImageTool = QemuImageTool()
        self.names: list[tuple[str, VolumeFormat]] = []

    def chain(self, folder: Path, top: int = 0) -> list[Layer]:
        return [Layer(str(folder / name), format) for name, format in self.names[top:]]

    def chains(self) -> tuple[list[Layer], list[Layer]]:
        return self.chain(self.model_folder), self.chain(self.real_folder)

    def push(self, name: str, format: VolumeFormat, size: int) -> None:
        """A new top layer, alike in both."""
        self.names.insert(0, (name, format))
        for chain in self.chains():
            make_layer(RealFiles(), chain[0], size)

    def swap(self) -> None:
        """Each goes on with what the other has written."""
        self.model_folder, self.real_folder = self.real_folder, self.model_folder

    def run(self, steps: list[Step]) -> None:
        """One session of each with the same steps; reads agree."""
        model_chain, real_chain = self.chains()
        model = self.model.open_session(model_chain, True, False)
        real = self.real.open_session(real_chain, True, False)
        try:
            assert model.size == real.size
            for step in steps:
                found = [getattr(session, step[0])(*step[1:]) for session in (model, real)]
                assert found[0] == found[1], f"different after {step[:2]}"
        finally:
            real.close()
            model.close()

    def compare(self) -> None:
        """Both tools see the same in both files."""
        model_chain, real_chain = self.chains()
        for chain in (model_chain, real_chain):
            compare_maps(self.model, self.real, chain)
            compare_maps(self.model, self.real, chain[:1])
            if chain[0].format is QCOW2:
                same_check(self.model, self.real, chain[0])
                assert self.real.check(chain[0])[:2] == (0, 0)
        # Qemu knows zeros of a layer below by the holes of its file, which differ: so a range that is zeroed here
        # may be written as zeros there. What is present never differs.
        ours, theirs = (self.model.map_layer(chain[0]) for chain in (model_chain, real_chain))
        compare_extents(ours, theirs, self.model, model_chain)
        compare_content(self.real, model_chain, self.model, real_chain)


def windows(size: int) -> list[tuple[int, int]]:
    """Where random steps go: the beginning, the border of two L2 tables, the end."""
    found = [(0, min(size, MIB))]
    if size > 513 * MIB:
        found += [(512 * MIB - 3 * CLUSTER, 6 * CLUSTER), (size - 300 * KIB, 300 * KIB)]
    return found


def compare_content(tool: ImageTool, chain: Chain, other_tool: ImageTool, other_chain: Chain) -> None:
    sessions = [tool.open_session(chain, False, False), other_tool.open_session(other_chain, False, False)]
    try:
        assert sessions[0].size == sessions[1].size
        for start, length in windows(sessions[0].size):
            assert sessions[0].read(start, length) == sessions[1].read(start, length)
    finally:
        for session in sessions:
            session.close()


def same_check(model: ImageTool, real: ImageTool, layer: Layer) -> None:
    """Everything but the words."""
    assert model.check(layer)[:4] == real.check(layer)[:4]


def compare_maps(model: ImageTool, real: ImageTool, chain: Chain) -> None:
    """The same extents; where only one says zero, the content is zeros: both may know more, neither may lie."""
    compare_extents(model.map_chain(chain), real.map_chain(chain), model, chain)


def compare_extents(ours: list[Extent], theirs: list[Extent], model: ImageTool, chain: Chain) -> None:
    assert ours[-1].start + ours[-1].length == theirs[-1].start + theirs[-1].length
    session = model.open_session(chain, False, False)
    try:
        for start, length, our, their in _overlaid(ours, theirs):
            assert our.present == their.present, (start, length, our, their)
            if (our.zero, our.data) != (their.zero, their.data):
                assert our.zero or their.zero, (start, length, our, their)
                assert not any(session.read(start, length)), (start, length, our, their)
    finally:
        session.close()


def _overlaid(ours: list[Extent], theirs: list[Extent]) -> list[tuple[int, int, Extent, Extent]]:
    cuts = sorted({extent.start for extent in (*ours, *theirs)} | {ours[-1].start + ours[-1].length})
    found, our, their = [], 0, 0
    for start, end in pairwise(cuts):
        while ours[our].start + ours[our].length <= start:
            our += 1
        while theirs[their].start + theirs[their].length <= start:
            their += 1
        found.append((start, end - start, ours[our], theirs[their]))
    return found


def random_steps(rng: random.Random, size: int, count: int, flush: bool = True) -> list[Step]:
    """Writes, zeroes, reads and flushes in the windows."""
    steps: list[Step] = []
    for _ in range(count):
        start, length = _random_range(rng, *rng.choice(windows(size)))
        verb = rng.choice(("write", "write", "zero", "read", "flush"))
        if verb == "write":
            data = bytes(length) if rng.random() < 0.1 else rng.randbytes(64) * (length // 64 + 1)
            steps.append(("write", start, data[:length]))
        elif verb == "flush":
            steps.append(("flush",))
        else:
            steps.append((verb, start, length))
    return [*steps, ("flush",)] if flush else steps


def _random_range(rng: random.Random, start: int, length: int) -> tuple[int, int]:
    unit = rng.choice((1, 512, 4096, CLUSTER, CLUSTER))
    first = start + rng.randrange(length) // unit * unit
    first = max(first, start)
    count = min(rng.choice((1, 1, 2, 5)) * unit, start + length - first)
    return first, count


def random_size(rng: random.Random) -> int:
    if rng.random() < 0.3:
        return 600 * MIB + 4096 * rng.randrange(4)
    return MIB - 4096 * rng.choice((0, 0, 1, 7, 100)) + rng.choice((0, 0, 512, 1024))


def locked(call: Any) -> bool:
    """Whether a call is refused because of a lock."""
    try:
        result = call()
    except ToolFailed as error:
        assert "lock" in error.message
        return True
    if hasattr(result, "close"):
        result.close()
    return False


def copy_of(path: Path, name: str) -> Path:
    target = path.with_name(name)
    shutil.copyfile(path, target)
    return target
