"""How a chain is described to qemu's tools: every node and every driver, explicitly.

Three ways exist to make qemu open a file that a header names, and each is closed here: the
backing file (``"backing"`` is always given, ``null`` at the end), the external data file (an
image that asks for one is refused before any tool sees it) and probing (every driver is named).
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from typing import Any

from engine.data.model import FileFormat, VolumeFormat
from engine.doors.images import Chain, Layer
from engine.errors import BadRequest, ToolFailed, from_os_error
from engine.tools.qemu.foreign import DRIVERS, Read, require_own_data
from engine.tools.qemu.qcow2 import DATA_FILE

PART_LAYERS = 32
"""A chain that is deeper is read in parts (``deep``)."""

_MAGIC_VERSION_3 = b"QFI\xfb\0\0\0\3"


def describe(chain: Chain, writable: bool = False, direct: bool = False, below: dict[str, Any] | None = None) -> str:
    """Return the ``json:`` name of a chain: exactly these layers and nothing below the last.

    ``below`` is a node to put under the last layer instead of nothing. BadRequest: a path that no tool can be told, or
    an order that cannot be. ToolFailed: a layer that is missing, is not what it should be, or wants a data file.
    """
    if not chain:
        raise BadRequest("a chain has at least one layer")
    node = below
    for index, layer in reversed(list(enumerate(chain))):
        top = index == 0
        if layer.format is not VolumeFormat.QCOW2 and node is not None:
            raise BadRequest(f"{layer.format} layer {layer.path!r:.200} cannot have another below it")
        inspect(layer)
        node = _node(layer, node, writable=writable and top, direct=direct)
    return "json:" + json.dumps(node)


def _node(layer: Layer, backing: dict[str, Any] | None, writable: bool, direct: bool) -> dict[str, Any]:
    cache = {"direct": direct, "no-flush": False}
    file: dict[str, Any] = {
        "driver": "host_device" if layer.device else "file",
        "filename": layer.held or checked_path(layer.path),
        "cache": cache,
        "discard": "unmap" if writable else "ignore",
        # "auto" goes on without a lock where the file system has none: fine to read, never to write.
        "locking": "on" if writable else "auto",
    }
    if layer.part is not None:
        file = {"driver": "raw", "offset": layer.part[0], "size": layer.part[1], "file": file}
    node: dict[str, Any] = {
        "driver": DRIVERS[layer.format] if isinstance(layer.format, FileFormat) else layer.format.value,
        "file": file,
        "cache": cache,
        "discard": "unmap" if writable else "ignore",
        "detect-zeroes": "off",
        "read-only": not writable,
    }
    if layer.format is not VolumeFormat.RAW:
        node["backing"] = backing
    elif layer.length:
        node["size"] = layer.length
    return {"driver": "compress", "file": node} if layer.compressed else node


def checked_path(path: str) -> str:
    """Return ``path`` if a tool can be told of it, else raise BadRequest."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRequest(f"path {path!r:.200} is not valid UTF-8", "Rename it") from None
    if not path or "\0" in path:
        raise BadRequest(f"path {path!r:.200} cannot be a file")
    return path


def inspect(layer: Layer) -> None:
    """Look at a layer before a tool opens it. ToolFailed: missing, a link, no file (or no device), or an image
    that wants an external data file: qemu would open whatever the header names, and has no option to forbid it.
    BadRequest, Refused: it is an image of another program that needs other files, or none at all."""
    if isinstance(layer.format, FileFormat):
        with opened(layer) as descriptor:
            first, length = layer.part or (0, os.lseek(descriptor, 0, os.SEEK_END))
            require_own_data(layer.format, _part(descriptor, first, length), length, layer.path)
        return
    start, _ = read_start(layer, 80)
    if (
        layer.format is VolumeFormat.QCOW2
        and start.startswith(_MAGIC_VERSION_3)
        and int.from_bytes(start[72:80], "big") & DATA_FILE
    ):
        raise ToolFailed(f"{layer.path} names an external data file, which is never opened")


def _part(descriptor: int, first: int, length: int) -> Read:
    """Read in a part of a file, and nowhere else."""
    return lambda offset, count: os.pread(descriptor, max(0, min(count, length - offset)), first + offset)


def read_start(layer: Layer, length: int) -> tuple[bytes, int]:
    """Return (the first ``length`` bytes, the length of the file or device). Errors as ``inspect``."""
    with opened(layer) as descriptor:
        return os.pread(descriptor, length, 0), os.lseek(descriptor, 0, os.SEEK_END)


@contextlib.contextmanager
def opened(layer: Layer) -> Iterator[int]:
    """Open a layer for reading. ToolFailed: it is missing, a link, no file (or no device), or cannot be read."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    if not layer.device and not layer.held:
        flags |= os.O_NOFOLLOW  # a device is reached through links of our own making (/dev/VG/LV)
    path = checked_path(layer.path)
    try:
        descriptor = os.open(layer.held or path, flags)
        try:
            mode = os.fstat(descriptor).st_mode
            if not (stat.S_ISBLK(mode) if layer.device else stat.S_ISREG(mode)):
                raise ToolFailed(f"the layer {path!r:.200} is no {'block device' if layer.device else 'regular file'}")
            yield descriptor
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ToolFailed(from_os_error(error, f"open the layer {path!r:.200}").message) from None
