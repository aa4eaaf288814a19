"""Fresh volumes for whole images: optimize, mend from a replica, salvage what can be read.

Nothing is changed in place. The new volume is named by the operation, filled, and one record
makes it the image's volume; the old one is then scrap (or evidence, when it is damaged).
"""

from __future__ import annotations

import contextlib

from engine.copying import ranges
from engine.data.digests import BLOCK_BYTES, CHUNK_BYTES
from engine.data.model import VolumeFormat, aligned
from engine.data.records import Operation, Record, VolumeRef
from engine.doors.images import Extent, Session
from engine.errors import Damaged, ReadFailed, Refused, ToolFailed
from engine.fixes import fill
from engine.formats.base import Repository
from engine.gate import gate
from engine.gate.gate import Purpose
from engine.tags import chains, changes, leasing, sources, target
from engine.tags.attempt import Attempt
from engine.tags.context import Context
from engine.triage.health import wanted_format


def flatten(context: Context, repository: Repository, tag: str, keep_format: bool) -> None:
    """Replace the image's representation by a flat volume of the format its strategy wants.

    ``keep_format``: it has dependants, whose headers name its format. The image reads the same
    at every moment. The caller holds its lease."""
    record = changes.read(repository, tag).record
    if record.volume is not None:
        chains.as_recorded(repository, record, record.volume)
    with Attempt(context, repository, tag, "optimize", ("make volume", "copy data", "replace")) as attempt:
        record = attempt.claim(lambda record: optimizing(context, record, keep_format))
        assert record.operation is not None and record.operation.attempt is not None
        links = chains.usable(repository, record)
        gate.require(repository, tag, links[0].volume, Purpose.REPLACE)
        lost = chains.lost(links)
        with leasing.take(context.doors, repository, [], [link.tag for link in links[1:]]):
            chains.unchanged(repository, links)
            filling = fill.ready(attempt, record, not record.mutable and not lost)
            attempt.stage("copy data")
            read = fill.reading(repository, record, links)
            digest = fill.copy_all(attempt, read, filling)
        if record.digest_is_valid and digest and digest != record.digest:
            raise Damaged(f"image {tag} does not have the content that its digest says", "Check it with --deep")
        _replace(attempt, filling.volume, record.digest if lost else digest, lost=lost)


def optimizing(context: Context, record: Record, keep_format: bool) -> Record:
    """Return the record of an image as it names the fresh volume to fill; what was begun goes on."""
    assert record.volume is not None
    format = record.volume.format if keep_format else wanted_format(record.strategy)
    operation = record.operation
    if operation is not None and operation.verb == "optimize" and operation.attempt is not None:
        same = operation.attempt.format is format and operation.source_write_epoch == record.write_epoch
        if same:
            return record
        record = record._replace(scrap=(*record.scrap, operation.attempt))
    elif operation is not None:
        raise Refused(f"image {record.id} has an unfinished {operation.verb}", "Finish that first")
    return record._replace(
        operation=Operation(
            verb="optimize",
            attempt=VolumeRef(context.doors.ids.new_id(), format, ""),
            source_write_epoch=record.write_epoch,
        )
    )


def _replace(
    attempt: Attempt,
    filled: VolumeRef,
    digest: str,
    evidence: bool = False,
    lost: tuple[tuple[int, int], ...] | None = None,
) -> None:
    """Seal: make the new volume the image's; then delete the old one, unless it is evidence."""
    attempt.stage("replace")
    _nobody_uses_the_old_one(attempt)

    record = attempt.finish(lambda record: on_another(record, filled, digest, evidence, lost))
    if record.scrap:
        target.drop_scrap(attempt, record)


def on_another(
    record: Record,
    filled: VolumeRef,
    digest: str,
    evidence: bool = False,
    lost: tuple[tuple[int, int], ...] | None = None,
) -> Record:
    """Return the record of an image whose volume is another one from here on; the old one is scrap, or ``evidence``."""
    assert record.volume is not None
    old = (record.volume,)
    return record._replace(
        volume=filled,
        operation=None,
        scrap=record.scrap if evidence else (*record.scrap, *old),
        evidence=(*record.evidence, *old) if evidence else record.evidence,
        digest=digest,
        digest_write_epoch=record.write_epoch,
        lost=record.lost if lost is None else lost,
    )


def _nobody_uses_the_old_one(attempt: Attempt) -> None:
    """A machine whose holder died, or came without a lease meanwhile, would write where nobody reads."""
    record = changes.read(attempt.repository, attempt.tag).record
    if record.volume is not None:
        gate.require(attempt.repository, attempt.tag, record.volume, Purpose.REPLACE)


