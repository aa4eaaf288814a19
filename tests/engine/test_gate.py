"""The gate: what a machine uses is not sealed, replaced, merged, put away or deleted, whoever holds the lease."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator

import pytest

from engine.errors import ImageBusy, Refused, StaleFix

MEBI = 1 << 20


def fixes_of(engine, repo: str, rule: str):
    """What check offers under one rule."""
    return [fix for fix in engine.check_storage_repository(repo) if fix.rule == rule]


@contextlib.contextmanager
def machine(path: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A qemu that has the image open, as a machine has whose holder died, until the end of the block."""
    node = {"driver": "qcow2", "backing": None, "file": {"driver": "file", "filename": path}}
    words = ["qemu-io", *options, f"json:{json.dumps(node)}"]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("length\n")
    process.stdin.flush()
    process.stdout.readline()  # it has opened the image
    try:
        yield process
    finally:
        process.communicate()


def volume_of(world, engine, image: str) -> str:
    """The file of an image's data."""
    repository = engine.context.repository("a")
    return str(repository.volumes.layer(repository.tags.read(image).record.volume).path)


def test_users_of_a_file_are_named_by_process_and_program(world, engine):
    """Who has an image open is asked of the file: process, program, and whether it may write."""
    disk = engine.create_virtual_disk("a", MEBI)
    path = volume_of(world, engine, disk)
    files = engine.doors.files
    assert files.users(path) == []
    with machine(path) as process:
        (user,) = files.users(path)
        assert (user.pid, user.writes) == (process.pid, True)
        assert "qemu-io" in user.command
    with machine(path, "-r"):
        assert [user.writes for user in files.users(path)] == [False]
    assert files.users(path) == []


def test_who_opened_a_file_by_another_name_is_named_too(world, engine, tmp_path):
    """A hard link leads to the same data, and so does a name that the file had before."""
    disk = engine.create_virtual_disk("a", MEBI)
    os.link(volume_of(world, engine, disk), tmp_path / "by-hand")
    with machine(str(tmp_path / "by-hand")) as process, pytest.raises(ImageBusy, match=f"process {process.pid} "):
        engine.create_snapshot("a", disk)


def test_a_lock_of_this_process_is_no_user(world, engine):
    """Asking does not find the asker, and a file that nobody has open has no user."""
    disk = engine.create_virtual_disk("a", MEBI)
    with open(volume_of(world, engine, disk), "rb"):
        assert engine.doors.files.users(volume_of(world, engine, disk)) == []


def test_a_disk_that_a_machine_writes_is_not_snapshotted(world, engine):
    """The holder is dead, the machine is not: the snapshot is refused and names it; afterwards it is made."""
    disk = engine.create_virtual_disk("a", MEBI)
    with machine(volume_of(world, engine, disk)) as process, pytest.raises(ImageBusy) as told:
        engine.create_snapshot("a", disk)
    assert f"process {process.pid}" in told.value.message and "qemu-io" in told.value.message
    assert len(engine.list_images("a")) == 1
    engine.create_snapshot("a", disk)


def test_a_machine_that_only_reads_a_layer_that_it_opened_for_writing_is_a_reader(world, engine):
    """A machine with a node of its own for the file goes on to have a layer open as it was when that is below a
    snapshot; it says by its locks that it does not write to it."""
    disk = engine.create_virtual_disk("a", MEBI)
    path = volume_of(world, engine, disk)
    hold = (
        "import fcntl, os, struct, sys; d = os.open(sys.argv[1], os.O_RDWR);"
        "fcntl.fcntl(d, 37, struct.pack('hhqqi4x', fcntl.F_RDLCK, 0, 100, 1, 0)); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(["python3", "-c", hold, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (user,) = engine.context.repository("a").volumes.users(
            engine.context.repository("a").tags.read(disk).record.volume
        )
        assert (user.pid, user.writes) == (process.pid, False)
        engine.create_snapshot("a", disk)
        process.communicate()


def test_a_disk_that_is_written_without_a_lock_is_not_sealed(world, engine):
    """A loop device locks nothing, nor do some machines, nor does a tool that copies into a file."""
    disk = engine.create_virtual_disk("a", MEBI)
    with open(volume_of(world, engine, disk), "rb") as reading:
        engine.create_snapshot("a", disk)
        reading.read(1)
    with open(volume_of(world, engine, disk), "ab") as writing:
        process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=writing)
    with process, pytest.raises(ImageBusy, match=f"in use by process {process.pid} .*cat"):
        engine.create_snapshot("a", disk)
    engine.create_snapshot("a", disk)


def test_data_that_a_machine_has_open_is_not_deleted(world, engine):
    """Removing is a record; the clean that would delete the file is refused while a machine has it open."""
    disk = engine.create_virtual_disk("a", MEBI)
    path = volume_of(world, engine, disk)
    engine.remove_image("a", disk)
    (fix,) = fixes_of(engine, "a", "C-REMOVED")
    with machine(path, "-r"), pytest.raises(ImageBusy, match="in use by process"):
        engine.run_fix_here("a", fix)
    assert os.path.exists(path)
    (fix,) = engine.check_storage_repository("a")
    engine.run_fix_here("a", fix)
    assert not os.path.exists(path)


def test_nothing_is_merged_below_a_machine(world, engine):
    """A merge writes neither into what a machine reads nor into what it writes."""
    disk = engine.create_virtual_disk("a", MEBI)
    snapshot = engine.create_snapshot("a", disk)
    engine.remove_image("a", snapshot)
    for path in (volume_of(world, engine, disk), volume_of(world, engine, snapshot)):
        (fix,) = fixes_of(engine, "a", "M-CHAIN")
        with machine(path, "-r"), pytest.raises(ImageBusy):
            engine.run_fix_here("a", fix)
    assert engine.context.repository("a").tags.read(disk).record.operation is None
    (fix,) = fixes_of(engine, "a", "M-CHAIN")
    engine.run_fix_here("a", fix)


