"""Fixtures of the format tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.formats.lvm import group
from sim.disk.files import RUN_MOUNT
from sim.hosts.world import World
from tests.formats.kit import STORAGES, LocalStorage, SharedLvmStorage, SpyFiles, Storage
from tests.formats.lvm.shared_kit import shared_world


@pytest.fixture(autouse=True)
def run_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a host keeps until it boots ends with the test."""
    monkeypatch.setattr(group, "RUN_DIRECTORY", str(tmp_path / "run"))


@pytest.fixture(params=sorted(STORAGES))
def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """One of each kind of storage, with an empty repository on it."""
    if STORAGES[request.param] is SharedLvmStorage:
        monkeypatch.setattr(group, "RUN_DIRECTORY", f"{RUN_MOUNT}/test")
    return STORAGES[request.param](tmp_path)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A group that four hosts of the simulator may share; host-1 manages it."""
    monkeypatch.setattr(group, "RUN_DIRECTORY", f"{RUN_MOUNT}/test")
    return shared_world()


@pytest.fixture
def local(tmp_path: Path) -> LocalStorage:
    """An empty repository on the local file system."""
    return LocalStorage(tmp_path)


@pytest.fixture
def spy(local: LocalStorage) -> SpyFiles:
    """A file door that logs what it does to the repository of ``local``."""
    return SpyFiles(local.path)
