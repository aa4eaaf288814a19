"""What every storage says of a record: what its bytes mean, and when a change of it does not count, or may not."""

from __future__ import annotations

from engine.data.decoding import decode
from engine.data.records import has_room
from engine.errors import Damaged, NotUnderstood, OutcomeUnknown, Overtaken
from engine.formats.base import TagEntry


def understood(tag: str, generation: int, raw: bytes) -> TagEntry:
    """Return the tag whose newest generation has this record."""
    try:
        return TagEntry(tag, generation, decode(raw, tag))
    except NotUnderstood as error:
        return TagEntry(tag, generation, None, error.message, foreign=True)
    except Damaged as error:
        return TagEntry(tag, generation, None, error.message)


def require_room(tag: str, expected: int) -> None:
    """Return if there is a generation after ``expected`` for the tag, else raise Damaged."""
    # Only a stranger makes numbers this high: our own would take 2^48 changes or 65,535 purges.
    if not has_room(expected):
        raise Damaged(f"image {tag} has generation {expected:016x}, after which there is none")


def overtaken(tag: str) -> Overtaken:
    """Return the error of a change that certainly does not count."""
    return Overtaken(f"the record of image {tag} was changed by somebody else first", "Look at its status, then retry")


def outcome_unknown(tag: str, why: str) -> OutcomeUnknown:
    """Return the error of a change that may count or not; ``why`` is a clause."""
    return OutcomeUnknown(
        f"whether the change to image {tag} counts is not known: {why}", "Look at its status before anything else"
    )
