"""The part of a repository that a look at one image needs, where the format knows who uses what.

Its chain, the tags that use it or its data, and what their records speak of. What is found there decides nothing when
something is wrong with it: then the whole repository is looked at, for what is missed may be anywhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from engine.data.records import Record
from engine.errors import DiskwrightError
from engine.formats.base import Repository, Scan, TagEntry
from engine.tags import changes
from engine.triage.offers.merging import RUN_LAYERS, one_of_a_run


def near(repository: Repository, tag: str) -> Scan | None:
    """Return what is around ``tag``, with neither volumes nor litter; None when the whole repository has to be looked
    at."""
    if not repository.tags.knows_users:
        return None
    try:
        found = _around(repository, tag)
    except DiskwrightError:
        return None  # what cannot be listed or read is told by a look at everything
    if any(entry.record is None for entry in found.values()) or _shared(found, tag):
        return None
    return Scan({}, found, [])


def with_all_above(repository: Repository, scan: Scan, tag: str) -> Scan:
    """Return the scan of ``near`` with all that stands on ``tag``, not only directly, as far as it can be read: what
    waits for it."""
    if not repository.tags.knows_users:
        return scan
    found = dict(scan.tags)
    todo, seen = [tag], {tag}
    with contextlib.suppress(DiskwrightError):
        while todo:
            above = {one: entry for one, entry in _users(repository, [todo.pop()]).items() if one not in seen}
            seen.update(above)
            todo += above
            found = above | found
        todo = list(found)
        while todo:
            for other in _spoken_of(found[todo.pop()].record, False) - found.keys():
                entry = repository.tags.read(other)
                if entry is not None:
                    found[other] = entry
                    todo.append(other)
    return scan._replace(tags=found)


def _users_of_a_run(repository: Repository, record: Record) -> dict[str, TagEntry]:
    """Return who uses the hidden layers from this one down, if they are so many that they may be merged at once."""
    run: list[str] = []
    while one_of_a_run(record) and record.id not in run and record.volume is not None:
        run.append(record.id)
        if not record.volume.parent:
            break
        record = changes.read(repository, record.volume.parent).record
    return _users(repository, run[1:]) if len(run) >= RUN_LAYERS else {}


def _around(repository: Repository, tag: str) -> dict[str, TagEntry]:
    own = changes.read(repository, tag)
    found = _users(repository, _subjects(own.record))
    found[tag] = TagEntry(tag, own.generation, own.record)
    found |= _users_of_a_run(repository, own.record)
    children = [other for other, one in found.items() if one.record is not None and tag in one.record.parents()]
    if len(children) == 1:
        found |= _users(repository, children)  # a merge looks at both
    todo = list(found)
    while todo:
        one = todo.pop()
        for other in _spoken_of(found[one].record, one == tag or [one] == children):
            if other not in found:
                record = changes.read(repository, other)
                found[other] = TagEntry(other, record.generation, record.record)
                todo.append(other)
    return found


def _subjects(record: Record) -> Iterable[str]:
    merged = [record.operation.other] if record.merging and record.operation is not None else []
    return [record.id, *([record.volume.id] if record.volume is not None else []), *merged]


def _users(repository: Repository, subjects: Iterable[str]) -> dict[str, TagEntry]:
    found: dict[str, TagEntry] = {}
    for subject in subjects:
        found |= {tag: entry for tag, entry in repository.tags.users(subject).items() if not entry.tombstone}
    return found


def _spoken_of(record: Record | None, closely: bool) -> set[str]:
    if record is None:
        return set()
    other = record.operation.other if record.operation is not None else ""
    return {*record.parents(), *([record.absorber, other] if closely else [])} - {"", record.id}


def _shared(found: dict[str, TagEntry], tag: str) -> bool:
    """Whether another tag has the same volume as its data."""
    own = found[tag].record
    volumes = [entry.record.volume.id for entry in found.values() if entry.record and entry.record.volume]
    return own is not None and own.volume is not None and volumes.count(own.volume.id) > 1
