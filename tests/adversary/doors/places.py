"""Storage for repositories: where they stand, how it is cut, filled and taken away.

A place is the seam for other kinds of storage: whatever has these methods can be tried. `guests` has those of a lab.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from tests.adversary.doors.hands import Hands
from tests.adversary.oracle.findings import CannotTry


class Place(Protocol):
    """One repository's storage."""

    format: str

    @property
    def root(self) -> Path | None:
        """Where a host sees the repository's files; None if it has none."""

    def parameters(self, *, making: bool) -> list[str]:
        """Return KEY=VALUE for `create-repo` (`making`) or `connect`."""

    def below(self) -> list[str]:
        """Return the directories below which machines have its files open."""

    def left_over(self) -> list[str]:
        """Return what is there of volumes and records; of an empty repository, nothing."""

    def cut(self) -> None:
        """Lose the power now: only what reached the device is left, under the same path."""

    def fill(self) -> None:
        """Leave not one free byte."""

    def close(self) -> None:
        """Take the storage away."""


class Files:
    """A repository of files: what is the same wherever they are. `hands` are those of a host that sees them."""

    root: Path

    def __init__(self, hands: Callable[[], Hands], root: Path) -> None:
        self.hands, self.root = hands, root

    def left_over(self) -> list[str]:
        """Return the files that an empty repository has not."""
        return list(self.hands().left_over(str(self.root)))

    def back_up(self) -> None:
        """Copy the repository's directory away."""
        self.hands().shell('rm -rf "$1-backup"; cp -a "$1" "$1-backup"', str(self.root))

    def restore(self) -> None:
        """Put the copy in the place of the repository, as one restores a backup."""
        self.hands().shell('rm -rf "$1"; cp -a "$1-backup" "$1"', str(self.root))

    def restore_locks(self) -> None:
        """Put an empty lock file in the place of the lock file, as a restore of single files does."""
        self.hands().shell('rm "$1/locks"; touch "$1/locks"', str(self.root))

    def damage(self, what: str, image: str, at: int) -> list[str]:
        """Damage one object (`what`) at a place in it; return the names of the files that are gone with it."""
        return list(self.hands().damage(what, str(self.root), image, at))

    def record_away(self, image: str, whole: bool) -> tuple[str, str]:
        """Take the record of an image away, or its newest generation alone; return where it was, and where it is."""
        kept = f"{self.root}-record-{image}"
        return self.hands().record_away(str(self.root), image, kept, whole), kept

    def record_back(self, record: str, kept: str) -> None:
        """Bring it back."""
        self.hands().shell('mkdir -p "$1"; mv "$2"/* "$1"; rmdir "$2"', record, kept)


class Directory(Files):
    """A directory of an ordinary file system."""

    format = "localfs-1.0"

    def parameters(self, *, making: bool) -> list[str]:
        """Return the path."""
        del making
        return [f"path={self.root}"]

    def below(self) -> list[str]:
        """Return the directory."""
        return [str(self.root)]

    def cut(self) -> None:
        """Refuse: this file system is not ours."""
        raise CannotTry("a power cut needs a file system of its own")

    def fill(self) -> None:
        """Refuse: this file system is not ours."""
        raise CannotTry("a full storage needs a file system of its own")

    def close(self) -> None:
        """Do nothing; the world's directory goes as a whole."""


class LoopMount(Directory):
    """A small file system of its own, in a file: it can be cut and filled. Needs root."""

    def __init__(self, hands: Hands, directory: Path, kind: str, size_bytes: int) -> None:
        if os.geteuid() != 0 or not shutil.which(f"mkfs.{kind}"):
            raise CannotTry(f"needs root and mkfs.{kind}")
        directory.mkdir()
        self._image, self._mounted = directory / "image", directory / "mounted"
        self._mounted.mkdir()
        super().__init__(lambda: hands, self._mounted / "repository")
        with self._image.open("wb") as file:
            file.truncate(size_bytes)
        options = "-q -F -m 0" if kind == "ext4" else "-q"
        hands.shell(f'mkfs.{kind} {options} "$1"', str(self._image))
        self._device = hands.shell('losetup --find --show "$1"', str(self._image)).strip()
        self._held = os.open(self._device, os.O_RDONLY)
        hands.shell('losetup --detach "$1"', self._device)  # when nobody has it open any more, whoever dies before
        self._mount()

    def cut(self) -> None:
        """Put back what the device holds at this moment, below the file system; no process may run. It is the same
        device, as after a loss of power: another one would be a clone."""
        script = """
            cp --sparse=always "$1" "$1-after"
            umount "$2"
            tries=0  # whoever looks what devices hold may have it open for a moment
            until blkdiscard --zeroout "$3"; do
                tries=$((tries + 1))
                [ $tries -lt 20 ]
                sleep 0.5
            done
            dd "if=$1-after" "of=$3" bs=64K conv=sparse,notrunc,fsync status=none
            rm "$1-after" """
        self.hands().shell(script, str(self._image), str(self._mounted), self._device)
        self._mount()

    def fill(self) -> None:
        """Fill it."""
        self.hands().fill(str(self._mounted))

    def close(self) -> None:
        """Unmount it."""
        self.hands().shell('umount -l "$1" || :', str(self._mounted))
        os.close(self._held)

    def _mount(self) -> None:
        self.hands().shell('mount "$1" "$2"', self._device, str(self._mounted))


def make_place(hands: Hands, directory: Path, kind: str) -> Place:
    """Make storage of a kind: `directory`, `ext4`, `xfs`, or `small` (an ext4 that is soon full)."""
    if kind == "directory":
        return Directory(lambda: hands, directory)
    if kind == "small":
        return LoopMount(hands, directory, "ext4", 100 << 20)
    return LoopMount(hands, directory, kind, (512 if kind == "xfs" else 300) << 20)
