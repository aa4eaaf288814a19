"""The content of a disk between sessions of machines that write to it.

``content`` in its record is a random nonce, drawn anew at each moment after which the content may be another: when the
disk is prepared for writing, when that session is closed, when the size that another tool gave it is adopted. Counters
come back with a backup or a clone; a nonce says that two records speak of the same content, wherever they stand.

A session that nobody tore down is closed by whoever first has the disk's lease and depends on the content after it.
"""

from __future__ import annotations

from engine.data.records import Record
from engine.doors import Doors
from engine.errors import StorageError
from engine.formats.base import Repository
from engine.gate import gate
from engine.gate.gate import Purpose
from engine.tags import changes, seen


class NotDurable(StorageError):
    """A flush of what a session wrote has failed. A second flush would succeed, and the data be lost all the same."""


def closed(doors: Doors, record: Record) -> Record:
    """Return the record as it is after a session that it says was begun; unchanged when it says of none."""
    return record._replace(prepared_by="", content=doors.ids.new_id()) if record.prepared_by else record


def close(doors: Doors, repository: Repository, tag: str) -> Record:
    """Make durable what a session wrote to a disk and have it over in its record, durable; return the record.

    The caller holds the disk's lease. Nothing is done when no session was begun. ImageBusy while a machine without a
    holder has the data open. NotDurable: the session is still open."""
    record = changes.read(repository, tag).record
    if not record.prepared_by or record.volume is None:
        return record
    try:
        gate.settle(doors, gate.open_layer(repository, tag, record.volume, Purpose.SEAL))
    except StorageError as error:
        raise NotDurable(
            f"what was written to image {tag} could not be made durable: {error.message}",
            "It may be lost when this host ends: compare it with what its machine knows before it is used",
        ) from error
    return changes.change(repository, tag, lambda now: seen.noted(repository, closed(doors, now)))
