"""Small repairs in place that change no content: a derived header, leaked clusters, unused room, a digest."""

from __future__ import annotations

from engine.data.model import require_size
from engine.data.records import Record
from engine.data.seen import Stamp
from engine.errors import Damaged, Refused, StaleFix
from engine.formats.base import Repository
from engine.gate import gate
from engine.gate.gate import Purpose
from engine.survey import deep
from engine.tags import chains, changes, leasing, lengths, seen
from engine.tags.attempt import Attempt
from engine.tags.context import Context


def header(context: Context, repository: Repository, tag: str) -> None:
    """Make the qcow2 header of an image's volume say what its record says. The caller holds the lease."""
    with Attempt(context, repository, tag, "rewrite header", ("rewrite header",)) as attempt:
        record = attempt.claim()
        if record.volume is not None:
            chains.rewrite_header(context.doors.images, repository, tag, record.volume)
        attempt.finish(lambda record: record)


def adopt_size(context: Context, repository: Repository, tag: str, size: int) -> None:
    """Record ``size``, the length in bytes that another tool gave the disk's volume, as the disk's size. The caller
    holds the lease. StaleFix when the volume has another length by now, ImageBusy while somebody writes to it."""
    record = changes.read(repository, tag).record
    if record.volume is None or not record.mutable:
        raise StaleFix(f"image {tag} is no disk with data any more", "Check again")
    facts = repository.volumes.facts(record.volume.id, record.volume.format)
    if chains.grown_to(record, record.volume, facts) != size:
        raise StaleFix(f"the volume of image {tag} has another length by now", "Check again")
    gate.require(repository, tag, record.volume, Purpose.REWRITE)
    lengths.grow(context, repository, tag, record.volume, require_size(size))  # what is seen of it is not durable yet

    def adopted(now: Record) -> Record:
        if (now.volume, now.size) != (record.volume, record.size) or not chains.may_adopt(now):
            raise StaleFix(f"image {tag} has other data now, or another size", "Check again")
        return seen.noted(repository, _other_content(context, now._replace(size=size)))

    changes.change(repository, tag, adopted)


def _other_content(context: Context, record: Record) -> Record:
    """Return the record of a disk whose content is another now: what was copied or hashed of it is void."""
    return record._replace(write_epoch=record.write_epoch + 1, content=context.doors.ids.new_id())


def accept_written(context: Context, repository: Repository, tag: str, mtime_ns: int) -> None:
    """Take what was written to the volume of an image while nobody had it prepared for its content: what its file says
    was last written at ``mtime_ns``. A remark tells that, but of a snapshot that has a digest: a deep look has proven
    it to be as it was. The caller holds the lease. StaleFix when it was written to again, ImageBusy while somebody
    writes."""
    record = changes.read(repository, tag).record
    stamp = _written(repository, record)
    if record.volume is None or stamp is None or stamp.mtime_ns != mtime_ns:
        raise StaleFix(f"the data of image {tag} is not as it was when this fix was offered", "Check again")
    gate.settle(context.doors, gate.open_layer(repository, tag, record.volume, Purpose.SEAL))
    if _written(repository, record) != stamp:
        raise StaleFix(f"the data of image {tag} was written to at this moment", "Check again")

    def accepted(now: Record) -> Record:
        if now._replace(last=None) != record._replace(last=None):
            raise StaleFix(f"image {tag} was changed at this moment", "Check again")
        if now.mutable:
            now = _other_content(context, now)
        if not now.digest_is_valid:
            now = seen.remarked(
                now, f"its data was written to at {stamp.when} while nobody had it prepared, and accepted"
            )
        return seen.noted(repository, now)

    changes.change(repository, tag, accepted)


def _written(repository: Repository, record: Record) -> Stamp | None:
    volume = record.volume
    return seen.written(record, repository.volumes.facts(volume.id, volume.format)) if volume is not None else None


def leaks(context: Context, repository: Repository, tag: str) -> None:
    """Give leaked clusters back (``qemu-img check -r leaks``), nothing else. The caller holds the lease."""
    with Attempt(context, repository, tag, "repair leaks", ("repair leaks",)) as attempt:
        record = attempt.claim()
        assert record.volume is not None
        context.doors.images.repair_leaks(gate.open_layer(repository, tag, record.volume, Purpose.REWRITE))
        attempt.finish(lambda record: record)


