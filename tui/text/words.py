"""Words of both faces: run states, priorities, undo classes, what is being done. Statuses of images are in
``statuses``."""

from __future__ import annotations

from enum import StrEnum

from engine.triage.rules import B_ADOPT, B_COPY, B_CREATE, B_IMPORT


class RunState(StrEnum):
    """What a run or a step of it is doing."""

    WAITING = "WAITING"
    """Not begun; the reason says what for."""
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    """Asked to stop; it does so at its next save."""
    STOPPED = "STOPPED"
    """Stopped by an operator; what was done is kept."""
    DONE = "DONE"
    FAILED = "FAILED"
    REJECTED = "REJECTED"
    """The engine refused to begin; nothing was touched."""
    GONE = "GONE"
    """Not needed any more: done already, or by somebody else."""
    OLD = "OLD"
    """Not heard of for a minute: its owner may be dead."""


PRIORITIES = {1: "now", 2: "soon", 3: "when idle", 4: "housekeeping"}

OLD_AFTER_S = 60.0
"""A persisted value older than this is shown as OLD."""


class Undo(StrEnum):
    """What an operator can still do about a fix once it was started."""

    STOP = "stop"
    """The fix can be stopped, and nothing that was there before is lost."""
    NEVER = "never"
    """What it deletes or overwrites does not come back."""


def running(percent: int) -> str:
    """What is said beside the status of an image that somebody works on; -1 when it is not known how far that is."""
    return f"{RunState.RUNNING} {percent} %" if percent >= 0 else str(RunState.RUNNING)


_BEGUN_BY = {B_COPY: "copy", B_IMPORT: "import", B_ADOPT: "adopt", B_CREATE: "create"}


def doing(rule: str, type: str) -> str:
    """What people call the work of a fix: the verb that began it, where it finishes one, else the fix's type."""
    return _BEGUN_BY.get(rule, type)
