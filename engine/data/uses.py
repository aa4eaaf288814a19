"""What a record needs of others: which tags and volumes must not go as long as it counts.

Tags need the tags they stand on (``Record.parents``). Volumes belong to the tag that made them, until another tag takes
one over: a snapshot that of its disk, an image that of the tag which is merged into it. From then on records of several
tags may name the volume, and whoever deletes it has to find them all.
"""

from __future__ import annotations

from engine.data.records import Record


def needs(record: Record, other: Record) -> bool:
    """Tell whether the data of an image is not there without ``other``, now or when its operation ends: it stands on
    it, or has left its data to it, and will stand on it when it is mended."""
    return other.id != record.id and (other.id in record.parents() or record.left_to(other))


def uses(record: Record) -> tuple[str, ...]:
    """Return the other tags that the record depends on, and the volume that its tag takes over."""
    if record.operation is None:
        return record.parents() if record.volume is not None and record.volume.parent != record.id else ()
    taken = taken_over(record)
    return (*[parent for parent in record.parents() if parent != record.id], *([taken] if taken else []))


def all_uses(record: Record) -> tuple[str, ...]:
    """Return what is entered for a record when nothing is known of what was entered before: what it uses, and of a
    snapshot its volume, which it may have taken over long ago. A record that names that one too may be left, or be put
    back."""
    own = [record.volume.id] if record.volume is not None and not record.mutable else []
    return tuple(dict.fromkeys([*uses(record), *own]))


def taken_over(record: Record) -> str:
    """Return the id of the volume that the tag takes over from another one, which has it as its data; "" for none."""
    operation = record.operation
    if operation is None:
        return ""
    if operation.begins_snapshot and record.volume is not None:
        return record.volume.id
    down = operation.verb == "merge" and operation.direction == "down"
    return operation.pinned[1] if down and len(operation.pinned) == 2 else ""


def follower(record: Record) -> str:
    """Return the tag that is about to stand on this one: the disk of a snapshot that was begun; "" for none."""
    operation = record.operation
    return operation.other if operation is not None and operation.begins_snapshot else ""


def named(record: Record) -> set[str]:
    """Return the ids of all tags and volumes of which the record speaks as needed, or as its own."""
    return {*uses(record), *(volume.id for volume in record.volumes())}
