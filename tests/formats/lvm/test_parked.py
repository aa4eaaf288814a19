"""Space that a host may still write to is not given away before that host is proven to have stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.data.model import VolumeFormat
from engine.data.records import VolumeRef
from engine.doors.volume_groups import VolumeGroup
from engine.errors import Conflict
from engine.formats.lvm.metadata import layout
from sim.hosts.lease_areas import DEAD_S
from tests.formats.kit import SIZE, V1, SharedLvmStorage, qcow2, raw


class Hosts:
    """A repository that host-1 manages, and in which host-2 was using a volume when it lost its power."""

    def __init__(self, directory: Path, volume: VolumeRef) -> None:
        self.storage = SharedLvmStorage(directory)
        self.world = self.storage.world
        self.manager = self.storage.open()
        self.manager.volumes.make(volume, SIZE, None)
        self.manager.activation.deactivate()
        self.storage.open(host="host-2").volumes.layer(volume)
        self.world.machine("host-2").lose_power()
        self.world.advance(DEAD_S + 1)

    def report(self) -> VolumeGroup:
        report = self.manager.volumes.listing()
        assert isinstance(report, VolumeGroup)
        return report

    def names(self) -> list[str]:
        report = self.report()
        return sorted(name for name in report.volumes if not name.startswith(("dw-meta", "dw-leases")))

    def size(self) -> int:
        (name,) = self.names()
        return self.report().volumes[name].size


@pytest.fixture
def hosts(tmp_path) -> Hosts:
    return Hosts(tmp_path, qcow2())


def test_a_removed_volume_is_parked_and_told_until_its_host_is_back(hosts):
    """Removing it succeeds, for no record needs it; its extents stay, and clean gets them when the host has booted."""
    space = hosts.manager.space()
    hosts.manager.volumes.remove(V1, VolumeFormat.QCOW2)
    assert not hosts.manager.volumes.facts(V1, VolumeFormat.QCOW2).present
    assert hosts.manager.space() == space
    (item,) = hosts.manager.scan().litter
    assert (item.kind, item.host, item.busy, item.size) == ("parked", "host-2", True, hosts.size())
    assert layout.is_old(item.name)
    assert hosts.manager.litter.remove([item, item._replace(kind="temporary")]) == 0
    assert hosts.names() == [item.name]
    hosts.storage.open(host="host-2")
    (item,) = hosts.manager.scan().litter
    assert (item.kind, item.host) == ("temporary", "")
    assert hosts.manager.litter.remove([item]) == item.size
    assert hosts.names() == []


def test_a_volume_of_a_living_host_that_has_let_go_of_it_is_removed(tmp_path):
    """Its processes that had the lease have ended, and it would say if it had the volume active."""
    storage = SharedLvmStorage(tmp_path)
    manager, other = storage.open(), storage.open(host="host-2")
    manager.volumes.make(qcow2(), SIZE, None)
    other.volumes.layer(qcow2())
    other.activation.deactivate()
    manager.volumes.remove(V1, VolumeFormat.QCOW2)
    assert manager.scan().litter == []


def test_a_volume_made_again_lies_somewhere_else(hosts):
    """What was in it is of no use; what the dead host may still write lands beside it."""
    (before,) = hosts.names()
    lies = hosts.manager.volumes.listing().volumes[before].ranges
    hosts.manager.volumes.make(qcow2(), SIZE, None)
    report = hosts.manager.volumes.listing()
    assert report.volumes[before].ranges != lies
    (old,) = (name for name in hosts.names() if layout.is_old(name))
    assert report.volumes[old].ranges == lies


def test_nothing_is_cut_off_a_volume_that_may_still_be_written(hosts):
    """The error names the host; the volume is as it was."""
    before = hosts.size()
    with pytest.raises(Conflict, match="host-2"):
        hosts.manager.extents.reduce(qcow2())
    assert hosts.size() == before
    hosts.storage.open(host="host-2")
    assert hosts.manager.extents.reduce(qcow2()) > 0


def test_what_was_put_away_as_lost_waits_too(tmp_path):
    """A quarantined volume keeps its name, which tells that it is for somebody to look at."""
    hosts = Hosts(tmp_path, raw())
    hosts.manager.volumes.quarantine(V1, VolumeFormat.RAW)
    (item,) = hosts.manager.scan().litter
    assert (item.kind, item.name) == ("parked", layout.lost_name(V1))
    hosts.storage.open(host="host-2")
    (item,) = hosts.manager.scan().litter
    assert item.kind == "lost"
    assert hosts.manager.litter.remove([item]) == item.size


def test_a_manager_that_dies_while_it_makes_a_volume_leaves_it_parked(tmp_path):
    """It says so before it writes anything, for it writes where the volume lies."""
    hosts = Hosts(tmp_path, qcow2())
    hosts.manager.volumes.make(raw("c" * 32), SIZE, None)
    hosts.world.machine("host-1").lose_power()
    other = hosts.storage.open(host="host-3")
    hosts.world.advance(DEAD_S + 1)
    other.manager.take("")
    other.volumes.remove("c" * 32, VolumeFormat.RAW)
    assert [item.host for item in other.scan().litter] == ["host-1"]
