"""Ways in which an image once got wrong content, or lost some, without anybody being told."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from engine.api import Engine
from engine.data.model import Risk, Status
from engine.errors import Conflict, DiskwrightError, NotFound, ReadFailed, Refused, StaleFix, ToolFailed
from engine.fixes import merge, rebuild
from engine.formats.files.localfs import LocalRepository
from engine.formats.files.progress import ProgressLogs
from engine.formats.files.tags import Tags
from engine.tags import leasing, target
from engine.tools.local.files import RealFiles
from engine.verbs import snapshot as snapshot_verb
from tests.crash.kit import MiB, as_it_rots, content, settle, write
from tests.engine.regress_kit import (
    FAST,
    NO_FIX,
    copied,
    fixes,
    once,
    record,
    run,
    snapshotted,
    state_of,
    volume_of,
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


# -- ranges that are known to be lost


def more(engine: Any, world: Any, *names: str) -> None:
    """Further repositories."""
    for name in names:
        engine.create_repository("localfs-1.0", {"path": str(world.root / name)})
        engine.connect_storage_repository(name, "localfs-1.0", {"path": str(world.root / name)})


def salvaged(engine: Any, world: Any, repo: str, image: str) -> None:
    os.truncate(volume_of(world, engine, repo, image), 4 * MiB)
    run(engine, repo, "B-SALVAGE", image)


def test_lost_ranges_stay_known_in_copies_and_are_no_replica(engine, world, tmp_path):
    """A copy of what was salvaged is degraded too, mends nothing, and the intact replica is still welcome."""
    more(engine, world, "c")
    disk = engine.create_virtual_disk("a", 8 * MiB, options=FAST)
    write(engine, "a", disk, "write -P 1 0 8M")
    snapshot = engine.create_snapshot("a", disk)
    good = content(engine, "a", snapshot, tmp_path)
    copied(engine, "c", snapshot)
    engine.disconnect_storage_repository("c")
    salvaged(engine, world, "a", snapshot)
    copied(engine, "b", snapshot)
    assert engine.get_image_status("b", snapshot).lost == ((4 * MiB, 4 * MiB),)
    assert fixes(engine, "a", "B-REPLICA") == []
    engine.connect_storage_repository("c", "localfs-1.0", {"path": str(world.root / "c")})
    run(engine, "a", "B-REPLICA", snapshot)
    assert content(engine, "a", snapshot, tmp_path) == good


def test_a_merge_hands_down_what_is_lost(engine, world):
    """The disk that swallows a salvaged snapshot says what it has lost."""
    disk = engine.create_virtual_disk("a", 8 * MiB, options=FAST)
    write(engine, "a", disk, "write -P 1 0 8M")
    snapshot = engine.create_snapshot("a", disk)
    salvaged(engine, world, "a", snapshot)
    engine.remove_image("a", snapshot)
    engine.set_strategy("a", disk, "space")
    run(engine, "a", "M-CHAIN")
    assert engine.get_image_status("a", disk).lost == ((4 * MiB, 4 * MiB),)


def test_a_common_ancestor_that_has_lost_ranges_is_not_taken_for_equal(engine, world, tmp_path):
    """What the target lost of it is copied again as a difference."""
    disk = engine.create_virtual_disk("a", 8 * MiB, options=FAST)
    write(engine, "a", disk, "write -P 1 0 8M")
    snapshot = engine.create_snapshot("a", disk, options={"strategy": "space"})
    write(engine, "a", disk, "write -P 2 0 64k")
    copied(engine, "b", snapshot, **FAST)
    parameters = engine.list_repositories()["a"].parameters
    engine.disconnect_storage_repository("a")
    salvaged(engine, world, "b", snapshot)
    engine.connect_storage_repository("a", "localfs-1.0", parameters)
    copy = engine.copy_image("b", disk, snapshot, options=NO_FIX)
    run(engine, "b", "B-COPY", copy)
    assert content(engine, "b", copy, tmp_path) == content(engine, "a", disk, tmp_path)


def test_a_copy_goes_from_a_source_with_losses_to_an_intact_one_from_the_start(engine, world, killer, tmp_path):
    """What was copied of the zeros does not count as what the intact replica holds."""
    disk = engine.create_virtual_disk("a", 8 * MiB, options=FAST)
    write(engine, "a", disk, "write -P 1 0 8M")
    snapshot = engine.create_snapshot("a", disk)
    good = content(engine, "a", snapshot, tmp_path)
    more(engine, world, "c", "d")
    copied(engine, "c", snapshot, digest=False)
    engine.disconnect_storage_repository("c")
    salvaged(engine, world, "a", snapshot)
    engine.copy_image("b", snapshot, options=NO_FIX)
    killer.at_checkpoint(2, "b", "B-COPY")
    engine.connect_storage_repository("c", "localfs-1.0", {"path": str(world.root / "c")})
    run(engine, "b", "B-COPY", snapshot)
    assert engine.get_image_status("b", snapshot).lost == ()
    assert content(engine, "b", snapshot, tmp_path) == good


def mark_corrupt(path: Any) -> None:
    """Set the corrupt bit of a qcow2 header; what is in the image stays."""
    raw = bytearray(path.read_bytes())
    raw[79] |= 2
    path.write_bytes(raw)


def rot(path: Any) -> None:
    """Another byte in what is, in these images, data."""
    raw = bytearray(path.read_bytes())
    raw[-100] ^= 0xFF
    with as_it_rots(path):
        path.write_bytes(raw)


def test_after_a_salvage_a_replica_must_still_meet_the_digest(engine, world):
    """The digest says what the snapshot was; only what is valid of the content is void."""
    snapshot = snapshotted(engine, 2 * MiB, above="")[1]
    copied(engine, "b", snapshot, digest=False)
    engine.record_digest("a", snapshot)
    rot(volume_of(world, engine, "b", snapshot))
    os.truncate(volume_of(world, engine, "a", snapshot), 1536 * 1024)
    mark_corrupt(volume_of(world, engine, "a", snapshot))
    away = engine.list_repositories()["b"].parameters
    engine.disconnect_storage_repository("b")
    run(engine, "a", "B-SALVAGE")
    engine.connect_storage_repository("b", "localfs-1.0", away)
    with pytest.raises(DiskwrightError, match="digest says"):
        run(engine, "a", "B-REPLICA", snapshot)
    assert engine.get_image_status("a", snapshot).lost


def test_accepted_losses_are_not_taken_for_the_snapshot_that_others_have(engine, world):
    """The digest of the zeros tells one from the other."""
    disk = engine.create_virtual_disk("a", 8 * MiB, options=FAST)
    write(engine, "a", disk, "write -P 1 0 8M")
    snapshot = engine.create_snapshot("a", disk)
    copied(engine, "b", snapshot)
    away = engine.list_repositories()["b"].parameters
    engine.disconnect_storage_repository("b")
    salvaged(engine, world, "a", snapshot)
    run(engine, "a", "C-LOSSES", snapshot)
    assert record(engine, "a", snapshot).digest_is_valid
    engine.connect_storage_repository("b", "localfs-1.0", away)
    volume_of(world, engine, "b", snapshot).unlink()
    (fix,) = fixes(engine, "b", "B-REPLICA")
    assert "intact" in fix.waits_for


def test_a_digest_is_never_replaced_by_that_of_rotten_data(engine, world):
    """Asked to record a digest, what is read must be what the one that is there says."""
    snapshot = snapshotted(engine, 2 * MiB, above="")[1]
    digest = engine.record_digest("a", snapshot)
    rot(volume_of(world, engine, "a", snapshot))
    with pytest.raises(DiskwrightError, match="digest says"):
        engine.record_digest("a", snapshot)
    assert record(engine, "a", snapshot).digest == digest


@pytest.mark.parametrize("rule", ["B-REPLICA", "B-SALVAGE"])
def test_a_half_merged_base_that_is_damaged_can_be_mended_and_merged(engine, world, killer, tmp_path, rule):
    """The merge starts over in the mended volume."""
    disk, snapshot = snapshotted(engine, 16 * MiB, above="")
    if rule == "B-REPLICA":
        copied(engine, "b", snapshot)
    write(engine, "a", disk, "write -P 7 0 6M")
    good = content(engine, "a", disk, tmp_path)
    engine.remove_image("a", snapshot)
    killer.at_checkpoint(2, "a", "M-CHAIN")
    mark_corrupt(volume_of(world, engine, "a", snapshot))
    assert state_of(engine, "a", disk) == Status.BROKEN
    run(engine, "a", rule, snapshot)
    run(engine, "a", "M-CHAIN")
    assert content(engine, "a", disk, tmp_path) == good


def test_a_merge_does_not_call_lost_what_the_upper_image_has(engine, world, tmp_path):
    """The upper layer hides the first half of what the snapshot below has lost."""
    disk = engine.create_virtual_disk("a", 8 * MiB, options=FAST)
    write(engine, "a", disk, "write -P 1 0 8M")
    snapshot = engine.create_snapshot("a", disk)
    write(engine, "a", disk, "write -P 2 4M 2M")
    salvaged(engine, world, "a", snapshot)
    engine.remove_image("a", snapshot)
    run(engine, "a", "M-CHAIN")
    assert engine.get_image_status("a", disk).lost == ((6 * MiB, 2 * MiB),)
    assert content(engine, "a", disk, tmp_path)[4 * MiB : 6 * MiB] == b"\2" * (2 * MiB)


class BadBlock:
    """The images door of a host whose disk has a block that cannot be read."""

    def __init__(self, inner: Any, start: int, length: int) -> None:
        self._inner = inner
        self._bad = (start, start + length)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def open_session(self, *arguments: Any, **named: Any) -> Any:
        return BadBlock(self._inner.open_session(*arguments, **named), self._bad[0], self._bad[1] - self._bad[0])

    def read(self, start: int, length: int) -> Any:
        if start < self._bad[1] and self._bad[0] < start + length:
            raise ReadFailed("made up: a bad block", "", start, length, "Input/output error [EIO]")
        return self._inner.read(start, length)

    def stream(self, wanted: Any) -> Any:
        for start, length in wanted:
            yield start, self.read(start, length)


@pytest.mark.parametrize("strategy", ["performance", "space"])
def test_a_bad_block_is_unknown_and_told_by_file_and_offset(engine, world, strategy):
    """It proves nothing about the data: the status is unknown, the evidence is where it is, and what may be done is
    the operator's choice. When it can be read again the image is as good as before."""
    disk = engine.create_virtual_disk("a", 4 * MiB, options={"strategy": strategy})
    write(engine, "a", disk, "write -P 1 0 4M")
    bad = Engine(engine.doors._replace(images=BadBlock(engine.doors.images, MiB + 4096, 512)), engine.state.directory)
    report = bad.inspect_repository("a", {"deep": True})
    (image,) = report.images
    assert (image.status, image.rule) == (Status.UNKNOWN, "U-READ")
    volume = volume_of(world, engine, "a", disk)
    (where,) = [fact for fact in image.facts if "[EIO]" in fact]
    at = {"performance": MiB}.get(strategy) or qemu_offset(str(volume), MiB)
    assert where == f"{volume}: 65536 bytes at {at}: Input/output error [EIO] (byte {MiB} of the image)"
    assert [(fix.rule, fix.risk, fix.status_before) for fix in report.fixes] == [
        ("B-SALVAGE", Risk.LOSES_DATA, Status.UNKNOWN)
    ]
    assert [finding.kind for finding in report.findings] == ["unknown"]
    assert engine.get_image_status("a", disk, {"deep": True}).status == Status.OPTIMIZED


