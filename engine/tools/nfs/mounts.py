"""The mounts of this host: /proc/self/mountinfo, mount.nfs, umount2(2).

mount.nfs is called by itself and not through mount(8), which would look things up in /etc/fstab. It gets
the server and the options as single arguments, so nothing in them is taken for an argument of its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Sequence

from engine.doors.mounts import Mount
from engine.doors.users import User, describe_users
from engine.errors import BadRequest, Conflict, DiskwrightError, NotFound, Refused, StorageError, from_os_error
from engine.tools.local.command import CommandRunner, Result

PACKAGE = "nfs-common"
PATIENCE_S = 120.0
"""When mount.nfs is killed: its own tries end before, but looking up a name may take its time."""

_MOUNTINFO = "/proc/self/mountinfo"
_PROGRAM = "mount.nfs"
_PLACES = ("/usr/sbin", "/sbin")  # not in the PATH of everybody who is root
_UMOUNT_NOFOLLOW = 8  # sys/mount.h
_ESCAPED = re.compile(rb"\\([0-7]{3})")

_AWAY = (
    "timed out", "refused", "unreachable", "No route to host", "is down", "resolve", "RPC: ", "not responding",
    "temporarily unavailable",
)  # fmt: skip


class NfsMounts:
    """The real ``Mounts``. ``inherit`` lists the descriptors (leases) that mount.nfs gets a copy of: whoever has
    the mount point locked has it locked until mount.nfs has ended, also when we are killed."""

    def __init__(self, inherit: Sequence[int]) -> None:
        self._inherit = inherit
        self._commands = CommandRunner(PACKAGE)

    def at(self, path: str) -> Mount | None:
        """Return the last line of the kernel's list with that mount point."""
        found = [mount for mount in mounts() if mount.path == path]
        return found[-1] if found else None

    def holding(self, path: str) -> Mount | None:
        """Return the longest mount point that ``path`` begins with."""
        best: Mount | None = None
        for mount in mounts():
            inside = mount.path in ("/", path) or path.startswith(f"{mount.path}/")
            if inside and (best is None or len(mount.path) >= len(best.path)):
                best = mount
        return best

    def mount_nfs(self, source: str, path: str, options: str) -> None:
        """Run ``mount.nfs SOURCE PATH -n -o OPTIONS``."""
        there = self.at(path)
        if there is not None:
            if there.source.rstrip("/") == source.rstrip("/"):
                return
            raise Conflict(f"{there.source} is mounted at {path}", "Unmount it")
        if os.geteuid() != 0:
            raise Refused(f"only root can mount {source}", "Run this as root, or mount it and connect with path=")
        try:
            os.makedirs(path, 0o755, exist_ok=True)
        except OSError as error:
            raise from_os_error(error, f"make the mount point {path}") from None
        try:
            result = self._commands.run(
                [_program(), source, path, "-n", "-o", options], tuple(self._inherit), PATIENCE_S
            )
            if result.exit_code:
                raise _refusal(source, result)
        except BaseException:
            with contextlib.suppress(OSError):
                os.rmdir(path)
            raise

    def unmount(self, path: str) -> None:
        """Unmount the deepest first: the client mounts file systems below the exported one by itself when somebody goes
        there."""
        inside = [mount.path for mount in mounts() if mount.path == path or mount.path.startswith(f"{path}/")]
        for point in sorted(inside, key=len, reverse=True):
            _unmount(point, path)
        try:
            os.rmdir(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise from_os_error(error, f"remove the mount point {path}") from None

    def users(self, path: str, also: str = "") -> list[User]:
        """Look the users up in /proc."""
        from engine.tools.nfs.users import users

        return users(path, also)


def mounts() -> list[Mount]:
    """Return the kernel's list, in its order: later ones lie above earlier ones."""
    try:
        descriptor = os.open(_MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            return [mount for line in file if (mount := parse_line(line)) is not None]
    except OSError as error:
        raise from_os_error(error, "ask the kernel what is mounted") from None


def parse_line(line: bytes) -> Mount | None:
    """Parse one line of mountinfo, see proc(5); None when it is none."""
    fields = line.split()
    try:
        rest = fields.index(b"-", 6)
        options = fields[5].split(b",") + fields[rest + 3].split(b",")
        return Mount(_text(fields[rest + 2]), _text(fields[4]), _text(fields[rest + 1]), tuple(map(_text, options)))
    except (ValueError, IndexError):
        return None


def _text(field: bytes) -> str:
    return _ESCAPED.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), field).decode("utf-8", "surrogateescape")


def _program() -> str:
    folders = [*os.environ.get("PATH", "").split(":"), *_PLACES]
    return next((path for folder in folders if folder and os.access(path := f"{folder}/{_PROGRAM}", os.X_OK)), _PROGRAM)


def _refusal(source: str, result: Result) -> DiskwrightError:
    """Return the error for what mount.nfs said; its exit code is 32 for nearly everything."""
    said = result.words.removeprefix(f"{_PROGRAM}: ") or f"exit code {result.exit_code}"
    message = f"cannot mount {source}: {said}"
    if "ccess denied" in said or "not permitted" in said:
        return StorageError(message, "Allow this host in the server's exports, with no_root_squash, and try again")
    if "No such file or directory" in said:
        return NotFound(message, "Give the path as the server exports it (with NFSv4 below its fsid=0, if it has one)")
    if "rotocol not supported" in said or "version" in said:
        return BadRequest(message, "The server must offer NFS version 4.0 or newer")
    if any(words in said for words in _AWAY):
        return StorageError(message, "Check the server and the network, then try again")
    if "busy" in said or "already mounted" in said:
        return Conflict(message, "Look at what is mounted there")
    if "incorrect mount option" in said or "nvalid argument" in said:
        return BadRequest(message, "Leave out the options that this kernel or server does not know")
    if "nknown filesystem" in said or "No such device" in said:
        return StorageError(message, "The kernel of this host has no NFS client: load or install its nfsv4 module")
    return StorageError(message, "Check the server and try again")


def _unmount(path: str, whole: str) -> None:
    """Unmount ``path``. ``whole``: what is taken away with it, for messages."""
    import ctypes  # Python has no umount2(2)

    function = ctypes.CDLL(None, use_errno=True).umount2
    function.argtypes = (ctypes.c_char_p, ctypes.c_int)
    if function(os.fsencode(path), _UMOUNT_NOFOLLOW) == 0:
        return
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOENT):
        return  # somebody was quicker
    if number == errno.EBUSY:
        from engine.tools.nfs.users import users

        raise StorageError(
            f"{path} is in use by {describe_users(users(whole))}", "Wait for it or end it, then try again"
        )
    if number == errno.EPERM:
        raise Refused(f"only root can unmount {path}", "Run this as root")
    raise from_os_error(OSError(number, os.strerror(number), path), "unmount it")
