"""The plan of an adoption: which files become which images, and which stay as they are."""

from __future__ import annotations

from typing import NamedTuple

from engine.data.model import VolumeFormat

Facts = tuple[int, ...]
"""(size, mtime in ns, inode) of a file, by which it is known; then whose it is: (user, group, mode)."""


class Planned(NamedTuple):
    """A file, and what becomes of it."""

    path: str
    """Without symbolic links."""
    format: VolumeFormat
    size: int
    """Virtual size in bytes."""
    base: str
    """Path of the file that it stands on, "" for none."""
    mutable: bool
    """It becomes a disk, else a snapshot."""
    facts: Facts


class Plan(NamedTuple):
    """What an adoption would do."""

    images: tuple[Planned, ...]
    """Each after what it stands on."""
    refused: tuple[tuple[str, str], ...]
    """(path, why) of what stays as it is."""
