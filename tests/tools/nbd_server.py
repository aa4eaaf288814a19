"""An NBD server that a test scripts: it answers out of order, fails on request, or goes away."""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections.abc import Iterator
from typing import NamedTuple

FLAGS = 1 | 1 << 2 | 1 << 6  # has flags, flush, write zeroes
READ, WRITE, FLUSH, ZERO = 0, 1, 3, 6


class Asked(NamedTuple):
    kind: int
    flags: int
    cookie: int
    start: int
    length: int


class ScriptedServer:
    """Serves ``size`` bytes of memory. Reads as many requests as ``batches`` says (then one by one) and answers
    each batch in reverse. ``errors`` maps a command to the error code of its next answer; ``hang_up_after``
    requests it closes the connection. Before each answer it watches for ``patience_s`` whether the client already sends
    more (``impatient``). Also the ``Server`` that a session talks to."""

    def __init__(
        self,
        size: int,
        batches: list[int],
        errors: dict[int, int] | None = None,
        flags: int = FLAGS,
        last_words: str = "",
    ) -> None:
        self.memory = bytearray(size)
        self.batches = batches
        self.errors = errors or {}
        self.flags = flags
        self.last_words = last_words
        self.hang_up_after = -1
        self.patience_s = 0.0
        self.impatient = False
        self.asked: list[Asked] = []
        self.was_started = self.was_stopped = False
        self.client, self.connection = socket.socketpair()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def started(self) -> None:
        self.was_started = True

    def words(self) -> str:
        return self.last_words

    def stop(self, patience_s: float = 0) -> None:
        self.was_stopped = True
        self.thread.join(10)
        assert not self.thread.is_alive()

    def _serve(self) -> None:
        with self.connection:
            try:
                self._shake_hands()
                for batch in self._batches():
                    requests = [self._request() for _ in range(batch)]
                    for asked in reversed(requests):
                        self._answer(asked)
            except (EOFError, ConnectionError):
                pass

    def _batches(self) -> Iterator[int]:
        yield from self.batches
        while True:
            yield 1

    def _shake_hands(self) -> None:
        self.connection.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
        self._exactly(4)
        _, option, length = struct.unpack(">QII", self._exactly(16))
        self._exactly(length)
        body = struct.pack(">HQH", 0, len(self.memory), self.flags)
        reply = struct.Struct(">QIII")
        self.connection.sendall(reply.pack(0x3E889045565A9, option, 3, len(body)) + body)
        self.connection.sendall(reply.pack(0x3E889045565A9, option, 1, 0))

    def _request(self) -> Asked:
        if len(self.asked) == self.hang_up_after:
            raise EOFError
        magic, flags, kind, cookie, start, length = struct.unpack(">IHHQQI", self._exactly(28))
        assert magic == 0x25609513
        if kind == WRITE:
            self.memory[start : start + length] = self._exactly(length)
        elif kind == ZERO:
            self.memory[start : start + length] = bytes(length)
        self.asked.append(Asked(kind, flags, cookie, start, length))
        return self.asked[-1]

    def _answer(self, asked: Asked) -> None:
        if self.patience_s:
            self.impatient |= bool(select.select([self.connection], [], [], self.patience_s)[0])
        code = self.errors.pop(asked.kind, 0)
        self.connection.sendall(struct.pack(">IIQ", 0x67446698, code, asked.cookie))
        if asked.kind == READ and not code:
            self.connection.sendall(self.memory[asked.start : asked.start + asked.length])

    def _exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            part = self.connection.recv(length - len(data))
            if not part:
                raise EOFError
            data += part
        return data
