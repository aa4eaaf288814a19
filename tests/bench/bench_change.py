"""Verbs and fixes that are not whole copies: a difference, a snapshot, a merge."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine.data.model import FixType, VolumeFormat
from tests.bench.kit import (
    PIECE_BYTES,
    PIECES,
    SIZE,
    STRIDE_BYTES,
    KiB,
    MiB,
    Table,
    chain_of,
    command,
    data_disk,
    delete,
    engine_with,
    finish,
    layer_of,
    side_by_side,
    timed,
    write_disk,
    write_pieces,
)  # fmt: skip

pytestmark = pytest.mark.bench

_PLACES = max(8, SIZE // 100 // (64 * KiB))
_SNAPSHOTS = 20


def test_difference(room: Path, table: Table) -> None:
    """A backup of what changed, onto the copy of the common snapshot. Safe rebase is what qemu has for it."""
    engine = engine_with(room, "a", "b")
    disk = data_disk(engine, "a")
    base = engine.create_snapshot("a", disk, options={"strategy": "performance"})
    finish(engine, "b", engine.copy_image("b", base, options={"auto_fix": False, "strategy": "performance"}))
    step = SIZE // _PLACES // (64 * KiB) * 64 * KiB
    write_disk(engine, "a", disk, [n * step for n in range(_PLACES)], 64 * KiB)
    overlay, old = (layer.path for layer in chain_of(engine, "a", disk))
    new = layer_of(engine, "b", base).path

    def ours() -> float:
        made = []

        def copy() -> None:
            made.append(engine.copy_image("b", disk, base, options={"auto_fix": False}))
            finish(engine, "b", made[0])

        seconds = timed(copy)
        command("qemu-img", "compare", overlay_with(room, overlay, old), overlay_with(room, layer(made[0]), new))
        delete(engine, "b", made[0])
        return seconds

    def layer(image: str) -> str:
        return layer_of(engine, "b", image).path

    def theirs() -> float:
        moved = overlay_with(room, overlay, old)
        return command("qemu-img", "rebase", "-t", "none", "-T", "none", "-F", "raw", "-b", new, moved)

    left, right = side_by_side(ours, theirs)
    work = f"copy onto a base, 1 % of 4 GiB changed in {_PLACES} places"
    table.compare(work, left, "rebase (safe) -t none -T none", right, 0.10)
    engine.close()


def overlay_with(room: Path, overlay: str, base: str) -> str:
    """A copy of an overlay whose header names ``base``: what a plain qemu-img needs."""
    path = str(room / f"plain-{Path(overlay).parent.parent.parent.name}.qcow2")
    shutil.copyfile(overlay, path)
    command("qemu-img", "rebase", "-u", "-F", "raw", "-b", base, path)
    return path


def test_snapshot(room: Path, table: Table) -> None:
    """Three published records and an overlay, all synced, against a process that syncs nothing."""
    engine = engine_with(room, "s")
    disks = iter([engine.create_virtual_disk("s", SIZE) for _ in range(_SNAPSHOTS)])
    base = layer_of(engine, "s", engine.create_virtual_disk("s", SIZE)).path

    def ours() -> float:
        disk = next(disks)
        return timed(lambda: engine.create_snapshot("s", disk))

    def theirs() -> float:
        path = room / "snapshot.qcow2"
        seconds = command("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", str(path))
        path.unlink()
        return seconds

    left, right = side_by_side(ours, theirs, _SNAPSHOTS)
    table.compare(f"create_snapshot, syncs included ({_SNAPSHOTS} times)", left, "create -b", right, 1.0)
    engine.close()


def test_merge(room: Path, table: Table) -> None:
    """Hidden data becomes one with the layer above it, downwards."""
    engine = engine_with(room, "m")
    disk = data_disk(engine, "m")
    starts = [n * STRIDE_BYTES + 8 * MiB for n in range(PIECES)]  # half on data, half on holes
    plain_base, plain_top = room / "base.raw", room / "top.qcow2"

    def ours() -> float:
        snapshot = engine.create_snapshot("m", disk)
        write_disk(engine, "m", disk, starts, PIECE_BYTES)
        engine.remove_image("m", snapshot)

        def merge() -> None:
            fixes = engine.check_storage_repository("m")
            fix = next(fix for fix in fixes if fix.type is FixType.MERGE)
            assert fix.plan["direction"] == "down"
            engine.run_fix_here("m", fix)

        return timed(merge)

    def theirs() -> float:
        layers = chain_of(engine, "m", disk)
        if not plain_base.exists():
            command("cp", "--sparse=always", layers[-1].path, str(plain_base))
        command("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(plain_base), "-F", "raw", str(plain_top))
        top = layers[0]._replace(path=str(plain_top), format=VolumeFormat.QCOW2)
        write_pieces([top, layers[-1]._replace(path=str(plain_base))], starts, PIECE_BYTES)
        seconds = command("qemu-img", "commit", "-q", "-t", "none", str(plain_top))
        plain_top.unlink()
        return seconds

    left, right = side_by_side(ours, theirs)
    table.compare("merge a 1 GiB overlay down into raw", left, "commit -t none", right, 1.05)
    engine.close()
