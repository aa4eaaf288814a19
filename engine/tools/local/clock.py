"""The clocks of this machine, and random ids of its kernel."""

from __future__ import annotations

import os
import time


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

    def __init__(self, host_id: str) -> None:
        self._host_id = host_id

    @property
    def host_id(self) -> str:
        """The name given at start."""
        return self._host_id

    def new_id(self) -> str:
        """Take 16 random bytes, with the version and variant bits of RFC 4122 set."""
        raw = bytearray(os.urandom(16))
        raw[6] = raw[6] & 0x0F | 0x40
        raw[8] = raw[8] & 0x3F | 0x80
        return raw.hex()