def qemu_offset(path: str, start: int) -> int:
    """Where in a qcow2 file a byte of the image is, as qemu-img says."""
    found = subprocess.run(
        ["qemu-img", "map", "-U", "--output=json", "-f", "qcow2", path], capture_output=True, text=True, check=True
    )
    for extent in json.loads(found.stdout):
        if extent["start"] <= start < extent["start"] + extent["length"]:
            return int(extent["offset"]) + start - int(extent["start"])
    raise AssertionError("it is not there")


def test_a_disk_with_a_bad_block_can_be_salvaged(engine, tmp_path):
    """A deep check finds it, and the salvage which range it is; before, there was no way on."""
    disk = engine.create_virtual_disk("a", 4 * MiB, options=FAST)
    write(engine, "a", disk, "write -P 1 0 4M")
    bad = Engine(engine.doors._replace(images=BadBlock(engine.doors.images, MiB, 4096)), engine.state.directory)
    run(bad, "a", "B-SALVAGE", disk, deep=True)
    assert engine.get_image_status("a", disk).lost == ((MiB, 64 * 1024),)
    assert content(engine, "a", disk, tmp_path)[2 * MiB :] == b"\1" * (2 * MiB)


# -- a dead helper says nothing about the data


def test_a_helper_that_dies_while_salvaging_loses_nothing(engine, world, monkeypatch):
    """The salvage fails, nothing is sealed as lost."""
    disk = engine.create_virtual_disk("a", 4 * MiB)
    write(engine, "a", disk, "write -P 1 0 4M")
    mark_corrupt(volume_of(world, engine, "a", disk))
    original = rebuild._rescue

    def rescue(read: Any, target: Any, start: int, length: int) -> Any:
        with contextlib.suppress(ProcessLookupError):
            os.kill(read._server.pid, signal.SIGKILL)
        return original(read, target, start, length)

    monkeypatch.setattr(rebuild, "_rescue", rescue)
    with pytest.raises(ToolFailed):
        run(engine, "a", "B-SALVAGE")
    report = engine.get_image_status("a", disk)
    assert (report.status, report.lost) == (Status.BROKEN, ())


