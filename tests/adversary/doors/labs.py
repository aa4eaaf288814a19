"""A lab of `diskwright lab`: guests with real NFS and LVM that are killed, frozen and booted. Driven by its command."""

import json
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from tests.adversary.doors.far import Line
from tests.adversary.oracle.findings import CannotTry

EXPORT = "/srv/export"  # of the server, on the server
MOUNT = "/srv/nfs"  # the export on each host


class Lab(Protocol):
    """A lab that runs."""

    server: str
    """The address of its NFS server, "" without one."""

    def begin(self, host: str, argv: list[str], hear: Callable[[bytes], None]) -> Line:
        """Start a program on a host; `hear` gets what it writes, b"" at its end."""

    def do(self, what: str, host: str) -> None:
        """kill, boot, freeze or thaw a host."""


class LabByCommand:
    """A lab of its own, in a directory."""

    def __init__(self, command: str, directory: Path, hosts: int, *, nfs: bool) -> None:
        self._command, self._directory = command, str(directory)
        self._lab("up", "--hosts", str(hosts), "--disk", "1G", *(["--nfs"] if nfs else []))
        told = json.loads(self._lab("status", "--json"))
        self.server = next((one["address"] for one in told["hosts"] if one["role"] == "nfs server"), "")

    def begin(self, host: str, argv: list[str], hear: Callable[[bytes], None]) -> "_Input":
        """Start a program on a host."""
        process = subprocess.Popen(
            [self._command, "lab", "run", "-i", "--dir", self._directory, host, "--", *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # it tells of each host that dies
        )
        threading.Thread(target=_pass_on, args=(process, hear), daemon=True).start()
        return _Input(process)

    def do(self, what: str, host: str) -> None:
        """Have something done to a host."""
        self._lab(what, host)

    def close(self) -> None:
        """End it."""
        self._lab("down")

    def _lab(self, *words: str) -> str:
        argv = [self._command, "lab", *words, "--dir", self._directory]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotTry(f"lab {words[0]}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout


class _Input:
    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def write(self, data: bytes) -> None:
        """Pass it on."""
        assert self._process.stdin
        self._process.stdin.write(data)
        self._process.stdin.flush()


def _pass_on(process: Any, hear: Callable[[bytes], None]) -> None:
    while data := process.stdout.read1():
        hear(data)
    process.wait()
    hear(b"")
