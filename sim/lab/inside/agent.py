"""Process 1 after the start: does what frames on the serial line say, and reaps every orphan.

One thread, one loop. Frames of one command come in the order in which things happened; what a command wrote
before it ended is sent before its EXIT. A daemon that it leaves behind may go on writing: nobody sees it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import time
from typing import Any

from sim.lab import wire
from sim.lab.inside import commands
from sim.lab.inside.commands import Command

_POWER_OFF = 0x4321FEDC  # linux/reboot.h
_GRACE_S = 2.0
_REAL_FILE_SYSTEMS = frozenset({"ext4", "xfs", "nfs", "nfs4", "hostfs"})


class Agent:
    """Owns the line."""

    def __init__(self, line: int) -> None:
        self._line = line
        self._reading = os.open("/dev/ttyS0", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector = selectors.DefaultSelector()
        self._unpacker = wire.Unpacker()
        self._by_pid: dict[int, Command] = {}
        self._by_stream: dict[int, Command] = {}
        self._bell, bell_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(bell_end, warn_on_full_buffer=False)
        self._selector.register(self._reading, selectors.EVENT_READ, self._on_line)
        self._selector.register(self._bell, selectors.EVENT_READ, self._on_bell)

    def run(self, facts: dict[str, Any]) -> None:
        """Say that we are ready, then serve for ever."""
        self._send(0, wire.READY, json.dumps(facts).encode())
        while True:
            for key, _ in self._selector.select():
                if self._selector.get_map().get(key.fd) is key:  # not closed by one before it in this round
                    key.data()

    def _send(self, stream: int, kind: int, data: bytes = b"") -> None:
        view = memoryview(wire.packed(stream, kind, data))
        while view:
            view = view[os.write(self._line, view) :]

    # -- from the lab

    def _on_line(self) -> None:
        try:
            data = os.read(self._reading, wire.CHUNK_BYTES)
        except BlockingIOError:
            return
        self._send(0, wire.TAKEN, b"%d" % len(data))
        for frame in self._unpacker.feed(data):
            self._obey(frame)

    def _obey(self, frame: wire.Frame) -> None:
        if frame.kind == wire.START:
            self._start(frame.stream, json.loads(frame.data))
        elif frame.kind == wire.HALT:
            self._halt()
        elif command := self._by_stream.get(frame.stream):
            if frame.kind == wire.SIGNAL:
                command.signal(frame.data[0])
            elif command.feed is not None:
                if not command.waiting:
                    self._selector.register(command.feed, selectors.EVENT_WRITE, lambda: self._on_feed(command))
                command.waiting.append(frame.data)

    def _start(self, stream: int, spec: dict[str, Any]) -> None:
        try:
            command = commands.start(stream, spec)
        except (OSError, ImportError, AttributeError, SyntaxError, ValueError) as error:
            self._send(stream, wire.FAILED, str(error).encode("utf-8", "backslashreplace"))
            return
        self._by_pid[command.pid] = self._by_stream[stream] = command
        self._selector.register(command.out, selectors.EVENT_READ, lambda: self._pump(command, command.out, wire.OUT))
        self._selector.register(command.err, selectors.EVENT_READ, lambda: self._pump(command, command.err, wire.ERR))
        self._send(stream, wire.STARTED, b"%d" % command.pid)

    # -- from commands

    def _pump(self, command: Command, descriptor: int, kind: int) -> bool:
        """Send on what is there; false: nothing at the moment, or nothing ever more."""
        try:
            data = os.read(descriptor, wire.CHUNK_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._forget(descriptor)
            return False
        if command.stream in self._by_stream:
            self._send(command.stream, kind, data)
        return True

    def _on_feed(self, command: Command) -> None:
        assert command.feed is not None
        try:
            data = command.waiting[0]
            if data:
                written = os.write(command.feed, data)
                command.waiting[0] = data[written:]
            if not data:
                raise BrokenPipeError
        except BlockingIOError:
            return
        except BrokenPipeError:  # it was told the end, or it does not want more
            self._stop_feeding(command)
            return
        if not command.waiting[0]:
            command.waiting.popleft()
        if not command.waiting:
            self._selector.unregister(command.feed)

    def _stop_feeding(self, command: Command) -> None:
        if command.feed is not None:
            self._forget(command.feed)
            command.feed = None
            command.waiting.clear()

    def _forget(self, descriptor: int) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(descriptor)
        os.close(descriptor)

    def _on_bell(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._bell, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return
            if not pid:
                return
            if os.WIFSTOPPED(status):
                if command := self._by_pid.get(pid):
                    self._send(command.stream, wire.STOPPED, b"%d" % os.WSTOPSIG(status))
            elif command := self._by_pid.pop(pid, None):
                self._ended(command, os.waitstatus_to_exitcode(status))

    def _ended(self, command: Command, code: int) -> None:
        registered = self._selector.get_map()
        for descriptor, kind in ((command.out, wire.OUT), (command.err, wire.ERR)):
            while descriptor in registered and self._pump(command, descriptor, kind):
                pass
        self._stop_feeding(command)
        del self._by_stream[command.stream]
        self._send(command.stream, wire.EXIT, b"%d" % code)

    # -- the end

    def _halt(self) -> None:
        """Everything gets SIGTERM and some time, file systems are left clean, the power goes off."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, number)
            deadline = time.monotonic() + _GRACE_S
            while time.monotonic() < deadline and _children_left():
                time.sleep(0.01)
        _unmount_all()
        os.sync()
        ctypes.CDLL(None).reboot(_POWER_OFF)


def _children_left() -> bool:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _unmount_all() -> None:
    libc = ctypes.CDLL(None)
    with open("/proc/mounts", encoding="utf-8") as stream:
        lines = [line.split(" ") for line in stream]
    for _, target, kind, *_ in reversed(lines):
        if kind in _REAL_FILE_SYSTEMS and target != "/":
            libc.umount2(target.encode().decode("unicode_escape").encode("latin-1"), 0)
