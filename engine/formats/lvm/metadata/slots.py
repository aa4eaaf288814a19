"""A slot of ``dw-meta``: the copies of one record, which of them counts, and how one is written.

A change is written into a copy that is not the newest one. What a power cut leaves of a change that
was never acknowledged is torn and does not count. A copy that is bad may have been the newest: then the
tag is damaged, and the older copies are evidence. Where several hosts write, a copy of another host must
not be touched, so the record that replaces a damaged one says which bad pages it knew of. Nothing here
has an effect.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from hashlib import blake2b
from typing import NamedTuple

from engine.data.records import Record, has_room, incarnation, is_tombstone
from engine.formats.base import TagEntry
from engine.formats.lvm.metadata import layout
from engine.formats.lvm.metadata.layout import Geometry
from engine.formats.lvm.metadata.pages import (
    PAGE_BYTES,
    PAYLOAD_BYTES,
    PREFIX_BYTES,
    Stamp,
    State,
    look,
    newest_stamp,
    seal,
    sealed_length,
    unseal,
)
from engine.formats.outcomes import understood

_HEAD = struct.Struct(">4s16sQQIB16s")
_MAGIC = b"DWR1"
_INLINE_BYTES = PAGE_BYTES // 512 * PAYLOAD_BYTES - _HEAD.size
_INLINE, _KNOWS_BAD = 1, 2
_DIGEST_BYTES = 8
_AFTER_HEAD = PREFIX_BYTES + _HEAD.size
Bad = tuple[int, bytes]
"""(copy, digest of its page) of a page that does not even tell which change it is of."""

ReadBody = Callable[[int, int], bytes]
"""(copy, bytes on the device)"""


class Head(NamedTuple):
    """What the head of a copy says."""

    copy: int
    stamp: Stamp
    tag: str
    generation: int
    purge: int
    """Number of the purge that a tombstone is of: the oldest ones are given up first."""
    length: int
    flags: int
    checksum: bytes

    @property
    def inline(self) -> bool:
        """Return whether the content stands in the same page."""
        return bool(self.flags & _INLINE)


class Slot(NamedTuple):
    """A slot as it was read."""

    number: int
    tag: str = ""
    """"": free. Where nobody can tell whose it is, a stand-in made of the number."""
    generation: int = 0
    content: bytes = b""
    newest: Head | None = None
    sequence: int = 0
    """The highest sequence that was read in any copy."""
    problem: str = ""
    unreadable: bool = False
    bad: tuple[Bad, ...] = ()
    """Pages that make no sense at all, as they are now."""
    known_bad: tuple[Bad, ...] = ()
    """The pages of ``bad`` that the writer of the newest copy knew of, so they are not newer."""
    alone_newer: bool = False
    """All that may be newer than the newest intact copy stood in one place, one change over the other."""

    @property
    def free(self) -> bool:
        """Return whether nothing was ever acknowledged here."""
        return not self.tag

    def entry(self) -> TagEntry:
        """Return the tag in the slot."""
        if self.problem:
            return TagEntry(self.tag, self.generation, None, self.problem, self.unreadable, before=self._before())
        if is_tombstone(self.generation):
            return TagEntry(self.tag, self.generation, None)
        return understood(self.tag, self.generation, self.content)

    def _before(self) -> Record | None:
        """The newest intact copy of a damaged record. What may have been newer is one generation newer: of two, one
        would have left its trace in another copy. Unless that one stood where the other is: a change is written over a
        damaged copy only to mend it, from the intact one, and a power cut may mix the two."""
        if self.newest is None or is_tombstone(self.newest.generation):
            return None
        if self.generation > self.newest.generation + 1 and not self.alone_newer:
            return None
        return understood(self.tag, self.newest.generation, self.content).record


def stand_in(number: int) -> str:
    """Return the id under which a slot is shown and can be given up when nobody can tell whose it is: no image has it,
    for ids are random."""
    return f"{number:032x}"


def _checksum(tag: str, generation: int, purge: int, content: bytes) -> bytes:
    head = b"%s %d %d " % (tag.encode(), generation, purge)
    return blake2b(head + content, digest_size=16).digest()


def _parse_head(copy: int, stamp: Stamp, payload: bytes, geometry: Geometry) -> Head | None:
    magic, tag, generation, purge, length, flags, checksum = _HEAD.unpack_from(payload)
    if magic != _MAGIC or length > layout.MAX_BODY or generation == 0 or not has_room(generation):
        return None
    if (flags & _INLINE and length > _INLINE_BYTES) or flags & ~(_INLINE | _KNOWS_BAD):
        return None
    if not geometry.has_place(copy, stamp.version, stamp.sequence):
        return None
    return Head(copy, stamp, tag.hex(), generation, purge, length, flags, checksum)


def read_slot(number: int, raw: bytes, body: ReadBody, geometry: Geometry = layout.EXCLUSIVE_GEOMETRY) -> Slot:
    """Return what counts in a slot whose heads are ``raw``; ``body`` reads a body. Plain OSError."""
    pages = [raw[copy * PAGE_BYTES : (copy + 1) * PAGE_BYTES] for copy in range(geometry.copies)]
    heads, doubtful = [], []
    for copy, page in enumerate(pages):
        state, stamp, payload = look(page)
        head = _parse_head(copy, stamp, payload, geometry) if stamp is not None else None
        if head is not None:
            heads.append(head)
        elif state is not State.BLANK:
            doubtful.append((copy, _digest(page)))
    heads.sort(key=lambda head: head.stamp[:2], reverse=True)
    slot = Slot(number, sequence=max((head.stamp.sequence for head in heads), default=0), bad=tuple(doubtful))
    evidence: Head | None = None
    for newer, head in enumerate(heads):
        state, content, known_bad = _content(head, pages[head.copy], body)
        if state is State.BAD:
            evidence = evidence or head
        elif state is State.WHOLE:
            unknown = [copy for copy, digest in doubtful if (copy, digest) not in known_bad]
            problem = "its newest copy is damaged" if evidence else _missing_newer(head, pages, unknown)
            shown = evidence or head
            return slot._replace(
                tag=head.tag, generation=shown.generation, content=content, newest=head, problem=problem,
                known_bad=known_bad, alone_newer=newer == 1 and not doubtful and _same_life(head, shown),
            )  # fmt: skip
    if evidence is not None:
        return slot._replace(tag=evidence.tag, generation=evidence.generation, problem="all its copies are damaged")
    if doubtful:
        return slot._replace(tag=stand_in(number), generation=1, problem="it does not even tell whose it is")
    return slot


def _same_life(head: Head, other: Head) -> bool:
    """Whether both are of one tag, which was not purged in between."""
    return (head.tag, incarnation(head.generation)) == (other.tag, incarnation(other.generation))


def _digest(page: bytes) -> bytes:
    return blake2b(page, digest_size=_DIGEST_BYTES).digest()


def _content(head: Head, page: bytes, body: ReadBody) -> tuple[State, bytes, tuple[Bad, ...]]:
    about_bad = 0
    if head.flags & _KNOWS_BAD:
        about_bad = 1 + page[_AFTER_HEAD] * (1 + _DIGEST_BYTES)
    start = _HEAD.size + about_bad
    length = min(start + (head.length if head.inline else 0), PAGE_BYTES // 512 * PAYLOAD_BYTES)
    state, payload = unseal(page, head.stamp, length)
    if state is not State.WHOLE:
        return state, b"", ()
    known_bad, content = _decode_bad(payload[_HEAD.size : start]), payload[start:]
    if not head.inline:
        state, content = unseal(body(head.copy, sealed_length(head.length)), head.stamp, head.length)
        if state is not State.WHOLE:
            return state, b"", ()
    if _checksum(head.tag, head.generation, head.purge, content) != head.checksum:
        return State.BAD, b"", ()
    return State.WHOLE, content, known_bad


def _encode_bad(bad: tuple[Bad, ...]) -> bytes:
    return bytes([len(bad)]) + b"".join(bytes([copy]) + digest for copy, digest in bad) if bad else b""


def _decode_bad(raw: bytes) -> tuple[Bad, ...]:
    step = 1 + _DIGEST_BYTES
    return tuple((raw[at], raw[at + 1 : at + step]) for at in range(1, len(raw), step))


def _missing_newer(newest: Head, pages: list[bytes], doubtful: list[int]) -> str:
    """Return why a newer copy than the newest intact one may have been there, "" when there was none."""
    for copy in doubtful:
        stamp, _ = newest_stamp(pages[copy])
        if stamp is None or stamp[:2] > newest.stamp[:2]:
            return "a copy of it is damaged, and may have been the newest"
    return ""


class Write(NamedTuple):
    """A change about to be written."""

    tag: str
    generation: int
    purge: int
    content: bytes
    bad: tuple[Bad, ...] = ()
    """Pages that are known to be bad and not newer."""

    @property
    def inline(self) -> bool:
        """Return whether the content fits beside its head."""
        return len(self.content) + len(_encode_bad(self.bad)) <= _INLINE_BYTES

    def sealed_head(self, slot: Slot, version: int, lane: int) -> tuple[int, Stamp, bytes]:
        """Return (copy, stamp, head page) for the copy of the slot that may be overwritten."""
        sequence = slot.sequence + 1
        if slot.newest is not None and layout.copy_of(lane, sequence) == slot.newest.copy:
            sequence += 1
        checksum = _checksum(self.tag, self.generation, self.purge, self.content)
        stamp = Stamp(version, sequence, checksum[:8])
        head = _HEAD.pack(
            _MAGIC, bytes.fromhex(self.tag), self.generation, self.purge, len(self.content),
            self.inline * _INLINE | bool(self.bad) * _KNOWS_BAD, checksum,
        )  # fmt: skip
        page = seal(stamp, head + _encode_bad(self.bad) + (self.content if self.inline else b""))
        return layout.copy_of(lane, sequence), stamp, page
