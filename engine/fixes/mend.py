"""Mend unfinished images: make the volume, fill it from the cursor on, seal it whole.

The seal is one published record: ``whole`` with ``volume`` = the attempt. Before it the image
is broken and the attempt's volume is named by the operation; after it nothing is left to do.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.data.model import Strategy, VolumeFormat
from engine.data.records import Operation, Record, VolumeRef
from engine.doors.files import Stat
from engine.doors.images import Layer
from engine.errors import (
    BadRequest,
    Damaged,
    DiskwrightError,
    NotFound,
    Overtaken,
    Refused,
    StorageError,
    Superseded,
    from_os_error,
)
from engine.fixes import fill
from engine.formats.base import Repository
from engine.tags import chains, changes, leasing, sources
from engine.tags.attempt import Attempt
from engine.tags.context import Context
from engine.tools.qemu.qcow2 import Header, parse_header
from engine.triage.health import wanted_format

_HEADER_BYTES = 65536


def resume(context: Context, repository: Repository, tag: str, also: Callable[[], None] | None = None) -> None:
    """Finish the operation of a forming tag, whichever it is. The caller holds its lease.

    ``also`` is called at every step and may raise to end it: what it is done for is gone."""
    record = changes.read(repository, tag).record
    operation = record.operation
    if operation is None or operation.attempt is None:
        raise Damaged(f"image {tag} is not complete and its record does not say what is missing")
    stages = {
        "create_disk": ("copy base", "make volume") if operation.source else ("make volume",),
        "copy": ("make volume", "copy data", "seal"),
        "import": ("make volume", "copy data", "seal"),
    }.get(operation.verb)
    if stages is None:
        raise Damaged(f"the record of image {tag} names an operation {operation.verb!r:.40} that is not known here")
    attempt = Attempt(context, repository, tag, operation.verb, stages)
    attempt.also = also
    try:
        if operation.verb == "create_disk" and not operation.source:
            attempt.join(record)
            _create_disk(attempt, record)
            return
        record = attempt.claim(lambda now: _unfinished(now, operation))
        if operation.verb == "create_disk":
            _create_disk(attempt, record)
        elif operation.verb == "copy":
            _copy(attempt, record)
        else:
            _import(attempt, record)
    except DiskwrightError as error:
        attempt.fail(error)
        raise


def _unfinished(now: Record, begun: Operation) -> Record:
    """Whoever lost the lease unnoticed finds that the work was done meanwhile."""
    if now.operation is None or now.operation.verb != begun.verb:
        raise Superseded(f"the {begun.verb} of image {now.id} was finished by somebody else")
    return now


# -- create_disk


def _create_disk(attempt: Attempt, record: Record) -> None:
    operation = record.operation
    assert operation is not None and operation.attempt is not None
    if operation.source:
        if operation.base and _is_merged_away(attempt.repository, operation.base):
            record = _without_base(attempt)
            operation = record.operation
            assert operation is not None
        if operation.base:
            _bring_base(attempt, record, operation)
        else:
            _flat_from_elsewhere(attempt, record, operation)
            return
    attempt.stage("make volume")
    make_disk_volume(attempt.repository, record)
    attempt.finish(sealed)


def _is_merged_away(repository: Repository, tag: str) -> bool:
    entry = repository.read_tag(tag)
    return entry is not None and entry.record is not None and bool(entry.record.absorbed_by)


def _without_base(attempt: Attempt) -> Record:
    """The base is being merged into another image here and cannot come back under its id as long as we
    name it: the disk becomes a flat copy of the one elsewhere."""

    def flat(record: Record) -> Record:
        assert record.operation is not None
        fresh = VolumeRef(attempt.context.doors.ids.new_id(), wanted_format(record.strategy), "")
        operation = record.operation._replace(attempt=fresh, base="", cursor=0)
        return record._replace(operation=operation, scrap=(*record.scrap, *_attempt_of(record)))

    record = attempt.publish(flat)
    attempt.start_over()
    return drop_scrap(attempt, record)


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

    repository.make_volume(operation.attempt, record.size, base_format, still_wanted)


def sealed(record: Record) -> Record:
    """The record of an image whose operation is done. Superseded: a host that took over has finished it already."""
    if record.operation is None:
        raise Superseded(f"image {record.id} was finished by somebody else")
    return record._replace(whole=True, volume=record.operation.attempt, operation=None)


def _flat_from_elsewhere(attempt: Attempt, record: Record, operation: Operation) -> None:
    with sources.held(attempt.context, operation) as source:
        attempt.stage("copy base")
        lost = chains.lost(source.links)
        if lost != record.lost:
            record = _start_again(attempt, source, "another source is there")
        target = fresh_target(attempt, record)
        read = fill.reading(source.repository, source.record, source.links)
        fill.copy_all(attempt, read, target, want_digest=False)
        fill.grow(attempt, target, record.size)
    attempt.finish(lambda now: sealed(now)._replace(lost=lost))


def _bring_base(attempt: Attempt, record: Record, operation: Operation) -> None:
    """Have the base in this repository as hidden data under its own id, whole."""
    repository, context = attempt.repository, attempt.context
    attempt.stage("copy base")
    entry = repository.read_tag(operation.base)
    if entry is not None and entry.record is not None and entry.record.whole:
        chains.load(repository, entry.record)  # refuses one that is being deleted or merged away
        return
    with leasing.take(context.doors, repository, [operation.base]):
        entry = repository.read_tag(operation.base)
        if entry is not None and entry.record is not None and entry.record.whole:
            chains.load(repository, entry.record)  # another host has finished it meanwhile
            return
        if entry is None or entry.tombstone:
            _publish_hidden_base(attempt, operation, entry.generation if entry else 0)
        elif entry.record is None or entry.record.purging:
            raise Refused(f"the base {operation.base} is being deleted here", "Run its clean fix, then this one")
        resume(context, repository, operation.base, also=attempt.check)


def _publish_hidden_base(attempt: Attempt, operation: Operation, expected: int) -> None:
    source = sources.locate(attempt.context, operation)
    hidden = new_copy_record(attempt.context, source, source.record.id, Strategy.SPACE, strong=False)
    try:
        attempt.repository.publish(hidden, expected)
    except Overtaken as error:
        raise StorageError(f"the base {operation.base} appeared at the same moment", "Run the fix again") from error


def new_copy_record(
    context: Context, source: sources.Source, tag: str, strategy: Strategy, strong: bool = True, digest: bool = True
) -> Record:
    """The record of a full copy that has yet to be made. What is known to be lost stays known."""
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
            digest=digest,
        ),
    )


# -- copy


def _copy(attempt: Attempt, record: Record) -> None:
    operation = record.operation
    assert operation is not None
    with sources.held(attempt.context, operation) as source:
        lost = chains.lost(source.links)
        if source.rewritten or lost != record.lost:  # what was copied from another one is void
            why = f"disk {source.record.id} was written since the copy began"
            record = _start_again(attempt, source, why if source.rewritten else "another source is there")
            operation = record.operation
            assert operation is not None
        if source.record.size != record.size:
            raise Refused(f"image {source.record.id} has another size now", "Remove the copy and make a new one")
        attempt.stage("make volume")
        target = fresh_target(attempt, record)
        attempt.stage("copy data")
        read = fill.reading(source.repository, source.record, source.links)
        if operation.base:
            _copy_onto_base(attempt, read, source, operation, target)
            digest = read.digest
        else:
            digest = fill.copy_all(attempt, read, target, operation.digest)
    attempt.stage("seal")
    if digest and not record.mutable and read.digest and digest != read.digest:
        raise Damaged(
            f"image {source.record.id} does not have the content that its digest says",
            "Check its repository with --deep; the copy was not sealed",
        )
    if lost:  # a digest of the zeros that stand for lost data would disown the intact replicas
        digest = "" if record.mutable else source.record.digest
    attempt.finish(lambda now: sealed(now)._replace(digest=digest, digest_write_epoch=now.write_epoch, lost=lost))
    if digest and not source.record.mutable and not source.record.digest:
        _tell_source(source, digest, attempt, target)


def _copy_onto_base(
    attempt: Attempt, read: fill.Reading, source: sources.Source, operation: Operation, target: VolumeRef
) -> None:
    links = chains.load(attempt.repository, changes.read(attempt.repository, operation.base).record)
    below = [link.tag for link in links]
    if source.repository.identity == attempt.repository.identity:
        below = [tag for tag in below if tag not in {link.tag for link in source.links}]
    with leasing.take(attempt.context.doors, attempt.repository, [], below):
        chains.unchanged(attempt.repository, links)
        fill.copy_difference(attempt, read, source.links, links, target)


def _tell_source(source: sources.Source, digest: str, attempt: Attempt, target: VolumeRef) -> None:
    """The source snapshot was read whole anyway: record its digest there too. Best effort."""
    chunks = attempt.repository.read_digests(target.id)

    def told(record: Record) -> Record | None:
        if record.digest or record.volume is None or record.volume != source.links[0].volume:
            return None
        return record._replace(digest=digest, digest_write_epoch=record.write_epoch)

    try:
        if chunks is not None:
            source.repository.write_digests(source.links[0].volume.id, chunks)
        changes.change(source.repository, source.record.id, told)
    except DiskwrightError:
        return  # a read-only or full source keeps no digest; the copy is complete without it


def _start_again(attempt: Attempt, source: sources.Source, why: str) -> Record:
    """What was copied is void. What this source has lost is known."""
    lost = chains.lost(source.links)
    return _from_the_start(attempt, why, lambda record: record._replace(lost=lost), source.record.write_epoch)


def _from_the_start(
    attempt: Attempt, why: str, derive: Callable[[Record], Record], write_epoch: int | None = None
) -> Record:
    """A fresh volume, from 0, and the image says why. What was written so far goes as soon as it can."""
    note = attempt.status(f"started again: {why}")
    record = attempt.publish(
        lambda record: derive(record)._replace(
            operation=_afresh(attempt, record, write_epoch),
            scrap=(*record.scrap, *_attempt_of(record)),
            last=note,
        )
    )
    attempt.start_over()
    return drop_scrap(attempt, record)


def _attempt_of(record: Record) -> tuple[VolumeRef, ...]:
    return (record.operation.attempt,) if record.operation and record.operation.attempt else ()


def _afresh(attempt: Attempt, record: Record, write_epoch: int | None = None) -> Operation:
    """The operation with another volume: a cursor is about one volume, and that one only."""
    assert record.operation is not None and record.operation.attempt is not None
    fresh = record.operation.attempt._replace(id=attempt.context.doors.ids.new_id())
    source = record.operation.source_write_epoch if write_epoch is None else write_epoch
    return record.operation._replace(attempt=fresh, cursor=0, made="", source_write_epoch=source)


def drop_scrap(attempt: Attempt, record: Record) -> Record:
    """Delete the volumes in ``scrap`` and then stop naming them. The caller has just published ``record``."""
    gone, repository = record.scrap, attempt.repository
    for volume in gone:
        repository.remove_digests(volume.id)
        repository.remove_volume(volume.id, volume.format)
    return attempt.publish(
        lambda record: record._replace(scrap=tuple(volume for volume in record.scrap if volume not in gone))
    )


def fresh_target(attempt: Attempt, record: Record) -> VolumeRef:
    """The volume of the operation, there to be filled from the cursor on."""
    target, usable = made_before(attempt, record)
    if not usable:
        _make_target(attempt.repository, target, record.size, attempt.check)
    return target


def _make_target(repository: Repository, target: VolumeRef, size: int, verify: Callable[[], None]) -> None:
    base_format = None
    if target.parent:
        base = changes.read(repository, target.parent).record
        base_format = chains.load(repository, base)[0].volume.format
    repository.make_volume(target, size, base_format, verify, filled=True)


def make_ahead(repository: Repository, tag: str) -> None:
    """Make the volume that an image still to be filled will need, so that any host can fill it. The caller holds its
    lease. Nothing happens where no volume is filled."""
    record = changes.read(repository, tag).record
    operation = record.operation
    if operation is None or operation.attempt is None or record.whole or not operation.fills:
        return

    def still_wanted() -> None:
        if changes.read(repository, tag).record.operation != operation:
            raise Superseded(f"the {operation.verb} of image {tag} is done by somebody else by now")

    made = operation._replace(made=operation.attempt.id)
    _make_target(repository, operation.attempt, record.size, still_wanted)
    changes.change(repository, tag, lambda now: now._replace(operation=made) if now.operation == operation else None)


def made_before(attempt: Attempt, record: Record) -> tuple[VolumeRef, bool]:
    """The volume to fill, and whether it is there with what the cursor says in it. Where a cursor is recorded and
    its volume is gone, another volume takes its place, so the old cursor can never count again; also where somebody
    else may still write to it."""
    operation = record.operation
    assert operation is not None and operation.attempt is not None
    facts = attempt.repository.volume_facts(operation.attempt.id, operation.attempt.format)
    begun = attempt.cursor > 0 or operation.is_made
    if begun and not facts.present:
        record = attempt.publish(lambda now: now._replace(operation=_afresh(attempt, now)))
        attempt.start_over()
    elif begun and (late := attempt.repository.late_writer(operation.attempt)):
        why = f"host {late} is not proven to have stopped, and may still write to what it had begun"
        record = _from_the_start(attempt, why, lambda now: now)
    else:
        return operation.attempt, begun
    assert record.operation is not None and record.operation.attempt is not None
    return record.operation.attempt, False


# -- import


def _import(attempt: Attempt, record: Record) -> None:
    operation = record.operation
    assert operation is not None
    read = source_file(attempt.context, operation)
    attempt.stage("make volume")
    target = fresh_target(attempt, record)
    attempt.stage("copy data")
    digest = fill.copy_all(attempt, read._replace(size=record.size), target, operation.digest)
    source_file(attempt.context, operation)  # changed while it was read: not sealed
    attempt.stage("seal")
    attempt.finish(lambda now: sealed(now)._replace(digest=digest, digest_write_epoch=now.write_epoch))


def source_file(context: Context, operation: Operation) -> fill.Reading:
    """The imported file, if it is still the one that the import began with."""
    facts, header = inspect_file(context, operation.path, operation.source_format)
    if (facts.size, facts.mtime_ns, facts.inode) != operation.path_facts:
        raise Refused(
            f"the file {operation.path!r:.200} is not the one that the import began with",
            "Put it back, or remove the image and import again",
        )
    layer = Layer(operation.path, VolumeFormat(operation.source_format))
    return fill.Reading([layer], header.size if header else facts.size, False)


def inspect_file(context: Context, path: str, format: str) -> tuple[Stat, Header | None]:
    """Look at a file to import: regular, of the stated format, self-contained. Follows nothing."""
    try:
        with context.doors.files.open(path) as handle:
            facts = handle.stat()
            head = handle.read_at(0, _HEADER_BYTES) if format == VolumeFormat.QCOW2 else b""
    except FileNotFoundError:
        raise NotFound(f"there is no file {path!r:.200} to import", "Give the right path, or put it back") from None
    except OSError as error:
        raise from_os_error(error, f"open the file to import {path!r:.200}") from error
    if format == VolumeFormat.RAW:
        return facts, None
    try:
        header = parse_header(head, facts.size)
    except Damaged as error:
        raise BadRequest(f"{path!r:.200} is no qcow2 image: {error.message}", "State the right format") from None
    reasons = {
        "names a backing file": header.backing_name is not None,
        "names an external data file": header.has_data_file,
        "has features this version does not know": bool(header.unknown_incompatible),
        "is encrypted": header.encrypted,
        "is marked corrupt": header.corrupt,
    }
    for reason, applies in reasons.items():
        if applies:
            raise Refused(
                f"the image file {path!r:.200} {reason}; nothing it names is followed",
                "Flatten it first with qemu-img convert on a machine where you trust it",
            )
    return facts, header
