"""The process beside a lab: it forwards packets between guests, and ends them all when the lab is gone.

``python -I -S keeper.py ROOT LAB [--temporary]`` reads lines from standard input and answers each with ``ok``.
The end of its input, however that comes, is the end of the lab: what leads the sessions in ``LAB/hosts/*/pid``
is killed with all that belongs to it, and a temporary LAB is deleted. ::

    port NAME PATH     listen at PATH for the network card of NAME
    cut NAME           pull its cable: packets from and to it are lost
    mend NAME          plug it in again

A card is a SOCK_SEQPACKET connection, a packet an Ethernet frame. Who does not take packets in time loses them.
"""

from __future__ import annotations

import glob
import os
import selectors
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

_FRAME_BYTES = 65536
_BURST = 64


class Port:
    """A socket of the switch; ``card`` is the guest that is plugged in."""

    def __init__(self, path: str) -> None:
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(path)
        self.listener.listen(1)
        self.card: socket.socket | None = None
        self.cut = False


class Keeper:
    """One loop over standard input, ports and cards."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._ports: dict[str, Port] = {}
        self._where: dict[bytes, Port] = {}
        self._rest = b""
        self._over = False
        self._orders: dict[str, Callable[..., None]] = {"port": self._port, "cut": self._cut, "mend": self._mend}
        self._selector.register(0, selectors.EVENT_READ, self._on_input)

    def run(self) -> None:
        """Serve until standard input ends."""
        while not self._over:
            for key, _ in self._selector.select():
                key.data()

    def _on_input(self) -> None:
        data = os.read(0, 65536)
        if not data:
            self._over = True
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            word, *rest = line.decode().split(" ", 2)
            self._orders[word](*rest)

    def _port(self, name: str, path: str) -> None:
        port = self._ports[name] = Port(path)
        self._selector.register(port.listener, selectors.EVENT_READ, lambda: self._on_connect(port))
        self._ok()

    def _cut(self, name: str) -> None:
        self._ports[name].cut = True
        self._ok()

    def _mend(self, name: str) -> None:
        self._ports[name].cut = False
        self._ok()

    @staticmethod
    def _ok() -> None:
        with suppress(BrokenPipeError):
            os.write(1, b"ok\n")

    # -- packets

    def _on_connect(self, port: Port) -> None:
        card, _ = port.listener.accept()
        card.setblocking(False)
        self._unplug(port)
        port.card = card
        self._selector.register(card, selectors.EVENT_READ, lambda: self._on_packet(port))

    def _unplug(self, port: Port) -> None:
        if port.card is not None:
            self._selector.unregister(port.card)
            port.card.close()
            port.card = None

    def _on_packet(self, port: Port) -> None:
        for _ in range(_BURST):
            try:
                frame = port.card.recv(_FRAME_BYTES) if port.card else b""
            except BlockingIOError:
                return
            except OSError:
                frame = b""
            if not frame:
                self._unplug(port)
                return
            if not port.cut:
                self._forward(port, frame)

    def _forward(self, port: Port, frame: bytes) -> None:
        self._where[frame[6:12]] = port
        known = self._where.get(frame[:6])
        for other in [known] if known else self._ports.values():
            if other is not port and other.card is not None and not other.cut:
                with suppress(OSError):  # full: as a wire, it drops
                    other.card.send(frame)


def end_lab(directory: str, temporary: bool) -> None:
    """Kill every guest of a lab; then delete the lab if it was to be temporary."""
    from sim.lab.sessions import end

    for path in glob.glob(f"{glob.escape(directory)}/hosts/*/pid"):
        with suppress(OSError, ValueError), open(path, encoding="ascii") as stream:
            end(int(stream.read()))
    if temporary:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends when the lab does
    Keeper().run()
    end_lab(sys.argv[2], "--temporary" in sys.argv)
