"""A tag that is being merged away, a cursor about another volume, sizes: how an image once got wrong content."""

from __future__ import annotations

import pytest

from engine.errors import NotFound, Refused, StaleFix
from engine.fixes import merge
from engine.formats.files.progress import ProgressLogs
from engine.tags import target
from engine.verbs import snapshot as snapshot_verb
from tests.crash.kit import MiB, content, settle, write
from tests.engine.kit import (
    NO_FIX,
    copied,
    fixes,
    once,
    record,
    run,
    snapshotted,
)

# -- a tag that is being merged away is nobody's source and nobody's base


def test_what_a_killed_merge_overwrites_is_no_source_of_a_copy(engine, world, killer):
    """The copy waits and says for what; it never takes the other image's data for its own."""
    disk, snapshot = snapshotted(engine)
    engine.copy_image("b", snapshot, options=NO_FIX)
    engine.remove_image("a", snapshot)
    killer.at_checkpoint(1, "a", "M-CHAIN")
    (fix,) = fixes(engine, "b", "B-COPY")
    assert f"merged into {disk}" in fix.waits_for
    with pytest.raises(Refused, match="waits for"):
        engine.run_fix_here("b", fix)


def test_a_disk_whose_base_is_being_merged_away_here_gets_it_from_elsewhere(engine, world, killer, tmp_path):
    """As a flat copy, so it neither reads what the merge has written nor keeps the merge from ending."""
    _, snapshot = snapshotted(engine, above="")
    good = content(engine, "a", snapshot, tmp_path)
    copied(engine, "b", snapshot)
    other = engine.create_virtual_disk("b", 8 * MiB, snapshot)
    write(engine, "b", other, "write -P 9 0 4M")
    kept = content(engine, "b", other, tmp_path)
    engine.remove_image("b", snapshot)
    killer.at_checkpoint(1, "b", "M-CHAIN")
    new = engine.create_virtual_disk("b", 8 * MiB, snapshot, options=NO_FIX)
    run(engine, "b", "B-CREATE", new)
    assert content(engine, "b", new, tmp_path) == good
    settle(engine, "b")
    assert content(engine, "b", other, tmp_path) == kept
    assert sorted(image.id for image in engine.list_images("b")) == sorted((other, new))


def test_a_merge_that_was_begun_keeps_its_mark_when_it_has_to_stop(engine, world, killer, monkeypatch, tmp_path):
    """Another disk names the half overwritten base in that moment: it must still be told."""
    _, snapshot = snapshotted(engine, above="")
    good = content(engine, "a", snapshot, tmp_path)
    copied(engine, "b", snapshot)
    other = engine.create_virtual_disk("b", 8 * MiB, snapshot)
    write(engine, "b", other, "write -P 9 0 4M")
    engine.remove_image("b", snapshot)
    killer.at_checkpoint(1, "b", "M-CHAIN")
    made: list[str] = []
    late = world.engine("late")
    options = {**NO_FIX, "image_hints": {snapshot: "a"}}
    monkeypatch.setattr(
        merge,
        "_reserve",
        once(lambda: made.append(late.create_virtual_disk("b", 8 * MiB, snapshot, options=options)), merge._reserve),
    )
    with pytest.raises(StaleFix):
        run(engine, "b", "M-CHAIN")
    assert record(engine, "b", snapshot).absorbed_by == other
    run(engine, "b", "B-CREATE", made[0])
    assert content(engine, "b", made[0], tmp_path) == good


def test_a_disk_with_a_reserved_base_is_not_snapshotted(engine, killer, tmp_path):
    """A snapshot would put another tag above the reserved base, and nothing could read either again."""
    disk, snapshot = snapshotted(engine, above="write -P 9 0 64k")
    good = content(engine, "a", disk, tmp_path)
    engine.remove_image("a", snapshot)
    killer.before(merge, "_merging", lambda host: run(host, "a", "M-CHAIN"))
    with pytest.raises(Refused, match="unfinished merge"):
        engine.create_snapshot("a", disk)
    with pytest.raises(Refused, match="unfinished merge"):
        engine.copy_image("a", engine.create_virtual_disk("a", 8 * MiB), disk)
    settle(engine, "a")
    engine.create_snapshot("a", disk)
    assert content(engine, "a", disk, tmp_path) == good


