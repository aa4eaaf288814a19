"""The volume that an operation is to fill: made once, filled from a cursor on, sealed, or given up for another.

An operation names its volume before that is made. A cursor counts for one volume only: where the volume is gone, or
somebody else may still write to it, another one with a fresh id takes its place and the old one is scrap. Here is no
data moved (``engine.fixes.fill``).
"""

from __future__ import annotations

from collections.abc import Callable

from engine.data.records import Operation, Record, VolumeRef
from engine.errors import Superseded
from engine.formats.base import Repository
from engine.gate import gate
from engine.tags import chains, changes
from engine.tags.attempt import Attempt


def sealed(record: Record) -> Record:
    """Return the record of an image whose operation is done: whole, on the volume that was filled. Superseded where a
    host that took over has finished it already."""
    if record.operation is None:
        raise Superseded(f"image {record.id} was finished by somebody else")
    return record._replace(whole=True, volume=record.operation.attempt, operation=None)


def ready(attempt: Attempt, record: Record, filled: bool = True) -> VolumeRef:
    """Return the volume that the operation of ``record`` names, there to be filled from the attempt's cursor on.

    ``filled`` False: the caller writes only a part of it, and the rest must read as zeros (``make_volume``)."""
    target, usable = _made_before(attempt, record)
    if not usable:
        _make(attempt.repository, target, record.size, attempt.check, filled)
    return target


def _make(
    repository: Repository, target: VolumeRef, size: int, verify: Callable[[], None], filled: bool = True
) -> None:
    base_format = None
    if target.parent:
        base = changes.read(repository, target.parent).record
        base_format = chains.load(repository, base)[0].volume.format
    gate.make(repository, target, size, base_format, verify, filled)


def make_ahead(repository: Repository, tag: str) -> None:
    """Make the volume that the image ``tag`` is to be filled into, so that any host can fill it. Do nothing where the
    operation fills no volume. The caller holds the lease of ``tag``."""
    record = changes.read(repository, tag).record
    operation = record.operation
    if operation is None or operation.attempt is None or record.whole or not operation.fills:
        return

    def still_wanted() -> None:
        if changes.read(repository, tag).record.operation != operation:
            raise Superseded(f"the {operation.verb} of image {tag} is done by somebody else by now")

    made = operation._replace(made=operation.attempt.id)
    _make(repository, operation.attempt, record.size, still_wanted)
    changes.change(repository, tag, lambda now: now._replace(operation=made) if now.operation == operation else None)


def _made_before(attempt: Attempt, record: Record) -> tuple[VolumeRef, bool]:
    """Return the volume to fill, and whether it is there with what the cursor says in it. Where a cursor is recorded
    and its volume is gone or damaged, another volume takes its place, so the old cursor can never count again; also
    where somebody else may still write to it."""
    operation = record.operation
    assert operation is not None and operation.attempt is not None
    facts = attempt.repository.volumes.facts(operation.attempt.id, operation.attempt.format)
    begun = attempt.cursor > 0 or operation.is_made
    if begun and not facts.present:
        record = attempt.publish(lambda now: now._replace(operation=_afresh(attempt, now)))
        attempt.start_over()
    elif begun and facts.problem and not facts.unreadable:
        record = from_the_start(attempt, f"the volume that was begun is damaged: {facts.problem}", lambda now: now)
    elif begun and (late := gate.late_writer(attempt.repository, operation.attempt)):
        why = f"host {late} is not proven to have stopped, and may still write to what it had begun"
        record = from_the_start(attempt, why, lambda now: now)
    else:
        return operation.attempt, begun
    assert record.operation is not None and record.operation.attempt is not None
    return record.operation.attempt, False


def from_the_start(
    attempt: Attempt, why: str, derive: Callable[[Record], Record], source: Record | None = None
) -> Record:
    """Have the operation fill a fresh volume from 0, and the image say why; return the record as it is then. What was
    written so far is deleted. ``source``: the record of what is read from now on, where that is another."""
    note = attempt.status(f"started again: {why}")
    record = attempt.publish(
        lambda record: derive(record)._replace(
            operation=_afresh(attempt, record, source),
            scrap=(*record.scrap, *attempt_of(record)),
            last=note,
        )
    )
    attempt.start_over()
    return drop_scrap(attempt, record)


def _afresh(attempt: Attempt, record: Record, source: Record | None = None) -> Operation:
    """Return the operation with another volume: a cursor is about one volume, and that one only."""
    assert record.operation is not None and record.operation.attempt is not None
    fresh = record.operation.attempt._replace(id=attempt.context.doors.ids.new_id())
    operation = record.operation._replace(attempt=fresh, cursor=0, made="")
    if source is None:
        return operation
    return operation._replace(source_write_epoch=source.write_epoch, source_content=source.content)


def attempt_of(record: Record) -> tuple[VolumeRef, ...]:
    """Return the volume that the operation of ``record`` fills, as what may become scrap; empty without one."""
    return (record.operation.attempt,) if record.operation and record.operation.attempt else ()


def drop_scrap(attempt: Attempt, record: Record) -> Record:
    """Delete the volumes in ``scrap`` and then stop naming them; return the record as it is then. The caller has just
    published ``record``."""
    gone, repository = record.scrap, attempt.repository
    for volume in gone:
        gate.delete(repository, record.id, volume)
    return attempt.publish(
        lambda record: record._replace(scrap=tuple(volume for volume in record.scrap if volume not in gone))
    )
