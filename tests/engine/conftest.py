"""Two connected repositories and their engine."""

from __future__ import annotations

import pytest

from tests.crash.kit import World
from tests.engine.regress_kit import Killer


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
