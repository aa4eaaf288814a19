"""An image file of a user's that is to be imported: whether it can be, and how long it is. It is not trusted."""

from __future__ import annotations

from engine.data.model import VolumeFormat
from engine.doors.files import Files, Stat
from engine.errors import BadRequest, Damaged, NotFound, Refused, from_os_error
from engine.tools.qemu.qcow2 import Header, parse_header

_HEADER_BYTES = 65536


def inspect(files: Files, path: str, format: str) -> tuple[Stat, Header | None]:
    """Return what the file system and the qcow2 header (None for raw) say of a file to import. Follow
    nothing that it names.

    NotFound; BadRequest when it is not of the stated format; Refused when it needs more than itself."""
    try:
        with files.open(path) as handle:
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
