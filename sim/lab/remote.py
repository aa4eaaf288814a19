"""Objects that live in a guest, used here as if they were ours: an engine and the files of another host.

Data (numbers, text, bytes, records and lists of them) come by value, everything else stays there and is
called from here. Errors of the engine and of the system are raised here as they were there.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

from sim.lab import wire
from sim.lab.errors import GuestDied, LabError
from sim.lab.guest import Guest
from sim.lab.inside.remote import Reference, read_message, write_message


class Remote:
    """An object in a guest: attributes and methods as there; also a context manager, if it is one there."""

    def __init__(self, process: RemotePython, number: int) -> None:
        self._process = process
        self._number = number
        self._methods: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._methods:
            kind, value = self._process.ask(self._number, name, None)
            if kind != "method":
                return value
            self._methods.add(name)
        return self._caller(name)

    def _caller(self, name: str) -> Callable[..., Any]:
        return lambda *plain, **named: self._process.ask(self._number, name, (list(plain), named))[1]

    def __enter__(self) -> Any:
        self._caller("__enter__")()
        return self

    def __exit__(self, *error: object) -> None:
        self._caller("__exit__")(None, None, None)


class RemotePython:
    """A Python process in a guest whose objects are used from here. One thread at a time."""

    def __init__(self, guest: Guest, preload: list[str]) -> None:
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._errors = bytearray()
        self._running = guest.begin_call("sim.lab.inside.remote:main", preload=preload, feed=True, on_output=self._take)

    def _take(self, kind: int, data: bytes) -> None:
        if kind == wire.OUT:
            self._answers.put(data)
        else:
            self._errors += data

    def call(self, name: str, *plain: Any, **named: Any) -> Any:
        """Call ``module:function`` there; an object that it returns is a ``Remote``."""
        return self.ask(0, name, (list(plain), named))[1]

    def ask(self, number: int, name: str, arguments: tuple[list[Any], dict[str, Any]] | None) -> tuple[str, Any]:
        """Send one request; return the kind of the answer and its value."""
        if arguments is not None:
            plain, named = arguments
            arguments = [_named(value) for value in plain], {key: _named(value) for key, value in named.items()}
        write_message(_Writer(self._running.write), (number, name, arguments))  # type: ignore[arg-type]
        kind, value = read_message(_Reader(self._more))  # type: ignore[arg-type]
        if kind == "error":
            raise value
        return kind, Remote(self, value) if kind == "object" else value

    def _more(self) -> bytes:
        while True:
            try:
                return self._answers.get(timeout=0.5)
            except queue.Empty:
                if self._running.ended and self._answers.empty():
                    self._running.checked()  # GuestDied, or its exit code
                    raise LabError(f"the process there has ended: {self._errors.decode(errors='replace')}") from None

    def close(self) -> None:
        """End the process."""
        if not self._running.ended:
            try:
                self._running.close_input()
                self._running.wait(10)
            except GuestDied:
                return


def _named(value: Any) -> Any:
    return Reference(value._number) if isinstance(value, Remote) else value


class _Writer:
    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.write = write

    def flush(self) -> None:
        """Everything is sent at once."""


class _Reader:
    """Exactly as many bytes as are asked for, out of pieces; one per message, so nothing may be left."""

    def __init__(self, more: Callable[[], bytes]) -> None:
        self._more = more
        self._rest = bytearray()

    def read(self, count: int) -> bytes:
        while len(self._rest) < count:
            self._rest += self._more()
        data = bytes(self._rest[:count])
        del self._rest[:count]
        return data
