"""Who uses a tag or a volume, told by names alone: ``tags/ab/use.<subject>.<user>.<generation>``, an empty file.

Such a *use* is durable before the record of ``user`` that needs ``subject`` is published as that generation, so none
is ever missing. It stands beside the records of the subject: who looks at these has it in the same listing. It may be
one too many: then the user's record says so, and it is litter.

A use may go when the user's newest record, made durable, is of its generation or a later one, and neither that record
nor the one before it, which counts when the newest is damaged, needs the subject. A record relies on a use that is
there only if the record before it needs the subject too; else it enters one of its own generation. So whoever removes
a use late, after a freeze or without a lease, removes none that counts.

Generation 0: entered by a snapshot for the disk that is about to stand on it, together with what is synced anyway. It
stays as long as the snapshot does; who has entered it relies on it for the next record of the disk.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import NamedTuple

from engine.data.records import Record
from engine.data.uses import all_uses, follower, named, taken_over, uses
from engine.doors.files import Kind
from engine.formats.base import TagEntry
from engine.formats.files import layout
from engine.formats.files.tree import Tree


class Use(NamedTuple):
    """One entry."""

    subject: str
    user: str
    generation: int

    @property
    def path(self) -> str:
        """Inside the repository."""
        return f"{layout.tag_shard(self.subject)}/{layout.use_name(self.subject, self.user, self.generation)}"


class Uses:
    """The uses of one repository. Calls raise plain ``OSError``."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._followed: set[tuple[str, str]] = set()
        """(snapshot, disk) whose use this object has made durable for the next record of the disk. For that one only:
        once the disk has left the snapshot, that may be purged, with the use, and be copied in again."""
        self._due: dict[str, set[str]] = {}
        """What the newest record of a tag that this object has published does not need, and the one before it does."""

    def of(self, subject: str) -> list[Use]:
        """Return the uses of a tag or volume, listed afresh."""
        found = [
            layout.parse_use_name(name, subject[:2])
            for name, kind, _ in self._tree.list_shard(layout.tag_shard(subject), f"use.{subject}")
            if kind is Kind.FILE and name.startswith(f"use.{subject}")
        ]
        return [Use(*parsed) for parsed in found if parsed is not None]

    def enter(self, record: Record, before: Record | None, generation: int, complete: bool = True) -> None:
        """Enter what the record needs and the one before it did not; all that it may need, where it is not ``complete``
        what was entered for those before. Durable on return, but for what is not needed before the directory of the
        record itself was synced: what a snapshot that only begins is about to need."""
        known = uses(before) if before is not None and complete else ()
        needed = uses(record) if complete else all_uses(record)
        new = [one for one in needed if one not in known and (one, record.id) not in self._followed]
        self._followed.difference_update((one, record.id) for one in uses(record))
        for subject in new:
            self._create(Use(subject, record.id, generation))
        if follower(record) and before is None:
            self._create(Use(record.id, follower(record), 0))
        later = taken_over(record) if follower(record) and taken_over(record)[:2] == record.id[:2] else ""
        for shard in sorted({layout.tag_shard(subject) for subject in new if subject != later}):
            self._tree.files.sync_directory(self._tree.path(shard))

    def enter_missing(self, missing: Iterable[Use]) -> None:
        """Enter what somebody has deleted, or a record that came from elsewhere lacks. Durable on return."""
        shards = set()
        for use in missing:
            self._create(use)
            shards.add(layout.tag_shard(use.subject))
        for shard in sorted(shards):
            self._tree.files.sync_directory(self._tree.path(shard))

    def published(self, record: Record, before: Record | None, generation: int, below: Iterable[Record]) -> None:
        """Forget what the record does not need, which is durable now. Not durably: litter if it fails.

        What the record before it needs stays until the next one is published, for this one may turn out to be damaged;
        unless one of the tags below, whose records are ``below``, needs it."""
        if follower(record) and before is None:
            self._followed.add((record.id, follower(record)))
        now = named(record)
        due = self._due.pop(record.id, set())
        gone = named(before) - now if before is not None else set()
        kept = {subject for one in below for subject in named(one)}
        self._due[record.id] = gone - kept
        self._forget(record.id, ((due - gone) | (gone & kept)) - now, generation)

    def purged(self, tag: str, before: Record | None, generation: int) -> None:
        """Forget all that a tag needed which is a tombstone now, and what was entered for its follower."""
        with contextlib.suppress(OSError):
            for use in self.of(tag):
                if not use.generation:
                    self._tree.files.unlink(self._tree.path(use.path))
        self._forget(tag, self._due.pop(tag, set()) | (named(before) if before is not None else set()), generation)

    def _forget(self, user: str, subjects: set[str], generation: int) -> None:
        for subject in subjects - {user}:
            with contextlib.suppress(OSError):
                for use in self.of(subject):
                    if use.user == user and 0 < use.generation <= generation:
                        self._tree.files.unlink(self._tree.path(use.path))

    def _create(self, use: Use) -> None:
        """One that is there already is of an attempt that was interrupted, and says the same."""
        self._tree.ensure_shard(layout.tag_shard(use.subject))
        with contextlib.suppress(FileExistsError):
            self._tree.files.create(self._tree.path(use.path)).close()


def surplus(use: Use, user: TagEntry | None, subject: TagEntry | None) -> bool:
    """Tell whether nothing needs a use, given what its user is now, and for one of generation 0 what its subject is."""
    if not use.generation:
        return subject is None or subject.tombstone
    if user is None or user.tombstone:
        return True
    record = user.record
    if record is None or (record.volume is not None and record.volume.parent == use.subject != record.id):
        return False  # nearly always
    return use.subject not in named(record)


def everything(tags: Mapping[str, TagEntry]) -> Iterator[Use]:
    """Return all that is to be entered where nothing was: what each record may need, and who names a volume that others
    name, too. It belongs to one of them, which nothing else tells whoever deletes another."""
    namers = Counter(
        volume for entry in tags.values() if entry.record for volume in {ref.id for ref in entry.record.volumes()}
    )
    for tag, entry in tags.items():
        if entry.record is not None:
            shared = [ref.id for ref in entry.record.volumes() if namers[ref.id] > 1]
            for subject in dict.fromkeys([*all_uses(entry.record), *shared]):
                yield Use(subject, tag, entry.generation)


def missing(tags: Mapping[str, TagEntry], entered: Container[tuple[str, str]]) -> Iterator[Use]:
    """Return what records need and nothing says; ``entered``: (subject, user)."""
    for tag, entry in tags.items():
        if entry.record is not None:
            for subject in uses(entry.record):
                if (subject, tag) not in entered:
                    yield Use(subject, tag, entry.generation)
