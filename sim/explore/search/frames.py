"""The names that a power cut may leave, and what states with them come to, told without building one.

A ``Frames`` is of one moment. Each of its directories whose names are changing is looked at once for each set of
changes that it may keep, with all below it that is not changing; a ``Frame`` is put together of these parts. So one
more state costs only the files whose content it decides about.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sim.disk.content import Content
from sim.disk.nodes import ROOT, DirectoryNode, FileNode, NameOp
from sim.disk.storage import SimStorage
from sim.disk.tree import changed
from sim.explore.search.canonical import key_of, shown, stamp_of
from sim.explore.search.context import Context, Tag, context_of, tag_of
from sim.explore.search.counted import Path, taken_apart

Contents = Mapping[int, Content]
"""Of files whose content a state decides about, by inode."""


class _Part:
    """A directory with some names, and all below it that is not changing."""

    def __init__(self) -> None:
        self.total = 0
        """A sum over all names and durable contents."""
        self.changing: list[tuple[str, int]] = []
        """(path, inode) of files whose content is not durable."""
        self.folders: list[tuple[str, int]] = []
        """Directories that are changing, or have such ones below."""
        self.files: list[tuple[str, Path, Content | str]] = []
        """All files but those of ``changing``."""
        self.progress: list[tuple[Path, Content]] = []
        self.volumes: dict[str, int] = {}
        """Inode of each, by its path; those that are changing too."""
        self._generations: dict[str, dict[int, Content]] = {}
        self._tags: dict[str, Tag] | None = None
        self._numbers: dict[Context, frozenset[int]] = {}

    def add(self, path: str, content: Content | str) -> None:
        """Add a file whose content is durable."""
        apart = taken_apart(path)
        self.files.append((path, apart, content))
        if isinstance(content, Content):
            if apart.kind == "tag":
                self._generations.setdefault(apart.tags[0], {})[apart.number] = content
            elif apart.kind == "progress":
                self.progress.append((apart, content))

    def tags(self) -> dict[str, Tag]:
        """The tags that have generations here."""
        if self._tags is None:
            self._tags = {key: tag_of(key, contents) for key, contents in self._generations.items()}
        return self._tags

    def numbers(self, context: Context) -> frozenset[int]:
        """What the lines of all files but the changing ones come to."""
        known = self._numbers.get(context)
        if known is None:
            number = context.number
            known = self._numbers[context] = frozenset([number(*file) for file in self.files])
        return known


class Frames:
    """All frames of one moment."""

    def __init__(self, storage: SimStorage, now: bool = False) -> None:
        """``now``: with the names and contents as they are, and not as they are durable."""
        self.storage = storage
        self.now = now
        self._parts: dict[tuple[int, str, tuple[int, ...]], _Part] = {}
        self._moving = {ROOT}
        nodes = storage.nodes
        for op in storage.log:
            inode = op.directory
            while inode not in self._moving:
                self._moving.add(inode)
                node = nodes.get(inode)
                inode = node.parent if isinstance(node, DirectoryNode) else ROOT
        moves = [op for op in storage.log if op.text.startswith("rename")]
        self.plain = not storage.devices and not any(
            isinstance(nodes.get(gets), DirectoryNode) for op in moves for _, _, gets in op.changes
        )
        """Whether states can be told without being built: what is on no device, and no directory moves."""

    def frame(self, kept: Sequence[NameOp]) -> Frame:
        """Return what is there if these changes of names survive."""
        by_directory: dict[int, list[NameOp]] = {}
        for op in kept:
            by_directory.setdefault(op.directory, []).append(op)
        parts = []
        todo = [("", ROOT)]
        for path, inode in todo:
            part = self._part(inode, path, by_directory.get(inode, ()))
            parts.append(part)
            todo += part.folders
        return Frame(self, parts)

    def _part(self, inode: int, path: str, ops: Sequence[NameOp]) -> _Part:
        key = (inode, path, tuple([op.sequence for op in ops]))
        known = self._parts.get(key)
        if known is None:
            known = self._parts[key] = _Part()
            self._collect(known, inode, path, ops)
        return known

    def _collect(self, part: _Part, inode: int, path: str, ops: Sequence[NameOp]) -> None:
        nodes, dirty = self.storage.nodes, self.storage.dirty
        node = nodes[inode]
        assert isinstance(node, DirectoryNode)
        names = node.names if self.now else changed(node.durable, ops) if ops else node.durable
        for name, child in names.items():
            where = f"{path}/{name}"
            below = nodes[child]
            if isinstance(below, FileNode):
                content = below.content if self.now else below.durable
                part.total += line(where, content)
                if taken_apart(where).kind == "volume":
                    part.volumes[where] = child
                if child in dirty:
                    part.changing.append((where, child))
                else:
                    part.add(where, content)
            elif isinstance(below, DirectoryNode):
                part.total += hash(where)
                if child in self._moving:
                    part.folders.append((where, child))
                else:
                    self._collect(part, child, where, ())
            else:
                part.total += hash(f"{where}\n{below[0]}")
                part.add(where, shown(below))


class Frame:
    """Some names that may be left; contents are put in later."""

    def __init__(self, frames: Frames, parts: Sequence[_Part]) -> None:
        self._storage = frames.storage
        self._plain = frames.plain
        self._parts = parts
        self._total = sum([part.total for part in parts])
        self._context: Context | None = None
        self._fixed: frozenset[int] = frozenset()
        self.links: dict[int, list[str]] = {}
        """Paths of each file whose content is not durable."""
        for part in parts:
            for path, inode in part.changing:
                self.links.setdefault(inode, []).append(path)

    def total(self, contents: Contents) -> int:
        """Equal for equal names and contents, in this process."""
        total = self._total
        for inode, content in contents.items():
            node = self._storage.nodes[inode]
            assert isinstance(node, FileNode)
            if content is not node.durable:
                total += sum(line(path, content) - line(path, node.durable) for path in self.links[inode])
        return total

    def canonical(self, contents: Contents) -> bytes | None:
        """Return the ``canonical_key``, not exact, of the state with these contents; None when it must be built."""
        tags: dict[str, Tag] = {}
        for part in self._parts if self._plain else ():
            tags |= part.tags()
        if not self._plain or len(tags) != sum([len(part.tags()) for part in self._parts]):
            return None
        changing = list(self._changing(contents))
        if self._context is None or any(apart.tags for _, apart, _ in changing):
            if any(apart.kind == "tag" for _, apart, _ in changing):
                return None  # a record that counts was not synced before it got its name
            progress = [one for part in self._parts for one in part.progress]
            progress += [(apart, content) for _, apart, content in changing if apart.kind == "progress"]
            context = context_of(False, True, tags, progress)
            if context is not self._context:
                self._context = context
                self._fixed = frozenset().union(*[part.numbers(context) for part in self._parts], self._seen(context))
        number = self._context.number
        return key_of(self._fixed.union([number(*one) for one in changing]) if changing else self._fixed)

    def _seen(self, context: Context) -> Iterator[int]:
        """What the records have seen of volumes comes to."""
        if not context.stamps:
            return iter(())
        inodes = {path: inode for part in self._parts for path, inode in part.volumes.items()}
        return context.stamped(lambda path: stamp_of(inodes.get(path, 0), self._storage.nodes))

    def _changing(self, contents: Contents) -> Iterator[tuple[str, Path, Content]]:
        for inode, paths in self.links.items():
            node = self._storage.nodes[inode]
            assert isinstance(node, FileNode)
            content = contents.get(inode, node.durable)
            yield from ((path, taken_apart(path), content) for path in paths)


def line(path: str, content: Content) -> int:
    """What a path with a content comes to in a sum over a tree."""
    # Not the hash of a pair: in a sum, two pairs that exchange their halves often come to the same.
    return hash(content.digest + path.encode(errors="surrogateescape"))
