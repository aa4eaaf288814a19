"""A machine for tests: qemu-storage-daemon with a monitor; its guest writes over NBD and tells what is durable."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from engine.tools.qemu.nbd import NbdSession

BLOCK = 4096
_PATIENCE_S = 60.0
_EXPORT: dict[str, object] = {"type": "nbd", "id": "guest", "node-name": "disk", "name": "", "writable": True}
_ENTRY = struct.Struct(">QQ")


class Machine:
    """One qemu-storage-daemon on a prepared disk."""

    def __init__(self, folder: Path, path: str, format: str, guest: bool = True, more: Sequence[str] = ()) -> None:
        """``guest``: one can have the disk at once. It bears no other length as long as it can. ``more``: that it is
        started with."""
        self.socket, self.nbd, self.second = folder / "qmp", folder / "nbd", folder / "second"
        for old in (self.socket, self.nbd, self.second):
            old.unlink(missing_ok=True)
        driver = "host_device" if Path(path).is_block_device() else "file"
        node = {"driver": format, "node-name": "disk", "file": {"driver": driver, "filename": path}}
        words = [
            "setpriv", "--pdeathsig", "KILL",  # it goes with whoever started it, also where that fails
            "qemu-storage-daemon", "--chardev", f"socket,path={self.socket},server=on,wait=off,id=monitor",
            "--monitor", "chardev=monitor",
            "--chardev", f"socket,path={self.second},server=on,wait=off,id=second", "--monitor", "chardev=second",
            "--blockdev", json.dumps(node),
            "--nbd-server", f"addr.type=unix,addr.path={self.nbd}",
            *(["--export", json.dumps(_EXPORT)] if guest else []), *more,
        ]  # fmt: skip
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        deadline = time.monotonic() + _PATIENCE_S
        while not self.nbd.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError("qemu-storage-daemon does not start")
            time.sleep(0.005)
        self.ask("query-block-exports")  # answered when all that it was started with is there; its socket is before

    @property
    def monitor(self) -> str:
        return f"qmp:{self.socket}"

    def ask(self, command: str, **arguments: object) -> Any:
        """Ask for something by its second monitor, which nobody else uses."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.second))
            with connection.makefile("rwb") as speech:
                answer: dict[str, Any] = json.loads(speech.readline())
                named = {name.replace("_", "-"): value for name, value in arguments.items()}
                for words in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": named}):
                    speech.write(json.dumps(words).encode())
                    speech.flush()
                    answer = json.loads(speech.readline())
                    while "event" in answer:
                        answer = json.loads(speech.readline())
        return answer["return"]

    def size(self) -> int:
        """How long the disk is there."""
        nodes = self.ask("query-named-block-nodes", flat=True)
        return next(int(node["image"]["virtual-size"]) for node in nodes if node["node-name"] == "disk")

    def let_a_guest_in(self) -> None:
        """From now on a guest can have the disk."""
        self.ask("block-export-add", **_EXPORT)

    def kill(self) -> None:
        """As by the kernel: nothing is written back."""
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def started(self) -> None:
        """As the server of a session."""

    def words(self) -> str:
        return ""

    def stop(self, patience_s: float = 0) -> None:
        """It does not end with its guest."""

    def session(self) -> NbdSession:
        """The disk, as its guest sees it."""
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self.nbd))
        return NbdSession(connection, self, "the guest's disk")


class Guest:
    """A process that writes numbered blocks, one after the other, each flushed, as long as its machine answers. What it
    tells when stands in a pipe, which outlives it."""

    def __init__(self, machine: Machine, blocks: int, first: int, start: int = 0) -> None:
        """Into that many blocks from byte ``start`` on; ``first`` is the number of its first write."""
        self._machine, self.blocks = machine, blocks
        reader, writer = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            os.close(reader)
            self._write(machine, blocks, first, start, writer)
        os.close(writer)
        self._told: IO[bytes] = os.fdopen(reader, "rb")
        os.set_blocking(reader, False)
        self._rest = b""
        self.issued = self.acknowledged = first - 1
        """Numbers of the last write that was begun, and of the last that was flushed."""

    @staticmethod
    def _write(machine: Machine, blocks: int, number: int, start: int, writer: int) -> None:
        with contextlib.suppress(BaseException):
            session = machine.session()
            while True:
                os.write(writer, _ENTRY.pack(number, 0))
                session.write(start + number % blocks * BLOCK, content(number))
                session.flush()
                os.write(writer, _ENTRY.pack(number, 1))
                number += 1
        os._exit(0)

    def look(self) -> None:
        """Read what it has told so far."""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self._told.fileno(), 1 << 16):
                self._rest += piece
        whole = len(self._rest) // _ENTRY.size * _ENTRY.size
        for number, done in _ENTRY.iter_unpack(self._rest[:whole]):
            if done:
                self.acknowledged = number
            else:
                self.issued = number
        self._rest = self._rest[whole:]

    def wait_for(self, number: int) -> None:
        """Until a write is acknowledged, or its machine has ended; one that runs must let it write."""
        deadline = time.monotonic() + _PATIENCE_S
        while self._pid and self.acknowledged < number and time.monotonic() < deadline:
            self.look()
            if os.waitpid(self._pid, os.WNOHANG)[0]:
                self._pid = 0
                self.look()
                break
            time.sleep(0.002)
        ended = self._machine.process.poll() is not None
        assert ended or self.acknowledged >= number, f"its machine runs, and write {number} is not acknowledged"

    def end(self) -> None:
        """Kill it, and read the rest."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0
        self.look()
        self._told.close()


def content(number: int) -> bytes:
    """What write number ``number`` writes."""
    return struct.pack(">Q", number) * (BLOCK // 8)


def numbers(data: bytes) -> list[int]:
    """The number of the write that each block shows; AssertionError for a torn one."""
    found = []
    for start in range(0, len(data), BLOCK):
        block = data[start : start + BLOCK]
        (number,) = struct.unpack(">Q", block[:8])
        assert block == content(number), f"the block at {start} is torn"
        found.append(number)
    return found


def state_after(number: int, blocks: int) -> list[int]:
    """What the blocks show after that write."""
    return [max((n for n in range(max(0, number - blocks + 1), number + 1) if n % blocks == i), default=0)
            for i in range(blocks)]  # fmt: skip
