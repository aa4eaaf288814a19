"""Snapshots that count together or not at all: what the record of one means, and how it leaves its group.

Each snapshot of a *group* has a record of its own: weak, with the operation ``GROUP``, which names all of them. The
first has the seal: *once its record is strong all of them count.* Nobody who reads through ``Grouped`` has to know
that: a snapshot whose group was sealed is strong there, and any other is one that was begun alone. Whoever changes one
makes it true before: of a sealed group every other member gets a record of its own before the one with the seal is
changed, so what says that they count is never missing; a group that was not sealed is given up, by a change of the one
with the seal, so whoever is about to seal it finds out.
"""

from __future__ import annotations

import contextlib
from enum import Enum
from typing import NamedTuple

from engine.data.model import SNAPSHOT
from engine.data.records import Record
from engine.errors import DiskwrightError, OutcomeUnknown, Overtaken, Refused
from engine.formats.base import TagEntry, Tags
from engine.formats.outcomes import overtaken

_LOOKS = 8


class _State(Enum):
    OPEN, SEALED, GIVEN_UP = range(3)
    UNKNOWN = 3
    """The record that would tell cannot be read."""


class _Member(NamedTuple):
    """A snapshot of a group, as its record was read."""

    generation: int
    record: Record
    state: _State


class Grouped:
    """The tags of a repository, each snapshot of a group as what it counts as."""

    def __init__(self, tags: Tags) -> None:
        self._tags = tags
        self.settle_all = tags.settle_all
        self._members: dict[str, _Member] = {}
        """What was read of those whose newest record is of a group."""

    @property
    def knows_users(self) -> bool:
        """As the storage has it."""
        return self._tags.knows_users

    def users(self, subject: str) -> dict[str, TagEntry]:
        """Return who needs it; see ``Tags``."""
        return self.meant(self._tags.users(subject))

    def scan(self) -> dict[str, TagEntry]:
        """List all tags; see ``Tags``."""
        return self.meant(self._tags.scan())

    def read(self, tag: str) -> TagEntry | None:
        """Read one tag, and the one with the seal of its group."""
        entry = self._tags.read(tag)
        return entry if entry is None else self._meant(entry)

    def meant(self, entries: dict[str, TagEntry]) -> dict[str, TagEntry]:
        """Return what these tags count as; of each group the one with the seal is read afresh."""
        for tag, entry in entries.items():  # nearly none is of a group
            told = entry.record or entry.before
            if tag in self._members or (told is not None and told.operation is not None and told.in_group):
                entries[tag] = self._meant(entry)
        return entries

    def publish(self, record: Record, expected: int) -> int:
        """Publish a record, whose tag leaves its group before. One of a group begins that, or seals it."""
        if not record.in_group:
            self._leave(record.id, expected)
        return self._tags.publish(record, expected)

    def settle(self, tag: str) -> None:
        """Also the one with the seal of its group: what was read of the tag comes from there."""
        self._tags.settle(tag)
        if tag in self._members:
            self._tags.settle(_first(self._members[tag].record))

    def purge(self, tag: str, expected: int) -> None:
        """Purge a tag, which leaves its group before."""
        self._leave(tag, expected)
        self._tags.purge(tag, expected)

    # -- what it means

    def _meant(self, entry: TagEntry) -> TagEntry:
        for _ in range(_LOOKS):
            record = entry.record
            if record is None or not record.in_group:
                self._members.pop(entry.id, None)
                return self._mendable(entry)
            state = self._state(record)[0]
            if state is _State.GIVEN_UP:
                again = None
                with contextlib.suppress(DiskwrightError):  # what was seen first has to do
                    again = self._tags.read(entry.id)  # since then the group may have been sealed, and left
                if again is not None and again.generation != entry.generation:
                    entry = again
                    continue
            self._members[entry.id] = _Member(entry.generation, record, state)
            return entry._replace(record=_counted(record) if state is _State.SEALED else _alone(record))
        return TagEntry(entry.id, entry.generation, None, "it is being changed all the time", unreadable=True)

    def _state(self, record: Record) -> tuple[_State, TagEntry | None]:
        """Return the state of the group of a record, and the entry that tells it."""
        try:
            entry = self._tags.read(_first(record))
        except DiskwrightError:
            return _State.UNKNOWN, None
        if entry is None or entry.tombstone:
            return _State.GIVEN_UP, entry
        if entry.record is None:
            return _State.UNKNOWN, entry
        if not entry.record.in_group or _members(entry.record) != _members(record):
            return _State.GIVEN_UP, entry
        return _State.SEALED if entry.record.strong else _State.OPEN, entry

    def _mendable(self, entry: TagEntry) -> TagEntry:
        """Return a damaged tag with what the generation before it says as long as nobody knows more. Whatever came
        after it, the group was sealed or given up by then: of the one with the seal ``_leave`` finds out which."""
        before = entry.before
        if before is None or not before.in_group:
            return entry
        if _first(before) == entry.id:
            self._members[entry.id] = _Member(entry.generation, before, _State.UNKNOWN)
        return entry._replace(before=_counted(before) if before.strong else _alone(before))

    # -- leaving

    def _leave(self, tag: str, expected: int) -> None:
        """Before a record of the tag takes the place of that generation, which was read here: have what that counts as
        depend on no other record. Overtaken when it is something else by now."""
        member = self._members.get(tag)
        if member is None or member.generation != expected:
            return
        state, first = self._state(member.record)
        if state is member.state is _State.UNKNOWN and first is not None and first.id == tag and first.damaged:
            if member.record.strong or self._all_left(member.record):  # it was sealed, or may have been
                self._make_own(member.record)
            return
        if state is _State.UNKNOWN:
            raise Refused(
                f"whether snapshot {tag} counts is told by the record of {_first(member.record)}, which cannot be read",
                "Run the fixes that check offers for that one first",
            )
        if state is not member.state and state is not _State.GIVEN_UP:
            raise overtaken(tag)
        if _first(member.record) != tag:
            if state is _State.OPEN and first is not None and first.record is not None:
                self._tags.publish(_alone(first.record), first.generation)
            else:
                self._tags.settle(_first(member.record))  # it was seen, and is relied on from here
        elif state is _State.SEALED:
            self._tags.settle(tag)
            self._make_own(member.record)

    def _all_left(self, begun: Record) -> bool:
        """Return whether each disk of a group has left its volume to the snapshot of it, as all have before the seal.
        When the record with the seal is damaged then the group may count, so it does."""
        for tag in _members(begun):
            entry = self._tags.read(tag)
            record = begun if tag == begun.id else entry and entry.record
            if record is None or record.operation is None or _members(record) != _members(begun):
                continue
            disk = self._tags.read(record.operation.other)
            if disk is not None and (disk.unreadable or disk.foreign):
                raise Refused(f"the record of image {disk.id} cannot be read: {disk.problem}", "Try again")
            if disk is not None and disk.record is not None and disk.record.left_to(_counted(record)):
                return False
        return True

    def _make_own(self, sealed: Record) -> None:
        """Give each other member of a group that counts a record that says so alone, durable."""
        for tag in _members(sealed)[1:]:
            for look in range(_LOOKS):
                entry = self._tags.read(tag)
                if entry is not None and entry.unreadable:
                    raise Refused(f"the record of snapshot {tag} cannot be read: {entry.problem}", "Try again")
                record = entry.record if entry is not None else None
                if entry is None or record is None or not record.in_group or _members(record) != _members(sealed):
                    self._tags.settle(tag)  # whoever gave it one may have died before that was durable
                    break
                try:
                    self._tags.publish(_counted(record), entry.generation)
                    break
                except OutcomeUnknown:
                    raise
                except Overtaken:
                    if look == _LOOKS - 1:
                        raise


def _members(record: Record) -> tuple[str, ...]:
    return record.operation.pinned if record.operation is not None else ()


def _first(record: Record) -> str:
    """Return the snapshot that has the seal of its group."""
    return _members(record)[0]


def _counted(record: Record) -> Record:
    """Return what a snapshot is whose group was sealed."""
    return record._replace(strong=True, operation=None, purging=False)


def _alone(record: Record) -> Record:
    """Return what a snapshot is that was begun, and whose group does not count."""
    assert record.operation is not None
    return record._replace(strong=False, operation=record.operation._replace(verb=SNAPSHOT, pinned=()))
