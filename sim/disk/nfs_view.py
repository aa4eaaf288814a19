"""What one NFS client believes of a server's names and attributes, which others change meanwhile (as measured).

* A name that was looked up and not found is not found for 30 s, though another host has made it.
* A name that was found means the same file for 30 s, though another host has replaced or removed it. When the
  server says that the file is gone, the name is looked up once more.
* ``stat`` of a file tells the size that it had up to 3 s ago; opening it asks the server.
* Listing a directory asks the server, and what was believed of the names in it is forgotten.
* Making, linking, renaming and removing a name is decided by the server, and what this host does it knows.

Virtual time may stand still between two steps: then nothing that is believed becomes true by waiting.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator

from engine.doors.files import Entry, Stat, Unlocked
from engine.doors.users import User
from sim.disk.files import SimFiles, SimHandle
from sim.disk.nodes import FileNode, fail
from sim.disk.storage import SimStorage

NAMES_S = 30.0
ATTRIBUTES_S = 3.0


class HostView:
    """The caches of one host."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._names: dict[tuple[int, str], tuple[float, int]] = {}
        """(until, inode; 0: there is none) by storage and path."""
        self._stats: dict[tuple[int, int], tuple[float, Stat]] = {}

    def find(self, storage: SimStorage, path: str) -> int:
        """The inode that a path is believed to be; FileNotFoundError when it is believed not to be."""
        for folder in _above(path):
            if self._known(storage, folder) == 0:
                raise fail(errno.ENOENT, path)
        inode = self._known(storage, path)
        if inode == 0:
            raise fail(errno.ENOENT, path)
        return inode if inode and not _is_gone(storage, inode) else self._ask(storage, path)

    def _known(self, storage: SimStorage, path: str) -> int | None:
        until, inode = self._names.get((storage.device, path), (0.0, 0))
        return inode if until > self._now() else None

    def _ask(self, storage: SimStorage, path: str) -> int:
        try:
            inode = storage.stat(path).inode
        except FileNotFoundError:
            self._names[storage.device, path] = (self._now() + NAMES_S, 0)
            raise
        self._names[storage.device, path] = (self._now() + NAMES_S, inode)
        return inode

    def stat(self, storage: SimStorage, path: str) -> Stat:
        """As it was up to some seconds ago."""
        inode = self.find(storage, path)
        until, known = self._stats.get((storage.device, inode), (0.0, None))
        if known is None or until <= self._now():
            known = storage.stat_inode(inode)
            self._stats[storage.device, inode] = (self._now() + ATTRIBUTES_S, known)
        return known

    def opened(self, storage: SimStorage, inode: int) -> None:
        """The server was asked for its attributes; what this host writes from here on it knows."""
        self._stats.pop((storage.device, inode), None)

    def listed(self, storage: SimStorage, path: str) -> None:
        """A directory was read."""
        start = f"{path}/"
        for key in [key for key in self._names if key[0] == storage.device and key[1].startswith(start)]:
            if "/" not in key[1][len(start) :]:
                del self._names[key]

    def did(self, storage: SimStorage, *paths: str) -> None:
        """The server has just answered about these names."""
        for path in paths:
            self._names.pop((storage.device, path), None)
            for key in [key for key in self._names if key[0] == storage.device and key[1].startswith(f"{path}/")]:
                del self._names[key]


def _is_gone(storage: SimStorage, inode: int) -> bool:
    node = storage.nodes.get(inode)
    return node is None or (isinstance(node, FileNode) and not node.links)


def _above(path: str) -> Iterator[str]:
    """The directories on the way to a path."""
    end = path.find("/", 1)
    while end > 0:
        yield path[:end]
        end = path.find("/", end + 1)


class NfsFiles(SimFiles):
    """The files of a process; the shared storage is seen through the caches of its host."""

    view: HostView

    def _remote(self, path: str) -> str:
        """What the path is called on the server; "" when it is on a storage of the host's own."""
        storage, inside = self.locate(path)
        return inside if storage is self.storage else ""

    def list_directory(self, path: str, having: str = "") -> list[Entry]:
        inside = self._remote(path)
        if not inside:
            return super().list_directory(path, having)
        self.gate.enter("files.list_directory", path)
        self.view.find(self.storage, inside)
        self.view.listed(self.storage, inside)
        return self._in_order(self.storage.list_directory(inside), having)

    def users(self, path: str, unlocked: Unlocked = Unlocked.NOBODY) -> list[User]:
        inside = self._remote(path)
        if not inside:
            return super().users(path, unlocked)
        self.gate.enter("files.users", path)
        found = self.view.stat(self.storage, inside)
        return [self._user(*held) for held in self.locks.users((found.device, found.inode), self.owner)]

    def inode_generation(self, path: str) -> int | None:
        if not self._remote(path):
            return super().inode_generation(path)
        self.gate.enter("files.inode_generation", path)
        return None

    def stat(self, path: str) -> Stat:
        inside = self._remote(path)
        if not inside:
            return super().stat(path)
        self.gate.enter("files.stat", path)
        return self.view.stat(self.storage, inside)

    def read_file(self, path: str, limit: int) -> bytes:
        inside = self._remote(path)
        if not inside:
            return super().read_file(path, limit)
        self.gate.enter("files.read_file", path)
        node = self.storage.nodes[self._opened(inside, False)]
        assert isinstance(node, FileNode)
        return self._whole(node, path, limit)

    def open(self, path: str, writable: bool = False) -> SimHandle:
        inside = self._remote(path)
        if not inside:
            return super().open(path, writable)
        self.gate.enter("files.open", path)
        return SimHandle(self, self.storage, self._opened(inside, writable), path, writable)

    def _opened(self, inside: str, writable: bool) -> int:
        inode = self.view.find(self.storage, inside)
        self.view.opened(self.storage, inode)
        if not isinstance(self.storage.nodes[inode], FileNode):
            return self.storage.file(inside, writable)[0]  # says what it is instead
        return inode

    def create(self, path: str) -> SimHandle:
        with self._asking(path):
            return super().create(path)

    def link(self, source: str, target: str) -> None:
        with self._asking(source, target):
            super().link(source, target)

    def rename(self, source: str, target: str) -> None:
        with self._asking(source, target):
            super().rename(source, target)

    def unlink(self, path: str) -> None:
        with self._asking(path):
            super().unlink(path)

    def make_directory(self, path: str) -> None:
        with self._asking(path):
            super().make_directory(path)

    def remove_directory(self, path: str) -> None:
        with self._asking(path):
            super().remove_directory(path)

    def symlink(self, target: str, path: str) -> None:
        with self._asking(path):
            super().symlink(target, path)

    @contextlib.contextmanager
    def _asking(self, *paths: str) -> Iterator[None]:
        """Whatever the server answers about names, it is known then."""
        try:
            yield
        finally:
            for inside in filter(None, map(self._remote, paths)):
                self.view.did(self.storage, inside)
