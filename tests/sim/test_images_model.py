"""The simulated image tool against the real one: what it does to images is what qemu does."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from engine.data.model import VolumeFormat
from engine.doors.images import ImageTool, Layer
from engine.errors import ToolFailed
from engine.tools.local.files import RealFiles
from engine.tools.qemu.images import QemuImageTool
from engine.tools.qemu.qcow2 import HEADER_READ_BYTES, parse_header
from sim.qemu.images import SimImageTool
from tests.sim.images_kit import (
    CLUSTER,
    MIB,
    QCOW2,
    RAW,
    SparseFiles,
    Twins,
    compare_content,
    copy_of,
    locked,
    make_layer,
    random_size,
    random_steps,
    same_check,
)
from tests.tools.qcow2_kit import info, patch, qemu_img

REAL = QemuImageTool()
L1_AT, COUNTS_AT = 3 * CLUSTER, 2 * CLUSTER  # in fresh images


def grow_chain(twins: Twins, rng: random.Random, layers: int) -> None:
    """Make a chain bottom up, each layer written in one session of each tool before the next is made."""
    for number in range(layers):
        format = RAW if number == 0 and rng.random() < 0.5 else QCOW2
        size = random_size(rng)
        twins.push(f"layer{number}", format, size)
        twins.run(random_steps(rng, size, rng.randrange(2, 10)))


def random_work(folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    twins = Twins(folder)
    grow_chain(twins, rng, 1 + seed % 3)
    twins.compare()
    twins.swap()
    last = twins.model.map_layer(twins.chains()[0][0])[-1]
    twins.run(random_steps(rng, last.start + last.length, 12))
    twins.compare()


@pytest.mark.parametrize("seed", range(6))
def test_random_work_on_chains_has_the_same_result_as_with_qemu(tmp_path: Path, seed: int):
    """Chains of one to three layers that are written and zeroed at random read, map and check the same, each
    tool reads what the other has written, and goes on with it."""
    random_work(tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 112))
def test_more_random_work_on_chains_has_the_same_result_as_with_qemu(tmp_path: Path, seed: int):
    """As above, with other seeds."""
    random_work(tmp_path, seed)


def test_a_file_door_that_cannot_tell_holes_gives_the_same_images(tmp_path: Path):
    """On the plain file door, where holes are found by looking, content and maps are right too."""
    rng = random.Random(7)
    twins = Twins(tmp_path, RealFiles())
    twins.push("base", RAW, MIB)
    twins.run(random_steps(rng, MIB, 8))
    twins.compare()
    twins.push("top", QCOW2, MIB + CLUSTER)
    twins.run(random_steps(rng, MIB, 8))
    twins.compare()


@pytest.mark.parametrize("seed", range(4))
def test_growing_hides_what_is_below_as_qemu_does(tmp_path: Path, seed: int):
    """After random growth, also of the L1 table, the same is read, mapped and counted; the new range is zeros."""
    rng = random.Random(seed)
    twins = Twins(tmp_path)
    size = MIB
    twins.push("base", rng.choice((RAW, QCOW2)), size)
    twins.run([("write", 0, b"b" * size), ("flush",)])
    twins.push("top", QCOW2, size)
    twins.run(random_steps(rng, size, 4))
    for tool, chain in zip((twins.model, twins.real), twins.chains(), strict=True):
        tool.set_backing(chain[0], "base", VolumeFormat(chain[1].format))
    for _ in range(3):
        grown = size + rng.choice((0, CLUSTER, MIB, 700 * MIB, 5 << 40))
        for tool, chain in zip((twins.model, twins.real), twins.chains(), strict=True):
            tool.resize(chain[0], grown)
        model = twins.model.open_session(twins.chains()[0], False, False)
        assert not any(model.read(size, min(grown - size, 4 * MIB)))
        model.close()
        size = grown
        twins.compare()
        twins.run(random_steps(rng, size, 3))
    twins.compare()


def test_shrinking_is_refused_as_qemu_does(tmp_path: Path):
    """Neither a smaller size nor, for qcow2, one with a broken sector is taken, and nothing is changed."""
    for format in (RAW, QCOW2):
        layer = Layer(str(tmp_path / format.value), format)
        make_layer(RealFiles(), layer, MIB)
        before = Path(layer.path).read_bytes()
        for tool in (REAL, SimImageTool(RealFiles())):
            for size in (MIB - 512, *((MIB + 1,) if format is QCOW2 else ())):
                with pytest.raises(ToolFailed):
                    tool.resize(layer, size)
        assert Path(layer.path).read_bytes() == before


@pytest.mark.parametrize(
    ("options", "length"), [((), 3), (("cluster_size=4k",), 24), (("refcount_bits=64",), 3), (("compat=0.10",), 3)]
)
def test_images_made_by_qemu_img_are_worked_on(tmp_path: Path, options: tuple[str, ...], length: int):
    """Images with qemu's default header, small clusters (new reference count blocks), wide counts, or of version 2."""
    path = tmp_path / "image"
    extra = [word for option in options for word in ("-o", option)]
    assert qemu_img("create", "-q", "-f", "qcow2", *extra, path, "64M").returncode == 0
    layer, tool = Layer(str(path), QCOW2), SimImageTool(RealFiles())
    rng = random.Random(1)
    content = bytearray(64 * MIB)
    session = tool.open_session([layer], True, False)
    for _ in range(length):
        start, data = rng.randrange(60 * MIB), rng.randbytes(MIB)
        session.write(start, data)
        content[start : start + MIB] = data
        session.zero(start + 1000, CLUSTER)
        content[start + 1000 : start + 1000 + CLUSTER] = bytes(CLUSTER)
    session.flush()
    session.close()
    same_check(tool, REAL, layer)
    assert REAL.check(layer)[:2] == (0, 0)
    (tmp_path / "raw").write_bytes(content)
    compared = qemu_img("compare", "-f", "qcow2", "-F", "raw", path, tmp_path / "raw")
    assert compared.returncode == 0, compared.stdout
    reader = REAL.open_session([layer], True, False)  # qemu goes on with it
    reader.write(0, b"q" * 5 * MIB)
    reader.flush()
    reader.close()
    compare_content(tool, [layer], REAL, [layer])
    same_check(tool, REAL, layer)


