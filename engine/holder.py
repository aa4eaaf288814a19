"""The holder: a process that does nothing but keep the leases of a prepared image.

``python -m engine.holder IMAGE NOTE``. The leases came with it when it was started; when it ends,
however it ends, they are free. SIGTERM ends it; the image's id stands in its command line for
people who look at the process list. Until the file NOTE names this process, it ends with the
process that started it: a holder that nobody knows of would lock the image for ever.
"""

from __future__ import annotations

import json
import os
import signal
import sys

_LOOK_AGAIN_S = 0.01


def _named(note: str) -> bool:
    try:
        with open(note, "rb") as file:
            return bool(json.load(file)["process"][1] == os.getpid())
    except (OSError, ValueError, LookupError, TypeError):
        return False


def main(note: str) -> None:
    """Wait for a signal that ends the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    parent = os.getppid()
    while not _named(note):
        if os.getppid() != parent and not _named(note):
            return
        signal.sigtimedwait([], _LOOK_AGAIN_S)
    while True:
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[2])
