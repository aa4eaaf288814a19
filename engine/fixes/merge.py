"""Merge hidden data with its only dependant: down or up, in place, or into a fresh volume; one layer or a whole run.

The order of writes; each step is durable before the next one begins, and after a crash the same rule goes on:

1. *Down* only: the lower record is reserved (``absorbed_by``), since its content will not be what it was.
2. The upper record names the operation and pins both volumes; for *fresh* it names the volume to come, too.
3. Data. *Down*: what the upper layer holds, into the lower volume. *Up*: what shows through the upper layer, into it.
   *Fresh*: the layers of both, into the new volume.
4. The seal: the upper record points to the merged volume. Until here the image reads through both layers.
5. What is left over goes. *Down*: the upper volume, then the lower record. *Up*: the header is rewritten, and the lower
   image is hidden data that nothing needs. *Fresh*: the upper volume.

In place is safe because the writer is fenced: the leases of both tags are held, and qemu's own lock on the file keeps
every other qemu out. *Down* changes nothing that is seen, because the upper layer hides every range that is being
copied; *up* adds only what shows through anyway. *Fresh* is for a storage on which what a writer had under way may
arrive after it has lost its lease: no volume that an image has is written. Beside a running machine it is *up*, and the
machine does step 3, and rewrites the header.

A tag is in one merge at a time: two merges of one chain that overlap would leave the image on top with a base that
belongs to another. A merge has begun when the upper record names it (step 2); what was reserved for one that never
began is void for whoever holds the leases. The upper record names the tag below both, too: it becomes a dependant of
that one before it stands on it, so that nobody who looks at dependants meanwhile gives it away.

A *run* of layers, each of which has the one above it as its only dependant, is merged *fresh* at once: the image is
filled into one volume on what is below the run, sealed by one record, and stands on none of the layers from then on.
Nothing that any record has as its data is written, so each of them reads as it did, whatever is killed, restored or
based on it meanwhile. Then the layers are cleaned away one by one from the top, each as if that were asked for by
itself; one that somebody needs again stays, with all below it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.copying import ranges
from engine.data.records import Operation, Record, VolumeRef
from engine.doors.images import Layer
from engine.errors import Refused, StaleFix, Stopped
from engine.fixes import clean, fill
from engine.fixes.dependants import of, settle
from engine.formats.base import Repository
from engine.gate import gate
from engine.gate.gate import Purpose
from engine.tags import chains, changes, lengths, target
from engine.tags.attempt import Attempt
from engine.tags.context import Context
from engine.triage.offers.merging import one_of_a_run

_STAGES = ("reserve", "copy data", "replace", "clean")


def merge(context: Context, repository: Repository, below: str, above: str, direction: str) -> None:
    """Merge the weak tag ``below`` into ``above`` (``direction``: down, up, fresh). The caller holds both leases.

    StaleFix when ``below`` is not hidden data any more, or has other dependants than ``above``."""
    with Attempt(context, repository, above, "merge", _STAGES) as attempt:
        absorber = _only_dependant(repository, below, above)
        _nobody_uses(repository, below, above)
        if direction == "down":
            _reserve(repository, below, above)
        lower = changes.read(repository, below).record
        record = attempt.claim(lambda record: _merging(context, record, lower, direction, absorber, _base(lower)))
        _void_reservation(repository, lower)
        assert record.volume is not None and lower.volume is not None
        attempt.stage("copy data")
        if direction == "down":
            _down(attempt, record, record.volume, lower, lower.volume)
        elif direction == "fresh":
            _fresh(attempt, record, record.volume, lower, 2)
        else:
            _up(attempt, record, record.volume, lower, lower.volume)


def merge_run(
    context: Context, repository: Repository, above: str, below: Sequence[str], base: str, absorbing: bool
) -> None:
    """Merge the weak tags ``below``, which stand on each other from the top down and on ``base`` ("" for nothing), into
    ``above`` in one pass, and clean them away. ``absorbing``: then merge what ``base`` holds with that, down. The
    caller holds the leases of all of them, that of ``base`` only where it is ``absorbing``.

    StaleFix when the chain of ``above`` is another one by now, or a layer is not hidden data any more."""
    with Attempt(context, repository, above, "merge", _STAGES) as attempt:
        uppermost = _run(repository, above, below, base)
        record = attempt.claim(lambda record: _merging(context, record, uppermost, "fresh", "", base))
        assert record.volume is not None
        attempt.stage("copy data")
        _fresh(attempt, record, record.volume, uppermost, 1 + len(below))
    for tag in below:
        if context.stopping():
            raise Stopped(f"the merge into image {above} was stopped by the operator; it has the data of all layers")
        try:
            clean.tag(context, repository, tag)
        except StaleFix:
            return  # somebody wants it back, or based something on it: with all below it, it stays
    if absorbing:
        merge(context, repository, base, above, "down")


def _run(repository: Repository, above: str, below: Sequence[str], base: str) -> Record:
    """Return the uppermost of the layers, whose chain is as it was planned and as the records say."""
    links = chains.usable(repository, changes.read(repository, above).record)
    layers, rest = links[1 : 1 + len(below)], links[1 + len(below) :]
    if [link.tag for link in layers] != list(below) or (rest[0].tag if rest else "") != base:
        raise StaleFix(f"image {above} stands on other layers now", "Check again")
    for layer in layers:
        if not one_of_a_run(layer.record):
            raise StaleFix(
                f"image {layer.tag} is not hidden data that only holds another one up any more", "Check again"
            )
    return layers[0].record


def _base(lower: Record) -> str:
    return lower.volume.parent if lower.volume is not None else ""


def beside_machine(
    context: Context, repository: Repository, below: str, above: str, pull: Callable[[Attempt], None]
) -> None:
    """Merge the weak tag ``below`` up into ``above``, a disk whose machine runs, or a layer further down: ``pull`` has
    it do that, and returns when that is durable and ``below`` is read no more. The caller holds both leases.

    The guest never writes anywhere else, and reads the same throughout, so whoever dies: it reads right through both
    layers as long as the record says so, and through the upper one once that is durable. StaleFix as ``merge``."""
    with Attempt(context, repository, above, "merge", _STAGES, session=True) as attempt:
        absorber = _only_dependant(repository, below, above)
        lower = changes.read(repository, below).record
        if lower.lost:
            raise Refused(f"image {below} has lost ranges", "Stop the machine and tear the disk down first")
        record = attempt.claim(lambda record: _merging(context, record, lower, "up", absorber, _base(lower)))
        _void_reservation(repository, lower)
        top, bottom = record.volume, lower.volume
        assert top is not None and bottom is not None
        attempt.stage("copy data")
        pull(attempt)
        attempt.stage("replace")
        merged = top._replace(parent=bottom.parent)
        attempt.publish(lambda record: record._replace(volume=merged, operation=None))
        attempt.finish(lambda record: record)


def _nobody_uses(repository: Repository, *tags: str) -> None:
    """What a machine reads or writes is not moved under it, whoever holds its lease."""
    for tag in tags:
        record = changes.read(repository, tag).record
        if record.volume is not None:
            chains.as_recorded(repository, record, record.volume)
            gate.require(repository, tag, record.volume, Purpose.REWRITE)


def _only_dependant(repository: Repository, below: str, above: str) -> str:
    """Return the tag that ``above`` was reserved for, by a merge that never began; "" for none."""
    lower, upper = (changes.read(repository, tag).record for tag in (below, above))
    if lower.strong or lower.purging or not lower.whole:
        raise StaleFix(f"image {below} is not hidden data any more", "Check again")
    _in_no_other_merge(lower, above)
    entry = repository.tags.read(upper.absorber) if upper.absorber else None
    absorber = entry.record if entry is not None else None
    if absorber is not None and absorber.merges(above):
        raise StaleFix(f"image {above} is being merged into {absorber.id}", "Finish that merge first")
    dependants = of(repository.tags.users(below), lower)
    if dependants != [above]:
        raise StaleFix(f"{len(dependants)} images depend on {below} now", "Check again")
    return upper.absorber


def _in_no_other_merge(lower: Record, above: str) -> None:
    if lower.merging or lower.absorber not in ("", above):
        raise StaleFix(f"image {lower.id} is in another unfinished merge", "Check again, and finish that merge first")


def _void_reservation(repository: Repository, lower: Record) -> None:
    """Give the tag below both back to its readers, if it was reserved for a merge into ``lower`` that never began."""
    assert lower.volume is not None
    if lower.volume.parent:
        own = (lower.volume.parent, lower.id)
        changes.change(
            repository,
            lower.volume.parent,
            lambda record: record._replace(absorbed_by="") if record.absorbed_by in own else None,
        )


def _reserve(repository: Repository, below: str, above: str) -> None:
    """Mark ``below`` so that nobody can restore it or base anything on it any more.

    In two steps: whoever came between our looks at its dependants must still be able to read it, also after a crash."""

    def reserved(record: Record) -> Record | None:
        if record.strong or record.purging or record.absorbed_by not in ("", below, above):
            raise StaleFix(f"image {below} is not free to be merged any more", "Check again")
        _in_no_other_merge(record, above)
        return None if record.absorbed_by else record._replace(absorbed_by=below)

    def absorbed(record: Record) -> Record | None:
        if record.strong or record.absorbed_by not in (below, above):
            raise StaleFix(f"image {below} is not free to be merged any more", "Check again")
        _in_no_other_merge(record, above)
        return record._replace(absorbed_by=above)

    lower = changes.change(repository, below, reserved)
    users = repository.tags.users(below)
    if of(users, lower) != [above]:
        changes.change(repository, below, lambda record: None if record.absorber else record._replace(absorbed_by=""))
        raise StaleFix(f"another image depends on {below} now", "Check again")
    settle(repository, below, users)  # who does not depend on it any more might do so again after a loss of power
    changes.change(repository, below, absorbed)


def _merging(context: Context, record: Record, lower: Record, direction: str, absorber: str, base: str) -> Record:
    """Return the record of the upper tag as it names the merge; ``base``: what it stands on when that has ended."""
    operation = record.operation
    if record.volume is None or record.volume.parent != lower.id or lower.volume is None:
        raise StaleFix(f"image {record.id} is not based on {lower.id} any more", "Check again")
    if operation is not None and (operation.verb, operation.other) != ("merge", lower.id):
        raise StaleFix(f"image {record.id} has an unfinished {operation.verb}", "Finish that first")
    if record.absorber != absorber:
        raise StaleFix(f"image {record.id} is being merged into {record.absorber}", "Finish that merge first")
    fresh = Operation(
        "merge",
        base=base,
        other=lower.id,
        direction=direction,
        source_write_epoch=record.write_epoch,
        pinned=(record.volume.id, lower.volume.id),
    )
    scrap = record.scrap
    if operation is not None:
        if operation._replace(cursor=0, attempt=None) == fresh:
            return record  # the same volumes, unwritten since: it goes on at its cursor
        scrap += (operation.attempt,) if operation.attempt is not None else ()
    if direction == "fresh":
        volume = VolumeRef(context.doors.ids.new_id(), record.volume.format, base)
        fresh = fresh._replace(attempt=volume)
    # Who reserved it as a lower one had its lease, which the caller holds now.
    return record._replace(operation=fresh, scrap=scrap, absorbed_by="")


def _down(attempt: Attempt, record: Record, top: VolumeRef, lower: Record, bottom: VolumeRef) -> None:
    repository, images = attempt.repository, attempt.context.doors.images
    lengths.grow(attempt.context, repository, lower.id, bottom, record.size)
    chain = _chain(repository, lower, record.id)
    upper = gate.open_layer(repository, record.id, top, Purpose.REPLACE)
    wanted = ranges.present_ranges(images.map_layer(upper))
    # The upper layer alone: every wanted range is in it, and the lower one is open for writing.
    fill.copy_into(attempt, [upper], wanted, chain)
    attempt.stage("replace")
    gate.require(repository, record.id, top, Purpose.REPLACE)  # a machine that came meanwhile would write to no image

    def replaced(record: Record) -> Record:
        lost = _lost(record, lower, wanted)
        return record._replace(volume=bottom, operation=None, scrap=(*record.scrap, top), lost=lost)

    record = attempt.publish(replaced)
    attempt.stage("clean")
    target.drop_scrap(attempt, record)
    _purge_absorbed(repository, lower, attempt.tag)
    attempt.finish(lambda record: record)


def _purge_absorbed(repository: Repository, lower: Record, above: str) -> None:
    """Delete the lower tag's record alone: its volume belongs to the upper image now."""

    def purging(record: Record) -> Record | None:
        if record.absorbed_by != above:
            raise StaleFix(f"image {lower.id} is not absorbed by {above}", "Check again")
        return None if record.purging else record._replace(purging=True)

    if of(repository.tags.users(lower.id), lower):
        return  # somebody bases something on it at this moment; check says what becomes of it
    changes.change(repository, lower.id, purging)
    clean.delete(repository, lower.id, changes.read(repository, lower.id))


