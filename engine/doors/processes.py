"""The process door: runners and holders are processes of their own that anyone may kill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol, TypeVar

from engine.doors.leases import Lease

_T = TypeVar("_T")
_R = TypeVar("_R")


class ProcessState(StrEnum):
    """What a process is doing, as far as this host can tell."""

    RUNNING = "running"
    STOPPED = "stopped"
    """Frozen by a signal: it keeps its leases and does nothing."""
    GONE = "gone"


class ProcessIdentity(NamedTuple):
    """Names one process for ever: pids are reused, this triple is not."""

    boot_id: str
    pid: int
    started: int
    """Start time in clock ticks since boot (field 22 of /proc/PID/stat)."""


class Processes(Protocol):
    """This host's processes."""

    def own(self) -> ProcessIdentity:
        """Return the identity of the calling process."""

    def spawn(self, module: str, arguments: list[str], leases: list[Lease], log: str) -> ProcessIdentity:
        """Start ``python -m module arguments…`` in a session of its own, with ``leases`` inherited
        (their tokens are valid there), stdin closed, both outputs appended to the file ``log``."""

    def state(self, identity: ProcessIdentity) -> ProcessState:
        """Tell what a process is doing; GONE also when the host was rebooted or the pid belongs to another process
        now."""

    def terminate(self, identity: ProcessIdentity) -> None:
        """Ask a process to end (SIGTERM; SIGCONT too, so that a stopped one hears it). No error when it is gone."""

    def kill(self, identity: ProcessIdentity) -> None:
        """End a process at once (SIGKILL). No error when it is gone."""

    def at_once(self, work: Callable[[_T], _R], items: Sequence[_T]) -> list[_R]:
        """Return ``work(item) for item in items``, which are few and may each wait long: they wait together. ``work``
        changes nothing that two of them share."""
