"""resize_disk: longer on every format, with snapshots below; what is gained is zeros, and nothing gets shorter."""

from __future__ import annotations

import pytest

from engine.data.model import aligned
from engine.errors import BadRequest, ImageBusy, NoSpace, Refused
from engine.triage import rules
from sim.explore.cases.driver import Driver, KiB, MiB, layers
from sim.explore.cases.fixtures.images import BLOCK, a_begun_merge, data
from sim.hosts.world import LVM, World
from tests.engine.kit import shown

ODD = 256 * KiB - 700
LONGER = 3 * MiB + 100


@pytest.mark.parametrize("strategy", ["space", "performance"])
def test_a_disk_grows_with_its_snapshot(driver: Driver, strategy: str):
    """On every format and in both: the size is recorded, data stays, the rest is zeros, the snapshot is as it was."""
    disk = driver.create("a", ODD, strategy=strategy)
    driver.write("a", disk, 0, data(1))
    driver.resize("a", disk, MiB)
    driver.write("a", disk, MiB - BLOCK, data(2))
    snapshot = driver.snapshot("a", disk)
    driver.resize("a", disk, LONGER)
    driver.write("a", disk, LONGER // BLOCK * BLOCK, data(3)[: LONGER % BLOCK])
    for image, size in ((disk, LONGER), (snapshot, MiB)):
        report = driver.engine().get_image_status("a", image)
        assert (report.size_bytes, report.rule in ("", rules.O_FLAT)) == (size, True)
        assert shown(driver, image)


@pytest.mark.parametrize("strategy", ["space", "performance"])
def test_a_merge_into_a_shorter_layer_makes_it_longer_first(driver: Driver, strategy: str):
    """The disk has its new size after its removed snapshot, which is shorter, has become one with it."""
    disk = driver.create("a", ODD, strategy=strategy)
    driver.write("a", disk, 0, data(1))
    snapshot = driver.snapshot("a", disk)
    driver.resize("a", disk, LONGER)
    driver.write("a", disk, 2 * MiB, data(2))
    driver.remove("a", snapshot)
    driver.fix("a", rules.M_CHAIN)
    assert driver.engine().get_image_status("a", disk).size_bytes == LONGER
    assert layers(driver.engine(), "a", disk)[1:] == [] and shown(driver, disk)


def test_no_disk_gets_shorter_and_no_snapshot_longer(driver: Driver):
    """Each is refused with its reason; the same size again is a success."""
    disk = driver.create("a", MiB)
    driver.resize("a", disk, MiB)
    with pytest.raises(BadRequest, match="shorter"):
        driver.engine().resize_disk("a", disk, MiB - 1)
    with pytest.raises(BadRequest):
        driver.engine().resize_disk("a", disk, 1 << 60)
    snapshot = driver.snapshot("a", disk)
    with pytest.raises(Refused, match="snapshot"):
        driver.engine().resize_disk("a", snapshot, 2 * MiB)


def test_a_resize_to_an_odd_size_goes_on_where_it_was(driver: Driver):
    """Its volume has that length in whole blocks already, which is not longer than was asked for."""
    disk = driver.create("a", MiB)
    driver.grow_unsafe("a", disk, aligned(LONGER))
    driver.engine().resize_disk("a", disk, LONGER)
    assert driver.engine().get_image_status("a", disk).size_bytes == LONGER


def test_a_prepared_disk_is_not_made_longer_behind_its_machine(driver: Driver):
    """ImageBusy as long as it is prepared."""
    disk = driver.create("a", MiB)
    driver.engine().prepare_image("a", disk)
    with pytest.raises(ImageBusy):
        driver.engine().resize_disk("a", disk, 2 * MiB)
    driver.engine().teardown_image("a", disk)
    driver.resize("a", disk, 2 * MiB)


def test_a_disk_that_is_being_merged_waits_for_that():
    """The merge has pinned the volumes of the size that they have."""
    world = World()
    world.create("a", "b")
    driver = Driver(world)
    a_begun_merge(driver)
    with pytest.raises(Refused, match="unfinished merge"):
        driver.engine().resize_disk("a", driver.named["disk"], 2 * MiB)


def test_room_that_is_not_there_changes_nothing():
    """On LVM the room comes first: NoSpace, and the disk is what it was."""
    world = World(format=LVM)
    world.create("a", "b")
    driver = Driver(world)
    disk = driver.create("a", MiB)
    with pytest.raises(NoSpace):
        driver.engine().resize_disk("a", disk, 1 << 40)
    report = driver.engine().get_image_status("a", disk)
    assert (report.size_bytes, report.status) == (MiB, "optimized")
