"""Reading and changing one tag: the newest generation, or a clear error.

Every change is: read the newest generation, derive the next, publish it against the one that
was read. Overtaken before it became visible, the change is derived again from what is there
now; an unknown outcome is passed on, because doing it again could apply it twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from engine.data.records import Record
from engine.errors import Damaged, NotFound, NotUnderstood, OutcomeUnknown, Overtaken, StorageError
from engine.formats.base import Repository, TagEntry
from engine.gate import owners

_ATTEMPTS = 16


class Tag(NamedTuple):
    """A readable tag."""

    generation: int
    record: Record


def readable(entry: TagEntry | None, tag: str, place: str) -> Tag:
    """Return the tag in ``entry``; NotFound, StorageError or Damaged when there is none to use."""
    if entry is None:
        raise NotFound(f"there is no image {tag} in {place}", "diskwright images lists what is there")
    if entry.tombstone:
        raise deleted(tag, place)
    if entry.record is None:
        if entry.unreadable:
            raise StorageError(f"the record of image {tag} cannot be read: {entry.problem}", "Try again")
        if entry.foreign:
            raise NotUnderstood(
                f"the record of image {tag} was written by another version of diskwright: {entry.problem}",
                "Use the version that wrote it",
            )
        raise Damaged(f"the record of image {tag} is damaged: {entry.problem}", "diskwright why shows the evidence")
    return Tag(entry.generation, entry.record)


def deleted(tag: str, place: str) -> NotFound:
    """Return the error for an image of which only the generation is left."""
    return NotFound(f"image {tag} was removed from {place}, and its data is deleted", "It does not come back")


def read(repository: Repository, tag: str) -> Tag:
    """Return the newest generation of ``tag``. NotFound, StorageError, Damaged."""
    return readable(repository.tags.read(tag), tag, repository.place)


def change(repository: Repository, tag: str, derive: Callable[[Record], Record | None]) -> Record:
    """Publish ``derive(newest)`` and return it; None from ``derive`` means nothing to do.

    Atomic. ``derive`` may be called several times and may raise to refuse. Refused too for a disk whose record is older
    than a snapshot that has its data: one more generation, and nothing would tell that. It can be removed.
    """
    for _ in range(_ATTEMPTS):
        entry = repository.tags.read(tag)
        current = readable(entry, tag, repository.place)
        record = derive(current.record)
        if record is not None and record.strong:
            owners.require_own(repository, entry)
        if record is None or record == current.record:
            repository.tags.settle(tag)  # seen is not durable yet: another host may have died in between
            return current.record
        try:
            repository.tags.publish(record, current.generation)
        except OutcomeUnknown:
            raise
        except Overtaken:
            continue
        return record
    raise Overtaken(f"image {tag} is being changed by others all the time", "Try again")