def _up(attempt: Attempt, record: Record, top: VolumeRef, lower: Record, bottom: VolumeRef) -> None:
    repository, images = attempt.repository, attempt.context.doors.images
    if repository.extents is not None:
        repository.extents.make_room(top, record.size)
    below = _chain(repository, lower, record.id)
    upper = gate.open_layer(repository, record.id, top, Purpose.REWRITE)
    gate.settle(attempt.context.doors, upper)
    mine = ranges.exact(ranges.present_ranges(images.map_layer(upper)))
    theirs = ranges.exact(ranges.present_ranges(images.map_layer(below[0])))
    fill.copy_into(attempt, below, ranges.subtract(theirs, mine), [upper, *below])
    attempt.stage("replace")
    merged = top._replace(parent=bottom.parent)
    lost = _lost(record, lower, mine)
    attempt.publish(lambda record: record._replace(volume=merged, operation=None, lost=lost))
    attempt.stage("clean")
    chains.rewrite_header(attempt.context.doors.images, repository, record.id, merged)
    attempt.finish(lambda record: record)


def _fresh(attempt: Attempt, record: Record, top: VolumeRef, lower: Record, depth: int) -> None:
    """Merge the uppermost ``depth`` layers. Change nothing but the volume that the operation names; where nothing
    stands below, copy all of it."""
    repository, images = attempt.repository, attempt.context.doors.images
    links = chains.load(repository, record)
    filled = target.ready(attempt, record)
    upper = gate.open_layer(repository, record.id, top, Purpose.REPLACE)
    mine = ranges.present_ranges(images.map_layer(upper))
    if not filled.parent:
        fill.copy_all(attempt, fill.reading(repository, record, links), fill.Filling(filled, None))
    else:
        layers = chains.layers(repository, links)
        fill.copy_into(
            attempt,
            layers[:depth],
            ranges.present_ranges(images.map_chain(layers[:depth])),
            [gate.open_layer(repository, record.id, filled, Purpose.FILL), *layers[depth:]],
        )
    attempt.stage("replace")
    gate.require(repository, record.id, top, Purpose.REPLACE)  # as in ``_down``
    lost = _lost(record, lower, mine)
    replaced = attempt.publish(
        lambda record: record._replace(volume=filled, operation=None, scrap=(*record.scrap, top), lost=lost)
    )
    attempt.stage("clean")
    target.drop_scrap(attempt, replaced)
    attempt.finish(lambda record: record)


def _lost(record: Record, lower: Record, hidden: list[ranges.Range]) -> tuple[ranges.Range, ...]:
    """Return what the upper image has lost, and what the lower one has where the upper layer does not hide it."""
    shown = ranges.subtract(ranges.exact(lower.lost), ranges.exact(hidden))
    return tuple(ranges.exact([*record.lost, *shown]))


def _chain(repository: Repository, record: Record, reader: str) -> list[Layer]:
    return chains.layers(repository, chains.load(repository, record, reader))
