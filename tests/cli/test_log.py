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
