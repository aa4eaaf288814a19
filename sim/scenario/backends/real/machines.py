"""Machines of this machine: qemu-io on a prepared path, which takes commands one by one."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile

from engine.errors import ToolFailed

_PROMPT = b"qemu-io> "


class QemuIo:
    """A running qemu-io with one image open for writing; it looks for the layers below by itself."""

    def __init__(self, path: str, format: str, cache: str) -> None:
        """Start it. ToolFailed: it cannot open the image."""
        self._path = path
        self._frozen = False
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

    @property
    def running(self) -> bool:
        """Whether it is neither dead nor frozen."""
        return not self._frozen and self._popen.poll() is None

    def write(self, start: int, data: bytes) -> None:
        """Write into the disk; nothing is flushed."""
        with tempfile.NamedTemporaryFile() as stream:
            stream.write(data)
            stream.flush()
            self._do(f"write -q -s {stream.name} {start} {len(data)}")

    def flush(self) -> None:
        """Flush, as far as the cache mode passes that on."""
        self._do("flush")

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

    def stop(self) -> None:
        """Shut it down: it writes its caches back."""
        assert self._popen.stdin is not None
        self._popen.stdin.close()
        self._end()

    def _end(self) -> None:
        self._popen.wait()
        for stream in (self._popen.stdin, self._popen.stdout):
            if stream is not None:
                stream.close()

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
