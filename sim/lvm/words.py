"""The metadata area of a volume group as a program of another version writes and reads it.

Records stand in sealed pages there (``engine.formats.lvm.metadata``), so what is said otherwise is sealed anew: with
the same stamp but for the nonce, which comes of what is written. What is torn or damaged, and a record that has no room
in the page of its head, before or after, stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from engine.formats.lvm.metadata.layout import EXCLUSIVE_GEOMETRY, copy_of
from engine.formats.lvm.metadata.pages import PAGE_BYTES, PREFIX_BYTES, Stamp, look
from engine.formats.lvm.metadata.slots import Slot, Write, read_slot
from sim.disk.files import Words
from sim.lvm.users import Process
from sim.lvm.volume_groups import AlignedDevice, SimVolumeGroups

_MAGIC = b"DWR1"


class GroupsInWords(SimVolumeGroups):
    """As another program has them."""

    def __init__(self, process: Process, words: Words) -> None:
        super().__init__(process)
        self.words = words
        self.writing: frozenset[str] = frozenset()
        """The tags whose records this process is writing now."""

    def open_device(self, path: str, writable: bool = False) -> AlignedDevice:
        return _Device(self, path, writable, self._uuid(path, writable))


class _Device(AlignedDevice):
    def __init__(self, owner: GroupsInWords, path: str, writable: bool, uuid: str) -> None:
        super().__init__(owner, path, writable, uuid)
        self._words, self._groups = owner.words, owner

    def read_at(self, offset: int, length: int) -> bytes:
        return _said(super().read_at(offset, length), self._words.read)

    def write_at(self, offset: int, data: bytes) -> None:
        data = bytes(data)
        self._groups.writing = frozenset(page.slot.tag for page in _records(data))
        try:
            super().write_at(offset, _said(data, self._words.written))
        finally:
            self._groups.writing = frozenset()


class _Page(NamedTuple):
    """A page with a whole record in it, or the mark of one that is gone."""

    start: int
    stamp: Stamp
    slot: Slot
    purge: int


def _said(data: bytes, say: Callable[[bytes], bytes]) -> bytes:
    """Return whole pages with each record as ``say`` has it. The newest of a tag is said last."""
    changed = bytearray()
    for page in sorted(_records(data), key=lambda page: (page.slot.tag, page.slot.generation)):
        content = say(page.slot.content)
        write = Write(page.slot.tag, page.slot.generation, page.purge, content, page.slot.known_bad)
        if content != page.slot.content and write.inline:
            before = Slot(page.slot.number, sequence=page.stamp.sequence - 1)
            _, _, sealed = write.sealed_head(before, page.stamp.version, 0)
            changed = changed or bytearray(data)
            changed[page.start : page.start + PAGE_BYTES] = sealed
    return bytes(changed) if changed else data


def _records(data: bytes) -> Iterator[_Page]:
    at = data.find(_MAGIC)
    while at >= 0:
        start = at - PREFIX_BYTES
        if start >= 0 and start % PAGE_BYTES == 0 and (page := _record(data, start)) is not None:
            yield page
        at = data.find(_MAGIC, at + 1)


def _record(data: bytes, start: int) -> _Page | None:
    """Read a page as if it stood alone in its slot: a sound one has its place in the copy that its stamp says."""
    page = data[start : start + PAGE_BYTES]
    _, stamp, _ = look(page)
    if stamp is None or len(page) < PAGE_BYTES:
        return None
    copies = [bytes(PAGE_BYTES)] * EXCLUSIVE_GEOMETRY.copies
    copies[copy_of(stamp.version & 1, stamp.sequence)] = page
    slot = read_slot(0, b"".join(copies), lambda _copy, length: bytes(length))
    if slot.newest is None or slot.problem:
        return None
    return _Page(start, stamp, slot, slot.newest.purge)
