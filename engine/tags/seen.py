"""Whether a volume was written to while nobody had it prepared.

What it looks like is noted in its record when a session is closed, and when it is sealed: it is at rest then, and
durable. ``engine.data.seen`` says what is compared.
"""

from __future__ import annotations

import contextlib

from engine.data.records import MAX_REMARK_CHARACTERS, MAX_REMARKS, Record
from engine.data.seen import Seen, Stamp
from engine.errors import DiskwrightError
from engine.formats.base import Repository, VolumeFacts


def noted(repository: Repository, record: Record) -> Record:
    """Return the record with what its volume looks like now. Nobody writes to it, and it is durable."""
    if record.volume is None:
        return record._replace(seen=None)
    stamp = None
    with contextlib.suppress(DiskwrightError):  # then nothing is noted, and nothing will be concluded
        stamp = repository.volumes.stamp(record.volume)
    seen = Seen(record.volume.id, record.epoch, record.write_epoch, stamp) if stamp is not None else None
    return record._replace(seen=seen)


def in_next_epoch(record: Record) -> Record:
    """Return the record with an epoch in which no attempt of before goes on. Nobody writes to its volume for that, so
    what the volume looked like still holds."""
    known = record.seen if record.seen is not None and record.seen.epoch == record.epoch else None
    epoch = record.epoch + 1
    return record._replace(epoch=epoch, seen=known._replace(epoch=epoch) if known is not None else None)


def remarked(record: Record, text: str) -> Record:
    """Return the record with one more remark; of many the oldest goes."""
    return record._replace(remarks=(*record.remarks, text[:MAX_REMARK_CHARACTERS])[-MAX_REMARKS:])


def written(record: Record, facts: VolumeFacts | None) -> Stamp | None:
    """Return the stamp that the volume has now, if somebody has written to it since it was noted at rest; None when
    nobody has, or when that cannot be told."""
    seen, volume = record.seen, record.volume
    if seen is None or volume is None or facts is None or facts.stamp is None:
        return None
    if (seen.volume, seen.epoch, seen.write_epoch) != (volume.id, record.epoch, record.write_epoch):
        return None
    if record.prepared_by or record.absorbed_by or record.purging or record.operation is not None:
        return None  # one of us may write to it
    return facts.stamp if seen.stamp.rewritten(facts.stamp) else None
