"""Records in the slots of ``dw-meta``: one slot for each tag, four copies in a slot or more.

A change is made under the lock of the records, made durable, and read back; the copy with the highest
stamp that is whole counts (``slots``). When a damaged record is given up, what is bad is blanked
where one host at a time writes.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.data.model import require_id
from engine.data.records import Record, encode, is_tombstone, next_generation, tombstone_generation
from engine.errors import Conflict, DiskwrightError, NoSpace, Refused, StorageError, from_os_error, from_os_errors
from engine.formats.base import TagEntry
from engine.formats.lvm.guard import Guard
from engine.formats.lvm.metadata import layout
from engine.formats.lvm.metadata.area import Meta
from engine.formats.lvm.metadata.layout import SLOTS, MetaHeader
from engine.formats.lvm.metadata.pages import PAGE_BYTES, is_blank, seal
from engine.formats.lvm.metadata.slots import Slot, Write, read_slot, stand_in
from engine.formats.outcomes import outcome_unknown, overtaken, require_room
from engine.tools.local.threads import collector_off

_KEPT_TOMBSTONES = 64
"""Tombstones that are kept while room for more records can be made."""


class Records:
    """The tags of one repository."""

    knows_users = False

    def __init__(self, meta: Meta, guard: Guard) -> None:
        self._meta = meta
        self._guard = guard
        self._hints: dict[str, int] = {}

    # -- looking

    def scan(self) -> dict[str, TagEntry]:
        """Read all heads in order. StorageError when not even the header can be read."""
        with collector_off():
            return self._scan()

    def users(self, subject: str) -> dict[str, TagEntry]:
        """Read all heads: one read in order is not much more than one of a slot."""
        del subject
        return self.scan()

    def _scan(self) -> dict[str, TagEntry]:
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
        """Make one read where the place of the tag is known, else one of all heads. StorageError when some could not be
        read and the tag may be among them."""
        require_id(tag, "image")
        slot = self._locate(tag, self._meta.header())
        return slot.entry() if slot is not None else None

    def _slots(self, header: MetaHeader) -> Iterator[Slot]:
        geometry = header.geometry
        for chunk in range(header.chunks):
            first = chunk * SLOTS
            try:
                raw = self._meta.read(geometry.head_offset(first, 0), geometry.heads_bytes)
            except OSError:
                yield from (self._slot_alone(first + index) for index in range(SLOTS))
                continue
            for index in range(SLOTS):
                heads = raw[index * geometry.slot_bytes : (index + 1) * geometry.slot_bytes]
                yield Slot(first + index) if is_blank(heads) else self._understood(first + index, heads)

    def _slot_alone(self, number: int) -> Slot:
        geometry = self._meta.geometry
        try:
            heads = self._meta.read(geometry.head_offset(number, 0), geometry.slot_bytes)
        except OSError as error:
            return self._unread(number, error)
        return self._understood(number, heads)

    def _understood(self, number: int, heads: bytes) -> Slot:
        geometry = self._meta.geometry

        def body(copy: int, length: int) -> bytes:
            return self._meta.read(geometry.body_offset(number, copy), length)

        try:
            slot = read_slot(number, heads, body, geometry)
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
        """Make one sync, under the lock of the records."""
        require_id(record.id, "image")
        content = encode(record)
        if len(content) > layout.MAX_BODY:
            raise Refused(f"the record of image {record.id} would be {len(content)} bytes, over {layout.MAX_BODY}")
        require_room(record.id, expected)
        generation = next_generation(expected)
        self._put(record.id, expected, generation, content)
        return generation

    def purge(self, tag: str, expected: int) -> None:
        """Publish a tombstone."""
        require_id(tag, "image")
        if not is_tombstone(expected):
            require_room(tag, expected)
            self._put(tag, expected, tombstone_generation(expected), b"")
            return
        with self._guard.records() as header:
            slot = self._locate(tag, header)
            if (slot.generation if slot else 0) != expected:
                raise overtaken(tag)
            if slot is not None and slot.problem and not slot.unreadable:  # it was given up, and we died in between
                if header.geometry.hosts:
                    purge = slot.newest.purge if slot.newest else self._next_purge(header)
                    self._write(header, slot, Write(tag, expected, purge, b""))
                else:
                    self._blank_others(slot)

    def settle(self, tag: str) -> None:
        """Settle all: they are on one device."""
        require_id(tag, "tag")
        self.settle_all()

    def settle_all(self) -> None:
        """Make one sync."""
        with self._guard.records(), from_os_errors("make the records durable"):
            self._meta.sync()

    def _put(self, tag: str, expected: int, generation: int, content: bytes) -> None:
        with self._guard.records() as header:
            with from_os_errors(f"read the record of image {tag}"):
                slot = self._locate(tag, header)
            if slot is not None and slot.unreadable:
                raise StorageError(f"the record of image {tag} cannot be read: {slot.problem}", "Try again")
            if (slot.generation if slot else 0) != expected:
                raise overtaken(tag)
            purge = self._next_purge(header) if is_tombstone(generation) else 0
            if slot is None:
                slot, header = self.room(tag, header)
            self._write(header, slot, Write(tag, generation, purge, content))
            if slot.problem and not header.geometry.hosts:
                self._blank_others(slot)
        self._hints[tag] = slot.number

    def _write(self, header: MetaHeader, slot: Slot, write: Write) -> None:
        """Write body and head, make one sync, and read back what is there."""
        geometry = header.geometry
        if slot.newest is not None:
            self._guard.require_newer(slot.newest.stamp.version, header)
        if geometry.hosts:
            kept = slot.bad if slot.problem else tuple(one for one in slot.bad if one in slot.known_bad)
            write = write._replace(bad=kept)
        copy, stamp, head = write.sealed_head(slot, header.term, self._guard.lane(header.term))
        pieces = [(geometry.head_offset(slot.number, copy), head)]
        with from_os_errors(f"write a record of image {write.tag}"):
            if not write.inline:
                pieces.append((geometry.body_offset(slot.number, copy), seal(stamp, write.content)))
                self._meta.write(*pieces[-1])
        try:
            self._meta.write(*pieces[0])
            self._meta.keep(*pieces)
            there = self._slot_alone(slot.number)
        except OSError as error:
            raise outcome_unknown(write.tag, f"writing it failed ({error.strerror})") from error
        newest = there.newest
        if newest is None or newest.stamp != stamp or (there.tag, there.generation) != (write.tag, write.generation):
            raise outcome_unknown(write.tag, "it is not what was written")
        try:
            ours = self._guard.still_ours(header)
        except DiskwrightError as error:
            raise outcome_unknown(write.tag, error.message) from error
        if not ours:
            raise outcome_unknown(write.tag, "another host took the repository over")

    def _blank_others(self, slot: Slot) -> None:
        """Blank the other copies of a damaged record that was given up: what they hold must not make its successor
        doubtful."""
        now = self._slot_alone(slot.number)
        with from_os_errors("give up a damaged record"):
            for copy in range(self._meta.geometry.copies):
                if now.newest is not None and copy != now.newest.copy:
                    self._meta.zero(self._meta.geometry.head_offset(slot.number, copy), PAGE_BYTES)
            self._meta.sync()

    def _next_purge(self, header: MetaHeader) -> int:
        return 1 + max((slot.newest.purge for slot in self._slots(header) if slot.newest is not None), default=0)

    def room(self, tag: str, header: MetaHeader) -> tuple[Slot, MetaHeader]:
        """Return a slot for another tag: a free one, else one in a new chunk, else that of the oldest tombstone. The
        caller holds the lock of the records; what the guard denies is somebody else's. NoSpace, Refused, Conflict."""
        reserved = self._guard.reserved(tag)
        if reserved is not None:
            slot = self._slot_alone(reserved)
            if slot.free or (not slot.problem and is_tombstone(slot.generation)):
                return slot, header
            raise Conflict(f"the place of the record of image {tag} was given to another", "Try again")
        graves: list[tuple[int, int, Slot]] = []
        for slot in self._slots(header):
            if slot.free:
                if self._guard.may_fill(slot.number):
                    return slot, header
            elif slot.newest is not None and not slot.problem and is_tombstone(slot.generation):
                graves.append((slot.newest.purge, slot.number, slot))
        trouble: DiskwrightError | None = None
        if len(graves) < _KEPT_TOMBSTONES:
            try:
                header = self._guard.extend(header)
            except (NoSpace, Refused, Conflict) as error:
                trouble = error
            else:
                first = (header.chunks - 1) * SLOTS
                if self._guard.may_fill(first):
                    return Slot(first), header
        for _, number, slot in sorted(graves, key=lambda grave: grave[:2]):
            if self._guard.may_fill(number):
                self._hints.pop(slot.tag, None)
                return slot, header
        raise trouble or Conflict(f"there is no free place for the record of image {tag} at this moment", "Try again")

    def slot_of(self, tag: str) -> int | None:
        """Return the number of the slot that the tag has, None when it has none. StorageError."""
        with from_os_errors(f"look for the record of image {tag}"):
            slot = self._locate(tag, self._meta.header())
        return slot.number if slot is not None else None
