"""The names of a simulated file system: finding paths, and changing directories.

Paths are absolute. Symbolic links are followed in all components but the last. A path that ends
in a slash is taken as if it did not. Names are made durable by ``sync_directory`` and by nothing else.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

from sim.disk.content import EMPTY
from sim.disk.nodes import ROOT, DirectoryNode, FileNode, LinkNode, NameOp, Node, SpecialNode, fail

DIRECTORY_BYTES = 4096
_MAX_LINKS_FOLLOWED = 40
_NAME_BYTES = 255


class NameTree:
    """Directories, and the log of what changed in them."""

    nodes: dict[int, Node]
    log: list[NameOp]
    """Changes of names that are not durable yet, in order."""
    dirty: dict[int, None]
    """Files whose content is not durable."""
    sequence: int
    synced: int
    """Sequence of the last sync of anything: what one journal would have committed."""
    capacity: int
    _next: int
    _open: dict[int, int]
    _orphans: dict[int, None]
    _used: int
    _directories: dict[str, int]

    # -- changing names

    def create(self, path: str) -> int:
        """A new empty file; returns its inode."""
        parent, name = self._place(path)
        inode = self._add(FileNode(EMPTY, EMPTY, (), False, 1, self.sequence + 1))
        self._change(parent, ((name, 0, inode),), f"create {path}")
        return inode

    def link(self, source: str, target: str) -> None:
        inode = self._find(source)
        parent, name = self._place(target, source)
        node = self.nodes[inode]
        if isinstance(node, DirectoryNode):
            raise fail(errno.EPERM, source, target)
        self.nodes[inode] = node._replace(links=node.links + 1)
        self._change(parent, ((name, 0, inode),), f"link {target} (to {source})")

    def unlink(self, path: str) -> None:
        parent, name = self._split(path, dots=errno.EISDIR)
        inode = self._name(parent, name, path)
        if isinstance(self.nodes[inode], DirectoryNode):
            raise fail(errno.EISDIR, path)
        self._change(parent, ((name, inode, 0),), f"unlink {path}")
        self._unname(inode)

    def rename(self, source: str, target: str) -> None:
        self._parent(source, target)
        self._parent(target, source)  # the kernel walks to both directories before it looks at either name
        old_parent, old_name = self._split(source, target, errno.EBUSY)
        new_parent, new_name = self._split(target, source, errno.EBUSY)
        inode = self._name(old_parent, old_name, source, target)
        node = self.nodes[inode]
        if isinstance(node, DirectoryNode) and self._is_below(new_parent, inode):
            raise fail(errno.EINVAL, source, target)
        there = self._names(new_parent).get(new_name, 0)
        if there:
            if old_parent != new_parent and self._is_below(old_parent, there):
                raise fail(errno.ENOTEMPTY, source, target)
            if there == inode:
                return  # two names of one file: rename(2) does nothing
            self._may_replace(node, there, source, target)
        text = f"rename {source} to {target}"
        if old_parent == new_parent:
            self._change(old_parent, ((old_name, inode, 0), (new_name, there, inode)), text)
        else:
            self._change(new_parent, ((new_name, there, inode),), f"{text} (new name)")
            self._change(old_parent, ((old_name, inode, 0),), f"{text} (old name)", self.sequence)
        if isinstance(node, DirectoryNode):
            self.nodes[inode] = node._replace(parent=new_parent)
            self._forget_paths()
        if there:
            self._unname(there)

    def _may_replace(self, node: Node, there: int, source: str, target: str) -> None:
        old = self.nodes[there]
        if isinstance(node, DirectoryNode):
            if not isinstance(old, DirectoryNode):
                raise fail(errno.ENOTDIR, source, target)
            if old.names:
                raise fail(errno.ENOTEMPTY, source, target)
        elif isinstance(old, DirectoryNode):
            raise fail(errno.EISDIR, source, target)

    def make_directory(self, path: str) -> None:
        parent, name = self._place(path)
        self._take(DIRECTORY_BYTES, path)
        inode = self._add(DirectoryNode({}, {}, parent))
        self._change(parent, ((name, 0, inode),), f"mkdir {path}")

    def remove_directory(self, path: str) -> None:
        parent, name = self._split(path, dots=errno.ENOTEMPTY if path.endswith("..") else errno.EINVAL)
        inode = self._name(parent, name, path)
        node = self.nodes[inode]
        if not isinstance(node, DirectoryNode):
            raise fail(errno.ENOTDIR, path)
        if node.names:
            raise fail(errno.ENOTEMPTY, path)
        self._change(parent, ((name, inode, 0),), f"rmdir {path}")
        self._forget_paths()
        self._unname(inode)

    def symlink(self, target: str, path: str) -> None:
        if not target:
            raise fail(errno.ENOENT, target, path)
        parent, name = self._place(path, target)
        self._change(parent, ((name, 0, self._add(LinkNode(target))),), f"symlink {path}")

    def make_special(self, path: str, kind: str = "fifo") -> None:
        """Put something there that is no file; the engine never does."""
        parent, name = self._place(path)
        self._change(parent, ((name, 0, self._add(SpecialNode(kind))),), f"mknod {path}")

    def sync_directory(self, path: str) -> None:
        inode = self._find(path)
        if not isinstance(self.nodes[inode], DirectoryNode):
            raise fail(errno.ENOTDIR, path)
        self.synced = self.sequence
        ours = {op.sequence for op in self.log if op.directory == inode}
        if ours:
            if any(op.needs for op in self.log):
                ours = self._with_what_they_need(ours)
            self._commit([op for op in self.log if op.sequence in ours])

    def _with_what_they_need(self, sequences: set[int]) -> set[int]:
        """Return these operations, the other halves of renames, and what happened to the same names before those."""
        found = set(sequences)
        names: set[tuple[int, str]] = set()
        for op in reversed(self.log):
            touched = {(op.directory, name) for name, _, _ in op.changes}
            if op.sequence in found:
                found.add(op.needs)
                names |= touched
            elif touched & names:
                found.add(op.sequence)
                found.add(op.needs)
                names |= touched
        return found

    # -- inside: names

    def _find(self, path: str, follow: bool = False, depth: int = 0) -> int:
        """Inode of a path, the last component not followed unless asked."""
        folder, _, name = path.rpartition("/")
        parent = self._directories.get(folder)
        if parent is None:
            parent = self._folder(folder, path, depth)
        node = self.nodes[parent]
        assert isinstance(node, DirectoryNode)
        inode = node.names.get(name)
        if inode is None:
            inode = self._dotted(parent, name, path)
        if follow:
            found = self.nodes[inode]
            if isinstance(found, LinkNode):
                return self._follow(parent, found, path, depth)
        return inode

    def _follow(self, parent: int, link: LinkNode, path: str, depth: int) -> int:
        if depth >= _MAX_LINKS_FOLLOWED:
            raise fail(errno.ELOOP, path)
        target = link.target if link.target.startswith("/") else f"{self._path_of(parent)}/{link.target}"
        try:
            return self._find(target, True, depth + 1)
        except OSError as error:
            raise fail(error.errno or errno.EIO, path) from None

    def resolve(self, path: str, depth: int = 0) -> str:
        """The path with all links followed; its last component need not be there."""
        try:
            parent = self._parent(path)
        except FileNotFoundError:
            return path
        directory = self._path_of(parent)
        name = path.rpartition("/")[2]
        node = self.nodes.get(self._names(parent).get(name, 0))
        if not isinstance(node, LinkNode):
            return f"{directory}/{name}"
        if depth >= _MAX_LINKS_FOLLOWED:
            raise fail(errno.ELOOP, path)
        return self.resolve(node.target if node.target.startswith("/") else f"{directory}/{node.target}", depth + 1)

    def _dotted(self, parent: int, name: str, path: str) -> int:
        if name in ("", "."):
            return parent
        if name == "..":
            node = self.nodes[parent]
            assert isinstance(node, DirectoryNode)
            return node.parent
        if len(name.encode(errors="surrogateescape")) > _NAME_BYTES:
            raise fail(errno.ENAMETOOLONG, path)
        raise fail(errno.ENOENT, path)

    def _folder(self, folder: str, path: str, depth: int) -> int:
        """Inode of the directory part of ``path``, remembered when no link or dots were on the way."""
        if not folder.startswith("/"):
            raise fail(errno.ENOENT, path)
        upper, _, name = folder.rpartition("/")
        parent = self._directories.get(upper)
        if parent is None:
            parent = self._folder(upper, path, depth)
        inode = self._names(parent).get(name)
        plain = inode is not None and upper in self._directories
        if inode is None:
            inode = self._dotted(parent, name, path)
        node = self.nodes[inode]
        if isinstance(node, LinkNode):
            plain = False
            inode = self._follow(parent, node, path, depth)
            node = self.nodes[inode]
        if not isinstance(node, DirectoryNode):
            raise fail(errno.ENOTDIR, path)
        if plain:
            self._directories[folder] = inode
        return inode

    def _path_of(self, directory: int) -> str:
        parts: list[str] = []
        while directory != ROOT:
            node = self.nodes[directory]
            assert isinstance(node, DirectoryNode)
            siblings = self._names(node.parent)
            parts.append(next(name for name, inode in siblings.items() if inode == directory))
            directory = node.parent
        return "".join(f"/{part}" for part in reversed(parts))

    def _parent(self, path: str, other: str | None = None) -> int:
        """Inode of the directory that has (or would have) the last component."""
        folder = path.rpartition("/")[0]
        parent = self._directories.get(folder)
        if parent is not None:
            return parent
        try:
            return self._folder(folder, path, 0)
        except OSError as error:
            raise fail(error.errno or errno.EIO, path, other) from None

    def _split(self, path: str, other: str | None = None, dots: int = errno.EEXIST) -> tuple[int, str]:
        """Inode of the directory and last component, for a call that changes that name. ``dots``: the errno when
        it is no name but "." or ".."."""
        parent = self._parent(path, other)
        name = path.rpartition("/")[2]
        if name in ("", ".", ".."):
            raise fail(dots, path, other)
        if len(name) > _NAME_BYTES // 4 and len(name.encode(errors="surrogateescape")) > _NAME_BYTES:
            raise fail(errno.ENAMETOOLONG, path, other)
        return parent, name

    def _place(self, path: str, other: str | None = None) -> tuple[int, str]:
        """As ``_split``, for a name that must be free."""
        parent, name = self._split(path, other)
        if name in self._names(parent):
            raise fail(errno.EEXIST, path) if other is None else fail(errno.EEXIST, other, path)
        return parent, name

    def _names(self, directory: int) -> dict[str, int]:
        node = self.nodes[directory]
        assert isinstance(node, DirectoryNode)
        return node.names

    def _name(self, parent: int, name: str, path: str, other: str | None = None) -> int:
        inode = self._names(parent).get(name)
        if inode is None:
            raise fail(errno.ENOENT, path, other)
        return inode

    def _directory(self, path: str) -> DirectoryNode:
        inode = self._directories.get(path)
        node = self.nodes[self._find(path) if inode is None else inode]
        if not isinstance(node, DirectoryNode):
            raise fail(errno.ENOTDIR, path)
        return node

    def _is_below(self, directory: int, other: int) -> bool:
        """Whether ``directory`` is ``other`` or inside it."""
        while directory not in (other, ROOT):
            node = self.nodes[directory]
            assert isinstance(node, DirectoryNode)
            directory = node.parent
        return directory == other

    def _forget_paths(self) -> None:
        self._directories = {"/": ROOT, "": ROOT}

    # -- inside: changes

    def _add(self, node: Node) -> int:
        inode = self._next
        self._next += 1
        self.nodes[inode] = node
        return inode

    def _change(self, directory: int, changes: tuple[tuple[str, int, int], ...], text: str, needs: int = 0) -> None:
        """Change names now, and remember that it is not durable."""
        node = self.nodes[directory]
        assert isinstance(node, DirectoryNode)
        self.sequence += 1
        op = NameOp(self.sequence, directory, changes, needs, text)
        self.nodes[directory] = DirectoryNode(changed(node.names, [op]), node.durable, node.parent)
        self.log.append(op)

    def _commit(self, ops: list[NameOp]) -> None:
        """Make these operations of the log durable."""
        by_directory: dict[int, list[NameOp]] = {}
        for op in ops:
            by_directory.setdefault(op.directory, []).append(op)
        for directory, own in by_directory.items():
            node = self.nodes.get(directory)
            if isinstance(node, DirectoryNode):
                durable = changed(node.durable, own)
                names = node.names if durable != node.names else durable
                self.nodes[directory] = DirectoryNode(names, durable, node.parent)
        self._erase(ops)

    def _unname(self, inode: int) -> None:
        """A name of it is gone; what has none and is not open gives its room back."""
        node = self.nodes[inode]
        if isinstance(node, DirectoryNode):
            self._used -= DIRECTORY_BYTES
            return
        self.nodes[inode] = node = node._replace(links=node.links - 1)
        if node.links or not isinstance(node, FileNode):
            return
        if self._open.get(inode):
            self._orphans[inode] = None
        else:
            self._drop(inode)

    def _drop(self, inode: int) -> None:
        """Nobody can reach it any more: its room is given back. A crash may still bring it back."""
        node = self.nodes[inode]
        assert isinstance(node, FileNode)
        self._used -= node.content.allocated
        self._forget(inode)

    def _forget(self, inode: int) -> None:
        """Take a node away that has no name, if no crash can bring it back."""
        node = self.nodes.get(inode)
        if node is None or self._open.get(inode) or self._is_named(inode, node):
            return
        if any(inode in (had, gets) for op in self.log for _, had, gets in op.changes):
            return
        del self.nodes[inode]
        self.dirty.pop(inode, None)
        if isinstance(node, DirectoryNode):
            self._erase([op for op in self.log if op.directory == inode])  # nobody will ever see what these did

    def _is_named(self, inode: int, node: Node) -> bool:
        if isinstance(node, DirectoryNode):
            parent = self.nodes.get(node.parent)
            return inode == ROOT or (isinstance(parent, DirectoryNode) and inode in parent.names.values())
        return node.links > 0

    def _erase(self, ops: list[NameOp]) -> None:
        """Take operations out of the log that are durable, or that do not matter any more."""
        gone = {op.sequence for op in ops}
        self.log = [op for op in self.log if op.sequence not in gone]
        for op in ops:
            for _, had, gets in op.changes:
                self._forget(had)
                self._forget(gets)

    def _take(self, size: int, path: str) -> None:
        """Occupy room (or give it back, when negative). ENOSPC."""
        if size > 0 and self._used + size > self.capacity:
            raise fail(errno.ENOSPC, path)
        self._used += size


def changed(names: dict[str, int], ops: Iterable[NameOp]) -> dict[str, int]:
    """``names`` after these operations. A removal whose name means another inode by then does nothing:
    that can only be when an operation before it was lost."""
    names = names.copy()
    for op in ops:
        for name, had, gets in op.changes:
            if gets:
                if had == 0 and name in names:
                    del names[name]  # keeps the order of creation
                names[name] = gets
            elif names.get(name) == had:
                del names[name]
    return names
