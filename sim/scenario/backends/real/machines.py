"""Machines of this machine: qemu-io on a prepared path, which takes commands one by one; where it has to be spoken to,
qemu-storage-daemon, whose guest is we."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from engine.errors import ToolFailed
from engine.tools.qemu.nbd import NbdSession

_PROMPT = b"qemu-io> "
_PATIENCE_S = 60.0
_LOOK_AGAIN_S = 0.005


class _Program:
    """A process that can be frozen and killed."""

    _popen: subprocess.Popen[bytes]
    _frozen = False

    @property
    def running(self) -> bool:
        """Whether it is neither dead nor frozen."""
        return not self._frozen and self._popen.poll() is None

    def freeze(self) -> None:
        """Stop it."""
        self._popen.send_signal(signal.SIGSTOP)
        self._frozen = True

    def thaw(self) -> None:
        """Let it go on."""
        self._popen.send_signal(signal.SIGCONT)
        self._frozen = False

    def kill(self) -> None:
        """Kill it, and wait until it is gone. Idempotent."""
        self._popen.kill()
        self._end()

    def _end(self) -> None:
        self._popen.wait()
        for stream in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if stream is not None:
                stream.close()


class QemuIo(_Program):
    """A running qemu-io with one image open for writing; it looks for the layers below by itself."""

    monitor = ""
    """It has none."""

    def __init__(self, path: str, format: str, cache: str) -> None:
        """Start it. ToolFailed: it cannot open the image."""
        self._path = path
        self._popen = subprocess.Popen(
            ["qemu-io", "-f", format, "-t", cache, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C"},
        )
        said = self._answer()
        if self._popen.poll() is not None:
            raise ToolFailed(f"qemu-io cannot open {path}: {said}")

    def write(self, start: int, data: bytes) -> None:
        """Write into the disk; nothing is flushed."""
        with tempfile.NamedTemporaryFile() as stream:
            stream.write(data)
            stream.flush()
            self._do(f"write -q -s {stream.name} {start} {len(data)}")

    def flush(self) -> None:
        """Flush, as far as the cache mode passes that on."""
        self._do("flush")

    def stop(self) -> None:
        """Shut it down: it writes its caches back."""
        assert self._popen.stdin is not None
        self._popen.stdin.close()
        self._end()

    def _do(self, command: str) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.write(f"{command}\n".encode())
        self._popen.stdin.flush()
        said = self._answer()
        if said:
            raise ToolFailed(f"qemu-io on {self._path}: {said}")

    def _answer(self) -> str:
        """What it says before it asks for the next command, or ends."""
        assert self._popen.stdout is not None
        said = b""
        while not said.endswith(_PROMPT):
            part = os.read(self._popen.stdout.fileno(), 65536)
            if not part:
                self._end()
                break
            said += part
        return said.removesuffix(_PROMPT).decode("utf-8", "replace").strip()


class StorageDaemon(_Program):
    """A running qemu-storage-daemon with one image open for writing, a monitor, and a guest: this process."""

    def __init__(self, path: str, format: str, cache: str) -> None:
        """Start it. ToolFailed: it cannot open the image."""
        self._folder = tempfile.mkdtemp(prefix="diskwright-machine-")
        self._session: NbdSession | None = None
        self.monitor = f"qmp:{self._folder}/qmp"
        guest = f"{self._folder}/nbd"
        node = {"driver": format, "node-name": "disk", "cache": {"no-flush": cache == "unsafe"},
                "file": {"driver": "file", "filename": path}}  # fmt: skip
        export = {"type": "nbd", "id": "guest", "node-name": "disk", "name": "", "writable": True}
        words = [
            "qemu-storage-daemon", "--chardev", f"socket,path={self._folder}/qmp,server=on,wait=off,id=monitor",
            "--monitor", "chardev=monitor", "--blockdev", json.dumps(node),
            "--nbd-server", f"addr.type=unix,addr.path={guest}", "--export", json.dumps(export),
        ]  # fmt: skip
        self._popen = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        deadline = time.monotonic() + _PATIENCE_S
        while not os.path.exists(guest):
            if self._popen.poll() is not None or time.monotonic() > deadline:
                self._popen.kill()
                assert self._popen.stderr is not None
                said = self._popen.stderr.read().decode("utf-8", "replace").strip()
                self._end()
                raise ToolFailed(f"qemu-storage-daemon cannot open {path}: {said:.200}")
            time.sleep(_LOOK_AGAIN_S)

    def write(self, start: int, data: bytes) -> None:
        """Write into the disk; nothing is flushed."""
        self._guest().write(start, data)

    def flush(self) -> None:
        """Flush, as far as the cache mode passes that on."""
        self._guest().flush()

    def stop(self) -> None:
        """Shut it down: it writes its caches back."""
        self._disconnect()
        self._popen.send_signal(signal.SIGTERM)
        self._end()

    def _end(self) -> None:
        self._disconnect()
        super()._end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _disconnect(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _guest(self) -> NbdSession:
        if self._session is None:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(f"{self._folder}/nbd")
            self._session = NbdSession(connection, _Serving(), "the guest's disk")
        return self._session


class _Serving:
    """What a session wants to know of its server: this one does not end with it."""

    def started(self) -> None:
        """It is."""

    def words(self) -> str:
        """Nothing that it said is kept."""
        return ""

    def stop(self, patience_s: float = 0) -> None:
        """It goes on."""
