"""How a lab and the agent in a guest talk over a serial line: frames of a stream number, a kind and bytes.

The line is a byte pipe in both directions. Towards the guest it may stall for ever when more than 4,095 bytes wait in
its terminal's buffer (seen with kernel 6.1), so the lab sends at most ``WINDOW_BYTES`` that the agent has not
acknowledged. The first frame of a stream is ``START``;
``EXIT`` or ``FAILED`` is its last. Numbers are chosen by the lab and used once per boot.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

# lab -> guest
START = 1  # JSON: see sim.lab.inside.commands
INPUT = 2  # bytes for standard input; none: end of file
SIGNAL = 3  # one byte: the signal, to the process group of the command
HALT = 4  # stream 0: switch the machine off in good order
# guest -> lab
READY = 16  # JSON: facts about the guest; stream 0, once
STARTED = 17  # decimal process id
OUT = 18
ERR = 19
EXIT = 20  # decimal exit code, or the negative signal number
FAILED = 21  # the reason why it could not be started, UTF-8
STOPPED = 22  # decimal signal that stopped it; it has not ended
TAKEN = 23  # stream 0: decimal number of bytes that were read from the line since the last one

CHUNK_BYTES = 65536
WINDOW_BYTES = 2048
_HEAD = struct.Struct(">IBI")
_LIMIT_BYTES = 16 << 20


class Frame(NamedTuple):
    """One message."""

    stream: int
    kind: int
    data: bytes


class Garbled(Exception):
    """The bytes are no frames: something else writes to the line."""


def packed(stream: int, kind: int, data: bytes = b"") -> bytes:
    """The bytes of a frame."""
    return _HEAD.pack(stream, kind, len(data)) + data


def packed_json(stream: int, kind: int, value: Any) -> bytes:
    """The bytes of a frame that carries JSON."""
    return packed(stream, kind, json.dumps(value).encode())


class Unpacker:
    """Turns bytes, in whatever pieces they come, into frames."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete now; Garbled when they cannot be frames."""
        self._rest += data
        while len(self._rest) >= _HEAD.size:
            stream, kind, length = _HEAD.unpack_from(self._rest)
            if length > _LIMIT_BYTES or not START <= kind <= TAKEN:
                raise Garbled(f"no frame: {bytes(self._rest[:60])!r}")
            if len(self._rest) < _HEAD.size + length:
                return
            body = bytes(self._rest[_HEAD.size : _HEAD.size + length])
            del self._rest[: _HEAD.size + length]
            yield Frame(stream, kind, body)
