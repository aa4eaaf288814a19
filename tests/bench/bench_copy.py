"""Copies of all bits against ``qemu-img convert``: quick enough, and little is done twice after a kill."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from engine.api import Engine
from engine.data.model import FixType
from engine.tools.local.leases import OfdLeases
from sim.hosts.crash import Crashed, Effects, crashing
from tests.bench.kit import (
    PIECE_BYTES,
    PIECES,
    SIZE,
    MiB,
    Setting,
    Table,
    command,
    delete,
    engine_with,
    finish,
    layer_of,
    setting_in,
    side_by_side,
    timed,
)  # fmt: skip

pytestmark = pytest.mark.bench

STRATEGY = {"raw": "performance", "qcow2": "space"}


def our_copy(setting: Setting, format: str, digest: bool) -> Callable[[], float]:
    def run() -> float:
        options = {"auto_fix": False, "digest": digest, "strategy": STRATEGY[format]}
        made = []

        def copy() -> None:
            made.append(setting.engine.copy_image("b", setting.disk, options=options))
            finish(setting.engine, "b", made[0])

        seconds = timed(copy)
        delete(setting.engine, "b", made[0])
        return seconds

    return run


def convert(setting: Setting, format: str, *cache: str) -> Callable[[], float]:
    def run() -> float:
        target = setting.root / "converted"
        seconds = command("qemu-img", "convert", "-f", "raw", "-O", format, *cache, setting.path, str(target))
        target.unlink()
        return seconds

    return run


DIRECT = ("-t", "none", "-T", "none")


@pytest.mark.parametrize("digest", [False, True], ids=["plain", "digest"])
@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_copy(setting: Setting, table: Table, format: str, digest: bool) -> None:
    """A whole copy, from the call of the verb to the sealed image."""
    ours, theirs = side_by_side(our_copy(setting, format, digest), convert(setting, format, *DIRECT))
    work = f"copy 1 GiB in 4 GiB to {format}{', with digest' if digest else ''}"
    table.compare(work, ours, "convert -t none -T none", theirs, None if digest else 1.05)


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_default_cache(setting: Setting, table: Table, format: str) -> None:
    """convert as it comes reads and writes the page cache and syncs nothing: stated, not aimed at."""
    ours, theirs = side_by_side(our_copy(setting, format, False), convert(setting, format))
    table.compare(f"copy to {format}", ours, "convert, default cache: nothing is on disk when it ends", theirs, None)


class _Reads:
    """Counts what sessions that only read give out: of the source, and of what was copied before."""

    def __init__(self, inner: Any, source: str) -> None:
        self._inner = inner
        self._source = source
        self.source = self.copied = 0

    def open_session(self, chain: Any, writable: bool, direct: bool, later: bool = False) -> Any:
        session = self._inner.open_session(chain, writable, direct, later)
        return session if writable else _CountedSession(session, self, chain[0].path == self._source)

    def add(self, length: int, source: bool) -> None:
        if source:
            self.source += length
        else:
            self.copied += length

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _CountedSession:
    def __init__(self, inner: Any, reads: _Reads, source: bool) -> None:
        self._inner = inner
        self._reads = reads
        self._source = source

    def stream(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        for start, data in self._inner.stream(ranges):
            self._reads.add(len(data), self._source)
            yield start, data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _AtWrite(Effects):
    """Ends the host at its n-th write into an image."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._left = number

    def step(self, name: str) -> None:
        super().step(name)
        if name == "images.open_session.write":
            self._left -= 1
            if not self._left:
                self.crash()


@pytest.mark.parametrize("percent", [50, 90])
def test_resume(setting: Setting, table: Table, percent: int) -> None:
    """What is read again by another host after the copying one died: of the source, at most one window; of its own
    volume, because a digest is wanted, all that was copied before."""
    options = {"auto_fix": False, "digest": True, "strategy": "space"}
    image = setting.engine.copy_image("b", setting.disk, options=options)
    whole = PIECES * PIECE_BYTES
    dying = engine_with(setting.root, "a", "b", host="dying")
    leases = dying.doors.leases
    assert isinstance(leases, OfdLeases)
    reads = _Reads(dying.doors.images, setting.path)
    doors = dying.doors._replace(images=cast(Any, reads))
    dead = Engine(crashing(doors, _AtWrite(whole // (2 * MiB) * percent // 100)), dying.state.directory)
    fix = next(f for f in dead.check_storage_repository("b") if f.target == image and f.type is FixType.MEND)
    with pytest.raises(Crashed):
        dead.run_fix_here("b", fix)
    while leases.descriptors:  # as the kernel does for a dead process
        os.close(leases.descriptors.pop())
    heir = engine_with(setting.root, "a", "b", host="heir")
    reads = _Reads(heir.doors.images, setting.path)
    successor = Engine(heir.doors._replace(images=cast(Any, reads)), heir.state.directory)
    finish(successor, "b", image)
    again = reads.source - whole * (100 - percent) // 100
    copied = layer_of(successor, "b", image)
    same = subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", setting.path, copied.path], check=False)
    assert same.returncode == 0
    delete(successor, "b", image)
    limit = max(SIZE // 50, 16 * MiB)
    table.state(
        f"copied again after a kill at {percent} % of the data", f"{again / MiB:.0f} MiB ({100 * again / SIZE:.1f} %)",
        "convert", f"{percent} % of the data: {whole * percent // 100 // MiB} MiB",
        f"<= 2 % of the size, or a window ({limit // MiB} MiB)", again <= limit,
    )  # fmt: skip
    table.state(f"… hashed again in the volume, after {percent} %", f"{reads.copied / MiB:.0f} MiB", "", "", "", None)


@pytest.fixture
def xfs(place: Path) -> Iterator[Path]:
    """A small xfs in a file, mounted; taken away again whatever happens."""
    if os.geteuid() or not shutil.which("mkfs.xfs", path="/usr/sbin:/sbin:/usr/bin") or not shutil.which("losetup"):
        pytest.skip("needs root, mkfs.xfs and losetup")
    image, mounted = place / "xfs.img", place / "xfs"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(2 * SIZE + 1024 * MiB)
    device = ""
    try:
        subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", str(image)], check=True)
        loop = subprocess.run(["losetup", "-f", "--show", str(image)], check=True, capture_output=True, text=True)
        device = loop.stdout.strip()
        subprocess.run(["mount", "-t", "xfs", device, str(mounted)], check=True)
        yield mounted
    finally:
        if os.path.ismount(mounted):
            subprocess.run(["umount", str(mounted)], check=True)
        if device:
            subprocess.run(["losetup", "-d", device], check=True)
        mounted.rmdir()
        image.unlink()


def test_reflink(xfs: Path, table: Table) -> None:
    """Where blocks can be shared, a copy to the same format moves no data."""
    setting = setting_in(xfs)
    ours, theirs = side_by_side(our_copy(setting, "raw", False), convert(setting, "raw", *DIRECT))
    table.compare("copy to raw by reflink (xfs on a loop file)", ours, "convert -t none -T none", theirs, 0.05)
    setting.engine.close()
