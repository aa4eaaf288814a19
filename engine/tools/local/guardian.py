"""Programs that end when this process does, however it ends: what they change is ours only as long as we live.

One shell per process waits until its pipe from us closes, and then kills its own process group, in which all these
programs are. Whoever is to join a group that is gone already fails before its program is run, so none is ever missed.
(The kernel's own signal for that, PR_SET_PDEATHSIG, has to be asked for between fork and exec: with Python's copy of
the process or one more program each time, that is slower than most commands.)
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from engine.errors import ToolFailed
from engine.tools.local.environment import of_a_tool

if TYPE_CHECKING:
    import subprocess

_SCRIPT = "read -r word; kill -9 0"


class _Guardian:
    """A shell and our end of its pipe."""

    def __init__(self) -> None:
        import subprocess

        self.owner = os.getpid()
        read_end, self._lifeline = os.pipe()
        try:
            with os.fdopen(read_end):
                self._process: subprocess.Popen[bytes] = subprocess.Popen(
                    ["/bin/sh", "-c", _SCRIPT],
                    stdin=read_end,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=of_a_tool(),
                    process_group=0,
                )
        except OSError as error:
            os.close(self._lifeline)
            raise ToolFailed(f"cannot run /bin/sh: {error.strerror}") from None
        self.group = self._process.pid

    @property
    def alive(self) -> bool:
        """Ours, and not killed by somebody."""
        return self.owner == os.getpid() and self._process.poll() is None

    def close(self) -> None:
        """Kill what is in the guardian's group. A copy that a fork made is left alone."""
        os.close(self._lifeline)
        if self.owner == os.getpid():
            self._process.wait()


_lock = threading.Lock()
_ours: _Guardian | None = None


def group() -> int:
    """Return the process group for programs that end when this process does. ToolFailed: no process can be made."""
    global _ours
    with _lock:
        if _ours is None or not _ours.alive:
            if _ours is not None:
                _ours.close()
            _ours = _Guardian()
        return _ours.group
