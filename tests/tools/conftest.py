"""Fixtures of the tests of tools that need devices."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.errors import StorageError
from engine.tools.block.loop import LoopDevices
from engine.tools.lvm.volume_groups import LvmVolumeGroups
from tests.tools.lvm_kit import Bench

LoopMaker = Callable[..., tuple[str, str]]


@pytest.fixture
def root_user() -> None:
    """Devices are root's. CI runs as root, so nothing is passed over there."""
    if os.geteuid() != 0:
        pytest.skip("needs root: loop devices are made")


@pytest.fixture
def loop_device(root_user: None, tmp_path: Path) -> Iterator[LoopMaker]:
    """Makes loop devices of a size and sector size: (device, file). All are gone at the end."""
    loops = LoopDevices()
    files: list[str] = []

    def make(size: int, sector_bytes: int = 512) -> tuple[str, str]:
        path = str(tmp_path / f"device{len(files)}")
        loops.create_file(path, size)
        files.append(path)
        return loops.attach(path, sector_bytes).device, path

    yield make
    for path in files:
        with contextlib.suppress(StorageError):  # somebody's LVM looks at it: the kernel takes it away afterwards
            loops.detach(path)


@pytest.fixture
def bench(root_user: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """LVM on loop devices of this test alone."""
    directory = tmp_path / "lvm"
    directory.mkdir()
    monkeypatch.setenv("LVM_SYSTEM_DIR", str(directory))
    made = Bench(directory)
    yield made
    made.end()


@pytest.fixture
def door() -> LvmVolumeGroups:
    """LVM of host-a."""
    return LvmVolumeGroups("host-a")


@pytest.fixture
def group(bench: Bench, door: LvmVolumeGroups) -> str:
    """The device of 512 MiB of a group "g" that belongs to host-a."""
    device = bench.device()
    door.create_group("g", [device], door.system_id)
    return device