@pytest.mark.parametrize("made_by_qemu", [True, False])
def test_backing_names_are_rewritten_as_qemu_does(tmp_path: Path, made_by_qemu: bool):
    """Names come and go; all else in the header, the content and the counts stay; qemu reads the same names."""
    path = tmp_path / "image"
    layer, tool = Layer(str(path), QCOW2), SimImageTool(RealFiles())
    if made_by_qemu:
        assert qemu_img("create", "-q", "-f", "qcow2", path, "1M").returncode == 0
    else:
        make_layer(RealFiles(), layer, MIB)
    session = tool.open_session([layer], True, False)
    session.write(5, b"content")
    session.close()
    twin = copy_of(path, "twin")
    for name, format in [("t-base", RAW), ("x" * 1000, QCOW2), ("ü", QCOW2), (None, None), ("again", RAW)]:
        for one, target in ((tool, path), (REAL, twin)):
            one.set_backing(Layer(str(target), QCOW2), name, format)
        ours, theirs = (parse_header(p.read_bytes()[:HEADER_READ_BYTES], p.stat().st_size) for p in (path, twin))
        assert ours == theirs
        assert (ours.backing_name, ours.backing_format) == (name, format)
        assert info(path).get("backing-filename") == name
        same_check(tool, REAL, layer)
    compare_content(tool, [layer], REAL, [Layer(str(twin), QCOW2)])


@pytest.mark.parametrize("seed", range(3))
def test_a_flat_copy_is_measured_as_by_qemu(tmp_path: Path, seed: int):
    """The bytes that a raw and a qcow2 copy of a chain need."""
    twins = Twins(tmp_path)
    grow_chain(twins, random.Random(seed), 3)
    chain, _ = twins.chains()
    for format in (RAW, QCOW2):
        assert twins.model.required_bytes(chain, format) == REAL.required_bytes(chain, format)


def _damaged(path: Path, rng: random.Random) -> None:
    """One to three wrong entries in counts, the L1 table or the first L2 table."""
    raw = path.read_bytes()
    table = struct.unpack_from(">Q", raw, L1_AT)[0] & ~(1 << 63)
    entry = struct.unpack_from(">Q", raw, table)[0]
    assert entry
    wrong = [
        (COUNTS_AT + 2 * rng.randrange(20), struct.pack(">H", rng.choice((0, 1, 2)))),
        (COUNTS_AT + 2 * rng.randrange(5, 20), struct.pack(">H", rng.choice((0, 3)))),
        (table, struct.pack(">Q", entry + (1 << 30))),
        (table, struct.pack(">Q", entry & ~(1 << 63))),
        (table + 8 * rng.randrange(8), struct.pack(">Q", entry)),
        (table + 8 * rng.randrange(8), struct.pack(">Q", entry ^ 512)),
        (table + 8 * rng.randrange(8), struct.pack(">Q", entry | 1 << 57)),
        (table + 8 * rng.randrange(8), struct.pack(">Q", 1)),
        (L1_AT, struct.pack(">Q", table)),
    ]
    for offset, data in rng.sample(wrong, rng.randrange(1, 4)):
        patch(path, offset, data)


