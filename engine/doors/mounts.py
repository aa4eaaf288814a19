"""The mount door: file systems of a server, at a directory of this host.

Errors: ``ToolMissing``, ``BadRequest`` (an option or version the kernel or the server refuses),
``StorageError`` (server away, export refused, mount point busy).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Mount(NamedTuple):
    """One line of the kernel's list."""

    source: str
    """As the kernel shows it, such as "server:/export"."""
    path: str
    type: str
    """Such as "nfs4"."""
    options: tuple[str, ...]
    """Of the mount and of the file system."""


class Mounts(Protocol):
    """What is mounted on this host."""

    def at(self, path: str) -> Mount | None:
        """The mount whose root is exactly ``path`` (the uppermost one), None when there is none."""

    def holding(self, path: str) -> Mount | None:
        """The mount that ``path`` lies in; asks the kernel's list only, so a dead server does not block it."""

    def mount_nfs(self, source: str, path: str, options: str) -> None:
        """Mount an NFS export at ``path``, whose directories are made when they are missing. Conflict when
        something else is mounted there; success when this source is."""

    def unmount(self, path: str) -> None:
        """Take the mount away and its empty directory with it; success when nothing is mounted.
        StorageError while it is in use. Never lazy and never forced."""
