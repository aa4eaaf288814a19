"""Who depends on a tag, asked of a fresh listing of all records.

A record that cannot be read may depend on anything, so nothing is deleted while there is one.
"""

from __future__ import annotations

from engine.errors import Refused
from engine.formats.base import TagEntry


def of(tags: dict[str, TagEntry], target: str) -> list[str]:
    """Tags other than ``target`` whose data needs it, now or when their operation ends."""
    _all_readable(tags, target)
    return known(tags, target)


def known(tags: dict[str, TagEntry], target: str) -> list[str]:
    """As ``of``, of the records that can be read; others may depend on it too."""
    return sorted(
        tag for tag, entry in tags.items() if entry.record and tag != target and target in entry.record.parents()
    )


def named_elsewhere(tags: dict[str, TagEntry], target: str) -> set[str]:
    """Ids of all volumes that records other than ``target``'s name."""
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
