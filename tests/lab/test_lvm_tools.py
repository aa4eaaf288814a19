"""The tools for LVM on a kernel with device-mapper."""

from __future__ import annotations

from sim.lab import Guest
from tests.lab.inside import run_tests


def test_volumes_are_devices_as_the_door_promises(host: Guest):
    """Activation, flushes and zeroing, which need the kernel; the rest of the door is tested outside."""
    counts = run_tests(host, ["tests/lab/guest_lvm_tools.py"])
    assert counts.passed >= 15
