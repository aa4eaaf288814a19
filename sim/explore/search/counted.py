"""What a path, a record, a line of progress and a qcow2 file come to, each by itself, for whoever compares states of a
storage (``sim.explore.search.canonical``). Read once for equal bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any, NamedTuple, TypeVar

from engine.data.model import VolumeFormat
from engine.doors.images import Layer
from engine.errors import DiskwrightError
from engine.formats.files import layout
from engine.tools.qemu.qcow2 import HEADER_READ_BYTES, parse_header
from sim.disk.content import Content
from sim.disk.files import SimFiles
from sim.disk.nodes import FileNode
from sim.disk.storage import SimStorage
from sim.qemu.images import SimImageTool

_TAG = re.compile(r"(.*)/tags/[0-9a-f]{2}/([0-9a-f]{32})\.([0-9a-f]{16})(\.before)?\Z")
_USE = re.compile(r"(.*)/tags/[0-9a-f]{2}/use\.([0-9a-f]{32})\.([0-9a-f]{32})\.([0-9a-f]{16})\Z")
_PROGRESS = re.compile(r"(.*)/progress/([0-9a-f]{32})\.([0-9]+)\Z")
_TEMPORARY = re.compile(r"(.*)/tmp/[0-9a-f]{32}-([a-z]+)\Z")
_VOLUME = re.compile(r"(.*)/volumes/[0-9a-f]{2}/([0-9a-f]{32})(\.[a-z0-9]+)\Z")
LITTER = re.compile(
    r"unlink /srv/[^/]+/(?:progress/|digests/|tags/[0-9a-f]{2}/(?:use\.[0-9a-f]{32}\.)?[0-9a-f]{32}\.[0-9a-f]{16}"
    r"(?:\.before)?\Z)"
    r"|rename /srv/[^/]+/tags/[0-9a-f]{2}/[0-9a-f]{32}\.[0-9a-f]{16} to .*\.before\Z"
)
"""Operations that are lost without harm: what they removed, or put aside, is litter."""
TEMPORARY = re.compile(r"(?:create|unlink) /srv/[^/]+/tmp/")
BEFORE = ".before"
"""Ends the name of a generation that is kept below the newest one."""
LARGEST_RECORD = 64 * 1024
_FORGETFUL = 50_000
_T = TypeVar("_T")


class Stamp(NamedTuple):
    """How a record has seen a volume."""

    path: str
    """Of the volume in its repository."""
    inode: int
    mtime: int


class Record(NamedTuple):
    """A record as it counts."""

    text: str
    """Without its epoch."""
    epoch: int = 0
    ids: tuple[tuple[str, str], ...] = ()
    """(volume, what it is to the tag)"""
    working: bool = False
    """Whether the tag has an operation, so its progress matters."""
    making: str = ""
    """The volume that is being made, nothing in which counts according to the record."""
    stamp: Stamp | None = None
    """What it says of its volume at rest, which ``text`` leaves out."""


class Line(NamedTuple):
    """A line of progress as it counts."""

    text: str
    cursor: int = 0


class Path(NamedTuple):
    """A path taken apart."""

    kind: str
    root: str
    id: str = ""
    rest: str = ""
    number: int = 0
    tags: tuple[str, ...] = ()
    """Keys of the tags whose generations decide what the path, and what is there, counts as."""


_paths: dict[str, Path] = {}


def taken_apart(path: str) -> Path:
    """Take a path apart."""
    known = _paths.get(path)
    if known is None:
        if len(_paths) > _FORGETFUL:
            _paths.clear()
        known = _paths[path] = _parse(path)
    return known


def _parse(path: str) -> Path:
    if match := _TAG.match(path):
        return Path("tag", match[1], match[2], match[4] or "", int(match[3], 16), (f"{match[1]} {match[2]}",))
    if match := _USE.match(path):
        root, subject, user, number = match.groups()
        return Path("use", root, subject, user, int(number, 16), (f"{root} {user}", f"{root} {subject}"))
    if match := _VOLUME.match(path):
        return Path("volume", match[1], match[2], match[3])
    if match := _PROGRESS.match(path):
        return Path("progress", match[1], match[2], "", int(match[3]), (f"{match[1]} {match[2]}",))
    if match := _TEMPORARY.match(path):
        return Path("temporary", match[1], "", match[2])
    return Path("digests" if "/digests/" in path else "", "")


_records: dict[bytes, Record] = {}
_progress: dict[bytes, Line] = {}
_layers: dict[bytes, str] = {}


def _remembered(known: dict[bytes, _T], content: Content, read: Callable[[Content], _T]) -> _T:
    """Read once for equal contents."""
    if content.digest not in known:
        if len(known) > _FORGETFUL:
            known.clear()
        known[content.digest] = read(content)
    return known[content.digest]


def record_of(content: Content) -> Record:
    """Return what a record comes to."""
    return _remembered(_records, content, _read_record)


def _read_record(content: Content) -> Record:
    raw = content.read(0, min(content.size, LARGEST_RECORD))
    head, _, body = raw.partition(b"\n")
    parts = head.split(b" ")
    try:
        # Whether the bytes are intact is part of what they are: a torn record must not pass for a whole one.
        if blake2b(body[: int(parts[1])], digest_size=16).hexdigest().encode() != parts[2]:
            raise ValueError
        data = json.loads(body)
        epoch = int(data.pop("epoch"))
        operation = data.get("operation") or {}
        ids = [(ref["id"], f"scrap{index}") for index, ref in enumerate([*data["scrap"], *data["evidence"]])]
        attempt = operation.get("attempt")
        if attempt:
            ids.append((attempt["id"], "attempt"))
        if data["volume"]:
            ids.append((data["volume"]["id"], "volume"))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return Record(content.digest.hex())
    for name in ("when", "host", "percent"):
        (data.get("last") or {}).pop(name, None)
    if data.get("removed") is not None:
        data["removed"] = 1
    stamp = _take_stamp(data, epoch, [*data["scrap"], *data["evidence"], attempt, data["volume"]])
    making = attempt["id"] if attempt and not operation.get("cursor") and not operation.get("made") else ""
    return Record(json.dumps(data, sort_keys=True), epoch, tuple(ids), bool(operation), making, stamp)


def _take_stamp(data: dict[str, Any], epoch: int, volumes: Iterable[dict[str, Any] | None]) -> Stamp | None:
    """Take what a record has seen out of its data, but for what it is of. It counts in the epochs that it was seen in
    alone, and epochs only grow; so of what was seen before only that it was."""
    seen = data.get("seen")
    formats = {ref["id"]: ref["format"] for ref in volumes if ref}
    if not seen:
        return None
    if seen["epoch"] != epoch or seen["write_epoch"] != data["write_epoch"]:
        data["seen"] = "before this epoch" if seen["epoch"] != epoch else "before a write"
        return None
    seen["epoch"] = seen["write_epoch"] = "this one"
    if seen["volume"] not in formats:
        return None
    path = layout.volume_path(seen["volume"], VolumeFormat(formats[seen["volume"]]))
    return Stamp(path, seen.pop("inode"), seen.pop("mtime_ns"))


def layer_of(content: Content) -> str:
    """Return a qcow2 file as its readers see it: what it holds itself, and what its header says. Where in the file that
    is, and which clusters are leaked, differs with every interrupted attempt."""
    return _remembered(_layers, content, _read_layer)


def _read_layer(content: Content) -> str:
    storage = SimStorage()
    inode = storage.create("/layer")
    storage.nodes[inode] = FileNode(content, content, (), False, 1, 0)
    found = blake2b(digest_size=12)
    try:
        header = parse_header(content.read(0, HEADER_READ_BYTES), content.size)
        for extent in SimImageTool(SimFiles(storage)).map_layer(Layer("/layer", VolumeFormat.QCOW2)):
            data = content.read(extent.offset, extent.length) if extent.data and extent.offset is not None else b""
            found.update(b"%d %d %d %d" % (extent.start, extent.length, extent.present, extent.data) + data)
    except (DiskwrightError, ValueError):
        return content.digest.hex()
    return f"{header} {found.hexdigest()}"


def line_of(content: Content) -> Line:
    """Return what a file of progress comes to."""
    return _remembered(_progress, content, _read_lines)


def _read_lines(content: Content) -> Line:
    line = layout.newest_line(content.read(0, layout.PROGRESS_BYTES))
    if line is None:
        return Line("none")
    try:
        data = json.loads(line)
        for name in ("when", "host", "process", "percent"):
            data.pop(name, None)
        return Line(json.dumps(data, sort_keys=True), int(data["cursor"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Line(content.digest.hex())
