"""What tests of the simulator are given."""

from __future__ import annotations

import pytest

from sim.explore.cases.driver import Driver
from sim.hosts.world import World


@pytest.fixture
def driver() -> Driver:
    """Two empty repositories."""
    world = World()
    world.create("a", "b")
    return Driver(world)
