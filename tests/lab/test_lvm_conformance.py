"""The format on real LVM, in a guest whose kernel has device-mapper."""

from __future__ import annotations

from sim.lab import Guest
from sim.lab.cluster import PRIVATE
from tests.lab.inside import run_tests

CONFORMANCE = "tests/formats/test_conformance.py"


def test_logical_volumes_conform_on_real_lvm(host: Guest):
    """The format for volume groups keeps its contract on LVM, device-mapper and a real disk."""
    host.run(
        ["sh", "-c", f"umount -q {PRIVATE}; vgremove -ff -y dwtest; pvremove -ff -y {PRIVATE}; wipefs -a {PRIVATE}"]
    )
    counts = run_tests(host, [CONFORMANCE], "lvm-1.0", environment={"DISKWRIGHT_TEST_LVM_DEVICE": PRIVATE})
    assert counts.passed > 90
