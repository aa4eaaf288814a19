"""Who depends on a tag, asked of a fresh listing of all records.

A record that cannot be read may depend on anything, so nothing is deleted while there is one.
"""

from __future__ import annotations

from engine.errors import Refused
from engine.formats.base import TagEntry


def of(tags: dict[str, TagEntry], target: str) -> list[str]:
    """Return the tags other than ``target`` whose data needs it, now or when their operation ends. Refused while a
    record cannot be read."""
    _all_readable(tags, target)
    return known(tags, target)


def known(tags: dict[str, TagEntry], target: str) -> list[str]:
    """Return those of the readable records that need ``target``, as ``of`` does; unreadable ones may need it too."""
    return sorted(
        tag for tag, entry in tags.items() if entry.record and tag != target and target in entry.record.parents()
    )


def named_elsewhere(tags: dict[str, TagEntry], target: str) -> set[str]:
    """Return the ids of all volumes that records other than ``target``'s name. Refused while a record cannot be
    read."""
    _all_readable(tags, target)
    return {
        volume.id for tag, entry in tags.items() if entry.record and tag != target for volume in entry.record.volumes()
    }


def _all_readable(tags: dict[str, TagEntry], target: str) -> None:
    for tag, entry in tags.items():
        if entry.problem and tag != target:
            raise Refused(
                f"the record of image {tag} cannot be understood ({entry.problem}), so what it needs is not known",
                "Give that record up or restore it first; nothing was deleted",
            )
