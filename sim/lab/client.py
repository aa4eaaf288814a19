"""Commands for a lab that runs in the background: starts one, asks it, ends it."""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from engine.errors import BadRequest, Conflict, DiskwrightError, NotFound, Refused, from_os_error
from sim.lab import wire
from sim.lab.cluster import check_disk, host_names
from sim.lab.errors import LabError
from sim.lab.lab import check_directory, check_name
from sim.lab.needs import require
from sim.lab.server import CONFIG, CONTROL

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def default_directory() -> str:
    """$DISKWRIGHT_LAB, else one per user in the directory for temporary files."""
    return os.environ.get("DISKWRIGHT_LAB") or f"{tempfile.gettempdir()}/diskwright-lab-{os.getuid()}"


class RemoteError(DiskwrightError):
    """An error of the lab's process, with its code and exit code."""

    def __init__(self, data: dict[str, Any]) -> None:
        super().__init__(str(data["message"]), str(data["next_step"]))
        self.code = str(data["code"])
        self.exit_code = int(data["exit_code"])


class Client:
    """One lab, by its directory."""

    def __init__(self, directory: str) -> None:
        self.directory = os.path.realpath(directory)

    @property
    def running(self) -> bool:
        """Whether its process answers."""
        connection = self._connect()
        if connection is not None:
            connection.close()
        return connection is not None

    # -- the lab

    def up(self, hosts: int, nfs: bool, disk_bytes: int, memory: str) -> None:
        """Start it and wait until all its hosts run. Disks that are left there from before are used again.
        Conflict when it runs already; ToolMissing; LabError."""
        if self.running:
            raise Conflict(f"a lab runs in {self.directory} already", "End it with: diskwright lab down")
        host_names(hosts)
        check_disk(disk_bytes)
        require(*(("lvm", "nfs", "file systems") if nfs else ("lvm", "file systems")))
        check_directory(self.directory)
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            if os.stat(self.directory).st_uid != os.getuid():
                raise Refused(f"{self.directory} belongs to somebody else", "Choose another directory with --dir")
            with open(f"{self.directory}/{CONFIG}", "w", encoding="utf-8") as stream:
                json.dump({"hosts": hosts, "nfs": nfs, "disk_bytes": disk_bytes, "memory": memory}, stream)
            answer = self._start_server()
        except OSError as error:
            raise from_os_error(error, f"start a lab in {self.directory}") from error
        if answer["error"]:
            raise RemoteError(answer["error"])

    def _start_server(self) -> dict[str, Any]:
        log = f"{self.directory}/server.log"
        with open(log, "ab") as errors:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "sim.lab.server", self.directory],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd="/",
                env={**os.environ, "PYTHONPATH": _ROOT},
                start_new_session=True,
            )
        assert process.stdout is not None
        try:
            with process.stdout:
                line = process.stdout.readline()
        except KeyboardInterrupt:
            process.terminate()
            raise
        process.returncode = 0  # it goes on without us
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            raise LabError("the process of the lab failed", f"Its words are in {log}") from None
        return answer

    def down(self, keep: bool) -> None:
        """Kill all hosts and delete the lab, or keep its disks and consoles. NotFound when there is none."""
        if self.running:
            self.ask("down")
        elif not os.path.exists(f"{self.directory}/{CONFIG}"):
            raise NotFound(f"there is no lab in {self.directory}", "Start one with: diskwright lab up")
        if not keep:
            shutil.rmtree(self.directory, ignore_errors=True)

    def console(self, host: str) -> str:
        """What a host's kernel has said; works while nothing runs."""
        path = f"{self.directory}/hosts/{host}/console.log"
        try:
            check_name(host)
            with open(path, encoding="utf-8", errors="replace") as stream:
                return stream.read()
        except (FileNotFoundError, BadRequest):
            raise NotFound(
                f"the lab in {self.directory} has no host {host!r:.60}", "See: diskwright lab status"
            ) from None

    # -- its hosts

    def ask(self, do: str, host: str = "") -> dict[str, Any]:
        """Have something done; returns its result."""
        with self._connected() as connection:
            connection.sendall(wire.packed_json(0, wire.START, {"do": do, "host": host}))
            answer: dict[str, Any] = json.loads(self._last(connection, lambda kind, data: None))
            return answer

    def run(self, host: str, argv: list[str], tell: Callable[[int, bytes], None], feed: int | None = None) -> int:
        """Run a command on a host; ``feed``: a descriptor to read its input from. Returns its exit code."""
        with self._connected() as connection:
            request = {"do": "run", "host": host, "argv": argv, "feed": feed is not None}
            connection.sendall(wire.packed_json(0, wire.START, request))
            return int(self._last(connection, tell, feed))

    def _last(self, connection: socket.socket, tell: Callable[[int, bytes], None], feed: int | None = None) -> bytes:
        unpacker = wire.Unpacker()
        while True:
            wanted = [connection.fileno()] if feed is None else [connection.fileno(), feed]
            ready = select.select(wanted, [], [])[0]
            if feed is not None and feed in ready:
                data = os.read(feed, wire.CHUNK_BYTES)
                connection.sendall(wire.packed(0, wire.INPUT, data))
                feed = feed if data else None
            if connection.fileno() not in ready:
                continue
            data = connection.recv(wire.CHUNK_BYTES)
            if not data:
                raise LabError(f"the lab in {self.directory} has just ended", "Start it with: diskwright lab up")
            for frame in unpacker.feed(data):
                if frame.kind in (wire.OUT, wire.ERR):
                    tell(frame.kind, frame.data)
                elif frame.kind == wire.FAILED:
                    raise RemoteError(json.loads(frame.data))
                else:
                    return frame.data

    def _connected(self) -> socket.socket:
        connection = self._connect()
        if connection is None:
            raise NotFound(f"no lab runs in {self.directory}", "Start one with: diskwright lab up")
        return connection

    def _connect(self) -> socket.socket | None:
        connection = socket.socket(socket.AF_UNIX)
        with suppress(OSError):
            connection.connect(f"{self.directory}/{CONTROL}")
            return connection
        connection.close()
        return None
