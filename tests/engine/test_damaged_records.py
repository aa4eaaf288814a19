"""Records that are damaged come back from what proves itself; those that are not understood are kept."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path

import pytest

from engine.data.model import Status
from engine.data.records import canonical
from engine.errors import DiskwrightError, NotUnderstood, Refused
from tests.crash.kit import SIZE, write
from tests.crash.kit import content as exported
from tests.engine.kit import copied, fixes, run


def generations(world, repo, tag) -> list[Path]:
    return sorted((world.root / repo / "tags" / tag[:2]).glob(f"{tag}.*"))


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-20] ^= 1
    path.write_bytes(raw)


def forget_the_one_before(world, repo, tag) -> None:
    """As versions left it that kept no generation before."""
    for path in generations(world, repo, tag)[:-1]:
        path.unlink()


def forget_the_newest(world, repo, tag) -> None:
    """Where an older program gave the one before no other name."""
    before, newest = generations(world, repo, tag)
    newest.unlink()
    before.rename(before.with_suffix(""))


def status(engine, repo, image):
    return next((report.status for report in engine.list_images(repo) if report.id == image), "gone")


@pytest.fixture
def content(tmp_path):
    """What an image reads, as bytes."""
    return lambda engine, repo, image: exported(engine, repo, image, tmp_path)


def written_disk(engine, repo="a"):
    disk = engine.create_virtual_disk(repo, SIZE)
    write(engine, repo, disk, "write -P 1 0 64k")
    return disk


# -- the generation before


def test_the_generation_before_is_kept_until_the_next_one(engine, world):
    """Two names for a tag that was changed, however often; a tombstone keeps none."""
    disk = written_disk(engine)
    for number in range(3):
        engine.set_user_data("a", disk, number)
        assert len(generations(world, "a", disk)) == 2
    assert fixes(engine, "a") == []
    engine.remove_image("a", disk)
    run(engine, "a", "C-REMOVED", disk)
    assert len(generations(world, "a", disk)) == 1


@pytest.mark.parametrize("which", ["disk", "snapshot"])
def test_a_flipped_bit_after_a_snapshot_is_mended_and_nothing_is_lost(engine, world, content, which):
    """The disk is on the overlay that nobody else names; the snapshot counts, though its seal was the last change."""
    disk = written_disk(engine)
    wanted = content(engine, "a", disk)
    snapshot = engine.create_snapshot("a", disk)
    damaged = disk if which == "disk" else snapshot
    flip(generations(world, "a", damaged)[-1])
    assert status(engine, "a", damaged) == Status.BROKEN
    assert not any(fix.irreversible for fix in fixes(engine, "a"))
    run(engine, "a", "B-RECORD", damaged)
    assert {report.id: report.status for report in engine.list_images("a")} == {
        disk: Status.OPTIMIZED, snapshot: Status.OPTIMIZED,
    }  # fmt: skip
    assert content(engine, "a", disk) == content(engine, "a", snapshot) == wanted
    assert fixes(engine, "a") == []


def test_a_disk_whose_volume_became_a_snapshots_never_gets_it_back(engine, world):
    """Where two volumes could be the overlay nothing is proven, and the disk is not put on the snapshot's volume."""
    disk = written_disk(engine)
    engine.create_snapshot("a", disk)
    overlay = engine.context.repository("a").tags.read(disk).record.volume
    flip(generations(world, "a", disk)[-1])
    path = world.root / "a" / "volumes" / overlay.id[:2] / f"{overlay.id}.qcow2"
    (path.parent / f"{overlay.id[:2]}{'f' * 30}.qcow2").write_bytes(path.read_bytes())
    assert [fix.rule for fix in fixes(engine, "a")] == ["C-RECORD"]


def test_an_image_that_may_have_been_restored_comes_back_as_one(engine, world):
    """The generation before says removed: deleting it is not offered on that word."""
    disk = written_disk(engine)
    engine.remove_image("a", disk)
    engine.restore_image("a", disk)
    flip(generations(world, "a", disk)[-1])
    run(engine, "a", "B-RECORD", disk)
    assert status(engine, "a", disk) == Status.OPTIMIZED and fixes(engine, "a") == []


def test_no_counter_of_the_lost_generation_comes_back(engine, world):
    """Who copies from the disk, or worked on it, finds out that it is another one now."""
    disk = written_disk(engine)
    write(engine, "a", disk, "write -P 2 0 64k")
    lost = engine.context.repository("a").tags.read(disk).record
    flip(generations(world, "a", disk)[-1])
    run(engine, "a", "B-RECORD", disk)
    now = engine.context.repository("a").tags.read(disk).record
    assert now.write_epoch > lost.write_epoch and now.epoch > lost.epoch


def test_a_rebuild_that_had_ended_is_not_gone_back_on(engine, world, content):
    """The old volume is deleted already, so the record that says so was the one that is lost."""
    disk = written_disk(engine)
    wanted = content(engine, "a", disk)
    engine.set_strategy("a", disk, "performance")
    run(engine, "a", "O-FORMAT", disk)
    kept = generations(world, "a", disk)
    flip(kept[-1])
    run(engine, "a", "B-RECORD", disk)
    assert content(engine, "a", disk) == wanted and status(engine, "a", disk) == Status.OPTIMIZED


