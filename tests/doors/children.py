"""Processes for the tests to start and to hold, and waiting for them without sleeping."""

from __future__ import annotations

import fcntl
import os
import select
import shlex
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.doors.processes import Processes, ProcessIdentity

PATIENCE_MS = 60_000

MODULE = """
import os, signal, sys

def tell(text):
    with open(sys.argv[1], "w") as fifo:
        fifo.write(text + "\\n")

job = sys.argv[2]
if job == "environment":
    import engine, json
    names = sorted(os.listdir("/proc/self/fd"))
    tell(json.dumps({
        "environment": dict(os.environ), "cwd": os.getcwd(), "arguments": sys.argv[2:], "session": os.getsid(0),
        "pid": os.getpid(), "input": sys.stdin.read(), "engine": engine.__file__, "path": sys.path,
        "descriptors": names,
    }))
elif job == "wait":
    print("out"); print("err", file=sys.stderr)
    tell(str(os.getpid()))
    signal.pause()
elif job == "adopt":
    from engine.tools.local.leases import OfdLeases
    lease = OfdLeases().adopt(sys.argv[3])
    tell(f"{os.getpid()} {os.get_inheritable(lease.descriptor)}")
    signal.pause()
elif job == "parent":
    # Takes a lease, hands it to a child, and waits to be killed.
    from engine.tools.local.leases import OfdLeases
    from engine.tools.local.processes import RealProcesses
    lease = OfdLeases().try_acquire(sys.argv[3], int(sys.argv[4]), False)
    RealProcesses().spawn("diskwright_test_child", [sys.argv[1], "adopt", lease.token], [lease], sys.argv[5])
    signal.pause()
elif job == "stubborn":
    signal.signal(signal.SIGTERM, lambda *_: (tell("heard"), sys.exit(0)))
    tell(str(os.getpid()))
    while True:
        signal.pause()
elif job == "end":
    pass
"""


class Pipe:
    """A FIFO on which children tell something."""

    def __init__(self, path: str) -> None:
        self.path = path
        os.mkfifo(path)
        self._descriptor = os.open(path, os.O_RDWR)

    def line(self) -> str:
        """The next line; fails when none comes in a minute."""
        text = b""
        while not text.endswith(b"\n"):
            ready, _, _ = select.select([self._descriptor], [], [], PATIENCE_MS / 1000)
            assert ready, "the child told nothing"
            text += os.read(self._descriptor, 65536)
        return text.decode().strip()

    def close(self) -> None:
        os.close(self._descriptor)


@contextmanager
def pipe(directory: Path) -> Iterator[Pipe]:
    made = Pipe(str(directory / "pipe"))
    try:
        yield made
    finally:
        made.close()


@contextmanager
def frozen(processes: Processes) -> Iterator[None]:
    """What it spawns meanwhile stands still from its beginning, before it has done anything."""
    begin = processes.spawn

    def spawn(*given: Any) -> ProcessIdentity:
        identity = begin(*given)
        os.kill(identity.pid, signal.SIGSTOP)
        return identity

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "spawn", spawn)
        yield


class Gate:
    """A program that waits at its beginning, wherever ``path`` is the PATH, while this is closed and we live.

    What needs the program is then seen at work, however long those who look take. It begins open.
    """

    def __init__(self, folder: Path, program: str) -> None:
        real = shutil.which(program)
        assert real is not None
        folder.mkdir()
        lock = folder / "lock"
        lock.touch()
        self._lock, self._descriptor = str(lock), -1
        self._reached = folder / "reached"
        script, words = folder / program, [shlex.quote(str(path)) for path in (self._reached, lock, real)]
        script.write_text('#!/bin/sh\n: >{}\nexec flock -s -F {} {} "$@"\n'.format(*words))
        script.chmod(0o755)
        self.path = f"{folder}:{os.environ['PATH']}"

    def close(self) -> None:
        """Hold what is started from now on. Waits for the end of what was let through."""
        self._descriptor = os.open(self._lock, os.O_RDWR)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def wait_reached(self) -> None:
        """Until it was started once."""
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while not self._reached.exists():
            assert time.monotonic() < deadline, "nothing has come to the gate"
            time.sleep(0.02)

    def open(self) -> None:
        """Let it go on; also what is started from now on."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@contextmanager
def gate(folder: Path, program: str = "qemu-nbd") -> Iterator[Gate]:
    """A closed one; everything that copies data needs ``qemu-nbd``."""
    made = Gate(folder, program)
    made.close()
    try:
        yield made
    finally:
        made.open()


def wait_ended(pid: int) -> None:
    """Wait until a process has ended (a zombie has)."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        assert poll.poll(PATIENCE_MS), f"process {pid} does not end"
    finally:
        os.close(descriptor)
