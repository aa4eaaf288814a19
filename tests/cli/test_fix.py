"""check, plan and fix: what is offered, in which order, what is left alone, and how it ends."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command, write_disk
from tui.cli.follow import Event, Follower
from tui.text.printable import width


@pytest.fixture
def broken(run: Command, main_repo: str, backup_repo: str) -> dict[str, str]:
    """A repository ``backup`` with a copy that was only committed, and an image that was removed."""
    disk = run.id("create-disk", main_repo, "4M")
    write_disk(run, main_repo, disk)
    snapshot = run.id("create-snapshot", main_repo, disk)
    run("copy", backup_repo, snapshot, "--no-auto-fix")
    removed = run.id("create-disk", backup_repo, "1M", "--name", "ci-4411")
    run("remove", backup_repo, removed)
    return {"snapshot": snapshot, "removed": removed}


def damage(tmp_path: Path, repo: str) -> None:
    """Put a volume that no record names into the quarantine: deleting it loses data."""
    (tmp_path / repo / "lost" / ("e" * 32 + ".raw")).write_bytes(b"x" * 4096)


def test_check_lists_counts_fixes_and_the_next_command(run: Command, broken: dict[str, str]):
    """check tells the counts, each fix with rule, image, change and risk, and what to type next."""
    text = run("check", "backup").out
    assert text.startswith("backup: 1 image: 1 broken; 1 removed (holding space).")
    assert "✖ BROKEN → ● OPTIMIZED" in text and "○ REMOVED → GONE" in text
    assert broken["snapshot"] in text and "irreversible" in text
    assert "Next: diskwright plan backup" in text


def test_images_of_fixes_are_told_by_name(run: Command, broken: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    """What check, plan and fix say of an image names it, as text and as data; at 80 columns too, and
    check at 60, with no line over."""
    name, id = "ci-4411", broken["removed"]
    checked = run.json("check", "backup")
    assert checked["names"] == {id: name}
    assert [image["status"] for image in checked["images"] if image["removed"]] == ["removed"]
    assert name in run("check", "backup").out
    assert f"clean C-REMOVED {name} ({id[:8]})" in run("plan", "backup").out
    assert run.json("plan", "backup")["skipped"][0]["name"] == name
    done = run("fix", "backup", "--type", "clean", code=5)
    assert f"clean C-REMOVED {name} ({id[:8]}): it cannot be undone" in done.out
    assert run.json("fix", "backup", "--type", "clean", code=5)["left"][0]["name"] == name
    monkeypatch.setenv("COLUMNS", "80")
    for words in (("check", "backup"), ("plan", "backup"), ("plan", "backup", "--irreversible")):
        text = run(*words).out
        assert name in text and max(map(width, text.splitlines())) <= 80
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(width, run("check", "backup").out.splitlines())) <= 60


def test_plan_changes_nothing_and_adds_up(run: Command, broken: dict[str, str]):
    """plan and fix --dry-run print the same steps with the free space around each, and nothing changes."""
    before = run.json("check", "backup")
    assert [step["fix"]["rule"] for step in run.json("plan", "backup")["steps"]] == ["B-COPY"]
    plan = run.json("plan", "backup", "--irreversible")
    assert [step["fix"]["rule"] for step in plan["steps"]] == ["B-COPY", "C-REMOVED"]
    assert plan["lowest_free_bytes"] == min(step["lowest_free_bytes"] for step in plan["steps"]) < plan["free_bytes"]
    dry = run.json("fix", "backup", "--dry-run", "--irreversible")
    assert [step["fix"]["id"] for step in dry["steps"]] == [step["fix"]["id"] for step in plan["steps"]]
    text = run("plan", "backup", "--type", "clean", "--irreversible").out
    assert "B-COPY" not in text and "Next: diskwright fix backup --type clean --irreversible" in text
    after = run.json("check", "backup")
    assert [fix["id"] for fix in after["fixes"]] == [fix["id"] for fix in before["fixes"]]


def test_fix_all_runs_everything_and_reports(run: Command, broken: dict[str, str]):
    """fix --all mends and cleans; the summary is data, the story narration, and nothing is left to do."""
    done = run("fix", "backup", "--all", "--irreversible")
    assert done.out == "2 done, 0 failed, 0 left.\n"
    assert done.err.count("done      ") == 2
    assert run("check", "backup").out.endswith("Nothing to do.\n")
    assert run.json("fix", "backup", "--all") == {
        "repository": "backup", "done": [], "outdated": [], "failed": [], "left": [],
    }  # fmt: skip


def test_fix_by_type_leaves_the_rest_alone(run: Command, broken: dict[str, str]):
    """--type clean runs no mend."""
    assert len(run.json("fix", "backup", "--type", "clean", "--irreversible")["done"]) == 1
    assert [fix["rule"] for fix in run.json("check", "backup")["fixes"]] == ["B-COPY"]


def test_fix_by_id_runs_only_that_one(run: Command, broken: dict[str, str]):
    """An id, or its first digits, runs that fix and no other; once it ran the id is unknown."""
    fixes = {fix["rule"]: fix["id"] for fix in run.json("check", "backup")["fixes"]}
    assert run.json("fix", "backup", fixes["B-COPY"][:8])["done"] == [fixes["B-COPY"]]
    assert [fix["rule"] for fix in run.json("check", "backup")["fixes"]] == ["C-REMOVED"]
    run("fix", "backup", fixes["B-COPY"], code=3)


def test_fixes_travel_as_files(run: Command, broken: dict[str, str], tmp_path: Path):
    """What check --json printed is run by another host from a file; run a second time it is out of date."""
    document = run("check", "backup", "--json").out
    (tmp_path / "fixes.json").write_text(document, encoding="utf-8")
    for name in ("main", "backup"):
        run("--host", "host-b", "connect", f"{name}-b", "localfs-1.0", f"path={tmp_path}/{name}")
    file = ("--file", tmp_path / "fixes.json", "--irreversible")
    assert len(run.json("--host", "host-b", "fix", "backup-b", *file)["done"]) == 2
    again = run.json("fix", "backup", *file)
    assert (len(again["outdated"]), again["done"], again["failed"]) == (2, [], [])
    (tmp_path / "one.json").write_text(json.dumps(json.loads(document)["fixes"][0]), encoding="utf-8")
    assert "check again" in run("fix", "backup", "--file", tmp_path / "one.json", code=5).err.lower()
    assert run.json("status", "backup", broken["snapshot"])["operation"]["host"] == "host-b"


def test_a_fix_for_another_repository_is_refused(run: Command, broken: dict[str, str], tmp_path: Path):
    """A fix is bound to the storage it was computed from."""
    fix = run.json("check", "backup")["fixes"][0]
    (tmp_path / "one.json").write_text(json.dumps(fix), encoding="utf-8")
    assert "another repository" in run("fix", "main", "--file", tmp_path / "one.json", code=5).err


@pytest.mark.parametrize(
    "text",
    ["", "[]", "7", "{}", "[7]", '{"fixes": []}', '{"fixes": 3}', '[{"id": "x"}]', "[[]]", "nonsense", "[NaN]", "null"],
)
def test_files_that_hold_no_fix_are_refused(run: Command, main_repo: str, tmp_path: Path, text: str):
    """Whatever is in the file, it is a fix or a bad request."""
    (tmp_path / "bad.json").write_text(text, encoding="utf-8")
    run("fix", main_repo, "--file", tmp_path / "bad.json", code=2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cost", {"read_bytes": "many"}),
        ("cost", {"price": 1}),
        ("status_before", []),
        ("waits_for", {}),
        ("wait", {"kind": "weather", "subject": "", "text": "rain"}),
        ("wait", {"kind": "room", "subject": 5, "text": "5 bytes"}),
        ("risk", "none"),
        ("plan", []),
        ("reads", [1]),
        ("why", None),
        ("extra", 1),
    ],
)
def test_a_garbled_fix_is_a_bad_request(
    run: Command, broken: dict[str, str], tmp_path: Path, field: str, value: object
):
    """A fix with one field of the wrong kind is refused; nothing is computed with what a stranger wrote."""
    fix = run.json("check", "backup")["fixes"][0]
    (tmp_path / "bad.json").write_text(json.dumps({**fix, "id": "f" * 16, field: value}), encoding="utf-8")
    run("fix", "backup", "--file", tmp_path / "bad.json", code=2)


def test_what_cannot_be_undone_is_never_run_unasked(run: Command, broken: dict[str, str], tmp_path: Path):
    """A removed image is deleted for ever only with --irreversible, however its fix was chosen: --all leaves it and
    ends with 0, any other choice is refused with 5 after the rest has run, and so is the plan."""
    fixes = {fix["rule"]: fix["id"] for fix in run.json("check", "backup")["fixes"]}
    left = run.json("fix", "backup", "--all")["left"]
    assert [(item["rule"], "--irreversible" in item["why"]) for item in left] == [("C-REMOVED", True)]
    (tmp_path / "fixes.json").write_text(run("check", "backup", "--json").out, encoding="utf-8")
    plan = run.json("plan", "backup", "--irreversible")
    for words in (
        ["--type", "clean"], ["--type", "clean", "--no-wait"], [fixes["C-REMOVED"]],
        ["--file", tmp_path / "fixes.json"], ["--plan", plan["plan"]],
    ):  # fmt: skip
        done = run("fix", "backup", *words, code=5)
        assert "--irreversible" in done.out + done.err or "--no-wait" in words
    assert run.json("fix", "backup", fixes["C-REMOVED"], code=5)["error"]["code"] == "irreversible"
    run("restore", "backup", broken["removed"])
    run("remove", "backup", broken["removed"])
    assert run.json("fix", "backup", "--type", "clean", "--irreversible")["left"] == []
    run("restore", "backup", broken["removed"], code=3)


def test_on_a_terminal_the_name_of_the_repository_is_typed(
    run: Command, broken: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    """What cannot be undone is listed and asked for; only the very name means yes, and --all does not ask."""
    monkeypatch.setattr("tui.cli.confirm.is_terminal", lambda stream: True)
    monkeypatch.setattr("sys.stdin", io.StringIO("\nback\nbackup\n"))
    assert "cannot be undone" not in run("fix", "backup", "--all").err
    assert "Type backup" in run("fix", "backup", "--type", "clean", code=5).err
    run("fix", "backup", "--type", "clean", code=5)
    assert run("fix", "backup", "--type", "clean").out == "1 done, 0 failed, 0 left.\n"


def test_a_file_cannot_say_that_a_deletion_is_reversible(run: Command, broken: dict[str, str], tmp_path: Path):
    """What a stranger wrote about the risk of a fix is verified like the rest of it."""
    (fix,) = (fix for fix in run.json("check", "backup")["fixes"] if fix["rule"] == "C-REMOVED")
    run("--host", "host-b", "connect", "backup-b", "localfs-1.0", f"path={tmp_path}/backup")
    (tmp_path / "one.json").write_text(json.dumps({**fix, "risk": "reversible"}), encoding="utf-8")
    run("--host", "host-b", "fix", "backup-b", "--file", tmp_path / "one.json", code=5)
    run("restore", "backup", broken["removed"])


def test_what_loses_data_is_never_run_unasked(run: Command, main_repo: str, tmp_path: Path):
    """--all and a file of several leave alone what loses data; --irreversible runs it."""
    damage(tmp_path, main_repo)
    lost = tmp_path / main_repo / "lost" / ("e" * 32 + ".raw")
    left = run.json("fix", main_repo, "--all")["left"]
    assert [item["rule"] for item in left] == ["C-LOST"] and "cannot be undone (loses data)" in left[0]["why"]
    assert "loses data" in run("plan", main_repo).out
    (tmp_path / "fixes.json").write_text(run("check", main_repo, "--json").out, encoding="utf-8")
    run("fix", main_repo, "--file", tmp_path / "fixes.json", code=5)
    assert lost.exists()
    run("fix", main_repo, left[0]["fix"], "--irreversible")
    assert not lost.exists()
    damage(tmp_path, main_repo)
    assert len(run.json("fix", main_repo, "--all", "--irreversible")["done"]) == 1
    assert not lost.exists()


def test_a_fix_that_waits_is_left_and_says_for_what(run: Command, broken: dict[str, str]):
    """With the source away --all succeeds with what can be done and lists the mend with what it waits for;
    asked for by id it is refused."""
    run("disconnect", "main")
    outcome = run.json("fix", "backup", "--all", "--irreversible")
    assert len(outcome["done"]) == 1
    assert [(item["rule"], item["image"]) for item in outcome["left"]] == [("B-COPY", broken["snapshot"])]
    assert "waits for" in outcome["left"][0]["why"]
    assert "waits for" in run("fix", "backup", outcome["left"][0]["fix"], code=5).err
    assert "waits for" in run("plan", "backup").out
    assert "waits for" in run("why", "backup", broken["snapshot"]).out


def test_what_a_fix_waits_for_is_named_with_the_command_that_brings_it(
    run: Command, main_repo: str, backup_repo: str, tmp_path: Path
):
    """The image by its name, the repository by the handle it had on this host, and the command that connects it, which
    works as it stands; on a host that never had it connected, that is said."""
    disk = run.id("create-disk", main_repo, "4M")
    snapshot = run.id("create-snapshot", main_repo, disk)
    run("copy", backup_repo, snapshot, "--no-auto-fix", "--user-data", '{"name": "web db"}')
    run("disconnect", "main")
    why = run.json("fix", "backup", "--all")["left"][0]["why"]
    assert f"image web db ({snapshot})" in why and "main, the repository that holds it, is not connected" in why
    command = why.partition("connect it: diskwright ")[2].rstrip(")")
    assert command == f"connect main localfs-1.0 path={tmp_path}/main"
    run("--host", "host-b", "connect", "b", "localfs-1.0", f"path={tmp_path}/backup")
    assert "never was on this host" in run("--host", "host-b", "why", "b", snapshot).out
    run(*command.split())
    assert run.json("fix", "backup", "--all")["left"] == []


def test_a_fix_that_fails_is_tried_once_and_ends_with_its_code(
    run: Command, broken: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A mend that fails gets another id each time; --all still ends, runs the rest, and returns the exit
    code of the failure with the reason in the summary."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    done = run("fix", "backup", "--all", "--irreversible", code=6)
    assert done.err.count("failed    ") == 1 and "qemu-" in done.out
    assert done.out.startswith("1 done, 1 failed, 1 left.")
    assert run.json("status", "backup", broken["snapshot"])["operation"]["last_error"]


def test_a_rate_is_a_size_and_none_of_a_plan(run: Command, broken: dict[str, str]):
    """What is none is told before anything runs; a plan is run as it was shown."""
    run("fix", "backup", "--all", "--rate", "fast", code=2)
    run("fix", "backup", "--plan", "0", "--rate", "1M", code=2)
    run("rate", "backup", broken["snapshot"], "1M", code=3)


def test_no_wait_starts_and_returns(run: Command, broken: dict[str, str]):
    """--no-wait starts one process and returns at once; the work is done without us."""
    started = run.json("fix", "backup", "--all", "--no-wait", "--irreversible")
    assert len(started["started"]) == 2 and started["task"]["pid"] > 0
    from engine.api import Engine
    from engine.assembly import real_doors
    from tui.cli.session import state_directory

    engine = Engine(real_doors("host-a"), state_directory(None, "host-a"))
    for task in engine.list_tasks():
        engine.wait_for_task(task)
    assert run.json("check", "backup")["fixes"] == []
    assert run.json("fix", "backup", "--all", "--no-wait")["started"] == []


def test_named_fixes_whose_turn_never_came_are_told(run: Command, main_repo: str, monkeypatch: pytest.MonkeyPatch):
    """The process died after the first: the second is left, with the reason."""
    for _ in range(2):
        run("create-disk", main_repo, "1M", "--no-auto-fix")
    first, second = (fix["id"] for fix in run.json("check", main_repo)["fixes"])

    original = Follower.run

    def died(follower: Follower) -> list[Event]:
        original(follower)
        return [{"event": "start", "fix": first}]

    monkeypatch.setattr(Follower, "run", died)
    report = run.json("fix", main_repo, first, second, code=6)
    assert [left["fix"] for left in report["left"]] == [second]
    assert report["left"][0]["why"] == "it was not begun: the process ended before its turn"


def test_the_file_of_an_import_is_named_on_another_host(
    run: Command, main_repo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """There --all leaves the import alone and says what it waits for; --path names the file, for that fix alone."""
    file = tmp_path / "in.raw"
    file.write_bytes(b"1" * (1 << 20))
    disk = run.id("import", main_repo, file, "--format", "raw", "--no-auto-fix")
    monkeypatch.setenv("DISKWRIGHT_HOST", "host-b")
    run("connect", main_repo, "localfs-1.0", f"path={tmp_path}/{main_repo}")
    assert "waits for an operator to name its file on this host" in run("fix", main_repo, "--all").out
    (fix,) = run.json("check", main_repo)["fixes"]
    assert "--path" in run("fix", main_repo, "--all", "--path", file, code=2).err
    assert "waits for an operator" in run("fix", main_repo, fix["id"], code=5).err
    run("fix", main_repo, fix["id"], "--path", file)
    assert run.json("status", main_repo, disk)["status"] == "optimized"
