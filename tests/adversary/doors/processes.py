"""Processes of one world: found by a mark in their environment, waited for, killed.

Every process that the adversary or a command of diskwright starts inherits the mark, so nothing of another world or
of the machine can be hit.
"""

import contextlib
import os
import select
import signal
import time
from pathlib import Path

MARK = "DISKWRIGHT_ADVERSARY"


def pause(seconds: float) -> None:
    """Let time pass while something is watched that can't be waited for."""
    select.select([], [], [], seconds)


def marked(mark: str) -> dict[int, str]:
    """Return the running processes of a world: their command lines by their number. Zombies are not running."""
    wanted = f"{MARK}={mark}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
    return {pid: line for pid, line in found.items() if line}


def runners(mark: str) -> list[int]:
    """Return the processes that do work on their own (README names them `engine.host.runner`)."""
    return [pid for pid, line in marked(mark).items() if "runner" in line and "holder" not in line]


def kill(pid: int) -> None:
    """Send SIGKILL and wait until it is over."""
    try:
        watched = os.pidfd_open(pid)
    except OSError:
        return
    try:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(watched, signal.SIGKILL)
        _gone(watched, 60.0)
    finally:
        os.close(watched)


def wait_gone(pid: int, seconds: float) -> bool:
    """Wait until a process has ended; return whether it has."""
    try:
        watched = os.pidfd_open(pid)
    except OSError:
        return True
    try:
        return _gone(watched, seconds)
    finally:
        os.close(watched)


def unlinked_files(pid: int, below: list[str]) -> list[str]:
    """Return files below some directories that a process has open and that have no name any more. On NFS another host
    may have deleted them, and what this host deletes gets a name of its own until it is closed."""
    found = []
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                target = os.readlink(entry)
                if target.startswith(tuple(below)) and _has_no_name(target):
                    found.append(target)
    return found


def _has_no_name(target: str) -> bool:
    name = os.path.basename(target)
    return target.endswith(" (deleted)") or name.startswith(".nfs") or not os.path.lexists(target)


def _gone(watched: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(watched, select.POLLIN)
    deadline = time.monotonic() + seconds
    return bool(poll.poll(max(0, int((deadline - time.monotonic()) * 1000))))
