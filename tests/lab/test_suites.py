"""Suites that pass outside, run on what only a guest has."""

from __future__ import annotations

import pytest

from sim.lab import Guest
from sim.lab.cluster import MOUNT
from tests.lab.conftest import mounted
from tests.lab.inside import run_tests

CONFORMANCE = "tests/formats/conformance"


OF_FILES = "tests/doors/test_files_door.py"
OF_KERNELS = ["tests/doors/test_leases.py", "tests/doors/test_processes.py"]
"""The same whatever file system a file is on."""


@pytest.mark.parametrize(
    ("file_system", "more", "at_least"), [("ext4", OF_KERNELS, 60), ("xfs", [], 40)], ids=["ext4", "xfs"]
)
def test_files_conform_on_real_file_systems(host: Guest, file_system: str, more: list[str], at_least: int):
    """The format for local files keeps its contract on ext4 and xfs of another kernel."""
    with mounted(host, file_system) as place:
        counts = run_tests(host, [CONFORMANCE, OF_FILES, *more], "localfs or doors", base=f"{place}/t")
    assert counts.passed > at_least


def test_nfs_conforms_on_a_real_server(host: Guest):
    """The format for NFS keeps its contract on NFS 4.2 of a kernel."""
    assert run_tests(host, [CONFORMANCE], "nfs-1.0", environment={"DISKWRIGHT_TEST_NFS": MOUNT}).passed > 20


def test_a_suite_that_fails_inside_fails_outside(host: Guest):
    """The runner is not to be believed otherwise: a red test inside is an AssertionError that shows its output."""
    host.run(["sh", "-c", "echo 'def test_no(): assert not \"this is shown\"' >/tmp/test_red.py"])
    red = ["/tmp/test_red.py", "--rootdir=/tmp", "-c/dev/null"]
    with pytest.raises(AssertionError, match="this is shown"):
        run_tests(host, red)
    with pytest.raises(AssertionError, match="passed=0"):
        run_tests(host, red, keyword="no_such_test")
