"""A repository that hosts share, with sanlock's own daemons instead of the simulator's: what the guard builds on."""

from __future__ import annotations

import os
import shutil
import signal

import pytest

from engine.doors.shared_leases import LeaseArea
from engine.formats.lvm.metadata import layout
from tests.tools.sanlock_kit import Actor, Failed, SharingHost, wait_until
from tests.tools.test_sanlock import memory_disk

pytestmark = pytest.mark.slow


@pytest.fixture
def hosts(tmp_path):
    """Two hosts whose daemons run."""
    if os.geteuid() != 0 or shutil.which("sanlock") is None:
        pytest.skip("needs root and the package sanlock")
    made: list[SharingHost] = []
    with memory_disk(layout.leases_bytes(1) >> 20) as device:
        try:
            made += [SharingHost(name, tmp_path / name, LeaseArea("", device)) for name in ("a", "b")]
            yield made
        finally:
            for host in made:
                host.end()


def actor(host: SharingHost) -> Actor:
    """A new process of the host, which has the repository open."""
    return host.actor("-m", "tests.formats.lvm.sanlock_worker", host.name, str(host.directory.parent / "volumes"))


def test_hosts_share_a_repository_with_real_leases(hosts):
    """Records and leases on both; a host whose presence lapses loses its process, and may still write until it is back;
    a host that leaves in order gives the role away."""
    (hosts[0].directory.parent / "volumes").mkdir()
    one = actor(hosts[0])
    one("create")
    two = actor(hosts[1])
    assert [each("open") for each in (one, two)] == ["a", "a"]

    generations = [each("publish", epoch) for epoch, each in enumerate((one, two, two, one))]
    assert generations == sorted(set(generations)) and [one("epoch"), two("epoch")] == [3, 3]
    assert one("lease") and two("held") and not two("lease")
    one("release")
    wait_until(lambda: two("lease"))
    with pytest.raises(Failed, match="host a manages"):
        two("take")

    two("note")
    assert one("writer") == ""
    hosts[1].signal(signal.SIGSTOP)
    try:
        wait_until(lambda: one("writer") == "b")
        assert not one("lease")
    finally:
        hosts[1].signal(signal.SIGCONT)
    assert two.process.wait(60) == -signal.SIGKILL
    again = actor(hosts[1])
    wait_until(lambda: joins(again))
    wait_until(lambda: one("writer") == "" and one("lease"))
    assert again("publish", 7) > max(generations) and one("epoch") == 7

    one("release")
    wait_until(lambda: left(one))
    wait_until(lambda: takes(again))


def joins(each: Actor) -> bool:
    """Once the daemon has given up the presence before."""
    try:
        return bool(each("open"))
    except Failed:
        return False


def left(each: Actor) -> bool:
    """Once the daemon has released the last lease."""
    try:
        each("leave")
    except Failed as error:
        assert "holds a lease" in str(error)
        return False
    return True


def takes(each: Actor) -> bool:
    """Once the other was seen to have left."""
    try:
        return bool(each("take") == "b")
    except Failed as error:
        assert "manages" in str(error)
        return False
