"""The tree door: reading below a directory that is not ours, and never outside of it.

Paths are relative to the root, their parts separated by ``/``; the root is "". No symbolic link is followed anywhere on
the way, so nothing that a name or the content of a file says can lead out of the root. Nothing is written, not even a
time of access where that can be helped. Every call raises plain ``OSError``.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from engine.doors.files import Stat
from engine.doors.users import User
from engine.doors.volume_groups import VolumeGroup


class Member(NamedTuple):
    """A name in a directory of a tree, and what it is."""

    name: str
    stat: Stat
    target: str
    """Where a symbolic link says that it leads; "" for anything else."""


class Start(NamedTuple):
    """The beginning of a regular file, and who uses it."""

    data: bytes
    length: int
    """Of the whole file."""
    users: tuple[User, ...]
    """Who has it open as an image, as ``Files.users`` has it."""


class Held(NamedTuple):
    """A regular file that is held open."""

    path: str
    """By which processes of this user open this very file as long as it is held, whatever its name means by then."""
    device: int
    inode: int
    block: bool = False
    """It is a block device."""


class Tree(Protocol):
    """A directory with all that is below it."""

    @property
    def names(self) -> tuple[str, ...]:
        """The absolute paths by which the root is known: the true one first, then that by which it was given."""

    @property
    def group(self) -> VolumeGroup | None:
        """The volume group whose logical volumes are shown as files of the root; None for a directory."""

    def list(self, path: str) -> list[Member]:
        """List a directory. ELOOP or ENOTDIR where a link or a file is on the way. A name that vanished meanwhile is
        left out."""

    def start(self, path: str, length: int) -> Start:
        """Read the first ``length`` bytes of a regular file with one open. EINVAL on anything else; never blocks."""

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Read a range of a regular file; fewer bytes only at its end. EINVAL on anything else."""

    def hold(self, path: str) -> AbstractContextManager[Held]:
        """Open a regular file for a program that reads it by a path. EINVAL on anything else; never blocks."""

    def close(self) -> None:
        """Close what is open; idempotent."""
