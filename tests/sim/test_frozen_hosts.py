"""Hosts that share a volume group and freeze: whatever they do when they go on, nobody loses anything."""

from __future__ import annotations

import pytest

from sim.explore.together.frozen_hosts import run_frozen_hosts
from sim.explore.together.frozen_processes import FREEZES

STEP = 61
"""Only so many-th places are tried here, each case from another one on."""


@pytest.mark.parametrize("name", sorted(FREEZES.keys() - {"adopt"}))  # which takes a file of a server's
def test_a_host_that_freezes_and_goes_on_changes_nothing_of_what_counts(name: str):
    """The manager freezes in the middle of its work, another host becomes the manager and works on."""
    first = 1 + sum(name.encode()) % STEP
    everything = list(run_frozen_hosts(FREEZES[name], STEP, first))
    assert everything
    assert [found for found in everything if found is not None] == []
