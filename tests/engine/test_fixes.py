"""Statuses, the four types of fix, staleness, stop, damage and how it is mended."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from engine.data.model import Fix, Risk, Status
from engine.errors import BadRequest, Damaged, ImageBusy, NoSpace, Refused, StaleFix, Stopped, StorageError
from engine.triage.health import MAX_CHAIN
from sim.hosts.crash import Crashed, Effects, crashing
from tests.crash.kit import SIZE, MiB, World, as_it_rots, content, nothing_left_over, settle, write

NO_FIX = {"auto_fix": False}


def status(engine, repo, image, **options):
    return engine.get_image_status(repo, image, options).status


def rules(engine, repo, **options):
    return [fix.rule for fix in engine.check_storage_repository(repo, options)]


def volume_of(world, engine, repo, image):
    record = engine.context.repository(repo).tags.read(image).record
    (path,) = (world.root / repo / "volumes").glob(f"*/{record.volume.id}.*")
    return path


def record_of(world, repo, image):
    return max((world.root / repo / "tags").glob(f"*/{image}.*"))


def wait(engine):
    for task in engine.list_tasks():
        engine.wait_for_task(task)


def snapshot_in_both(engine):
    disk = engine.create_virtual_disk("a", SIZE)
    write(engine, "a", disk, "write -P 1 0 1M", "write -P 2 2M 512k")
    snapshot = engine.create_snapshot("a", disk)
    engine.copy_image("b", snapshot)
    wait(engine)
    return disk, snapshot


# -- identity of fixes


def test_the_same_check_twice_gives_the_same_fixes_and_another_host_agrees(engine, world):
    """Ids depend on what is on disk only."""
    engine.create_virtual_disk("a", SIZE, options=NO_FIX)
    removed = engine.create_virtual_disk("a", SIZE)
    engine.remove_image("a", removed)
    ids = [fix.id for fix in engine.check_storage_repository("a")]
    assert len(ids) == 2
    assert ids == [fix.id for fix in world.engine("host-b").check_storage_repository("a")]


def test_a_fix_is_refused_as_stale_when_what_it_read_has_changed(engine):
    """The message names the image; nothing was done."""
    disk = engine.create_virtual_disk("a", SIZE)
    engine.remove_image("a", disk)
    (fix,) = engine.check_storage_repository("a")
    engine.restore_image("a", disk)
    with pytest.raises(StaleFix, match=disk):
        engine.fix_storage_repository("a", fix)
    assert status(engine, "a", disk) == Status.OPTIMIZED


def test_a_new_dependant_makes_a_merge_stale(engine):
    """The set of dependants is part of what the rule looked at."""
    disk = engine.create_virtual_disk("a", SIZE)
    base = engine.create_snapshot("a", disk)
    engine.remove_image("a", base)
    (fix,) = engine.check_storage_repository("a")
    engine.restore_image("a", base)
    engine.create_virtual_disk("a", SIZE, base)
    engine.remove_image("a", base)
    with pytest.raises(StaleFix):
        engine.run_fix_here("a", fix)


def test_a_fix_of_another_repository_or_an_invented_one_is_refused(engine):
    """A Fix carries the identity of what it was computed from."""
    disk = engine.create_virtual_disk("a", SIZE, options=NO_FIX)
    (fix,) = engine.check_storage_repository("a")
    assert Fix.from_json(json.loads(json.dumps(fix.to_json()))) == fix
    with pytest.raises(Refused, match="another repository"):
        engine.fix_storage_repository("b", fix)
    with pytest.raises(StaleFix, match="X-NEW"):
        engine.fix_storage_repository("a", fix._replace(rule="X-NEW"))
    wrong: list[Any] = [{}, {"id": 1}, [], None, "fix", fix.to_json() | {"reads": 3}, fix.to_json() | {"type": "x"}]
    for bad in wrong:
        with pytest.raises(BadRequest):
            engine.fix_storage_repository("a", bad)
    assert status(engine, "a", disk) == Status.BROKEN


def test_running_a_fix_twice_does_it_once(engine):
    """The second run is told that it is out of date."""
    disk = engine.create_virtual_disk("a", SIZE)
    engine.remove_image("a", disk)
    (fix,) = engine.check_storage_repository("a")
    engine.run_fix_here("a", fix)
    with pytest.raises(StaleFix, match="gone"):
        engine.run_fix_here("a", fix)


def test_check_changes_nothing_on_disk(engine, world):
    """Not even times of modification, also when there is much to report."""
    snapshot_in_both(engine)
    engine.create_virtual_disk("a", SIZE, options=NO_FIX)

    def tree():
        return sorted((str(p), p.lstat().st_mtime_ns, p.lstat().st_size) for p in (world.root / "a").rglob("*"))

    before = tree()
    engine.inspect_repository("a")
    engine.inspect_repository("a", {"deep": True})
    assert tree() == before


# -- live work


def test_while_somebody_works_on_an_image_its_fixes_are_findings(engine, world):
    """A second runner is told who works."""
    disk = engine.create_virtual_disk("a", SIZE, options=NO_FIX)
    (fix,) = engine.check_storage_repository("a")
    lease = engine.context.repository("a").leases.try_acquire(disk)
    other = world.engine("host-b")
    report = other.inspect_repository("a")
    assert report.fixes == ()
    assert [(finding.kind, finding.subject) for finding in report.findings] == [("busy", disk)]
    with pytest.raises(ImageBusy, match=disk):
        other.fix_storage_repository("a", fix)
    lease.release()
    assert len(other.check_storage_repository("a")) == 1


def test_a_removal_ends_the_operation_wherever_it_runs(engine, world, tmp_path):
    """The executor stops at its next step, touches nothing more, and the removed copy can be cleaned."""
    disk, _ = snapshot_in_both(engine)
    copy = engine.copy_image("b", disk, options=NO_FIX)
    (fix,) = engine.check_storage_repository("b")
    other = world.engine("host-b")

    class RemovedMeanwhile(Effects):
        def step(self, name):
            super().step(name)
            if name == "images.open_session.flush" and self.names.count(name) == 1:
                other.remove_image("b", copy)

    engine_a = type(engine)(crashing(engine.doors, RemovedMeanwhile()), engine.state.directory)
    with pytest.raises(Exception, match="cancelled or taken over"):
        engine_a.run_fix_here("b", fix)
    assert [image.removed for image in other.list_images("b") if image.id == copy] == [True]
    settle(other, "b")
    nothing_left_over(world, other, "b")


def test_a_stopped_copy_keeps_its_work_and_says_that_it_was_stopped(engine, world):
    """Stop writes last_error; the next host goes on at the cursor."""
    disk = engine.create_virtual_disk("a", 64 * MiB)
    write(engine, "a", disk, "write -P 5 0 60M")
    copy = engine.copy_image("b", disk, options=NO_FIX)
    (fix,) = engine.check_storage_repository("b")
    engine.context.stopping = lambda: True
    with pytest.raises(Stopped):
        engine.run_fix_here("b", fix)
    engine.context.stopping = lambda: False
    report = world.engine("host-b").get_image_status("b", copy)
    assert report.status == Status.BROKEN
    assert "stopped by the operator" in report.operation.last_error
    assert report.operation.host == "host-a"
    settle(engine, "b")
    assert engine.get_image_status("b", copy).operation.last_error == ""


def test_a_full_disk_in_the_middle_of_a_copy_is_said_kept_and_resumed(engine, world, tmp_path):
    """ENOSPC from the target: last_error says so on disk, and with room the same copy goes on."""
    disk = engine.create_virtual_disk("a", 64 * MiB)
    write(engine, "a", disk, "write -P 5 0 60M")
    copy = engine.copy_image("b", disk, options=NO_FIX)
    (fix,) = engine.check_storage_repository("b")

    class Full(Effects):
        def step(self, name):
            super().step(name)
            if name == "images.open_session.write" and self.names.count(name) > 20:
                raise NoSpace("cannot write: No space left on device", "Make room")

    with pytest.raises(NoSpace):
        type(engine)(crashing(engine.doors, Full()), engine.state.directory).run_fix_here("b", fix)
    report = engine.get_image_status("b", copy)
    assert "No space left" in report.operation.last_error
    assert report.operation.percent > 0
    (again,) = engine.check_storage_repository("b")
    assert "goes on at" in again.why
    engine.context.stopping = lambda: True
    with pytest.raises(Stopped):
        engine.run_fix_here("b", again)
    engine.context.stopping = lambda: False
    after = engine.get_image_status("b", copy).operation
    assert (after.stage, after.percent) >= (report.operation.stage, report.operation.percent)
    settle(engine, "b")
    assert content(engine, "b", copy, tmp_path) == content(engine, "a", disk, tmp_path)


# -- optimize


def test_a_changed_strategy_makes_an_image_degraded_and_a_fix_makes_it_what_was_asked(engine, world, tmp_path):
    """Both ways; content, id and user data stay; the old volume is gone."""
    disk = engine.create_virtual_disk("a", SIZE, user_data={"n": 1})
    write(engine, "a", disk, "write -P 1 0 1M")
    expected = content(engine, "a", disk, tmp_path)
    for strategy, suffix in (("performance", ".raw"), ("space", ".qcow2")):
        engine.set_strategy("a", disk, strategy)
        report = engine.get_image_status("a", disk)
        assert report.status == Status.DEGRADED and "usable" in report.reason.lower()
        assert rules(engine, "a") == ["O-FORMAT"]
        settle(engine, "a")
        assert volume_of(world, engine, "a", disk).suffix == suffix
        assert content(engine, "a", disk, tmp_path) == expected
        nothing_left_over(world, engine, "a")
    assert engine.get_user_data("a", disk) == {"n": 1}


def test_a_chain_over_the_threshold_is_flattened_and_opens_fewer_layers(engine, world, tmp_path):
    """Snapshots keep their ids and content."""
    disk = engine.create_virtual_disk("a", SIZE)
    kept = {}
    for number in range(MAX_CHAIN):
        write(engine, "a", disk, f"write -P {number + 1} {number * 64}k 64k")
        snapshot = engine.create_snapshot("a", disk)
        kept[snapshot] = content(engine, "a", snapshot, tmp_path)
    expected = content(engine, "a", disk, tmp_path)
    assert rules(engine, "a") == ["O-DEPTH"]

    def opened():
        prepared = engine.prepare_image("a", disk)
        try:
            command = ["qemu-img", "info", "-U", "--backing-chain", "--output=json", prepared.path]
            return len(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
        finally:
            engine.teardown_image("a", disk)

    assert opened() == MAX_CHAIN + 1
    settle(engine, "a")
    assert opened() == 1
    assert volume_of(world, engine, "a", disk).stat().st_size
    assert content(engine, "a", disk, tmp_path) == expected
    for snapshot, data in kept.items():
        assert content(engine, "a", snapshot, tmp_path) == data


def test_leaked_clusters_are_found_by_a_deep_check_and_given_back(engine, world, tmp_path):
    """Bytes come back; content stays."""
    disk = engine.create_virtual_disk("a", SIZE)
    write(engine, "a", disk, "write -P 1 0 1M")
    expected = content(engine, "a", disk, tmp_path)
    path = volume_of(world, engine, "a", disk)
    with as_it_rots(path), path.open("r+b") as file:  # unmap the L2 table: its clusters stay counted
        l1 = int.from_bytes(file.read()[40:48], "big")
        file.seek(l1)
        table = int.from_bytes(file.read(8), "big") & 0x00FFFFFFFFFFFE00
        file.seek(table + 8 * 8)
        file.write(bytes(8 * 8))
    expected = expected[: 8 * 65536] + bytes(8 * 65536) + expected[16 * 65536 :]
    assert rules(engine, "a") == []
    assert rules(engine, "a", deep=True) == ["O-LEAKS"]
    (fix,) = engine.check_storage_repository("a", {"deep": True})
    assert fix.cost.reclaimed_bytes == 8 * 65536
    engine.run_fix_here("a", fix)
    assert rules(engine, "a", deep=True) == []
    assert content(engine, "a", disk, tmp_path) == expected


def test_an_oversized_representation_is_replaced_by_one_that_takes_less(engine, world, tmp_path):
    """Written zeros that occupy room: found by a deep check, gone after the fix."""
    disk = engine.create_virtual_disk("a", 96 * MiB, options={"strategy": "performance"})
    prepared = engine.prepare_image("a", disk)
    with open(prepared.path, "r+b") as file:
        for _ in range(96):
            file.write(bytes(MiB))
        file.seek(0)
        file.write(b"data" * 1024)
    engine.teardown_image("a", disk)
    before = engine.get_image_status("a", disk).used_bytes
    assert rules(engine, "a", deep=True) == ["O-OVERSIZE"]
    (fix,) = engine.check_storage_repository("a", {"deep": True})
    engine.run_fix_here("a", fix)
    assert engine.get_image_status("a", disk).used_bytes < before / 10
    assert content(engine, "a", disk, tmp_path)[:4] == b"data"
    assert rules(engine, "a", deep=True) == []


def test_a_header_that_contradicts_its_record_is_never_followed_and_is_rewritten(engine, world, tmp_path):
    """The engine reads what the record says; check reports it; the fix mends it; prepare would too."""
    disk = engine.create_virtual_disk("a", SIZE)
    write(engine, "a", disk, "write -P 1 0 1M")
    base = engine.create_snapshot("a", disk)
    expected = content(engine, "a", disk, tmp_path)
    top = volume_of(world, engine, "a", disk)
    for _ in range(2):
        with as_it_rots(top):
            rebase = ["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", top]
            subprocess.run(rebase, check=True)
        assert status(engine, "a", disk) == Status.DEGRADED
        assert content(engine, "a", disk, tmp_path) == expected
        assert rules(engine, "a") == ["O-HEADER"]
        if _:
            settle(engine, "a")
        else:
            write(engine, "a", disk, "write -P 1 0 64k")
        info = json.loads(subprocess.check_output(["qemu-img", "info", "-f", "qcow2", "--output=json", top]))
        assert info["backing-filename"] == f"t-{base}"
        assert rules(engine, "a") == []


# -- merges


def test_merging_into_a_base_that_is_smaller_than_the_disk_grows_it_first(engine, world, tmp_path):
    """The disk keeps its size and content."""
    disk = engine.create_virtual_disk("a", SIZE)
    write(engine, "a", disk, "write -P 1 0 2M")
    base = engine.create_snapshot("a", disk)
    large = engine.create_virtual_disk("a", 2 * SIZE, base)
    write(engine, "a", large, "write -P 2 4M 64k")
    expected = content(engine, "a", large, tmp_path)
    engine.remove_image("a", disk)
    engine.remove_image("a", base)
    settle(engine, "a")
    nothing_left_over(world, engine, "a")
    assert content(engine, "a", large, tmp_path) == expected
    assert engine.get_image_status("a", large).size_bytes == 2 * SIZE


def test_a_disk_written_between_two_attempts_of_a_merge_is_merged_as_it_is_now(engine, world, tmp_path):
    """The cursor of the first attempt is void once somebody wrote."""
    disk = engine.create_virtual_disk("a", 64 * MiB)
    write(engine, "a", disk, "write -P 1 0 60M")
    base = engine.create_snapshot("a", disk)
    write(engine, "a", disk, "write -P 2 0 50M")
    engine.remove_image("a", base)
    (fix,) = engine.check_storage_repository("a")
    assert fix.plan["direction"] == "down"
    victim = World(world.root, *world.names)
    with pytest.raises(Crashed):
        _crash_at_flush(victim, 2).run_fix_here("a", fix)
    victim.bury()
    write(engine, "a", disk, "write -P 3 0 64k", "write -P 4 55M 64k")
    expected = content(engine, "a", disk, tmp_path)
    settle(engine, "a")
    assert content(engine, "a", disk, tmp_path) == expected
    nothing_left_over(world, engine, "a")


def _crash_at_flush(world, number):
    engine = world.engine("host-v", crash_at=0)
    plain = world.effects.step

    def step(name):
        plain(name)
        if world.effects.names.count("images.open_session.flush") == number:
            world.effects.crash()

    world.effects.step = step
    return engine


# -- damage


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


# -- hostile images


@pytest.mark.parametrize("kind", ["backing", "data-file", "json", "encrypted", "text", "directory", "fifo", "link"])
def test_hostile_image_files_are_refused_and_nothing_they_name_is_opened(engine, tmp_path, kind):
    """Import states the format, follows nothing that the file names, and says what is wrong."""
    path = tmp_path / "evil"
    secret = tmp_path / "secret"
    os.mkfifo(secret)  # opening it would hang
    create = ["qemu-img", "create", "-q", "-f", "qcow2"]
    if kind == "backing":
        subprocess.run([*create, "-u", "-b", secret, "-F", "raw", path, "1M"], check=True)
    elif kind == "json":
        name = 'json:{"driver":"file","filename":"/etc/passwd"}'
        subprocess.run([*create, "-u", "-b", name, "-F", "raw", path, "1M"], check=True)
    elif kind == "data-file":
        (tmp_path / "data").write_bytes(b"")
        subprocess.run([*create, "-o", f"data_file={tmp_path / 'data'}", path, "1M"], check=True)
    elif kind == "encrypted":
        secret_option = ["--object", "secret,id=s,data=x"]
        options = ["-o", "encrypt.format=aes,encrypt.key-secret=s"]
        subprocess.run([*create, *secret_option, *options, path, "1M"], check=True)
    elif kind == "text":
        path.write_text("just text\n" * 100)
    elif kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/etc/passwd")
    with pytest.raises((BadRequest, Refused, StorageError), match=r"evil|passwd"):
        engine.import_image("a", str(path), "qcow2")
    assert engine.list_images("a") == []


def test_an_imported_file_that_changes_meanwhile_is_not_sealed(engine, tmp_path):
    """Size, time and inode are pinned when the import is committed."""
    source = tmp_path / "in.raw"
    source.write_bytes(b"1" * MiB)
    image = engine.import_image("a", str(source), "raw", options=NO_FIX)
    source.write_bytes(b"2" * MiB)
    os.utime(source, ns=(1, 1))
    (fix,) = engine.check_storage_repository("a")
    with pytest.raises(Refused, match="not the one"):
        engine.run_fix_here("a", fix)
    assert status(engine, "a", image) == Status.BROKEN


def test_an_unfinished_merge_comes_before_a_rebuild(engine, world, tmp_path):
    """A performance disk in the middle of a merge is offered the merge alone, and ends flat. Found by exploring."""
    disk = engine.create_virtual_disk("a", SIZE, options={"strategy": "performance"})
    write(engine, "a", disk, "write -P 1 0 1M")
    base = engine.create_snapshot("a", disk)
    write(engine, "a", disk, "write -P 2 0 64k")
    expected = content(engine, "a", disk, tmp_path)
    engine.remove_image("a", base)
    fix = next(fix for fix in engine.check_storage_repository("a") if fix.rule == "M-CHAIN")
    victim = World(world.root, *world.names)
    with pytest.raises(Crashed):
        _crash_at_flush(victim, 1).run_fix_here("a", fix)
    victim.bury()
    assert rules(engine, "a") == ["M-CHAIN"]
    settle(engine, "a")
    nothing_left_over(world, engine, "a")
    assert content(engine, "a", disk, tmp_path) == expected


def test_bitmaps_of_another_program_are_reported_and_a_copy_drops_them(engine, world):
    """Persistent dirty bitmaps in a volume, also inconsistent ones, are said and never used; internal snapshots too."""
    disk = engine.create_virtual_disk("a", SIZE)
    prepared = engine.prepare_image("a", disk)
    subprocess.run(["qemu-img", "bitmap", "--add", "-f", "qcow2", prepared.path, "backup"], check=True)
    engine.teardown_image("a", disk)
    report = engine.inspect_repository("a")
    assert [(f.kind, f.subject) for f in report.findings] == [("note", disk)] and "bitmaps" in report.findings[0].text
    assert status(engine, "a", disk) == Status.OPTIMIZED
    prepared = engine.prepare_image("a", disk)
    subprocess.run(["qemu-img", "snapshot", "-c", "before", prepared.path], check=True)
    engine.teardown_image("a", disk)
    (finding,) = engine.inspect_repository("a").findings
    assert "dirty bitmaps and 1 internal snapshots of another program" in finding.text
    engine.copy_image("b", disk)
    wait(engine)
    assert engine.inspect_repository("b").findings == ()
