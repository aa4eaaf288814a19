"""plan and fix --plan: what is shown is what is run, and what came of it is what was shown."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from engine.api import Engine
from engine.assembly import real_doors
from tests.cli.conftest import Command, write_disk
from tui.cli.session import state_directory
from tui.view.facts import facts_of
from tui.view.gather import gather
from tui.view.why import explain


@pytest.fixture
def broken(run: Command, main_repo: str, backup_repo: str) -> dict[str, str]:
    """A repository ``backup`` with a copy that was only committed, and an image that was removed."""
    disk = run.id("create-disk", main_repo, "4M")
    write_disk(run, main_repo, disk)
    snapshot = run.id("create-snapshot", main_repo, disk)
    run("copy", backup_repo, snapshot, "--no-auto-fix")
    removed = run.id("create-disk", backup_repo, "1M", "--user-data", '{"name": "ci"}')
    write_disk(run, backup_repo, removed, "write -P 7 0 512k")
    run("remove", backup_repo, removed)
    return {"snapshot": snapshot, "removed": removed}


def test_a_plan_is_run_exactly_and_its_numbers_come_true(run: Command, broken: dict[str, str]):
    """The run does the steps that were shown, in their order; statuses afterwards are those that the plan told."""
    plan = run.json("plan", "backup", "--irreversible")
    done = run.json("fix", "backup", "--plan", plan["plan"], "--irreversible")
    assert [step["rule"] for step in done["steps"]] == [step["fix"]["rule"] for step in plan["steps"]]
    assert [step["state"] for step in done["steps"]] == ["DONE", "DONE"] and done["state"] == "DONE"
    images = run.json("images", "backup")["images"]
    states = [image["status"] for image in images if not image["removed"]]
    assert {state: states.count(state) for state in plan["status_after"] if state != "removed"} == {
        state: count for state, count in plan["status_after"].items() if state != "removed"
    }
    assert plan["status_after"]["removed"] == 0 == sum(image["removed"] for image in images)


def test_the_same_plan_from_the_first_digits_and_in_words(run: Command, broken: dict[str, str]):
    """The text names the command that runs it; its progress is told and the end is one line."""
    text = run("plan", "backup", "--irreversible").out
    command = next(line for line in text.splitlines() if line.startswith("Exactly these steps: "))
    words = command.removeprefix("Exactly these steps: diskwright ").split()
    assert "never     Step 2 deletes ci" in text
    assert words[-1] == "--irreversible"
    done = run(*words[:-2], words[-2][:6], words[-1])
    assert done.out == "DONE: 2 done.\n" and done.err.count("done      ") == 2


def test_a_plan_that_does_not_hold_any_more_is_refused(run: Command, broken: dict[str, str]):
    """When something changed since, nothing is run, and the reason is told."""
    plan = run.json("plan", "backup", "--irreversible")["plan"]
    run("restore", "backup", broken["removed"])
    done = run("fix", "backup", "--plan", plan, code=5)
    assert "1 image has changed since" in done.err and "Plan again" in done.err
    assert len(run.json("check", "backup")["fixes"]) == 1


@pytest.mark.parametrize(("words", "code"), [(("--plan", "ffff"), 3), (("--plan", "ffff", "--all"), 2)])
def test_a_wrong_plan_is_an_error(run: Command, broken: dict[str, str], words: tuple[str, ...], code: int):
    """An unknown plan, and a plan together with another way of choosing."""
    run("fix", "backup", *words, code=code)


def test_a_plan_is_for_one_repository(run: Command, broken: dict[str, str]):
    """The plan of one repository is not found in another."""
    run("fix", "main", "--plan", run.json("plan", "backup")["plan"], code=3)


def test_a_run_can_be_left_alone(run: Command, broken: dict[str, str]):
    """--no-wait returns at once; the run is done without us."""
    plan = run.json("plan", "backup", "--irreversible")["plan"]
    started = run.json("fix", "backup", "--plan", plan, "--no-wait", "--irreversible")
    assert started["steps"] == 2
    deadline = time.monotonic() + 60
    while run.json("check", "backup")["fixes"] and time.monotonic() < deadline:
        pass
    assert run.json("check", "backup")["fixes"] == []


def test_what_there_is_no_room_for_is_left_out_of_a_plan_for_all(
    run: Command, broken: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """With nearly everything kept free, what takes room is skipped with the missing amount, and the rest is planned;
    named by itself it is refused, with an offer."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "diskwright").mkdir()
    (tmp_path / "diskwright" / "console.toml").write_text("reserve = 50\n", encoding="utf-8")
    plan = run.json("plan", "backup", "--irreversible")
    if plan["free_bytes"] > plan["total_bytes"] * 0.5:
        assert len(plan["steps"]) == 2
        return
    assert [step["fix"]["rule"] for step in plan["steps"]] == ["C-REMOVED"]
    assert [item["fix"]["rule"] for item in plan["skipped"]] == ["B-COPY"] and "missing" in plan["skipped"][0]["why"]
    named = run.json("plan", "backup", plan["skipped"][0]["fix"]["id"])
    assert named["refused"] and named["missing_bytes"] > 0 and not named["runnable"]
    text = run("plan", "backup", plan["skipped"][0]["fix"]["id"]).out
    assert text.startswith("REFUSED ") and "Next: " not in text
    assert [offer["fix"] for offer in named["offers"]] == [plan["steps"][0]["fix"]["id"]]


def test_a_plan_without_a_step_tells_what_waits_for_a_machine(run: Command, main_repo: str):
    """A prepared disk could be better; that is not nothing to do."""
    disk = run.id("create-disk", main_repo, "1M")
    run("create-snapshot", main_repo, disk)
    assert run("plan", main_repo).out == "Nothing to do.\n"
    run("strategy", main_repo, disk, "performance")
    run("prepare", main_repo, disk)
    text = run("plan", main_repo).out
    assert "(O-FLAT) waits until it is torn down" in text and text.endswith("Nothing can be done now.\n")
    run("teardown", main_repo, disk)


def test_why_prints_what_the_console_shows(run: Command, broken: dict[str, str]):
    """The text of the command is that of the model, line for line, and --json has the same sentences."""
    text = run("why", "backup", broken["snapshot"]).out.splitlines()
    data = run.json("why", "backup", broken["snapshot"])
    engine = Engine(real_doors("host-a"), state_directory(None, "host-a"))
    try:
        facts = facts_of(engine, "backup", broken["snapshot"])
        told = explain(gather(engine, "backup"), broken["snapshot"], time.time(), facts)
    finally:
        engine.close()
    assert told is not None and text[: len(told.text())] == told.text()
    assert [[line["label"], line["text"]] for line in data["explanation"]] == [list(line) for line in told.lines]
    assert json.dumps(data["evidence"][1]["path"]) and data["evidence"][1]["kind"] == "record"