# -- hidden tags


def test_the_leftover_of_an_interrupted_snapshot_never_becomes_an_image(engine, world, killer):
    """It shares the disk's volume, so it would change with the disk."""
    disk = engine.create_virtual_disk("a", MiB)
    killer.before(snapshot_verb, "_moved", lambda host: host.create_snapshot("a", disk))
    (fix,) = fixes(engine, "a", "C-HIDDEN")
    with pytest.raises(NotFound):
        engine.copy_image("a", fix.target)
    assert [image.id for image in engine.list_images("a")] == [disk]


# -- a source that is damaged does not hide one that is not


def test_a_copy_takes_the_intact_replica_when_its_first_source_is_damaged(engine, world, tmp_path):
    """Also when the copy is only asked for."""
    more(engine, world, "c", "d")
    _, snapshot = snapshotted(engine, 2 * MiB, above="")
    good = content(engine, "a", snapshot, tmp_path)
    copied(engine, "b", snapshot)
    engine.copy_image("c", snapshot, options={**NO_FIX, "image_hints": {snapshot: "a"}})
    volume_of(world, engine, "a", snapshot).unlink()
    run(engine, "c", "B-COPY")
    max((world.root / "a" / "tags").glob(f"*/{snapshot}.*")).write_bytes(b"junk")
    (world.root / "c" / "tags").rename(world.root / "c" / "away")
    other = Engine(engine.doors, engine.state.directory)
    copied(other, "d", snapshot)
    assert content(other, "d", snapshot, tmp_path) == good


