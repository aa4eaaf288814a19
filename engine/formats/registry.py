"""The repository formats this program knows, by the name an operator gives."""

from __future__ import annotations

import re
from typing import NamedTuple

from engine.doors import Doors
from engine.errors import BadRequest
from engine.formats import files_layout, files_setup, localfs
from engine.formats.base import Repository

_FORMAT = re.compile(r"([a-z][a-z0-9]{0,31})-(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})\Z")

_VERSIONS = {"localfs": (files_layout.MAJOR, files_layout.MINOR)}
"""Newest version of each type's format on disk."""


class Format(NamedTuple):
    """A parsed format name."""

    type: str
    major: int
    minor: int


def known_formats() -> list[str]:
    """What ``create_repository`` can make, such as "localfs-1.0"."""
    return [f"{name}-{major}.{minor}" for name, (major, minor) in sorted(_VERSIONS.items())]


def parse_format(format: str) -> Format:
    """Type, major and minor of "<type>-<major>.<minor>", or BadRequest for what is not known here.

    A newer minor of a known major is known; a newer major is not.
    """
    match = _FORMAT.match(format) if isinstance(format, str) else None
    known = f"Known: {', '.join(known_formats())}"
    if match is None:
        raise BadRequest(f"format {format!r:.80} is not <type>-<major>.<minor>", known)
    parsed = Format(match[1], int(match[2]), int(match[3]))
    if parsed.type not in _VERSIONS:
        raise BadRequest(f"repository type {parsed.type!r} is unknown", known)
    if parsed.major != _VERSIONS[parsed.type][0]:
        raise BadRequest(f"this program does not know version {parsed.major} of {parsed.type}", known)
    return parsed


def create_repository(format: str, parameters: dict[str, object], doors: Doors) -> None:
    """Create an empty repository, durable on return; its parent directory exists.

    Atomic: a crash before the end leaves no repository, and calling again completes it.
    BadRequest, NotFound (no parent directory), Conflict (something is there), StorageError.
    """
    parsed = parse_format(format)
    newest = _VERSIONS[parsed.type][1]
    if parsed.minor > newest:
        raise BadRequest(f"this program cannot create {format}", f"Known: {', '.join(known_formats())}")
    files_setup.create_tree(doors, localfs.require_path(parameters))


def open_repository(format: str, parameters: dict[str, object], doors: Doors, threads: bool = True) -> Repository:
    """Open an existing repository; nothing on it is changed.

    ``threads``: a scan of slow storage may use some. The version on disk decides: a newer minor
    is accepted, a newer major is Refused. BadRequest, NotFound, Damaged, StorageError.
    """
    parse_format(format)
    root = localfs.require_path(parameters)
    return localfs.LocalRepository(doors, root, files_setup.open_tree(doors, root), threads)
