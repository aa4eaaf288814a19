"""When two states of a storage are the same to the engine.

Counters only grow: each interrupted attempt raises an epoch and a generation, takes fresh ids, and may
leave one more temporary file, so the states that recovery can reach are infinitely many if they are
taken literally. What matters of a counter is its order among its like, and of an id that it is the
same in two places. Here

* generations of a tag become their rank, that of a use whether its user has come to it, epochs their
  distance to the newest record's;
* a volume is called after the record that names it, and what for;
* times, host names and processes are left out, and so are empty directories;
* files that nobody reads (temporary ones, superseded records, uses that nothing needs and progress of
  attempts that are over) count only as being there.

Unless ``exact``, all of these are alike, removals of them that are not durable do not count, and of
a volume that is being made, and of which nothing counts yet, only that it is there; of a qcow2 file
what its readers see.

Everything else is compared byte for byte, including what is not durable yet, since that decides what a
later power cut can do. Two states that are alike here may still differ in the order of fixes that
cost the same (their ids are hashes over generations).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from hashlib import blake2b
from typing import NamedTuple, TypeVar

from engine.data.model import VolumeFormat
from engine.doors.images import Layer
from engine.errors import DiskwrightError
from engine.formats.files import layout
from engine.tools.qemu.qcow2 import HEADER_READ_BYTES, parse_header
from sim.disk.content import Content
from sim.disk.files import SimFiles
from sim.disk.nodes import ROOT, DirectoryNode, FileNode, NameOp, Node
from sim.disk.storage import SimStorage
from sim.lvm.lvm_view import as_files, durable
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
_LARGEST_RECORD = 64 * 1024
_FORGETFUL = 50_000
_T = TypeVar("_T")
_MAKING = " in the making"


class _Record(NamedTuple):
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


class _Line(NamedTuple):
    text: str
    cursor: int = 0


class _Path(NamedTuple):
    """A path taken apart."""

    kind: str
    root: str
    id: str = ""
    rest: str = ""
    number: int = 0


_paths: dict[str, _Path] = {}


def _parsed(path: str) -> _Path:
    known = _paths.get(path)
    if known is None:
        if len(_paths) > _FORGETFUL:
            _paths.clear()
        known = _paths[path] = _parse(path)
    return known


def _parse(path: str) -> _Path:
    if match := _TAG.match(path):
        return _Path("tag", match[1], match[2], match[4] or "", int(match[3], 16))
    if match := _USE.match(path):
        return _Path("use", match[1], match[2], match[3], int(match[4], 16))
    if match := _VOLUME.match(path):
        return _Path("volume", match[1], match[2], match[3])
    if match := _PROGRESS.match(path):
        return _Path("progress", match[1], match[2], "", int(match[3]))
    if match := _TEMPORARY.match(path):
        return _Path("temporary", match[1], "", match[2])
    return _Path("digests" if "/digests/" in path else "", "")


_records: dict[bytes, _Record] = {}
_progress: dict[bytes, _Line] = {}
_layers: dict[bytes, str] = {}


def canonical_key(storage: SimStorage, exact: bool = True) -> bytes:
    """Equal for states between which the engine makes no difference."""
    return key_and_boring(storage, exact)[0]


def key_and_boring(storage: SimStorage, exact: bool) -> tuple[bytes, list[int]]:
    """(``canonical_key``, inodes of files that are in the making)."""
    if storage.devices and not exact:
        return _key_of_devices(storage), []
    tree = _Tree(storage, exact)
    lines = "\n".join(sorted(tree.lines))
    if not tree.settled:
        lines += "\n\n" + _pending(storage, tree)
    boring = [inode for inode, line in tree.inodes.items() if line.endswith(_MAKING)]
    return blake2b(lines.encode(), digest_size=16).digest(), boring


def _key_of_devices(storage: SimStorage) -> bytes:
    """As files they are read now, and as they would be after a power cut that leaves nothing of what is pending."""
    lines = sorted(_Tree(as_files(storage), False).lines)
    if storage.dirty or storage.log:
        lines += ["", *sorted(_Tree(as_files(storage, durable), False).lines), *(op.text for op in storage.log)]
        for inode in storage.dirty:
            node = storage.nodes[inode]
            assert isinstance(node, FileNode)
            lines.append(f"{node.tainted} " + ",".join(f"{op.kind}{op.length}" for op in node.pending))
    return blake2b("\n".join(lines).encode(), digest_size=16).digest()


class _Tag:
    """The generations of one tag."""

    def __init__(self) -> None:
        self.generations: list[int] = []
        self.records: dict[int, _Record] = {}

    @property
    def newest(self) -> _Record:
        """What counts."""
        return self.records[self.generations[-1]]


class _Tree:
    """The tree with every name and content as it counts."""

    def __init__(self, storage: SimStorage, exact: bool) -> None:
        self._exact = exact
        self.settled = not storage.dirty and (
            not storage.log if exact else all(LITTER.match(op.text) or TEMPORARY.match(op.text) for op in storage.log)
        )
        self.tags: dict[str, _Tag] = {}
        self.paths: dict[int, str] = {}
        self.inodes: dict[int, str] = {}
        files = list(self._walk(storage))
        self._read_tags(files)
        self._ids: dict[str, str] = {}
        self._making: set[str] = set()
        for key, tag in sorted(self.tags.items()):
            for generation in tag.generations:  # the newest one has the last word
                self._ids.update((volume, f"{key[-32:]}:{role}") for volume, role in tag.records[generation].ids)
            if tag.newest.making and not exact:
                self._making.add(tag.newest.making)
        if self._making:
            for path, _, node in files:
                self._keep_what_counts(path, node)
        self.lines: set[str] = set()
        for path, inode, node in files:
            self.inodes[inode] = line = self._line(path, node)
            self.lines.add(line)

    def _walk(self, storage: SimStorage) -> list[tuple[str, int, Node]]:
        files: list[tuple[str, int, Node]] = []
        todo = [("", ROOT)]
        while todo:
            path, inode = todo.pop()
            self.paths[inode] = path
            for name, child in storage.nodes[inode].names.items():  # type: ignore[union-attr]
                node = storage.nodes[child]
                if isinstance(node, DirectoryNode):
                    todo.append((f"{path}/{name}", child))
                else:
                    files.append((f"{path}/{name}", child, node))
        return files

    def _read_tags(self, files: list[tuple[str, int, Node]]) -> None:
        for path, _, node in files:
            parsed = _parsed(path)
            if parsed.kind == "tag" and isinstance(node, FileNode):
                tag = self.tags.setdefault(f"{parsed.root} {parsed.id}", _Tag())
                if parsed.number not in tag.records:  # it may be seen between its two names
                    tag.generations.append(parsed.number)
                tag.records[parsed.number] = _record(node.content)
        for tag in self.tags.values():
            tag.generations.sort()

    def _keep_what_counts(self, path: str, node: Node) -> None:
        """A cursor in a progress line makes what is below it count."""
        parsed = _parsed(path)
        if parsed.kind == "progress" and isinstance(node, FileNode) and _lines(node.content).cursor:
            tag = self.tags.get(f"{parsed.root} {parsed.id}")
            if tag is not None:
                self._making.discard(tag.newest.making)

    def name(self, path: str) -> str:
        """A path as it counts."""
        kind, root, subject, rest, number = _parsed(path)
        if kind == "tag":
            tag = self.tags.get(f"{root} {subject}")
            rank = len(tag.generations) - tag.generations.index(number) if tag and number in tag.records else 0
            mark = "t" if not number & ((1 << 48) - 1) else ""
            if rank == 2 and self.settled and tag and tag.generations[-1] & ((1 << 48) - 1):
                return f"{root}/tags/{subject}{BEFORE}"
            return f"{root}/tags/{subject}.{min(rank, 2) if self.settled else rank}{mark}{rest}"
        if kind == "volume":
            return f"{root}/volumes/{self._ids.get(subject, subject)}{rest}"
        if kind == "use":
            tag = self.tags.get(f"{root} {rest}")
            early = number > (tag.generations[-1] if tag else 0)
            return f"{root}/uses/{self._ids.get(subject, subject)}.{rest}.{early}{bool(number)}"
        if kind == "progress":
            tag = self.tags.get(f"{root} {subject}")
            age = tag.newest.epoch - number if tag else 2
            return f"{root}/progress/{subject}.{age}" if tag and age < 2 else f"{root}/progress/old"
        if kind == "temporary":
            return f"{root}/tmp/{rest}"
        return self._renamed(path) if kind == "digests" else path

    def _line(self, path: str, node: Node) -> str:
        name = self.name(path)
        if not isinstance(node, FileNode):
            return f"{name} {node[0]}"
        kind = _parsed(path).kind
        if kind == "tag" and self.settled and name.endswith(BEFORE):
            return "kept"  # nobody reads it
        if self._is_litter(kind, path, name):
            if not self._exact:
                return "litter"
            return name.rpartition(".")[0] + ".old" if kind == "progress" else name
        return f"{name} {self.token(path, node.content)}"

    def _is_litter(self, kind: str, path: str, name: str) -> bool:
        if kind == "temporary" or name.endswith("/progress/old"):
            return True
        if not self.settled:
            return False
        if kind == "use":
            return not self._is_needed(_parsed(path))
        if kind == "tag":
            return name.endswith((".2", ".2t"))
        if kind == "progress":
            parsed = _parsed(path)
            tag = self.tags.get(f"{parsed.root} {parsed.id}")
            return tag is None or not tag.newest.working or not name.endswith(".0")
        return False

    def _is_needed(self, use: _Path) -> bool:
        """Whether the newest record of the user speaks of the subject; of generation 0, whether that is there."""
        tag = self.tags.get(f"{use.root} {use.rest if use.number else use.id}")
        if tag is None or tag.generations[-1] & ((1 << 48) - 1) == 0:
            return False
        return not use.number or use.id in tag.newest.text

    def token(self, path: str, content: Content) -> str:
        """A content as it counts."""
        parsed = _parsed(path)
        if parsed.kind == "tag" and content.size <= _LARGEST_RECORD:
            found = _record(content)
            tag = self.tags.get(f"{parsed.root} {parsed.id}")
            return f"{self._renamed(found.text)} {(tag.newest.epoch if tag else 0) - found.epoch}"
        if parsed.kind == "progress":
            return self._renamed(_lines(content).text)
        if parsed.kind == "volume" and parsed.id in self._making:
            return _MAKING
        if parsed.rest == ".qcow2" and not self._exact:
            return self._renamed(_layer(content))
        return content.digest.hex()

    def _renamed(self, text: str) -> str:
        for volume, name in self._ids.items():
            if volume in text:
                text = text.replace(volume, name)
        return text


def _pending(storage: SimStorage, tree: _Tree) -> str:
    parts = []
    for op in storage.log:
        folder = tree.paths.get(op.directory, "?")
        changes = [_change(storage, tree, folder, op, index) for index in range(len(op.changes))]
        if any(changes):
            parts.append(f"{op.needs and 1} {' '.join(changes)}")
    for inode in storage.dirty:
        node = storage.nodes[inode]
        assert isinstance(node, FileNode)
        line = tree.inodes.get(inode, "nameless")
        if "/tmp/" not in line or node.links > 1:
            path = next((p for p in (line.partition(" ")[0],)), "")
            ops = ",".join(f"{op.kind}{op.offset}+{op.length}" for op in node.pending)
            parts.append(f"{line} was {tree.token(path, node.durable)} {ops} {node.tainted}")
    return "\n".join(parts)


def _change(storage: SimStorage, tree: _Tree, folder: str, op: NameOp, index: int) -> str:
    name, had, gets = op.changes[index]
    path = f"{folder}/{name}"
    shown = tree.name(path)
    if "/tmp/" in shown or shown.endswith("/progress/old"):
        return ""
    tokens = []
    for inode in (had, gets):
        node = storage.nodes.get(inode)
        tokens.append(tree.token(path, node.content) if isinstance(node, FileNode) else str(type(node).__name__))
    return f"{shown}: {tokens[0]} -> {tokens[1]}"


def _remembered(known: dict[bytes, _T], content: Content, read: Callable[[Content], _T]) -> _T:
    """Read once for equal contents."""
    if content.digest not in known:
        if len(known) > _FORGETFUL:
            known.clear()
        known[content.digest] = read(content)
    return known[content.digest]


def _record(content: Content) -> _Record:
    return _remembered(_records, content, _read_record)


def _read_record(content: Content) -> _Record:
    raw = content.read(0, min(content.size, _LARGEST_RECORD))
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
        return _Record(content.digest.hex())
    for name in ("when", "host"):
        (data.get("last") or {}).pop(name, None)
    if data.get("removed") is not None:
        data["removed"] = 1
    making = attempt["id"] if attempt and not operation.get("cursor") and not operation.get("made") else ""
    return _Record(json.dumps(data, sort_keys=True), epoch, tuple(ids), bool(operation), making)


def _layer(content: Content) -> str:
    """A qcow2 file as its readers see it: what it holds itself, and what its header says. Where in the file that
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


def _lines(content: Content) -> _Line:
    return _remembered(_progress, content, _read_lines)


def _read_lines(content: Content) -> _Line:
    line = layout.newest_line(content.read(0, layout.PROGRESS_BYTES))
    if line is None:
        return _Line("none")
    try:
        data = json.loads(line)
        for name in ("when", "host", "process"):
            data.pop(name, None)
        return _Line(json.dumps(data, sort_keys=True), int(data["cursor"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return _Line(content.digest.hex())
