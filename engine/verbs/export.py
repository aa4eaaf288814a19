"""export_image: an image as a file of its own, with its exact original length.

The file appears under its name only when it is complete and durable; a crash leaves a
``.partial`` file beside it, which the next export of that name replaces.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from engine.copying import pump, ranges
from engine.data.model import VolumeFormat, aligned, require_path
from engine.doors.files import FileHandle
from engine.doors.images import Layer
from engine.errors import BadRequest, Conflict, Stopped, from_os_error
from engine.tags import chains, leasing
from engine.tags.context import Context
from engine.tools.qemu.qcow2 import fresh_image

SECTOR_BYTES = 512


def export(
    context: Context,
    repo_id: str,
    image: str,
    path: str,
    format: str,
    progress: Callable[[int], None] = lambda percent: None,
) -> None:
    """Write the image to ``path`` (which must not exist) in ``format``; returns when it is durable."""
    if format not in list(VolumeFormat):
        raise BadRequest(f"image format {format!r:.40} is unknown", "Use raw or qcow2")
    require_path(path)
    repository = context.repository(repo_id)
    record = context.visible(repo_id, image)
    links = chains.usable(repository, record)
    with leasing.take(context.doors, repository, [], [link.tag for link in links]):
        chains.unchanged(repository, links)
        layers, direct = chains.layers(repository, links), repository.constraints().direct_io
        partial = f"{path}.partial"
        try:
            _refuse_existing(context, path)
            with _created(context, partial, VolumeFormat(format), record.size) as handle:
                _fill(context, layers, direct, Layer(partial, VolumeFormat(format)), progress)
                if format == VolumeFormat.RAW:
                    handle.truncate(record.size)
                handle.sync()
                _publish(context, partial, path, handle.stat().inode)
        except FileExistsError:
            raise Conflict(f"there is a file {path!r:.200} already", "Choose another name or remove it") from None
        except OSError as error:
            raise from_os_error(error, f"export to {path!r:.200}") from error
        finally:
            context.deactivate()


def _refuse_existing(context: Context, path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        context.doors.files.stat(path)
        raise FileExistsError


def _created(context: Context, partial: str, format: VolumeFormat, size: int) -> FileHandle:
    """Make the empty file, in place of what a crash left."""
    with contextlib.suppress(FileNotFoundError):
        context.doors.files.unlink(partial)
    handle = context.doors.files.create(partial)
    with contextlib.ExitStack() as undo:
        undo.callback(handle.close)
        if format is VolumeFormat.RAW:
            handle.truncate(aligned(size))
        else:
            fresh = fresh_image(-(-size // SECTOR_BYTES) * SECTOR_BYTES, None, None)
            for offset, data in fresh.pieces:
                handle.write_at(offset, data)
            handle.truncate(fresh.length)
        undo.pop_all()
    return handle


def _publish(context: Context, partial: str, path: str, inode: int) -> None:
    """Give the file, which is open, its final name. Another export to that name may have put its own in place of it."""
    files = context.doors.files
    if files.stat(partial).inode == inode:
        files.link(partial, path)
        if files.stat(path).inode == inode:
            files.unlink(partial)
            files.sync_directory(path.rpartition("/")[0] or "/")
            return
        files.unlink(path)
    raise Conflict(f"another export to {path!r:.200} began meanwhile", "Wait for that one, or choose another name")


def _fill(context: Context, layers: list[Layer], direct: bool, target: Layer, progress: Callable[[int], None]) -> None:
    images = context.doors.images

    def checkpoint(cursor: int, percent: int) -> None:
        progress(percent)
        if context.stopping():
            raise Stopped("the export was stopped", "Run it again; it starts over")

    with contextlib.ExitStack() as stack:
        source = images.open_session(layers, False, direct)
        stack.callback(source.close)
        sink = images.open_session([target], True, False)
        stack.callback(sink.close)
        wanted = ranges.merged(ranges.data_ranges(images.map_chain(layers)), min(source.size, sink.size))
        pump.run(pump.Job(source, sink, wanted, sink.size, blank=True), 0, checkpoint, context.doors.clock.monotonic)
