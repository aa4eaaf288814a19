"""The verbs as the RFC describes them, on real files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.api import Engine
from engine.data.model import MAX_USER_DATA_BYTES, Status
from engine.errors import Ambiguous, BadRequest, Conflict, ImageBusy, NotFound, Refused, StorageError
from tests.crash.kit import SIZE, MiB, content, settle, write

NO_FIX = {"auto_fix": False}


def status(engine, repo, image):
    return engine.get_image_status(repo, image).status


def wait(engine):
    for task in engine.list_tasks():
        engine.wait_for_task(task)


# -- repositories


def test_a_handle_in_use_is_refused_by_name(engine, world):
    """Connecting under a used handle names that handle."""
    with pytest.raises(Conflict, match="'a' is in use"):
        engine.connect_storage_repository("a", "localfs-1.0", {"path": str(world.root / "b")})


def test_storage_that_went_away_is_an_operating_error(engine, world):
    """A connected repository whose directory is gone can be retried; another one is not affected; it works again
    when the directory is back."""
    disk = engine.create_virtual_disk("a", SIZE)
    engine.close()
    (world.root / "a").rename(world.root / "elsewhere")
    with pytest.raises(StorageError, match="storage of a is not there"):
        engine.list_images("a")
    assert engine.list_images("b") == []
    (world.root / "elsewhere").rename(world.root / "a")
    assert [image.id for image in engine.list_images("a")] == [disk]


def test_the_same_storage_under_a_second_handle_is_refused(engine, world, tmp_path):
    """Also through another path to it."""
    (tmp_path / "alias").symlink_to(world.root)
    with pytest.raises(Conflict, match="connected as a"):
        engine.connect_storage_repository("c", "localfs-1.0", {"path": str(tmp_path / "alias" / "a")})


@pytest.mark.parametrize("name", ["", "x" * 65, "a/b", "a\nb", 7])
def test_a_handle_must_be_a_short_printable_name(engine, world, name):
    """Anything else is a bad request."""
    with pytest.raises(BadRequest):
        engine.connect_storage_repository(name, "localfs-1.0", {"path": str(world.root / "a")})


def test_disconnect_is_refused_while_an_image_is_prepared(engine):
    """And works after teardown; connections survive the process."""
    disk = engine.create_virtual_disk("a", SIZE)
    engine.prepare_image("a", disk)
    with pytest.raises(Refused, match="prepared"):
        engine.disconnect_storage_repository("a")
    engine.teardown_image("a", disk)
    engine.disconnect_storage_repository("a")
    assert sorted(engine.list_repositories()) == ["b"]
    assert sorted(Engine(engine.doors, engine.state.directory).list_repositories()) == ["b"]


def test_a_lost_repository_does_not_stop_work_on_the_others(engine, world):
    """Its own verbs fail with a clear error; lookups go on without it."""
    disk = engine.create_virtual_disk("a", SIZE)
    snapshot = engine.create_snapshot("a", disk)
    (world.root / "b").rename(world.root / "gone")
    other = Engine(engine.doors, engine.state.directory)
    with pytest.raises(StorageError, match="storage of b is not there"):
        other.list_images("b")
    assert other.create_virtual_disk("a", SIZE, snapshot)


# -- create


def test_a_new_disk_is_usable_at_once_and_reads_zeros(engine, tmp_path):
    """Under both strategies, with the exact size."""
    for strategy in ("space", "performance"):
        disk = engine.create_virtual_disk("a", 5_000_001, options={"strategy": strategy})
        report = engine.get_image_status("a", disk)
        assert (report.status, report.size_bytes, report.mutable) == (Status.OPTIMIZED, 5_000_001, True)
        assert content(engine, "a", disk, tmp_path) == bytes(5_000_001)


@pytest.mark.parametrize("size", [0, -1, 1 << 60, "10", 1.5, True, None])
def test_impossible_sizes_are_refused(engine, size):
    """Before anything is touched."""
    with pytest.raises(BadRequest):
        engine.create_virtual_disk("a", size)
    assert engine.list_images("a") == []


def test_without_auto_fix_a_disk_is_broken_until_its_mend_ran(engine):
    """The intent is on disk; the fix makes it usable."""
    disk = engine.create_virtual_disk("a", SIZE, options=NO_FIX)
    assert status(engine, "a", disk) == Status.BROKEN
    (fix,) = engine.check_storage_repository("a")
    assert (fix.type, fix.target) == ("mend", disk)
    engine.wait_for_task(engine.fix_storage_repository("a", json.loads(json.dumps(fix.to_json()))))
    assert status(engine, "a", disk) == Status.OPTIMIZED


def test_a_disk_on_a_base_reads_the_base(engine, tmp_path):
    """In the same repository and from another one, under both strategies."""
    disk = engine.create_virtual_disk("a", SIZE)
    write(engine, "a", disk, "write -P 9 0 1M")
    base = engine.create_snapshot("a", disk)
    expected = content(engine, "a", base, tmp_path)
    for repo in ("a", "b"):
        for strategy in ("space", "performance"):
            new = engine.create_virtual_disk(repo, SIZE + MiB, base, options={"strategy": strategy})
            wait(engine)
            assert content(engine, repo, new, tmp_path) == expected + bytes(MiB)


def test_performance_on_a_base_is_usable_first_and_flat_by_a_second_fix(engine, tmp_path):
    """Broken, degraded, optimized: the real path."""
    disk = engine.create_virtual_disk("a", SIZE)
    write(engine, "a", disk, "write -P 9 0 1M")
    base = engine.create_snapshot("a", disk)
    new = engine.create_virtual_disk("a", SIZE, base, options={"strategy": "performance", "auto_fix": False})
    seen = [status(engine, "a", new)]
    for _ in range(2):
        (fix,) = (fix for fix in engine.check_storage_repository("a") if fix.target == new)
        engine.run_fix_here("a", fix)
        seen.append(status(engine, "a", new))
    assert seen == [Status.BROKEN, Status.DEGRADED, Status.OPTIMIZED]
    assert content(engine, "a", new, tmp_path) == content(engine, "a", base, tmp_path)


def test_a_base_must_be_a_snapshot_that_is_there_and_not_larger(engine):
    """Each refusal names the base."""
    disk = engine.create_virtual_disk("a", SIZE)
    snapshot = engine.create_snapshot("a", disk)
    with pytest.raises(Refused, match=disk):
        engine.create_virtual_disk("a", SIZE, disk)
    with pytest.raises(NotFound, match="0" * 32):
        engine.create_virtual_disk("a", SIZE, "0" * 32)
    with pytest.raises(BadRequest, match="smaller"):
        engine.create_virtual_disk("a", SIZE - 4096, snapshot)
    with pytest.raises(BadRequest, match="not an id"):
        engine.create_virtual_disk("a", SIZE, "../../etc/passwd")


# -- snapshots


def test_a_snapshot_keeps_what_the_disk_was(engine, tmp_path):
    """The disk keeps its id and goes on; the snapshot has the new id and does not change."""
    disk = engine.create_virtual_disk("a", SIZE)
    write(engine, "a", disk, "write -P 1 0 64k")
    before = content(engine, "a", disk, tmp_path)
    snapshot = engine.create_snapshot("a", disk, {"name": "before"})
    write(engine, "a", disk, "write -P 2 0 64k")
    assert snapshot != disk
    assert content(engine, "a", snapshot, tmp_path) == before
    assert content(engine, "a", disk, tmp_path)[:65536] == b"\2" * 65536
    assert engine.get_user_data("a", snapshot) == {"name": "before"}
    assert not engine.get_image_status("a", snapshot).mutable


def test_a_snapshot_needs_a_whole_disk_of_that_repository(engine):
    """A snapshot, an unfinished disk and a disk elsewhere are refused."""
    disk = engine.create_virtual_disk("a", SIZE)
    snapshot = engine.create_snapshot("a", disk)
    forming = engine.create_virtual_disk("a", SIZE, options=NO_FIX)
    with pytest.raises(Refused, match="snapshot already"):
        engine.create_snapshot("a", snapshot)
    with pytest.raises(Refused, match="not complete"):
        engine.create_snapshot("a", forming)
    with pytest.raises(NotFound):
        engine.create_snapshot("b", disk)


# -- copies


def test_a_copied_snapshot_keeps_its_id_and_gets_a_digest_on_both_sides(engine, tmp_path):
    """And copying it again is nothing to do."""
    disk = engine.create_virtual_disk("a", SIZE)
    write(engine, "a", disk, "write -P 1 0 1M")
    snapshot = engine.create_snapshot("a", disk)
    assert engine.copy_image("b", snapshot) == snapshot
    wait(engine)
    assert content(engine, "b", snapshot, tmp_path) == content(engine, "a", snapshot, tmp_path)
    records = [engine.context.repository(repo).tags.read(snapshot).record for repo in "ab"]
    assert records[0].digest and records[0].digest == records[1].digest
    assert engine.record_digest("a", snapshot) == records[0].digest
    hints = {"image_hints": {snapshot: "a"}}
    assert engine.copy_image("b", snapshot, options=hints) == snapshot
    assert len(engine.list_images("b")) == 1


def test_a_removed_copy_is_restored_instead_of_copied(engine, tmp_path):
    """Removed but there: the same id comes back, nothing is read."""
    disk = engine.create_virtual_disk("a", SIZE)
    write(engine, "a", disk, "write -P 1 0 1M")
    snapshot = engine.create_snapshot("a", disk)
    engine.copy_image("b", snapshot)
    wait(engine)
    engine.remove_image("b", snapshot)
    assert engine.copy_image("b", snapshot, options=NO_FIX) == snapshot
    assert status(engine, "b", snapshot) == Status.OPTIMIZED


def test_a_purged_copy_can_be_copied_again_under_its_id(engine, tmp_path):
    """The tombstone does not stand in the way."""
    disk = engine.create_virtual_disk("a", SIZE)
    write(engine, "a", disk, "write -P 1 0 1M")
    snapshot = engine.create_snapshot("a", disk)
    for _ in range(2):
        engine.copy_image("b", snapshot)
        wait(engine)
        assert content(engine, "b", snapshot, tmp_path) == content(engine, "a", snapshot, tmp_path)
        engine.remove_image("b", snapshot)
        engine.remove_image("b", snapshot)
        settle(engine, "b")
        assert engine.list_images("b") == []
        engine.remove_image("b", snapshot)


def test_the_rfc_flow_of_eight_steps(engine, tmp_path):
    """An incremental backup of a disk that was never snapshotted, onto a copy of itself."""
    disk = engine.create_virtual_disk("a", 8 * MiB)
    write(engine, "a", disk, "write -P 1 0 4M", "write -P 2 6M 1M")
    first = engine.copy_image("b", disk)
    wait(engine)
    write(engine, "a", disk, "write -P 3 1M 64k", "write -z 6M 64k", "write -P 4 5M 64k")
    second = engine.copy_image("b", disk, first)
    wait(engine)
    assert len({disk, first, second}) == 3
    assert content(engine, "b", second, tmp_path) == content(engine, "a", disk, tmp_path)
    assert content(engine, "b", first, tmp_path) != content(engine, "b", second, tmp_path)
    report = engine.get_image_status("b", second)
    assert report.mutable
    assert report.used_bytes < MiB, "only the difference is in it"
    write(engine, "b", first, "write -P 9 0 64k")
    assert content(engine, "b", second, tmp_path) == content(engine, "a", disk, tmp_path)


def test_a_partial_copy_on_a_base_holds_only_the_difference(engine, tmp_path):
    """Shared lineage: what both have in common is not even read."""
    disk = engine.create_virtual_disk("a", 8 * MiB)
    write(engine, "a", disk, "write -P 1 0 6M")
    base = engine.create_snapshot("a", disk)
    write(engine, "a", disk, "write -P 2 1M 64k", "discard 4M 1M")
    top = engine.create_snapshot("a", disk)
    engine.copy_image("b", base)
    wait(engine)
    assert engine.copy_image("b", top, base, options={"image_hints": {top: "a"}}) == top
    wait(engine)
    assert content(engine, "b", top, tmp_path) == content(engine, "a", top, tmp_path)
    assert engine.get_image_status("b", top).used_bytes < MiB


def test_an_image_in_two_repositories_is_ambiguous_until_a_hint_says_which(engine, world):
    """A wrong hint fails and names the repository; participating_repositories narrows the search."""
    disk = engine.create_virtual_disk("a", SIZE)
    snapshot = engine.create_snapshot("a", disk)
    engine.copy_image("b", snapshot)
    wait(engine)
    engine.create_repository("localfs-1.0", {"path": str(world.root / "c")})
    engine.connect_storage_repository("c", "localfs-1.0", {"path": str(world.root / "c")})
    with pytest.raises(Ambiguous, match="a, b"):
        engine.copy_image("c", snapshot)
    with pytest.raises(NotFound, match="not in b"):
        engine.copy_image("c", disk, options={"image_hints": {disk: "b"}})
    with pytest.raises(NotFound):
        engine.copy_image("c", disk, options={"participating_repositories": ["b"]})
    assert engine.copy_image("c", snapshot, options={"participating_repositories": ["b"]}) == snapshot
    wait(engine)
    assert status(engine, "c", snapshot) == Status.OPTIMIZED


def test_a_copy_whose_source_is_away_waits_for_it_and_says_so(engine):
    """It stays a mend that names what it waits for, and works when the source is back."""
    disk = engine.create_virtual_disk("a", SIZE)
    snapshot = engine.create_snapshot("a", disk)
    engine.copy_image("b", snapshot, options=NO_FIX)
    parameters = engine.list_repositories()["a"].parameters
    engine.disconnect_storage_repository("a")
    (fix,) = engine.check_storage_repository("b")
    assert fix.type == "mend" and snapshot in fix.waits_for
    with pytest.raises(Refused, match="waits for"):
        engine.fix_storage_repository("b", fix)
    engine.connect_storage_repository("again", "localfs-1.0", parameters)
    settle(engine, "b")
    assert status(engine, "b", snapshot) == Status.OPTIMIZED


def test_a_disk_that_was_written_since_is_copied_from_the_start(engine, tmp_path):
    """What was copied before is void; the copy is what the disk is now, and says that it began again."""
    disk = engine.create_virtual_disk("a", SIZE)
    write(engine, "a", disk, "write -P 1 0 1M")
    copy = engine.copy_image("b", disk, options=NO_FIX)
    write(engine, "a", disk, "write -P 2 0 2M")
    settle(engine, "b")
    assert content(engine, "b", copy, tmp_path) == content(engine, "a", disk, tmp_path)


# -- remove, user data, options


def test_removing_twice_is_a_success_and_an_unknown_image_is_not(engine):
    """Children keep reading what was removed below them."""
    disk = engine.create_virtual_disk("a", SIZE)
    engine.remove_image("a", disk)
    engine.remove_image("a", disk)
    settle(engine, "a")
    engine.remove_image("a", disk)
    with pytest.raises(NotFound):
        engine.remove_image("a", "1" * 32)
    with pytest.raises(NotFound):
        engine.get_image_status("a", disk)


def test_a_removed_base_stays_as_long_as_an_image_needs_it(engine, tmp_path):
    """With two dependants it is listed with what keeps it alive; with one it can be merged."""
    disk = engine.create_virtual_disk("a", SIZE)
    write(engine, "a", disk, "write -P 1 0 1M")
    base = engine.create_snapshot("a", disk)
    other = engine.create_virtual_disk("a", SIZE, base)
    engine.remove_image("a", base)
    report = engine.inspect_repository("a")
    assert report.fixes == ()
    assert [finding.subject for finding in report.findings] == [base]
    expected = content(engine, "a", other, tmp_path)
    engine.remove_image("a", disk)
    _, ran = settle(engine, "a")
    assert ran == ["C-REMOVED", "M-CHAIN"]
    assert content(engine, "a", other, tmp_path) == expected


@pytest.mark.parametrize("data", [None, {}, [], "x", 7, {"name": "é\u202e\x1b"}, {"a": {"b": [1, 2.5, True, None]}}])
def test_user_data_is_any_json_and_comes_back_as_it_was(engine, data):
    """Also null, which is not the default."""
    disk = engine.create_virtual_disk("a", SIZE, user_data={"first": 1})
    engine.set_user_data("a", disk, data)
    assert engine.get_user_data("a", disk) == data


def test_user_data_up_to_the_limit_and_not_beyond(engine):
    """The refusal names the limit; what was there stays."""
    disk = engine.create_virtual_disk("a", SIZE)
    largest = "x" * (MAX_USER_DATA_BYTES - 2)
    engine.set_user_data("a", disk, largest)
    with pytest.raises(BadRequest, match="MAX_USER_DATA_BYTES"):
        engine.set_user_data("a", disk, largest + "x")
    deep: list = []
    for _ in range(5000):
        deep = [deep]
    for bad in (float("nan"), {1, 2}, deep, "\ud800"):
        with pytest.raises(BadRequest):
            engine.set_user_data("a", disk, bad)
    assert engine.get_user_data("a", disk) == largest


def test_unknown_options_are_errors_on_every_verb(engine):
    """And known ones are checked."""
    disk = engine.create_virtual_disk("a", SIZE)
    bad = {"surprise": 1}
    calls = [
        lambda o: engine.create_virtual_disk("a", SIZE, options=o),
        lambda o: engine.create_snapshot("a", disk, options=o),
        lambda o: engine.copy_image("b", disk, options=o),
        lambda o: engine.remove_image("a", disk, options=o),
        lambda o: engine.restore_image("a", disk, options=o),
        lambda o: engine.get_image_status("a", disk, options=o),
        lambda o: engine.check_storage_repository("a", options=o),
        lambda o: engine.import_image("a", "/nothing", "raw", options=o),
    ]
    wrong = [bad, {"strategy": "fast"}, {"auto_fix": 1}, {"image_hints": ["x"]}, {"participating_repositories": "a"}, 3]
    for call in calls:
        for options in wrong:
            with pytest.raises(BadRequest):
                call(options)
    assert [image.id for image in engine.list_images("a")] == [disk]


# -- prepare


def test_a_prepared_disk_is_left_alone_and_its_holder_is_named(engine, world):
    """Snapshot, copy, remove and fixes are refused while it is prepared for writing."""
    disk = engine.create_virtual_disk("a", SIZE, options={"strategy": "performance"})
    engine.set_strategy("a", disk, "space")
    (fix,) = engine.check_storage_repository("a")
    engine.prepare_image("a", disk)
    other = world.engine("host-b")
    for call in (
        lambda: other.create_snapshot("a", disk),
        lambda: other.copy_image("b", disk),
        lambda: other.remove_image("a", disk),
        lambda: other.prepare_image("a", disk),
        lambda: other.fix_storage_repository("a", fix),
    ):
        with pytest.raises((ImageBusy, Refused), match=r"host-a|out of date"):
            call()
    assert "host-a" in other.get_image_status("a", disk).busy
    engine.teardown_image("a", disk)
    assert other.create_snapshot("a", disk)


def test_a_dead_holder_means_not_prepared(engine, world):
    """Its lease is gone with it, and nothing else stands in the way."""
    disk = engine.create_virtual_disk("a", SIZE)
    prepared = engine.prepare_image("a", disk)
    engine.doors.processes.kill(prepared.process)
    while engine.doors.processes.state(prepared.process) != "gone":
        engine.doors.clock.sleep(0.001)
    assert engine.list_prepared() == []
    assert not Path(prepared.path).exists()
    world.engine("host-b").remove_image("a", disk)


def test_a_snapshot_is_prepared_read_only_by_many(engine, world):
    """Two hosts at once; never for writing."""
    disk = engine.create_virtual_disk("a", SIZE)
    snapshot = engine.create_snapshot("a", disk)
    with pytest.raises(Refused, match="snapshot"):
        engine.prepare_image("a", snapshot)
    other = world.engine("host-b")
    engine.prepare_image("a", snapshot, writable=False)
    other.prepare_image("a", snapshot, writable=False)
    engine.remove_image("a", snapshot)
    engine.teardown_image("a", snapshot)
    other.teardown_image("a", snapshot)


# -- import and export


@pytest.mark.parametrize("size", [1, 511, 512, 4097, 70_001, 3 * MiB + 5])
@pytest.mark.parametrize("strategy", ["space", "performance"])
def test_raw_in_raw_out_is_the_same_file_to_the_byte(engine, tmp_path, size, strategy):
    """The exact length comes back, whatever the alignment inside."""
    data = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "in.raw").write_bytes(data[:size])
    disk = engine.import_image("a", str(tmp_path / "in.raw"), "raw", options={"strategy": strategy})
    wait(engine)
    assert engine.get_image_status("a", disk).size_bytes == size
    assert content(engine, "a", disk, tmp_path) == data[:size]
    snapshot = engine.create_snapshot("a", disk)
    recorded = engine.context.repository("a").tags.read(snapshot).record.digest
    assert recorded and engine.record_digest("a", snapshot) == recorded


def test_an_export_never_overwrites(engine, tmp_path):
    """The name must be free."""
    disk = engine.create_virtual_disk("a", SIZE)
    (tmp_path / "x").write_text("mine")
    with pytest.raises(Conflict):
        engine.export_image("a", disk, str(tmp_path / "x"), "raw")
    assert (tmp_path / "x").read_text() == "mine"
