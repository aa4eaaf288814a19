"""The agent in a guest (qemu-ga), by the socket that its machine offers for it: JSON lines, one client at a time.

The client is ours. That of qemu.qmp takes the byte with which the agent begins an answer to a new client, 0xFF, for
nonsense, and without it what an agent still had to say to the client before is taken for an answer. What a guest says
is not to be trusted: it is short, comes in time, and is a number, or it is an error.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import time
from typing import Any

from engine.errors import ToolFailed

_ANSWERS_S = 5.0
"""So long one may take that has nothing to do."""
_FREEZES_S = 30.0
"""So long it may write out what its guest has not written."""
_MOST_BYTES = 64 * 1024
"""Of what it says before, and of an answer."""
_FRESH = b"\xff"
_IDS = 1 << 31
_MOST_COUNT = 1 << 20
_NEXT = "Look whether qemu-ga runs in the guest, and whether somebody else uses that socket"


def frozen(path: str) -> bool:
    """Ask whether the file systems of the guest are frozen; see ``Hypervisors``."""
    with _Agent(path) as agent:
        return agent.frozen()


def freeze(path: str) -> int:
    """Freeze them; see ``Hypervisors``."""
    with _Agent(path) as agent:
        return agent.count("guest-fsfreeze-freeze")


def thaw(path: str) -> int:
    """Thaw them; see ``Hypervisors``."""
    try:
        agent = _Agent(path)
    except _NobodyThere:
        return 0
    with agent:
        return agent.count("guest-fsfreeze-thaw")


class _NobodyThere(ToolFailed):
    """No machine has that socket."""


class _Agent:
    """One connection, in which the agent has answered."""

    def __init__(self, path: str) -> None:
        self._who = f"the guest agent at {path}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._read = b""
        try:
            self._socket.settimeout(_ANSWERS_S)
            self._connect(path)
            self._agree()
        except BaseException:
            self._socket.close()
            raise

    def _connect(self, path: str) -> None:
        try:
            self._socket.connect(path)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise _NobodyThere(f"{self._who} is not there: {error}", _NEXT) from error
        except OSError as error:
            raise self._failed(f"does not answer: {error}") from error

    def __enter__(self) -> _Agent:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def frozen(self) -> bool:
        """Make one query."""
        answer = self._answer("guest-fsfreeze-status", _ANSWERS_S)
        if answer not in ("frozen", "thawed"):
            raise self._failed(f"says what makes no sense: {answer!r:.80}")
        return bool(answer == "frozen")

    def count(self, command: str) -> int:
        """Have it do something with file systems, and return with how many it says that it did."""
        answer = self._answer(command, _FREEZES_S)
        if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer <= _MOST_COUNT:
            raise self._failed(f"says what makes no sense: {answer!r:.80}")
        return answer

    def _agree(self) -> None:
        """Drop all that was said to somebody else, up to the answer to what we ask now."""
        wanted, deadline = secrets.randbelow(_IDS), time.monotonic() + _ANSWERS_S
        words = json.dumps({"execute": "guest-sync-delimited", "arguments": {"id": wanted}})
        self._send(_FRESH + words.encode(), deadline)  # that ends what somebody else began to say to it
        left = _MOST_BYTES
        while left > 0:
            left -= len(self._until(_FRESH, deadline, left)) + 1
            line = self._until(b"\n", deadline, left)
            left -= len(line)
            with contextlib.suppress(ToolFailed):
                if self._said(line) == wanted:
                    return
        raise self._failed("says more than an answer has")

    def _answer(self, command: str, seconds: float) -> Any:
        deadline = time.monotonic() + seconds
        self._send(json.dumps({"execute": command}).encode(), deadline)
        return self._said(self._until(b"\n", deadline, _MOST_BYTES))

    def _send(self, words: bytes, deadline: float) -> None:
        self._in_time(deadline)
        try:
            self._socket.sendall(words + b"\n")
        except OSError as error:
            raise self._failed(f"does not listen: {error}") from error

    def _until(self, end: bytes, deadline: float, most: int) -> bytes:
        """Return what it says up to ``end``, and take that away."""
        while end not in self._read:
            if len(self._read) > most:
                raise self._failed("says more than an answer has")
            self._in_time(deadline)
            try:
                more = self._socket.recv(_MOST_BYTES)
            except OSError as error:
                raise self._failed(f"does not answer: {error}") from error
            if not more:
                raise self._failed("has hung up")
            self._read += more
        found, _, self._read = self._read.partition(end)
        return found

    def _in_time(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise self._failed("does not answer in time")
        self._socket.settimeout(left)

    def _said(self, line: bytes) -> Any:
        try:
            told = json.loads(line)
        except (ValueError, RecursionError):
            raise self._failed(f"says what is no JSON: {line!r:.80}") from None
        if isinstance(told, dict) and "return" in told:
            return told["return"]
        error = told.get("error") if isinstance(told, dict) else None
        words = error.get("desc") if isinstance(error, dict) else None
        raise self._failed(f"cannot do that: {words!s:.200}" if words else f"says what makes no sense: {told!r:.80}")

    def _failed(self, what: str) -> ToolFailed:
        return ToolFailed(f"{self._who} {what}", _NEXT)
