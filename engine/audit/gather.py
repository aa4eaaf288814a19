"""From names to images: each file is read once, however many names it has, and what it stands on is looked up."""

from __future__ import annotations

import posixpath
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from engine.audit import headers
from engine.audit.layouts.base import IMAGE_ENDS
from engine.audit.model import Candidate, Image, Role
from engine.audit.names import as_bytes, meant
from engine.audit.places import Lead, Name, Places, Where

_ROLES = {
    headers.ISO: Role.MEDIUM,
    headers.NVRAM: Role.NVRAM,
    headers.MEMORY: Role.MEMORY,
    headers.BACKUP: Role.BACKUP,
}
_OF_HOSTS = ("", headers.LUKS)
"""What a volume that a host uses itself may hold; in an image of another format a guest's data may look like that."""
_SMALLEST_RAW = 1 << 20
"""A file without a mark is taken for a raw image from this size on, where its name does not tell."""
_SECTOR = 512
_SHOWN = 200
_UNJUDGED = (ValueError, TypeError, LookupError, ArithmeticError, RecursionError, struct.error)
"""What reading content raises that is worse than anybody thought of: of one file nothing is known then, of the others
all."""

Key = tuple[int, int]
"""Device and inode: the identity of a file."""


class Link(NamedTuple):
    """What the header of an image names."""

    name: str
    """The path as it is written, or the whole name where it is none."""
    lead: Lead | None
    """None where it is no file."""
    written: str
    """The whole name."""
    alone: bool
    """It can mean no other file of this host than what it leads to."""

    @property
    def key(self) -> Key | None:
        """The file that it leads to; None where that is not known."""
        return key_of(self.lead.name) if self.lead is not None and self.lead.name is not None else None

    @property
    def told(self) -> str:
        """The name as people are told it: one of a path as it is, another cut."""
        return self.name if self.lead is not None else self.name[:_SHOWN]


class Seen(NamedTuple):
    """An image, and what the looks beyond its header said."""

    image: Image
    candidate: Candidate
    role: Role
    backing: Link | None
    data: Link | None
    cut: int | None
    """Offset of the first data that lies behind the end of the file; None where none was found."""
    bitmaps: headers.Bitmaps | None
    """None where the list cannot be understood."""


def key_of(name: Name) -> Key:
    """Return the identity of a file."""
    return name.stat.device, name.stat.inode


class Gathered:
    """All images of the given places, by identity, in the order of directories; and the other files by role."""

    def __init__(self, places: Places, candidates: dict[str, Candidate], progress: Callable[[int, int], None]) -> None:
        self.images: dict[Key, Seen] = {}
        self.others: Counter[Role] = Counter()
        self.names: dict[Key, list[Name]] = {}
        self._places = places
        for name in places.files():
            self.names.setdefault(key_of(name), []).append(name)
        for number, (key, names) in enumerate(self.names.items(), start=1):
            candidate = _of_all(candidates[name.path] for name in names)
            role = candidate.role
            if role is Role.IMAGE:
                role = self._take(key, candidate)
            if role is not Role.IMAGE:
                self.others[role] += 1
            progress(number, len(self.names))
        self._take_what_is_named(candidates)

    def _take(self, key: Key, candidate: Candidate, anyway: bool = False) -> Role:
        """Read a file and keep it if it is an image; return what it is."""
        names = tuple(self.names[key])
        start = headers.read_start(names[0])
        kind = "" if isinstance(start, str) else headers.content(start.data)
        role = _role(names[0], candidate, kind)
        if role is Role.IMAGE and candidate.by_host and kind in _OF_HOSTS and not isinstance(start, str):
            try:
                role = Role.FILESYSTEM if headers.is_of_host(names[0], start.data) else role
            except OSError as error:
                start = error.strerror or str(error)
        if role is Role.IMAGE or anyway:
            try:
                image = headers.image_of(names, start, "" if kind in _ROLES else kind)
                self.images[key] = self._seen(names, image, candidate, role)
            except _UNJUDGED as error:
                reason = f"what it says of itself cannot be judged ({type(error).__name__}: {error!s:.80})"
                self.images[key] = self._seen(names, headers.image_of(names, reason, ""), candidate, role)
        return role

    def _seen(self, names: tuple[Name, ...], image: Image, candidate: Candidate, role: Role) -> Seen:
        header, directory = image.header, posixpath.dirname(image.path)
        if header is None:
            return Seen(image, candidate, role, None, None, None, headers.Bitmaps(0, 0))
        cut = None
        bitmaps: headers.Bitmaps | None = headers.Bitmaps(0, 0)
        if not any(user.writes for user in image.users):  # else what stands there may be half written
            try:
                cut = headers.cut_at(names[0], header, image.length)
                bitmaps = headers.bitmaps(names[0], header, image.length)
            except OSError as error:
                image = image._replace(unread=error.strerror or str(error))
        backing = self._link(header.backing_name, directory)
        return Seen(image, candidate, role, backing, self._link(header.data_name, directory), cut, bitmaps)

    def _link(self, written: str | None, directory: str) -> Link | None:
        if written is None:
            return None
        found = []
        for name in dict.fromkeys((meant(written), meant(as_bytes(written)))):
            lead = self._places.lead(name.path, directory) if name.path else None
            found.append(Link(name.words, lead, written, name.alone))
        return next((link for link in found if link.key is not None), found[0])

    def _take_what_is_named(self, candidates: dict[str, Candidate]) -> None:
        """Take also what an image stands on or has its data in, whatever it looks like."""
        todo = list(self.images.values())
        while todo:
            for key in keys_below(todo.pop()):
                if key in self.names and key not in self.images:
                    candidate = _of_all(candidates[name.path] for name in self.names[key])
                    self._take(key, candidate, anyway=True)
                    self.others[candidate.role if candidate.role is not Role.IMAGE else self.images[key].role] -= 1
                    todo.append(self.images[key])


def keys_below(seen: Seen) -> Iterator[Key]:
    """Return the files that an image needs by its header, as far as they are known."""
    for link in (seen.backing, seen.data):
        if link is not None and link.key is not None and link.lead is not None and link.lead.where is Where.FOUND:
            yield link.key


def _of_all(names: Iterable[Candidate]) -> Candidate:
    """Return what all names of one file say of it: that it is an image where one does, and whoever may mean or need
    it."""
    said = list(names)
    first = next((one for one in said if one.role is Role.IMAGE), said[0])
    mentions = dict.fromkeys(word for one in said for word in one.mentions)
    return first._replace(
        mentions=tuple(mentions), needed_by=next((one.needed_by for one in said if one.needed_by), "")
    )


def _role(name: Name, candidate: Candidate, kind: str) -> Role:
    if kind in _ROLES:
        return _ROLES[kind]
    known = kind or candidate.stated is not None or name.path.lower().endswith(IMAGE_ENDS)
    size = name.stat.size
    return Role.IMAGE if known or (size >= _SMALLEST_RAW and size % _SECTOR == 0) else Role.OTHER
