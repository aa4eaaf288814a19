"""A simulated file system: inodes, names, and what of them would survive a power cut.

The model. A file has a content (what everybody reads now) and a durable content, and a list of
changes since the last sync. A directory has its names and its durable names; changes of names
are micro-operations in one log. ``FileHandle.sync`` makes the changes of that file durable and
nothing else; ``sync_directory`` makes the names of that directory durable and nothing else; so
the content of a file and its name are independent, as POSIX has it. A rename inside a directory
is one micro-operation; one across directories is a new name and the removal of the old one, the
latter never surviving without the former. After a failed sync the changes count as written to
nobody: they are read until a crash, later syncs succeed, and they are lost by the crash.
``sim.disk.profiles`` enumerates the states that may be found after a crash.

A file that lost its last name lives until its last handle is closed; after a crash it is back
when the removal of its name was lost. Nodes are immutable, so ``clone`` copies two dictionaries.

Not modelled: permissions, timestamps (``mtime_ns`` is a counter), quotas, extended attributes,
limits of names and directories, read caches (every reader sees the newest content at once; see
the sections on NFS in the plan), blocks shared by ``clone`` (the copy occupies room of its own),
metadata that needs room (only a directory needs a block).

Paths are absolute. Symbolic links are followed in all components but the last.
"""

from __future__ import annotations

import errno
from collections.abc import Container, Iterator
from hashlib import blake2b

from engine.doors.files import Entry, Kind, Space, Stat
from sim.disk.content import Content
from sim.disk.nodes import KINDS, ROOT, DataOp, DirectoryNode, FileNode, LinkNode, NameOp, Node, fail
from sim.disk.tree import DIRECTORY_BYTES, NameTree

DEFAULT_CAPACITY = 1 << 50
MAX_FILE_BYTES = 16 << 40