def reduce(context: Context, repository: Repository, tag: str) -> None:
    """Give back what a snapshot's volume will never use. Nothing is recorded: the volume itself shows it. The caller
    holds the lease. Damaged when the volume's reference counts, which tell what it uses, cannot be trusted."""
    record = changes.read(repository, tag).record
    if record.mutable or record.volume is None or record.operation is not None:
        raise StaleFix(f"the data of image {tag} may still change", "Check again")
    report = context.doors.images.check(gate.open_layer(repository, tag, record.volume, Purpose.REPLACE))
    if report.corruptions:
        raise Damaged(
            f"what the volume of image {tag} uses is not known: qemu-img check finds {report.corruptions} corruptions",
            "Nothing was cut off; check with --deep tells what can be done",
        )
    assert repository.extents is not None, "a volume that ends where its data ends is never offered to be reduced"
    repository.extents.reduce(record.volume)


def put_back(repository: Repository, tag: str) -> None:
    """Move the volume of an image out of quarantine. The caller holds the lease."""
    record = changes.read(repository, tag).record
    if record.volume is None:
        raise StaleFix(f"image {tag} has no volume any more", "Check again")
    repository.tags.settle(tag)  # the record that names it
    gate.put_back(repository, tag, record.volume)


def accept_losses(context: Context, repository: Repository, tag: str) -> None:
    """Take the zeros that stand for lost ranges as the image's content. The caller holds the lease. A snapshot gets a
    digest of them, which tells it from the replicas under its id that have lost nothing."""
    record = changes.read(repository, tag).record
    digest = ""
    if not record.mutable:
        links = chains.usable(repository, record)
        with leasing.take(context.doors, repository, [], [link.tag for link in links[1:]]):
            chains.unchanged(repository, links)
            digest = _computed(context, repository, record, links[0])

    def accepted(now: Record) -> Record:
        if now.volume != record.volume:
            raise StaleFix(f"image {tag} has other data now", "Check again")
        return now._replace(lost=(), digest=digest, digest_write_epoch=now.write_epoch)

    changes.change(repository, tag, accepted)


def record_digest(context: Context, repository: Repository, record: Record) -> str:
    """Compute and record the content digest of a snapshot under shared leases of its chain; return it. Damaged when it
    has one already and that is another."""
    tag = record.id
    if record.mutable:
        raise Refused(f"image {tag} is a virtual disk", "Only snapshots keep a digest: snapshot it first")
    links = chains.usable(repository, record, written=record.digest_is_valid)  # which is to be met
    if chains.lost(links):
        raise Refused(f"image {tag} has lost ranges", "A digest of the zeros in their place would hide that")
    with leasing.take(context.doors, repository, [], [link.tag for link in links]):
        chains.unchanged(repository, links)
        try:
            root = _computed(context, repository, record, links[0])
        finally:
            context.deactivate()

    def recorded(now: Record) -> Record | None:
        if now.volume != record.volume or now.write_epoch != record.write_epoch:
            return None
        return now._replace(digest=root, digest_write_epoch=now.write_epoch)

    changes.change(repository, tag, recorded)
    return root


def verify(context: Context, repository: Repository, tag: str) -> None:
    """Read an image whole, under shared leases of its chain, and hold it against its digest. Damaged when it is
    another; Refused when it has none, or was written to since."""
    record = changes.read(repository, tag).record
    if not record.digest_is_valid:
        raise Refused(f"image {tag} has no digest of what it contains now", "Compare it before it is written to")
    links = chains.usable(repository, record)
    with leasing.take(context.doors, repository, [], [link.tag for link in links]):
        chains.unchanged(repository, links)
        try:
            found = deep.compute(context, repository, record)
        finally:
            context.deactivate()
    if found.root() != record.digest:
        raise Damaged(f"image {tag} does not read as what was written to it", "Remove it, and look at the storage")


def _computed(context: Context, repository: Repository, record: Record, top: chains.Link) -> str:
    found = deep.compute(context, repository, record)
    if record.digest_is_valid and found.root() != record.digest:
        raise Damaged(f"image {record.id} does not have the content that its digest says", "Check it with --deep")
    repository.digests.write(top.volume.id, found.to_bytes())
    return found.root()