def test_a_volume_that_a_machine_has_open_is_not_replaced(world, engine):
    """An optimize that would put another volume in its place waits for the machine to end."""
    disk = engine.create_virtual_disk("a", MEBI)
    engine.set_strategy("a", disk, "performance")
    (fix,) = fixes_of(engine, "a", "O-FORMAT")
    with machine(volume_of(world, engine, disk)), pytest.raises(ImageBusy):
        engine.run_fix_here("a", fix)
    (fix,) = fixes_of(engine, "a", "O-FORMAT")
    engine.run_fix_here("a", fix)


def test_a_snapshot_is_durable_before_it_is_one(world, engine, monkeypatch):
    """The file that a snapshot will be is flushed before any record says so: a machine may never have flushed it."""
    from engine.gate import gate

    disk = engine.create_virtual_disk("a", MEBI)
    order: list[str] = []
    settle, tags = gate.settle, engine.context.repository("a").tags
    publish = tags.publish

    def noted_settle(doors, layer):
        order.append("flush")
        settle(doors, layer)

    def noted_publish(record, expected):
        order.append("publish")
        return publish(record, expected)

    monkeypatch.setattr(gate, "settle", noted_settle)
    monkeypatch.setattr(tags, "publish", noted_publish)
    engine.create_snapshot("a", disk)
    assert order[0] == "flush" and order.count("flush") == 1


def resize(path: str, size: int) -> None:
    """What an operator does by hand."""
    node = {"driver": "qcow2", "backing": None, "file": {"driver": "file", "filename": path}}
    subprocess.run(["qemu-img", "resize", "-q", f"json:{json.dumps(node)}", str(size)], check=True)


def grown(world, engine, disk: str) -> None:
    """Another tool makes the disk longer and writes behind the recorded end."""
    path = volume_of(world, engine, disk)
    resize(path, 2 * MEBI)
    write = f"write -P 5 {MEBI + 4096} 4096"
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", write, path], check=True, capture_output=True)


def test_a_disk_that_another_tool_made_longer_is_told_and_nothing_is_built_on_it(world, engine, tmp_path):
    """Status, reason and both sizes are shown; a snapshot, a copy and an export are refused and name the fix."""
    disk = engine.create_virtual_disk("a", MEBI)
    grown(world, engine, disk)
    report = engine.get_image_status("a", disk)
    assert (report.status, report.rule) == ("degraded", "O-GROWN")
    assert str(2 * MEBI) in report.reason and str(MEBI) in report.reason
    for verb in (
        lambda: engine.create_snapshot("a", disk),
        lambda: engine.copy_image("b", disk, options={"auto_fix": False}),
        lambda: engine.export_image("a", disk, str(tmp_path / "out.raw"), "raw"),
    ):
        with pytest.raises(Refused, match="O-GROWN"):
            verb()
    engine.set_strategy("a", disk, "performance")
    assert [fix.rule for fix in engine.check_storage_repository("a")] == ["O-GROWN"]


def test_the_new_size_is_adopted_and_what_was_written_there_stays(world, engine, tmp_path):
    """The fix shows the size, records it, and touches no data; after it the disk can be exported whole."""
    disk = engine.create_virtual_disk("a", MEBI)
    grown(world, engine, disk)
    (fix,) = fixes_of(engine, "a", "O-GROWN")
    assert fix.plan == {"size": 2 * MEBI}
    engine.run_fix_here("a", fix)
    assert engine.get_image_status("a", disk).status == "optimized"
    out = tmp_path / "out.raw"
    engine.export_image("a", disk, str(out), "raw")
    data = out.read_bytes()
    assert len(data) == 2 * MEBI and data[MEBI + 4096 : MEBI + 8192] == b"\5" * 4096


def test_a_size_that_changed_again_is_not_adopted(world, engine):
    """A fix for one length is stale when the volume has another."""
    disk = engine.create_virtual_disk("a", MEBI)
    grown(world, engine, disk)
    (fix,) = fixes_of(engine, "a", "O-GROWN")
    resize(volume_of(world, engine, disk), 3 * MEBI)
    with pytest.raises(StaleFix):
        engine.run_fix_here("a", fix)


def test_a_snapshot_that_another_tool_made_longer_is_broken(world, engine):
    """What does not change any more has one length: images above it would show what lies behind its end."""
    disk = engine.create_virtual_disk("a", MEBI)
    snapshot = engine.create_snapshot("a", disk)
    path = volume_of(world, engine, snapshot)
    resize(path, 2 * MEBI)
    report = engine.get_image_status("a", snapshot)
    assert (report.status, report.rule) == ("broken", "B-DATA") and str(2 * MEBI) in report.reason


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_what_a_machine_wrote_behind_an_odd_size_is_exported(world, engine, tmp_path, format: str):
    """A machine sees the size rounded up to 4 KiB; what it wrote there is in the export, and nothing is added else."""
    disk = engine.create_virtual_disk("a", MEBI + 100)
    plain, written = tmp_path / "plain", tmp_path / "written"
    engine.export_image("a", disk, str(plain), "raw")
    assert plain.stat().st_size == MEBI + 100
    write = f"write -P 7 {MEBI} 1024"
    path = volume_of(world, engine, disk)
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", write, path], check=True, capture_output=True)
    engine.export_image("a", disk, str(written), format)
    raw = tmp_path / "raw"
    subprocess.run(["qemu-img", "convert", "-f", format, "-O", "raw", written, raw], check=True)
    assert raw.read_bytes()[MEBI:] == b"\7" * 1024
