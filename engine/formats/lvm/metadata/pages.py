"""Pages that tell a torn write from damage: bytes for a device, sealed sector by sector.

A power cut leaves any subset of the sectors of a write. Each sector of 512 bytes therefore carries
the stamp of its write and a checksum of its own::

    version (8) | sequence (8) | nonce (8) | checksum (8) | 480 bytes of payload

Sectors that are all sound and of different writes were *torn*: that write was never
acknowledged, and the older copy, which stands elsewhere, counts. A sector that is not sound is
*bad*: something other than a power cut was there, and nothing may be concluded. A sector of zeros
is *blank*: never written. Nothing here has an effect.
"""

from __future__ import annotations

import struct
from enum import StrEnum
from hashlib import blake2b
from typing import NamedTuple

SECTOR_BYTES = 512
PAGE_BYTES = 4096
"""Bytes that are written at once: whole sectors on every device there is."""

_STAMP = struct.Struct(">QQ8s")
_CHECKSUM_BYTES = 8
PREFIX_BYTES = _STAMP.size + _CHECKSUM_BYTES
PAYLOAD_BYTES = SECTOR_BYTES - PREFIX_BYTES
"""Bytes of payload in one sector."""

_BLANK = bytes(SECTOR_BYTES)
_HIGHEST = 1 << 62
"""Limit of counters: nobody ever counts that far, and numbers above it must be possible."""


class Stamp(NamedTuple):
    """Which write a sector belongs to; of two writes to one thing the higher one is newer."""

    version: int
    """Version of the lock that the writer held."""
    sequence: int
    nonce: bytes
    """Tells writes with the same numbers apart; derived from what is written."""


class State(StrEnum):
    """What sectors are, taken together."""

    WHOLE = "whole"
    TORN = "torn"
    BAD = "bad"
    BLANK = "blank"


def sealed_length(length: int) -> int:
    """Return the bytes on the device, in whole pages, of a payload of ``length`` bytes."""
    sectors = max(1, -(-length // PAYLOAD_BYTES))
    return -(-sectors * SECTOR_BYTES // PAGE_BYTES) * PAGE_BYTES


def seal(stamp: Stamp, payload: bytes) -> bytes:
    """Return ``payload`` as whole pages, filled up with blank sectors."""
    head = _STAMP.pack(stamp.version, stamp.sequence, stamp.nonce)
    parts = []
    for start in range(0, max(len(payload), 1), PAYLOAD_BYTES):
        data = payload[start : start + PAYLOAD_BYTES].ljust(PAYLOAD_BYTES, b"\0")
        parts += [head, _checksum(head, data), data]
    sealed = b"".join(parts)
    return sealed.ljust(-(-len(sealed) // PAGE_BYTES) * PAGE_BYTES, b"\0")


def _checksum(head: bytes, data: bytes) -> bytes:
    return blake2b(head + data, digest_size=_CHECKSUM_BYTES).digest()


def look(raw: bytes, index: int = 0) -> tuple[State, Stamp | None, bytes]:
    """Return (WHOLE, BAD or BLANK; stamp; payload) of one sector. The stamp of a bad one is not to be believed."""
    sector = raw[index * SECTOR_BYTES : (index + 1) * SECTOR_BYTES]
    if sector == _BLANK:
        return State.BLANK, None, b""
    head, data = sector[: _STAMP.size], sector[PREFIX_BYTES:]
    if len(sector) < SECTOR_BYTES or _checksum(head, data) != sector[_STAMP.size : PREFIX_BYTES]:
        return State.BAD, None, b""
    stamp = Stamp(*_STAMP.unpack(head))
    if max(stamp.version, stamp.sequence) > _HIGHEST:
        return State.BAD, None, b""
    return State.WHOLE, stamp, data


def unseal(raw: bytes, stamp: Stamp, length: int) -> tuple[State, bytes]:
    """Return the payload of ``length`` bytes that the write ``stamp`` left in ``raw``; empty unless WHOLE."""
    count = max(1, -(-length // PAYLOAD_BYTES))
    state, parts = State.WHOLE, []
    for index in range(count):
        found, other, data = look(raw, index)
        if found is State.BAD:
            return State.BAD, b""
        if other != stamp:
            state = State.TORN
        parts.append(data)
    return state, b"".join(parts)[:length] if state is State.WHOLE else b""


def is_blank(raw: bytes) -> bool:
    """Return whether nothing was ever written to the bytes ``raw``."""
    return raw == bytes(len(raw))


def newest_stamp(raw: bytes) -> tuple[Stamp | None, bool]:
    """Return (the highest stamp of any sound sector, whether there is a bad one)."""
    found: Stamp | None = None
    bad = False
    for index in range(len(raw) // SECTOR_BYTES):
        state, stamp, _ = look(raw, index)
        bad = bad or state is State.BAD
        if stamp is not None and (found is None or stamp > found):
            found = stamp
    return found, bad
