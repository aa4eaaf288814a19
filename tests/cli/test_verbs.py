"""The verbs as an operator types them, on real repositories with real images."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests.cli.conftest import Command, connect, start_script, write_disk


def test_an_empty_host_says_what_to_type(run: Command):
    """With nothing connected, the lists are empty and stderr names the next command."""
    done = run("repos")
    assert done.out == "" and "diskwright connect" in done.err
    assert run.json("tasks") == {"host": "host-a", "tasks": [], "prepared": [], "unheld": []}


def test_two_connects_of_one_name_and_of_one_storage_conflict(run: Command, main_repo: str, tmp_path: Path):
    """A name in use and a storage connected already are both conflicts that name the other; nothing changes."""
    run("create-repo", "localfs-1.0", f"path={tmp_path}/two")
    assert "'main' is in use" in run("connect", main_repo, "localfs-1.0", f"path={tmp_path}/two", code=4).err
    assert "connected as main" in run("connect", "again", "localfs-1.0", f"path={tmp_path}/main", code=4).err
    assert [repo["name"] for repo in run.json("repos")["repositories"]] == ["main"]
    said = run("create-repo", "localfs-1.0", f"path={tmp_path}/two", code=4).err
    assert "already" in said
    run("create-disk", main_repo, "1M", "--wait")
    assert run("create-repo", "localfs-1.0", f"path={tmp_path}/main", code=4).err == said.replace("/two", "/main")


def test_what_another_path_was_known_by_is_a_note_and_nothing_accepted(run: Command, main_repo: str, tmp_path: Path):
    """A repository that comes by another path than before: that is told, and "Accepted" is kept for what was asked."""
    (tmp_path / "bind").mkdir()
    run("disconnect", main_repo)
    (tmp_path / "main").rename(tmp_path / "bind" / "main")
    err = run("connect", main_repo, "localfs-1.0", f"path={tmp_path}/bind/main").err
    assert f"Note: it was connected with path={tmp_path}/main." in err and "Accepted" not in err


def test_one_name_of_two_images_is_told_when_it_is_given(run: Command, main_repo: str):
    """A name that another image has, removed ones too, is a note and no refusal; what it may mean is asked by id.
    Whoever gives an id has no other image read for that."""
    first = run.id("create-disk", main_repo, "1M", "--name", "web")
    second = run.id("create-disk", main_repo, "1M", "--name", "db")
    assert "Note: " not in run("rename", main_repo, "db", "db").err
    assert f"Note: {first} in main has the name 'web' too" in run("rename", main_repo, "db", "web").err
    assert "give an id" in run("status", main_repo, "web", code=4).err
    run("remove", main_repo, first)
    err = run("create-snapshot", main_repo, second[:8], "--name", "web").err
    assert f"Note: {min(first, second)} and 1 more in main" in err


def test_what_is_said_by_id_reads_no_other_image(run: Command, main_repo: str, monkeypatch: pytest.MonkeyPatch):
    """Nor is a repository looked at for what is merely told: a name that another image has, names of what is prepared,
    the history of an image."""
    disk = run.id("create-disk", main_repo, "1M", "--name", "web")

    def forbidden(*given: object, **options: object) -> None:
        raise AssertionError("all records were read")

    monkeypatch.setattr("engine.formats.files.tags.Tags.scan", forbidden)
    other = run.id("create-disk", main_repo, "1M", "--name", "web")
    assert "is called web now" in run("rename", main_repo, other, "web").err
    run("prepare", main_repo, disk)
    assert [entry["name"] for entry in run.json("tasks")["prepared"]] == ["web"]
    run("teardown", main_repo, disk)
    assert run.json("log", main_repo, disk)["entries"]


def test_a_restore_of_what_is_there_says_so(run: Command, main_repo: str):
    """An image that was not removed is not said to have come back."""
    disk = run.id("create-disk", main_repo, "1M")
    assert "was not removed" in run("restore", main_repo, disk).err
    run("remove", main_repo, disk)
    assert "is there again" in run("restore", main_repo, disk).err


def test_wrong_paths_are_told_as_such(run: Command, main_repo: str, tmp_path: Path):
    """A path that has no directory names it, exit code 3; what has one that takes nothing is not said to have none."""
    disk = run.id("create-disk", main_repo, "1M")
    (tmp_path / "f.txt").write_text("")
    for directory, code in ((tmp_path / "nosuch", 3), (tmp_path / "f.txt", 3), (tmp_path / "f.txt" / "a", 3)):
        err = run("export", main_repo, disk, f"{directory}/o.raw", "--format", "raw", code=code).err
        assert f"{str(directory)!r}" in err and ".partial" not in err
    assert "path is empty" in run("export", main_repo, disk, "", "--format", "raw", code=2).err
    assert "does not exist" in run("create-repo", "localfs-1.0", f"path={tmp_path}/nosuch/r", code=3).err
    assert "no directory can be made in /proc" in run("create-repo", "localfs-1.0", "path=/proc/foo", code=5).err


def test_an_unfinished_creation_is_called_so(run: Command, main_repo: str):
    """What is told of an image has no name that only records use."""
    assert "Creation has not finished" in run("create-disk", main_repo, "1M", "--no-auto-fix").err
    assert "Creation has not finished" in run("images", main_repo).out


def test_refusals_tell_what_is_so(run: Command, main_repo: str, tmp_path: Path):
    """The limit that counts, the hosts that may work, what a number can be, what a file of fixes is."""
    assert str(1 << 53) not in run("create-disk", main_repo, "9999T", code=2).err
    assert "Every host" not in run("srm", "status", main_repo, code=5).err
    for limit in ("0", "-3", "x"):
        run("images", main_repo, f"--limit={limit}", code=2)
    (tmp_path / "bad.json").write_text("nonsense")
    err = run("fix", main_repo, "--file", tmp_path / "bad.json", code=2).err
    assert "check --json" in err and "Quote" not in err
    assert "can be undone" in run("fix", main_repo, code=2).err


def test_the_list_of_repositories_survives_a_lost_one(run: Command, main_repo: str, backup_repo: str, tmp_path: Path):
    """A repository that is away is listed with its problem, and the others with their free space."""
    (tmp_path / "backup").rename(tmp_path / "elsewhere")
    found = {repo["name"]: repo for repo in run.json("repos")["repositories"]}
    assert found[main_repo]["free_bytes"] > 0 and not found[main_repo]["problem"]
    assert "no directory" in found[backup_repo]["problem"]
    assert "storage of backup is not there" in run("images", backup_repo, code=6).err
    run("disconnect", backup_repo)


def test_the_life_of_a_disk(run: Command, main_repo: str, tmp_path: Path):
    """Create, write, snapshot, export, import, remove, restore: each says what it did, and the data stay right."""
    disk = run.id("create-disk", main_repo, "2M", "--user-data", '{"name": "web"}')
    write_disk(run, main_repo, disk)
    snapshot = run.id("create-snapshot", main_repo, disk[:8])
    write_disk(run, main_repo, disk, "write -P 9 0 64k")
    run("export", main_repo, snapshot, tmp_path / "snapshot.raw", "--format", "raw")
    raw = (tmp_path / "snapshot.raw").read_bytes()
    assert raw == b"\7" * (1 << 20) + bytes(1 << 20)
    assert run("export", main_repo, disk, tmp_path / "snapshot.raw", "--format", "raw", code=4).out == ""
    imported = run.id("import", main_repo, tmp_path / "snapshot.raw", "--format", "raw", "--wait")
    assert run.json("status", main_repo, imported)["usable"]
    run("remove", main_repo, imported)
    states = {image["id"]: image["removed"] for image in run.json("images", main_repo)["images"]}
    assert states == {disk: False, snapshot: False, imported: True}
    assert "REMOVED" in run("images", main_repo).out
    run("restore", main_repo, imported)
    assert "REMOVED" not in run("images", main_repo).out


def test_copies_wait_and_keep_the_id_of_a_snapshot(run: Command, main_repo: str, backup_repo: str):
    """copy --wait returns when the copy is usable; a snapshot keeps its id, a disk gets another,
    and with a base in the target only the difference is kept there."""
    disk = run.id("create-disk", main_repo, "8M")
    write_disk(run, main_repo, disk, "write -P 1 0 4M")
    first = run.id("create-snapshot", main_repo, disk)
    assert run.id("copy", backup_repo, first[:10], "--wait") == first
    write_disk(run, main_repo, disk, "write -P 2 0 64k")
    second = run.id("create-snapshot", main_repo, disk)
    answer = run.json("copy", backup_repo, second, "--base", first[:6], "--wait")
    assert (answer["image"], answer["detached"], answer["status"]["usable"]) == (second, False, True)
    assert run.json("status", backup_repo, second)["used_bytes"] < 2 << 20
    assert run.id("copy", backup_repo, disk, "--hint", f"{disk}=main", "--wait") != disk
    run("digest", main_repo, disk, code=5)
    assert run.json("digest", main_repo, second)["digest"] == run.json("digest", backup_repo, second)["digest"]


def test_an_image_in_two_repositories_is_not_guessed(run: Command, main_repo: str, backup_repo: str, tmp_path: Path):
    """A snapshot that two repositories have is ambiguous as a source until a hint says which."""
    third = connect(run, tmp_path, "third")
    snapshot = run.id("create-snapshot", main_repo, run.id("create-disk", main_repo, "1M"))
    run("copy", backup_repo, snapshot, "--wait")
    assert run("copy", third, snapshot, code=4).err.count("main") == 1
    run("copy", third, snapshot, "--hint", f"{snapshot[:7]}=backup", "--wait")


def test_prefixes_must_be_unique(run: Command, main_repo: str, monkeypatch: pytest.MonkeyPatch):
    """The first digits of an id do where they are unique; else the candidates are named, exit code 4."""
    from engine.tools.local.clock import RealIds

    real = RealIds.new_id
    with monkeypatch.context() as patched:
        patched.setattr(RealIds, "new_id", lambda self: "abcd" + real(self)[4:])
        disks = [run.id("create-disk", main_repo, "1M") for _ in range(2)]
    done = run("status", main_repo, "ABCD", code=4)
    assert all(disk in done.err for disk in disks)
    digits = next(count for count in range(5, 32) if disks[0][:count] != disks[1][:count])
    assert run.json("status", main_repo, disks[0][:digits].upper())["id"] == disks[0]
    assert run("status", main_repo, "abce", code=3).err
    run("remove", main_repo, "abc", code=3)


def test_work_can_be_committed_and_left_to_a_fix(run: Command, main_repo: str, backup_repo: str):
    """--no-auto-fix commits only: the copy is broken, why names the fix, and that fix makes it usable."""
    disk = run.id("create-disk", main_repo, "4M")
    write_disk(run, main_repo, disk)
    snapshot = run.id("create-snapshot", main_repo, disk)
    done = run("copy", backup_repo, snapshot, "--no-auto-fix")
    assert "not usable yet" in done.err and "diskwright why" in done.err
    assert run("copy", backup_repo, snapshot, "--no-auto-fix", "--wait", code=5).out.strip() == snapshot
    why = run.json("why", backup_repo, snapshot)
    assert (why["status"], why["rule"], [fix["rule"] for fix in why["fixes"]]) == ("broken", "B-COPY", ["B-COPY"])
    text = run("why", backup_repo, snapshot).out
    step = next(line for line in text.splitlines() if line.startswith("to do"))
    assert "cannot be used now" in text
    run(*step.split()[3:])
    assert run.json("status", backup_repo, snapshot)["status"] == "optimized"


def test_a_rule_is_explained(run: Command):
    """why RULE tells what a rule means, what its fix does and what to do without one; it needs no repository."""
    data = run.json("why", "C-UNNAMED")
    assert data["rule"] == "C-UNNAMED" and "lost/" in data["does"] and data["if_not"]
    text = run("why", "b-copy").out
    assert text.startswith("B-COPY\nMeans ") and "Waits " in text
    assert "there is no rule" in run("why", "B-NOTHING", code=3).err
    assert "why B-COPY" in run("why", "--help").out


def test_status_tells_the_last_operation(run: Command, main_repo: str):
    """status shows the verb, the host, the stage and the time of the last persisted operation."""
    disk = run.id("create-disk", main_repo, "1M")
    operation = run.json("status", main_repo, disk)["operation"]
    assert (operation["verb"], operation["host"], operation["percent"]) == ("create_disk", "host-a", 100)
    text = run("status", main_repo, disk).out
    assert f"create_disk by host-a, stage {operation['stage']}/{operation['stages']}" in text
    assert "● OPTIMIZED" in text and "busy      no" in text


def test_degraded_always_stands_with_usable(run: Command, main_repo: str, tmp_path: Path):
    """An image that could be better is shown as degraded and, in the same place, as usable."""
    snapshot = run.id("create-snapshot", main_repo, run.id("create-disk", main_repo, "1M"))
    disk = run.id("create-disk", main_repo, "1M", "--base", snapshot, "--strategy", "performance")
    for words in (("images", main_repo), ("status", main_repo, disk), ("why", main_repo, disk), ("check", main_repo)):
        shown = run(*words).out.replace(str(tmp_path), "")
        lines = [line for line in shown.splitlines() if "degraded" in line.lower()]
        assert lines
        assert all("usable" in line.lower() for line in lines), lines
    run("strategy", main_repo, disk, "space")
    assert run.json("status", main_repo, disk)["status"] == "optimized"


def test_prepare_runs_a_command_and_tears_down(run: Command, main_repo: str, tmp_path: Path):
    """The command gets the path in {} and in its environment; its exit code is ours, and nothing stays prepared."""
    disk = run.id("create-disk", main_repo, "1M")
    script = 'test "$DISKWRIGHT_DISK" = "$0" && test -e "$0" && echo "$DISKWRIGHT_DISK_FORMAT" > "$1"; exit 7'
    run("prepare", main_repo, disk, "--", "sh", "-c", script, "{}", tmp_path / "said", code=7)
    assert (tmp_path / "said").read_text(encoding="utf-8") == "qcow2\n"
    run("prepare", main_repo, disk, "--", "sh", "-c", "kill -9 $$", code=137)
    assert "no command" in run("prepare", main_repo, disk, "--", "/nonexistent/x", code=127).err
    assert "annot run" in run("prepare", main_repo, disk, "--", tmp_path, code=126).err
    assert run.json("tasks")["prepared"] == []


def test_prepared_images_are_listed_and_protected(run: Command, main_repo: str):
    """Until teardown a prepared disk is listed, and what would change it is refused naming the host."""
    disk = run.id("create-disk", main_repo, "1M")
    done = run("prepare", main_repo, disk)
    (path,) = done.out.splitlines()
    form = done.err.removeprefix("Format ").partition(".")[0]
    assert os.path.exists(path) and form == "qcow2"
    try:
        listed = run.json("tasks")["prepared"]
        assert [(item["image"], item["path"], item["writable"]) for item in listed] == [(disk, path, True)]
        assert (listed[0]["state"], listed[0]["users"], listed[0]["monitor"]) == ("not open", [], "")
        assert "nobody has it open" in run("tasks").out and str(listed[0]["pid"]) in run("status", main_repo, disk).out
        assert run.json("status", main_repo, disk)["prepared"] == listed
        assert "attach" in run("status", main_repo, disk, "--ask", code=5).err
        assert "to do  None: it is prepared here; what is to be done" in run("why", main_repo, disk).out
        assert "host-a" in run("create-snapshot", main_repo, disk, code=4).err
        assert "host-a" in run("remove", main_repo, disk, code=4).err
        run("prepare", main_repo, disk, code=4)
        run("disconnect", main_repo, code=5)
    finally:
        run("teardown", main_repo, disk)
    assert not os.path.exists(path)
    assert "not prepared" in run("status", main_repo, disk, "--ask", code=5).err
    run("teardown", main_repo, disk, code=3)
    run("disconnect", main_repo)


def test_a_snapshot_is_prepared_only_for_reading(run: Command, main_repo: str):
    """Preparing a snapshot for writing is refused, and the next step says how it can be prepared."""
    snapshot = run.id("create-snapshot", main_repo, run.id("create-disk", main_repo, "1M"))
    assert "read-only" in run("prepare", main_repo, snapshot, code=5).err
    run("prepare", main_repo, snapshot, "--read-only", "--", "qemu-img", "info", "{}")


def test_hostile_text_is_shown_as_escapes(run: Command, main_repo: str, tmp_path: Path):
    """Control characters in file names and errors reach neither stdout nor stderr raw."""
    hostile = "\x1b]0;owned\x07\u202e"
    (tmp_path / "main" / hostile).write_text("x", encoding="utf-8")
    text = run("check", main_repo).out
    assert r"\x1b]0;owned\x07\u202e" in text
    for words in (("check", main_repo, "--json"), ("images", hostile), ("status", main_repo, hostile), (hostile,)):
        done = run(*words, code=None)
        assert not {"\x1b", "\x07", "\u202e"} & set(done.out + done.err)


def test_missing_tools_are_an_operating_error(
    run: Command, main_repo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Without qemu's tools what needs them fails with exit code 6 and names the package; looking still works."""
    disk = run.id("create-disk", main_repo, "1M")
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    done = run("export", main_repo, disk, tmp_path / "out", "--format", "raw", code=6)
    assert "qemu-" in done.err and not (tmp_path / "out").exists()
    assert run.json("export", main_repo, disk, tmp_path / "out", "--format", "raw", code=6)["error"]["code"] == (
        "tool-missing"
    )
    run("images", main_repo)
    run("create-snapshot", main_repo, disk)


