"""Whose the data is that the record of a disk names: its own, or a snapshot's by now.

When the newest record of a disk is gone, the one before counts, and that may name what was sealed since. Whoever writes
there writes into a snapshot. Who else may have that data is looked at only where the generation before the newest is
missing (``gap``): it is kept until the next one comes, so it stands in its place when the newest is gone.
"""

from __future__ import annotations

from engine.data.records import Record, VolumeRef
from engine.errors import Refused
from engine.formats.base import Repository, TagEntry


def require_own(repository: Repository, entry: TagEntry | None) -> None:
    """Return if the data that a tag has is not a snapshot's, as far as its record can be doubted. Refused naming the
    snapshot, StorageError when those that may have the data could not be listed."""
    if entry is not None and entry.gap and entry.record is not None:
        require_nobody_elses(repository, entry.record)


def require_nobody_elses(repository: Repository, record: Record) -> None:
    """The same, whatever is known of this one."""
    if not (record.mutable and record.whole and record.volume is not None):
        return
    for tag, entry in repository.tags.users(record.volume.id).items():
        other = entry.record or entry.before
        if other is not None and record.left_to(other):
            raise Refused(
                f"image {record.id} has left its data to snapshot {tag}: its newest record is gone (B-OLDER)",
                "Run the fixes that check offers for both, or restore the record from a backup",
            )


def require_unwanted(repository: Repository, entry: TagEntry | None, volume: VolumeRef) -> None:
    """Return if no disk has the volume of a snapshot as its own data too, by a record that is older than the snapshot:
    only as long as the snapshot has it can be told that it is. Refused naming the disk, StorageError."""
    record = entry.record if entry is not None else None
    if record is None or record.mutable or record.volume != volume:
        return
    for tag, other in repository.tags.users(record.id).items():
        if other.record is not None and other.record.left_to(record):
            raise Refused(
                f"image {tag} has the data of snapshot {record.id} as its own: its newest record is gone (B-OLDER)",
                f"Run the fixes that check offers for {tag} first, or remove it and clean it away",
            )