# -- what is seen is not what is durable


def syncs(monkeypatch: pytest.MonkeyPatch, world: Any, tag: str) -> list[str]:
    """What happens from now on: syncs of the directory of ``tag``, and names that are deleted."""
    seen: list[str] = []
    originals = {"sync_directory": RealFiles.sync_directory, "unlink": RealFiles.unlink}
    shard = str(world.root / "a" / "tags" / tag[:2])

    def sync(files: RealFiles, path: str) -> None:
        seen.extend(["sync"] if path == shard else [])
        originals["sync_directory"](files, path)

    def unlink(files: RealFiles, path: str) -> None:
        seen.append("unlink")
        originals["unlink"](files, path)

    monkeypatch.setattr(RealFiles, "sync_directory", sync)
    monkeypatch.setattr(RealFiles, "unlink", unlink)
    return seen


def dies_unsynced(killer: Any, seen: Callable[[], bool], act: Callable[[Any], Any]) -> None:
    """A host that acts and dies when what it did is ``seen`` and not yet synced."""
    original = RealFiles.sync_directory

    def sync(files: RealFiles, path: str) -> None:
        if seen():
            killer.world.effects.crash()
        original(files, path)

    killer.instead(RealFiles, "sync_directory", sync, act)
    assert seen()


def test_a_removal_that_is_merely_seen_is_made_durable_before_it_is_acknowledged(engine, world, killer, monkeypatch):
    """Whoever removed it first may have died between the name and its sync."""
    disk = engine.create_virtual_disk("a", MiB)
    dies_unsynced(killer, lambda: not record(engine, "a", disk).strong, lambda host: host.remove_image("a", disk))
    seen = syncs(monkeypatch, world, disk)
    engine.remove_image("a", disk)
    assert seen == ["sync"]


