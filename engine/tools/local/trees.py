"""Directory trees of the kernel, behind the tree door: each step on the way is opened by its own name (openat(2))."""

from __future__ import annotations

import contextlib
import errno
import os
import stat as stat_module
from collections.abc import Callable, Iterator

from engine.doors.files import Kind
from engine.doors.trees import Held, Member, Start
from engine.doors.users import User
from engine.tools.local.files import file_users, held_path, stat_of
from engine.tools.local.openers import loop_devices

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class RealTree:
    """A directory of this host. Files are best read directory by directory: the last one stays open."""

    group = None

    def __init__(self, path: str) -> None:
        """Open the root, following links: an operator has named it. OSError, ENOTDIR where it is no directory."""
        given = os.path.abspath(path)
        true = os.path.realpath(given)
        self._names = (true,) if given == true else (true, given)
        self._root = _unnoticed(lambda flags: os.open(true, flags), _DIRECTORY)
        self._loops = loop_devices()
        self._here = ""
        self._descriptor = self._root

    @property
    def names(self) -> tuple[str, ...]:
        """The real path, and the given one where it is another."""
        return self._names

    def list(self, path: str) -> list[Member]:
        """Scan the directory once, with an lstat(2) for each name."""
        found = []
        directory = self._enter(path)
        with os.scandir(directory) as entries:
            for entry in entries:
                try:
                    stat = stat_of(entry.stat(follow_symlinks=False))
                    target = os.readlink(entry.name, dir_fd=directory) if stat.kind is Kind.SYMLINK else ""
                except FileNotFoundError:
                    continue
                found.append(Member(entry.name, stat, target))
        return found

    def start(self, path: str, length: int) -> Start:
        """Open, look who has it locked, read once."""
        descriptor = self._open(path)
        try:
            status = os.fstat(descriptor)
            data = os.pread(descriptor, length, 0)
            loops = self._loops.get((status.st_dev, status.st_ino), ())
            return Start(data, status.st_size, (*_users(descriptor, path, status), *loops))
        finally:
            os.close(descriptor)

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Open, read once: a short read of a regular file means its end."""
        descriptor = self._open(path)
        try:
            return os.pread(descriptor, length, offset)
        except OverflowError:
            raise OSError(errno.EINVAL, f"no file has an offset of {offset:#x}", path) from None
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def hold(self, path: str) -> Iterator[Held]:
        """Open, and name the descriptor in /proc."""
        descriptor = self._open(path)
        try:
            status = os.fstat(descriptor)
            yield Held(held_path(descriptor), status.st_dev, status.st_ino)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Close the root and the last directory."""
        self._leave()
        if self._root >= 0:
            os.close(self._root)
            self._root = self._descriptor = -1

    def _open(self, path: str) -> int:
        """Open a regular file below the root. It is looked at first: to open a device may have effects."""
        folder, _, name = path.rpartition("/")
        directory = self._enter(folder)
        _one_part(name)
        if not stat_module.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            raise OSError(errno.EINVAL, "no regular file", path)
        descriptor = _unnoticed(lambda flags: os.open(name, flags, dir_fd=directory), _FILE)
        if not stat_module.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "no regular file", path)
        return descriptor

    def _enter(self, path: str) -> int:
        """Return a descriptor of the directory, which stays ours."""
        if path == self._here:
            return self._descriptor
        self._leave()
        if not path:
            return self._root
        descriptor = self._root
        for name in path.split("/"):
            _one_part(name)
            above = descriptor
            try:
                descriptor = _open_directory(name, above)
            finally:
                if above != self._root:
                    os.close(above)
        self._here, self._descriptor = path, descriptor
        return descriptor

    def _leave(self) -> None:
        if self._descriptor != self._root:
            os.close(self._descriptor)
        self._here, self._descriptor = "", self._root


def _open_directory(name: str, above: int) -> int:
    return _unnoticed(lambda flags: os.open(name, flags, dir_fd=above), _DIRECTORY)


def _one_part(name: str) -> None:
    if name in ("", ".", ".."):
        raise OSError(errno.EINVAL, "no name below the root", name)


def _unnoticed(opening: Callable[[int], int], flags: int) -> int:
    """Open without a change of the time of access, where the kernel lets us: to the owner and to root."""
    try:
        return opening(flags | os.O_NOATIME)
    except PermissionError:
        return opening(flags)


def _users(descriptor: int, path: str, status: os.stat_result) -> tuple[User, ...]:
    try:
        return tuple(file_users(descriptor, path, status))
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL, errno.ENOSYS):
            return ()  # a file system without locks: qemu has none there either
        raise
