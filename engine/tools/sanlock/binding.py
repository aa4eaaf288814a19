"""libsanlock by ctypes: structures of its ABI (sanlock.h, 3.x) and one method per call, no policy.

A call on a registered connection is a request and its answer; a signal in between would leave the
answer for the next call, so signals wait until a call is over.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from engine.errors import StorageError, ToolMissing
from engine.tools.sanlock.codes import SanlockError

LIBRARIES = ("libsanlock_client.so.1", "libsanlock.so.1")
"""Either will do: reading and writing disks is the daemon's work."""
PACKAGE = "sanlock"

NOT_REGISTERED = -1

NO_WAIT = 0x8
SHARED = 0x4
WITH_VERSION = 0x1
_ALIGN_1M = 0x10
_SECTORS = {512: 0x100, 4096: 0x200}
_BEING_ADDED_OR_REMOVED = 0x3
_UNUSED = 0x2
_RESTRICT_SIGTERM = 0x4
_STATE_MASK = 0xF


class _Disk(ctypes.Structure):
    _fields_ = [
        ("path", ctypes.c_char * 1024),
        ("offset", ctypes.c_uint64),
        ("pad1", ctypes.c_uint32),
        ("pad2", ctypes.c_uint32),
    ]


class Resource(ctypes.Structure):
    """A lease on a disk, as calls take it."""

    _fields_ = [
        ("lockspace_name", ctypes.c_char * 48),
        ("name", ctypes.c_char * 48),
        ("lver", ctypes.c_uint64),
        ("data64", ctypes.c_uint64),
        ("data32", ctypes.c_uint32),
        ("unused", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("num_disks", ctypes.c_uint32),
        ("disk", _Disk),
    ]


class _Lockspace(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char * 48),
        ("host_id", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("disk", _Disk),
    ]


class _Host(ctypes.Structure):
    _fields_ = [
        ("host_id", ctypes.c_uint64),
        ("generation", ctypes.c_uint64),
        ("timestamp", ctypes.c_uint64),
        ("io_timeout", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    ]


class Library:
    """libsanlock, loaded. Calls go to the daemon of this host."""

    def __init__(self) -> None:
        """Load the library. ToolMissing: it is not installed."""
        self._calls = _load()
        self._calls.sanlock_strerror.restype = ctypes.c_char_p

    # -- storage

    def write_lockspace(self, name: str, path: str, sector_bytes: int, io_timeout_s: int) -> None:
        """Make an empty lockspace at the beginning of a device, for hosts with that timeout."""
        flags = _ALIGN_1M | _SECTORS[sector_bytes]
        space = _lockspace(name, 0, path, flags)
        self._run("write_lockspace", ctypes.byref(space), 0, ctypes.c_uint32(0), ctypes.c_uint32(io_timeout_s))

    def write_resource(self, resource: Resource) -> None:
        """Make a resource that nobody holds."""
        self._run("write_resource", ctypes.byref(resource), 0, 0, ctypes.c_uint32(0))

    def resource(
        self, lockspace: str, name: str, path: str, offset: int, sector_bytes: int, flags: int = 0, version: int = 0
    ) -> Resource:
        """Return the structure that the other calls take."""
        disk = _Disk(os.fsencode(path), offset, 0, 0)
        sizes = _ALIGN_1M | _SECTORS[sector_bytes]
        return Resource(lockspace.encode(), name.encode(), version, 0, 0, 0, flags | sizes, 1, disk)

    # -- taking part

    def add_lockspace(self, name: str, number: int, path: str, io_timeout_s: int) -> None:
        """Join, and wait until that is done."""
        space = _lockspace(name, number, path, 0)
        self._run("add_lockspace_timeout", ctypes.byref(space), ctypes.c_uint32(0), ctypes.c_uint32(io_timeout_s))

    def remove_lockspace(self, name: str, number: int, path: str) -> None:
        """Leave it if no process uses it, and wait until that is done."""
        space = _lockspace(name, number, path, 0)
        self._run("rem_lockspace", ctypes.byref(space), ctypes.c_uint32(_UNUSED))

    def lockspaces(self) -> dict[str, tuple[int, str]]:
        """Return (number of this host, device) of each lockspace that is joined, by name."""
        found = ctypes.POINTER(_Lockspace)()
        count = ctypes.c_int(0)
        self._run("get_lockspaces", ctypes.byref(found), ctypes.byref(count), ctypes.c_uint32(0))
        with self._given(found):
            return {
                space.name.decode("ascii", "replace"): (int(space.host_id), os.fsdecode(space.disk.path))
                for space in (found[index] for index in range(count.value))
                if not space.flags & _BEING_ADDED_OR_REMOVED
            }

    def hosts(self, name: str, number: int = 0) -> list[tuple[int, int, int]]:
        """Return (number, generation, state) of one host, or (0) of all that were seen alive, in a lockspace that is
        joined; states are those of sanlock_admin.h."""
        found = ctypes.POINTER(_Host)()
        count = ctypes.c_int(0)
        which = ctypes.c_uint64(number)
        arguments = (ctypes.c_char_p(name.encode()), which, ctypes.byref(found), ctypes.byref(count))
        self._run("get_hosts", *arguments, ctypes.c_uint32(0))
        with self._given(found):
            hosts = [found[index] for index in range(count.value)]
            return [(int(host.host_id), int(host.generation), int(host.flags) & _STATE_MASK) for host in hosts]

    # -- leases

    def register(self) -> int:
        """Return a connection in the name of this process, which is killed when its leases are about to be lost: at
        once and not asked to end, which it would do by writing. Not inherited."""
        descriptor = self._run("register")
        try:
            os.set_inheritable(descriptor, False)
            with _signals_held():
                self._run("restrict", descriptor, ctypes.c_uint32(_RESTRICT_SIGTERM))
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def acquire(self, connection: int, resource: Resource) -> None:
        """Take it now, or SanlockError."""
        with _signals_held():
            self._run("acquire", connection, NOT_REGISTERED, ctypes.c_uint32(NO_WAIT), 1, _array(resource), None)

    def release(self, connection: int, resource: Resource) -> None:
        """Give a lease up; done when this returns."""
        with _signals_held():
            self._run("release", connection, NOT_REGISTERED, ctypes.c_uint32(0), 1, _array(resource))

    def inquire(self, connection: int) -> str:
        """Return what is held through a connection, as lockspace:name:path:offset:version ("SH" for shared), with
        spaces between several; "" for nothing."""
        count = ctypes.c_int(0)
        state = ctypes.c_char_p()
        with _signals_held():
            self._run(
                "inquire", connection, NOT_REGISTERED, ctypes.c_uint32(0), ctypes.byref(count), ctypes.byref(state)
            )
        with self._given(state):
            return (state.value or b"").decode("utf-8", "surrogateescape") if count.value else ""

    def owners(self, resource: Resource) -> list[tuple[int, int]]:
        """Return (number, generation) of the hosts that stand on the disk as owners."""
        found = ctypes.POINTER(_Host)()
        count = ctypes.c_int(0)
        arguments = (ctypes.byref(resource), ctypes.c_uint32(0), ctypes.byref(found), ctypes.byref(count))
        self._run("read_resource_owners", *arguments)
        with self._given(found):
            return [(int(found[index].host_id), int(found[index].generation)) for index in range(count.value)]

    # -- running

    def _run(self, name: str, *arguments: Any) -> int:
        code: int = getattr(self._calls, f"sanlock_{name}")(*arguments)
        if code < 0:
            own: bytes = self._calls.sanlock_strerror(code) or b""
            raise SanlockError(code, own.decode("ascii", "replace") if code < -200 else os.strerror(-code))
        return code

    @contextmanager
    def _given(self, memory: Any) -> Iterator[None]:
        """Free what a call allocated for us."""
        try:
            yield
        finally:
            _free(ctypes.cast(memory, ctypes.c_void_p))


def sector_bytes(path: str) -> int:
    """Return the size of the sectors of a device. StorageError when sanlock cannot work with it."""
    import fcntl
    import struct

    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        raw: bytes = fcntl.ioctl(descriptor, 0x1268, bytes(4))  # BLKSSZGET
    finally:
        os.close(descriptor)
    size: int = struct.unpack("i", raw)[0]
    if size not in _SECTORS:
        raise StorageError(f"{path} has sectors of {size} bytes, and leases need 512 or 4096")
    return size


_free = ctypes.CDLL(None).free
_free.argtypes = [ctypes.c_void_p]
_free.restype = None


def _load() -> Any:
    for name in LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise ToolMissing(f"{LIBRARIES[0]} is not installed", f"Install the package {PACKAGE}")


def _lockspace(name: str, number: int, path: str, flags: int) -> _Lockspace:
    return _Lockspace(name.encode(), number, flags, _Disk(os.fsencode(path), 0, 0, 0))


def _array(resource: Resource) -> Any:
    return (ctypes.POINTER(Resource) * 1)(ctypes.pointer(resource))


@contextmanager
def _signals_held() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
