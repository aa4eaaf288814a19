"""Progress logs in ``dw-meta``: a ring of four lines for each attempt, each line in one sector.

A slot belongs to the attempt that its newest line names. A line carries the number of the log's
life in its slot, so lines of an attempt before it never count. One writer, the holder of the
lease; slots are given away under the lock of the records.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from hashlib import blake2b
from typing import NamedTuple

from engine.data.model import require_id
from engine.errors import StorageError, from_os_errors
from engine.formats.lvm.guard import Guard
from engine.formats.lvm.metadata.area import Meta
from engine.formats.lvm.metadata.layout import LOG_BYTES, SLOTS, MetaHeader
from engine.formats.lvm.metadata.pages import PAGE_BYTES, PAYLOAD_BYTES, Stamp, is_blank, look, seal

_LINE = struct.Struct(">4s16sQQH")
_MAGIC = b"DWP1"
_LINES = 4
MAX_LINE_BYTES = PAYLOAD_BYTES - _LINE.size


class Log(NamedTuple):
    """A slot of progress."""

    number: int
    tag: str = ""
    """"": free."""
    epoch: int = 0
    life: int = 0
    line: bytes | None = None
    """The newest line, None when none was written yet."""


def read_log(number: int, raw: bytes) -> Log:
    """Return what counts in a slot of progress whose bytes are ``raw``."""
    best: tuple[int, int] | None = None
    found = Log(number)
    for start in range(0, _LINES * PAGE_BYTES, PAGE_BYTES):
        _, stamp, payload = look(raw[start : start + PAGE_BYTES])
        if stamp is None or (best is not None and (stamp.version, stamp.sequence) <= best):
            continue
        magic, tag, epoch, life, length = _LINE.unpack_from(payload)
        if magic != _MAGIC or life != stamp.version or length > MAX_LINE_BYTES:
            continue
        best = stamp.version, stamp.sequence
        line = payload[_LINE.size : _LINE.size + length] if stamp.sequence else None
        found = Log(number, tag.hex(), epoch, life, line)
    return found


def _sealed(log: Log, sequence: int, line: bytes) -> bytes:
    head = _LINE.pack(_MAGIC, bytes.fromhex(log.tag), log.epoch, log.life, len(line))
    return seal(Stamp(log.life, sequence, blake2b(head + line, digest_size=8).digest()), head + line)


class ProgressLogs:
    """The progress logs of one repository."""

    def __init__(self, meta: Meta, guard: Guard) -> None:
        self._meta = meta
        self._guard = guard
        self._hints: dict[tuple[str, int], int] = {}

    def start(self, tag: str, epoch: int) -> None:
        """Clear a slot that is there already; more room is made only where none is free."""
        require_id(tag, "image")
        with self._guard.records() as header, from_os_errors(f"start the progress log of image {tag}"):
            log = self._locate(tag, epoch, header)
            if log is None:
                log, header = self._room(header)
            log = Log(log.number, tag, epoch, log.life + 1)
            self._meta.write(
                self._meta.geometry.line_offset(log.number, 0), _sealed(log, 0, b"").ljust(LOG_BYTES, b"\0")
            )
            self._meta.sync()
        self._hints[tag, epoch] = log.number

    def write(self, tag: str, epoch: int, sequence: int, line: bytes) -> None:
        """Write one sector."""
        require_id(tag, "image")
        assert len(line) <= MAX_LINE_BYTES, "a progress line is too long for its slot"
        with from_os_errors(f"write the progress of image {tag}"):
            log = self._locate(tag, epoch)
            if log is None:
                raise StorageError(f"image {tag} has no progress log of attempt {epoch}", "Run its fix again")
            self._meta.write(
                self._meta.geometry.line_offset(log.number, sequence % _LINES), _sealed(log, sequence + 1, line)
            )
            self._meta.sync()

    def read(self, tag: str, epoch: int) -> bytes | None:
        """Read the slot where its place is known, else all of them."""
        require_id(tag, "image")
        with from_os_errors(f"read the progress of image {tag}"):
            log = self._locate(tag, epoch)
        return log.line if log is not None else None

    def remove(self, tag: str, epoch: int) -> int:
        """Blank the slot, not durably: if the log comes back after a crash, ``check`` reports it."""
        require_id(tag, "image")
        with from_os_errors(f"remove the progress log of image {tag}"):
            log = self._locate(tag, epoch)
            if log is None:
                return 0
            self._meta.write(self._meta.geometry.line_offset(log.number, 0), bytes(LOG_BYTES))
        self._hints.pop((tag, epoch), None)
        return LOG_BYTES

    def all(self) -> list[Log]:
        """Return every log there is."""
        with from_os_errors("list the progress logs"):
            return [log for log in self._logs(self._meta.header()) if log.tag]

    def _logs(self, header: MetaHeader) -> Iterator[Log]:
        """Read all logs but those in slots that cannot be read, which are neither known nor free."""
        for number, slot in self._slots(header):
            log = Log(number) if is_blank(slot) else read_log(number, slot)
            if log.tag:
                self._hints[log.tag, log.epoch] = log.number
            yield log

    def _slots(self, header: MetaHeader) -> Iterator[tuple[int, bytes]]:
        for first in range(0, header.chunks * SLOTS, SLOTS):
            try:
                raw = self._meta.read(self._meta.geometry.line_offset(first, 0), SLOTS * LOG_BYTES)
            except OSError:
                for number in range(first, first + SLOTS):
                    with contextlib.suppress(OSError):
                        yield number, self._meta.read(self._meta.geometry.line_offset(number, 0), LOG_BYTES)
                continue
            for index in range(SLOTS):
                yield first + index, raw[index * LOG_BYTES : (index + 1) * LOG_BYTES]

    def _locate(self, tag: str, epoch: int, header: MetaHeader | None = None) -> Log | None:
        number = self._hints.get((tag, epoch))
        if number is not None:
            log = read_log(number, self._meta.read(self._meta.geometry.line_offset(number, 0), LOG_BYTES))
            if (log.tag, log.epoch) == (tag, epoch):
                return log
            del self._hints[tag, epoch]
        for log in self._logs(header or self._meta.header()):
            if (log.tag, log.epoch) == (tag, epoch):
                return log
        return None

    def _room(self, header: MetaHeader) -> tuple[Log, MetaHeader]:
        for log in self._logs(header):
            if not log.tag:
                return log, header
        header = self._guard.extend(header)
        return Log((header.chunks - 1) * SLOTS), header
