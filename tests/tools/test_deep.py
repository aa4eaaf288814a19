"""A chain of many layers that is read in parts shows what it shows as a whole; with the real qemu tools."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from engine.doors.images import Extent, Layer
from engine.errors import BadRequest
from engine.tools.local.lending import PIECE_BYTES
from engine.tools.qemu import deep
from engine.tools.qemu.images import QemuImageTool
from tests.tools.qcow2_kit import MIB, make, qcow2, raw

CLUSTER = 65536
SIZES = [6 * MIB, 6 * MIB, 5 * MIB, 7 * MIB, 3 * MIB + 512, 4 * MIB]
"""Top first. The fourth is longer than the one above it, which no chain of ours has: behind the end of that one
nothing of it shows."""


def chain(tool: QemuImageTool, room: Path) -> list[Layer]:
    """Layers with data, zeros and holes in random places, some of them over each other; a raw one at the bottom."""
    chance = random.Random(5)
    layers = []
    for number, size in enumerate(SIZES[:-1]):
        layers.append(qcow2(make(room / f"layer{number}", size)))
        session = tool.open_session(layers[-1:], writable=True, direct=False)
        for _ in range(12):
            at = chance.randrange(size // CLUSTER) * CLUSTER
            if chance.random() < 0.3:
                session.zero(at, CLUSTER)
            else:
                session.write(at, chance.randbytes(CLUSTER))
        session.flush()
        session.close()
    (room / "bottom").write_bytes(bytes(MIB) + chance.randbytes(SIZES[-1] - MIB))
    return [*layers, raw(room / "bottom")]


def test_a_deep_chain_reads_the_same_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its extents, its content, and the pieces in which it is streamed, whatever the parts are."""
    tool = QemuImageTool()
    layers = chain(tool, tmp_path)
    wanted = [(0, 3 * MIB), (3 * MIB + 512, 512), (4 * MIB, 2 * MIB)]
    whole = tool.open_session(layers, writable=False, direct=False)
    content = [(start, bytes(data)) for start, data in whole.stream(wanted)]
    shown = [(e.start, e.length, e.present, e.zero, e.data) for e in tool.map_chain(layers)]
    for most in (1, 2, 4):
        monkeypatch.setattr("engine.tools.qemu.images.PART_LAYERS", most)
        monkeypatch.setattr(deep, "PART_LAYERS", most)
        parts = tool.open_session(layers, writable=False, direct=False)
        assert isinstance(parts, deep.DeepSession) and parts.size == whole.size
        assert [(start, bytes(data)) for start, data in parts.stream(wanted)] == content
        assert parts.read(MIB - 1, 2) == whole.read(MIB - 1, 2)
        with pytest.raises(BadRequest):
            parts.write(0, b"1")
        with pytest.raises(BadRequest):
            parts.read(6 * MIB - 1, 2)
        parts.close()
        seen = [one for e in tool.map_chain(layers) for one in joined(e.start, e.length, e.present, e.zero, e.data)]
        assert seen == [one for e in shown for one in joined(*e)]
    whole.close()


def joined(start: int, length: int, *flags: bool) -> list[tuple[int, tuple[bool, ...]]]:
    """An extent by its sectors: how it is cut does not matter."""
    return [(at, flags) for at in range(start, start + length, 512)]


class Device:
    """A session of a device, which cuts where multiples of a piece are."""

    size = 3 * PIECE_BYTES

    def stream(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        """Each byte tells in which piece of the device it is."""
        for start, length in ranges:
            for at in range(start // PIECE_BYTES * PIECE_BYTES, start + length, PIECE_BYTES):
                first, end = max(start, at), min(start + length, at + PIECE_BYTES)
                yield first, bytes([at // PIECE_BYTES]) * (end - first)


def test_a_part_may_cut_what_it_reads_elsewhere() -> None:
    """A raw device at the bottom of a chain does."""
    size = Device.size
    parts = deep.DeepSession([Device()], [deep.Seen(0, size, 0, Extent(0, size, True, False, True))])  # type: ignore[list-item]
    assert [(at, len(data)) for at, data in parts.stream([(1, size - 1)])] == [
        (1, PIECE_BYTES), (1 + PIECE_BYTES, PIECE_BYTES), (1 + 2 * PIECE_BYTES, PIECE_BYTES - 1)
    ]  # fmt: skip
    assert parts.read(PIECE_BYTES - 1, 2) == b"\0\1"


def test_what_is_read_of_a_large_image_is_not_listed_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found so: 155 MiB of memory for each TiB, before the first byte."""
    monkeypatch.setattr(Device, "size", size := 1 << 40)
    parts = deep.DeepSession([Device()], [deep.Seen(0, size, 0, Extent(0, size, True, False, True))])  # type: ignore[list-item]
    tracemalloc.start()
    try:
        assert next(parts.stream([(0, size)]))[0] == 0
        assert tracemalloc.get_traced_memory()[1] < 8 * PIECE_BYTES
    finally:
        tracemalloc.stop()
