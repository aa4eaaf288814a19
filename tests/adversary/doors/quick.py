"""Starts a Python program again and again, each time in a fork of a process that has imported what it imports.

In a guest of a lab that takes a tenth of the time: nearly all of a command's time goes to imports there. The program
is any script of Python; what it imports is learnt from its runs. Each run is a process and a session of its own.
"""

import array
import contextlib
import importlib
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any

_MOST = 1 << 20


class Quick:
    """Starts programs; ends with the process that made it."""

    def __init__(self) -> None:
        self._path = f"{tempfile.mkdtemp()}/quick"
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, self._path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout
        self._process.stdout.readline()

    def start(self, argv: list[str], environment: dict[str, str]) -> "Started":
        """Start a script with its arguments."""
        out, err = (os.pipe() for _ in range(2))
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.connect(self._path)
        request = json.dumps({"argv": argv, "environment": environment}).encode()
        descriptors = array.array("i", [out[1], err[1]])
        connection.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
        os.close(out[1])
        os.close(err[1])
        return Started(connection, out[0], err[0])

    def close(self) -> None:
        """Start no more."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        shutil.rmtree(Path(self._path).parent)


class Started:
    """A program that was started: as much of subprocess.Popen as is needed."""

    def __init__(self, connection: socket.socket, out: int, err: int) -> None:
        self._connection = connection
        self.returncode: int | None = None
        self.pid = int(connection.recv(100))
        self._pieces: dict[int, bytes] = {}
        self._readers = [threading.Thread(target=self._read, args=(at, fd)) for at, fd in enumerate((out, err))]
        for reader in self._readers:
            reader.start()
        self._alone = threading.Lock()

    def _read(self, at: int, descriptor: int) -> None:
        with open(descriptor, "rb") as file:
            self._pieces[at] = file.read()

    def poll(self) -> int | None:
        """Return its exit code, None while it runs."""
        with self._alone:
            if self.returncode is None:
                with contextlib.suppress(BlockingIOError):
                    self._take(0.0)
            return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[bytes, bytes]:
        """Wait for its end; return its output and errors. subprocess.TimeoutExpired."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._connection, selectors.EVENT_READ)
            if self.returncode is None and not selector.select(timeout):
                raise subprocess.TimeoutExpired("", timeout or 0.0)
        self.poll()
        self._connection.close()
        for reader in self._readers:
            reader.join()
        return self._pieces[0], self._pieces[1]

    def _take(self, seconds: float) -> None:
        self._connection.settimeout(seconds)
        self.returncode = int(self._connection.recv(100) or b"-9")


class _Parent:
    """The process that has imported everything."""

    def __init__(self, path: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(path)
        self._listener.listen(64)
        self._running: dict[int, socket.socket] = {}
        self._modules, self._told = os.pipe()
        os.set_blocking(self._modules, False)
        self._heard = b""
        woken, wake = os.pipe()
        for one in (woken, wake):
            os.set_blocking(one, False)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector = selectors.DefaultSelector()
        for fileno in (self._listener.fileno(), self._modules, woken, sys.stdin.fileno()):
            self._selector.register(fileno, selectors.EVENT_READ)
        self._woken = woken

    def serve(self) -> None:
        """Start what is asked for, until standard input ends."""
        print("ready", flush=True)
        while True:
            for key, _ in self._selector.select():
                if key.fd == sys.stdin.fileno():
                    return
                if key.fd == self._listener.fileno():
                    self._start()
                elif key.fd == self._modules:
                    self._import()
                else:
                    os.read(self._woken, 1000)
            self._bury()

    def _start(self) -> None:
        connection, _ = self._listener.accept()
        data, ancillary, _flags, _address = connection.recvmsg(_MOST, socket.CMSG_SPACE(8))
        descriptors = array.array("i", ancillary[0][2])
        request = json.loads(data)
        pid = os.fork()
        if not pid:
            _run(request, list(descriptors), self._told)
        for one in descriptors:
            os.close(one)
        self._running[pid] = connection
        connection.send(b"%d" % pid)

    def _bury(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                connection = self._running.pop(ended[0])
                with connection, contextlib.suppress(OSError):
                    connection.send(b"%d" % os.waitstatus_to_exitcode(ended[1]))

    def _import(self) -> None:
        *lines, self._heard = (self._heard + os.read(self._modules, _MOST)).split(b"\n")
        for name in {name.decode() for line in lines for name in line.split()} - set(sys.modules):
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def _run(request: dict[str, Any], descriptors: list[int], told: int) -> None:
    """Be the program; does not return."""
    code = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        for at, descriptor in enumerate(descriptors, 1):
            os.dup2(descriptor, at)
            os.close(descriptor)  # what the program leaves behind must not keep its output open
        # Those of the parent know whether they can seek, which is another thing for these.
        sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        before = set(sys.modules)
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.argv = request["argv"]
        script = Path(sys.argv[0])
        try:
            exec(compile(script.read_text(), str(script), "exec"), {"__name__": "__main__"})
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if new := set(sys.modules) - before:
            os.write(told, " ".join(sorted(new)).encode() + b"\n")
    except BaseException:  # noqa: BLE001 (whatever it is: it must not get into the parent's loop)
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _Parent(sys.argv[1]).serve()
