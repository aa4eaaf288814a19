"""What is done with one image, among few and among many: CPU seconds of one call in a process that knows nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.api import Engine
from tests.bench.bench_check import images
from tests.bench.kit import ROUNDS, SCALE, Table, engine_with

pytestmark = pytest.mark.bench

_COUNTS = [max(100, round(count * SCALE)) for count in (100, 1_000, 10_000)]
_MOST = 1.5
MiB = 1 << 20


def seconds(root: Path, work: Callable[[Engine], object]) -> float:
    """CPU seconds of ``work`` in an engine that has just started."""
    engine = engine_with(root, "r")
    start = time.process_time()
    work(engine)
    spent = time.process_time() - start
    engine.close()
    return spent


def family(root: Path) -> tuple[str, str]:
    """A snapshot and a disk on it."""
    engine = engine_with(root, "r")
    base = engine.create_snapshot("r", engine.create_virtual_disk("r", MiB))
    disk = engine.create_virtual_disk("r", MiB, base)
    engine.close()
    return base, disk


def cleaned(root: Path) -> float:
    """Of the clean of a removed image alone."""
    engine = engine_with(root, "r")
    image = engine.create_virtual_disk("r", MiB)
    engine.remove_image("r", image)
    fix = next(fix for fix in engine.check_storage_repository("r") if fix.target == image)
    engine.close()
    return seconds(root, lambda engine: engine.run_fix_here("r", fix))


def test_growth(room: Path, table: Table) -> None:
    """At each size; the ratio is that of the largest to the smallest."""
    found: dict[str, list[float]] = {}
    for count in _COUNTS:
        root = room / str(count)
        root.mkdir()
        images(root, count)
        base, disk = family(root)
        for name, measure in {
            "status": lambda: seconds(root, lambda engine: engine.get_image_status("r", disk)),  # noqa: B023 - called here
            "create on a base": lambda: seconds(root, lambda engine: engine.create_virtual_disk("r", MiB, base)),  # noqa: B023
            "create_snapshot": lambda: seconds(root, lambda engine: engine.create_snapshot("r", disk)),  # noqa: B023
            "clean": lambda: cleaned(root),  # noqa: B023
        }.items():
            found.setdefault(name, []).append(min(measure() for _ in range(ROUNDS)))
    for name, times in found.items():
        shown = ", ".join(f"{value * 1000:.1f} ms" for value in times)
        among = f"among {', '.join(f'{count:,}' for count in _COUNTS)} images"
        ratio = times[-1] / times[0]
        table.state(f"growth of {name}", f"{shown} ({ratio:.2f})", among, "", f"<= {_MOST}", ratio <= _MOST)
