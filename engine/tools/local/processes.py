"""Processes of the kernel, seen through /proc, behind the process door."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from engine.doors.leases import Lease
from engine.doors.processes import ProcessIdentity, ProcessState
from engine.tools.local import threads
from engine.tools.local.environment import of_our_own

if TYPE_CHECKING:
    import subprocess

_STATES = {"T": ProcessState.STOPPED, "t": ProcessState.STOPPED, "Z": ProcessState.GONE, "X": ProcessState.GONE}

_children: dict[int, subprocess.Popen[bytes]] = {}
"""Processes we started and have not waited for: they belong to this process, not to an object."""

_T = TypeVar("_T")
_R = TypeVar("_R")


class RealProcesses:
    """The kernel's processes, seen through /proc."""

    def __init__(self) -> None:
        self._boot_id = ""

    def own(self) -> ProcessIdentity:
        """Look the calling process up in /proc."""
        return self._identity(os.getpid())

    def spawn(self, module: str, arguments: list[str], leases: list[Lease], log: str) -> ProcessIdentity:
        """Fork and exec this interpreter, in / and with a small environment. The log is created when it is not there
        (mode 0600) and never a symbolic link."""
        import subprocess

        _reap()
        descriptors = [int(lease.token.rpartition(":")[2]) for lease in leases]
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        output = os.open(log, flags, 0o600)
        try:
            child = subprocess.Popen(
                # -P: without it everything in the directory / could take the place of a module.
                [sys.executable, "-P", "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                close_fds=True,
                pass_fds=descriptors,
                env=of_our_own(),
                cwd="/",
                start_new_session=True,
            )
        finally:
            os.close(output)
        _children[child.pid] = child
        return self._identity(child.pid)  # there even when it has ended: nobody else waits for it

    def state(self, identity: ProcessIdentity) -> ProcessState:
        """Look in /proc; a zombie is GONE too: it holds nothing any more."""
        _reap()
        if identity.boot_id != self._boot():
            return ProcessState.GONE
        found = _stat_fields(identity.pid)
        if found is None or found[1] != identity.started:
            return ProcessState.GONE
        return _STATES.get(found[0], ProcessState.RUNNING)

    def terminate(self, identity: ProcessIdentity) -> None:
        """Send SIGTERM, then SIGCONT."""
        self._signal(identity, (signal.SIGTERM, signal.SIGCONT))

    def kill(self, identity: ProcessIdentity) -> None:
        """Send SIGKILL."""
        self._signal(identity, (signal.SIGKILL,))

    def at_once(self, work: Callable[[_T], _R], items: Sequence[_T]) -> list[_R]:
        """Have a thread for each."""
        return threads.at_once(work, items)

    def _signal(self, identity: ProcessIdentity, signals: tuple[signal.Signals, ...]) -> None:
        if self.state(identity) is ProcessState.GONE:
            return  # and a number that cannot be a pid goes no further
        with contextlib.suppress(ProcessLookupError):
            descriptor = _pidfd(identity.pid)
            if descriptor is None:
                for number in signals:
                    os.kill(identity.pid, number)
                return
            try:
                # Looked at again: the descriptor keeps meaning this process, whatever its number means later.
                if self.state(identity) is not ProcessState.GONE:
                    for number in signals:
                        signal.pidfd_send_signal(descriptor, number)
            finally:
                os.close(descriptor)

    def _identity(self, pid: int) -> ProcessIdentity:
        found = _stat_fields(pid)
        assert found is not None, "a process of ours that was not waited for"
        return ProcessIdentity(self._boot(), pid, found[1])

    def _boot(self) -> str:
        if not self._boot_id:
            self._boot_id = _read_proc("/proc/sys/kernel/random/boot_id").decode().strip()
        return self._boot_id


def _reap() -> None:
    """Wait for ended children, so that no zombie stays."""
    for pid, child in list(_children.items()):
        if child.poll() is not None:
            _children.pop(pid, None)


def _pidfd(pid: int) -> int | None:
    """Return a descriptor of the process, None where the kernel or a sandbox has no such thing."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):
            return None
        raise


def _stat_fields(pid: int) -> tuple[str, int] | None:
    """Return (state, start time in ticks) of a process, None when there is none."""
    try:
        raw = _read_proc(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may contain anything, even ") R 1 ": the last one ends it.
    fields = raw[raw.rindex(b")") + 2 :].split()
    return fields[0].decode(), int(fields[19])


def _read_proc(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)
