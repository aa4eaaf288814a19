"""Records what happens to a medium on dm-log-writes, and gives back what a power cut could have left of it.

Two disks of the guest are used up: one for the log, one (xfs, for its shared blocks) for images of the device.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator

from sim.lab.inside.prepare import mount
from sim.trials.inside import logwrites
from sim.trials.inside.logwrites import Entry, State
from sim.trials.inside.media import Medium, run, unmount, used

NAME = "lab-recorded"
ROOM = "/srv/room"
_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE, _LOOP_CLR_FD = 0x4C82, 0x4C0A, 0x4C01  # linux/loop.h
_LOOP_CONFIG_BYTES = 304
_FICLONE = 0x40049409  # linux/fs.h
_AUTOCLEAR = 4


def clear(medium: Medium) -> None:
    """Take away what an earlier recording has left."""
    medium.leave()
    if os.path.ismount(ROOM):
        subprocess.run(["dmsetup", "remove", NAME], capture_output=True, check=False)
        unmount(ROOM)


class WriteRecorder:
    """A medium whose every write is logged."""

    def __init__(self, medium: Medium, log_disk: str, room_disk: str) -> None:
        self.medium = medium
        self.log_disk = log_disk
        self.marks: list[str] = []
        clear(medium)
        os.makedirs(ROOM, exist_ok=True)
        run("mkfs.xfs", "-q", "-f", room_disk)
        mount(room_disk, ROOM, "xfs")
        with open(f"{ROOM}/device", "wb") as stream:
            stream.truncate(medium.size)
        self._device, self._descriptor = attach(f"{ROOM}/device")
        table = f"0 {medium.size // logwrites.SECTOR} log-writes {self._device} {log_disk}"
        run("dmsetup", "create", NAME, "--table", table)
        minor = run("dmsetup", "info", "-c", "--noheadings", "-o", "minor", NAME).strip()
        medium.make(f"/dev/dm-{minor}")  # without udev that is its only reliable name

    def mark(self, text: str) -> None:
        """Put a mark into the log: what is after it in the log happened after this call."""
        self.marks.append(text)
        run("dmsetup", "message", NAME, "0", "mark", str(len(self.marks)))

    def finish(self) -> Recording:
        """Leave the medium, end the log, and read it."""
        self.medium.leave()
        run("dmsetup", "remove", NAME)
        os.close(self._descriptor)
        return Recording(self.medium, self.log_disk, logwrites.read_log(self.log_disk))


class Recording:
    """A log, and images of what it can leave."""

    def __init__(self, medium: Medium, log_disk: str, entries: list[Entry]) -> None:
        self.entries = entries
        self._medium = medium
        self._log = os.open(log_disk, os.O_RDONLY | os.O_CLOEXEC)
        self._base = os.open(f"{ROOM}/base", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC)
        os.ftruncate(self._base, medium.size)
        self._applied = 0

    def close(self) -> None:
        """Give the disks back."""
        os.close(self._log)
        os.close(self._base)
        clear(self._medium)

    def entry_of_mark(self, number: int) -> int:
        """Index of the mark of that number (from 1)."""
        marks = [index for index, entry in enumerate(self.entries) if entry.flags & logwrites.MARK]
        return marks[number - 1]

    def image(self, state: State) -> str:
        """A file of the device as it is after the power cut, until the next one. States are asked for in order."""
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
        return f"{ROOM}/state"

    @contextlib.contextmanager
    def found(self, state: State) -> Iterator[None]:
        """The medium as it is after the power cut, in use."""
        with attached(self.image(state)) as device, used(self._medium, device):
            yield


@contextlib.contextmanager
def attached(path: str, start: int = 0, length: int = 0) -> Iterator[str]:
    """As ``attach``, for that time."""
    device, descriptor = attach(path, start, length)
    try:
        yield device
    finally:
        fcntl.ioctl(descriptor, _LOOP_CLR_FD)
        os.close(descriptor)


def attach(path: str, start: int = 0, length: int = 0) -> tuple[str, int]:
    """A loop device over a file, or a part of it, and its descriptor, which has to be kept open: the device goes with
    its last user."""
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
        struct.pack_into("<QQ", config, 8 + 24, start, length)  # lo_offset, lo_sizelimit of struct loop_info64
        struct.pack_into("<I", config, 8 + 52, _AUTOCLEAR)  # its lo_flags
        fcntl.ioctl(descriptor, _LOOP_CONFIGURE, bytes(config))
    except OSError:
        os.close(descriptor)
        raise
    finally:
        os.close(file)
    return device, descriptor
