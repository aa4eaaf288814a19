"""Leases of tags where several hosts share the group: sanlock's leases of the slots that the records have."""

from __future__ import annotations

from engine.data.model import require_id
from engine.doors import Doors
from engine.doors.leases import Lease
from engine.errors import Conflict
from engine.formats.lvm.metadata.records import Records
from engine.formats.lvm.shared.guard import SharedGuard

_MOVES = 5
"""Times that a tag may move to another slot while its lease is taken."""


class SlotLeases:
    """The leases of one repository."""

    def __init__(self, doors: Doors, guard: SharedGuard, records: Records) -> None:
        self._doors = doors
        self._guard = guard
        self._records = records

    def try_acquire(self, tag: str, shared: bool = False) -> Lease | None:
        """Take the lease of the slot that the tag has. A tag that has none gets a free one set apart, for this process
        alone. Conflict when the tag moves all the time."""
        require_id(tag, "image")
        for _ in range(_MOVES):
            slot = self._records.slot_of(tag)
            if slot is None:
                if self._guard.reserved(tag) is not None:
                    return None
                lease = self._set_apart(tag)
                if lease is not None:
                    return lease
                continue
            found = self._guard.try_slot(slot, shared)
            if found is None:
                return None
            try:
                if self._records.slot_of(tag) == slot:
                    return found
            except BaseException:
                found.release()
                raise
            found.release()
        raise Conflict(f"the record of image {tag} moves all the time", "Try again")

    def _set_apart(self, tag: str) -> Lease | None:
        """Set a slot apart for a tag; return None when the tag has got a record meanwhile."""
        with self._guard.records() as header:
            if self._records.slot_of(tag) is not None:
                return None
            slot, _ = self._records.room(tag, header)
            return self._guard.set_apart(tag, slot.number)

    def held(self, tag: str) -> bool:
        """Return whether a host that is not proven gone has the lease."""
        slot = self._records.slot_of(require_id(tag, "image"))
        return self._guard.reserved(tag) is not None if slot is None else self._guard.slot_held(slot)

    def adopt(self, tag: str, token: str) -> Lease:
        """Make sanlock kill this process, from here on, if the lease is lost."""
        require_id(tag, "image")
        return self._doors.shared_leases.adopt(token)
