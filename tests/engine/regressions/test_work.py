"""Ways in which work once got stuck, went on unseen, or left no word of why it failed."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.api import Engine
from engine.copying import pump
from engine.data.model import Fix, Status
from engine.errors import Conflict, NoSpace, Refused, Stopped, StorageError, Superseded
from engine.fixes import clean, create
from engine.fixes.work import Work
from engine.formats.files.progress import ProgressLogs
from engine.formats.files.repository import FileStore
from engine.formats.files.tags import Tags
from engine.formats.files.volumes import Volumes
from engine.formats.registry import open_repository
from engine.host import merging, runner
from engine.host.state import HostState
from engine.tools.qemu import server
from engine.verbs import export
from tests.contracts.source import ROOT
from tests.crash.kit import MiB, content, settle, write
from tests.doors.children import frozen
from tests.engine.kit import (
    NO_FIX,
    copied,
    fixes,
    last_error,
    once,
    record,
    run,
    snapshotted,
    state_of,
    volume_of,
)


def no_space(*arguments: Any) -> None:
    raise NoSpace("made up: no space left")


def until_free(engine: Any, repo: str, image: str) -> bool:
    """Whether the lease is given up within a minute."""
    clock = engine.doors.clock
    deadline = clock.monotonic() + 60
    while engine.context.repository(repo).leases.held(image):
        if clock.monotonic() > deadline:
            return False
        clock.sleep(0.005)
    return True


# -- holders and tasks that nobody knows of


def prepare_and_die(world: Any, disk: str, kill: dict[str, Any]) -> None:
    """``prepare_image`` in a process that gets a SIGKILL."""
    script = (
        "import sys; from sim.hosts import victim; from engine.api import Engine;"
        "victim.VERBS['prepare_image'] = Engine.prepare_image; sys.exit(victim.main(['/dev/stdin']))"
    )
    spec: dict[str, Any] = {"host": "host-a", "state": str(world.root / "state-host-a"), "verb": "prepare_image"}
    spec |= {"arguments": {"repo_id": "a", "image_id": disk}, "kill": kill}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(spec),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("moment", ["files.rename", "files.make_directory"])
def test_a_holder_without_a_note_ends_with_the_command_that_started_it(engine, world, moment):
    """Killed before the note has its name, or at once, before the holder has even begun to run."""
    disk = engine.create_virtual_disk("a", MiB)
    engine.prepare_image("a", disk)
    engine.teardown_image("a", disk)
    # The directories that a note needs are made anew each time; the first one after the spawn is the last but five.
    kill = {"before": moment} if moment == "files.rename" else {"before": moment, "nth": moments(world, engine, disk)}
    prepare_and_die(world, disk, kill)
    assert until_free(engine, "a", disk)
    assert engine.list_prepared() == []
    engine.remove_image("a", disk)


def moments(world: Any, engine: Any, disk: str) -> int:
    """Which call of make_directory is the first after the holder was started."""
    host = world.engine("host-a", crash_at=0)
    names = world.effects.names
    original = host.doors.processes.spawn
    at: list[int] = []

    def spawn(*arguments: Any) -> Any:
        at.append(names.count("files.make_directory"))
        return original(*arguments)

    host.doors.processes.__dict__["spawn"] = spawn
    host.prepare_image("a", disk)
    host.teardown_image("a", disk)
    return at[0] + 1


def test_a_holder_whose_note_cannot_be_saved_is_ended(engine, monkeypatch):
    """Nobody could ever tear it down."""
    disk = engine.create_virtual_disk("a", MiB)
    with monkeypatch.context() as patch:
        patch.setattr(HostState, "save_prepared", no_space)
        with pytest.raises(NoSpace):
            engine.prepare_image("a", disk)
    assert until_free(engine, "a", disk)


def test_a_task_whose_note_cannot_be_saved_is_ended(engine, monkeypatch):
    """The verb fails and nothing goes on behind its back; the work can be started again."""
    snapshot = snapshotted(engine, 2 * MiB, above="")[1]
    engine.copy_image("b", snapshot, options=NO_FIX)
    (fix,) = fixes(engine, "b")
    with monkeypatch.context() as patch:
        patch.setattr(HostState, "save_task", no_space)
        with pytest.raises(NoSpace):
            engine.fix_storage_repository("b", fix)
    assert until_free(engine, "b", snapshot)
    assert state_of(engine, "b", snapshot) == Status.BROKEN
    settle(engine, "b")
    assert state_of(engine, "b", snapshot) == Status.OPTIMIZED


def test_a_dead_holders_note_is_forgotten_without_harm_to_the_next_one(engine, monkeypatch):
    """Another command read the old note, was paused, and goes on when the image is prepared anew."""
    disk = engine.create_virtual_disk("a", MiB)
    old = engine.prepare_image("a", disk)
    engine.teardown_image("a", disk)
    new = engine.prepare_image("a", disk)
    engine.state.forget_prepared(old)
    assert engine.list_prepared() == [new]
    assert Path(new.path).exists()
    engine.teardown_image("a", disk)


def test_two_commands_that_connect_at_once_are_both_remembered(engine, world, monkeypatch):
    """The second read the list before the first wrote it."""
    for name in "cd":
        engine.create_repository("localfs-1.0", {"path": str(world.root / name)})
    connect = engine.connect_storage_repository
    second = {"path": str(world.root / "d")}
    looked = once(lambda: connect("d", "localfs-1.0", second), open_repository)
    monkeypatch.setattr("engine.host.connecting.open_repository", looked)
    connect("c", "localfs-1.0", {"path": str(world.root / "c")})
    assert sorted(engine.list_repositories()) == ["a", "b", "c", "d"]


def test_a_lease_is_free_when_the_work_is_done_however_slow_its_helpers_end(engine, monkeypatch):
    """Programs that write inherit the lease, and the shell that starts them has a guardian with a copy of it."""
    script = server._SCRIPT.replace("kill -9 $$ ) &", "kill -9 $$; sleep 0.2 ) &")
    assert script != server._SCRIPT
    monkeypatch.setattr(server, "_SCRIPT", script)
    snapshot = snapshotted(engine, 2 * MiB, above="")[1]
    copied(engine, "b", snapshot)
    assert not engine.context.repository("b").leases.held(snapshot)


# -- tasks by the images that people know


def stopped_task(engine: Any, repo: str, fix: Any) -> Any:
    """A task that is frozen, so that it neither ends nor gets anywhere."""
    with frozen(engine.doors.processes):
        return engine.fix_storage_repository(repo, fix, {"irreversible": True})


def test_a_merge_is_stopped_by_the_name_of_the_disk_too(engine):
    """The disk is what people see; what it is merged with was removed."""
    disk, snapshot = snapshotted(engine)
    engine.remove_image("a", snapshot)
    (fix,) = fixes(engine, "a", "M-CHAIN")
    task = stopped_task(engine, "a", fix)
    engine.stop_task("a", disk)
    assert not engine.task_is_running(task)
    assert until_free(engine, "a", disk)


def test_the_storage_that_a_task_reads_from_stays_connected(engine, world):
    """Also when the copy takes a replica instead of the source that its record names."""
    engine.create_repository("localfs-1.0", {"path": str(world.root / "c")})
    engine.connect_storage_repository("c", "localfs-1.0", {"path": str(world.root / "c")})
    _, snapshot = snapshotted(engine, above="")
    copied(engine, "b", snapshot)
    engine.copy_image("c", snapshot, options={**NO_FIX, "image_hints": {snapshot: "a"}})
    volume_of(world, engine, "a", snapshot).unlink()
    (fix,) = fixes(engine, "c", "B-COPY")
    stopped_task(engine, "c", fix)
    for name in "abc":
        with pytest.raises(Refused, match="runs here"):
            engine.disconnect_storage_repository(name)
    engine.stop_task("c", snapshot)


def test_removing_a_disk_ends_the_copy_of_its_base(engine, world, monkeypatch):
    """At the next step, as an operation on the disk itself would end."""
    monkeypatch.setattr(pump, "MIN_WINDOW_BYTES", 2 * MiB)
    _, snapshot = snapshotted(engine, above="")
    disk = engine.create_virtual_disk("b", 8 * MiB, snapshot, options=NO_FIX)
    other, original, seen = world.engine("host-b"), pump.run, []

    def moving(job: Any, cursor: int, checkpoint: Any, *rest: Any) -> int:
        def checked(position: int, percent: int) -> None:
            seen.append(position)
            if len(seen) == 1:
                other.remove_image("b", disk)
            checkpoint(position, percent)

        return original(job, cursor, checked, *rest)

    monkeypatch.setattr(pump, "run", moving)
    with pytest.raises(Superseded):
        run(engine, "b", "B-CREATE", disk)
    assert len(seen) == 1


# -- dead ends


def test_a_deletion_that_was_begun_is_taken_back_for_who_came_to_need_it(engine, killer, monkeypatch, tmp_path):
    """It comes first in the list, and the disk that needs it is mended after it."""
    snapshot = snapshotted(engine, 2 * MiB, above="")[1]
    good = content(engine, "a", snapshot, tmp_path)
    copied(engine, "b", snapshot)
    engine.remove_image("b", snapshot)
    made: list[str] = []

    def late(tags: Any, target: str) -> Any:
        made.append(
            engine.create_virtual_disk("b", 2 * MiB, snapshot, options={**NO_FIX, "image_hints": {snapshot: "a"}})
        )
        killer.world.effects.crash()

    killer.instead(clean, "of", late, lambda host: run(host, "b", "C-REMOVED"))
    back, mended = fixes(engine, "b")
    assert (back.target, mended.target, mended.depends_on) == (snapshot, made[0], (back.id,))
    with pytest.raises(Refused, match="being deleted"):
        engine.run_fix_here("b", mended)
    settle(engine, "b")
    assert content(engine, "b", made[0], tmp_path) == good


def test_a_deletion_whose_data_is_gone_ends_and_the_base_comes_again(engine, killer, tmp_path):
    """Taking it back would leave a base without data."""
    snapshot = snapshotted(engine, 2 * MiB, above="")[1]
    good = content(engine, "a", snapshot, tmp_path)
    copied(engine, "b", snapshot)
    engine.remove_image("b", snapshot)
    killer.before(Tags, "purge", lambda host: run(host, "b", "C-REMOVED"))
    options = {**NO_FIX, "image_hints": {snapshot: "a"}}
    disk = engine.create_virtual_disk("b", 2 * MiB, snapshot, options=options)
    settle(engine, "b")
    assert content(engine, "b", disk, tmp_path) == good


def test_a_progress_log_that_cannot_be_read_neither_stops_the_check_nor_the_work(engine, monkeypatch, tmp_path):
    """The work is done again; somebody who works is still said to."""
    snapshot = snapshotted(engine, 2 * MiB, above="")[1]
    engine.copy_image("b", snapshot, options=NO_FIX)

    def unreadable(self: Any, tag: str, epoch: int) -> bytes:
        raise StorageError("made up: EIO")

    monkeypatch.setattr(ProgressLogs, "read", unreadable)
    lease = engine.context.repository("b").leases.try_acquire(snapshot)
    assert [finding.kind for finding in engine.inspect_repository("b").findings] == ["busy"]
    lease.release()
    run(engine, "b", "B-COPY")
    assert content(engine, "b", snapshot, tmp_path) == content(engine, "a", snapshot, tmp_path)


def test_a_torn_scan_does_not_call_a_disk_broken_whose_base_was_merged_away(engine, world, monkeypatch):
    """The disk's record was read before a merge and a clean, the base's after them."""
    disk, snapshot = snapshotted(engine, 4 * MiB, above="write -P 9 0 4M")
    engine.remove_image("a", snapshot)
    assert fixes(engine, "a", "M-CHAIN")[0].plan["direction"] == "up"
    original = FileStore.scan

    def torn(self: Any) -> Any:
        monkeypatch.setattr(FileStore, "scan", original)
        before = original(self)
        settle(world.engine("host-b"), "a")
        after = original(self)
        return after._replace(tags={**after.tags, disk: before.tags[disk]})

    monkeypatch.setattr(FileStore, "scan", torn)
    assert state_of(engine, "a", disk) == Status.OPTIMIZED


# -- last_error


def test_a_failure_before_the_log_is_there_is_said_in_the_record(engine, monkeypatch):
    """A full disk does not even leave room for the log."""
    snapshot = snapshotted(engine, 2 * MiB, above="")[1]
    engine.copy_image("b", snapshot, options=NO_FIX)
    monkeypatch.setattr(ProgressLogs, "start", no_space)
    with pytest.raises(NoSpace):
        run(engine, "b", "B-COPY")
    assert "made up" in last_error(engine, "b", snapshot)


def test_a_failure_of_the_log_itself_is_said_in_the_record(engine, monkeypatch, killer, tmp_path):
    """In the middle of a copy; the log then says less than the record and goes, the cursor stays."""
    snapshot = snapshotted(engine, above="")[1]
    engine.copy_image("b", snapshot, options=NO_FIX)
    original = ProgressLogs.write

    def bad(self: Any, tag: str, epoch: int, sequence: int, line: bytes) -> None:
        if sequence > 3:
            raise StorageError("made up: EIO")
        original(self, tag, epoch, sequence, line)

    with monkeypatch.context() as patch:
        patch.setattr(ProgressLogs, "write", bad)
        with pytest.raises(StorageError):
            run(engine, "b", "B-COPY")
    assert "made up" in last_error(engine, "b", snapshot)
    settle(engine, "b")
    assert content(engine, "b", snapshot, tmp_path) == content(engine, "a", snapshot, tmp_path)


def test_a_failure_after_the_seal_of_a_merge_is_said(engine, monkeypatch):
    """The image is in order, and the operator still hears that something went wrong."""
    disk, snapshot = snapshotted(engine, 2 * MiB, above="write -P 9 0 64k")
    engine.remove_image("a", snapshot)

    def bad(*arguments: Any) -> None:
        raise StorageError("made up: EIO")

    monkeypatch.setattr(Volumes, "remove", bad)
    with pytest.raises(StorageError):
        run(engine, "a", "M-CHAIN")
    assert "made up" in last_error(engine, "a", disk)
    assert state_of(engine, "a", disk) == Status.OPTIMIZED


def test_a_copy_is_done_when_only_a_note_of_this_host_fails(engine, monkeypatch):
    """Measured throughput is worth nothing against a finished copy."""
    snapshot = snapshotted(engine, 2 * MiB, above="")[1]
    engine.copy_image("b", snapshot, options=NO_FIX)
    monkeypatch.setattr(engine.context, "report_throughput", no_space)
    run(engine, "b", "B-COPY")
    assert state_of(engine, "b", snapshot) == Status.OPTIMIZED


def spec_of(engine: Engine, repo: str, wanted: list[Fix]) -> dict[str, Any]:
    """What a runner of these fixes is told."""
    told = {"host": "host-a", "state": engine.state.directory, "repo_id": repo, "leases": {}}
    return told | {"fixes": [Work(fix).to_json() for fix in wanted]}


def test_a_fault_of_the_program_is_told_persisted_and_ends_one_fix_only(engine, monkeypatch):
    """An event, the image's last_error, exit code 1; the next fix runs."""
    first, second = (engine.create_virtual_disk("a", MiB, options=NO_FIX) for _ in range(2))
    wanted = sorted(fixes(engine, "a", "B-CREATE"), key=lambda fix: fix.target != first)
    original = create.make_disk_volume

    def faulty(repository: Any, wanted: Any) -> None:
        if wanted.id == first:
            raise ZeroDivisionError("made up")
        original(repository, wanted)

    monkeypatch.setattr(create, "make_disk_volume", faulty)
    events: list[dict[str, Any]] = []
    spec = spec_of(engine, "a", wanted)
    assert runner.run(engine.doors, spec, events.append, lambda: False) == 1
    assert [event["event"] for event in events] == ["start", "failed", "start", "done", "end"]
    assert "ZeroDivisionError" in events[1]["error"] and "made up" in events[1]["trace"]
    assert "ZeroDivisionError" in last_error(engine, "a", first)
    assert state_of(engine, "a", second) == Status.OPTIMIZED


