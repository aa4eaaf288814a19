"""Who uses what is below a directory, as /proc tells."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.doors.users import User, describe_users
from engine.tools.nfs.users import users

WAITING = "import sys; f = sys.argv[1] and open(sys.argv[1]); print(flush=True); sys.stdin.read()"


@pytest.fixture
def point(tmp_path: Path) -> Path:
    (tmp_path / "point" / "below").mkdir(parents=True)
    for name in ("point/below/volume", "point.lock", "pointless"):
        (tmp_path / name).touch()
    return tmp_path / "point"


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    """What is in it ends with the test."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("opened", "inside", "found"),
    [("below/volume", "/", True), ("", "below", True), ("../point.lock", "/", True), ("../pointless", "/", False)],
)
def test_a_process_is_found_by_what_it_uses(
    point: Path, processes: list[subprocess.Popen[bytes]], opened: str, inside: str, found: bool
):
    """An open file, a working directory, or the file that is asked for too; not what only begins with the same name."""
    path = str((point / opened).resolve()) if opened else ""
    command = [sys.executable, "-c", WAITING, path]
    process = subprocess.Popen(command, cwd=point / inside, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    processes.append(process)
    assert process.stdout is not None
    process.stdout.readline()
    seen = [user for user in users(str(point), f"{point}.lock") if user.pid == process.pid]
    assert bool(seen) is found
    whole = " ".join(command)
    assert all(user.command[:20] == whole[:20] and len(user.command) <= 80 for user in seen)


def test_this_process_is_not_told_of(point: Path):
    """Who asks knows of itself."""
    with open(point / "below" / "volume"):
        assert users(str(point)) == []


def test_many_are_told_shortly():
    """Four by name, the others by number; nobody seen is said so."""
    assert describe_users([User(7, "cat x"), User(8, "")]) == "process 7 (cat x), process 8"
    assert describe_users([User(pid, "") for pid in range(6)]).endswith("process 3, 2 more")
    assert "not seen" in describe_users([])
