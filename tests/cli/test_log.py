"""log: the history of this host, and what is said of work that ended while nobody followed it."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Command
from tui.cli.render import Output
from tui.cli.session import Session, state_directory


def test_the_log_tells_verbs_and_fixes(run: Command, main_repo: str):
    """Filtered by repository and by the name of an image, the last ones; a verb that failed is there with its error."""
    disk = run.id("create-disk", main_repo, "1M", "--name", "web")
    run("resize", main_repo, disk, "1K", code=None)
    run("remove", main_repo, disk)
    run("fix", main_repo, "--type", "clean", "--irreversible")
    entries = run.json("log", main_repo, "web")["entries"]
    assert [entry["verb"] for entry in entries] == ["create-disk", "resize", "remove", "fix clean", "clean"]
    results = [entry["result"] for entry in entries]
    assert results == ["done", "failed", "done", "started", "done"] and entries[1]["error"]
    text = run("log", "--limit", "2").out
    assert "web" in text and "(command)" in text and len(text.splitlines()) == 3
    assert run("log", "other").out == ""


def test_what_ended_meanwhile_is_said_once(run: Command, main_repo: str, monkeypatch: pytest.MonkeyPatch):
    """On a terminal the next command says what has ended; what was followed is not said again."""
    monkeypatch.setattr("tui.cli.session.is_terminal", lambda stream: True)
    run("create-disk", main_repo, "1M", "--name", "web", "--no-auto-fix")
    run("fix", main_repo, "--all", "--no-wait")
    session = Session(Output(), "host-a", state_directory(None, "host-a"))
    for task in session.engine.list_tasks():
        session.engine.wait_for_task(task)
    session.close()
    assert "ended while you were away: done" in run("repos").err
    run("create-disk", main_repo, "1M", "--no-auto-fix")
    run("fix", main_repo, "--all")
    assert "away" not in run("repos").err


def test_the_log_follows_an_image_through_its_names(run: Command, main_repo: str):
    """By its name of today all that was done to an image is found, what was done under another too, and a revert under
    the disk's name, not that of the snapshot it leaves behind; a rename tells both names, a teardown no path."""
    disk = run.id("create-disk", main_repo, "1M", "--name", "app")
    first = run.id("create-snapshot", main_repo, disk, "--name", "first")
    run("rename", main_repo, disk, "application")
    run("revert", main_repo, disk, first)
    run("prepare", main_repo, disk, "--", "true")
    run("prepare", main_repo, disk, "--", "diskwright-no-such-command", code=127)
    run("revert", main_repo, disk, disk, code=None)
    entries = run.json("log", main_repo, "application")["entries"]
    (made,) = (entry for entry in entries if entry["verb"] == "create-snapshot")
    assert (made["image"], made["name"], made["made"], made["text"]) == (disk, "app", first, "first")
    for name in ("first", first[:8], first):
        assert run.json("log", main_repo, name)["entries"][0] == made
    told = [(entry["verb"], entry["name"], entry["text"]) for entry in entries if "snapshot" not in entry["verb"]]
    assert told[0][:2] == ("create-disk", "app") and told[1] == ("rename", "app", "app → application")
    assert [(verb, name) for verb, name, _ in told if verb == "revert"] == [("revert", "application")] * 2
    assert {text for verb, _, text in told if verb == "teardown"} == {""}
    assert {verb for verb, _, _ in told} == {"create-disk", "rename", "revert", "prepare", "teardown"}
    assert run.json("log", main_repo, "app")["entries"][0]["verb"] == "create-disk"
