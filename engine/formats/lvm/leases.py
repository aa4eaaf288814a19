"""Leases of tags where one host at a time may use the group: locks of that host's kernel, as on files."""

from __future__ import annotations

from engine.data.model import require_id
from engine.doors.leases import Lease
from engine.formats.files.layout import lease_key
from engine.formats.lvm.group import Group, HostLocks


class HostLeases:
    """The leases of one repository."""

    def __init__(self, group: Group) -> None:
        self._doors = group.doors
        self._locks = HostLocks(group.doors, group.run_path("locks"))

    def try_acquire(self, tag: str, shared: bool = False) -> Lease | None:
        """Lock one byte of a file of this host."""
        return self._locks.try_acquire(lease_key(require_id(tag, "image")), shared)

    def held(self, tag: str) -> bool:
        """Ask for one byte of a file of this host."""
        return self._locks.held(lease_key(require_id(tag, "image")))

    def adopt(self, tag: str, token: str) -> Lease:
        """Take over the descriptor that this process inherited."""
        require_id(tag, "image")
        return self._doors.leases.adopt(token)
