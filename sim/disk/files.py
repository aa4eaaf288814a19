"""The file door of a simulated process.

``SimFiles`` answers as the kernel would: the same results, the same ``errno``. Before each call it
asks its gate, which may end the process (``sim.hosts.crash.Crashed``), let others run, or make the call
fail; what the gate answers for writes and syncs is a ``Fault`` that the call carries out itself.
A dead process may still close and release: that touches nothing.

Beyond the door's contract, for what plays the part of qemu: ``segments`` (SEEK_DATA), ``fill``,
``punch`` and ``content`` of a handle.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from types import TracebackType
from typing import Protocol, Self

from engine.doors.files import Abilities, Access, Entry, FileHandle, RunPlace, Space, Stat, Unlocked
from engine.doors.users import User
from sim.disk.content import Content, Segment
from sim.disk.nodes import DataOp, FileNode, fail
from sim.disk.storage import SimStorage

RUN_MOUNT = "/run"
"""Where each host has what is gone when it boots."""


class Fault(IntEnum):
    """What a call is to do to itself."""

    NONE = 0
    SHORT = 1
    """Write half, then ask the gate again before the rest."""
    SYNC_FAILS = 2
    """EIO; what was written since the last sync counts as clean and will be lost."""
    REPLY_LOST = 3
    """Of a link: it is made, and the answer is that the name is taken, as when a request is sent twice."""


class Gate(Protocol):
    """What stands before every door of one process."""

    dead: bool
    """Nothing that this process does reaches the storage any more."""

    def enter(self, call: str, what: str) -> Fault:
        """Take note that a door is about to be called, such as ("files.link", path). May raise OSError (the call
        fails and does nothing) or Crashed."""


class OpenGate:
    """Lets everything pass."""

    dead = False

    def enter(self, call: str, what: str) -> Fault:
        return Fault.NONE


class FileLocks(Protocol):
    """The locks for writing that handles take, by (device, inode); they keep the programs away that work on images."""

    def take_whole(self, identity: tuple[int, int]) -> bool: ...

    def is_whole(self, identity: tuple[int, int]) -> bool: ...

    def release_whole(self, identity: tuple[int, int]) -> None: ...

    def users(self, identity: tuple[int, int], but: str) -> list[tuple[str, bool]]: ...

    def unlocked(self, identity: tuple[int, int], but: str) -> list[str]: ...


class NoLocks:
    """Nobody else is there."""

    def take_whole(self, identity: tuple[int, int]) -> bool:
        return True

    def is_whole(self, identity: tuple[int, int]) -> bool:
        return False

    def release_whole(self, identity: tuple[int, int]) -> None:
        return

    def users(self, identity: tuple[int, int], but: str) -> list[tuple[str, bool]]:
        return []

    def unlocked(self, identity: tuple[int, int], but: str) -> list[str]:
        return []


class Words(Protocol):
    """How a program of another version says in files what this one says."""

    def written(self, raw: bytes) -> bytes: ...

    def read(self, raw: bytes) -> bytes: ...


class SimHandle:
    """An open file. It keeps meaning the same inode, whatever happens to its name."""

    def __init__(self, files: SimFiles, storage: SimStorage, inode: int, path: str, writable: bool) -> None:
        self.storage = storage
        self.inode = inode
        self.path = path
        self._files = files
        self._gate = files.gate
        self._writable = writable
        self._closed = False
        self._locked = False
        self._revoked = False
        storage.opened(inode)
        files.handles.add(self)

    @property
    def writable(self) -> bool:
        """Whether it was opened for writing, and its lock was not lost."""
        return self._writable and not self._revoked

    # -- the door's contract

    def read_at(self, offset: int, length: int) -> bytes:
        self._enter("handle.read_at")
        if offset < 0 or length < 0:
            raise fail(errno.EINVAL, self.path)
        return self.storage.content(self.inode).read(offset, length)

    def write_at(self, offset: int, data: bytes) -> None:
        fault = self._enter("handle.write_at")
        data = bytes(data) if self._files.words is None else self._files.words.written(data)
        if fault is Fault.SHORT and len(data) > 1:
            half = len(data) // 2
            self._change(DataOp(0, "write", offset, half, data[:half]))
            self._enter("handle.write_at")
            offset, data = offset + half, data[half:]
        if data:
            self._change(DataOp(0, "write", offset, len(data), data))

    def held_path(self) -> str:
        return self.path

    def truncate(self, size: int) -> None:
        self._enter("handle.truncate")
        if not self._writable:
            raise fail(errno.EINVAL, self.path)
        self._change(DataOp(0, "truncate", 0, size, 0))

    def lock(self) -> bool:
        self._enter("handle.lock")
        if not self._locked:
            self._locked = self._files.locks.take_whole((self.storage.device, self.inode))
        return self._locked

    def revoke(self) -> None:
        """Make every further call of the handle fail (EIO), as for an NFS client whose lock was given to others.
        Nothing when the handle has no lock."""
        if self._locked:
            self._files.locks.release_whole((self.storage.device, self.inode))
            self._locked, self._revoked = False, True

    def give(self, access: Access) -> None:
        self._enter("handle.give")  # there is one user here

    def sync(self) -> None:
        if self._enter("handle.sync") is Fault.SYNC_FAILS:
            self.storage.lose_pending(self.inode)
            raise fail(errno.EIO, self.path)
        self.storage.sync(self.inode)

    def stat(self) -> Stat:
        self._enter("handle.stat")
        return self.storage.stat_inode(self.inode)

    def close(self) -> None:
        """As the contract says; the gate is not asked, so that a dead process may do it."""
        if not self._closed:
            self._closed = True
            self._files.handles.discard(self)
            if self._writable and self.storage.flush_on_close and self.inode in self.storage.dirty:
                self.storage.sync(self.inode)
            if self._locked:
                self._files.locks.release_whole((self.storage.device, self.inode))
            self.storage.closed(self.inode)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- for simulated programs

    @property
    def content(self) -> Content:
        """The content as it is now, immutable; the gate is not asked."""
        return self.storage.content(self.inode)

    def segments(self, offset: int = 0, length: int | None = None) -> Iterator[Segment]:
        """Data and holes of a range, in order."""
        self._enter("handle.segments")
        return self.storage.content(self.inode).segments(offset, length)

    def fill(self, offset: int, length: int, byte: int) -> None:
        """Write ``byte`` so many times, at no cost."""
        self._enter("handle.write_at")
        if length:
            self._change(DataOp(0, "fill", offset, length, byte))

    def punch(self, offset: int, length: int) -> None:
        """Make a hole, the size stays."""
        self._enter("handle.write_at")
        if length:
            self._change(DataOp(0, "punch", offset, length, 0))

    # -- inside

    def _enter(self, call: str) -> Fault:
        fault = self._gate.enter(call, self.path)
        if self._closed:
            raise fail(errno.EBADF, self.path)
        if self._revoked:
            raise fail(errno.EIO, self.path)
        return fault

    def _change(self, op: DataOp) -> None:
        if not self._writable:
            raise fail(errno.EBADF, self.path)
        self.storage.change(self.inode, op, self.path)


Bind = tuple[SimStorage, str]
"""A storage and a directory in it."""


class SimFiles:
    """One process's view of its host's file systems.

    ``mounts`` maps a directory to the storage that is mounted there; each storage has all its
    directories by their full paths. ``binds`` is what the host has mounted since, and may change: directories
    and what appears there, as (storage, directory in it). ``order`` shuffles listings: 0 is the order of creation.
    ``locks`` are the locks of handles."""

    def __init__(
        self,
        storage: SimStorage,
        gate: Gate | None = None,
        mounts: Mapping[str, SimStorage] | None = None,
        order: int = 0,
        locks: FileLocks | None = None,
        binds: Mapping[str, Bind] | None = None,
    ) -> None:
        self.storage = storage
        self.locks: FileLocks = locks if locks is not None else NoLocks()
        self.gate: Gate = gate if gate is not None else OpenGate()
        self.handles: set[SimHandle] = set()
        self.devices: Callable[[str, bool], FileHandle] | None = None
        """Opens devices, where there are any."""
        self.words: Words | None = None
        """None: those of this program."""
        self.owner = ""
        """Whose files they are, as ``host pid name``, for locks that can be asked who has them."""
        self.order = order
        self._binds = binds if binds is not None else {}
        self._mounts = [(f"{path}/", mounted) for path, mounted in (mounts or {}).items()]

    def storage_of(self, path: str) -> SimStorage:
        """The file system that holds ``path``."""
        return self.locate(path)[0]

    def locate(self, path: str) -> Bind:
        """The file system that holds ``path``, and what it is called there."""
        for point in self._binds:
            if path.startswith(point) and path[len(point) : len(point) + 1] in ("", "/"):
                storage, directory = self._binds[point]
                return storage, directory + path[len(point) :]
        for prefix, storage in self._mounts:
            if path.startswith(prefix) or path == prefix[:-1]:
                return storage, path
        return self.storage, path

    def close_all(self) -> None:
        """What the kernel does when a process ends."""
        for handle in list(self.handles):
            handle.close()

    def run_place(self) -> RunPlace:
        return RunPlace(RUN_MOUNT if any(prefix == f"{RUN_MOUNT}/" for prefix, _ in self._mounts) else "", True)

    def privileged(self) -> bool:
        return True

    def list_directory(self, path: str, having: str = "") -> list[Entry]:
        self.gate.enter("files.list_directory", path)
        storage, inside = self.locate(path)
        return self._in_order(storage.list_directory(inside), having)

    def _in_order(self, entries: list[Entry], having: str = "") -> list[Entry]:
        if having:
            entries = [entry for entry in entries if having in entry.name]
        return entries if not self.order else _shuffled(entries, self.order)

    def stat(self, path: str) -> Stat:
        self.gate.enter("files.stat", path)
        storage, inside = self.locate(path)
        return storage.stat(inside)

    def read_file(self, path: str, limit: int) -> bytes:
        self.gate.enter("files.read_file", path)
        storage, inside = self.locate(path)
        return self._whole(storage.file(inside)[1], path, limit)

    def _whole(self, node: FileNode, path: str, limit: int) -> bytes:
        data = node.content.read(0, limit + 1)
        if len(data) > limit:
            raise OSError(errno.EFBIG, f"longer than {limit} bytes", path)
        return data if self.words is None else self.words.read(data)

    def users(self, path: str, unlocked: Unlocked = Unlocked.NOBODY) -> list[User]:
        self.gate.enter("files.users", path)
        storage, inside = self.locate(path)
        identity = storage.device, storage.file(inside)[0]
        found = [self._user(owner, writes) for owner, writes in self.locks.users(identity, self.owner)]
        if unlocked is not Unlocked.NOBODY:
            found += [self._user(owner, True) for owner in self.locks.unlocked(identity, self.owner)]
        return found

    def _user(self, owner: str, writes: bool) -> User:
        """Processes of another host are not seen; only their locks are, where the storage is shared."""
        host, _, process = owner.partition(" ")
        pid, _, name = process.partition(" ")
        here = bool(pid) and host == self.owner.partition(" ")[0]
        return User(int(pid), name, writes) if here else User(0, "", writes)

    def look(self, path: str, length: int) -> tuple[Stat, bytes]:
        with self.open(path) as handle:
            return handle.stat(), handle.read_at(0, length)

    def open(self, path: str, writable: bool = False) -> SimHandle:
        self.gate.enter("files.open", path)
        storage, inside = self.locate(path)
        inode, _ = storage.file(inside, writable)
        return SimHandle(self, storage, inode, path, writable)

    def open_source(self, path: str) -> SimHandle:
        return self.open(path)

    def open_block(self, path: str, writable: bool) -> FileHandle:
        """A device, for simulated programs. What the engine itself opens here are files."""
        if self.devices is None:
            raise fail(errno.ENXIO, path)
        return self.devices(path, writable)

    def create(self, path: str) -> SimHandle:
        self.gate.enter("files.create", path)
        storage, inside = self.locate(path)
        return SimHandle(self, storage, storage.create(inside), path, True)

    def link(self, source: str, target: str) -> None:
        fault = self.gate.enter("files.link", f"{source} {target}")
        storage, old, new = self._one(source, target)
        storage.link(old, new)
        if fault is Fault.REPLY_LOST:
            raise fail(errno.EEXIST, source, target)

    def rename(self, source: str, target: str) -> None:
        self.gate.enter("files.rename", f"{source} {target}")
        storage, old, new = self._one(source, target)
        storage.rename(old, new)

    def unlink(self, path: str) -> None:
        self.gate.enter("files.unlink", path)
        storage, inside = self.locate(path)
        storage.unlink(inside)

    def make_directory(self, path: str) -> None:
        self.gate.enter("files.make_directory", path)
        storage, inside = self.locate(path)
        storage.make_directory(inside)

    def let_pass(self, path: str) -> None:
        self.stat(path)

    def remove_directory(self, path: str) -> None:
        self.gate.enter("files.remove_directory", path)
        storage, inside = self.locate(path)
        storage.remove_directory(inside)

    def resolve(self, path: str) -> str:
        self.gate.enter("files.resolve", path)
        storage, inside = self.locate(path)
        found = storage.resolve(inside)
        return path if found == inside else found

    def symlink(self, target: str, path: str) -> None:
        self.gate.enter("files.symlink", path)
        storage, inside = self.locate(path)
        storage.symlink(target, inside)

    def sync_directory(self, path: str) -> None:
        if self.gate.enter("files.sync_directory", path) is Fault.SYNC_FAILS:
            raise fail(errno.EIO, path)
        storage, inside = self.locate(path)
        storage.sync_directory(inside)

    def space(self, path: str) -> Space:
        self.gate.enter("files.space", path)
        storage, inside = self.locate(path)
        return storage.space(inside)

    def clone(self, source: FileHandle, target: FileHandle) -> bool:
        assert isinstance(source, SimHandle) and isinstance(target, SimHandle)
        self.gate.enter("files.clone", target.path)
        if not source.storage.reflink or source.storage is not target.storage:
            return False
        content = source.content
        if target.content.size > content.size:  # FICLONE keeps what the target has beyond that
            content = _overlay(target.content, content)
        target._change(DataOp(0, "clone", 0, content.size, content))
        return True

    def inode_generation(self, path: str) -> int | None:
        self.gate.enter("files.inode_generation", path)
        storage, inside = self.locate(path)
        return storage.file(inside)[0]

    def probe(self, path: str) -> Abilities:
        """The storage's own word, after the effects that a try has: a file is made and removed."""
        with self.create(path):
            self.unlink(path)
        storage = self.storage_of(path)
        return Abilities(storage.direct_io, storage.reflink, storage.hole_punching, storage.max_file_bytes)

    def _one(self, source: str, target: str) -> tuple[SimStorage, str, str]:
        storage, old = self.locate(source)
        other, new = self.locate(target)
        if storage is not other:
            raise fail(errno.EXDEV, source, target)
        return storage, old, new


def _overlay(below: Content, top: Content) -> Content:
    content = below.punch(0, top.size)
    for start, end, data, skip in top.runs:
        if isinstance(data, int):
            content = content.fill(start, end - start, data)
        else:
            content = content.write(start, data[skip : skip + end - start])
    return content


def _shuffled(entries: list[Entry], order: int) -> list[Entry]:
    from zlib import crc32

    salt = order.to_bytes(8, "big")
    return sorted(entries, key=lambda entry: (crc32(salt + entry.name.encode(errors="surrogateescape")), entry.name))