def test_a_deep_check_leaves_a_half_merged_base_alone(engine, killer, tmp_path):
    """It is neither called wrong nor mended, and the merge goes on to the right content."""
    disk, snapshot = snapshotted(engine, above="")
    copied(engine, "b", snapshot)
    write(engine, "a", disk, "write -P 9 0 4M")
    good = content(engine, "a", disk, tmp_path)
    engine.remove_image("a", snapshot)
    killer.at_checkpoint(1, "a", "M-CHAIN")
    assert [fix.rule for fix in fixes(engine, "a", deep=True)] == ["M-CHAIN"]
    run(engine, "a", "M-CHAIN")
    assert content(engine, "a", disk, tmp_path) == good


# -- a cursor is about one volume


def test_a_copy_that_had_to_start_again_never_resumes_in_an_empty_volume(engine, killer, tmp_path):
    """Killed, the source written, killed right after "started again", killed once more."""
    disk = engine.create_virtual_disk("a", 16 * MiB)
    write(engine, "a", disk, "write -P 1 0 12M")
    copy = engine.copy_image("b", disk, options=NO_FIX)
    killer.at_checkpoint(3, "b", "B-COPY")
    write(engine, "a", disk, "write -P 5 0 1M")
    killer.before(target, "drop_scrap", lambda host: run(host, "b", "B-COPY"))
    killer.at_checkpoint(1, "b", "B-COPY")
    run(engine, "b", "B-COPY")
    assert content(engine, "b", copy, tmp_path) == content(engine, "a", disk, tmp_path)


def test_the_log_of_a_purged_copy_feeds_no_cursor_of_the_next_one(engine, killer, tmp_path):
    """Same snapshot, same epoch number, another volume."""
    _, snapshot = snapshotted(engine, 16 * MiB, above="")
    engine.copy_image("b", snapshot, options=NO_FIX)
    killer.at_checkpoint(3, "b", "B-COPY")
    engine.remove_image("b", snapshot)
    run(engine, "b", "C-REMOVED")
    engine.copy_image("b", snapshot, options=NO_FIX)
    killer.before(ProgressLogs, "start", lambda host: run(host, "b", "B-COPY"))
    killer.at_checkpoint(1, "b", "B-COPY")
    run(engine, "b", "B-COPY")
    assert content(engine, "b", snapshot, tmp_path) == content(engine, "a", snapshot, tmp_path)
    assert fixes(engine, "a", deep=True) == [], "and the good source is not told a digest of zeros"


# -- sizes


def test_a_base_larger_than_the_image_is_refused(engine):
    """Three ways to uncover or to lose its data began with that; with the option full all bits are copied."""
    base = engine.create_snapshot("a", engine.create_virtual_disk("a", 8 * MiB))
    small = engine.create_virtual_disk("b", 2 * MiB)
    with pytest.raises(Refused, match="8388608 bytes, more than the 2097152"):
        engine.copy_image("a", small, base, options=NO_FIX)
    copy = engine.copy_image("a", small, base, options={"full": True})
    assert not record(engine, "a", copy).parents()


# -- hidden tags


def test_the_leftover_of_an_interrupted_snapshot_never_becomes_an_image(engine, world, killer):
    """It shares the disk's volume, so it would change with the disk."""
    disk = engine.create_virtual_disk("a", MiB)
    killer.before(snapshot_verb, "_moved", lambda host: host.create_snapshot("a", disk))
    (fix,) = fixes(engine, "a", "C-HIDDEN")
    with pytest.raises(NotFound):
        engine.copy_image("a", fix.target)
    assert [image.id for image in engine.list_images("a")] == [disk]
