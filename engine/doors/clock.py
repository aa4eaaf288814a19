"""The doors of time and of names. ``wall`` is for people only; no decision of the engine depends on it."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """What time it is."""

    def wall(self) -> float:
        """Return seconds since the epoch, for ``when`` fields and throughput."""

    def monotonic(self) -> float:
        """Return seconds that never go back within one process."""

    def sleep(self, seconds: float) -> None:
        """Wait so long; only followers of another process's progress do that, and work that is to go slower."""


class Ids(Protocol):
    """Fresh names, and this host's own."""

    @property
    def host_id(self) -> str:
        """The name of this host as it is written into records: for people, for two hosts may have one."""

    @property
    def host_nonce(self) -> str:
        """32 hexadecimal digits that no other host has, "" for one that keeps no notes: what decides which host is
        which. StorageError when this host's notes cannot be read or written."""

    def new_id(self) -> str:
        """Return a fresh random id: a version 4 UUID as 32 lower-case hexadecimal digits."""
