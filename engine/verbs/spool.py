"""Bringing what cannot be imported from where it is into a file of this host first.

That is a stream, which has no second look and no size, and a qcow2 that is compressed as a whole, whose tables are read
in any order. The import is then one of that file; whoever made it deletes it when the import has ended. It is durable
before the import is committed: a loss of power would leave its size and time, by which the import knows it, and zeros.
"""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Callable, Iterable

from engine.data.amounts import human
from engine.data.model import Packing, VolumeFormat
from engine.doors import Doors
from engine.doors.files import Files, Kind
from engine.doors.images import Layer
from engine.errors import BadRequest, NoSpace, Refused, from_os_error, from_os_errors

_PIECE_BYTES = 1 << 20
_BLOCK = 64 << 10
_ASK_BYTES = 4 << 20
"""After so many bytes the place is asked for its room again."""
_KEPT_BYTES, _KEPT_PART = 1 << 30, 20
"""What is never taken of the room of a place that is not ours alone: so much, or its twentieth where that is less."""
_PACKED = {f"{VolumeFormat.QCOW2}.{packing}": packing for packing in Packing}


def packing_of(format: str) -> Packing | None:
    """Return how a qcow2 is compressed whose format is stated so (``qcow2.xz``); None for any other format."""
    return _PACKED.get(format)


def of_stream(doors: Doors, read: Callable[[int], bytes], path: str, most: int) -> None:
    """Write what ``read`` gives, until it gives nothing, into a new file; durable on return. Refused, and there is no
    file, when that is more than ``most`` bytes; NoSpace before the place is full; BadRequest when it is nothing."""
    _write(doors.files, path, iter(lambda: read(_PIECE_BYTES), b""), most)


def unpacked(doors: Doors, source: str, packing: Packing, path: str, most: int) -> None:
    """Unpack a file into a new one, holes as holes; durable on return. Refused, and there is no file, for more than
    ``most`` bytes, or data than there is room for, and for what is cut off or damaged."""
    with from_os_errors(f"look at {source!r:.200}"):
        if doors.files.stat(source).kind is not Kind.FILE:
            raise BadRequest(f"{source!r:.200} is not a file", "Give the compressed image file")
    layer = Layer(source, VolumeFormat.RAW, packing=packing)
    with from_os_errors(f"ask for the room beside {path!r:.200}"):
        room = _left(doors.files, path)
    layer = layer._replace(length=doors.images.unpacked(layer, most, max(_ASK_BYTES, room)).size)
    session = doors.images.open_session([layer], False, False)
    try:
        _write(doors.files, path, (bytes(data) for _, data in session.stream([(0, session.size)])), most)
    finally:
        session.close()


def _left(files: Files, path: str) -> int:
    """Return how many bytes more may be written there; below 0 when others need what is left."""
    space = files.space(posixpath.dirname(path))
    return space.free_bytes - min(_KEPT_BYTES, space.total_bytes // _KEPT_PART)


def _require_left(files: Files, path: str) -> None:
    if _left(files, path) < 0:
        raise NoSpace(
            f"{posixpath.dirname(path)!r:.200} is nearly full, and what is to be imported goes on",
            "Set TMPDIR to a directory with more room, or make room there",
        )


def _write(files: Files, path: str, pieces: Iterable[bytes], most: int) -> None:
    try:
        with files.create(path) as handle:
            length, unasked = 0, 0
            for piece in pieces:
                unasked += len(piece)
                if unasked >= _ASK_BYTES:
                    _require_left(files, path)
                    unasked = 0
                if length + len(piece) > most:
                    raise Refused(
                        f"there are more than {most} bytes ({human(most)}), the most that an image there can have",
                        "Import it into a repository that can hold it",
                    )
                for at in range(0, len(piece), _BLOCK):
                    block = piece[at : at + _BLOCK]
                    if block.count(0) != len(block):
                        handle.write_at(length + at, block)
                length += len(piece)
            if not length:
                raise BadRequest("there is nothing to import: not one byte came", "Look at what should have given it")
            handle.truncate(length)
            handle.sync()
        files.sync_directory(posixpath.dirname(path))
    except BaseException as error:
        with contextlib.suppress(OSError):
            if not isinstance(error, FileExistsError):
                files.unlink(path)
        if isinstance(error, OSError):
            raise from_os_error(error, f"write {path!r:.200}") from error
        raise