def test_a_disk_whose_newest_record_is_gone_does_not_write_into_its_snapshot(engine, world, content):
    """The record before names the volume that is the snapshot's by now. Nothing is cleaned away that the disk has."""
    disk = written_disk(engine)
    wanted = content(engine, "a", disk)
    snapshot = engine.create_snapshot("a", disk)
    forget_the_newest(world, "a", disk)
    report = next(one for one in engine.list_images("a") if one.id == disk)
    assert (report.status, report.rule) == (Status.BROKEN, "B-OLDER") and snapshot in report.reason
    assert [fix.rule for fix in fixes(engine, "a")] == ["B-OLDER"]
    for change in (
        lambda: engine.prepare_image("a", disk, True),
        lambda: engine.create_snapshot("a", disk),
        lambda: engine.set_user_data("a", disk, {"name": "other"}),
    ):
        with pytest.raises(Refused, match=f"has left its data to snapshot {snapshot}"):
            change()
    run(engine, "a", "B-OLDER", disk)
    write(engine, "a", disk, "write -P 9 0 64k")
    assert content(engine, "a", snapshot) == wanted and fixes(engine, "a") == []


def test_a_disk_whose_newest_record_is_gone_can_be_removed_and_not_restored_with_the_data_of_its_snapshot(
    engine, world, content
):
    """The removal is one more generation: nothing but the other records tells then that one is missing."""
    disk = written_disk(engine)
    wanted = content(engine, "a", disk)
    snapshot = engine.create_snapshot("a", disk)
    forget_the_newest(world, "a", disk)
    engine.remove_image("a", disk)
    with pytest.raises(Refused, match=f"has left its data to snapshot {snapshot}"):
        engine.restore_image("a", disk)
    assert content(engine, "a", snapshot) == wanted


@pytest.mark.parametrize("which", ["disk", "snapshot"])
def test_a_newest_record_that_is_gone_is_told_and_mended(engine, world, content, which):
    """As one that is damaged: the one before says that it was there. Found so: an acknowledged snapshot was hidden data
    from then on, that a merge would have ended."""
    disk = written_disk(engine)
    wanted = content(engine, "a", disk)
    snapshot = engine.create_snapshot("a", disk)
    lost = disk if which == "disk" else snapshot
    generations(world, "a", lost)[-1].unlink()
    report = next(one for one in engine.list_images("a") if one.id == lost)
    assert (report.status, report.rule) == (Status.BROKEN, "B-RECORD") and "is gone" in report.reason
    assert [(fix.rule, fix.irreversible) for fix in fixes(engine, "a")] == [("B-RECORD", True)]
    run(engine, "a", "B-RECORD", lost)
    assert content(engine, "a", disk) == content(engine, "a", snapshot) == wanted and fixes(engine, "a") == []


def test_a_disk_of_which_no_generation_before_was_kept_is_used_as_ever(engine, world, content):
    """As older programs left it: its data is nobody else's, whatever has become of the record."""
    disk = written_disk(engine)
    snapshot = engine.create_snapshot("a", disk)
    wanted = content(engine, "a", snapshot)
    forget_the_one_before(world, "a", disk)
    write(engine, "a", disk, "write -P 9 0 64k")
    assert content(engine, "a", disk) != wanted == content(engine, "a", snapshot)
    forget_the_one_before(world, "a", disk)
    assert engine.create_snapshot("a", disk) and fixes(engine, "a") == []


# -- other witnesses


def test_a_replica_brings_a_snapshot_back_below_its_dependants(engine, world, content):
    """Nothing else is left; the copy in the other repository has the same id."""
    disk = written_disk(engine)
    snapshot = engine.create_snapshot("a", disk)
    wanted = content(engine, "a", disk)
    assert copied(engine, "b", snapshot) == snapshot
    forget_the_one_before(world, "a", snapshot)
    flip(generations(world, "a", snapshot)[-1])
    run(engine, "a", "B-RECORD", snapshot)
    run(engine, "a", "B-COPY", snapshot)
    assert content(engine, "a", disk) == wanted and status(engine, "a", disk) == Status.OPTIMIZED
    run(engine, "a", "C-UNNAMED")


def test_a_header_and_who_stands_on_it_bring_a_snapshot_back(engine, world, content):
    """One volume that no record names, one record that is damaged, and a disk that says what is below it."""
    disk = written_disk(engine)
    snapshot = engine.create_snapshot("a", disk)
    wanted = content(engine, "a", disk)
    forget_the_one_before(world, "a", snapshot)
    flip(generations(world, "a", snapshot)[-1])
    (fix,) = fixes(engine, "a", "B-RECORD", snapshot)
    assert "user data" in fix.why
    run(engine, "a", "B-RECORD", snapshot)
    assert content(engine, "a", disk) == wanted and fixes(engine, "a") == []