def test_a_fault_after_a_copy_is_told_and_the_next_fix_runs(engine, monkeypatch):
    """The copy counts as done: what comes after it nobody has asked for."""
    for _ in range(2):
        engine.create_virtual_disk("a", MiB, options=NO_FIX)
    monkeypatch.setattr(merging, "kept_for", lambda *given: ("a", "kept"))
    monkeypatch.setattr(merging, "after_copy", lambda *given: 1 // 0)
    events: list[dict[str, Any]] = []
    spec = spec_of(engine, "a", fixes(engine, "a", "B-CREATE"))
    assert runner.run(engine.doors, spec, events.append, lambda: False) == 0
    assert [event["event"] for event in events] == ["start", "done", "output"] * 2 + ["end"]
    assert "ZeroDivisionError" in events[2]["error"] and "after_copy" in events[2]["trace"]


def test_fixes_that_were_stopped_before_their_turn_say_that_they_were_not_begun(engine):
    """Each has an event of its own, and the whole ends with the exit code of what was stopped."""
    for _ in range(3):
        engine.create_virtual_disk("a", MiB, options=NO_FIX)
    spec = spec_of(engine, "a", fixes(engine, "a", "B-CREATE"))
    events: list[dict[str, Any]] = []
    assert runner.run(engine.doors, spec, events.append, lambda: len(events) > 1) == Stopped.exit_code
    assert [event["event"] for event in events] == ["start", "done", "failed", "failed", "end"]
    assert all("was not begun" in event["error"] and event["code"] == "stopped" for event in events[2:4])
    assert len(fixes(engine, "a", "B-CREATE")) == 2


def test_a_copy_whose_process_does_not_start_says_so(engine, monkeypatch):
    """The verb has succeeded, its intent is on disk; the status tells why nothing happens, and check offers the fix."""
    snapshot = snapshotted(engine, above="")[1]

    def spawn(*arguments: Any) -> None:
        raise OSError(errno.EAGAIN, "made up")

    monkeypatch.setattr(engine.doors.processes, "spawn", spawn)
    engine.copy_image("b", snapshot)
    assert "it was not begun" in last_error(engine, "b", snapshot)
    assert [fix.rule for fix in fixes(engine, "b")] == ["B-COPY"]


def test_a_fault_in_the_middle_of_a_copy_keeps_its_work(engine, monkeypatch, killer, tmp_path):
    """The record says what happened and where to go on; the log, which says less, is gone."""
    snapshot = snapshotted(engine, above="")[1]
    engine.copy_image("b", snapshot, options=NO_FIX)
    (fix,) = fixes(engine, "b")
    original = pump.run

    def faulty(job: Any, cursor: int, checkpoint: Any, *rest: Any) -> int:
        def checked(position: int, percent: int) -> None:
            checkpoint(position, percent)
            raise ZeroDivisionError("made up")

        return original(job, cursor, checked, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(pump, "run", faulty)
        assert runner.run(engine.doors, spec_of(engine, "b", [fix]), lambda event: None, lambda: False) == 1
    assert "ZeroDivisionError" in last_error(engine, "b", snapshot)
    operation = record(engine, "b", snapshot).operation
    assert operation is not None and operation.cursor == 2 * MiB
    settle(engine, "b")
    assert content(engine, "b", snapshot, tmp_path) == content(engine, "a", snapshot, tmp_path)


# -- what a verb promises


def test_a_committed_verb_does_not_fail_for_what_comes_after(engine, monkeypatch):
    """The disk exists; why it is not usable yet is in its status."""
    monkeypatch.setattr(Volumes, "make", no_space)
    disk = engine.create_virtual_disk("a", MiB)
    assert state_of(engine, "a", disk) == Status.BROKEN
    assert "made up" in last_error(engine, "a", disk)


def test_a_hidden_base_that_becomes_an_image_gets_the_user_data_it_was_copied_with(engine):
    """It had none before: nobody had asked for it as an image."""
    snapshot = snapshotted(engine, 2 * MiB, above="")[1]
    disk = engine.create_virtual_disk("b", 2 * MiB, snapshot, options=NO_FIX)
    run(engine, "b", "B-CREATE", disk)
    assert engine.copy_image("b", snapshot, user_data={"name": "base"}) == snapshot
    assert engine.get_user_data("b", snapshot) == {"name": "base"}
    engine.remove_image("b", snapshot)
    engine.copy_image("b", snapshot, user_data={"name": "other"})
    assert engine.get_user_data("b", snapshot) == {"name": "base"}, "a restored image keeps its own"


def test_two_exports_to_one_name_never_mix(engine, world, monkeypatch, tmp_path):
    """Each writes a file of its own; the one that is later says so and gives nobody else's file its name."""
    first, second = (engine.create_virtual_disk("a", MiB) for _ in range(2))
    write(engine, "a", second, "write -P 7 0 1M")
    target = tmp_path / "out" / "x.raw"
    target.parent.mkdir()
    original = export._fill

    def filled(*arguments: Any) -> None:
        monkeypatch.setattr(export, "_fill", original)
        original(*arguments)
        engine.export_image("a", second, str(target), "raw")

    monkeypatch.setattr(export, "_fill", filled)
    with pytest.raises(Conflict):
        engine.export_image("a", first, str(target), "raw")
    assert target.read_bytes() == b"\7" * MiB
    assert os.listdir(tmp_path / "out") == ["x.raw"]


def test_a_log_without_room_does_not_change_how_work_ended():
    """What could not be written must not be tried again when the process ends: that made every exit code 120."""
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "engine.host.runner", "/nowhere/spec.json"]
        assert subprocess.run(command, check=False, stdout=full, cwd=ROOT).returncode == StorageError.exit_code
