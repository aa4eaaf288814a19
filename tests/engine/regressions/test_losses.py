"""Ranges that are lost stay known, and nothing that is not lost is called so."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from typing import Any

import pytest

from engine.api import Engine
from engine.data.model import Risk, Status
from engine.errors import DiskwrightError, ReadFailed, ToolFailed
from engine.fixes import rebuild
from tests.crash.kit import MiB, content, write
from tests.engine.kit import (
    FAST,
    NO_FIX,
    copied,
    fixes,
    record,
    rot,
    run,
    snapshotted,
    state_of,
    volume_of,
)

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
