"""--watch and --tree: what is told of changes as they come, and of families."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.cli.conftest import Command, write_disk


def looks(monkeypatch: pytest.MonkeyPatch, *meanwhile: Callable[[], object]) -> None:
    """Have a watching command wait so often, something happening each time, and then be interrupted."""
    pending = list(meanwhile)

    def sleep(seconds: float) -> None:
        assert seconds >= 1
        if not pending:
            raise KeyboardInterrupt
        pending.pop(0)()

    monkeypatch.setattr("tui.cli.watch.time.sleep", sleep)


def test_a_watch_tells_each_change_once_and_ends_in_good_order(
    run: Command, main_repo: str, monkeypatch: pytest.MonkeyPatch
):
    """With --json a document in a line for each change and none without one; Ctrl-C is its end, and no failure."""
    from tui.cli.main import main

    def made() -> None:
        main(["create-disk", main_repo, "1M", "--name", "web"])

    looks(monkeypatch, lambda: None, made, lambda: None)
    lines = [line for line in run("images", main_repo, "--watch", "--json").out.splitlines() if line.startswith("{")]
    assert [[image["name"] for image in json.loads(line)["images"]] for line in lines] == [[], ["web"]]
    looks(monkeypatch, lambda: None)
    shown = run("tasks", "--watch", "--json").out.splitlines()
    assert len(shown) == 1 and json.loads(shown[0])["tasks"] == []
    looks(monkeypatch, lambda: None)
    assert run("images", main_repo, "--watch").out.count("web") == 1


def test_a_tree_shows_families_with_own_and_shared_bytes(run: Command, main_repo: str):
    """What stands on what; own bytes add up to what the family occupies; a filter picks whole families."""
    assert "main has no image. Next: " in run("images", main_repo, "--tree").err
    disk = run.id("create-disk", main_repo, "4M", "--name", "web")
    write_disk(run, main_repo, disk)
    snapshot = run.id("create-snapshot", main_repo, disk, "--name", "monday")
    run("create-disk", main_repo, "4M", "--base", snapshot, "--name", "clone")
    run("create-disk", main_repo, "4M", "--name", "alone")
    first, second = run.json("images", main_repo, "--tree")["families"]
    assert [image["name"] for image in first["images"]] == ["monday", "clone", "web"]
    assert [image["stands_on"] for image in first["images"]] == ["", snapshot, snapshot]
    base, clone, _ = first["images"]
    assert base["own_bytes"] >= 1 << 20 and base["shared_bytes"] == 0 and clone["shared_bytes"] == base["own_bytes"]
    assert first["own_bytes"] == sum(image["own_bytes"] for image in first["images"])
    assert [image["name"] for image in second["images"]] == ["alone"]
    assert "none is like that" in run("images", main_repo, "--tree", "--name", "nosuch").err
    text = run("images", main_repo, "--tree", "--name", "web").out
    assert "├─ clone" in text and "└─ web" in text and "alone" not in text
