"""The record of a disk that is older than its snapshot: until it is mended, nothing is done that would hide that."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.data.model import Status
from engine.data.records import Record
from engine.data.uses import needs
from engine.errors import DiskwrightError, Refused, StaleFix
from engine.fixes import clean, merge, rebuild
from engine.tags import changes
from sim.explore.cases.driver import Driver, KiB
from sim.explore.cases.fixtures import damage, images
from sim.explore.cases.fixtures.images import SIZE, data
from sim.hosts.world import World
from tests.engine.kit import shown


def older(copied: bool = True) -> tuple[Driver, str, str, str]:
    """A disk whose record is older than its snapshot, the removed snapshot, and a disk based on that, "" for none."""
    driver = Driver(World())
    driver.world.create("a", "b")
    damage.an_older_record(driver)
    disk, snapshot = driver.named["disk"], driver.named["snap"]
    copy = ""
    if copied:
        copy = driver.create("a", SIZE, ("a", snapshot), strategy="space")
        driver.wait()
        driver.write("a", copy, 4 * KiB, data(7))
    driver.engine().remove_image("a", snapshot)
    return driver, disk, snapshot, copy


def refused(driver: Driver, work: Callable[[], None], *errors: type[DiskwrightError]) -> None:
    with pytest.raises(errors):
        work()
    report = {image.id: image for image in driver.engine().list_images("a")}
    assert report[driver.named["disk"]].rule == "B-OLDER"


@pytest.mark.parametrize("copied", [True, False])
def test_a_snapshot_is_neither_merged_nor_cleaned_while_an_older_record_has_its_data(copied: bool):
    """Found so: the data of the only image that stood on the snapshot was merged into the volume that the record of the
    disk names, and two disks had one volume; or the snapshot was cleaned away, and the disk was called optimized with
    what it contained before the snapshot."""
    driver, disk, snapshot, copy = older(copied)
    engine = driver.engine()
    context, repository = engine.context, engine.context.repository("a")
    assert [fix.rule for fix in engine.check_storage_repository("a")] == ["B-OLDER"]
    if copied:
        refused(driver, lambda: merge.merge(context, repository, snapshot, copy, "down"), StaleFix)
    else:
        refused(driver, lambda: clean.tag(context, repository, snapshot), StaleFix)
        assert not changes.read(repository, snapshot).record.purging
    for _ in range(4):
        for fix in engine.check_storage_repository("a"):
            engine.run_fix_here("a", fix)
    for image in (disk, copy) if copied else (disk,):
        assert shown(driver, image)
    assert {image.status for image in engine.list_images("a")} <= {Status.OPTIMIZED}


def test_a_deletion_that_began_before_the_older_record_came_is_taken_back():
    """While it is under way the disk is told to be broken as before, and not handed the data of the snapshot."""
    driver, disk, snapshot, _ = older(copied=False)
    engine = driver.engine()
    changes.change(engine.context.repository("a"), snapshot, lambda record: record._replace(purging=True))
    assert {fix.rule for fix in engine.check_storage_repository("a")} == {"B-OLDER", "B-PURGING"}
    with pytest.raises(Refused, match="has left its data to snapshot"):
        engine.prepare_image("a", disk, True)
    clean.tag(engine.context, engine.context.repository("a"), snapshot)
    record = changes.read(engine.context.repository("a"), snapshot).record
    assert record.volume is not None and not record.purging


def test_a_snapshot_gets_no_other_volume_while_an_older_record_has_its_data():
    """Nothing would tell then that the record is older. The rebuild waits for the mend, also half done."""
    driver = Driver(World())
    driver.world.create("a", "b")
    images.a_disk(driver)
    base = driver.snapshot("a", driver.named["disk"])
    driver.write("a", driver.named["disk"], 0, data(3))
    damage.snapshot_of_older(driver)
    engine, snapshot = driver.engine(), driver.named["snap"]
    engine.set_strategy("a", snapshot, "performance")
    mend, build = engine.check_storage_repository("a")
    assert (mend.rule, build.target, build.type, build.depends_on) == ("B-OLDER", snapshot, "optimize", (mend.id,))
    context, repository = engine.context, engine.context.repository("a")
    refused(driver, lambda: merge.merge(context, repository, base, snapshot, "down"), StaleFix)
    refused(driver, lambda: rebuild.flatten(context, repository, snapshot, True), Refused)
    assert changes.read(repository, snapshot).record.operation is not None
    for _ in range(4):
        for fix in engine.check_storage_repository("a"):
            engine.run_fix_here("a", fix)
    for image in (driver.named["disk"], snapshot, base):
        assert shown(driver, image)


def test_who_needs_a_snapshot_is_told_from_its_record():
    """One that was only begun has not taken the data over yet; one that is merged into another has given it away."""
    driver, disk, snapshot, _ = older(copied=False)
    repository = driver.engine().context.repository("a")
    of_disk, of_snapshot = (changes.read(repository, tag).record for tag in (disk, snapshot))

    def needed(change: Callable[[Record], Record]) -> bool:
        return needs(of_disk, change(of_snapshot))

    assert needed(lambda record: record) and needed(lambda record: record._replace(purging=True))
    assert needed(lambda record: record._replace(absorbed_by=record.id))
    assert not needed(lambda record: record._replace(absorbed_by=disk))
    assert not needed(clean.destroyed) and not needs(of_snapshot, of_disk)
