"""Machines: programs of qemu that have a prepared disk open, and an NBD client that writes numbered blocks into it."""

import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tests.adversary.doors import processes
from tests.adversary.oracle.contents import BLOCK, extent_bytes

_OLD_MAGIC, _OPTION_MAGIC, _REPLY_MAGIC = b"NBDMAGIC", b"IHAVEOPT", 0x3E889045565A9
_EXPORT_NAME, _NO_ZEROES = 1, 2
_REQUEST, _ANSWER = 0x25609513, 0x67446698
_READ, _WRITE, _FLUSH = 0, 1, 3
_FUA = 1
_PIECE = 4096  # blocks in one request; a server takes 32 MiB at most


class MachineError(Exception):
    """The machine, or the way to it, has failed; what it was told to write is written or not."""


class NbdClient:
    """Speaks the newstyle protocol to a server on a Unix socket; each write is on stable storage when it returns."""

    def __init__(self, path: Path, export: str = "") -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60.0)
        self._handle = 0
        self._alone = threading.Lock()  # requests of two threads must not run into each other
        try:
            self._socket.connect(str(path))
            greeting = self._take(18)
            if greeting[:16] != _OLD_MAGIC + _OPTION_MAGIC:
                raise MachineError("not an NBD server")
            self._socket.sendall(struct.pack(">I", 3))
            name = export.encode()
            self._socket.sendall(_OPTION_MAGIC + struct.pack(">II", _EXPORT_NAME, len(name)) + name)
            self.size, _flags = struct.unpack(">QH", self._take(10))
        except OSError as error:
            self.close()
            raise MachineError(str(error)) from error
        except MachineError:
            self.close()
            raise

    def write(self, offset: int, data: bytes, *, fua: bool = True) -> None:
        """Write; with `fua` the data are durable when this returns."""
        self._call(_WRITE, offset, len(data), data, _FUA if fua else 0)

    def read(self, offset: int, length: int) -> bytes:
        """Read."""
        return self._call(_READ, offset, length, b"", 0)

    def flush(self) -> None:
        """Make everything durable that was written."""
        self._call(_FLUSH, 0, 0, b"", 0)

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def _call(self, command: int, offset: int, length: int, data: bytes, flags: int) -> bytes:
        with self._alone:
            return self._call_alone(command, offset, length, data, flags)

    def _call_alone(self, command: int, offset: int, length: int, data: bytes, flags: int) -> bytes:
        self._handle += 1
        header = struct.pack(">IHHQQI", _REQUEST, flags, command, self._handle, offset, length)
        try:
            self._socket.sendall(header + data)
            magic, error, handle = struct.unpack(">IIQ", self._take(16))
            if magic != _ANSWER or handle != self._handle:
                raise MachineError("the NBD server answered something else")
            if error:
                raise MachineError(f"errno {error}: {os.strerror(error)}")
            return self._take(length) if command == _READ else b""
        except OSError as error:
            raise MachineError(str(error)) from error

    def _take(self, count: int) -> bytes:
        pieces = b""
        while len(pieces) < count:
            piece = self._socket.recv(count - len(pieces))
            if not piece:
                raise MachineError("the machine is gone")
            pieces += piece
        return pieces


@dataclass
class Running:
    """A machine on this computer. It lives until it is stopped or killed, whatever its holder does."""

    process: "subprocess.Popen[bytes]"
    client: NbdClient

    def write(self, write: int, first: int, count: int) -> None:
        """Write numbered blocks, durable when this returns."""
        for start in range(first, first + count, _PIECE):
            piece = extent_bytes(write, start, min(_PIECE, first + count - start))
            self.client.write(start * BLOCK, piece)

    def end(self, *, kill: bool) -> None:
        """Shut it down, or kill it."""
        if kill:
            self.process.kill()
        self.client.close()
        if not kill:
            self.process.terminate()
        self.process.wait()


def start(path: str, image_format: str, environment: dict[str, str], socket_path: Path) -> Running:
    """Start a machine on a prepared path; raise MachineError when qemu refuses it."""
    process = subprocess.Popen(
        _server(path, image_format, socket_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    assert process.stderr
    deadline = time.monotonic() + 60.0
    while process.poll() is None and time.monotonic() < deadline:
        if socket_path.exists():
            try:
                client = NbdClient(socket_path, "disk")
            except MachineError:
                processes.pause(0.01)
                continue
            process.stderr.close()
            return Running(process, client)
        processes.pause(0.005)
    process.kill()
    process.wait()
    with process.stderr:
        raise MachineError(process.stderr.read().decode(errors="replace").strip() or "the machine did not start")


def _server(path: str, image_format: str, socket_path: Path) -> list[str]:
    driver = "host_device" if Path(path).is_block_device() else "file"
    if daemon := shutil.which("qemu-storage-daemon"):
        return [
            daemon,
            "--blockdev", f"driver={driver},node-name=file,filename={path}",
            "--blockdev", f"driver={image_format},node-name=disk,file=file",
            "--nbd-server", f"addr.type=unix,addr.path={socket_path}",
            "--export", "type=nbd,id=export,node-name=disk,name=disk,writable=on",
        ]  # fmt: skip
    return ["qemu-nbd", "-t", "-x", "disk", "-k", str(socket_path), "-f", image_format, "--cache=writeback", path]
