"""Leases of the local kernel (and of an NFSv4 server), and the locks they are made of.

A lease is one byte of a lock file, locked through an open file description of its own
(``F_OFD_SETLK``). The kernel keeps it as long as any process has that description open:
children that inherit it carry it on when their parent is killed, and a process that is only
stopped keeps it. ``flock`` cannot be asked who holds it and covers the whole file on NFS;
POSIX record locks are lost at any ``close`` of the file. Both were ruled out for that.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from engine.tools.local.threads import no_longer_than

_F_OFD_GETLK = 36  # fcntl.h; the names came to Python's fcntl only in some builds
_F_OFD_SETLK = 37
_CLOSE_S = 1.0
_GUARD_BYTE = 1 << 62  # beyond all that qemu locks; part of what ``FileHandle.lock`` locks
_FORBIDS_WRITING = (201, 203)  # qemu's bytes that say: nobody else may write, nobody else may resize
GUARD_STARTS = (_GUARD_BYTE, *_FORBIDS_WRITING)
"""Where the locks begin that ``OfdLeases.guard`` takes."""
_FLOCK = struct.Struct("hhqqi4x")  # struct flock on 64-bit Linux


def open_at_once(path: str, access: int) -> int:
    """Open a file and return the descriptor; what is no regular file is not waited for (a FIFO without a writer).

    Of a regular file O_NONBLOCK means one thing: who opens it for writing is refused while another process asks the
    kernel who writes to it (``openers.writers``). That is over at once, and waited for."""
    flags = access | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_NONBLOCK)
    except BlockingIOError:
        return os.open(path, flags)


def ofd_lock(descriptor: int, kind: int, start: int, length: int) -> bool:
    """Lock a range through this open file description, or return False; never waits. OSError as fcntl(2)."""
    try:
        fcntl.fcntl(descriptor, _F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def ofd_locked(descriptor: int, start: int, length: int) -> bool:
    """Tell whether anybody else has a byte of the range locked, shared or not; lock nothing. OSError as fcntl(2)."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    kind: int = _FLOCK.unpack(fcntl.fcntl(descriptor, _F_OFD_GETLK, asked))[0]
    return kind != fcntl.F_UNLCK


class OfdLease:
    """An open file description with one byte locked; ``held`` lists the descriptors of all of them."""

    def __init__(self, descriptor: int, held: list[int], remote: bool = True) -> None:
        """Note the descriptor in ``held``. ``remote``: it may lie on a server, so closing it may take long."""
        self.descriptor = descriptor
        self._held = held
        self._remote = remote
        held.append(descriptor)

    @property
    def token(self) -> str:
        """The descriptor number, the same in the child."""
        return str(self.descriptor)

    def release(self) -> None:
        """Close our descriptor."""
        if self.descriptor >= 0:
            descriptor, self.descriptor = self.descriptor, -1
            self._held.remove(descriptor)
            if self._remote:  # a server that is away frees the lock by itself, and nothing was written through it
                no_longer_than(_CLOSE_S, lambda: os.close(descriptor))
            else:
                os.close(descriptor)


class OfdLeases:
    """Open-file-description locks of the local kernel (and of an NFSv4 server)."""

    def __init__(self) -> None:
        self.descriptors: list[int] = []
        """Descriptors of the leases this process has now, for programs that must carry them on."""

    def try_acquire(self, path: str, key: int, shared: bool) -> OfdLease | None:
        """Lock the byte with one open and one fcntl. Sharing needs no right to write: whoever only reads may do so on
        a storage that is mounted read-only."""
        access = os.O_RDONLY if shared else os.O_RDWR
        descriptor = os.open(path, access | os.O_NOFOLLOW | os.O_CLOEXEC)
        taken = False
        try:
            remote = not os.major(os.fstat(descriptor).st_dev)  # asked now: a release asks nothing
            taken = ofd_lock(descriptor, fcntl.F_RDLCK if shared else fcntl.F_WRLCK, key, 1)
        finally:
            if not taken:
                os.close(descriptor)
        return OfdLease(descriptor, self.descriptors, remote) if taken else None

    def guard(self, path: str, writable: bool, device: bool = False) -> OfdLease | None:
        """Lock our own byte alone, or share the locks of a qemu that lets nobody write."""
        access = os.O_RDWR if writable else os.O_RDONLY
        descriptor = os.open(path, access | os.O_CLOEXEC) if device else open_at_once(path, access)
        taken = False
        try:
            remote = not device and not os.major(os.fstat(descriptor).st_dev)
            kind, places = (fcntl.F_WRLCK, (_GUARD_BYTE,)) if writable else (fcntl.F_RDLCK, _FORBIDS_WRITING)
            taken = all(ofd_lock(descriptor, kind, place, 1) for place in places)
        finally:
            if not taken:
                os.close(descriptor)
        return OfdLease(descriptor, self.descriptors, remote) if taken else None

    def guarded(self, path: str) -> bool:
        """Ask for our own byte, with F_OFD_GETLK."""
        return self.held(path, _GUARD_BYTE)

    def held(self, path: str, key: int) -> bool:
        """Ask with F_OFD_GETLK on a descriptor of our own."""
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return ofd_locked(descriptor, key, 1)
        finally:
            os.close(descriptor)

    def adopt(self, token: str) -> OfdLease:
        """Wrap the inherited descriptor; it must not leak into programs we start unasked."""
        descriptor = int(token)
        os.set_inheritable(descriptor, False)
        return OfdLease(descriptor, self.descriptors)
