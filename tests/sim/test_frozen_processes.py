"""A host freezes anywhere, its locks are given away, others go on, it wakes up: nothing acknowledged is lost."""

from __future__ import annotations

import pytest

from sim.explore.together.frozen_processes import FREEZES, run_frozen

QUICK = (
    "clean-and-base",
    "clean-and-copy-in-again",
    "clean-and-restore",
    "clean-scrap",
    "snapshot-and-clean",
    "snapshot-group-and-clean",
    "snapshot-and-longer",
    "revert-and-clean",
    "revert-and-give-up",
    "resize",
    "adopt-grown",
)


def woken_wrong(name: str) -> list[object]:
    everything = list(run_frozen(FREEZES[name]))
    assert len(everything) > 20, "a fix has many calls"
    return [one for one in everything if one is not None]


@pytest.mark.parametrize("name", QUICK)
def test_what_wakes_up_late_takes_nothing_back(name: str):
    """Found so: the data of a removed image that had been restored meanwhile was deleted, a snapshot that had been
    copied in again lost its record, a disk was moved onto a snapshot that had been cleaned away, or onto an overlay
    that was too short for it, one was reverted onto an overlay that was deleted, or that stood on nothing any more, and
    one that had been made longer still was recorded with the smaller size of who woke up."""
    assert not woken_wrong(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FREEZES if name not in QUICK])
def test_work_that_wakes_up_late_changes_nothing_that_others_have_finished(name: str):
    """Found so: a copy that another host had finished ended its executor with a fault."""
    assert not woken_wrong(name)
