"""Which processes of this host have one file or device open: what the kernel and /proc tell.

A link is followed only where its text names the file, or the kernel tells the same inode, so a server that is away does
not block the look. Processes that end meanwhile, or that may not be looked at, are left out.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal

from engine.doors.users import User
from engine.tools.local.leases import GUARD_STARTS, ofd_locked

_PROC = "/proc"
_BLOCK = "/sys/block"
_SHOWN_CHARACTERS = 80
_ACCESS_BITS = 0o3
QEMU_READS = 100
QEMU_WRITES = range(101, 104)
"""The bytes that qemu locks of what it reads; writes, changes without a change, and resizes (block/file-posix.c)."""
_GUARDS = frozenset(str(start) for start in GUARD_STARTS)


def openers(path: str, found: os.stat_result) -> list[User]:
    """Return the processes other than this one that have the file open which ``path`` named when ``found`` was read,
    under whatever name: a hard link, a name before it was renamed."""
    wanted = (found.st_dev, found.st_ino, found.st_rdev)
    base = os.path.basename(path)
    users = []
    for name in os.listdir(_PROC):
        if name.isdigit() and int(name) != os.getpid():
            opened = _opened(name, base, wanted)
            if opened is not None:
                users.append(User(int(name), command_of(name), opened))
    return sorted(users)


def writers(descriptor: int, path: str, found: os.stat_result, locked: bool) -> list[User]:
    """Return who of this host, other than this process, has the file of ``descriptor`` open for writing, with a lock or
    without: a loop device, a mapping, a tool that locks nothing. ``descriptor`` only reads. ``locked``: somebody has
    locked it for reading, as qemu does.

    The kernel is asked for a lease, which it refuses then; /proc is read only where it did. Nobody is found where it
    gives none (a network file system; a file of somebody else, asked without privileges)."""
    if not _lease_is_refused(descriptor):
        return []
    everybody = [*openers(path, found), *loop_devices().get((found.st_dev, found.st_ino), ())]
    named = [user for user in everybody if user.writes]
    if named or locked or _is_ours(descriptor, path, found) or not _lease_is_refused(descriptor):
        return named
    return [User(0, "", True)]


def _lease_is_refused(descriptor: int) -> bool:
    """Return whether somebody has the file open for writing. Who opens it while the lease is ours waits for us, and is
    told of by a signal that nothing takes note of (the usual one would end this process)."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def _is_ours(descriptor: int, path: str, found: os.stat_result) -> bool:
    """Return whether a lock of diskwright, or this process, is why."""
    if any(ofd_locked(descriptor, start, 1) for start in GUARD_STARTS):
        return True
    return bool(_opened(str(os.getpid()), os.path.basename(path), (found.st_dev, found.st_ino, found.st_rdev)))


def loop_devices() -> dict[tuple[int, int], tuple[User, ...]]:
    """Return the loop devices of this host as users, by (device, inode) of the file behind each: the kernel has it
    open, and locks nothing. A file that cannot be found by the name that it had is left out."""
    found: dict[tuple[int, int], tuple[User, ...]] = {}
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(_BLOCK)):
            if not name.startswith("loop"):
                continue
            with contextlib.suppress(OSError):
                with open(f"{_BLOCK}/{name}/loop/backing_file", "rb") as stream:
                    there = os.stat(stream.read().removesuffix(b"\n"))
                with open(f"{_BLOCK}/{name}/ro", encoding="ascii") as stream:
                    user = User(0, f"the loop device /dev/{name}", stream.read().strip() == "0")
                key = there.st_dev, there.st_ino
                found[key] = (*found.get(key, ()), user)
    return found


def _opened(process: str, base: str, wanted: tuple[int, int, int]) -> bool | None:
    """Return whether a process may write to the file or device that it has open; None when it does not have it open."""
    writes: bool | None = None
    try:
        numbers = os.listdir(f"{_PROC}/{process}/fd")
    except OSError:
        return None
    for number in numbers:
        with contextlib.suppress(OSError, ValueError, IndexError):
            link = f"{_PROC}/{process}/fd/{number}"
            text = os.readlink(link)
            named = text.startswith("/dev/") if wanted[2] else base in text
            if not named and (wanted[2] or not text.startswith("/") or _inode(process, number) != wanted[1]):
                continue
            there = os.stat(link)
            same = there.st_rdev == wanted[2] if wanted[2] else (there.st_dev, there.st_ino) == wanted[:2]
            if same:
                kind = _access(process, number)
                writes = writes if kind is None else bool(writes) or kind
    return writes


def _inode(process: str, number: str) -> int:
    """Return the inode of what a descriptor has open, asked of no server; 0 where the kernel does not tell."""
    with open(f"{_PROC}/{process}/fdinfo/{number}", encoding="ascii", errors="replace") as stream:
        return next((int(line.split()[1]) for line in stream if line.startswith("ino:")), 0)


def _access(process: str, number: str) -> bool | None:
    """Return whether a descriptor may write; None when it only keeps locks of ours on what a machine uses. qemu says
    what it does by its locks: below a snapshot it may go on to have a layer open as it was."""
    flags, locked = os.O_RDWR, []
    with open(f"{_PROC}/{process}/fdinfo/{number}", encoding="ascii", errors="replace") as stream:
        for line in stream:
            if line.startswith("flags:"):
                flags = int(line.split()[1], 8)
            elif line.startswith("lock:"):
                locked.append(tuple(line.split()[-2:]))
    if locked and all(start in _GUARDS for start, _ in locked):
        return None
    spans = [(int(start), int(end)) for start, end in locked if end.isdigit()]
    if any(start <= QEMU_READS <= end for start, end in spans):
        return any(start <= byte <= end for start, end in spans for byte in QEMU_WRITES)
    return flags & _ACCESS_BITS != os.O_RDONLY


def command_of(process: str) -> str:
    """Return the command line of a process, shortened and printable; "" when it is not known."""
    try:
        descriptor = os.open(f"{_PROC}/{process}/cmdline", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        raw = os.read(descriptor, 4096)
    except OSError:
        return ""
    finally:
        os.close(descriptor)
    text = raw.rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")
    shown = "".join(character if character.isprintable() else "?" for character in text)
    return shown if len(shown) <= _SHOWN_CHARACTERS else f"{shown[: _SHOWN_CHARACTERS - 1]}…"
