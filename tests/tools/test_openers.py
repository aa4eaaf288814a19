"""Who has a file open that locks nothing: asked of the kernel, named by /proc."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.doors.files import Unlocked
from engine.doors.users import User
from engine.tools.local import openers
from engine.tools.local.files import RealFiles
from engine.tools.local.leases import OfdLeases
from engine.tools.qemu.images import QemuImageTool
from tests.tools.qcow2_kit import raw

HOLD = "import sys; file = open(sys.argv[1], sys.argv[2]); print(flush=True); sys.stdin.read()"

ASK = """
import fcntl, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGURG])
with open(sys.argv[1], "rb") as file:
    for _ in range(int(sys.argv[2])):
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        print(flush=True)
        signal.sigtimedwait([signal.SIGURG], 10)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        sys.stdin.readline()
"""
"""Asks who writes, and has not got further than that when somebody opens the file."""


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A file of one page."""
    (tmp_path / "disk.raw").write_bytes(bytes(4096))
    return str(tmp_path / "disk.raw")


@contextlib.contextmanager
def opened(path: str, mode: str = "r+b") -> Iterator[subprocess.Popen[str]]:
    """A process that has the file open, until the end of the block."""
    words = [sys.executable, "-c", HOLD, path, mode]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.communicate()


def written_by(path: str) -> list[User]:
    return RealFiles().users(path, Unlocked.WRITERS)


def test_who_writes_without_a_lock_is_named(path: str, tmp_path: Path) -> None:
    """Under whatever name it was opened, and only as long as it is open; who reads is none."""
    os.link(path, tmp_path / "other")
    assert written_by(path) == []
    with opened(str(tmp_path / "other")) as process:
        (user,) = written_by(path)
        assert (user.pid, user.writes) == (process.pid, True)
        assert user.command.startswith(sys.executable[:40])  # it is shortened to be shown
        assert RealFiles().users(path) == []
    with opened(path, "rb"):
        assert written_by(path) == []
    assert written_by(path) == []


def test_who_writes_and_is_not_seen_is_told_all_the_same(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mapping may have no descriptor; a process of another container, or of another user, is not seen."""
    with opened(path):
        monkeypatch.setattr(openers, "openers", lambda *given: [])
        assert written_by(path) == [User(0, "", True)]


def test_a_loop_device_is_named(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel has the file open then, and no process has."""
    for name, read_only in (("loop3", "0"), ("loop4", "1")):
        (tmp_path / "block" / name / "loop").mkdir(parents=True)
        (tmp_path / "block" / name / "loop" / "backing_file").write_text(f"{path}\n")
        (tmp_path / "block" / name / "ro").write_text(f"{read_only}\n")
    monkeypatch.setattr(openers, "_BLOCK", str(tmp_path / "block"))
    assert written_by(path) == []
    monkeypatch.setattr(openers, "openers", lambda *given: [])
    with opened(path):
        assert written_by(path) == [User(0, "the loop device /dev/loop3", True)]


def test_this_process_and_what_a_holder_locks_are_nobody(path: str) -> None:
    """What an operation has open itself, and the lock that a holder keeps on a prepared disk, open it for writing too;
    neither hides somebody else."""
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 4096):
        assert written_by(path) == []
        with opened(path) as process:
            assert [user.pid for user in written_by(path)] == [process.pid]
    guard = OfdLeases().guard(path, True)
    assert guard is not None
    assert written_by(path) == []
    guard.release()


def test_where_the_kernel_gives_no_lease_nobody_is_found(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is on a file system that has none, or for who is not the owner; what is locked is told there as ever."""
    monkeypatch.setattr(fcntl, "F_SETLEASE", -1)  # the kernel does not know it
    with opened(path):
        assert written_by(path) == []
    session = QemuImageTool().open_session([raw(Path(path))], writable=True, direct=False)
    assert [user.writes for user in written_by(path)] == [True]
    session.close()


def test_who_opens_a_file_while_somebody_asks_who_writes_waits_for_the_answer(path: str) -> None:
    """Else a check, which only looks, would fail what is done meanwhile."""
    words = [sys.executable, "-c", ASK, path, "2"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        RealFiles().open(path, writable=True).close()
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        guard = OfdLeases().guard(path, True)
        assert guard is not None
        guard.release()
        process.communicate("\n")
