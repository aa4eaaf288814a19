"""Fuzzing: random verbs by several hosts, schedules and faults, then recovery without faults."""

from __future__ import annotations

import pytest

from sim.explore.fuzz import fuzz


@pytest.mark.parametrize("seed", range(11, 31))
def test_a_seed_ends_in_order(seed):
    """Safety while faults happen, then a bounded number of fixes to quiescence."""
    outcome = fuzz(seed)
    assert not outcome.problems
    assert outcome.steps > 0


def test_the_same_seed_takes_the_same_steps():
    """Everything that is left to chance comes from one tape."""
    one, two = fuzz(7), fuzz(7)
    assert one == two
