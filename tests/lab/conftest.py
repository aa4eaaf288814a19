"""One small lab for all tests of this directory: two hosts with a shared disk, an NFS server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sim.lab import Guest, Lab
from sim.lab.cluster import PRIVATE, Cluster
from sim.lab.needs import missing_packages
from tests.lab.ahead import Ahead

HERE = Path(__file__).parent
DISK_BYTES = 1 << 30


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of this directory is slow. (Two workers run it: see ``tests/conftest.py``.)"""
    for item in items:
        if HERE in item.path.parents:
            for mark in (pytest.mark.lab, pytest.mark.slow):
                item.add_marker(mark)


@pytest.fixture(scope="session")
def session_cluster(ahead: Ahead) -> Iterator[Cluster]:
    """Booted once; tests get it as ``cluster``. Scenarios are played meanwhile."""
    if missing := missing_packages("lvm", "nfs", "file systems"):
        pytest.skip(f"the lab needs Debian packages: {' '.join(missing)}")
    with Lab() as lab:
        cluster = Cluster(lab, ["host-a", "host-b"], nfs=True, disk_bytes=DISK_BYTES)
        cluster.up()
        yield cluster


@pytest.fixture(scope="session")
def lonely() -> Iterator[Guest]:
    """A host whose disks may be overwritten."""
    if missing := missing_packages("lvm", "nfs", "file systems"):
        pytest.skip(f"the lab needs Debian packages: {' '.join(missing)}")
    with Lab() as lab:
        cluster = Cluster(lab, ["host-a"], memory="768M")
        cluster.up()
        yield cluster.hosts[0]


@pytest.fixture(scope="session")
def ahead(request: pytest.FixtureRequest) -> Iterator[Ahead]:
    """Plays those scenarios that tests of this session are about, from its beginning on."""
    names = set() if missing_packages("lvm", "nfs", "file systems") else _scenarios(request.session.items)
    found = Ahead(sorted(names))
    yield found
    found.close()


def _scenarios(items: list[pytest.Item]) -> set[str]:
    calls = [item.callspec for item in items if item.path == HERE / "test_scenarios.py" and hasattr(item, "callspec")]
    return {call.params["name"] for call in calls}


@pytest.fixture(scope="module")
def tidy_cluster(session_cluster: Cluster) -> Cluster:
    """Hosts on which the module before has left devices active or its disk mounted are killed first."""
    for host in session_cluster.hosts:
        in_use = f"dmsetup ls | grep -q '(' || grep -q '^{PRIVATE}' /proc/mounts"
        if host.state == "running" and host.run(["sh", "-c", in_use], check=False).code == 0:
            host.kill()
    return session_cluster


@pytest.fixture
def cluster(tidy_cluster: Cluster) -> Cluster:
    """The lab with every host running, whatever the test before did to them."""
    for guest in tidy_cluster.lab.guests.values():
        if guest.cable_cut:
            guest.mend()
        if guest.state == "frozen":
            guest.kill()
    for name, guest in tidy_cluster.lab.guests.items():
        if guest.state == "off":
            tidy_cluster.boot(name)
    return tidy_cluster


@contextmanager
def mounted(host: Guest, file_system: str) -> Iterator[str]:
    """A new file system on a host's private disk; the directory where it is mounted."""
    force = "-F" if file_system == "ext4" else "-f"
    host.run(["sh", "-c", f"umount -q {PRIVATE}; mkfs.{file_system} -q {force} {PRIVATE} && mount {PRIVATE} /mnt"])
    try:
        yield "/mnt"
    finally:
        if host.state == "running":
            host.run(["umount", "-q", "/mnt"], check=False)


@pytest.fixture
def host(cluster: Cluster) -> Guest:
    """The first host."""
    return cluster.hosts[0]


@pytest.fixture
def other(cluster: Cluster) -> Guest:
    """The second host."""
    return cluster.hosts[1]
