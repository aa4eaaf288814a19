"""What dm-log-writes has logged, and what a power cut could have left of it.

The log (Documentation/admin-guide/device-mapper/log-writes.rst) has every write in the order in which it was
completed, written down at the next flush. A cut at an entry leaves what was before the last flush, what was written
with FUA, and any of the other writes since that flush, each of them perhaps only up to some sector.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator
from typing import NamedTuple

SECTOR = 512
_MAGIC = 0x6A736677736872
_SUPER = struct.Struct("<QQQI")
_ENTRY = struct.Struct("<QQQQ")
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8


class Entry(NamedTuple):
    """A write, discard, flush or mark."""

    start: int
    """First byte on the device."""
    length: int
    flags: int
    where: int
    """Where its data is in the log."""
    mark: str


class Piece(NamedTuple):
    """Bytes of a state: of the log, or zeros (``where`` -1)."""

    start: int
    length: int
    where: int


class State(NamedTuple):
    """What a power cut just after entry number ``position`` may leave."""

    position: int
    marks: int
    """So many marks were set before."""
    pieces: tuple[Piece, ...]
    """Over what is durable at ``durable``."""
    durable: int
    """Number of entries that are durable, FUA apart."""
    about: str


def read_log(path: str) -> list[Entry]:
    """All entries; ValueError when it is no log."""
    with open(path, "rb") as stream:
        magic, version, count, sector = _SUPER.unpack(stream.read(_SUPER.size))
        if magic != _MAGIC or version != 1 or sector < SECTOR:
            raise ValueError(f"{path} is no log of dm-log-writes")
        entries = []
        place = sector
        for _ in range(count):
            stream.seek(place)
            start, sectors, flags, data_length = _ENTRY.unpack(stream.read(_ENTRY.size))
            mark = stream.read(data_length).decode() if flags & MARK else ""
            place += sector
            entries.append(Entry(start * SECTOR, sectors * SECTOR, flags, place, mark))
            if not flags & DISCARD:
                place += sectors * SECTOR
        return entries


def pieces(entries: list[Entry]) -> list[Piece]:
    """What entries write, in order."""
    return [
        Piece(entry.start, entry.length, -1 if entry.flags & DISCARD else entry.where)
        for entry in entries
        if entry.length and not entry.flags & MARK
    ]


def apply(log: int, target: int, parts: list[Piece] | tuple[Piece, ...]) -> None:
    """Write pieces of a log (a descriptor) into a file that is all zeros where nothing was written."""
    for part in parts:
        done = 0
        while done < part.length:
            count = min(1 << 20, part.length - done)
            if part.where >= 0:
                os.pwrite(target, os.pread(log, count, part.where + done), part.start + done)
            elif _written(target, part.start + done, count):
                os.pwrite(target, bytes(count), part.start + done)
            done += count


def _written(target: int, start: int, count: int) -> bool:
    """Whether there is anything but a hole."""
    try:
        return os.lseek(target, start, os.SEEK_DATA) < start + count
    except OSError:
        return False


def states(entries: list[Entry], first: int, chance: random.Random, each: int) -> Iterator[State]:
    """States of cuts after entry ``first`` and later: at each entry all that was written, and before each flush also
    nothing of it, and ``each`` other choices."""
    durable = _durable_before(entries, first)
    marks = sum(bool(entry.flags & MARK) for entry in entries[:first])
    for position in range(first, len(entries)):
        entry = entries[position]
        if entry.flags & MARK:
            marks += 1
        if entry.flags & FLUSH:
            durable = position
        since = entries[durable : position + 1]
        pinned = [one for one in since if one.flags & FUA]
        free = [one for one in since if one.length and not one.flags & (FUA | MARK)]
        yield _state(position, marks, since, set(free), durable, "everything that was written")
        following = entries[position + 1] if position + 1 < len(entries) else None
        if not free or (following is not None and not following.flags & FLUSH):
            continue
        yield _state(position, marks, since, set(), durable, f"nothing of {len(free)} writes, {len(pinned)} with FUA")
        for _ in range(each):
            yield _chosen(position, marks, since, free, durable, chance)


def _durable_before(entries: list[Entry], first: int) -> int:
    return max((index for index, entry in enumerate(entries[:first]) if entry.flags & FLUSH), default=0)


def _state(position: int, marks: int, since: list[Entry], kept: set[Entry], durable: int, about: str) -> State:
    chosen = [one for one in since if one.flags & FUA or one in kept]
    return State(position, marks, tuple(pieces(chosen)), durable, about)


def _chosen(
    position: int, marks: int, since: list[Entry], free: list[Entry], durable: int, chance: random.Random
) -> State:
    kept = {one for one in free if chance.random() < 0.5}
    torn = chance.choice(free)
    cut = chance.randrange(0, torn.length, SECTOR)
    parts: list[Piece] = []
    for one in since:
        if one is torn and cut:
            parts += pieces([one._replace(length=cut)])
        elif one.flags & FUA or (one in kept and one is not torn):
            parts += pieces([one])
    about = f"{len(kept)} of {len(free)} writes, and the first {cut} bytes of one"
    return State(position, marks, tuple(parts), durable, about)
