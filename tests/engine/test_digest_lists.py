"""Digest lists on disk: what an attempt kept, or a stranger changed, is compared with and never believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.data.model import Status
from tests.crash.kit import MiB, content, write
from tests.engine.kit import NO_FIX, fixes, record, rot, run, snapshotted, state_of, volume_of

SIZE = 16 * MiB


@pytest.fixture
def interrupted(engine: Any, killer: Any) -> str:
    """A snapshot in "a" whose copy to "b" was killed after two windows."""
    disk = engine.create_virtual_disk("a", SIZE)
    write(engine, "a", disk, *(f"write -P {number + 1} {number * 2}M 2M" for number in range(8)))
    snapshot = engine.create_snapshot("a", disk)
    engine.copy_image("b", snapshot, options=NO_FIX)
    killer.at_checkpoint(2, "b", "B-COPY")
    assert "goes on at 4.0 MiB" in fixes(engine, "b", "B-COPY")[0].why
    return str(snapshot)


def both_are_intact(engine: Any, snapshot: str, tmp_path: Path) -> None:
    assert content(engine, "b", snapshot, tmp_path) == content(engine, "a", snapshot, tmp_path)
    for repo in "ab":
        assert fixes(engine, repo, deep=True) == []
        assert state_of(engine, repo, snapshot) == Status.OPTIMIZED


def list_of(world: Any, engine: Any) -> Path:
    (found,) = (world.root / "b" / "digests").iterdir()
    return Path(found)


def damage(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_copy_that_goes_on_has_a_digest_and_does_not_tell_the_source(engine, interrupted, tmp_path):
    """What it did not read of the source in this run it has hashed in the copy."""
    run(engine, "b", "B-COPY")
    both_are_intact(engine, interrupted, tmp_path)
    assert record(engine, "b", interrupted).digest == engine.record_digest("a", interrupted)


def test_a_copy_in_one_run_tells_the_source(engine):
    """Since all of it was read anyway."""
    disk = engine.create_virtual_disk("a", SIZE)
    snapshot = engine.create_snapshot("a", disk)
    engine.copy_image("b", snapshot, options=NO_FIX)
    run(engine, "b", "B-COPY")
    assert record(engine, "a", snapshot).digest == record(engine, "b", snapshot).digest != ""


def test_a_list_damaged_between_two_attempts_harms_no_data(engine, world, interrupted, tmp_path):
    """The copy starts again and says so; a list with one wrong bit was once the reason to call both images broken."""
    damage(list_of(world, engine), 5)
    run(engine, "b", "B-COPY")
    both_are_intact(engine, interrupted, tmp_path)


def test_what_was_copied_and_damaged_between_two_attempts_is_copied_again(engine, world, interrupted, tmp_path):
    """The same comparison finds what the storage lost meanwhile."""
    operation = record(engine, "b", interrupted).operation
    assert operation is not None and operation.attempt is not None
    attempt = operation.attempt
    (path,) = (world.root / "b" / "volumes").glob(f"*/{attempt.id}.*")
    damage(path, path.stat().st_size - 100)
    run(engine, "b", "B-COPY")
    assert record(engine, "b", interrupted).volume != attempt
    both_are_intact(engine, interrupted, tmp_path)


def test_a_list_that_is_gone_is_not_needed(engine, world, interrupted, tmp_path):
    """The digest is that of what is in the copy."""
    list_of(world, engine).unlink()
    run(engine, "b", "B-COPY")
    assert record(engine, "b", interrupted).digest == engine.record_digest("a", interrupted)
    both_are_intact(engine, interrupted, tmp_path)


def test_a_wrong_list_of_a_source_does_not_come_along(engine, world, tmp_path):
    """It does not belong to the digest in the record."""
    disk = engine.create_virtual_disk("a", SIZE)
    write(engine, "a", disk, "write -P 1 0 4M")
    snapshot = engine.create_snapshot("a", disk)
    engine.record_digest("a", snapshot)
    damage(world.root / "a" / "digests" / volume_of(world, engine, "a", snapshot).stem, 5)
    engine.copy_image("b", snapshot, options=NO_FIX)
    run(engine, "b", "B-COPY")
    both_are_intact(engine, snapshot, tmp_path)


def test_a_deep_look_at_one_image_reads_all_that_it_is_made_of(engine, world):
    """A snapshot below a disk has rotted: the disk is broken by it, as a deep check of the repository says."""
    disk, snapshot = snapshotted(engine, 2 * MiB, above="write -P 9 0 64k")
    engine.record_digest("a", snapshot)
    rot(volume_of(world, engine, "a", snapshot))
    assert engine.get_image_status("a", disk).status is Status.OPTIMIZED
    alone = engine.get_image_status("a", disk, {"deep": True})
    (whole,) = (image for image in engine.inspect_repository("a", {"deep": True}).images if image.id == disk)
    assert (alone.status, alone.rule, alone.reason) == (whole.status, whole.rule, whole.reason)
    assert alone.status is Status.BROKEN
