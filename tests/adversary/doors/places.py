"""Storage for repositories: where they stand, how it is cut, filled and taken away.

A place is the seam for other kinds of storage: whatever has these methods (NFS or LVM in a lab, say) can be tried.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Protocol

from tests.adversary.oracle.findings import CannotTry


class Place(Protocol):
    """One repository's storage."""

    format: str
    root: Path  # the repository's files, for damage and for backups

    def parameters(self) -> list[str]:
        """Return KEY=VALUE for `create-repo` and `connect`."""

    def cut(self) -> None:
        """Lose the power now: only what reached the device is left, under the same path."""

    def fill(self) -> None:
        """Leave not one free byte."""

    def close(self) -> None:
        """Take the storage away."""


class Directory:
    """A directory of an ordinary file system."""

    format = "localfs-1.0"

    def __init__(self, root: Path) -> None:
        self.root = root

    def parameters(self) -> list[str]:
        """Return the path."""
        return [f"path={self.root}"]

    def cut(self) -> None:
        """Refuse: this file system is not ours."""
        raise CannotTry("a power cut needs a file system of its own")

    def fill(self) -> None:
        """Refuse: this file system is not ours."""
        raise CannotTry("a full storage needs a file system of its own")

    def close(self) -> None:
        """Do nothing; the world's directory goes as a whole."""


class LoopMount:
    """A small file system of its own, in a file: it can be cut and filled. Needs root."""

    format = "localfs-1.0"

    def __init__(self, directory: Path, kind: str, size_bytes: int) -> None:
        if os.geteuid() != 0 or not shutil.which(f"mkfs.{kind}"):
            raise CannotTry(f"needs root and mkfs.{kind}")
        directory.mkdir()
        self._image, self._mounted, self._cuts = directory / "image", directory / "mounted", 0
        self._mounted.mkdir()
        self.root = self._mounted / "repository"
        with self._image.open("wb") as file:
            file.truncate(size_bytes)
        options = ["-q", "-F", "-m", "0"] if kind == "ext4" else ["-q"]
        _must([f"mkfs.{kind}", *options, str(self._image)])
        self._device = _must(["losetup", "--find", "--show", str(self._image)]).strip()
        self._held = os.open(self._device, os.O_RDONLY)
        _must(["losetup", "--detach", self._device])  # when nobody has it open any more, whoever dies before
        self._mount()

    def parameters(self) -> list[str]:
        """Return the path."""
        return [f"path={self.root}"]

    def cut(self) -> None:
        """Put back what the device holds at this moment, below the file system; no process may run. It is the same
        device, as after a loss of power: another one would be a clone."""
        self._cuts += 1
        after = self._image.with_name("after")
        _must(["cp", "--sparse=always", str(self._image), str(after)])
        _must(["umount", str(self._mounted)])
        _must(["blkdiscard", "--zeroout", self._device])
        _must(["dd", f"if={after}", f"of={self._device}", "bs=64K", "conv=sparse,notrunc,fsync", "status=none"])
        after.unlink()
        self._mount()

    def fill(self) -> None:
        """Write files of ever smaller pieces until nothing fits any more."""
        for number, piece in enumerate((1 << 20, 1 << 10, 1)):
            try:
                with (self._mounted / f"filling-{self._cuts}-{number}-{os.urandom(4).hex()}").open("wb", 0) as file:
                    while True:
                        file.write(bytes(piece))
            except OSError:
                continue

    def close(self) -> None:
        """Unmount it."""
        subprocess.run(["umount", "-l", str(self._mounted)], check=False, capture_output=True)
        os.close(self._held)

    def _mount(self) -> None:
        _must(["mount", self._device, str(self._mounted)])


def make_place(directory: Path, kind: str) -> Place:
    """Make storage of a kind: `directory`, `ext4`, `xfs`, or `small` (an ext4 that is soon full)."""
    if kind == "directory":
        return Directory(directory)
    if kind == "small":
        return LoopMount(directory, "ext4", 100 << 20)
    return LoopMount(directory, kind, (512 if kind == "xfs" else 300) << 20)


def _must(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotTry(f"{command[0]}: {done.stderr.strip() or done.returncode}")
    return done.stdout
