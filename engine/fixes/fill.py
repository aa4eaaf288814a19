"""Filling a volume with an image's data: one fenced session per attempt, resumed at a cursor.

A digest is of what was hashed in this attempt. What an attempt before had stored of its digests is only compared with:
it tells whether what is in the volume is still what was read then.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from engine.copying import image_file, pump, ranges
from engine.copying.pace import Pace
from engine.data.digests import DigestList, proven
from engine.data.model import VolumeFormat, aligned
from engine.data.records import Record, VolumeRef
from engine.doors.files import FileHandle
from engine.doors.images import ImageTool, Layer, Session
from engine.errors import DiskwrightError, ReadFailed
from engine.formats.base import Repository
from engine.gate import gate
from engine.gate.gate import Purpose
from engine.tags import chains, target
from engine.tags.attempt import Attempt


class Reading(NamedTuple):
    """What to read: layers of an image with what is known of its content."""

    layers: list[Layer]
    size: int
    """Exact logical size."""
    direct: bool
    digest: str = ""
    """Known digest of the whole content, "" for none."""
    chunks: bytes | None = None
    """Known chunk digests of the content, None when there are none."""
    ours: bool = True
    """Volumes of a repository, which diskwright wrote. A stranger's qcow2 never becomes a volume as it is: what its
    tables say beyond its content would be believed."""
    handle: FileHandle | None = None
    """A user's file as it is held open: its name may mean another by now."""


class Filling(NamedTuple):
    """A volume that is there to be filled from the attempt's cursor on."""

    volume: VolumeRef
    digests: DigestList | None
    """Hashed in this attempt: those of all chunks below the cursor. None when no digest is wanted."""


def ready(attempt: Attempt, record: Record, want_digest: bool) -> Filling:
    """Return the volume that the operation of ``record`` names, made where it was not (``target.ready``).

    Where a digest is wanted, what an attempt before has copied is read and hashed again. If it is not what was copied,
    a fresh volume is filled from 0: either the volume or the list that was kept beside it has been damaged, and neither
    is believed."""
    volume = target.ready(attempt, record)
    if not want_digest:
        return Filling(volume, None)
    size = aligned(record.size)
    if attempt.cursor == 0:
        return Filling(volume, DigestList(size))
    found = _hashed_again(attempt, volume, size)
    if found is not None:
        return Filling(volume, found)
    record = target.from_the_start(attempt, "what was copied before is not as it was read", lambda now: now)
    return Filling(target.ready(attempt, record), DigestList(size))


def _hashed_again(attempt: Attempt, volume: VolumeRef, size: int) -> DigestList | None:
    """Return the digests of what is below the cursor in the volume; None when those of the attempt before are others,
    or it cannot be read. Where none were kept there is nothing to compare with."""
    images = attempt.context.doors.images
    layers = [gate.open_layer(attempt.repository, attempt.tag, volume, Purpose.FILL)]
    below = min(attempt.cursor, size)
    wanted = ranges.merged(ranges.data_ranges(images.map_chain(layers)), below)
    session = images.open_session(layers, False, attempt.repository.constraints().direct_io)
    try:
        found = pump.digest_of(session, wanted, size, lambda cursor, percent: attempt.check())
    except ReadFailed:
        return None
    finally:
        session.close()
    hashed, stored = found.upto(attempt.cursor), attempt.repository.digests.read(volume.id)
    return found if stored is None or stored[: len(hashed)] == hashed else None


def reading(repository: Repository, record: Record, links: list[chains.Link]) -> Reading:
    """Return how to read an image of a repository."""
    digest = record.digest if record.digest_is_valid else ""
    known = proven(repository.digests.read(links[0].volume.id), aligned(record.size), digest) if digest else None
    chunks = known.to_bytes() if known else None
    return Reading(chains.layers(repository, links), record.size, repository.constraints().direct_io, digest, chunks)


def copy_all(attempt: Attempt, source: Reading, filling: Filling, prove: bool = False) -> str:
    """Fill a flat volume with all of ``source`` from the attempt's cursor on.

    A raw device, by whomever it was made, may show anything from there on: each byte of it is written or zeroed,
    also behind the end of a shorter source. Returns the content digest, "" when none was asked for or known. With
    ``prove`` it is computed from what was read and never taken from the source's record. The data is durable on
    return.
    """
    size = aligned(source.size)
    volume, known = filling
    layer = gate.open_layer(attempt.repository, attempt.tag, volume, Purpose.FILL)
    if attempt.cursor == 0 and not prove and _reflink(attempt, source, layer):
        attempt.checkpoint(size, 100)
        if source.digest and source.chunks:
            attempt.repository.digests.write(volume.id, source.chunks)
        return source.digest
    images = attempt.context.doors.images
    with contextlib.ExitStack() as stack:
        read = _open(stack, images.open_session(source.layers, False, source.direct, later=True))
        write = _open(stack, images.open_session([layer], True, attempt.repository.constraints().direct_io))
        attempt.check()  # opened, locked, and only then verified: a stale executor cannot write through this
        wanted = ranges.merged(_data(images, source, read.size), min(read.size, size))
        zeroed_to = write.size if layer.device and layer.format is VolumeFormat.RAW else 0
        job = pump.Job(read, write, wanted, size, blank=not zeroed_to, zeroed_to=zeroed_to, digests=known)
        _timed_run(attempt, job, volume.id)
    if known is None:
        return ""
    attempt.repository.digests.write(volume.id, known.to_bytes())
    return known.root()


