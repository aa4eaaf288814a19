"""The deep look: reads the data. qemu-img check on each qcow2 layer, the size a fresh copy would
have, and the content digest of every snapshot that has one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from engine.copying import pump, ranges
from engine.data import digests
from engine.data.model import VolumeFormat, aligned
from engine.data.records import Record
from engine.doors.images import Chain, Extent, ImageTool, Session
from engine.errors import DiskwrightError, ReadFailed, ToolFailed, ToolMissing
from engine.formats.base import Repository
from engine.tags import chains
from engine.tags.context import Context
from engine.triage.view import Depths


def look_deep(context: Context, repository: Repository, record: Record, depths: Depths) -> None:
    """Add what a deep look at one whole tag finds. Never raises for a bad image."""
    try:
        links = chains.load(repository, record)
        top = links[0].volume
        if top.format is VolumeFormat.QCOW2 and top.id not in depths.checks:
            depths.checks[top.id] = context.doors.images.check(chains.layers(repository, links[:1])[0])
            if depths.checks[top.id].corruptions:
                return
        if record.mutable and top.parent:
            return  # neither a digest to hold it against, nor a size of its own
        found = compute(context, repository, record)
        if not top.parent:
            _measure(context, repository, record, links, found, depths)
        if record.digest_is_valid and not record.mutable:
            _verify(repository, record, found, depths)
    except ToolMissing:
        raise
    except ReadFailed as error:  # it proves nothing: a cable, a path, a drive that tries again
        depths.unreadable[record.id] = (error.message, *_where(context, repository, record, error))
        if repository.read_errors_count:
            depths.lost[record.id] = ()  # which ranges, a salvage finds out
    except DiskwrightError as error:  # a tool that could not start says nothing about the image
        depths.failed[record.id] = error.message


def _where(context: Context, repository: Repository, record: Record, error: ReadFailed) -> list[str]:
    """Return files and offsets of the blocks that cannot be read, of the range that ``error`` is about."""
    if not error.length:
        return []
    found: list[str] = []
    with contextlib.suppress(DiskwrightError):  # then the error itself has to do
        layers = chains.layers(repository, chains.load(repository, record))
        maps = [context.doors.images.map_layer(layer) for layer in layers]
        session = _open(context.doors.images, layers)
        try:
            for start, length, reason in _bad_blocks(session, error):
                path, offset = _in_file(layers, maps, start)
                found.append(f"{path}: {length} bytes at {offset}: {reason} (byte {start} of the image)")
        finally:
            session.close()
    return found


def _bad_blocks(session: Session, error: ReadFailed) -> Iterator[tuple[int, int, str]]:
    """Return (start, length, why) of each block of the range that cannot be read alone."""
    end = min(error.start + error.length, session.size)
    for start in range(error.start // digests.BLOCK_BYTES * digests.BLOCK_BYTES, end, digests.BLOCK_BYTES):
        length = min(digests.BLOCK_BYTES, session.size - start)
        try:
            session.read(start, length)
        except ReadFailed as again:
            yield start, length, again.reason


def _in_file(layers: Chain, maps: list[list[Extent]], start: int) -> tuple[str, int]:
    """Return the file that has this byte of the image, and where in it."""
    for layer, extents in zip(layers, maps, strict=True):
        for extent in extents:
            if extent.present and extent.start <= start < extent.start + extent.length:
                inside = start - extent.start
                return layer.path, inside + (extent.offset if extent.offset is not None else extent.start)
    return layers[0].path, start


def _measure(
    context: Context,
    repository: Repository,
    record: Record,
    links: list[chains.Link],
    found: digests.DigestList,
    depths: Depths,
) -> None:
    """Return what a fresh flat copy needs: what is allocated now, less the chunks that hold only zeros."""
    allocated = context.doors.images.required_bytes(chains.layers(repository, links), links[0].volume.format)
    chunks = found.to_bytes()
    step = digests.DIGEST_BYTES
    data = sum(chunks[at : at + step] != digests.ZERO_CHUNK for at in range(0, len(chunks), step))
    depths.required[record.id] = min(allocated, data * digests.CHUNK_BYTES)


def _verify(repository: Repository, record: Record, found: digests.DigestList, depths: Depths) -> None:
    if found.root() == record.digest:
        return
    depths.wrong[record.id] = "its content is not what its digest says"
    assert record.volume is not None
    size = aligned(record.size)
    known = digests.proven(repository.digests.read(record.volume.id), size, record.digest)
    if known is None:
        return
    bad = [
        (index * digests.CHUNK_BYTES, min(digests.CHUNK_BYTES, size - index * digests.CHUNK_BYTES))
        for index in range(digests.chunk_count(size))
        if known.get(index) != found.get(index)
    ]
    depths.lost[record.id] = tuple(ranges.exact(bad))


def compute(
    context: Context, repository: Repository, record: Record, checkpoint: pump.Checkpoint | None = None
) -> digests.DigestList:
    """Return the chunk digests of an image, of which everything is read."""
    size = aligned(record.size)
    chain = chains.layers(repository, chains.load(repository, record))
    wanted = ranges.merged(ranges.data_ranges(context.doors.images.map_chain(chain)), size)
    session = _open(context.doors.images, chain)
    try:
        return pump.digest_of(session, wanted, size, checkpoint)
    finally:
        session.close()


def _open(images: ImageTool, chain: Chain) -> Session:
    """Open the image past the page cache where that works, to see what is on the disk. It is simply tried: to ask the
    repository for its constraints would write a file into it, and a check writes nothing."""
    try:
        return images.open_session(chain, writable=False, direct=True)
    except ToolFailed:
        return images.open_session(chain, writable=False, direct=False)
