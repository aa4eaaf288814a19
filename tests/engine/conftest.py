"""Two connected repositories and their engine."""

from __future__ import annotations

import pytest

from tests.crash.kit import World


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
