"""Open file descriptions with one byte locked, and the simulated processes that own them; the table that all hosts see.

As the kernel has it for OFD locks: a lock belongs to a file (an inode, whatever its name) and one
byte of it; two descriptions conflict even in one process, unless both are shared; a process that
is spawned with a lease owns it too, and it is free when the last owner has released it or died. A
frozen process keeps what it has. All hosts see one table: locks of the local kernel, or of a
server that never forgets. Locks that expire or are taken away are not modelled. The door through which a process
takes them is ``sim.hosts.doors.leases``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Protocol

GUARD_WRITABLE, GUARD_KEPT = 1 << 62, 201
"""Keys of the locks on an image itself: of who hands it out for writing, of those who let nobody write."""

LockedByte = tuple[int, int, int]
"""(device, inode, key)"""


class Opened(Protocol):
    """What is open as long as a process has a lock."""

    def close(self) -> None:
        """Idempotent; a dead process may do it."""


class Description:
    """One lock and who has it."""

    __slots__ = ("number", "opened", "opens", "owners", "place", "shared")

    def __init__(self, number: int, place: LockedByte, shared: bool, owner: Hashable) -> None:
        self.number = number
        self.place = place
        self.shared = shared
        self.owners: dict[Hashable, None] = {owner: None}
        self.opens: Callable[[Hashable], Opened] | None = None
        """Of a device, which is open in each process that has the lock: opens it."""
        self.opened: dict[Hashable, Opened] = {}

    def open_in(self, owner: Hashable) -> None:
        """Have it open in a process that has the lock."""
        if self.opens is not None:
            self.opened[owner] = self.opens(owner)


class LockTable:
    """All locks of the simulated world."""

    def __init__(self) -> None:
        self._locks: dict[LockedByte, list[Description]] = {}
        self._numbers: dict[int, Description] = {}
        self._owned: dict[Hashable, dict[int, Description]] = {}
        self._next = 3

    def take(self, place: LockedByte, shared: bool, owner: Hashable) -> Description | None:
        """Make a new lock; None when another is in the way."""
        there = self._locks.setdefault(place, [])
        if there and not (shared and all(lock.shared for lock in there)):
            return None
        lock = Description(self._next, place, shared, owner)
        self._next += 1
        there.append(lock)
        self._numbers[lock.number] = lock
        self._owned.setdefault(owner, {})[lock.number] = lock
        return lock

    def is_locked(self, place: LockedByte) -> bool:
        """Whether anybody has it."""
        return bool(self._locks.get(place))

    def owned(self, owner: Hashable) -> list[Description]:
        """The locks of a process."""
        return list(self._owned.get(owner, {}).values())

    def get(self, number: int, owner: Hashable) -> Description | None:
        """The lock of that number if the process has it."""
        return self._owned.get(owner, {}).get(number)

    def share(self, lock: Description, owner: Hashable) -> None:
        """Let another process own it too: it was spawned with it."""
        lock.owners[owner] = None
        lock.open_in(owner)
        self._owned.setdefault(owner, {})[lock.number] = lock

    def release(self, lock: Description, owner: Hashable) -> None:
        """Take an owner away; the last one frees the lock."""
        lock.owners.pop(owner, None)
        if (opened := lock.opened.pop(owner, None)) is not None:
            opened.close()
        self._owned.get(owner, {}).pop(lock.number, None)
        if not lock.owners and self._numbers.pop(lock.number, None) is not None:
            self._locks[lock.place].remove(lock)
            if not self._locks[lock.place]:
                del self._locks[lock.place]

    def bury(self, owner: Hashable) -> None:
        """Release everything that a dead process had."""
        for lock in self.owned(owner):
            self.release(lock, owner)
        self._owned.pop(owner, None)
