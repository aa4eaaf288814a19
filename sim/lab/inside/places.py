"""In a guest: what lies on a recorded device. A file system that is mounted, or two volume groups side by side."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any, Protocol

from sim.lab.inside.prepare import mount

MOUNT = "/srv/recorded"
SECTOR = 512
_MAKE = {"ext4": ["mkfs.ext4", "-q", "-m", "0"], "xfs": ["mkfs.xfs", "-q", "-K"]}
_SIZES = {"ext4": 64 << 20, "xfs": 320 << 20}  # mkfs.xfs makes nothing below 300 MiB
_PART_BYTES = 192 << 20
_FIRST_BYTES = 1 << 20  # so the labels of the parts are at places where LVM looks on no other device
_PARTS = ("a", "b")
_PATIENCE_S = 10.0
_LOOK_AGAIN_S = 0.02


class Place(Protocol):
    """Where the repositories ``a`` and ``b`` can be."""

    size: int
    """Bytes of the device."""
    format: str
    """Of repositories here."""

    def make(self, device: str) -> None:
        """Make it on a device that is all zeros, and use it."""

    def use(self, device: str) -> None:
        """Use what is on a device."""

    def leave(self) -> None:
        """Give the device back. Idempotent."""

    def parameters(self, repo: str) -> dict[str, Any]:
        """Of a repository here."""


def place_of(kind: str) -> Place:
    """ext4, xfs or lvm."""
    return Groups() if kind == "lvm" else FileSystem(kind)


class FileSystem:
    """Mounted at ``MOUNT``."""

    format = "localfs-1.0"

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.size = _SIZES[kind]

    def make(self, device: str) -> None:
        run(*_MAKE[self._kind], device)
        self.use(device)

    def use(self, device: str) -> None:
        os.makedirs(MOUNT, exist_ok=True)
        mount(device, MOUNT, self._kind)

    def leave(self) -> None:
        if os.path.ismount(MOUNT):
            unmount(MOUNT)

    def parameters(self, repo: str) -> dict[str, Any]:
        return {"path": f"{MOUNT}/{repo}"}


class Groups:
    """A volume group for each repository, made by the engine when it makes the repository."""

    format = "lvm-1.0"
    size = _FIRST_BYTES + len(_PARTS) * _PART_BYTES

    def make(self, device: str) -> None:
        self.use(device)

    def use(self, device: str) -> None:
        for number, part in enumerate(_PARTS):
            start = (_FIRST_BYTES + number * _PART_BYTES) // SECTOR
            table = f"0 {_PART_BYTES // SECTOR} linear {device} {start}"
            run("dmsetup", "create", f"lab-cut-{part}", "--table", table)
            run("dmsetup", "mknodes", f"lab-cut-{part}")  # without udev nobody else makes its name in /dev/mapper

    def leave(self) -> None:
        """Volumes that are active go with it."""
        names = [line.split()[0] for line in run("dmsetup", "ls").splitlines() if "(" in line]
        for begin in ("cut--", "lab-cut-"):
            for name in names:
                if name.startswith(begin):
                    run("dmsetup", "remove", name)
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(f"/dev/mapper/{name}")  # the next device of that name has another number
        for part in _PARTS:
            shutil.rmtree(f"/dev/cut-{part}", ignore_errors=True)

    def parameters(self, repo: str) -> dict[str, Any]:
        return {"volume_group": f"cut-{repo}", "devices": [f"/dev/mapper/lab-cut-{repo}"]}


@contextlib.contextmanager
def used(place: Place, device: str) -> Iterator[None]:
    """In use for that time."""
    try:
        place.use(device)
        yield
    finally:
        place.leave()


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
