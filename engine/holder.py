"""The holder: a process that does nothing but keep the leases of a prepared image.

``python -m engine.holder IMAGE``. The leases came with it when it was started; when it ends,
however it ends, they are free. SIGTERM ends it; the image's id stands in its command line for
people who look at the process list.
"""

from __future__ import annotations

import signal


def main() -> None:
    """Wait for a signal that ends the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
