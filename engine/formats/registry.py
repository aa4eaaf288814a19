"""The repository formats this program knows, by the name an operator gives."""

from __future__ import annotations

import re
from typing import NamedTuple, Protocol

from engine.doors import Doors
from engine.errors import BadRequest
from engine.formats.base import Repository

_FORMAT = re.compile(r"([a-z][a-z0-9]{0,31})-(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})\Z")


class Type(Protocol):
    """A module that knows one type of repository. ``parameters`` are an operator's: any of them may be wrong."""

    VERSION: tuple[int, int]
    """Newest version of the format on disk that it knows."""

    def create(self, doors: Doors, parameters: dict[str, object]) -> None:
        """Make a repository as ``create_repository`` says. What it mounted or activated for that is taken away
        again."""

    def open(self, doors: Doors, parameters: dict[str, object], threads: bool) -> Repository:
        """Open a repository as ``open_repository`` says. Makes the storage reachable first (mounts, loop devices,
        activation), if it is not; a crash in between leaves nothing that ``detach`` does not find."""

    def detach(self, doors: Doors, parameters: dict[str, object]) -> None:
        """Take away what ``open`` did to this host: mounts, loop devices, active volumes. Nothing is open.
        Success when there is nothing, also when the storage is not there. StorageError while it is in use."""

    def reached(self, doors: Doors, parameters: dict[str, object]) -> object:
        """Return what ``detach`` takes away, as something that is equal where two sets of parameters mean the same."""


_TYPES = ("localfs", "lvm", "nfs")
"""Modules beside this one."""


def _type(name: str) -> Type:
    """Import the module of a type when it is needed: a command must start quickly."""
    if name == "lvm":
        from engine.formats.lvm import repository

        return repository
    if name == "nfs":
        from engine.formats.nfs import repository as nfs

        return nfs
    from engine.formats.files import localfs

    return localfs


class Format(NamedTuple):
    """A parsed format name."""

    type: str
    major: int
    minor: int


def known_formats() -> list[str]:
    """Return what ``create_repository`` can make, such as "localfs-1.0"."""
    return [f"{name}-{major}.{minor}" for name, (major, minor) in ((name, _type(name).VERSION) for name in _TYPES)]


def parse_format(format: str) -> Format:
    """Return type, major and minor of "<type>-<major>.<minor>"; raise BadRequest for what is not known here.

    A newer minor of a known major is known; a newer major is not.
    """
    match = _FORMAT.match(format) if isinstance(format, str) else None
    if match is None:
        raise _unknown(f"format {format!r:.80} is not <type>-<major>.<minor>")
    parsed = Format(match[1], int(match[2]), int(match[3]))
    if parsed.type not in _TYPES:
        raise _unknown(f"repository type {parsed.type!r} is unknown")
    if parsed.major != _type(parsed.type).VERSION[0]:
        raise _unknown(f"this program does not know version {parsed.major} of {parsed.type}")
    return parsed


def _unknown(message: str) -> BadRequest:
    return BadRequest(message, f"Known: {', '.join(known_formats())}")


def create_repository(format: str, parameters: dict[str, object], doors: Doors) -> None:
    """Create an empty repository, durable on return; its parent directory exists.

    Atomic: a crash before the end leaves no repository, and calling again completes it.
    BadRequest, NotFound (no parent directory), Conflict (something is there), StorageError.
    """
    parsed = parse_format(format)
    newest = _type(parsed.type).VERSION[1]
    if parsed.minor > newest:
        raise BadRequest(f"this program cannot create {format}", f"Known: {', '.join(known_formats())}")
    _type(parsed.type).create(doors, parameters)


def open_repository(format: str, parameters: dict[str, object], doors: Doors, threads: bool = True) -> Repository:
    """Open an existing repository, made reachable from this host first; nothing on it is changed.

    ``threads``: a scan of slow storage may use some. The version on disk decides: a newer minor
    is accepted, a newer major is Refused. BadRequest, NotFound, Damaged, StorageError.
    """
    return _type(parse_format(format).type).open(doors, parameters, threads)


def detach_repository(format: str, parameters: dict[str, object], doors: Doors) -> None:
    """Leave nothing of a repository behind on this host: no mount, loop device or active volume. Idempotent.

    StorageError while something is in use."""
    _type(parse_format(format).type).detach(doors, parameters)


def same_on_host(first: tuple[str, dict[str, object]], second: tuple[str, dict[str, object]], doors: Doors) -> bool:
    """Return whether detaching one (format, parameters) would take away what the other stands on. BadRequest."""
    (one, other), (left, right) = (parse_format(first[0]), parse_format(second[0])), (first[1], second[1])
    return one.type == other.type and _type(one.type).reached(doors, left) == _type(one.type).reached(doors, right)
