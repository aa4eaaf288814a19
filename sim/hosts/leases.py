"""Simulated leases: open file descriptions with one byte locked, owned by simulated processes.

As the kernel has it for OFD locks: a lock belongs to a file (an inode, whatever its name) and one
byte of it; two descriptions conflict even in one process, unless both are shared; a process that
is spawned with a lease owns it too, and it is free when the last owner has released it or died. A
frozen process keeps what it has. All hosts see one table: locks of the local kernel, or of a
server that never forgets. Locks that expire or are taken away are not modelled.
"""

from __future__ import annotations

import errno
from collections.abc import Hashable

from engine.doors.leases import Lease
from sim.disk.files import Gate, SimFiles
from sim.disk.nodes import DirectoryNode, LinkNode, fail

Place = tuple[int, int, int]
"""(device, inode, key)"""


class Description:
    """One lock and who has it."""

    __slots__ = ("number", "owners", "place", "shared")

    def __init__(self, number: int, place: Place, shared: bool, owner: Hashable) -> None:
        self.number = number
        self.place = place
        self.shared = shared
        self.owners: dict[Hashable, None] = {owner: None}


class LockTable:
    """All locks of the simulated world."""

    def __init__(self) -> None:
        self._locks: dict[Place, list[Description]] = {}
        self._numbers: dict[int, Description] = {}
        self._owned: dict[Hashable, dict[int, Description]] = {}
        self._next = 3

    def take(self, place: Place, shared: bool, owner: Hashable) -> Description | None:
        """A new lock, None when another is in the way."""
        there = self._locks.setdefault(place, [])
        if there and not (shared and all(lock.shared for lock in there)):
            return None
        lock = Description(self._next, place, shared, owner)
        self._next += 1
        there.append(lock)
        self._numbers[lock.number] = lock
        self._owned.setdefault(owner, {})[lock.number] = lock
        return lock

    def is_locked(self, place: Place) -> bool:
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
        self._owned.setdefault(owner, {})[lock.number] = lock

    def release(self, lock: Description, owner: Hashable) -> None:
        """One owner less; the last one frees the lock."""
        lock.owners.pop(owner, None)
        self._owned.get(owner, {}).pop(lock.number, None)
        if not lock.owners and self._numbers.pop(lock.number, None) is not None:
            self._locks[lock.place].remove(lock)
            if not self._locks[lock.place]:
                del self._locks[lock.place]

    def bury(self, owner: Hashable) -> None:
        """The process is dead: everything it had is released."""
        for lock in self.owned(owner):
            self.release(lock, owner)
        self._owned.pop(owner, None)


class SimLease:
    """A lease as one process has it."""

    def __init__(self, table: LockTable, lock: Description, owner: Hashable) -> None:
        self.lock = lock
        self._table = table
        self._owner = owner

    @property
    def token(self) -> str:
        """The number of the lock."""
        return str(self.lock.number)

    def release(self) -> None:
        """The gate is not asked: a dead process may do it, and has none any more."""
        self._table.release(self.lock, self._owner)


class SimLeases:
    """The lease door of one process."""

    def __init__(self, table: LockTable, files: SimFiles, owner: Hashable, gate: Gate | None = None) -> None:
        self.table = table
        self._files = files
        self._owner = owner
        self._gate: Gate = gate if gate is not None else files.gate

    def try_acquire(self, path: str, key: int, shared: bool) -> Lease | None:
        self._gate.enter("leases.try_acquire", path)
        lock = self.table.take(self._place(path, key, True), shared, self._owner)
        return SimLease(self.table, lock, self._owner) if lock is not None else None

    def held(self, path: str, key: int) -> bool:
        self._gate.enter("leases.held", path)
        return self.table.is_locked(self._place(path, key, False))

    def adopt(self, token: str) -> Lease:
        lock = self.table.get(int(token), self._owner)
        if lock is None:
            raise fail(errno.EBADF, token)
        return SimLease(self.table, lock, self._owner)

    def _place(self, path: str, key: int, writable: bool) -> Place:
        storage, inside = self._files.locate(path)
        stat = storage.stat(inside)
        node = storage.nodes[stat.inode]
        if isinstance(node, LinkNode):
            raise fail(errno.ELOOP, path)
        if writable and isinstance(node, DirectoryNode):
            raise fail(errno.EISDIR, path)
        if not 0 <= key < 1 << 63:
            raise fail(errno.EINVAL, path)
        return storage.device, stat.inode, key
