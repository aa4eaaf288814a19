"""export_image: an image as a file of its own, with its exact original length.

The file appears under its name only when it is complete and durable. Until then it has a name beside it that nobody
else uses, ``NAME.<32 hex>.partial``, and is gone when the export fails. Only a crash leaves it; the next export of that
name removes what is not in use.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from engine.copying import pump, ranges
from engine.copying.pace import Pace
from engine.data.model import ALIGNMENT_BYTES, FileFormat, VolumeFormat, aligned, require_path
from engine.data.records import Record
from engine.doors.files import FileHandle, Kind
from engine.doors.images import Data, Layer
from engine.errors import BadRequest, Conflict, NotFound, Stopped, from_os_error
from engine.tags import chains, leasing
from engine.tags.context import Context
from engine.tools.qemu.qcow2 import fresh_image

SECTOR_BYTES = 512

FORMATS: dict[str, tuple[VolumeFormat | FileFormat, bool]] = {
    **{str(format): (format, False) for format in (*VolumeFormat, *FileFormat)},
    "qcow2-zstd": (VolumeFormat.QCOW2, True),
}
"""By name: the format, and whether what is written is compressed."""

_STEP_BYTES = 2 << 20
_NAME_KEPT_BYTES = 200
"""Of the name of the file, so that there is room for what is added to it."""
_OURS = re.compile(r"\.[0-9a-f]{32}\.partial")


class Readable(NamedTuple):
    """What an image is read by, as long as its leases are held."""

    layers: list[Layer]
    direct: bool
    """They are read past the cache of the host."""
    size: int


def export(
    context: Context,
    source: contextlib.AbstractContextManager[Readable],
    path: str,
    format: str,
    progress: Callable[[int], None],
    rate: Callable[[], int],
) -> None:
    """Write an image to ``path`` (which must not exist) in ``format``; returns when it is durable. ``rate``: as
    ``Context.rate``.

    The file has the image's exact length, and more where a machine, which sees the size rounded up, wrote behind it."""
    if format not in FORMATS:
        raise BadRequest(f"image format {format!r:.40} is unknown", f"Use one of {', '.join(FORMATS)}")
    kind, compressed = FORMATS[format]
    require_path(path)
    try:
        target = _target(context, path)
        with source as (layers, direct, size):
            length = _length(context, layers, direct, size)
            with _partial(context, target) as (partial, handle):
                layer = Layer(partial, kind, compressed=compressed, held=handle.held_path())
                _make_empty(context, layer, handle, length)
                _fill(context, layers, direct, layer, progress, Pace(context.doors.clock, rate, _going_on(context)))
                if kind is VolumeFormat.RAW:
                    handle.truncate(length)
                handle.sync()
                _publish(context, handle, partial, target)
            context.doors.files.sync_directory(target.rpartition("/")[0] or "/")
    except FileExistsError:
        raise Conflict(f"there is a file {path!r:.200} already", "Choose another name or remove it") from None
    except OSError as error:
        raise from_os_error(error, f"export to {path!r:.200}") from error


def stream(
    context: Context,
    source: contextlib.AbstractContextManager[Readable],
    write: Callable[[Data], None],
    rate: Callable[[], int],
) -> None:
    """Give ``write`` all bytes of an image in order, raw, with its exact length; its errors pass."""
    go_on = _going_on(context)
    pace = Pace(context.doors.clock, rate, go_on)
    with source as (layers, direct, size):
        left = _length(context, layers, direct, size)
        session = context.doors.images.open_session(layers, False, direct)
        try:
            steps = ((at, min(_STEP_BYTES, session.size - at)) for at in range(0, session.size, _STEP_BYTES))
            for _, data in session.stream(steps):
                write(memoryview(data)[:left])
                left -= min(left, len(data))
                pace.moved(len(data))
                go_on()
        finally:
            session.close()


def _going_on(context: Context) -> Callable[[], None]:
    """Return what raises Stopped once the export is to stop."""

    def check() -> None:
        if context.stopping():
            raise Stopped("the export was stopped", "Run it again; it starts over")

    return check


@contextlib.contextmanager
def reading(context: Context, repo_id: str, record: Record) -> Iterator[Readable]:
    """Yield what the image of ``record`` is read by; nobody changes that until the end of the block."""
    repository = context.repository(repo_id)
    links = chains.usable(repository, record, written=True)
    with leasing.take_to_read(context.doors, repository, {link.tag: link.volume for link in links}):
        try:
            chains.unchanged(repository, links)
            yield Readable(chains.layers(repository, links), repository.constraints().direct_io, record.size)
        finally:
            context.deactivate()


