"""Who depends on a tag, and who names its volumes, asked afresh.

Asked are the tags that the format tells (``Tags.users``): all of them, or those that may need the tag. One of these
whose record cannot be read may depend on it, so nothing is deleted while there is one.
"""

from __future__ import annotations

from engine.data.records import Record
from engine.data.uses import needs
from engine.errors import Refused
from engine.formats.base import Repository, TagEntry


def around(repository: Repository, record: Record) -> dict[str, TagEntry]:
    """Return, read afresh, all tags that may need the tag of ``record`` or name a volume that it names."""
    found = repository.tags.users(record.id)
    if not repository.tags.knows_users:
        return found
    for volume in dict.fromkeys(record.volumes()):
        found |= repository.tags.users(volume.id)
    # Whom a volume is taken over from is named by who takes it over, as long as both may have it.
    for other in {record.absorber, record.operation.other if record.operation is not None else ""} - {""}:
        entry = repository.tags.read(other)
        if entry is not None:
            found[other] = entry
    return found


def settle(repository: Repository, target: str, tags: dict[str, TagEntry]) -> None:
    """Make durable what is visible of the target and of ``tags``, which are all that may need what is about to go: an
    older generation of one that does could come back after a loss of power."""
    if not repository.tags.knows_users:
        repository.tags.settle_all()
        return
    for tag in sorted({target, *tags}):
        repository.tags.settle(tag)


def of(tags: dict[str, TagEntry], target: Record) -> list[str]:
    """Return the tags that need ``target`` (``needs``). Refused while a record cannot be read."""
    _all_readable(tags, target.id)
    return sorted(tag for tag, entry in tags.items() if entry.record and needs(entry.record, target))


def standing_on(tags: dict[str, TagEntry], target: str) -> list[str]:
    """Return those of the readable records that stand on ``target``, whose own cannot be read."""
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
