"""Power cuts on LVM: short ones here, long ones by ``diskwright lab powercut --on lvm``."""

from __future__ import annotations

from typing import cast

import pytest

from engine.errors import BadRequest
from sim.lab import Guest
from sim.trials.powercut import cut
from sim.trials.sequences import volume_groups


def test_real_lvm_leaves_what_the_simulation_allows(lonely: Guest):
    """Names, tags, extents, owner and data after a power cut in the middle of LVM's changes are an outcome of the
    simulated LVM, if need be after LVM's own repair. And the comparison can fail: without any loss allowed it does."""
    report = cut(lonely, "micro", "lvm", most_states=10, seed=3)
    assert report.states == 10 and report.wrong == ()
    assert cut(lonely, "micro", "lvm", most_states=4, seed=3, profile="process").wrong


def test_every_workload_loses_something_when_nothing_is_flushed():
    """What is compared with is not everything: each number of operations done has few outcomes, and more than one only
    where something was not flushed."""
    for name in volume_groups.WORKLOADS:
        allowed = volume_groups.legal(name, "posix")
        assert len(allowed[0]) == 1 and max(map(len, allowed)) > 1
        assert all(len(outcomes) == 1 for outcomes in volume_groups.legal(name, "process"))


def test_there_are_no_other_power_cuts():
    """A place or a kind that nobody knows is refused before anything is recorded."""
    for kind, on in (("micro", "nfs"), ("torture", "lvm")):
        with pytest.raises(BadRequest):
            cut(cast(Guest, None), kind, on, 1)
