"""Where the data of an unfinished operation comes from, and whether it is there now.

The record names the source image, the storage that held it, and, for a mutable source, the
write epoch it had. A snapshot may come from any connected repository that has it whole, since
it is the same everywhere; a disk only from where it was, unwritten since.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from engine.data.model import Strategy, VolumeFormat
from engine.data.records import Operation, Record, VolumeRef
from engine.errors import Conflict, DiskwrightError, Refused
from engine.formats.base import Repository
from engine.tags import chains, changes, leasing, sessions
from engine.tags.context import Context


class Source(NamedTuple):
    """An image to read from."""

    repository: Repository
    record: Record
    links: list[chains.Link]
    rewritten: str = ""
    """Why what was copied of it is void: a mutable source was written since the operation began, or is an older state
    that was put back; "" while it is what the operation began with."""

    def used_bytes(self) -> int:
        """Return an upper estimate of the data in the source."""
        listing = self.repository.volumes.listing()
        facts = [self.repository.volumes.facts(link.volume.id, link.volume.format, listing) for link in self.links]
        return min(self.record.size, sum(found.used for found in facts))


def locate(context: Context, operation: Operation) -> Source:
    """Return the source of ``operation``; Refused says why it is not there."""
    source, reason = find(context, operation)
    if source is None:
        raise Refused(
            f"image {operation.source} to copy from is not available: {reason}",
            "Connect the repository that has it and run the fix again",
        )
    return source


@contextlib.contextmanager
def held(context: Context, operation: Operation) -> Iterator[Source]:
    """Hold the source of ``operation`` under shared leases of its whole chain: nobody writes to it, merges it away or
    deletes it meanwhile. Its last session is closed: what was written is durable. Refused as ``locate``; ImageBusy;
    Conflict when it changed just now."""
    first = locate(context, operation)
    if first.record.mutable:
        close_session(context, first.repository, first.record)
    with leasing.take(context.doors, first.repository, [], [link.tag for link in first.links]):
        source = locate(context, operation)
        if source.repository.identity != first.repository.identity:
            raise Conflict(f"the source of image {operation.source} changed at the same moment", "Run the fix again")
        chains.unchanged(source.repository, first.links)
        yield source


def close_session(context: Context, repository: Repository, record: Record) -> Record:
    """Close the last session of a disk that is about to be read, if it was not torn down; return the record as it is
    then. ImageBusy while the session goes on."""
    if not record.prepared_by:
        return record
    with leasing.take(context.doors, repository, [record.id]):
        return sessions.close(context.doors, repository, record.id)


def find(context: Context, operation: Operation) -> tuple[Source | None, str]:
    """Return the source of ``operation``, or None and why it is not there. One that has lost ranges is returned only
    when there is none without. Repositories that do not answer are waited for once."""
    with context.waiting_once():
        return _find(context, operation)


def _find(context: Context, operation: Operation) -> tuple[Source | None, str]:
    first = context.by_identity(operation.source_repository)
    reasons: list[str] = []
    found = _look(first, operation, reasons) if first is not None else None
    if found is not None and (found.record.mutable or not chains.lost(found.links)):
        return found, ""
    if first is None:
        reasons.append(context.why_away(operation.source_repository))
    for _, repository in context.reachable():
        if repository.identity != operation.source_repository:
            source = _look(repository, operation, [])
            if source is None or source.record.mutable:
                continue
            if not chains.lost(source.links):
                return source, ""
            found = found or source
    return found, "" if found else reasons[0]


def _look(repository: Repository, operation: Operation, reasons: list[str]) -> Source | None:
    try:
        record = changes.read(repository, operation.source).record
        if record.operation is not None and record.operation.verb == "create_snapshot":
            reasons.append("its snapshot was never finished")
            return None
        links = chains.usable(repository, record)
    except DiskwrightError as error:
        reasons.append(error.message)
        return None
    return Source(repository, record, links, _rewritten(record, operation))


def _rewritten(record: Record, operation: Operation) -> str:
    if not record.mutable:
        return ""
    if record.write_epoch != operation.source_write_epoch:
        return f"disk {record.id} was written since the copy began"
    if record.content != operation.source_content:
        return f"disk {record.id} is not in the state in which the copy began: it was restored from elsewhere, or used"
    return ""


def copy_record(
    context: Context, source: Source, tag: str, strategy: Strategy, strong: bool = True, digest: bool = True
) -> Record:
    """Return the record of a full copy of ``source`` that has yet to be made. What is known to be lost stays known."""
    format = VolumeFormat.QCOW2 if strategy is Strategy.SPACE else VolumeFormat.RAW
    return Record(
        id=tag,
        strong=strong,
        mutable=source.record.mutable,
        size=source.record.size,
        whole=False,
        volume=None,
        strategy=strategy,
        lost=chains.lost(source.links),
        operation=Operation(
            verb="copy",
            attempt=VolumeRef(context.doors.ids.new_id(), format, ""),
            source=source.record.id,
            source_repository=source.repository.identity,
            source_write_epoch=source.record.write_epoch,
            source_content=source.record.content,
            digest=digest,
        ),
    )