# -- given up


def test_what_was_removed_and_the_damaged_record_below_it_do_not_wait_for_each_other(engine, world):
    """Nothing proves the record: it is offered to be given up once no image that counts stands on it."""
    disk = written_disk(engine)
    snapshot = engine.create_snapshot("a", disk)
    other = engine.create_virtual_disk("a", SIZE)
    forget_the_one_before(world, "a", snapshot)
    flip(generations(world, "a", snapshot)[-1])
    strange = world.root / "a" / "volumes" / "ab"
    strange.mkdir(exist_ok=True)
    (strange / f"{'ab' * 16}.raw").write_bytes(bytes(4096))
    assert [fix.rule for fix in fixes(engine, "a")] == []
    for image in (disk, other):
        engine.remove_image("a", image)
    offered = fixes(engine, "a")
    assert [fix.rule for fix in offered if not fix.waits_for] == ["C-REMOVED", "C-REMOVED", "C-RECORD"]
    run(engine, "a", "C-RECORD", snapshot)
    while offered := fixes(engine, "a"):
        engine.run_fix_here("a", offered[0])
    assert not [path for path in (world.root / "a").glob("[vl]o*/**/*") if path.is_file()]


# -- not understood


def of_another_version(path: Path) -> None:
    data = json.loads(path.read_bytes().partition(b"\n")[2]) | {"strategy": "balanced"}
    body = canonical(data)
    path.write_bytes(b"dw1 %d %s\n%s\n" % (len(body), blake2b(body, digest_size=16).hexdigest().encode(), body))


def on_a_removed_snapshot(engine) -> tuple[str, str]:
    """A disk, and what it stands on alone."""
    first = written_disk(engine)
    removed = engine.create_snapshot("a", first)
    disk = engine.create_virtual_disk("a", engine.get_image_status("a", removed).size_bytes, removed)
    engine.remove_image("a", first)
    (clean,) = [fix for fix in fixes(engine, "a") if fix.target == first]
    engine.run_fix_here("a", clean)
    engine.remove_image("a", removed)
    return disk, removed


def test_a_record_of_another_version_is_unknown_and_kept(engine, world):
    """It is named with the version of the repository, no fix is for it, and nothing is deleted that it may need."""
    disk, removed = on_a_removed_snapshot(engine)
    path = generations(world, "a", disk)[-1]
    of_another_version(path)
    raw = path.read_bytes()
    report = next(one for one in engine.list_images("a") if one.id == disk)
    assert (report.status, report.rule) == (Status.UNKNOWN, "U-VERSION")
    assert "another version" in report.reason and "localfs-1.0" in report.reason and "balanced" in report.reason
    (clean,) = fixes(engine, "a")
    assert clean.target == removed and disk in clean.waits_for
    with pytest.raises(NotUnderstood, match="another version"):
        engine.create_snapshot("a", disk)
    with pytest.raises(DiskwrightError):
        engine.run_fix_here("a", clean)
    assert path.read_bytes() == raw


# -- quarantine


def test_a_volume_comes_back_to_a_record_that_arrives_after_it(engine, world, content):
    """The data was restored first, somebody cleaned, and then the record came: nothing is offered for deletion."""
    disk = written_disk(engine)
    wanted = content(engine, "a", disk)
    records = {path: path.read_bytes() for path in generations(world, "a", disk)}
    for path in records:
        path.unlink()
    run(engine, "a", "C-UNNAMED")
    assert [fix.rule for fix in fixes(engine, "a")] == ["C-LOST"]
    for path, raw in records.items():
        path.write_bytes(raw)
    assert [fix.rule for fix in fixes(engine, "a")] == ["B-LOST"]
    run(engine, "a", "B-LOST", disk)
    assert content(engine, "a", disk) == wanted and fixes(engine, "a") == []


def test_what_stands_in_quarantine_is_not_deleted_while_a_record_may_name_it(engine, world):
    """A damaged record is settled first."""
    disk, other = written_disk(engine), written_disk(engine)
    for path in generations(world, "a", disk):
        path.unlink()
    run(engine, "a", "C-UNNAMED")
    flip(generations(world, "a", other)[-1])
    (lost,) = fixes(engine, "a", "C-LOST")
    assert other in lost.waits_for


def test_putting_back_replaces_nothing(engine, world):
    """Two volumes of one id: both stay, and the error names them."""
    disk = written_disk(engine)
    repository = engine.context.repository("a")
    volume = repository.tags.read(disk).record.volume
    repository.volumes.quarantine(volume.id, volume.format)
    place = world.root / "a" / "volumes" / volume.id[:2] / f"{volume.id}.qcow2"
    place.write_bytes(b"other")
    with pytest.raises(DiskwrightError, match=f"put volume {volume.id} back"):
        repository.volumes.put_back(volume.id, volume.format)
    assert place.read_bytes() == b"other"
    assert (world.root / "a" / "lost" / place.name).stat().st_size > 5