def _length(context: Context, layers: list[Layer], direct: bool, size: int) -> int:
    """Return the bytes to be written: ``size``, or up to the last byte behind it that is not zero."""
    behind = aligned(size) - size
    if not behind:
        return size
    session = context.doors.images.open_session(layers, False, direct)
    try:
        end = aligned(size) - ALIGNMENT_BYTES
        last = session.read(end, ALIGNMENT_BYTES) if session.size >= aligned(size) else b""
    finally:
        session.close()
    return max(size, end + len(last.rstrip(b"\0")))


def _target(context: Context, path: str) -> str:
    """Return the path to be made, with the links to its directory followed. NotFound: no directory. FileExistsError."""
    files = context.doors.files
    directory, _, name = path.rpartition("/")
    resolved = files.resolve(directory or "/")
    try:
        kind = files.stat(resolved).kind
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"there is no directory {directory!r:.200}", "Make it first, or give another path") from None
    if kind is not Kind.DIRECTORY:
        raise NotFound(f"{directory!r:.200} is not a directory", "Give another path")
    target = f"{resolved.removesuffix('/')}/{name}"
    with contextlib.suppress(FileNotFoundError):
        files.stat(target)
        raise FileExistsError
    return target


def _publish(context: Context, handle: FileHandle, partial: str, target: str) -> None:
    """Give the file its name. Conflict where another export to that name took it for a leftover in the moment in which
    no session had it open, or where something else has the name that it has until then. FileExistsError."""
    files = context.doors.files
    try:
        if (found := files.stat(partial)).inode != handle.stat().inode or found.kind is not Kind.FILE:
            raise Conflict(f"something else took the place of {partial!r:.200}", "Export to a directory of your own")
        files.link(partial, target)
    except FileNotFoundError:
        raise Conflict(
            f"another export to {target!r:.200} began meanwhile", "Wait for that one, or choose another name"
        ) from None


@contextlib.contextmanager
def _partial(context: Context, target: str) -> Iterator[tuple[str, FileHandle]]:
    """Make an empty file beside ``target`` under a name that nobody else uses; it is gone at the end, however that
    comes. What killed exports of that target left goes first."""
    files = context.doors.files
    directory, _, name = target.rpartition("/")
    name = name.encode()[:_NAME_KEPT_BYTES].decode(errors="ignore")
    with contextlib.suppress(OSError):  # of no use but for the room
        for entry in files.list_directory(directory or "/"):
            found = f"{directory}/{entry.name}"
            ours = entry.name.startswith(f"{name}.") and _OURS.fullmatch(entry.name, len(name))
            if ours and not files.users(found):
                files.unlink(found)
    partial = f"{directory}/{name}.{context.doors.ids.new_id()}.partial"
    with files.create(partial) as handle:
        try:
            yield partial, handle
        finally:
            with contextlib.suppress(OSError):
                files.unlink(partial)


def _make_empty(context: Context, layer: Layer, handle: FileHandle, size: int) -> None:
    """Make the file an image that reads as zeros."""
    if layer.format is VolumeFormat.RAW:
        handle.truncate(aligned(size))
        return
    rounded = -(-size // SECTOR_BYTES) * SECTOR_BYTES
    if layer.compressed or layer.format is not VolumeFormat.QCOW2:
        context.doors.images.lay_out(layer, rounded)
        return
    fresh = fresh_image(rounded, None, None)
    for offset, data in fresh.pieces:
        handle.write_at(offset, data)
    handle.truncate(fresh.length)


def _fill(
    context: Context, layers: list[Layer], direct: bool, target: Layer, progress: Callable[[int], None], pace: Pace
) -> None:
    images, go_on = context.doors.images, _going_on(context)

    def checkpoint(cursor: int, percent: int) -> None:
        progress(percent)
        go_on()

    with contextlib.ExitStack() as stack:
        source = images.open_session(layers, False, direct, later=True)
        stack.callback(source.close)
        sink = images.open_session([target], True, False)
        stack.callback(sink.close)
        wanted = ranges.merged(ranges.data_ranges(images.map_chain(layers)), min(source.size, sink.size))
        job = pump.Job(source, sink, wanted, sink.size, blank=True)
        pump.run(job, 0, checkpoint, context.doors.clock.monotonic, pace)
