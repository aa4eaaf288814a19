"""The lease door: who may change an image, on this host and on a file server."""

from __future__ import annotations

from typing import Protocol


class Lease(Protocol):
    """Held until released, or until the last process that has it ends."""

    @property
    def token(self) -> str:
        """What a spawned process gives to ``Leases.adopt``: ends in the number of the descriptor that holds it, after a
        colon where it is of another door."""

    def release(self) -> None:
        """Give the lease up in this process; a child that inherited it keeps it. Idempotent."""


class Leases(Protocol):
    """Leases over numbered keys of a lock file."""

    def try_acquire(self, path: str, key: int, shared: bool) -> Lease | None:
        """Take the lease now or return None; never wait. OSError when the lock file cannot be opened."""

    def guard(self, path: str, writable: bool, device: bool = False) -> Lease | None:
        """Lock an image file itself, for one who hands it out, or return None; never wait. ``writable``: nobody else
        can have it so; qemu is not hindered. Else others can too, and nobody can open it for writing, with qemu's
        tools or ``FileHandle.lock``. ``device``: it is one, or a link to one, and is open as long as it is locked.
        OSError when it cannot be opened so."""

    def guarded(self, path: str) -> bool:
        """Tell whether anybody has an image file locked by a ``guard`` that is ``writable``; take nothing."""

    def held(self, path: str, key: int) -> bool:
        """Tell whether anybody holds the lease, shared or not; take nothing."""

    def adopt(self, token: str) -> Lease:
        """Return the lease that the process which spawned this one handed over."""
