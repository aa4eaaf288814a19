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
from engine.errors import BadRequest, Refused, from_os_error, from_os_errors

_PIECE_BYTES = 1 << 20
_BLOCK = 64 << 10
_PACKED = {f"{VolumeFormat.QCOW2}.{packing}": packing for packing in Packing}


def packing_of(format: str) -> Packing | None:
    """Return how a qcow2 is compressed whose format is stated so (``qcow2.xz``); None for any other format."""
    return _PACKED.get(format)


def of_stream(doors: Doors, read: Callable[[int], bytes], path: str, most: int) -> None:
    """Write what ``read`` gives, until it gives nothing, into a new file; durable on return. Refused, and there is no
    file, when that is more than ``most`` bytes; BadRequest when it is nothing."""
    _write(doors.files, path, iter(lambda: read(_PIECE_BYTES), b""), most)


def unpacked(doors: Doors, source: str, packing: Packing, path: str, most: int) -> None:
    """Unpack a file into a new one, holes as holes; durable on return. Refused, and there is no file, for more than
    ``most`` bytes, and for what is cut off or damaged."""
    with from_os_errors(f"look at {source!r:.200}"):
        if doors.files.stat(source).kind is not Kind.FILE:
            raise BadRequest(f"{source!r:.200} is not a file", "Give the compressed image file")
    layer = Layer(source, VolumeFormat.RAW, packing=packing, most=most)
    session = doors.images.open_session([layer], False, False)
    try:
        _write(doors.files, path, (bytes(data) for _, data in session.stream([(0, session.size)])), most)
    finally:
        session.close()


def _write(files: Files, path: str, pieces: Iterable[bytes], most: int) -> None:
    try:
        with files.create(path) as handle:
            length = 0
            for piece in pieces:
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
