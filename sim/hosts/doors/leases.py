"""The lease door of a simulated process: one byte of a file, locked in ``sim.hosts.lock_table``."""

from __future__ import annotations

import errno
from collections.abc import Hashable

from engine.doors.leases import Lease
from sim.disk.files import Gate, SimFiles
from sim.disk.nodes import fail
from sim.hosts.lock_table import GUARD_KEPT, GUARD_WRITABLE, Description, LockedByte, LockTable
from sim.hosts.processes import SimProcess
from sim.lvm.volume_groups import SimDevice


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

    def guard(self, path: str, writable: bool, device: bool = False) -> Lease | None:
        self._gate.enter("leases.guard", path)
        if device:
            return self._guard_device(path)
        place = self._place(path, GUARD_WRITABLE if writable else GUARD_KEPT, writable)
        if self._files.locks.is_whole(place[:2]):
            return None
        lock = self.table.take(place, not writable, self._owner)
        return SimLease(self.table, lock, self._owner) if lock is not None else None

    def _guard_device(self, path: str) -> Lease | None:
        assert isinstance(self._owner, SimProcess)
        with self._owner.groups.open_block(path, False) as device:
            uuid, found = device.uuid, device.stat()
        lock = self.table.take((found.device, found.inode, GUARD_KEPT), True, self._owner)
        if lock is None:
            return None

        def opened(owner: Hashable) -> SimDevice:
            assert isinstance(owner, SimProcess)
            return SimDevice(owner.groups, path, False, uuid)

        lock.opens = opened
        lock.open_in(self._owner)
        return SimLease(self.table, lock, self._owner)

    def guarded(self, path: str) -> bool:
        self._gate.enter("leases.guarded", path)
        place = self._place(path, GUARD_WRITABLE, False)
        return self._files.locks.is_whole(place[:2]) or self.table.is_locked(place)

    def held(self, path: str, key: int) -> bool:
        self._gate.enter("leases.held", path)
        return self.table.is_locked(self._place(path, key, False))

    def adopt(self, token: str) -> Lease:
        lock = self.table.get(int(token), self._owner)
        if lock is None:
            raise fail(errno.EBADF, token)
        return SimLease(self.table, lock, self._owner)

    def _place(self, path: str, key: int, writable: bool) -> LockedByte:
        storage, inside = self._files.locate(path)
        inode, _ = storage.file(inside, writable)  # not its number, which an earlier one may have had
        if not 0 <= key < 1 << 63:
            raise fail(errno.EINVAL, path)
        return storage.device, inode, key