def test_an_old_representation_goes_only_when_its_successor_is_durable(engine, world, killer, monkeypatch):
    """The replacing record is seen, but its writer died before the sync."""
    disk = engine.create_virtual_disk("a", 4 * MiB)
    engine.set_strategy("a", disk, "performance")
    dies_unsynced(killer, lambda: bool(record(engine, "a", disk).scrap), lambda host: run(host, "a", "O-FORMAT"))
    seen = syncs(monkeypatch, world, disk)
    run(engine, "a", "C-SCRAP")
    assert seen[0] == "sync"


def test_a_base_goes_only_when_it_is_durable_that_nothing_needs_it(engine, world, killer, monkeypatch):
    """The record that no longer names the base is another tag's, in another directory."""
    disk, snapshot = snapshotted(engine, above="write -P 9 0 64k")
    while disk[:2] == snapshot[:2]:
        disk, snapshot = snapshotted(engine, above="write -P 9 0 64k")
    engine.remove_image("a", snapshot)
    dies_unsynced(
        killer, lambda: not record(engine, "a", disk).parents(), lambda host: run(host, "a", "M-CHAIN", snapshot)
    )
    before: list[bool] = []
    seen = syncs(monkeypatch, world, disk)
    original = Tags.purge

    def purge(store: Tags, tag: str, expected: int) -> None:
        before.append("sync" in seen)
        original(store, tag, expected)

    monkeypatch.setattr(Tags, "purge", purge)
    run(engine, "a", "C-REMOVED", snapshot)
    assert before == [True]


# -- paused between looking and taking the leases


def merged_away(engine: Any, snapshot: str) -> Any:
    def act() -> None:
        engine.remove_image("a", snapshot)
        run(engine, "a", "M-CHAIN", snapshot)

    return act


def test_an_export_that_was_paused_before_its_leases_does_not_read_another_image(engine, world, monkeypatch, tmp_path):
    """The snapshot was removed and merged into the disk meanwhile: its volume is the disk's now."""
    _, snapshot = snapshotted(engine, above="write -P 9 0 64k")
    monkeypatch.setattr(leasing, "take", once(merged_away(world.engine("host-b"), snapshot), leasing.take))
    with pytest.raises(NotFound):
        content(engine, "a", snapshot, tmp_path)
    assert not list(tmp_path.glob("*.out"))


@pytest.mark.parametrize("what", ["flat", "replica"])
def test_a_copy_that_was_paused_before_its_leases_does_not_read_another_image(engine, world, monkeypatch, what):
    """A flat disk from elsewhere, and a mend from a replica."""
    _, snapshot = snapshotted(engine, above="write -P 9 0 64k")
    if what == "flat":
        target = engine.create_virtual_disk("b", 8 * MiB, snapshot, options={**NO_FIX, **FAST})
    else:
        target = copied(engine, "b", snapshot, digest=False)
        volume_of(world, engine, "b", target).unlink()
    away = merged_away(world.engine("host-b"), snapshot)
    original, source = leasing.take, engine.context.repository("a")
    todo = [away]

    def late(doors: Any, repository: Any, *arguments: Any, **named: Any) -> Any:
        while repository is source and todo:
            todo.pop()()
        return original(doors, repository, *arguments, **named)

    monkeypatch.setattr(leasing, "take", late)
    (fix,) = fixes(engine, "b", target=target)
    with pytest.raises((Refused, Conflict)):
        engine.run_fix_here("b", fix)
    assert not todo
    assert state_of(engine, "b", target) == Status.BROKEN


def test_a_replica_is_proven_by_reading_it_also_where_blocks_can_be_shared(engine, world, monkeypatch, tmp_path):
    """A digest that only stands in the replica's record proves nothing about its blocks."""
    _, snapshot = snapshotted(engine, 2 * MiB, above="")
    copied(engine, "b", snapshot)
    rot(volume_of(world, engine, "b", snapshot))
    volume_of(world, engine, "a", snapshot).unlink()
    can = engine.context.repository("a").constraints()
    monkeypatch.setattr(LocalRepository, "constraints", lambda self: can._replace(reflink=True, direct_io=False))

    def clone(self: RealFiles, source: Any, target: Any) -> bool:
        target.write_at(0, source.read_at(0, source.stat().size))
        return True

    monkeypatch.setattr(RealFiles, "clone", clone)
    with pytest.raises(DiskwrightError, match="digest says"):
        run(engine, "a", "B-REPLICA")
    assert state_of(engine, "a", snapshot) == Status.BROKEN
