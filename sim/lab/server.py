"""The process behind ``diskwright lab``: it holds a lab and does what commands ask over a Unix socket.

``python -m sim.lab.server DIRECTORY`` reads ``DIRECTORY/lab.json`` ({hosts, nfs, disk_bytes, memory}), brings the
cluster up and prints one JSON line: {"error": null} or what went wrong. Then it serves ``DIRECTORY/control`` until
it is told to end. A request is one START frame with JSON {"do": …}; the answer is any number of OUT and ERR frames and
then READY (a JSON result), EXIT (of a command) or FAILED (JSON of an error).
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from engine.errors import BadRequest, DiskwrightError, from_os_error
from sim.lab import wire
from sim.lab.cluster import Cluster, host_names
from sim.lab.guest import Guest
from sim.lab.lab import Lab

CONTROL = "control"
CONFIG = "lab.json"
_COMMAND = "diskwright"
_ACTIONS = ("kill", "freeze", "thaw", "cut", "mend", "shutdown")


def error_data(error: DiskwrightError) -> dict[str, Any]:
    """An error that can be sent; ``error_from`` makes one of it again."""
    return {
        "code": error.code,
        "message": error.message,
        "next_step": error.next_step,
        "exit_code": error.exit_code,
    }


class Server:
    """One lab, any number of connections, a thread for each."""

    def __init__(self, directory: str) -> None:
        with open(f"{directory}/{CONFIG}", encoding="utf-8") as stream:
            config = json.load(stream)
        self._over = threading.Event()
        self._lab = Lab(directory)
        try:
            self._cluster = Cluster(
                self._lab, host_names(config["hosts"]), config["nfs"], config["disk_bytes"], config["memory"]
            )
            self._cluster.up()
            self._listener = socket.socket(socket.AF_UNIX)
            path = f"{directory}/{CONTROL}"
            with suppress(FileNotFoundError):
                os.unlink(path)
            self._listener.bind(path)
            self._listener.listen(16)
        except BaseException:
            self._lab.close()
            raise

    def serve(self) -> None:
        """Serve until ``down``, or a signal."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: self._over.set())
        threading.Thread(target=self._accept, daemon=True).start()
        self._over.wait()
        self._lab.close()
        os.unlink(self._listener.getsockname())
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            unpacker = wire.Unpacker()
            frames: list[wire.Frame] = []
            while not frames:
                data = connection.recv(wire.CHUNK_BYTES)
                if not data:
                    return
                frames = list(unpacker.feed(data))
            request = json.loads(frames[0].data)
            try:
                if request["do"] == "run":
                    kind, answer = (
                        wire.EXIT,
                        b"%d" % _Command(self._lab, request, connection, unpacker).code(frames[1:]),
                    )
                else:
                    kind, answer = wire.READY, json.dumps(self._do(request)).encode()
            except DiskwrightError as error:
                kind, answer = wire.FAILED, json.dumps(error_data(error)).encode()
            except OSError as error:
                kind, answer = wire.FAILED, json.dumps(error_data(from_os_error(error, request["do"]))).encode()
            if request["do"] == "down":
                self._lab.close()
            connection.sendall(wire.packed(0, kind, answer))
            connection.shutdown(socket.SHUT_RD)  # wakes the thread that waits for input
            if request["do"] == "down":
                self._over.set()

    def _do(self, request: dict[str, Any]) -> Any:
        word, name = request["do"], request.get("host", "")
        if word == "status":
            return {"hosts": self._cluster.status(), "nfs": self._cluster.export}
        if word == "down":
            return {}
        guest = self._lab.guest(name)
        if word == "boot":
            self._cluster.boot(name)
        elif word in _ACTIONS:
            getattr(guest, word)()
        else:
            raise BadRequest(f"the lab cannot {word!r:.40}")
        return {"host": name, "state": guest.state}


class _Command:
    """A command on a host for somebody at the other end of a connection; it dies when that is closed."""

    def __init__(self, lab: Lab, request: dict[str, Any], connection: socket.socket, unpacker: wire.Unpacker) -> None:
        self._connection = connection
        self._unpacker = unpacker
        guest = lab.guest(request["host"])
        argv = request["argv"]
        if not argv:
            raise BadRequest("there is no command", f"diskwright lab run {guest.name} -- COMMAND")
        self._running = self._start(guest, argv, request["feed"])

    def _start(self, guest: Guest, argv: list[str], feed: bool) -> Any:
        tell = self._teller()
        if argv[0] == _COMMAND and not feed:
            return guest.begin_diskwright(argv[1:], on_output=tell)
        return guest.begin(argv, feed=feed, on_output=tell)

    def _teller(self) -> Callable[[int, bytes], None]:
        def tell(kind: int, data: bytes) -> None:
            with suppress(OSError):
                self._connection.sendall(wire.packed(0, kind, data))

        return tell

    def code(self, frames: list[wire.Frame]) -> int:
        """Pass input on until the command has ended; its exit code, 128 + n when signal n ended it."""
        threading.Thread(target=self._pass_input, args=(frames,), daemon=True).start()
        code: int = self._running.wait().code
        return code if code >= 0 else 128 - code

    def _pass_input(self, frames: list[wire.Frame]) -> None:
        with suppress(DiskwrightError, OSError, ValueError):
            while True:
                for frame in frames:
                    if frame.data:
                        self._running.write(frame.data)
                    else:
                        self._running.close_input()
                if not select.select([self._connection], [], [], None)[0]:
                    continue
                data = self._connection.recv(wire.CHUNK_BYTES)
                if not data:
                    break
                frames = list(self._unpacker.feed(data))
            if not self._running.ended:
                self._running.signal(signal.SIGHUP)


def main(directory: str) -> None:
    """Entry point: told the outcome on standard output, then closed, so whoever started it can go."""
    try:
        server = Server(directory)
    except DiskwrightError as error:
        sys.stdout.write(json.dumps({"error": error_data(error)}) + "\n")
        sys.exit(error.exit_code)
    except OSError as error:
        sys.stdout.write(json.dumps({"error": error_data(from_os_error(error, "start the lab"))}) + "\n")
        sys.exit(1)
    sys.stdout.write('{"error": null}\n')
    sys.stdout.flush()
    with open(os.devnull, "wb") as null:
        os.dup2(null.fileno(), 1)
    server.serve()


if __name__ == "__main__":
    main(sys.argv[1])
