"""Looking at a repository from a process of its own: what it sees, and what happens when it cannot."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.console_model.conftest import Demo, Host
from tui.view.gather import gather
from tui.view.snapshot import RepositoryView
from tui.work import scanner
from tui.work.scanner import Cancel, Cancelled, Scanner, connected


def scan(host: Host | Demo, repo_id: str, previous: RepositoryView | None = None) -> RepositoryView:
    return Scanner("host-a", host.engine.state.directory).scan(repo_id, previous)


def test_it_sees_what_the_engine_sees(demo: Demo):
    """Images, fixes, findings, operations and counts are those of a check in this process, names included."""
    here, there = gather(demo.engine, "demo"), scan(demo, "demo")
    assert there._replace(images=here.images, scanned_at=0, took_s=0, free_bytes=0) == here._replace(
        scanned_at=0, took_s=0, free_bytes=0
    )
    assert [there.images[n] for n in range(len(there.images))] == [here.images[n] for n in range(len(here.images))]
    assert (there.counts.broken, there.counts.degraded, there.counts.removed) == (4, 4, 2)
    assert "web-db" in {there.images[n].name for n in range(len(there.images))}


def test_an_empty_repository(host: Host, repo: str):
    """Nothing is in it, and nothing is wrong with it."""
    seen = scan(host, repo)
    assert seen.known and not seen.problem and len(seen.images) == 0 and seen.fixes == ()
    assert seen.constraints is not None and seen.srm == "-"


def test_a_repository_that_went_away_keeps_what_was_seen(host: Host, repo: str, tmp_path: Path):
    """The old data stays with its time, the error and the moment it began are told; once it is back it is fresh."""
    before = scan(host, repo)
    (tmp_path / "main").rename(tmp_path / "away")
    gone = scan(host, repo, before)
    assert gone.problem and gone.problem_code == "storage-error" and gone.scanned_at == before.scanned_at
    again = scan(host, repo, gone)
    assert again.problem_at == gone.problem_at
    (tmp_path / "away").rename(tmp_path / "main")
    back = scan(host, repo, again)
    assert not back.problem and back.scanned_at > before.scanned_at and back.constraints == before.constraints


def test_what_is_not_connected_is_told(host: Host):
    """A wrong name is a view with a problem, never an exception in a thread."""
    assert "no repository is connected" in scan(host, "nope").problem


def test_storage_that_does_not_answer_is_given_up(host: Host, repo: str, monkeypatch: pytest.MonkeyPatch):
    """After its patience the scan ends with the reason, although the process still hangs."""
    reader, writer = os.pipe()
    monkeypatch.setattr(scanner, "OPEN_PATIENCE_S", 0.2)
    monkeypatch.setattr(scanner, "_start", lambda words: _Hanging(reader))
    assert "did not answer" in scan(host, repo).problem
    os.close(writer)


def test_a_scan_can_be_cancelled(host: Host, repo: str, monkeypatch: pytest.MonkeyPatch):
    """Another thread cancels, and the scan ends although the storage hangs."""
    reader, writer = os.pipe()
    monkeypatch.setattr(scanner, "_start", lambda words: _Hanging(reader))
    cancel = Cancel()
    ended: list[BaseException] = []

    def work() -> None:
        try:
            Scanner("host-a", host.state).scan(repo, None, cancel=cancel)
        except Cancelled as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    cancel.cancel()
    thread.join(10)
    assert len(ended) == 1 and not thread.is_alive()
    os.close(writer)


def test_a_process_that_dies_is_told(host: Host, repo: str, monkeypatch: pytest.MonkeyPatch):
    """A scan whose process was killed says so."""
    reader, writer = os.pipe()
    os.close(writer)
    monkeypatch.setattr(scanner, "_start", lambda words: _Hanging(reader))
    assert "ended before" in scan(host, repo).problem


class _Hanging:
    """A process of which only the pipe matters."""

    def __init__(self, reader: int) -> None:
        self.stdout = os.fdopen(reader, "rb")

    def kill(self) -> None:
        pass

    def wait(self, timeout_s: float) -> int:
        return 0


def test_what_is_connected_is_listed_without_touching_it(host: Host, repo: str, tmp_path: Path):
    """The list of repositories needs no storage."""
    (tmp_path / "main").rename(tmp_path / "away")
    entry = connected(host.engine)[0]
    assert (entry.name, entry.format) == ("main", "localfs-1.0") and str(tmp_path / "main") in entry.place


def test_a_scan_changes_nothing(demo: Demo):
    """Looking leaves every file of the repository as it is, once its abilities are known."""
    first = scan(demo, "demo")

    def files() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in (demo.root / "repository").rglob("*")}

    before = files()
    scan(demo, "demo", first)
    assert files() == before
