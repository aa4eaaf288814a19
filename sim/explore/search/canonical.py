"""When two states of a storage are the same to the engine.

Counters only grow: each interrupted attempt raises an epoch and a generation, takes fresh ids, and may
leave one more temporary file, so the states that recovery can reach are infinitely many if they are
taken literally. What matters of a counter is its order among its like, and of an id that it is the
same in two places. Here

* generations of a tag become their rank, that of a use whether its user has come to it, epochs their
  distance to the newest record's;
* a volume is called after the record that names it, and what for;
* times, host names, processes and what is told of progress in percent are left out, and so are empty directories;
* of how a volume was seen at rest (inode, time of its last write) it counts whether it is so now, and, where it is not,
  how it was; nothing of it counts that was seen in another epoch than that of the record;
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

from collections.abc import Collection, Mapping
from hashlib import blake2b
from typing import NamedTuple

from sim.disk.content import Content
from sim.disk.nodes import ROOT, DirectoryNode, FileNode, NameOp, Node
from sim.disk.storage import SimStorage
from sim.explore.search.context import context_of, tag_of
from sim.explore.search.counted import LITTER, TEMPORARY, Path, record_of, taken_apart
from sim.lvm.lvm_view import as_files, durable

_MOST_FOLDERS = 20_000


def canonical_key(storage: SimStorage, exact: bool = True) -> bytes:
    """Equal for states between which the engine makes no difference."""
    return key_and_boring(storage, exact)[0]


def key_and_boring(storage: SimStorage, exact: bool) -> tuple[bytes, list[int]]:
    """(``canonical_key``, inodes of files that are in the making)."""
    if storage.devices and not exact:
        return _key_of_devices(storage), []
    tree = _Tree(storage, exact)
    key = key_of(tree.numbers())
    if not tree.context.settled:
        key += blake2b(_pending(storage, tree).encode(), digest_size=16).digest()
    return key, tree.boring()


def key_of(numbers: Collection[int]) -> bytes:
    """Return the key of a tree of which nothing that counts is not durable: of what its different lines come to."""
    return sum(numbers).to_bytes(20, "big")


def _key_of_devices(storage: SimStorage) -> bytes:
    """As files they are read now, and as they would be after a power cut that leaves nothing of what is pending."""
    lines = [canonical_key(as_files(storage), False).hex()]
    if storage.dirty or storage.log:
        lines += [canonical_key(as_files(storage, durable), False).hex(), *(op.text for op in storage.log)]
        for inode in storage.dirty:
            node = storage.nodes[inode]
            assert isinstance(node, FileNode)
            lines.append(f"{node.tainted} " + ",".join(f"{op.kind}{op.length}" for op in node.pending))
    return blake2b("\n".join(lines).encode(), digest_size=16).digest()


class _Folder(NamedTuple):
    """The names in a directory, taken apart."""

    names: dict[str, int]
    folders: list[tuple[str, int]]
    files: list[tuple[str, int, Path]]


_folders: dict[tuple[int, str], _Folder] = {}
"""By the identity of the names, which copies of a storage share, and the path."""


def _folder(nodes: dict[int, Node], names: dict[str, int], path: str) -> _Folder:
    known = _folders.get((id(names), path))
    if known is None:
        files: list[tuple[str, int, Path]] = []
        folders: list[tuple[str, int]] = []
        for name, child in names.items():
            below = f"{path}/{name}"
            if isinstance(nodes[child], DirectoryNode):
                folders.append((below, child))
            else:
                files.append((below, child, taken_apart(below)))
        if len(_folders) > _MOST_FOLDERS:
            _folders.clear()
        known = _folders[id(names), path] = _Folder(names, folders, files)
    return known


class _Tree:
    """The tree with every name and content as it counts."""

    def __init__(self, storage: SimStorage, exact: bool) -> None:
        self._nodes = storage.nodes
        settled = not storage.dirty and (
            not storage.log if exact else all(LITTER.match(op.text) or TEMPORARY.match(op.text) for op in storage.log)
        )
        self.paths: dict[int, str] = {}
        self.records: set[int] = set()
        """Inodes of records that have their names."""
        self._files: list[tuple[str, int, Path]] = []
        self._walk()
        tags: dict[str, dict[int, Content]] = {}
        progress: list[tuple[Path, Content]] = []
        for _, inode, apart in self._files:
            if apart.kind == "tag" and isinstance(node := self._nodes[inode], FileNode):
                tags.setdefault(apart.tags[0], {})[apart.number] = node.content
                self.records.add(inode)
            elif apart.kind == "progress" and isinstance(node := self._nodes[inode], FileNode):
                progress.append((apart, node.content))
        self.context = context_of(exact, settled, {key: tag_of(key, found) for key, found in tags.items()}, progress)

    def _walk(self) -> None:
        nodes = self._nodes
        todo = [("", ROOT)]
        for path, inode in todo:
            self.paths[inode] = path
            folder = _folder(nodes, nodes[inode].names, path)  # type: ignore[union-attr]
            todo += folder.folders
            self._files += folder.files

    def numbers(self) -> set[int]:
        """What the different lines come to."""
        number, nodes = self.context.number, self._nodes
        found = {number(path, apart, shown(nodes[inode])) for path, inode, apart in self._files}
        if self.context.stamps:
            inodes = {path: inode for path, inode, apart in self._files if apart.kind == "volume"}
            found.update(self.context.stamped(lambda path: stamp_of(inodes.get(path, 0), nodes)))
        return found

    def boring(self) -> list[int]:
        """Inodes of files that are in the making."""
        making = self.context.making
        return [
            inode
            for path, inode, apart in (self._files if making else ())
            if apart.kind == "volume" and apart.id in making and isinstance(self._nodes[inode], FileNode)
        ]

    def line_of(self, inode: int) -> str:
        """The line of a file under one of its names."""
        path = next((path for path, child, _ in reversed(self._files) if child == inode), "")
        return self.context.line(path, shown(self._nodes[inode])) if path else "nameless"


def stamp_of(inode: int, nodes: Mapping[int, Node]) -> tuple[int, int] | None:
    """Return inode and time of the last write of a file, None of what is none."""
    node = nodes.get(inode)
    return (inode, node.mtime) if isinstance(node, FileNode) else None


def shown(node: Node) -> Content | str:
    """Return the content of a file; what it is instead of what is none."""
    return node.content if isinstance(node, FileNode) else str(node[0])


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
        line = tree.line_of(inode)
        if "/tmp/" not in line or node.links > 1:
            path = next((p for p in (line.partition(" ")[0],)), "")
            ops = ",".join(f"{op.kind}{op.offset}+{op.length}" for op in node.pending)
            parts.append(f"{line} was {tree.context.token(path, node.durable)} {ops} {node.tainted}")
    return "\n".join(parts)


def _change(storage: SimStorage, tree: _Tree, folder: str, op: NameOp, index: int) -> str:
    name, had, gets = op.changes[index]
    path = f"{folder}/{name}"
    shown = tree.context.name(path)
    if "/tmp/" in shown or shown.endswith("/progress/old"):
        return ""
    tokens = []
    for inode in (had, gets):
        node = storage.nodes.get(inode)
        if not isinstance(node, FileNode):
            tokens.append(type(node).__name__)
            continue
        tokens.append(tree.context.token(path, node.content))
        if inode not in tree.records and taken_apart(path).kind == "tag":  # what it has seen is told by no line
            tokens[-1] += f" {record_of(node.content).stamp}"
    return f"{shown}: {tokens[0]} -> {tokens[1]}"
