"""Finish a copy: make its volume, fill it from the cursor on, seal it whole.

The seal is one published record: ``whole``, on the volume of the operation. Before it the image is broken and the
operation names that volume; after it nothing is left to do. The source is leased meanwhile; where it is another one
than the copy began with, or was written since, the copy starts again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from engine.data.digests import DigestList
from engine.data.records import Operation, Record, VolumeRef
from engine.errors import Damaged, DiskwrightError, Refused
from engine.fixes import fill
from engine.formats.base import Repository
from engine.tags import chains, changes, leasing, sources, target
from engine.tags.attempt import Attempt, unfinished
from engine.tags.context import Context


def resume(context: Context, repository: Repository, tag: str, also: Callable[[], None] | None = None) -> None:
    """Finish the copy ``tag``, from wherever the last attempt got. The caller holds its lease.

    ``also`` is called at every step and may raise to end the copy: what it is made for is gone."""
    with Attempt(context, repository, tag, "copy", ("make volume", "copy data", "seal"), also) as attempt:
        _copy(attempt, attempt.take_over())


def _copy(attempt: Attempt, record: Record) -> None:
    operation = unfinished(record, "copy")
    with sources.held(attempt.context, operation) as source:
        lost = chains.lost(source.links)
        if source.rewritten or lost != record.lost:  # what was copied from another one is void
            record = start_again(attempt, source, source.rewritten or "another source is there")
            operation = unfinished(record, "copy")
        if source.record.size != record.size:
            raise Refused(f"image {source.record.id} has another size now", "Remove the copy and make a new one")
        attempt.stage("make volume")
        filling = fill.ready(attempt, record, operation.digest and not operation.base)
        in_one_run = attempt.cursor == 0
        attempt.stage("copy data")
        read = fill.reading(source.repository, source.record, source.links)
        if operation.base:
            _copy_onto_base(attempt, read, source, operation, filling.volume)
            digest = read.digest
        else:
            digest = fill.copy_all(attempt, read, filling)
    attempt.stage("seal")
    if digest and not record.mutable and read.digest and digest != read.digest:
        raise Damaged(
            f"image {source.record.id} does not have the content that its digest says",
            "Check its repository with --deep; the copy was not sealed",
        )
    if lost:  # a digest of the zeros that stand for lost data would disown the intact replicas
        digest = "" if record.mutable else source.record.digest
    attempt.finish(
        lambda now: target.sealed(now)._replace(digest=digest, digest_write_epoch=now.write_epoch, lost=lost)
    )
    if source.record.kept is not None:
        _let_go(source, tag=attempt.tag)
    elif digest and in_one_run and filling.digests and not (source.record.mutable or source.record.digest):
        _tell_source(source, filling.digests)


def _copy_onto_base(
    attempt: Attempt, read: fill.Reading, source: sources.Source, operation: Operation, filled: VolumeRef
) -> None:
    links = chains.load(attempt.repository, changes.read(attempt.repository, operation.base).record)
    below = [link.tag for link in links]
    if source.repository.identity == attempt.repository.identity:
        below = [tag for tag in below if tag not in {link.tag for link in source.links}]
    with leasing.take(attempt.context.doors, attempt.repository, [], below):
        chains.unchanged(attempt.repository, links)
        fill.copy_difference(attempt, read, source.links, links, filled)


def _tell_source(source: sources.Source, found: DigestList) -> None:
    """Record the digest in the source snapshot too, since all of it was read and hashed just now. Best effort."""
    digest = found.root()

    def with_digest(record: Record) -> Record | None:
        if record.digest or record.volume is None or record.volume != source.links[0].volume:
            return None
        return record._replace(digest=digest, digest_write_epoch=record.write_epoch)

    try:
        source.repository.digests.write(source.links[0].volume.id, found.to_bytes())
        changes.change(source.repository, source.record.id, with_digest)
    except DiskwrightError:
        return  # a read-only or full source keeps no digest; the copy is complete without it


def _let_go(source: sources.Source, tag: str) -> None:
    """Let what was kept for this copy become one with what stands on it. Best effort: whoever sees both repositories
    sees that the copy is finished."""

    def free(record: Record) -> Record | None:
        return record._replace(kept=None) if record.kept is not None and record.kept.copy == tag else None

    with contextlib.suppress(DiskwrightError):
        changes.change(source.repository, source.record.id, free)


def start_again(attempt: Attempt, source: sources.Source, why: str) -> Record:
    """Have the copy begin at 0 in a fresh volume, since what was copied is void. Return the record as it is then, with
    what the source has lost. ``why`` is what the image says."""
    lost = chains.lost(source.links)
    return target.from_the_start(attempt, why, lambda record: record._replace(lost=lost), source.record)
