"""What was written to a volume while nobody had the image prepared is told, with evidence, and never on a guess."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any

import pytest

from engine.data.decoding import decode
from engine.data.model import Risk
from engine.data.records import encode
from engine.errors import Irreversible, Moved, Refused, StaleFix
from engine.survey import survey
from tests.crash.kit import as_a_stranger, as_it_rots, write

MEBI = 1 << 20


def volume_of(engine, repo: str, image: str) -> str:
    """The file of an image's data."""
    repository = engine.context.repository(repo)
    return str(repository.volumes.layer(repository.tags.read(image).record.volume).path)


def record_of(engine, image: str) -> Any:
    """The newest record of an image."""
    return engine.context.repository("a").tags.read(image).record


def stranger(path: str, pattern: int = 9) -> None:
    """Another tool writes into a volume that it opens by hand."""
    node = {"driver": "qcow2", "backing": None, "file": {"driver": "file", "filename": path}}
    words = ["qemu-io", "-c", f"write -P {pattern} 0 64k", f"json:{json.dumps(node)}"]
    with as_a_stranger(path):
        subprocess.run(words, check=True, capture_output=True)


def written_disk(engine) -> Any:
    """A disk that a machine has used, torn down, and that a stranger has written to."""
    disk = engine.create_virtual_disk("a", MEBI)
    write(engine, "a", disk, "write -P 1 0 128k")
    stranger(volume_of(engine, "a", disk))
    return disk


def rules(engine, repo: str = "a") -> list[str]:
    """What check offers."""
    return [fix.rule for fix in engine.check_storage_repository(repo)]


def test_a_disk_that_was_written_to_while_nobody_had_it_is_told_with_evidence(engine):
    """Status, times and lengths, then and now; what would build on it is refused by name, reading it is not."""
    disk = written_disk(engine)
    report = engine.get_image_status("a", disk)
    assert (report.status, report.rule) == ("degraded", "O-WRITTEN")
    assert "while nobody had it prepared" in report.reason
    assert "UTC" in report.facts[0] and "UTC" in report.facts[1]
    engine.set_strategy("a", disk, "performance")
    assert rules(engine) == ["O-WRITTEN"]
    for verb in (
        lambda: engine.create_snapshot("a", disk),
        lambda: engine.copy_image("b", disk, options={"auto_fix": False}),
    ):
        with pytest.raises(Refused, match="O-WRITTEN"):
            verb()


def test_it_is_accepted_after_showing_and_then_it_is_the_content(engine, tmp_path):
    """It cannot be undone, so it has to be said; what was copied before is void, and a remark tells what happened."""
    disk = written_disk(engine)
    out = tmp_path / "out.raw"
    engine.export_image("a", disk, str(out), "raw")
    assert out.read_bytes()[:1] == b"\x09"
    (fix,) = engine.check_storage_repository("a")
    assert fix.risk is Risk.IRREVERSIBLE
    with pytest.raises(Irreversible):
        engine.fix_storage_repository("a", fix)
    before = record_of(engine, disk)
    engine.run_fix_here("a", fix)
    now = record_of(engine, disk)
    assert now.content != before.content and now.write_epoch > before.write_epoch
    assert "written to at" in now.remarks[-1]
    assert engine.get_image_status("a", disk).status == "optimized"
    engine.create_snapshot("a", disk)


def test_what_was_written_again_is_not_accepted(engine):
    """The fix is for what was shown."""
    disk = written_disk(engine)
    (fix,) = engine.check_storage_repository("a")
    stranger(volume_of(engine, "a", disk), 7)
    with pytest.raises(StaleFix):
        engine.run_fix_here("a", fix)


def test_a_machine_may_use_it_and_the_record_keeps_what_was_seen(engine):
    """Preparing is not refused; afterwards only the remark can tell."""
    disk = written_disk(engine)
    write(engine, "a", disk, "write -P 2 0 64k")
    assert engine.get_image_status("a", disk).status == "optimized"
    assert "while nobody had it prepared" in record_of(engine, disk).remarks[-1]


