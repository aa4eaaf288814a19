"""Files of the kernel, behind the file door. What each call promises stands in ``engine.doors.files``."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat as stat_module
import struct
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Self

from engine.doors.files import Abilities, Access, Entry, FileHandle, Kind, RunPlace, Space, Stat, Unlocked
from engine.doors.users import User
from engine.tools.local.leases import ofd_lock, ofd_locked, open_at_once
from engine.tools.local.openers import QEMU_READS, QEMU_WRITES, loop_devices, openers, writers

_WRITE_LOCK = (100, (1 << 62) - 99)
"""Start and length of what ``FileHandle.lock`` locks: qemu's own bytes (100 to 103, 200 to 203) up to 2^62."""

_READS, _WRITES = (QEMU_READS, 1), (QEMU_WRITES.start, len(QEMU_WRITES))
"""Start and length: what qemu locks of an image that it reads; that it writes or resizes (block/file-posix.c)."""

_FICLONE = 0x40049409  # linux/fs.h
_FICLONERANGE = 0x4020940D
_GETVERSION = 0x80007601 | struct.calcsize("l") << 16  # FS_IOC_GETVERSION; it answers with 32 bits all the same
_CLONE_RANGE = struct.Struct("qQQQ")  # descriptor, offset, length, target offset
_PERMISSIONS = 0o777
_NO_NUMBER = (1 << 32) - 1  # -1 to chown(2), which leaves whose it is; no user or group has it, or one above
_PUNCH_HOLE_KEEP_SIZE = 0x3  # linux/falloc.h
_PROBE_BYTES = 64 * 1024  # no file system here has larger blocks
_NOT_SUPPORTED = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS)
_KINDS = {stat_module.S_IFREG: Kind.FILE, stat_module.S_IFDIR: Kind.DIRECTORY, stat_module.S_IFLNK: Kind.SYMLINK}


def stat_of(result: os.stat_result) -> Stat:
    """Return what the kernel says of a name as the door has it."""
    kind = _KINDS.get(stat_module.S_IFMT(result.st_mode), Kind.OTHER)
    return Stat(
        kind, result.st_size, result.st_blocks * 512, result.st_ino, result.st_nlink, result.st_mtime_ns, result.st_dev,
        result.st_ctime_ns, result.st_uid, result.st_gid, result.st_mode & _PERMISSIONS,
    )  # fmt: skip


def held_path(descriptor: int) -> str:
    """Name a descriptor of ours in /proc: to open that is to open its file, and takes no look at any directory."""
    return f"/proc/{os.getpid()}/fd/{descriptor}"


def file_users(descriptor: int, path: str, status: os.stat_result) -> list[User]:
    """Return who has an open regular file open as an image. OSError where the file system has no locks."""
    writes = ofd_locked(descriptor, *_WRITES)
    if not writes and not ofd_locked(descriptor, *_READS):
        return []
    seen = [user for user in openers(path, status) if user.writes or not writes]
    return seen or [User(0, "", writes)]


class RealFileHandle:
    """A descriptor of the kernel."""

    def __init__(self, descriptor: int, path: str) -> None:
        self.descriptor = descriptor
        self.path = path

    def read_at(self, offset: int, length: int) -> bytes:
        """Read until ``length`` or the end of the file."""
        parts = []
        while length > 0:
            part = os.pread(self.descriptor, length, offset)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return b"".join(parts)

    def write_at(self, offset: int, data: bytes) -> None:
        """Write all, continuing short writes."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self.descriptor, view, offset)
            if not written:
                raise OSError(errno.EIO, "nothing could be written", self.path)
            offset += written
            view = view[written:]

    def truncate(self, size: int) -> None:
        """Call ftruncate(2)."""
        os.ftruncate(self.descriptor, size)

    def lock(self) -> bool:
        """Take one OFD lock over qemu's bytes and ours: it must keep qemu away, and qemu us."""
        return ofd_lock(self.descriptor, fcntl.F_WRLCK, *_WRITE_LOCK)

    def give(self, access: Access) -> None:
        """Call ``give_away``."""
        give_away(self.descriptor, access)

    def sync(self) -> None:
        """Call fsync(2), not fdatasync: a new file's size and mode count too."""
        os.fsync(self.descriptor)

    def stat(self) -> Stat:
        """Call fstat(2)."""
        return stat_of(os.fstat(self.descriptor))

    def held_path(self) -> str:
        """Name the descriptor in /proc."""
        return held_path(self.descriptor)

    def close(self) -> None:
        """Close; errors of close surface (NFS reports ENOSPC here)."""
        if self.descriptor >= 0:
            descriptor, self.descriptor = self.descriptor, -1
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            with contextlib.suppress(OSError):  # the first error is the one to report
                self.close()


