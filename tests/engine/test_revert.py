"""revert_disk: a disk is what a snapshot is, on every format, and what it was can be had back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.api import Engine
from engine.errors import ImageBusy, NotFound, OutcomeUnknown, Refused
from engine.tags import changes
from engine.triage import rules
from engine.verbs import remove
from sim.disk.files import Fault
from sim.explore.cases.driver import Driver, KiB, MiB, layers, read
from sim.explore.cases.fixtures.images import BLOCK, data
from sim.hosts.crash import Crashed
from sim.hosts.processes import SimProcess
from sim.hosts.world import NFS, World
from tests.engine.kit import NO_FIX, shown

SIZE = 256 * KiB - 700


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


def test_a_disk_returns_to_a_snapshot_that_was_merged_into_it_and_copied_in_again():
    """All in the sight of one process that made the snapshot. Found so: it relied on what it had entered then, the
    snapshot was cleaned away below the disk, and the disk was broken."""
    world = World()
    world.create("a", "b")
    first, other = world.host("one"), Driver(world)
    disk = first.create_virtual_disk("a", SIZE)
    snapshot = first.create_snapshot("a", disk)
    other.engine().copy_image("b", snapshot, options=NO_FIX)
    other.fix("b", rules.B_COPY)
    other.engine().remove_image("a", snapshot)
    other.fix("a", rules.M_CHAIN)
    assert other.engine().copy_image("a", snapshot, options=NO_FIX) == snapshot
    other.fix("a", rules.B_COPY)
    first.revert_disk("a", disk, snapshot)
    other.engine().remove_image("a", snapshot)
    found = other.engine().inspect_repository("a")
    assert {image.status for image in found.images} == {"optimized"}
    assert snapshot not in [fix.target for fix in found.fixes if fix.rule == rules.C_REMOVED]
    assert "B-PART" not in [fix.rule for fix in found.fixes]


def before_the_overlay(driver: Driver, engine: Engine, disk: str, act: Callable[[SimProcess], None]) -> None:
    """Have ``act`` come to pass when the record of the disk names the overlay to come, and nobody has made it."""
    process = driver.world.process_of(engine)

    def hook(process: SimProcess, call: str, what: str) -> Fault:
        record = changes.read(driver.engine().context.repository("a"), disk).record if call == "files.create" else None
        if record is not None and record.operation is not None and "/volumes/" in what:
            process.hook = None
            act(process)
        return Fault.NONE

    process.hook = hook


def reverted_once(format: str) -> tuple[Driver, str, str]:
    """A disk that was written to after its snapshot."""
    world = World(format=format)
    world.create("a")
    driver = Driver(world)
    disk = driver.create("a", SIZE)
    driver.write("a", disk, 0, data(1))
    monday = driver.snapshot("a", disk)
    driver.write("a", disk, 0, data(2))
    return driver, disk, monday


def test_what_is_written_while_the_host_is_frozen_is_not_left_behind():
    """A host freezes before it moves the disk, loses its locks, and a machine elsewhere writes to the disk: the revert
    is refused, as that is in no snapshot, and nothing is left to see of it."""
    driver, disk, monday = reverted_once(NFS)
    engine = driver.world.host("two")

    def written(process: SimProcess) -> None:
        process.lose_locks()
        driver.write("a", disk, BLOCK, data(3))

    before_the_overlay(driver, engine, disk, written)
    with pytest.raises(Refused):
        engine.revert_disk("a", disk, monday)
    assert shown(driver, disk)
    assert {image.id for image in driver.engine().list_images("a") if not image.removed} == {disk, monday}
    assert changes.read(driver.engine().context.repository("a"), disk).record.operation is None


def test_a_revert_that_was_interrupted_can_be_given_up_or_begun_again():
    """The disk is as it was, and an overlay that nobody made is what is left; the same verb begins again."""
    driver, disk, monday = reverted_once("localfs-1.0")
    for again in (False, True):
        engine = driver.world.host("two" if again else "three")
        before_the_overlay(driver, engine, disk, lambda process: process.kill())
        with pytest.raises(Crashed):
            engine.revert_disk("a", disk, monday)
        assert shown(driver, disk)
        if not again:
            driver.fix("a", rules.C_ATTEMPT)
    driver.revert("a", disk, monday)
    assert shown(driver, disk)
    assert changes.read(driver.engine().context.repository("a"), disk).record.operation is None


def test_what_is_left_after_the_seal_is_not_told_as_a_refusal(driver: Driver, monkeypatch: pytest.MonkeyPatch):
    """A manager that froze behind it was refused the last step, and said that the disk was not reverted."""
    disk = driver.create("a", SIZE)
    driver.write("a", disk, 0, data(1))
    monday = driver.snapshot("a", disk)
    driver.write("a", disk, 0, data(2))

    def refused(context: object, repo_id: str, image: str) -> None:
        raise Refused("this host is no manager any more", "Take the role")

    monkeypatch.setattr(remove, "remove", refused)
    with pytest.raises(OutcomeUnknown, match=r"contains what snapshot .* no manager") as told:
        driver.engine().revert_disk("a", disk, monday)
    (kept,) = {image.id for image in driver.engine().list_images("a")} - {disk, monday}
    assert f"remove a {kept}" in told.value.next_step and ".." not in str(told.value)
    assert read(driver.engine(), "a", disk, SIZE).same(driver.image("a", monday).content)