def test_a_snapshot_with_a_digest_is_proven_and_not_believed(engine):
    """A deep check finds that one which was only touched is as it was, and that another content is damage."""
    disk = engine.create_virtual_disk("a", MEBI)
    write(engine, "a", disk, "write -P 1 0 128k")
    snapshot = engine.create_snapshot("a", disk)
    engine.record_digest("a", snapshot)
    path = volume_of(engine, "a", snapshot)
    os.utime(path, ns=(1, 10**18))
    assert engine.get_image_status("a", snapshot).rule == "O-WRITTEN" and rules(engine) == []
    (fix,) = engine.check_storage_repository("a", {"deep": True})
    assert (fix.rule, fix.target, fix.risk) == ("O-WRITTEN", snapshot, Risk.REVERSIBLE)
    engine.run_fix_here("a", fix)
    assert engine.get_image_status("a", snapshot).status == "optimized" and record_of(engine, snapshot).remarks == ()
    with open(path, "r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"\xff")
    assert engine.get_image_status("a", snapshot).rule == "O-WRITTEN"
    assert "O-WRITTEN" not in [fix.rule for fix in engine.check_storage_repository("a", {"deep": True})]
    assert engine.get_image_status("a", snapshot, {"deep": True}).rule == "B-DIGEST"


def test_hidden_data_that_was_written_to_is_not_merged_until_that_is_settled(engine):
    """What images stand on is told too, nothing is offered on top of it, and what cannot be proven is accepted by name
    only; a merge that was offered before is refused."""
    disk = engine.create_virtual_disk("a", MEBI)
    write(engine, "a", disk, "write -P 1 0 128k")
    snapshot = engine.create_snapshot("a", disk)
    engine.remove_image("a", snapshot)
    (merge,) = engine.check_storage_repository("a")
    stranger(volume_of(engine, "a", snapshot))
    engine.set_strategy("a", disk, "performance")
    with pytest.raises((Refused, StaleFix)):
        engine.run_fix_here("a", merge)
    (fix,) = engine.check_storage_repository("a")
    assert (fix.rule, fix.target, fix.risk) == ("O-WRITTEN", snapshot, Risk.LOSES_DATA)
    engine.run_fix_here("a", fix)
    assert sorted(rules(engine)) == ["M-CHAIN", "O-FLAT"]


def test_nothing_of_ours_is_taken_for_a_write_of_a_stranger(engine):
    """Sessions, snapshots, copies, rebuilds and merges write, and no check after them finds that."""
    disk = engine.create_virtual_disk("a", MEBI)
    assert rules(engine) == []
    write(engine, "a", disk, "write -P 1 0 128k")
    snapshot = engine.create_snapshot("a", disk)
    write(engine, "a", disk, "write -P 2 64k 128k")
    engine.copy_image("a", disk, options={"auto_fix": False})
    engine.set_strategy("a", snapshot, "performance")
    engine.remove_image("a", snapshot)
    for _ in range(8):
        found = engine.check_storage_repository("a")
        assert "O-WRITTEN" not in [fix.rule for fix in found]
        if not found:
            break
        engine.run_fix_here("a", found[0])
    assert rules(engine) == []


def test_a_copy_of_a_file_in_its_place_is_no_write(engine, world, tmp_path):
    """cp -a over it, a restored file with another inode, and a tool that keeps whole seconds only: nothing is told."""
    disk = engine.create_virtual_disk("a", MEBI)
    write(engine, "a", disk, "write -P 1 0 128k")
    path, kept = volume_of(engine, "a", disk), str(tmp_path / "kept")
    subprocess.run(["cp", "-a", path, kept], check=True)
    subprocess.run(["cp", "-a", kept, path], check=True)
    assert rules(engine) == []
    os.utime(path, ns=(0, os.stat(path).st_mtime_ns // 10**9 * 10**9))
    assert rules(engine) == []
    os.unlink(path)
    shutil.copyfile(kept, path)
    if record_of(engine, disk).seen.stamp.inode != os.stat(path).st_ino:
        assert rules(engine) == []


def test_a_repository_that_was_copied_is_a_matter_of_its_identity(engine, world, tmp_path):
    """After a restore by copying, whatever the times of the files are, the repository is refused by name; once that is
    accepted, no image is accused."""
    disk = engine.create_virtual_disk("a", MEBI)
    write(engine, "a", disk, "write -P 1 0 128k")
    root = engine.list_repositories()["a"].parameters["path"]
    shutil.move(root, f"{root}.before")
    shutil.copytree(f"{root}.before", root, copy_function=shutil.copyfile)
    with pytest.raises(Moved):
        engine.check_storage_repository("a")
    engine.connect_storage_repository("a", "localfs-1.0", {"path": root}, accept_moved=True)
    assert rules(engine) == []


def test_where_times_of_files_prove_nothing_nothing_is_noted(engine, tmp_path):
    """On storage that the operator vouches for, times may be those of a server."""
    path = str(tmp_path / "elsewhere")
    engine.create_repository("localfs-1.0", {"path": path, "one_host": "yes"})
    engine.connect_storage_repository("c", "localfs-1.0", {"path": path, "one_host": "yes"})
    disk = engine.create_virtual_disk("c", MEBI)
    write(engine, "c", disk, "write -P 1 0 128k")
    stranger(volume_of(engine, "c", disk))
    assert rules(engine, "c") == []


def test_a_record_keeps_what_was_seen_and_one_that_saw_nothing_is_as_before(engine):
    """The bytes of records of older programs do not change; a field that makes no sense is not understood."""
    disk = engine.create_virtual_disk("a", MEBI)
    write(engine, "a", disk, "write -P 1 0 64k")
    record = record_of(engine, disk)
    assert record.seen is not None and decode(encode(record), disk) == record
    assert b"seen" not in encode(record._replace(seen=None))


def test_a_machine_that_begins_while_one_image_is_looked_at_is_no_stranger(engine, monkeypatch):
    """Its record was read before, its file after. Found so: the status of the image accused a machine of ours."""
    disk = engine.create_virtual_disk("a", MEBI)
    write(engine, "a", disk, "write -P 1 0 128k")
    facts = survey._facts

    def begun(*arguments: Any) -> Any:
        monkeypatch.undo()
        engine.prepare_image("a", disk)
        stranger(volume_of(engine, "a", disk))
        return facts(*arguments)

    monkeypatch.setattr(survey, "_facts", begun)
    assert engine.get_image_status("a", disk).rule == ""
    engine.teardown_image("a", disk)


def test_rot_without_a_write_is_not_told(engine):
    """A file whose bytes changed without a write is for digests to find."""
    disk = engine.create_virtual_disk("a", MEBI)
    write(engine, "a", disk, "write -P 1 0 128k")
    path = volume_of(engine, "a", disk)
    with as_it_rots(path), open(path, "r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"\xff")
    assert rules(engine) == []
