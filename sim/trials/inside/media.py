"""In a guest: what lies on a recorded device. A file system that is mounted, or two volume groups side by side."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from sim.lab.inside.prepare import mount
from sim.trials.inside import lvm_repair

MOUNT = "/srv/recorded"
SECTOR = 512
_MAKE = {"ext4": ["mkfs.ext4", "-q", "-m", "0"], "xfs": ["mkfs.xfs", "-q", "-K"]}
_SIZES = {"ext4": 64 << 20, "xfs": 320 << 20}  # mkfs.xfs makes nothing below 300 MiB
_REPOSITORIES = ("a", "b")
_REPOSITORY_BYTES = 192 << 20
_FIRST_BYTES = 1 << 20
_PART, _GROUP = "lab-cut-", "cut-"
_PATIENCE_S = 10.0
_LOOK_AGAIN_S = 0.02


class Medium(Protocol):
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

    def repair(self) -> bool:
        """Do what an operator has to do after some power cuts. False: nothing had to be done."""

    def parameters(self, repo: str) -> dict[str, Any]:
        """Return the connection parameters of a repository here."""


def medium_of(kind: str) -> Medium:
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

    def repair(self) -> bool:
        return False

    def parameters(self, repo: str) -> dict[str, Any]:
        return {"path": f"{MOUNT}/{repo}"}


class Parts:
    """Devices side by side on one, for volume groups whose names begin with "cut-". Their labels are where LVM looks on
    no other device."""

    format = "lvm-1.0"

    def __init__(self, names: Sequence[str], part_bytes: int) -> None:
        self._names = list(names)
        self._part_bytes = part_bytes
        self.size = _FIRST_BYTES + len(names) * part_bytes
        self._device = ""

    def make(self, device: str) -> None:
        self.use(device)

    def use(self, device: str) -> None:
        self._device = device

    def where(self, name: str) -> tuple[int, int]:
        """Offset and length of one of the devices."""
        return _FIRST_BYTES + self._names.index(name) * self._part_bytes, self._part_bytes

    def part(self, name: str) -> str:
        """Make one of the devices; its path. All of them go with ``leave``."""
        start, length = self.where(name)
        table = f"0 {length // SECTOR} linear {self._device} {start // SECTOR}"
        # Told that there is no udev it makes the name in /dev/mapper itself.
        run("dmsetup", "create", f"{_PART}{name}", "--table", table, DM_DISABLE_UDEV="1")
        return f"/dev/mapper/{_PART}{name}"

    def leave(self) -> None:
        """Volumes that are active go with it."""
        names = [line.split()[0] for line in run("dmsetup", "ls").splitlines() if "(" in line]
        for begin in (_GROUP.replace("-", "--"), _PART):
            if going := [name for name in names if name.startswith(begin)]:
                run("dmsetup", "remove", *going, DM_DISABLE_UDEV="1")
        for folder in glob.glob(f"/dev/{_GROUP}*"):
            shutil.rmtree(folder, ignore_errors=True)

    def repair(self) -> bool:
        """Of groups whose names are those of the devices."""
        pairs = [(f"/dev/mapper/{_PART}{name}", f"{_GROUP}{name}") for name in self._names]
        bad = [pair for pair in pairs if lvm_repair.unreadable(*pair)]
        return sum(lvm_repair.repair(*pair) for pair in bad) > 0

    def parameters(self, repo: str) -> dict[str, Any]:
        return {"volume_group": f"{_GROUP}{repo}", "devices": [f"/dev/mapper/{_PART}{repo}"]}


class Groups(Parts):
    """A volume group for each repository, made by the engine when it makes the repository."""

    def __init__(self) -> None:
        super().__init__(_REPOSITORIES, _REPOSITORY_BYTES)

    def use(self, device: str) -> None:
        super().use(device)
        for name in _REPOSITORIES:
            self.part(name)


@contextlib.contextmanager
def used(medium: Medium, device: str) -> Iterator[None]:
    """Use a device for that time."""
    try:
        medium.use(device)
        yield
    finally:
        medium.leave()


def run(*words: str, **environment: str) -> str:
    """The output of a program that has to succeed; RuntimeError has its words."""
    done = subprocess.run(words, capture_output=True, check=False, env={**os.environ, **environment})
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
