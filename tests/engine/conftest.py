"""Two connected repositories and their engine."""

from __future__ import annotations

import pytest

from sim.explore.cases.driver import Driver
from sim.hosts.world import LVM, NFS, SHARED
from sim.hosts.world import World as SimWorld
from tests.crash.kit import World
from tests.engine.kit import Killer


@pytest.fixture
def world(tmp_path):
    """Repositories "a" and "b"."""
    return World(tmp_path / "world", "a", "b").create()


@pytest.fixture
def engine(world):
    """An engine of host-a with both connected."""
    engine = world.engine("host-a")
    yield engine
    engine.close()


@pytest.fixture
def killer(world, monkeypatch):
    """Hosts of that world that are killed at a chosen point; copies in it have small windows."""
    return Killer(world, monkeypatch)


@pytest.fixture(params=["localfs-1.0", NFS, LVM, SHARED])
def driver(request) -> Driver:
    """Simulated repositories "a" and "b" of every format."""
    world = SimWorld(format=request.param)
    world.create("a", "b")
    driver = Driver(world)
    if request.param == SHARED:
        driver.engine().take_srm("a")
    return driver
