"""Hands that reach into a guest of a lab: methods as of `Hands`, done there by `agent`. Gone when the guest dies."""

import json
import threading
from collections.abc import Callable
from typing import Any, Protocol

from tests.adversary.doors.hands import Gone, Hands
from tests.adversary.doors.machines import MachineError
from tests.adversary.oracle.findings import CannotTry, NotThere

_ERRORS: dict[str, type[Exception]] = {one.__name__: one for one in (CannotTry, Gone, NotThere, MachineError)}


class Line(Protocol):
    """The standard input of a program in a guest."""

    def write(self, data: bytes) -> None:
        """Pass some of it on. OSError when the program has ended."""


class _Call:
    def __init__(self) -> None:
        self.over, self.answer = threading.Event(), [None, Gone.__name__, "the host is gone"]


class FarHands(Hands):
    """Those of one life of one guest. `begin` starts the agent there; it gets told whom to tell what the agent says,
    b"" at its end."""

    def __init__(self, begin: Callable[[Callable[[bytes], None]], Line]) -> None:
        self._calls: dict[int, _Call] = {}
        self._alone = threading.Lock()
        self._count, self._heard, self._ended = 0, b"", False
        self._line = begin(self._hear)

    def __getattribute__(self, name: str) -> Any:
        """Return what does a method of `Hands` in the guest."""
        if name.startswith("_"):
            return super().__getattribute__(name)
        return lambda *plain, **named: self._ask(name, [*plain, *named.values()])

    def _ask(self, method: str, arguments: list[Any]) -> Any:
        call = _Call()
        with self._alone:
            self._count += 1
            number = self._count
            self._calls[number] = call
            ended = self._ended
            try:
                if not ended:
                    self._line.write(json.dumps([number, method, arguments]).encode() + b"\n")
            except OSError:
                ended = True
        if not ended:
            call.over.wait()
        result, kind, text = call.answer
        if kind:
            raise _ERRORS.get(kind, RuntimeError)(text)
        return result

    def _hear(self, data: bytes) -> None:
        with self._alone:
            *lines, self._heard = (self._heard + data).split(b"\n")
            for line in lines:
                number, *answer = json.loads(line)
                self._calls[number].answer = answer
                self._calls.pop(number).over.set()
            if not data:
                self._ended = True
                for call in self._calls.values():
                    call.over.set()
