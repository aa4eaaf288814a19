"""Records what happens to a file system on dm-log-writes, and mounts what a power cut could have left of it.

Two disks of the guest are used up: one for the log, one (xfs, for its shared blocks) for images of the device.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import struct
import subprocess
import time
from collections.abc import Iterator

from sim.lab.inside import logwrites
from sim.lab.inside.logwrites import Entry, State
from sim.lab.inside.prepare import mount

NAME = "lab-recorded"
ROOM = "/srv/room"
MOUNT = "/srv/recorded"
SIZES = {"ext4": 64 << 20, "xfs": 320 << 20}  # mkfs.xfs makes nothing below 300 MiB
_MAKE = {"ext4": ["mkfs.ext4", "-q", "-m", "0"], "xfs": ["mkfs.xfs", "-q", "-K"]}
_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE, _LOOP_CLR_FD = 0x4C82, 0x4C0A, 0x4C01  # linux/loop.h
_LOOP_CONFIG_BYTES = 304
_FICLONE = 0x40049409  # linux/fs.h
_AUTOCLEAR = 4
_PATIENCE_S = 10.0
_LOOK_AGAIN_S = 0.02


def run(*words: str) -> str:
    """The output of a program that has to succeed; RuntimeError has its words."""
    done = subprocess.run(words, capture_output=True, check=False)
    if done.returncode:
        said = (done.stderr + done.stdout).decode(errors="replace")
        raise RuntimeError(f"{' '.join(words)} failed: {said[:300]}")
    return done.stdout.decode()


def unmount(path: str) -> None:
    """umount(2); OSError. The kernel lets go of a loop device, or of a file, some moments after its last user did."""
    libc = ctypes.CDLL(None, use_errno=True)
    deadline = time.monotonic() + _PATIENCE_S
    while libc.umount2(path.encode(), 0):
        code = ctypes.get_errno()
        if code != errno.EBUSY or time.monotonic() > deadline:
            raise OSError(code, os.strerror(code), path)
        time.sleep(_LOOK_AGAIN_S)


def clear() -> None:
    """Take away what an earlier recording has left."""
    for path in (MOUNT, ROOM):
        if os.path.ismount(path):
            if path == ROOM:
                subprocess.run(["dmsetup", "remove", NAME], capture_output=True, check=False)
            unmount(path)


class Recorder:
    """A file system at ``MOUNT`` whose every write is logged."""

    def __init__(self, file_system: str, log_disk: str, room_disk: str) -> None:
        self.file_system = file_system
        self.log_disk = log_disk
        self.marks: list[str] = []
        clear()
        for path in (ROOM, MOUNT):
            os.makedirs(path, exist_ok=True)
        run("mkfs.xfs", "-q", "-f", room_disk)
        mount(room_disk, ROOM, "xfs")
        size = SIZES[file_system]
        with open(f"{ROOM}/device", "wb") as stream:
            stream.truncate(size)
        self._device, self._descriptor = attach(f"{ROOM}/device")
        table = f"0 {size // logwrites.SECTOR} log-writes {self._device} {log_disk}"
        run("dmsetup", "create", NAME, "--table", table)
        minor = run("dmsetup", "info", "-c", "--noheadings", "-o", "minor", NAME).strip()
        run(*_MAKE[file_system], f"/dev/dm-{minor}")  # without udev that is its only reliable name
        mount(f"/dev/dm-{minor}", MOUNT, file_system)

    def mark(self, text: str) -> None:
        """Put a mark into the log: what is after it in the log happened after this call."""
        self.marks.append(text)
        run("dmsetup", "message", NAME, "0", "mark", str(len(self.marks)))

    def finish(self) -> Recording:
        """Unmount, end the log, and read it."""
        unmount(MOUNT)
        run("dmsetup", "remove", NAME)
        os.close(self._descriptor)
        return Recording(self.file_system, self.log_disk, logwrites.read_log(self.log_disk))


class Recording:
    """A log, and images of what it can leave."""

    def __init__(self, file_system: str, log_disk: str, entries: list[Entry]) -> None:
        self.entries = entries
        self._file_system = file_system
        self._log = os.open(log_disk, os.O_RDONLY | os.O_CLOEXEC)
        self._base = os.open(f"{ROOM}/base", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC)
        os.ftruncate(self._base, SIZES[file_system])
        self._applied = 0

    def close(self) -> None:
        """Give the disks back."""
        os.close(self._log)
        os.close(self._base)
        clear()

    def entry_of_mark(self, number: int) -> int:
        """Index of the mark of that number (from 1)."""
        marks = [index for index, entry in enumerate(self.entries) if entry.flags & logwrites.MARK]
        return marks[number - 1]

    @contextlib.contextmanager
    def mounted(self, state: State) -> Iterator[str]:
        """The file system as it is found after the power cut, at ``MOUNT``. States are asked for in order."""
        if state.durable < self._applied:
            raise ValueError("states come in order")
        logwrites.apply(self._log, self._base, logwrites.pieces(self.entries[self._applied : state.durable]))
        self._applied = state.durable
        image = os.open(f"{ROOM}/state", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC)
        try:
            fcntl.ioctl(image, _FICLONE, self._base)
            logwrites.apply(self._log, image, state.pieces)
        finally:
            os.close(image)
        device, descriptor = attach(f"{ROOM}/state")
        try:
            mount(device, MOUNT, self._file_system)
            try:
                yield MOUNT
            finally:
                unmount(MOUNT)
        finally:
            fcntl.ioctl(descriptor, _LOOP_CLR_FD)
            os.close(descriptor)


def attach(path: str) -> tuple[str, int]:
    """A loop device over a file and its descriptor, which has to be kept open: the device goes with its last user."""
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
    finally:
        os.close(control)
    device = f"/dev/loop{number}"
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        config = bytearray(_LOOP_CONFIG_BYTES)
        struct.pack_into("<II", config, 0, file, logwrites.SECTOR)
        struct.pack_into("<I", config, 8 + 52, _AUTOCLEAR)  # lo_flags of struct loop_info64
        fcntl.ioctl(descriptor, _LOOP_CONFIGURE, bytes(config))
    except OSError:
        os.close(descriptor)
        raise
    finally:
        os.close(file)
    return device, descriptor
