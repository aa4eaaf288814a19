"""What was damaged comes back from where it is proven, and is named where it is lost."""

from __future__ import annotations

import os

import pytest

from engine.data.model import Risk, Status
from engine.errors import Damaged, StorageError
from tests.crash.kit import SIZE, MiB, as_it_rots, content, nothing_left_over, settle, write
from tests.engine.fixes.kit import record_of, rules, snapshot_in_both, status
from tests.engine.kit import volume_of


def test_damaged_data_of_a_snapshot_comes_back_from_a_proven_replica(engine, world, tmp_path):
    """Gone, truncated or silently changed; the damaged volume is kept as evidence until told otherwise."""
    _disk, snapshot = snapshot_in_both(engine)
    expected = content(engine, "a", snapshot, tmp_path)

    def gone(path):
        path.unlink()

    def truncated(path):
        os.truncate(path, 100)

    def changed(path):
        with path.open("r+b") as file:
            file.seek(-100_000, os.SEEK_END)
            file.write(b"silent damage")

    for damage in (gone, truncated, changed):
        damage(volume_of(world, engine, "b", snapshot))
        assert status(engine, "b", snapshot, deep=True) == Status.BROKEN
        (fix,) = engine.check_storage_repository("b", {"deep": True})
        assert (fix.type, fix.rule) == ("mend", "B-REPLICA")
        engine.run_fix_here("b", fix)
        assert status(engine, "b", snapshot, deep=True) == Status.OPTIMIZED
        assert content(engine, "b", snapshot, tmp_path) == expected
        for evidence in engine.check_storage_repository("b"):
            assert (evidence.rule, evidence.risk) == ("C-EVIDENCE", Risk.LOSES_DATA)
            engine.run_fix_here("b", evidence)
        nothing_left_over(world, engine, "b")


def test_a_replica_with_other_content_is_not_taken(engine, world):
    """The digest decides; nothing is replaced."""
    _, snapshot = snapshot_in_both(engine)
    path = volume_of(world, engine, "a", snapshot)
    with as_it_rots(path), path.open("r+b") as file:
        file.seek(-100_000, os.SEEK_END)
        file.write(b"other content")
    volume_of(world, engine, "b", snapshot).unlink()
    (fix,) = engine.check_storage_repository("b")
    with pytest.raises(Damaged, match="digest"):
        engine.run_fix_here("b", fix)
    report = engine.get_image_status("b", snapshot)
    assert report.status == Status.BROKEN
    assert "digest" in report.operation.last_error


def test_without_a_replica_what_can_be_read_is_salvaged_and_the_rest_is_named(engine, world, tmp_path):
    """A truncated disk: lost ranges read as zeros, are named, and the damaged file is untouched."""
    disk = engine.create_virtual_disk("a", SIZE)
    write(engine, "a", disk, "write -P 1 0 1M", "write -P 2 2M 512k")
    expected = content(engine, "a", disk, tmp_path)
    path = volume_of(world, engine, "a", disk)
    os.truncate(path, path.stat().st_size - 3 * 65536)
    damaged = path.read_bytes()
    assert status(engine, "a", disk, deep=True) == Status.BROKEN
    (fix,) = engine.check_storage_repository("a", {"deep": True})
    assert (fix.rule, fix.risk) == ("B-SALVAGE", Risk.LOSES_DATA)
    engine.run_fix_here("a", fix)
    report = engine.get_image_status("a", disk)
    assert report.status == Status.DEGRADED
    lost = 2 * MiB + 5 * 65536
    assert report.lost == ((lost, 3 * 65536),)
    assert content(engine, "a", disk, tmp_path) == expected[:lost] + bytes(3 * 65536) + expected[lost + 3 * 65536 :]
    assert path.read_bytes() == damaged
    assert sorted(rules(engine, "a")) == ["C-EVIDENCE", "C-LOSSES"]
    engine.run_fix_here("a", next(f for f in engine.check_storage_repository("a") if f.rule == "C-LOSSES"))
    assert status(engine, "a", disk) == Status.OPTIMIZED


def test_a_truncated_raw_disk_is_salvaged_too(engine, world, tmp_path):
    """The missing end is named."""
    disk = engine.create_virtual_disk("a", SIZE, options={"strategy": "performance"})
    write(engine, "a", disk, "write -P 1 0 3M")
    os.truncate(volume_of(world, engine, "a", disk), 2 * MiB)
    report = engine.get_image_status("a", disk)
    assert report.status == Status.BROKEN and report.rule == "B-DATA"
    (fix,) = engine.check_storage_repository("a")
    engine.run_fix_here("a", fix)
    assert engine.get_image_status("a", disk).lost == ((2 * MiB, MiB),)
    assert content(engine, "a", disk, tmp_path) == b"\1" * 2 * MiB + bytes(MiB)


