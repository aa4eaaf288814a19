"""What an audit sees and what it reports, as plain data."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

from engine.data.model import Status
from engine.doors.users import User
from engine.tools.qemu.qcow2 import Header


class Role(StrEnum):
    """What a file is. Only images are judged; the others are counted, and never called orphans."""

    IMAGE = "image"
    MEDIUM = "medium"
    """An ISO image."""
    NVRAM = "nvram"
    """Variables of a machine's firmware."""
    TPM = "tpm"
    """State of a machine's TPM."""
    MEMORY = "memory"
    """Saved memory of a machine."""
    METADATA = "metadata"
    """What the system that made the images keeps about them."""
    BACKUP = "backup"
    """An archive or a compressed image."""
    FILESYSTEM = "file system"
    """A logical volume that a host uses itself: a file system, swap, a part of an array."""
    REPOSITORY = "repository"
    """A file or logical volume of a repository of diskwright: what it is for, ``check`` tells."""
    REMNANT = "remnant"
    """Left by an operation that did not end."""
    OTHER = "other"


class Stated(NamedTuple):
    """What the metadata of a layout says of an image, as far as it does."""

    source: str
    """The file that says it."""
    format: str = ""
    size: int = -1
    """Virtual size in bytes, -1 where it is not said."""
    parent: str | None = None
    """Name of the parent, "" for none, None where it is not said."""


class Candidate(NamedTuple):
    """What a layout says of one file before it was opened."""

    role: Role
    mentions: tuple[str, ...] = ()
    """Words by which a definition may mean this file, besides its name."""
    stated: Stated | None = None
    remedy: tuple[str, ...] = ()
    """How its own system lists it or takes it away: the words of a command; () for the plain ``rm``."""
    needed_by: str = ""
    """Who is known to need it by the layout itself (a link of a template, …), in words; "" for nobody."""
    by_host: bool = False
    """It may have a file system of a host, which is then no image."""


class Found(NamedTuple):
    """Something that a layout found wrong by itself."""

    rule: str
    path: str
    words: dict[str, Any]
    case: str = ""
    size_bytes: int = 0


class Contents(NamedTuple):
    """What a layout says of one place."""

    layout: str
    candidates: dict[str, Candidate]
    """By absolute path."""
    found: tuple[Found, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    """(other absolute path, path of the place) by which names may lead into it."""


class Image(NamedTuple):
    """One image file, once, however many names it has."""

    path: str
    names: tuple[str, ...]
    """All its names below the given places, ``path`` first."""
    format: str
    """"" where it could not be read."""
    size: int
    """Virtual size in bytes."""
    length: int
    """Of the file."""
    allocated: int
    header: Header | None
    problem: str
    """Why the header cannot be understood; "" where it can."""
    unread: str
    """Why it could not be read; "" where it could."""
    users: tuple[User, ...]
    links: int
    """Names that the file system counts; more than ``names`` where some are elsewhere."""
    says: str = ""
    """Text in which a format that is not understood here names other files."""
    stands: bool = False
    """It may stand on another file, in a way that is not understood here."""


class Finding(NamedTuple):
    """One thing that was found."""

    rule: str
    status: Status
    """Of the image, as far as this finding goes."""
    path: str
    reason: str
    evidence: tuple[tuple[str, str], ...]
    """What it was concluded from, as (what, its words)."""
    size_bytes: int
    """Held by it, or lost with it; 0 where that does not apply."""
    command: tuple[str, ...]
    """What to type there, as words; () where there is nothing to type."""


class Audited(NamedTuple):
    """One image, judged."""

    path: str
    names: tuple[str, ...]
    format: str
    size_bytes: int
    used_bytes: int
    parent: str
    """Path of what it stands on, or its name in the header where that is not in the given places; "" for nothing."""
    depth: int
    """Images in its chain that are in the given places, itself included."""
    status: Status
    rule: str
    reason: str
    used_by: tuple[str, ...]
    """Which definitions refer to it, and who has it open now."""


class AuditReport(NamedTuple):
    """What an audit found."""

    places: tuple[tuple[str, str], ...]
    """(path, layout) of each place."""
    images: tuple[Audited, ...]
    findings: tuple[Finding, ...]
    """The worst first."""
    others: dict[str, int]
    """Files that are no images, counted by role."""
    unsure: tuple[str, ...]
    """Why no image may be called an orphan, in sentences; empty where one may."""
