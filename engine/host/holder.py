"""The holder: a process that does nothing but keep the leases of a prepared image.

``python -m engine.host.holder IMAGE NOTE BOOT PID STARTED TOKEN…``. The leases came with it when it was started;
when it ends, however it ends, they are free. Those between hosts, whose tokens it is told, it holds in its own name,
so it is the one that is killed when this host loses them. SIGTERM ends it; the image's id stands in its command
line for people who look at the process list. Until the file NOTE names it, it ends with the process
that started it (BOOT PID STARTED): a holder that nobody knows of would lock the image for ever.
"""

from __future__ import annotations

import json
import signal
import sys

from engine.doors.processes import ProcessIdentity, ProcessState
from engine.errors import DiskwrightError
from engine.tools.local.clock import RealClock
from engine.tools.local.files import RealFiles
from engine.tools.local.processes import RealProcesses

_LOOK_AGAIN_S = 0.01
_NOTE_LIMIT = 65536


def _named(note: str, pid: int) -> bool:
    try:
        return bool(json.loads(RealFiles().read_file(note, _NOTE_LIMIT))["process"][1] == pid)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _adopt(tokens: list[str]) -> None:
    """Hold these until the process ends."""
    from engine.tools.sanlock.shared_leases import SanlockLeases

    leases = SanlockLeases()
    for token in tokens:
        leases.adopt(token)


def main(note: str, parent: ProcessIdentity, tokens: list[str]) -> None:
    """Wait for a signal that ends the process. One whose leases are lost already ends at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if tokens:
        _adopt(tokens)
    processes = RealProcesses()
    own = processes.own().pid
    while not _named(note, own):
        if processes.state(parent) is ProcessState.GONE and not _named(note, own):
            return
        RealClock().sleep(_LOOK_AGAIN_S)
    while True:
        signal.pause()


if __name__ == "__main__":
    try:
        main(sys.argv[2], ProcessIdentity(sys.argv[3], int(sys.argv[4]), int(sys.argv[5])), sys.argv[6:])
    except DiskwrightError as error:
        sys.exit(str(error))