@pytest.mark.parametrize(
    "damage",
    [
        lambda p: p.write_bytes(b""),
        lambda p: p.write_bytes(p.read_bytes()[:100]),
        lambda p: p.write_bytes(b"\0" * 600),
        lambda p: p.write_bytes(b"\xff\xfe" * 300),
        lambda p: p.write_bytes(p.read_bytes().replace(b'"size":', b'"sjze":')),
        lambda p: p.write_bytes(p.read_bytes().replace(b"dw1", b"dw2")),
        lambda p: p.write_bytes(b"x" * (2 << 20)),
    ],
    ids=["empty", "truncated", "zeros", "not UTF-8", "checksum", "future version", "huge"],
)
def test_a_damaged_record_breaks_only_its_own_image(engine, world, tmp_path, damage):
    """The scan goes on, nothing is overwritten, it holds up nothing that it cannot need, and there is a way out."""
    disk, snapshot = snapshot_in_both(engine)
    other = engine.create_virtual_disk("a", SIZE)
    engine.remove_image("a", other)
    path = record_of(world, "a", disk)
    for older in path.parent.glob(f"{disk}.*"):
        if older != path:
            older.unlink()  # as versions left it that kept no generation before
    damage(path)
    raw = path.read_bytes()
    report = engine.inspect_repository("a")
    by_id = {image.id: image for image in report.images}
    assert by_id[disk].status == Status.BROKEN and by_id[disk].rule == "B-RECORD"
    assert by_id[snapshot].status == Status.OPTIMIZED
    with pytest.raises(Damaged):
        engine.create_snapshot("a", disk)
    engine.run_fix_here("a", next(fix for fix in report.fixes if fix.target == other))
    assert path.read_bytes() == raw
    engine.run_fix_here("a", next(fix for fix in report.fixes if fix.rule == "C-RECORD"))
    settle(engine, "a")
    assert [fix.rule for fix in engine.check_storage_repository("a")] == ["C-LOST"]
    assert {image.id for image in engine.list_images("a")} == {snapshot}


def test_links_fifos_and_foreign_names_are_left_alone(engine, world, tmp_path):
    """Listed with what they are, never followed, never offered for deletion."""
    disk = engine.create_virtual_disk("a", SIZE)
    root = world.root / "a"
    secret = tmp_path / "secret"
    secret.write_text("host file")
    path = volume_of(world, engine, "a", disk)
    os.mkfifo(path.parent / ("f" * 32 + ".raw"))
    (root / "tags" / disk[:2] / "notes.txt").write_text("x")
    (root / "readme").write_text("x")
    (root / "tmp" / ".nfs0001").write_text("x")
    report = engine.inspect_repository("a")
    assert report.fixes == ()
    assert len([finding for finding in report.findings if finding.kind == "foreign"]) == 4
    path.unlink()
    path.symlink_to(secret)
    report = engine.get_image_status("a", disk)
    assert report.status == Status.BROKEN
    with pytest.raises((Damaged, StorageError)):
        engine.export_image("a", disk, str(tmp_path / "out"), "raw")
    assert not (tmp_path / "out").exists()


def test_a_volume_that_no_record_names_is_quarantined_before_it_can_be_deleted(engine, world):
    """Two explicit fixes; the first deletes nothing."""
    stranger = world.root / "a" / "volumes" / "ab"
    stranger.mkdir(exist_ok=True)
    (stranger / ("ab" + "0" * 30 + ".raw")).write_bytes(b"x" * 5000)
    (fix,) = engine.check_storage_repository("a")
    assert fix.rule == "C-UNNAMED"
    engine.run_fix_here("a", fix)
    (kept,) = (world.root / "a" / "lost").iterdir()
    assert kept.stat().st_size == 5000
    (fix,) = engine.check_storage_repository("a")
    assert (fix.rule, fix.risk) == ("C-LOST", Risk.LOSES_DATA)
    engine.run_fix_here("a", fix)
    nothing_left_over(world, engine, "a")


def test_a_chain_that_runs_in_a_circle_is_detected(engine, world):
    """No endless loop; both images are broken and say why."""
    from engine.data.records import VolumeRef
    from engine.tags import changes

    disk = engine.create_virtual_disk("a", SIZE)
    base = engine.create_snapshot("a", disk)
    repository = engine.context.repository("a")
    below = repository.tags.read(base).record.volume
    changes.change(repository, base, lambda r: r._replace(volume=VolumeRef(below.id, below.format, disk)))
    assert {image.rule for image in engine.list_images("a")} == {"B-LOOP"}
    assert engine.check_storage_repository("a") == []
    with pytest.raises(Damaged, match="circle"):
        engine.prepare_image("a", disk)


def test_a_missing_parent_is_named(engine, world):
    """The image above it is broken, with the parent's id in the reason."""
    disk = engine.create_virtual_disk("a", SIZE)
    base = engine.create_snapshot("a", disk)
    for generation in (world.root / "a" / "tags").glob(f"*/{base}.*"):
        generation.unlink()
    report = engine.get_image_status("a", disk)
    assert report.status == Status.BROKEN and base in report.reason