class RealFiles:
    """The kernel's files."""

    def run_place(self) -> RunPlace:
        """Look at the environment of those who are not root, and at the mounts."""
        path = "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR", "")
        try:
            found = os.stat(path) if path.startswith("/") else None
        except OSError:
            found = None
        if found is None or not stat_module.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            return RunPlace("", False)
        return RunPlace(path, _in_memory(found.st_dev))

    def privileged(self) -> bool:
        """Ask for the user."""
        return os.geteuid() == 0

    def list_directory(self, path: str, having: str = "") -> list[Entry]:
        """Open the directory afresh (refusing a link) and scan it once."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            # An NFS client asks at the open whether the directory has changed, and believes the server, whose answer
            # is as coarse as its file system's clock. This makes it list anew (measured: one READDIR); free elsewhere.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            with os.scandir(descriptor) as entries:
                return [Entry(e.name, _entry_kind(e), e.inode()) for e in entries if having in e.name]
        finally:
            os.close(descriptor)

    def stat(self, path: str) -> Stat:
        """Call lstat(2)."""
        return stat_of(os.lstat(path))

    def read_file(self, path: str, limit: int) -> bytes:
        """Read with one open, one fstat and one read; more when that was short."""
        descriptor, size = self._open_regular(path, os.O_RDONLY)
        try:
            # A read of 64 KiB is measurably faster than one of 128 KiB (malloc's mmap threshold).
            data = os.read(descriptor, min(limit + 1, 65536))
            if len(data) == 65536 or len(data) < min(size, limit + 1):
                data += RealFileHandle(descriptor, path).read_at(len(data), limit + 1 - len(data))
            if len(data) > limit:
                raise OSError(errno.EFBIG, f"longer than {limit} bytes", path)
            return data
        finally:
            os.close(descriptor)

    def look(self, path: str, length: int) -> tuple[Stat, bytes]:
        """Make one open, one fstat and one read; more when that was short."""
        descriptor = open_at_once(path, os.O_RDONLY)
        try:
            found = os.fstat(descriptor)
            if not stat_module.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            data = os.pread(descriptor, length, 0)
            if len(data) < min(length, found.st_size):
                data = RealFileHandle(descriptor, path).read_at(0, length)
            return stat_of(found), data
        finally:
            os.close(descriptor)

    def open(self, path: str, writable: bool = False) -> RealFileHandle:
        """Open an existing regular file."""
        descriptor, _ = self._open_regular(path, os.O_RDWR if writable else os.O_RDONLY)
        return RealFileHandle(descriptor, path)

    def open_source(self, path: str) -> RealFileHandle:
        """Open with O_EXCL, which the kernel understands of block devices as a claim."""
        if not stat_module.S_ISBLK(os.stat(path, follow_symlinks=False).st_mode):
            return self.open(path)
        flags = os.O_RDONLY | os.O_EXCL | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return _DeviceHandle(os.open(path, flags), path)

    def users(self, path: str, unlocked: Unlocked = Unlocked.NOBODY) -> list[User]:
        """Ask with F_OFD_GETLK for qemu's bytes, and for ``WRITERS`` with F_SETLEASE; /proc is read only where one of
        them tells of somebody, or for ``EVERYBODY``, and then also which loop devices there are."""
        descriptor, _ = self._open_regular(path, os.O_RDONLY)
        try:
            status = os.fstat(descriptor)
            locked = file_users(descriptor, path, status)
            if unlocked is Unlocked.WRITERS and not any(user.writes for user in locked):
                return [*locked, *writers(descriptor, path, status, bool(locked))]
            if locked or unlocked is not Unlocked.EVERYBODY:
                return locked
            return [*openers(path, status), *loop_devices().get((status.st_dev, status.st_ino), ())]
        finally:
            os.close(descriptor)

    def create(self, path: str) -> RealFileHandle:
        """Open with O_CREAT | O_EXCL; mode 0660 under the umask: what is on a disk is not for everybody."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return RealFileHandle(os.open(path, flags, 0o660), path)

    def link(self, source: str, target: str) -> None:
        """Call link(2)."""
        os.link(source, target, follow_symlinks=False)

    def rename(self, source: str, target: str) -> None:
        """Call rename(2)."""
        os.rename(source, target)

    def unlink(self, path: str) -> None:
        """Call unlink(2)."""
        os.unlink(path)

    def make_directory(self, path: str) -> None:
        """Call mkdir(2)."""
        os.mkdir(path, 0o770)

    def let_pass(self, path: str) -> None:
        """Call chmod(2) where a bit is missing."""
        mode = stat_module.S_IMODE(os.lstat(path).st_mode)
        if mode & 0o111 != 0o111:
            os.chmod(path, mode | 0o111)

    def remove_directory(self, path: str) -> None:
        """Call rmdir(2)."""
        os.rmdir(path)

    def resolve(self, path: str) -> str:
        """Call realpath(3)."""
        return os.path.realpath(path)

    def symlink(self, target: str, path: str) -> None:
        """Call symlink(2)."""
        os.symlink(target, path)

    def sync_directory(self, path: str) -> None:
        """Call fsync(2) on the directory."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def space(self, path: str) -> Space:
        """Call statvfs(3); what is free counts as available to the caller, not to root only."""
        result = os.statvfs(path)
        return Space(result.f_blocks * result.f_frsize, result.f_bavail * result.f_frsize)

    def clone(self, source: FileHandle, target: FileHandle) -> bool:
        """Share the blocks by ioctl FICLONE: all or nothing."""
        assert isinstance(source, RealFileHandle) and isinstance(target, RealFileHandle)
        try:
            fcntl.ioctl(target.descriptor, _FICLONE, source.descriptor)
        except OSError as error:
            if error.errno in _NOT_SUPPORTED:
                return False
            raise
        return True

    def inode_generation(self, path: str) -> int | None:
        """Ask by ioctl: ext4, xfs and btrfs know it, tmpfs and NFS do not."""
        answer = bytearray(struct.calcsize("l"))
        descriptor, _ = self._open_regular(path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _GETVERSION, answer)
        except OSError as error:
            if error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
            return None
        finally:
            os.close(descriptor)
        return int.from_bytes(answer[:4], sys.byteorder)

    def probe(self, path: str) -> Abilities:
        """Try with eight blocks of data, an open, an ioctl, an fallocate, some ftruncates."""
        with self.create(path) as handle:
            try:
                handle.write_at(0, b"probe" * (2 * _PROBE_BYTES // 5 + 1))
                return Abilities(
                    _opens_directly(path),
                    _shares_blocks(handle.descriptor),
                    _punches_holes(handle.descriptor),
                    _longest_file(handle),
                )
            finally:
                os.unlink(path)

    @staticmethod
    def _open_regular(path: str, access: int) -> tuple[int, int]:
        """Return (descriptor, size) of a regular file."""
        descriptor = open_at_once(path, access)
        found = os.fstat(descriptor)
        if not stat_module.S_ISREG(found.st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "not a regular file", path)
        return descriptor, found.st_size


class _DeviceHandle(RealFileHandle):
    """A descriptor of a block device that is only read."""

    def stat(self) -> Stat:
        """Seek to the end: fstat(2) tells no size of a device."""
        found = os.fstat(self.descriptor)
        size = os.lseek(self.descriptor, 0, os.SEEK_END)
        return Stat(Kind.DEVICE, size, size, found.st_rdev, found.st_nlink, 0, found.st_dev)


def give_away(descriptor: int, access: Access) -> None:
    """Call fchown(2) and fchmod(2), in this order: the first takes bits away."""
    import grp
    import pwd

    owner = _number(access.owner, lambda name: pwd.getpwnam(name).pw_uid, "user")
    group = _number(access.group, lambda name: grp.getgrnam(name).gr_gid, "group")
    os.fchown(descriptor, owner, group)
    os.fchmod(descriptor, access.mode)


def _number(name: str, look_up: Callable[[str], int], what: str) -> int:
    """Return the number of a user or group, -1 for none."""
    if not name:
        return -1
    try:
        number = int(name) if name.isdigit() else look_up(name)
    except KeyError:
        number = _NO_NUMBER
    if number >= _NO_NUMBER:
        raise OSError(errno.EINVAL, f"this host has no {what} {name}")
    return number


def _in_memory(device: int) -> bool:
    """Tell whether a mounted file system is gone when the host boots."""
    number = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            fields = line.split()
            if fields[2] == number:
                return fields[fields.index("-") + 1] in ("tmpfs", "ramfs")
    return False


def _entry_kind(entry: os.DirEntry[str]) -> Kind:
    if entry.is_file(follow_symlinks=False):
        return Kind.FILE
    if entry.is_dir(follow_symlinks=False):
        return Kind.DIRECTORY
    return Kind.SYMLINK if entry.is_symlink() else Kind.OTHER


def _opens_directly(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_DIRECT | os.O_NOFOLLOW | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in _NOT_SUPPORTED:
            return False
        raise
    return True


def _shares_blocks(descriptor: int) -> bool:
    # One file is enough: its first range is shared with its second.
    request = _CLONE_RANGE.pack(descriptor, 0, _PROBE_BYTES, _PROBE_BYTES)
    try:
        fcntl.ioctl(descriptor, _FICLONERANGE, request)
    except OSError as error:
        if error.errno in _NOT_SUPPORTED:
            return False
        raise
    return True


def _punches_holes(descriptor: int) -> bool:
    import ctypes  # Python has no fallocate(2) with a mode

    function = ctypes.CDLL(None, use_errno=True).fallocate
    function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if function(descriptor, _PUNCH_HOLE_KEEP_SIZE, 0, _PROBE_BYTES) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NOT_SUPPORTED:
        return False
    raise OSError(number, os.strerror(number))


def _longest_file(handle: RealFileHandle) -> int:
    fits, fails = 1, 1 << 51  # in units of 4096 bytes; the second is 2^63
    while fails - fits > 1:
        middle = (fits + fails) // 2
        try:
            handle.truncate(middle * 4096)
            fits = middle
        except OSError as error:
            if error.errno not in (errno.EFBIG, errno.EINVAL):
                raise
            fails = middle
    return fits * 4096
