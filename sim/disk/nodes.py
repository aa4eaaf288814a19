"""What a simulated file system is made of: immutable nodes, and operations that are not durable yet."""

from __future__ import annotations

import os
from typing import NamedTuple

from engine.doors.files import Kind
from sim.disk.content import Content

ROOT = 1
"""Inode of "/"."""


class DataOp(NamedTuple):
    """A change of a file's content that is not durable yet."""

    sequence: int
    kind: str
    """write, fill, punch, truncate, or clone"""
    offset: int
    length: int
    data: bytes | int | Content

    def apply(self, content: Content) -> Content:
        """``content`` after this change."""
        if isinstance(self.data, bytes):
            return content.write(self.offset, self.data)
        if isinstance(self.data, Content):
            return self.data
        if self.kind == "fill":
            return content.fill(self.offset, self.length, self.data)
        return content.punch(self.offset, self.length) if self.kind == "punch" else content.truncate(self.length)

    def __str__(self) -> str:
        if self.kind == "truncate":
            return f"truncate to {self.length}"
        return f"{self.kind} {self.length} at {self.offset}"


class NameOp(NamedTuple):
    """A change of names in one directory that is not durable yet. Atomic."""

    sequence: int
    directory: int
    changes: tuple[tuple[str, int, int], ...]
    """(name, inode it had, inode it gets); 0: none."""
    needs: int
    """Sequence of the operation without which this one does not survive, 0: none."""
    text: str


class FileNode(NamedTuple):
    """A regular file."""

    content: Content
    durable: Content
    pending: tuple[DataOp, ...]
    tainted: bool
    """A sync failed: ``durable`` with ``pending`` applied is not ``content``."""
    links: int
    mtime: int


class DirectoryNode(NamedTuple):
    """A directory. Neither dictionary is ever changed in place."""

    names: dict[str, int]
    durable: dict[str, int]
    parent: int


class LinkNode(NamedTuple):
    """A symbolic link, durable with its name."""

    target: str
    links: int = 1


class SpecialNode(NamedTuple):
    """A FIFO, socket or device: something that is no file."""

    kind: str = "fifo"
    links: int = 1


Node = FileNode | DirectoryNode | LinkNode | SpecialNode


def fail(number: int, path: str = "", other: str | None = None) -> OSError:
    """The OSError that the kernel's answer becomes in Python."""
    if other is None:
        return OSError(number, os.strerror(number), path)
    return OSError(number, os.strerror(number), path, None, other)


KINDS: dict[type, Kind] = {
    FileNode: Kind.FILE,
    DirectoryNode: Kind.DIRECTORY,
    LinkNode: Kind.SYMLINK,
    SpecialNode: Kind.OTHER,
}