def copy_difference(
    attempt: Attempt, source: Reading, source_links: list[chains.Link], base_links: list[chains.Link], target: VolumeRef
) -> None:
    """Fill the overlay ``target`` with what differs between ``source`` and the image below it.

    Only what can differ is read: with a common ancestor, what the layers above it hold on both
    sides; without one, all data of both. Durable on return.
    """
    repository, images = attempt.repository, attempt.context.doors.images
    base = base_links[0].record
    base_layers = chains.layers(repository, base_links)
    size = aligned(source.size)
    wanted, shared = _difference_ranges(attempt, source, source_links, base_links, base_layers)
    direct = repository.constraints().direct_io
    known = None
    if not shared and base.digest_is_valid:
        known = proven(repository.digests.read(base_links[0].volume.id), aligned(base.size), base.digest)
    with contextlib.ExitStack() as stack:
        read = _open(stack, images.open_session(source.layers, False, source.direct, later=True))
        below = _open(stack, images.open_session(base_layers, False, direct, later=True))
        filled = gate.open_layer(repository, attempt.tag, target, Purpose.FILL)
        write = _open(stack, images.open_session([filled, *base_layers], True, direct))
        attempt.check()
        job = pump.Job(
            read,
            write,
            ranges.merged(wanted, min(read.size, size)),
            size,
            blank=False,
            compare=below,
            compare_size=below.size,
            compare_digests=known,
        )
        _timed_run(attempt, job, "")


def copy_into(attempt: Attempt, source: list[Layer], wanted: list[ranges.Range], target: list[Layer]) -> None:
    """Write ``wanted`` ranges of ``source`` into the top of the chain ``target``, zeros included."""
    images = attempt.context.doors.images
    direct = attempt.repository.constraints().direct_io
    with contextlib.ExitStack() as stack:
        read = _open(stack, images.open_session(source, False, direct, later=True))
        write = _open(stack, images.open_session(target, True, direct))
        attempt.check()
        job = pump.Job(read, write, ranges.exact(wanted), read.size, blank=False)
        _timed_run(attempt, job, "")


def _open(stack: contextlib.ExitStack, session: Session) -> Session:
    stack.callback(session.close)
    return session


def _timed_run(attempt: Attempt, job: pump.Job, volume: str) -> None:
    clock = attempt.context.doors.clock

    def checkpoint(cursor: int, percent: int) -> None:
        if job.digests is not None:
            attempt.repository.digests.write(volume, job.digests.upto(cursor))
        attempt.checkpoint(cursor, percent)

    start, pace = clock.monotonic(), Pace(clock, attempt.context.rate, attempt.check)
    moved = pump.run(job, attempt.cursor, checkpoint, clock.monotonic, pace)
    if pace.waited:
        return  # it could do more
    with contextlib.suppress(DiskwrightError):  # a note of this host only
        attempt.context.report_throughput(attempt.repository.identity, moved, clock.monotonic() - start)


def _data(images: ImageTool, source: Reading, size: int) -> list[ranges.Range]:
    """Return what must be read to know the content: of a stranger's file all of it where it has too many ranges."""
    if source.ours:
        return ranges.data_ranges(images.map_chain(source.layers))
    found = image_file.data_ranges(images, source.layers[0])
    return [(0, size)] if found is None else found


def _reflink(attempt: Attempt, source: Reading, target: Layer) -> bool:
    if len(source.layers) != 1 or source.layers[0].format is not target.format:
        return False
    if not source.ours and target.format is not VolumeFormat.RAW:
        return False
    if (
        source.layers[0].packing
        or source.layers[0].device
        or target.device
        or not attempt.repository.constraints().reflink
    ):
        return False
    files = attempt.context.doors.files
    try:
        with contextlib.ExitStack() as stack:
            read = source.handle or stack.enter_context(files.open(source.layers[0].path))
            write = stack.enter_context(files.open(target.path, writable=True))
            if not write.lock():  # before the check: who loses its place after it, loses the lock too
                return False
            attempt.check()
            if read.stat().size < write.stat().size or not files.clone(read, write):
                return False
            write.sync()
    except OSError:
        return False  # an optimisation only: the copy says what is wrong if something is
    return True


def _same_below(ours: list[chains.Link], theirs: list[chains.Link]) -> bool:
    """Tell whether two chains show the same image from here down without looking: the same snapshot, with nothing lost
    in either and no digest that says otherwise."""
    one, other = ours[0].record, theirs[0].record
    if one.mutable or other.mutable or chains.lost(ours) or chains.lost(theirs):
        return False
    return not (one.digest and other.digest and one.digest != other.digest)


def _difference_ranges(
    attempt: Attempt,
    source: Reading,
    source_links: list[chains.Link],
    base_links: list[chains.Link],
    base_layers: list[Layer],
) -> tuple[list[ranges.Range], bool]:
    images = attempt.context.doors.images
    tail = [(base_links[0].record.size, source.size - base_links[0].record.size)]
    at = {link.tag: index for index, link in enumerate(base_links)}
    for index, link in enumerate(source_links):
        if link.tag in at and _same_below(source_links[index:], base_links[at[link.tag] :]):
            above = [*source.layers[:index], *base_layers[: at[link.tag]]]
            found = [part for layer in above for part in ranges.present_ranges(images.map_layer(layer))]
            return found + tail, True
    both = ranges.data_ranges(images.map_chain(source.layers)) + ranges.data_ranges(images.map_chain(base_layers))
    return both + tail, False
