"""revert_disk: a disk is what a snapshot is, on every format, and what it was can be had back."""

from __future__ import annotations

import pytest

from engine.errors import ImageBusy, NotFound, Refused
from engine.triage import rules
from sim.explore.cases.driver import Driver, KiB, MiB, layers, read
from sim.explore.cases.fixtures.images import BLOCK, data
from sim.hosts.world import LVM, NFS, SHARED, World

SIZE = 256 * KiB - 700


@pytest.fixture(params=["localfs-1.0", NFS, LVM, SHARED])
def driver(request) -> Driver:
    world = World(format=request.param)
    world.create("a", "b")
    driver = Driver(world)
    if request.param == SHARED:
        driver.engine().take_srm("a")
    return driver


def shown(driver: Driver, image: str) -> bool:
    """Whether the image reads as the model says, to its last byte."""
    known = driver.image("a", image)
    return read(driver.engine(), "a", image, known.size).same(known.content)


@pytest.mark.parametrize("strategy", ["space", "performance"])
def test_a_disk_returns_and_what_it_was_can_be_restored(driver: Driver, strategy: str):
    """Content and size are the snapshot's, also two snapshots down; the old state comes back as a snapshot, and a clean
    takes what is left over."""
    disk = driver.create("a", SIZE, strategy=strategy)
    driver.write("a", disk, 0, data(1))
    monday = driver.snapshot("a", disk)
    driver.write("a", disk, 0, data(2))
    driver.snapshot("a", disk)
    driver.resize("a", disk, MiB)
    driver.write("a", disk, MiB - BLOCK, data(3))
    kept = driver.revert("a", disk, monday)
    assert driver.engine().get_image_status("a", disk).size_bytes == SIZE and shown(driver, disk)
    driver.write("a", disk, 0, data(4))
    driver.restore("a", kept)
    assert driver.engine().get_image_status("a", kept).size_bytes == MiB
    assert shown(driver, kept) and shown(driver, disk) and shown(driver, monday)
    driver.fix("a", rules.C_SCRAP)
    assert len(layers(driver.engine(), "a", disk)) == 2
    assert shown(driver, kept) and shown(driver, disk)


def test_a_disk_returns_again_and_again(driver: Driver):
    """Each time what it was is kept; what was removed is deleted only by a clean that says that it is irreversible."""
    disk = driver.create("a", SIZE)
    driver.write("a", disk, 0, data(1))
    monday = driver.snapshot("a", disk)
    kept = []
    for number in (2, 3):
        driver.write("a", disk, 0, data(number))
        kept.append(driver.revert("a", disk, monday))
    offers = [fix for fix in driver.engine().check_storage_repository("a") if fix.target in kept]
    assert {fix.rule for fix in offers} == {rules.C_REMOVED} and all(fix.irreversible for fix in offers)
    assert shown(driver, disk)


def test_what_cannot_be_returned_to_is_refused(driver: Driver):
    """A disk, a removed snapshot, nothing at all; and a disk that is prepared. Nothing changes."""
    disk, other = driver.create("a", SIZE), driver.create("a", SIZE)
    monday, gone = driver.snapshot("a", disk), driver.snapshot("a", other)
    driver.remove("a", gone)
    images = driver.engine().list_images("a")
    for to, error in ((other, Refused), (gone, NotFound), ("f" * 32, NotFound)):
        with pytest.raises(error):
            driver.engine().revert_disk("a", disk, to)
    with pytest.raises(Refused):
        driver.engine().revert_disk("a", monday, monday)
    prepared = driver.engine().prepare_image("a", disk)
    with pytest.raises(ImageBusy):
        driver.engine().revert_disk("a", disk, monday)
    assert prepared.path
    assert len(driver.engine().list_images("a")) == len(images)
