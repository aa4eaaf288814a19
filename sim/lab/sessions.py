"""Ends a guest with everything it has started: the guest leads a session, and nothing in it can leave."""

from __future__ import annotations

import os
import signal
import time

_LOOK_AGAIN_S = 0.002
_PATIENCE_S = 60.0
_SESSION_FIELD = 3  # of /proc/PID/stat, counted after the name: state, parent, group, session


def members(session: int) -> list[int]:
    """Processes of a session that are not dead yet."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and _session(name) == session]


def _session(pid: str) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            fields = stream.read().rpartition(b")")[2].split()
    except OSError:
        return -1
    return -1 if fields[0] in (b"Z", b"X") else int(fields[_SESSION_FIELD])


def end(session: int) -> bool:
    """SIGKILL to all of a session until none is left; false when some would not die in a minute.
    The traced processes of a guest outlive its main process, and one of them does its disk I/O."""
    deadline = time.monotonic() + _PATIENCE_S
    while left := members(session):
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_AGAIN_S)
    return True
