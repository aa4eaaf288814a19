"""The lab's end of the serial line into a guest: starts commands there and collects what they say.

A thread reads the line as long as the guest lives. Everybody who waits is told at once when it dies.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sim.lab import wire
from sim.lab.errors import CommandFailed, CommandNotStarted, GuestDied, LabError

_LAST_BYTES = 2000


class Done(NamedTuple):
    """A command that has ended."""

    code: int
    """Exit code of the command, or the negative number of the signal that ended it."""
    output: bytes
    errors: bytes

    @property
    def stdout(self) -> str:
        """Return the output as text."""
        return self.output.decode("utf-8", "backslashreplace")

    @property
    def stderr(self) -> str:
        """What it wrote to standard error, as text."""
        return self.errors.decode("utf-8", "backslashreplace")


class Running:
    """A command in a guest. It runs on whether anybody waits or not; the guest's death ends it."""

    def __init__(
        self, channel: Channel, stream: int, what: str, on_output: Callable[[int, bytes], None] | None
    ) -> None:
        self._channel = channel
        self._stream = stream
        self.what = what
        """The command, for messages."""
        self._on_output = on_output
        self._out = bytearray()
        self._err = bytearray()
        self._code: int | None = None
        self._failed: str | None = None
        self._stops = 0
        self._changed = threading.Condition()
        self._started = threading.Event()
        self._ended = threading.Event()
        self.pid = 0
        """Process id of the command in the guest, where it leads a process group. 0: not known yet."""

    # -- from the channel's thread

    def take(self, frame: wire.Frame) -> None:
        """What the guest says about it."""
        if frame.kind in (wire.OUT, wire.ERR):
            if self._on_output:
                self._on_output(frame.kind, frame.data)
            else:
                (self._out if frame.kind == wire.OUT else self._err).extend(frame.data)
        elif frame.kind == wire.STOPPED:
            with self._changed:
                self._stops += 1
                self._changed.notify_all()
        elif frame.kind == wire.STARTED:
            self.pid = int(frame.data)
            self._started.set()
        else:
            if frame.kind == wire.EXIT:
                self._code = int(frame.data)
            else:
                self._failed = frame.data.decode("utf-8", "replace")
            self.over()

    def over(self) -> None:
        """Take note that nothing more will come."""
        self._started.set()
        with self._changed:
            self._ended.set()
            self._changed.notify_all()

    # -- for everybody

    @property
    def output(self) -> bytes:
        """What it has written to standard output so far; nothing when it was started with ``on_output``."""
        return bytes(self._out)

    @property
    def errors(self) -> bytes:
        """What it has written to standard error so far."""
        return bytes(self._err)

    @property
    def ended(self) -> bool:
        """Whether it has ended, was never started, or died with its host."""
        return self._ended.is_set()

    def signal(self, number: int) -> None:
        """Send a signal to its process group."""
        self._channel.send(self._stream, wire.SIGNAL, bytes([number]))

    def write(self, data: bytes) -> None:
        """Bytes for its standard input (when it was started with ``feed``)."""
        for start in range(0, len(data), wire.CHUNK_BYTES):
            self._channel.send(self._stream, wire.INPUT, data[start : start + wire.CHUNK_BYTES])

    def close_input(self) -> None:
        """The end of its standard input."""
        self._channel.send(self._stream, wire.INPUT)

    def wait_started(self) -> int:
        """Return the process id of the command; GuestDied, or LabError when it could not be started."""
        self._started.wait()
        if self.pid:
            return self.pid
        raise self._no_result()

    def wait_stopped(self, timeout_s: float | None = None) -> bool:
        """Wait until its main process is stopped by a signal (true), or has ended or the time is over (false)."""
        with self._changed:
            self._changed.wait_for(lambda: self._stops or self._ended.is_set(), timeout_s)
            return self._stops > 0 and not self._ended.is_set()

    def wait(self, timeout_s: float | None = None) -> Done:
        """Wait until it has ended. GuestDied; LabError when it could not be started, or the time is over: it
        is killed then."""
        if not self._ended.wait(timeout_s):
            self.signal(signal.SIGKILL)
            raise LabError(f"{self.what} did not end in {timeout_s:g} s; it had said: {self._last_words()}")
        if self._code is None:
            raise self._no_result()
        return Done(self._code, self.output, self.errors)

    def _no_result(self) -> LabError:
        if self._failed is not None:
            return CommandNotStarted(
                f"{self.what} could not be started on {self._channel.name}: {self._failed}", "Check its name"
            )
        return GuestDied(f"{self._channel.name} died while it ran {self.what}")

    def _last_words(self) -> str:
        return (self.errors + self.output)[-_LAST_BYTES:].decode("utf-8", "backslashreplace").strip() or "nothing"

    def checked(self, timeout_s: float | None = None) -> Done:
        """As ``wait``, and CommandFailed when it did not succeed."""
        done = self.wait(timeout_s)
        if done.code:
            raise CommandFailed(
                f"{self.what} on {self._channel.name} ended with exit code {done.code}: {self._last_words()}"
            )
        return done