def test_a_state_directory_that_cannot_be_written_is_told(run: Command, tmp_path: Path):
    """Where the host's notes cannot be kept, connect fails with exit code 6 and names what it could not write."""
    run("create-repo", "localfs-1.0", f"path={tmp_path}/r")
    (tmp_path / "file").write_text("", encoding="utf-8")
    for place in (tmp_path / "file", Path("/proc/diskwright")):
        done = run("--state", place, "connect", "r", "localfs-1.0", f"path={tmp_path}/r", code=6)
        assert "connections.json" in done.err


READ_ONLY = """
import os, sys
from tui.cli.main import main
assert main(["repos"]) == 0 and main(["disconnect", "nowhere"]) == 3  # loads what it needs
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
codes = [main(["disconnect", "main"]), main(["repos"])]
sys.exit(0 if codes == [6, 0] else f"codes {codes}")
"""


def test_a_read_only_state_directory_is_told(run: Command, monkeypatch: pytest.MonkeyPatch):
    """An operator who may read the state directory and not write it can look, and is told what cannot be written."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        monkeypatch.setenv("DISKWRIGHT_STATE", f"{place}/state")
        run("create-repo", "localfs-1.0", f"path={place}/r")
        run("connect", "main", "localfs-1.0", f"path={place}/r")
        for path in (place, f"{place}/state", f"{place}/state/host-a"):
            os.chmod(path, 0o555)
        os.chmod(f"{place}/state/host-a/connections.json", 0o444)
        process = start_script(READ_ONLY)
        said = process.communicate()[1].decode()
        for path in (place, f"{place}/state", f"{place}/state/host-a"):
            os.chmod(path, 0o755)
    assert process.returncode == 0, said
    assert "connections.json" in said and "Check who owns" in said


def test_what_nobody_foresaw_is_kept_in_a_file(
    run: Command, main_repo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """An unexpected exception is one sentence and exit code 1; its traceback goes to crash.log, and to
    stderr only with DISKWRIGHT_DEBUG."""
    from engine.api import Engine

    def broken(self: Engine, repo_id: str) -> None:
        raise ZeroDivisionError("made up\x1b[31m")

    monkeypatch.setattr(Engine, "inspect_repository", broken)
    done = run("images", main_repo, code=1)
    log = tmp_path / "host-state" / "host-a" / "crash.log"
    assert str(log) in done.err and done.err.count("\n") == 1 and "\x1b" not in done.err
    assert "Traceback" in log.read_text(encoding="utf-8")
    assert run.json("images", main_repo, code=1)["error"]["code"] == "internal"
    monkeypatch.setenv("DISKWRIGHT_DEBUG", "1")
    from tui.cli.main import main

    assert main(["images", main_repo]) == 1
