"""The clocks of this machine, and random ids of its kernel."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from hashlib import blake2b

from engine.errors import from_os_errors

_ATTEMPTS = 3
_MACHINE_ID = "/etc/machine-id"


def _machine() -> str:
    """Return the id that was made when this machine was installed, "" where there is none."""
    try:
        with open(_MACHINE_ID, encoding="ascii", errors="replace") as found:
            return found.read().strip()
    except OSError:
        return ""


class RealClock:
    """The machine's clocks."""

    def wall(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return CLOCK_MONOTONIC."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Let the thread sleep."""
        time.sleep(seconds)


class RealIds:
    """Random ids from the kernel."""

    def __init__(self, host_id: str, state: str = "") -> None:
        """``state``: the directory with this host's notes, "" for none."""
        self._host_id = host_id
        self._state = state
        self._nonce = ""

    @property
    def host_id(self) -> str:
        """The name given at start."""
        return self._host_id

    @property
    def host_nonce(self) -> str:
        """Made of the machine's id and of a random one in the notes: neither a clone of the machine with other notes
        nor notes that were copied to another machine are this host."""
        if self._state and not self._nonce:
            with from_os_errors("read which host this is"):
                own, machine = self._noted(), _machine()
            self._nonce = blake2b(f"{machine} {own}".encode(), digest_size=16).hexdigest()
        return self._nonce

    def _noted(self) -> str:
        """Return the id in the notes, made when there is none yet; whoever makes it first counts."""
        path = f"{self._state}/host"
        for _ in range(_ATTEMPTS):
            with contextlib.suppress(FileNotFoundError), open(path, encoding="ascii") as note:
                found = note.read().strip()
                if found:
                    return found
            os.makedirs(self._state, exist_ok=True)
            temporary = f"{path}.{self.new_id()}"
            with open(temporary, "x", encoding="ascii") as fresh:
                fresh.write(f"{self.new_id()}\n")
                fresh.flush()
                os.fsync(fresh.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
            os.unlink(temporary)
        raise OSError(errno.EIO, "it is empty", path)

    def new_id(self) -> str:
        """Take 16 random bytes, with the version and variant bits of RFC 4122 set."""
        raw = bytearray(os.urandom(16))
        raw[6] = raw[6] & 0x0F | 0x40
        raw[8] = raw[8] & 0x3F | 0x80
        return raw.hex()
