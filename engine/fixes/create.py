"""Finish a virtual disk that was created: bring its base here where it is elsewhere, make its volume, seal.

The seal is one published record: ``whole``, on the volume of the operation. Before it the disk is broken and the
operation names that volume; after it nothing is left to do. A base from another repository becomes hidden data under
its own id first, by a copy (``engine.fixes.copy``) that any other host could finish as well.
"""

from __future__ import annotations

from engine.data.model import Strategy
from engine.data.records import Operation, Record, VolumeRef
from engine.errors import Overtaken, Refused, StorageError, Superseded
from engine.fixes import copy, fill
from engine.formats.base import Repository
from engine.gate import gate
from engine.tags import chains, changes, leasing, lengths, sources, target
from engine.tags.attempt import Attempt, unfinished
from engine.tags.context import Context
from engine.triage.health import wanted_format


def resume(context: Context, repository: Repository, tag: str) -> None:
    """Finish the new disk ``tag``, from wherever the last attempt got. The caller holds its lease."""
    record = changes.read(repository, tag).record
    if not unfinished(record, "create_disk").source:
        with Attempt(context, repository, tag, "create_disk", ("make volume",)) as attempt:
            attempt.join(record)
            _make_and_seal(attempt, record)
        return
    with Attempt(context, repository, tag, "create_disk", ("copy base", "make volume")) as attempt:
        record = attempt.take_over()
        operation = unfinished(record, "create_disk")
        if operation.base and _is_merged_away(repository, operation.base):
            record = _without_base(attempt)
            operation = unfinished(record, "create_disk")
        if operation.base:
            _bring_base(attempt, operation)
            _make_and_seal(attempt, record)
        else:
            _flat_from_elsewhere(attempt, record, operation)


def _make_and_seal(attempt: Attempt, record: Record) -> None:
    attempt.stage("make volume")
    make_disk_volume(attempt.repository, record)
    attempt.finish(target.sealed)


def make_disk_volume(repository: Repository, record: Record) -> None:
    """Make the volume that the operation of a new disk names; its base must be whole."""
    operation = record.operation
    assert operation is not None and operation.attempt is not None
    base_format = None
    if operation.base:
        base = changes.read(repository, operation.base).record
        base_format = chains.load(repository, base)[0].volume.format

    def still_wanted() -> None:
        now = changes.read(repository, record.id).record
        if now.purging or now.operation != operation:
            raise Superseded(f"the volume of image {record.id} was made by somebody else, or is not wanted any more")

    gate.make(repository, operation.attempt, record.size, base_format, still_wanted)


def _is_merged_away(repository: Repository, tag: str) -> bool:
    entry = repository.tags.read(tag)
    return entry is not None and entry.record is not None and bool(entry.record.absorbed_by)


def _without_base(attempt: Attempt) -> Record:
    """Make the disk a flat copy of the base elsewhere. Here the base is being merged into another image, and cannot
    come back under its id as long as the disk names it."""

    def flat(record: Record) -> Record:
        assert record.operation is not None
        fresh = VolumeRef(attempt.context.doors.ids.new_id(), wanted_format(record.strategy), "")
        operation = record.operation._replace(attempt=fresh, base="", cursor=0)
        return record._replace(operation=operation, scrap=(*record.scrap, *target.attempt_of(record)))

    record = attempt.publish(flat)
    attempt.start_over()
    return target.drop_scrap(attempt, record)


def _bring_base(attempt: Attempt, operation: Operation) -> None:
    """Have the base in this repository, whole: as hidden data under its own id where it was not here."""
    repository, context = attempt.repository, attempt.context
    attempt.stage("copy base")
    entry = repository.tags.read(operation.base)
    if entry is not None and entry.record is not None and entry.record.whole:
        chains.load(repository, entry.record)  # refuses one that is being deleted or merged away
        return
    with leasing.take(context.doors, repository, [operation.base]):
        entry = repository.tags.read(operation.base)
        if entry is not None and entry.record is not None and entry.record.whole:
            chains.load(repository, entry.record)  # another host has finished it meanwhile
            return
        if entry is None or entry.tombstone:
            _publish_hidden_base(attempt, operation, entry.generation if entry else 0)
        elif entry.record is None or entry.record.purging:
            raise Refused(f"the base {operation.base} is being deleted here", "Run its clean fix, then this one")
        copy.resume(context, repository, operation.base, also=attempt.check)


def _publish_hidden_base(attempt: Attempt, operation: Operation, expected: int) -> None:
    source = sources.locate(attempt.context, operation)
    hidden = sources.copy_record(attempt.context, source, source.record.id, Strategy.SPACE, strong=False)
    try:
        attempt.repository.tags.publish(hidden, expected)
    except Overtaken as error:
        raise StorageError(f"the base {operation.base} appeared at the same moment", "Run the fix again") from error


def _flat_from_elsewhere(attempt: Attempt, record: Record, operation: Operation) -> None:
    with sources.held(attempt.context, operation) as source:
        attempt.stage("copy base")
        lost = chains.lost(source.links)
        if lost != record.lost:
            record = copy.start_again(attempt, source, "another source is there")
        filling = fill.ready(attempt, record, want_digest=False)
        read = fill.reading(source.repository, source.record, source.links)
        fill.copy_all(attempt, read, filling)
        lengths.grow(attempt.context, attempt.repository, attempt.tag, filling.volume, record.size)
    attempt.finish(lambda now: target.sealed(now)._replace(lost=lost))