class Channel:
    """Owns its end of the line, and the thread. ``pidfd`` is the guest's main process."""

    def __init__(self, name: str, line: socket.socket, pidfd: int, on_death: Callable[[], None]) -> None:
        self.name = name
        self.facts: dict[str, Any] = {}
        """What the guest said about itself when it was ready; empty when it died before."""
        self._line = line
        self._pidfd = pidfd
        self._on_death = on_death
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._room = threading.Condition()
        self._window = wire.WINDOW_BYTES
        self._commands: dict[int, Running] = {}
        self._last_stream = 0
        self._alive = True
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._read, name=f"lab-{name}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the guest's main process lives."""
        return self._alive

    def wait_ready(self, timeout_s: float) -> bool:
        """Whether the guest takes commands; false when it died or the time is over."""
        return self._ready.wait(timeout_s) and self._alive and bool(self.facts)

    def start(self, spec: dict[str, Any], what: str, on_output: Callable[[int, bytes], None] | None = None) -> Running:
        """Start a command; GuestDied when there is no guest. ``on_output`` must not talk to the guest."""
        with self._lock:
            if not self._alive:
                raise GuestDied(f"{self.name} is not running", "Boot it again")
            self._last_stream += 1
            stream = self._last_stream
            running = self._commands[stream] = Running(self, stream, what, on_output)
        self.send(stream, wire.START, json.dumps(spec).encode())
        return running

    def send(self, stream: int, kind: int, data: bytes = b"") -> None:
        """A frame to the guest; GuestDied when there is none. Frames for commands that have ended are lost. Waits
        until the guest has taken enough of what came before."""
        view = memoryview(wire.packed(stream, kind, data))
        with self._sending:
            while view:
                room = self._wait_for_room(len(view))
                try:
                    self._line.sendall(view[:room])
                except OSError:
                    raise GuestDied(f"{self.name} has just died") from None
                view = view[room:]

    def _wait_for_room(self, wanted: int) -> int:
        with self._room:
            self._room.wait_for(lambda: self._window or not self._alive)
            if not self._alive:
                raise GuestDied(f"{self.name} is not running", "Boot it again")
            room = min(wanted, self._window)
            self._window -= room
            return room

    def join(self) -> None:
        """Wait until the guest is dead and everybody was told."""
        self._thread.join()

    def _read(self) -> None:
        unpacker = wire.Unpacker()
        poll = select.poll()
        poll.register(self._line, select.POLLIN)
        poll.register(self._pidfd, select.POLLIN)
        try:
            while True:
                ready = {descriptor for descriptor, _ in poll.poll()}
                data = self._line.recv(1 << 20, socket.MSG_DONTWAIT) if self._line.fileno() in ready else b""
                if not data and (self._pidfd in ready or self._line.fileno() in ready):
                    break
                for frame in unpacker.feed(data):
                    self._dispatch(frame)
        except (OSError, wire.Garbled):
            pass
        finally:
            self._died()

    def _dispatch(self, frame: wire.Frame) -> None:
        if frame.kind == wire.READY:
            self.facts = json.loads(frame.data)
            self._ready.set()
            return
        if frame.kind == wire.TAKEN:
            with self._room:
                self._window += int(frame.data)
                self._room.notify()
            return
        with self._lock:
            last = frame.kind in (wire.EXIT, wire.FAILED)
            running = self._commands.pop(frame.stream, None) if last else self._commands.get(frame.stream)
        if running:
            running.take(frame)

    def _died(self) -> None:
        self._on_death()
        with self._room:
            self._alive = False
            self._room.notify_all()
        with self._sending:
            self._line.close()
            os.close(self._pidfd)
        with self._lock:
            left = list(self._commands.values())
            self._commands.clear()
        self._ready.set()
        for running in left:
            running.over()


def shown(argv: Sequence[str]) -> str:
    """A command for messages."""
    import shlex

    text = shlex.join(argv)
    return text if len(text) <= 200 else text[:199] + "…"
