"""Objects of a guest for a process outside: the end in the guest. ``sim.lab.remote`` is the other one.

Requests and answers are pickles with their length before them, over standard input and output. A request is
(object number, name, arguments or None for the value of an attribute); object 0 is the world: its names are
``module:name``. An answer is ("value", data), ("method", None), ("object", number) or ("error", exception).
"""

from __future__ import annotations

import importlib
import pickle
import struct
import sys
from enum import Enum
from typing import Any, BinaryIO, NamedTuple

_LENGTH = struct.Struct(">I")
_ATOMS = (type(None), bool, int, float, str, bytes, Enum)


class Reference(NamedTuple):
    """Stands for an object of this end, in arguments."""

    number: int


def write_message(stream: BinaryIO, message: Any) -> None:
    """Send a message."""
    data = pickle.dumps(message)
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def read_message(stream: BinaryIO) -> Any:
    """The next message; EOFError when there is none."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    return pickle.loads(stream.read(*_LENGTH.unpack(head)))


def is_data(value: Any) -> bool:
    """Whether a value means the same elsewhere: records and what they are made of."""
    if isinstance(value, dict):
        return all(is_data(part) for pair in value.items() for part in pair)
    if isinstance(value, tuple | list | set | frozenset):
        return all(map(is_data, value))
    return isinstance(value, _ATOMS)


class Objects:
    """What was given out so far, by number."""

    def __init__(self) -> None:
        self._objects: list[Any] = [None]

    def answer(self, number: int, name: str, arguments: tuple[list[Any], dict[str, Any]] | None) -> tuple[str, Any]:
        """Do what a request asks for."""
        try:
            found = self._named(number, name)
            if arguments is None:
                if callable(found):
                    return "method", None
            else:
                plain, named = arguments
                found = found(*map(self._real, plain), **{key: self._real(value) for key, value in named.items()})
        except Exception as error:  # noqa: BLE001 - it is raised at the other end
            return "error", _portable(error)
        if is_data(found):
            return "value", found
        self._objects.append(found)
        return "object", len(self._objects) - 1

    def _named(self, number: int, name: str) -> Any:
        if number:
            return getattr(self._objects[number], name)
        module, _, attribute = name.partition(":")
        return getattr(importlib.import_module(module), attribute)

    def _real(self, value: Any) -> Any:
        return self._objects[value.number] if isinstance(value, Reference) else value


def _portable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - whatever hinders it, its words will do
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def main(words: list[str]) -> int:
    """Answer until standard input ends."""
    del words
    objects = Objects()
    while True:
        try:
            request = read_message(sys.stdin.buffer)
        except EOFError:
            return 0
        write_message(sys.stdout.buffer, objects.answer(*request))
