"""A place on a real disk, deleted afterwards, and one table for the whole run."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.kit import SCALE, GiB, MiB, Setting, Table, setting_in

_NEEDED_BYTES = 16 * GiB


@pytest.fixture(scope="session")
def table() -> Iterator[Table]:
    """Printed at the end, and written to the file named by BENCH_OUTPUT."""
    table = Table()
    yield table
    text = table.markdown()
    print(f"\n\n{text}\n")
    if os.environ.get("BENCH_OUTPUT"):
        Path(os.environ["BENCH_OUTPUT"]).write_text(text + "\n", encoding="utf-8")


def _file_system(path: str) -> str:
    return subprocess.run(["stat", "-f", "-c", "%T", path], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    """An empty directory on a disk (BENCH_DIRECTORY, or where temporary files go), with room enough."""
    candidates = [os.environ.get("BENCH_DIRECTORY"), tempfile.gettempdir(), "/var/tmp"]
    parent = next((path for path in candidates if path and _file_system(path) not in ("tmpfs", "ramfs")), None)
    if parent is None:
        pytest.skip("no directory on a disk: set BENCH_DIRECTORY")
    needed = max(int(_NEEDED_BYTES * SCALE), 512 * MiB)
    free = shutil.disk_usage(parent).free
    if free < needed:
        pytest.skip(f"{parent} has {free >> 20} MiB free, {needed >> 20} are needed: set BENCH_DIRECTORY")
    directory = Path(tempfile.mkdtemp(prefix="diskwright-bench-", dir=parent))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@pytest.fixture(scope="module")
def room(place: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory of one module, deleted when the module is done."""
    directory = place / request.module.__name__.rpartition(".")[2]
    directory.mkdir()
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@pytest.fixture(scope="module")
def setting(room: Path) -> Iterator[Setting]:
    """A raw disk with data, for the benchmarks of one module."""
    made = setting_in(room)
    yield made
    made.engine.close()
