"""A pool of libvirt is audited, taken over with a kill at one effect after the other, finished or given back."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from engine.api import Engine
from sim.hosts.crash import Crashed
from tests.audit.kit import disk as disk_element
from tests.audit.kit import domain, look
from tests.crash.kit import MiB, World, content, contents, nothing_left_over, settle, write

NO_FIX = {"auto_fix": False}
EVERY = 7
"""The simulator takes the effects between."""


def tool(*words: str | Path) -> None:
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def filled(pool: Path) -> None:
    """Three levels, raw at the bottom, each with data of its own."""
    pool.mkdir()
    (pool / "base.img").write_bytes(b"b" * (4 * MiB))
    for name, below, format, at in (("golden", "base.img", "raw", 1), ("web", "golden.qcow2", "qcow2", 2)):
        path = pool / f"{name}.qcow2"
        tool("qemu-img", "create", "-q", "-f", "qcow2", "-b", below, "-F", format, path)
        tool("qemu-io", "-f", "qcow2", "-c", f"write -P {at} {at}M 1M", path)


def shown(path: Path) -> bytes:
    """What a file of the pool shows to its old owner."""
    flat = path.with_suffix(".flat")
    format = "raw" if path.suffix == ".img" else "qcow2"
    tool("qemu-img", "convert", "-f", format, "-O", "raw", path, flat)
    data = flat.read_bytes()
    flat.unlink()
    return data


def taken_over(engine: Engine, pool: Path) -> None:
    """Finish what was begun, and adopt what is in the pool still."""
    settle(engine, "a")
    if left := sorted(pool.iterdir()):
        engine.adopt_images("a", engine.plan_adoption("a", [str(path) for path in left], "qcow2"), NO_FIX)
    settle(engine, "a")


def given_back(engine: Engine) -> None:
    """Give up each adoption that has not ended: what stands on others first."""
    for _ in range(3):
        for image in engine.list_images("a"):
            entry = engine.context.repository("a").tags.read(image.id)
            if entry is None or entry.record is None or entry.record.whole:
                continue
            engine.remove_image("a", image.id)
            for fix in engine.check_storage_repository("a"):
                if fix.target == image.id and fix.rule == "C-REMOVED":
                    engine.run_fix_here("a", fix)


@pytest.mark.slow
def test_a_pool_is_taken_over_wherever_that_is_killed(tmp_path: Path) -> None:
    """The audit finds nothing wrong in it. Killed at any moment each file is an image with its very data, or stands at
    its old name with it: in turns it is finished, and what has not ended is given back."""
    filled(tmp_path / "pool")
    before = {path.name: shown(path) for path in (tmp_path / "pool").iterdir()}
    number, effects = 0, EVERY
    while number < effects:
        root = tmp_path / f"at-{number}"
        world = World(root).create()
        pool = root / "pool"
        tool("cp", "-a", tmp_path / "pool", pool)
        if not number:
            (root / "xml").mkdir()
            domain(root / "xml" / "web.xml", "web", disk_element(pool / "web.qcow2"))
            assert not look([pool], [root / "xml"]).rules()
        host = world.engine("host-a", crash_at=number)
        try:
            taken_over(host, pool)
            effects = len(world.effects.names) if not number else effects
        except Crashed:
            pass
        world.bury()
        engine = world.engine("host-a")
        if number // EVERY % 2:
            given_back(engine)
        else:
            taken_over(engine, pool)
            assert not list(pool.iterdir())
        settle(engine, "a")
        nothing_left_over(world, engine, "a")
        kept = list(contents(engine, "a", tmp_path).values())
        left = {path.name for path in pool.iterdir()}
        assert sorted(kept) == sorted(data for name, data in before.items() if name not in left)
        if left == before.keys():
            assert {path.name: shown(path) for path in pool.iterdir()} == before
        if not left:
            (disk,) = [image.id for image in engine.list_images("a") if image.mutable]
            write(engine, "a", disk, "read -P 2 2M 1M", "write -P 7 0 64k")
            assert content(engine, "a", disk, tmp_path)[: 64 * 1024] == b"\7" * (64 * 1024)
        engine.close()
        number += EVERY
    assert effects > 30
