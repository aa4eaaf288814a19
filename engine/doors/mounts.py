"""The mount door: file systems of a server, at a directory of this host.

Errors: ``ToolMissing``, ``BadRequest`` (an option or version the kernel or the server refuses),
``StorageError`` (server away, export refused, mount point busy).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from engine.doors.users import User


class Mount(NamedTuple):
    """One line of the kernel's list."""

    source: str
    """What is mounted, as the kernel shows it, such as "server:/export"."""
    path: str
    type: str
    """Such as "nfs4"."""
    options: tuple[str, ...]
    """Options of the mount and of the file system."""


class Mounts(Protocol):
    """What is mounted on this host."""

    def at(self, path: str) -> Mount | None:
        """Return the mount whose root is exactly ``path`` (the uppermost one), None when there is none."""

    def holding(self, path: str) -> Mount | None:
        """Return the mount that ``path`` lies in. Only the kernel's list is asked, so a dead server does not block
        it."""

    def mount_nfs(self, source: str, path: str, options: str) -> None:
        """Mount an NFS export at ``path``, whose directories are made when they are missing. Conflict when
        something else is mounted there; success when this source is."""

    def unmount(self, path: str) -> None:
        """Take the mount away and its empty directory with it; success when nothing is mounted.
        StorageError naming who uses it while it is in use. Never lazy and never forced."""

    def users(self, path: str, also: str = "") -> list[User]:
        """Return other processes of this host that use ``path`` or anything below it, or have the file ``also`` open,
        as far as they may be looked at. Does not ask the server."""