@pytest.mark.parametrize("seed", range(25))
def test_damage_is_found_and_repaired_as_by_qemu(tmp_path: Path, seed: int):
    """The same numbers of corruptions, leaks and clusters; whoever repairs leaks leaves none, and both repairs
    end the same way. After repairing all, qemu finds nothing wrong, unless it cannot repair this either."""
    rng = random.Random(seed)
    path = tmp_path / "image"
    layer, tool = Layer(str(path), QCOW2), SimImageTool(RealFiles())
    make_layer(RealFiles(), layer, MIB)
    session = tool.open_session([layer], True, False)
    session.write(0, rng.randbytes(8 * CLUSTER))
    session.close()
    _damaged(path, rng)
    same_check(tool, REAL, layer)
    outcomes = []
    for one, name in ((tool, "ours"), (REAL, "theirs")):
        target = Layer(str(copy_of(path, name)), QCOW2)
        try:
            one.repair_leaks(target)
            outcomes.append("clean")
        except ToolFailed:
            outcomes.append("failed")
        assert tool.check(target).leaked_clusters == 0
        same_check(tool, REAL, target)
    assert outcomes[0] == outcomes[1]
    twin = Layer(str(copy_of(path, "twin")), QCOW2)
    try:
        tool.repair_all(layer)
        assert REAL.check(layer)[:2] == (0, 0)
    except ToolFailed:
        with pytest.raises(ToolFailed):
            REAL.repair_all(twin)


OPENS: dict[str, Callable[[Any, Layer, Layer], Any]] = {
    "session": lambda tool, layer, over: tool.open_session([layer], True, False),
    "reader": lambda tool, layer, over: tool.open_session([layer], False, False),
    "below a writer": lambda tool, layer, over: tool.open_session([over, layer], True, False),
    "map": lambda tool, layer, over: tool.map_layer(layer),
    "measure": lambda tool, layer, over: tool.required_bytes([layer], RAW),
    "resize": lambda tool, layer, over: tool.resize(layer, 8 * MIB),
    "check": lambda tool, layer, over: layer.format is RAW or tool.check(layer),
    "repair": lambda tool, layer, over: layer.format is RAW or tool.repair_leaks(layer),
    "backing": lambda tool, layer, over: layer.format is RAW or tool.set_backing(layer, None, None),
}


def refusals(tool: ImageTool, folder: Path, format: VolumeFormat, first: str) -> dict[str, bool]:
    """Which ways to open a layer are refused while it is open in the ``first`` way."""
    folder.mkdir()
    layer, over, other = (Layer(str(folder / name), kind) for name, kind in (("l", format), ("a", QCOW2), ("b", QCOW2)))
    for each in (layer, over, other):
        make_layer(RealFiles(), each, MIB)
    session = OPENS[first](tool, layer, over)
    found = {second: locked(partial(OPENS[second], tool, layer, other)) for second in OPENS}
    session.close()
    assert not locked(partial(tool.resize, layer, 16 * MIB))
    return found


@pytest.mark.parametrize("first", ["session", "reader", "below a writer"])
@pytest.mark.parametrize("format", [RAW, QCOW2])
def test_locks_refuse_what_qemu_refuses(tmp_path: Path, first: str, format: VolumeFormat):
    """While a layer is open in one way, each other way to open it is refused or not, as with qemu."""
    ours = refusals(SimImageTool(RealFiles()), tmp_path / "model", format, first)
    assert ours == refusals(REAL, tmp_path / "real", format, first)
    assert any(ours.values()) or (format is RAW and first == "below a writer")


def test_close_writes_back_what_was_not_flushed(tmp_path: Path):
    """As a server whose client went away: content is all there, for qemu too."""
    twins = Twins(tmp_path, SparseFiles())
    twins.push("image", QCOW2, MIB)
    twins.run([("write", 100, b"x" * 200_000), ("zero", CLUSTER, CLUSTER)])
    twins.compare()


@pytest.mark.parametrize("entry", [512 | 1 << 63 | 5 * CLUSTER, 1 << 62])
def test_an_entry_that_cannot_be_right_is_an_error(tmp_path: Path, entry: int):
    """Reading it fails, and only that; a writer marks the image corrupt and it is opened for writing no more."""
    layer, tool = Layer(str(tmp_path / "image"), QCOW2), SimImageTool(RealFiles())
    make_layer(RealFiles(), layer, MIB)
    session = tool.open_session([layer], True, False)
    session.write(0, b"x" * 2 * CLUSTER)
    session.close()
    patch(tmp_path / "image", 4 * CLUSTER, struct.pack(">Q", entry))
    reader = tool.open_session([layer], False, False)
    with pytest.raises(ToolFailed):
        reader.read(0, 1)
    assert reader.read(CLUSTER, 1) == b"x"
    reader.close()
    with pytest.raises(ToolFailed):
        tool.map_layer(layer)
    if entry & 512:
        writer = tool.open_session([layer], True, False)
        with pytest.raises(ToolFailed):
            writer.write(0, b"y")
        with pytest.raises(ToolFailed):
            writer.flush()
        writer.close()
        for one in (tool, REAL):
            with pytest.raises(ToolFailed, match="corrupt"):
                one.open_session([layer], True, False)