def from_replica(context: Context, repository: Repository, tag: str, source_identity: str) -> None:
    """Replace the data of a damaged snapshot by that of a replica in another connected repository.

    A recorded digest must be met or nothing is sealed. The damaged volume is kept as evidence."""
    with Attempt(context, repository, tag, "restore_data", ("make volume", "copy data", "replace")) as attempt:

        def restoring(record: Record) -> Record:
            if record.operation is not None and record.operation.verb == "restore_data":
                return record
            scrap = record.scrap
            if record.operation is not None and record.operation.attempt is not None:
                scrap = (*scrap, record.operation.attempt)
            fresh = VolumeRef(context.doors.ids.new_id(), _kept_format(record), "")
            operation = Operation("restore_data", fresh, source=tag, source_repository=source_identity)
            return record._replace(scrap=scrap, operation=operation)

        record = attempt.claim(restoring)
        assert record.operation is not None
        with sources.held(context, record.operation._replace(source_repository=source_identity)) as source:
            home = source.repository.identity == repository.identity
            if home or source.record.mutable or chains.lost(source.links):
                raise Refused(f"no connected repository has snapshot {tag} intact", "Connect the one that has it")
            filling = fill.ready(attempt, record, want_digest=True)
            attempt.stage("copy data")
            read = fill.reading(source.repository, source.record, source.links)
            digest = fill.copy_all(attempt, read, filling, prove=True)
        wanted = record.digest or read.digest
        if wanted and digest != wanted:
            raise Damaged(
                f"the replica of snapshot {tag} does not have the content that the digest says",
                "Look for another replica; nothing was replaced",
            )
        _replace(attempt, filling.volume, digest, evidence=_has_data(repository, record), lost=())


def _kept_format(record: Record) -> VolumeFormat:
    return record.volume.format if record.volume else VolumeFormat.QCOW2


def _has_data(repository: Repository, record: Record) -> bool:
    return record.volume is not None and repository.volumes.facts(record.volume.id, record.volume.format).present


def salvage(context: Context, repository: Repository, tag: str, suspect: tuple[tuple[int, int], ...]) -> None:
    """Copy what can still be read of a damaged image into a fresh volume.

    Ranges that cannot be read, that lie beyond the end of the damaged file, or that a digest
    proved wrong (``suspect``) read as zeros afterwards and are named in the record. The damaged
    volume itself is never written and is kept as evidence."""
    with Attempt(context, repository, tag, "salvage", ("make volume", "copy data", "replace")) as attempt:

        def salvaging(record: Record) -> Record:
            scrap = record.scrap
            if record.operation is not None and record.operation.attempt is not None:
                scrap = (*scrap, record.operation.attempt)
            fresh = VolumeRef(context.doors.ids.new_id(), _kept_format(record), "")
            return record._replace(scrap=scrap, operation=Operation("optimize", fresh))

        record = attempt.claim(salvaging)
        links = chains.load(repository, record, record.absorbed_by)
        with leasing.take(context.doors, repository, [], [link.tag for link in links[1:]]):
            chains.unchanged(repository, links)
            filled = target.ready(attempt, record, filled=False)  # what cannot be read is zeros
            attempt.stage("copy data")
            lost = _read_what_can_be_read(attempt, record, links, filled, suspect)
        lost = ranges.exact([*chains.lost(links), *lost])
        known = record.digest if record.lost or record.digest_is_valid else ""
        _replace(attempt, filled, known, evidence=True, lost=tuple(lost))


def _read_what_can_be_read(
    attempt: Attempt,
    record: Record,
    links: list[chains.Link],
    filled: VolumeRef,
    suspect: tuple[tuple[int, int], ...],
) -> list[ranges.Range]:
    repository, images = attempt.repository, attempt.context.doors.images
    size = aligned(record.size)
    layers = chains.layers(repository, links)
    top = repository.volumes.facts(links[0].volume.id, links[0].volume.format)
    lost = _beyond_the_end(images.map_layer(layers[0]), top.length, size)
    with contextlib.ExitStack() as stack:
        read = images.open_session(layers, False, False)
        stack.callback(read.close)
        write = images.open_session([gate.open_layer(repository, record.id, filled, Purpose.FILL)], True, False)
        stack.callback(write.close)
        attempt.check()
        try:
            wanted = ranges.data_ranges(images.map_chain(layers))
        except ToolFailed:
            wanted = [(0, size)]  # its tables are damaged too: ask for every block
        bad = list(suspect) + lost
        for start, length in ranges.pieces(ranges.subtract(ranges.merged(wanted, min(size, read.size)), bad)):
            if repository.read_errors_count:
                lost += _rescue(read, write, start, length)
            else:
                write.write(start, read.read(start, length))
            if start % (64 * CHUNK_BYTES) == 0:
                attempt.check()
        write.flush()
    return [*lost, *suspect]


def _rescue(read: Session, write: Session, start: int, length: int) -> list[ranges.Range]:
    try:
        data = read.read(start, length)
    except ReadFailed:  # the tool says so: a tool that died says nothing about the data
        if length <= BLOCK_BYTES:
            return [(start, length)]
    else:
        write.write(start, data)
        return []
    lost = []
    for part in range(start, start + length, BLOCK_BYTES):
        lost += _rescue(read, write, part, min(BLOCK_BYTES, start + length - part))
    return lost


def _beyond_the_end(extents: list[Extent], length: int, size: int) -> list[ranges.Range]:
    lost = []
    for extent in extents:
        if extent.data and extent.offset is not None and extent.offset + extent.length > length:
            first = max(0, length - extent.offset)
            lost.append((extent.start + first, extent.length - first))
    end = max((extent.start + extent.length for extent in extents), default=0)
    if end < size:
        lost.append((end, size - end))  # a raw file that became shorter
    return lost