class SimStorage(NameTree):
    """One file system that any number of simulated hosts may use."""

    def __init__(self, capacity: int = DEFAULT_CAPACITY, device: int = 1) -> None:
        self.device = device
        self.capacity = capacity
        self.max_file_bytes = MAX_FILE_BYTES
        self.direct_io = True
        self.reflink = False
        self.hole_punching = True
        self.flush_on_close = False
        """As an NFS client does."""
        self.nodes: dict[int, Node] = {ROOT: DirectoryNode({}, {}, ROOT)}
        self.log: list[NameOp] = []
        """Changes of names that are not durable yet, in order."""
        self.dirty: dict[int, None] = {}
        """Files whose content is not durable."""
        self.devices: frozenset[int] = frozenset()
        """Files that are devices: a power cut leaves any sectors of what was written to them."""
        self.sequence = 0
        self.synced = 0
        """Sequence of the last sync of anything: what one journal would have committed."""
        self._next = ROOT + 1
        self._numbers: dict[int, int] = {}
        """Inodes that have the number of an earlier one."""
        self._open: dict[int, int] = {}
        self._orphans: dict[int, None] = {}
        self._used = DIRECTORY_BYTES
        self._directories: dict[str, int] = {"/": ROOT, "": ROOT}

    # -- whole states

    def clone(self) -> SimStorage:
        """The same state with nothing open: what a killed process leaves. Cheap, and independent from now on."""
        copy = self.blank()
        copy.nodes = self.nodes.copy()
        copy.log = self.log.copy()
        copy.dirty = self.dirty.copy()
        copy.sequence, copy.synced, copy._used = self.sequence, self.synced, self._used
        for inode in self._orphans:
            copy._drop(inode)
        return copy

    def blank(self) -> SimStorage:
        """An empty storage of the same make that hands out inode numbers from where this one is."""
        copy = SimStorage.__new__(SimStorage)
        copy.__dict__.update(self.__dict__)
        copy.nodes, copy.log, copy.dirty = {}, [], {}
        copy._open, copy._orphans = {}, {}
        copy._directories = {"/": ROOT, "": ROOT}
        return copy

    def become(self, state: SimStorage) -> None:
        """Take over another state in place: everybody who has this storage finds it so. Handles that are open
        keep working on files that nobody else sees."""
        opened, orphans = self._open, self._orphans
        kept = {inode: self.nodes[inode] for inode in opened if inode in self.nodes}
        self.__dict__.update(state.clone().__dict__)
        self._open, self._orphans = opened, orphans
        for inode, node in kept.items():
            self.nodes.setdefault(inode, node)

    def settle(self, but: Container[int] = ()) -> None:
        """Make everything durable, as a clean unmount does; ``but`` the contents of some files."""
        for inode in [inode for inode in self.dirty if inode not in but]:
            self.sync(inode)
        self._commit(self.log)
        self.synced = self.sequence

    def walk(self) -> Iterator[tuple[str, int, Node]]:
        """(path, inode, node) of everything that has a name, in the order of the names, the root left out."""
        todo = [("", ROOT)]
        while todo:
            path, inode = todo.pop()
            node = self.nodes[inode]
            if inode != ROOT:
                yield path, inode, node
            if isinstance(node, DirectoryNode):
                todo += [(f"{path}/{name}", node.names[name]) for name in sorted(node.names, reverse=True)]

    def fingerprint(self) -> bytes:
        """Names and contents as they are now; inode numbers, history and what is durable do not count.

        Two names of one file differ from two files that are alike."""
        return blake2b(self._tree(ROOT, {}), digest_size=16).digest()

    def _tree(self, inode: int, seen: dict[int, int]) -> bytes:
        parts = []
        nodes = self.nodes
        names = nodes[inode].names  # type: ignore[union-attr]
        for name in sorted(names):
            child = names[name]
            node = nodes[child]
            if isinstance(node, FileNode):
                content = node.content
                parts.append(b"f%s\0%s" % (name.encode(errors="surrogateescape"), content.digest))
                if node.links > 1:
                    parts.append(b"#%d" % seen.setdefault(child, len(seen)))
            elif isinstance(node, DirectoryNode):
                inner = self._tree(child, seen)
                parts.append(b"d%s\0%d:%s" % (name.encode(errors="surrogateescape"), len(inner), inner))
            else:
                parts.append(b"o%s\0%s" % (name.encode(errors="surrogateescape"), repr(node[0]).encode()))
        return b"\n".join(parts)

    def pending(self) -> list[str]:
        """What a power cut might lose, one text per operation; the changes of one file's content are one."""
        paths = {inode: path for path, inode, _ in self.walk()}
        found = [op.text for op in self.log]
        for inode in self.dirty:
            node = self.nodes[inode]
            assert isinstance(node, FileNode)
            what = "; ".join(str(op) for op in node.pending) or "changes whose sync failed"
            found.append(f"data of {paths.get(inode, f'a file without a name (inode {inode})')}: {what}")
        return found

    # -- looking

    def list_directory(self, path: str) -> list[Entry]:
        """Return the entries of a directory in the order in which the names were made."""
        node = self._directory(path)
        nodes = self.nodes
        numbers = self._numbers
        return [Entry(name, KINDS[type(nodes[i])], numbers.get(i, i)) for name, i in node.names.items()]

    def stat(self, path: str) -> Stat:
        return self.stat_inode(self._find(path))

    def give_number(self, path: str, number: int) -> None:
        """Have a file or directory the inode number of one that is gone, as file systems give them again."""
        self._numbers = {**self._numbers, self._find(path): number}

    def stat_inode(self, inode: int) -> Stat:
        node = self.nodes[inode]
        inode = self._numbers.get(inode, inode)
        if isinstance(node, FileNode):
            content = node.content
            return Stat(Kind.FILE, content.size, content.allocated, inode, node.links, node.mtime, self.device)
        if isinstance(node, DirectoryNode):
            below = sum(isinstance(self.nodes[child], DirectoryNode) for child in node.names.values())
            return Stat(Kind.DIRECTORY, DIRECTORY_BYTES, DIRECTORY_BYTES, inode, 2 + below, 0, self.device)
        size = len(node.target.encode(errors="surrogateescape")) if isinstance(node, LinkNode) else 0
        return Stat(KINDS[type(node)], size, 0, inode, node.links, 0, self.device)

    def file(self, path: str, writable: bool = False) -> tuple[int, FileNode]:
        """Inode and node of a regular file; ELOOP for a link, EISDIR or EINVAL for a directory, EINVAL for the rest."""
        inode = self._find(path)
        node = self.nodes[inode]
        if isinstance(node, FileNode):
            return inode, node
        if isinstance(node, LinkNode):
            raise fail(errno.ELOOP, path)
        raise fail(errno.EISDIR if writable and isinstance(node, DirectoryNode) else errno.EINVAL, path)

    def space(self, path: str) -> Space:
        self._find(path, follow=True)
        return Space(self.capacity, max(0, self.capacity - self._used))

    # -- changing content, by inode: an open file needs no name

    def opened(self, inode: int) -> None:
        """Count one more handle of a file."""
        self._open[inode] = self._open.get(inode, 0) + 1

    def closed(self, inode: int) -> None:
        """Count one handle less; the last one of a file without a name gives the room of the file back."""
        left = self._open.get(inode, 0) - 1
        if left > 0:
            self._open[inode] = left
            return
        self._open.pop(inode, None)
        if inode in self._orphans:
            del self._orphans[inode]
            self._drop(inode)

    def content(self, inode: int) -> Content:
        """What an open file reads as now."""
        node = self.nodes[inode]
        assert isinstance(node, FileNode)
        return node.content

    def change(self, inode: int, op: DataOp, path: str = "") -> None:
        """Apply one change of content (its sequence is set here). ENOSPC and EFBIG change nothing."""
        node = self.nodes[inode]
        assert isinstance(node, FileNode)
        if op.offset < 0 or op.length < 0:
            raise fail(errno.EINVAL, path)
        if op.offset + op.length > self.max_file_bytes:
            raise fail(errno.EFBIG, path)
        content = op.apply(node.content)
        more = content.allocated - node.content.allocated
        if more:
            self._take(more, path)
        self.sequence += 1
        op = DataOp(self.sequence, op.kind, op.offset, op.length, op.data)
        self.nodes[inode] = FileNode(
            content, node.durable, (*node.pending, op), node.tainted, node.links, self.sequence
        )
        self.dirty[inode] = None

    def sync(self, inode: int) -> None:
        """Make what was written to a file durable."""
        self.synced = self.sequence
        node = self.nodes[inode]
        assert isinstance(node, FileNode)
        if not node.pending:
            return
        durable = node.content
        if node.tainted:
            durable = node.durable
            for op in node.pending:
                durable = op.apply(durable)
        else:
            self.dirty.pop(inode, None)
        self.nodes[inode] = FileNode(node.content, durable, (), node.tainted, node.links, node.mtime)

    def lose_pending(self, inode: int) -> None:
        """A sync failed: what was written since the last one is clean and will never be durable."""
        node = self.nodes[inode]
        assert isinstance(node, FileNode)
        if node.pending:
            self.nodes[inode] = node._replace(pending=(), tainted=True)
