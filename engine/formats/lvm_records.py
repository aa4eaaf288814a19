"""Records in the slots of ``dw-meta``: one slot for each tag, four copies in a slot.

A change is written into a copy that is not the newest one, made durable, and read back; the copy
with the highest stamp that is whole counts. What a power cut leaves of a change that was never
acknowledged is torn and does not count. A copy that is bad may have been the newest: then the tag
is damaged, and the older copies are evidence.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import NamedTuple

from engine.errors import (
    Damaged,
    DiskwrightError,
    NoSpace,
    OutcomeUnknown,
    Overtaken,
    Refused,
    StorageError,
    from_os_error,
)
from engine.formats import lvm_layout as layout
from engine.formats.base import TagEntry
from engine.formats.files_tree import doing
from engine.formats.lvm_guard import Guard
from engine.formats.lvm_layout import COPIES, SLOT_BYTES, SLOTS, MetaHeader
from engine.formats.lvm_meta import Meta
from engine.formats.lvm_pages import PAGE_BYTES, PAYLOAD_BYTES, Stamp, State, is_blank, look, newest_stamp, seal, unseal
from engine.formats.lvm_pages import sealed_length as _sealed
from engine.records import (
    Record,
    decode,
    encode,
    has_room,
    is_tombstone,
    next_generation,
    tombstone_generation,
)

_HEAD = struct.Struct(">4s16sQQIB16s")
_MAGIC = b"DWR1"
_INLINE_BYTES = PAGE_BYTES // 512 * PAYLOAD_BYTES - _HEAD.size
_KEPT_TOMBSTONES = 64
"""So many are kept while room for more records can be made."""

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
    inline: bool
    checksum: bytes


class Slot(NamedTuple):
    """A slot as it was read."""

    number: int
    tag: str = ""
    """"": free. Where nobody can tell whose it is, a stand-in made of the number."""
    generation: int = 0
    content: bytes = b""
    newest: Head | None = None
    sequence: int = 0
    """The highest that was seen in it."""
    problem: str = ""
    unreadable: bool = False

    @property
    def free(self) -> bool:
        """Nothing was ever acknowledged here."""
        return not self.tag

    def entry(self) -> TagEntry:
        """The tag in it."""
        if self.problem:
            return TagEntry(self.tag, self.generation, None, self.problem, self.unreadable)
        if is_tombstone(self.generation):
            return TagEntry(self.tag, self.generation, None)
        try:
            return TagEntry(self.tag, self.generation, decode(self.content, self.tag))
        except Damaged as error:
            return TagEntry(self.tag, self.generation, None, error.message)


def stand_in(number: int) -> str:
    """The id under which a slot is shown and can be given up when nobody can tell whose it is: no image has it, for
    ids are random."""
    return f"{number:032x}"


def _checksum(tag: str, generation: int, purge: int, content: bytes) -> bytes:
    head = b"%s %d %d " % (tag.encode(), generation, purge)
    return blake2b(head + content, digest_size=16).digest()


def _parse_head(copy: int, stamp: Stamp, payload: bytes) -> Head | None:
    magic, tag, generation, purge, length, inline, checksum = _HEAD.unpack_from(payload)
    if magic != _MAGIC or length > layout.MAX_BODY or generation == 0 or not has_room(generation):
        return None
    if (inline and length > _INLINE_BYTES) or layout.copy_of(stamp.version, stamp.sequence) != copy:
        return None
    return Head(copy, stamp, tag.hex(), generation, purge, length, bool(inline), checksum)


def read_slot(number: int, raw: bytes, body: ReadBody) -> Slot:
    """What counts in a slot whose heads are ``raw``; ``body`` reads a body. Plain OSError."""
    pages = [raw[copy * PAGE_BYTES : (copy + 1) * PAGE_BYTES] for copy in range(COPIES)]
    heads, doubtful = [], []
    for copy, page in enumerate(pages):
        state, stamp, payload = look(page)
        head = _parse_head(copy, stamp, payload) if stamp is not None else None
        if head is not None:
            heads.append(head)
        elif state is not State.BLANK:
            doubtful.append(copy)
    heads.sort(key=lambda head: head.stamp[:2], reverse=True)
    highest = max((head.stamp.sequence for head in heads), default=0)
    evidence: Head | None = None
    for head in heads:
        state, content = _content(head, pages[head.copy], body)
        if state is State.BAD:
            evidence = evidence or head
        elif state is State.WHOLE:
            problem = "its newest copy is damaged" if evidence else _missing_newer(head, pages, doubtful)
            shown = evidence or head
            return Slot(number, head.tag, shown.generation, content, head, highest, problem)
    if evidence is not None:
        return Slot(number, evidence.tag, evidence.generation, b"", None, highest, "all its copies are damaged")
    if doubtful:
        return Slot(number, stand_in(number), 1, b"", None, highest, "it does not even tell whose it is")
    return Slot(number, sequence=highest)


def _content(head: Head, page: bytes, body: ReadBody) -> tuple[State, bytes]:
    state, payload = unseal(page, head.stamp, _HEAD.size + (head.length if head.inline else 0))
    if state is not State.WHOLE:
        return state, b""
    content = payload[_HEAD.size :]
    if not head.inline:
        state, content = unseal(body(head.copy, _sealed(head.length)), head.stamp, head.length)
        if state is not State.WHOLE:
            return state, b""
    if _checksum(head.tag, head.generation, head.purge, content) != head.checksum:
        return State.BAD, b""
    return State.WHOLE, content


def _missing_newer(newest: Head, pages: list[bytes], doubtful: list[int]) -> str:
    """Why a newer copy than the newest intact one may have been there, "" when there was none."""
    for copy in doubtful:
        stamp, _ = newest_stamp(pages[copy])
        if stamp is None or stamp[:2] > newest.stamp[:2]:
            return "a copy of it is damaged, and may have been the newest"
    return ""


class Records:
    """The tags of one repository."""

    def __init__(self, meta: Meta, guard: Guard) -> None:
        self._meta = meta
        self._guard = guard
        self._hints: dict[str, int] = {}

    # -- looking

    def scan(self) -> dict[str, TagEntry]:
        """All tags. StorageError when not even the header can be read."""
        tags: dict[str, TagEntry] = {}
        for slot in self._slots(self._meta.header()):
            if slot.tag in tags:
                tags[slot.tag] = TagEntry(
                    slot.tag, slot.generation, None, "two records say that they are of this image"
                )
            elif slot.tag:
                tags[slot.tag] = slot.entry()
        return tags

    def read(self, tag: str) -> TagEntry | None:
        """The newest generation of one tag, None when there is none. StorageError when some could not be read and it
        may be among them."""
        slot = self._locate(tag, self._meta.header())
        return slot.entry() if slot is not None else None

    def _slots(self, header: MetaHeader) -> Iterator[Slot]:
        for chunk in range(header.chunks):
            first = chunk * SLOTS
            try:
                raw = self._meta.read(layout.head_offset(first, 0), layout.HEADS_BYTES)
            except OSError:
                yield from (self._slot_alone(first + index) for index in range(SLOTS))
                continue
            for index in range(SLOTS):
                heads = raw[index * SLOT_BYTES : (index + 1) * SLOT_BYTES]
                yield Slot(first + index) if is_blank(heads) else self._understood(first + index, heads)

    def _slot_alone(self, number: int) -> Slot:
        try:
            heads = self._meta.read(layout.head_offset(number, 0), SLOT_BYTES)
        except OSError as error:
            return self._unread(number, error)
        return self._understood(number, heads)

    def _understood(self, number: int, heads: bytes) -> Slot:
        def body(copy: int, length: int) -> bytes:
            return self._meta.read(layout.body_offset(number, copy), length)

        try:
            slot = read_slot(number, heads, body)
        except OSError as error:
            return self._unread(number, error)
        if slot.tag:
            self._hints[slot.tag] = number
        return slot

    def _unread(self, number: int, error: OSError) -> Slot:
        tag = next((tag for tag, hint in self._hints.items() if hint == number), stand_in(number))
        return Slot(number, tag, 1, problem=from_os_error(error, "read the record").message, unreadable=True)

    def _locate(self, tag: str, header: MetaHeader) -> Slot | None:
        number = self._hints.get(tag)
        if number is not None and number < header.chunks * SLOTS:
            slot = self._slot_alone(number)
            if slot.tag == tag:
                return slot
        self._hints.pop(tag, None)
        unread = None
        for slot in self._slots(header):
            if slot.tag == tag:
                return slot
            if slot.unreadable:
                unread = slot
        if unread is not None:
            raise StorageError(f"whether there is an image {tag} is not known: {unread.problem}", "Try again")
        return None

    # -- changing

    def publish(self, record: Record, expected: int) -> int:
        """See ``Repository.publish``."""
        content = encode(record)
        if len(content) > layout.MAX_BODY:
            raise Refused(f"the record of image {record.id} would be {len(content)} bytes, over {layout.MAX_BODY}")
        _check_room(record.id, expected)
        generation = next_generation(expected)
        self._put(record.id, expected, generation, content)
        return generation

    def purge(self, tag: str, expected: int) -> None:
        """See ``Repository.purge_tag``."""
        if not is_tombstone(expected):
            _check_room(tag, expected)
            self._put(tag, expected, tombstone_generation(expected), b"")
            return
        with self._guard.records() as header:
            slot = self._locate(tag, header)
            if (slot.generation if slot else 0) != expected:
                raise _overtaken(tag)
            if slot is not None and slot.problem and not slot.unreadable:  # it was given up, and we died in between
                self._blank_others(slot, header)

    def settle(self) -> None:
        """Make all that is visible durable."""
        with self._guard.records(), doing("make the records durable"):
            self._meta.sync()

    def _put(self, tag: str, expected: int, generation: int, content: bytes) -> None:
        with self._guard.records() as header:
            with doing(f"read the record of image {tag}"):
                slot = self._locate(tag, header)
            if slot is not None and slot.unreadable:
                raise StorageError(f"the record of image {tag} cannot be read: {slot.problem}", "Try again")
            if (slot.generation if slot else 0) != expected:
                raise _overtaken(tag)
            purge = self._next_purge(header) if is_tombstone(generation) else 0
            if slot is None:
                slot, header = self._room(header)
            self._write(header, slot, _Write(tag, generation, purge, content))
            if slot.problem:
                self._blank_others(slot, header)
        self._hints[tag] = slot.number

    def _write(self, header: MetaHeader, slot: Slot, write: _Write) -> None:
        """Body and head, one sync, and a look at what is there then."""
        stamp, head = write.sealed_head(slot, header.term)
        copy = layout.copy_of(stamp.version, stamp.sequence)
        offset = layout.head_offset(slot.number, copy)
        with doing(f"write a record of image {write.tag}"):
            if not write.inline:
                self._meta.write(layout.body_offset(slot.number, copy), seal(stamp, write.content))
        try:
            self._meta.write(offset, head)
            self._meta.sync()
            there = self._slot_alone(slot.number)
        except OSError as error:
            raise _unknown(write.tag, f"writing it failed ({error.strerror})") from error
        newest = there.newest
        if newest is None or newest.stamp != stamp or (there.tag, there.generation) != (write.tag, write.generation):
            raise _unknown(write.tag, "it is not what was written")
        try:
            ours = self._guard.still_ours(header)
        except DiskwrightError as error:
            raise _unknown(write.tag, error.message) from error
        if not ours:
            raise _unknown(write.tag, "another host took the repository over")

    def _blank_others(self, slot: Slot, header: MetaHeader) -> None:
        """The copies of a damaged record that was given up: what they hold must not make its successor doubtful."""
        now = self._slot_alone(slot.number)
        with doing("give up a damaged record"):
            for copy in range(COPIES):
                if now.newest is not None and copy != now.newest.copy:
                    self._meta.zero(layout.head_offset(slot.number, copy), PAGE_BYTES)
            self._meta.sync()

    def _next_purge(self, header: MetaHeader) -> int:
        return 1 + max((slot.newest.purge for slot in self._slots(header) if slot.newest is not None), default=0)

    def _room(self, header: MetaHeader) -> tuple[Slot, MetaHeader]:
        """A slot for another tag: a free one, else one in a new chunk, else that of the oldest tombstone."""
        graves: list[tuple[int, Slot]] = []
        for slot in self._slots(header):
            if slot.free:
                return slot, header
            if slot.newest is not None and not slot.problem and is_tombstone(slot.generation):
                graves.append((slot.newest.purge, slot))
        oldest = min(graves, default=None, key=lambda grave: grave[0])
        if len(graves) < _KEPT_TOMBSTONES:
            try:
                header = self._meta.extend(header)
                return Slot((header.chunks - 1) * SLOTS), header
            except NoSpace:
                if oldest is None:
                    raise
        assert oldest is not None
        self._hints.pop(oldest[1].tag, None)
        return oldest[1], header


class _Write(NamedTuple):
    """A change about to be written."""

    tag: str
    generation: int
    purge: int
    content: bytes

    @property
    def inline(self) -> bool:
        """It fits beside its head."""
        return len(self.content) <= _INLINE_BYTES

    def sealed_head(self, slot: Slot, version: int) -> tuple[Stamp, bytes]:
        """(stamp, head page) for the copy of the slot that may be overwritten."""
        sequence = slot.sequence + 1
        if slot.newest is not None and layout.copy_of(version, sequence) == slot.newest.copy:
            sequence += 1
        checksum = _checksum(self.tag, self.generation, self.purge, self.content)
        stamp = Stamp(version, sequence, checksum[:8])
        head = _HEAD.pack(
            _MAGIC, bytes.fromhex(self.tag), self.generation, self.purge, len(self.content), self.inline,
            checksum,
        )  # fmt: skip
        return stamp, seal(stamp, head + (self.content if self.inline else b""))


def _check_room(tag: str, expected: int) -> None:
    if not has_room(expected):
        raise Damaged(f"image {tag} has generation {expected:016x}, after which there is none")


def _overtaken(tag: str) -> Overtaken:
    return Overtaken(f"the record of image {tag} was changed by somebody else first", "Look at its status, then retry")


def _unknown(tag: str, why: str) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"whether the change to image {tag} counts is not known: {why}", "Look at its status before anything else"
    )
