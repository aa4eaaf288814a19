"""Where everything is in a repository on LVM: names of volumes, and the layout of ``dw-meta``.

::

    volume group
      dw-meta        records, progress; exists from the moment the repository does
      dw-new         the same, being made: no repository yet
      dwv-<volume>   data; tags dw.f=<raw|qcow2> and dw.s=<bytes of the image>, born in one command
      dwlost-<volume>  quarantined volumes, tags as before
      dwold-<volume>-<n>  replaced while somebody had it open
    anything else belongs to others

    dw-meta
      0             two headers of 4 KiB, written in turns; the rest of 1 MiB is unused
      1 MiB + 22 MiB * n   chunk n, for 64 records and 64 progress logs:
                    1 MiB heads     64 x 4 copies x 4 KiB
                    1 MiB progress  64 x 4 lines x 4 KiB
                   20 MiB bodies    64 x 4 copies x 80 KiB, of records that do not fit beside their head

A change of a record goes into the copy ``(version & 1) * 2 + (sequence & 1)`` of its slot, never
into the newest one. Nothing here has an effect. Names come from strangers: what does not parse is
foreign.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from engine.errors import Damaged, Refused
from engine.formats.lvm_pages import PAGE_BYTES, PAYLOAD_BYTES, State, look
from engine.model import MAX_IMAGE_BYTES, VolumeFormat, is_id
from engine.records import canonical
from engine.tools.qcow2 import CLUSTER_BYTES

MAJOR = 1
MINOR = 0

META = "dw-meta"
META_UNFINISHED = "dw-new"
_VOLUME = re.compile(r"dwv-([0-9a-f]{32})\Z")
_LOST = re.compile(r"dwlost-([0-9a-f]{32})\Z")
_OLD = re.compile(r"dwold-([0-9a-f]{32})-([0-9a-f]{8})\Z")
_FORMAT_TAG = "dw.f="
_SIZE_TAG = "dw.s="
_SIZE = re.compile(r"[1-9][0-9]{0,18}\Z")
_VERSION = re.compile(r"(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})\Z")

_MIB = 1 << 20
HEADERS_BYTES = _MIB
SLOTS = 64
"""Of records, and of progress logs, in each chunk."""
COPIES = 4
HEADS_BYTES = SLOTS * COPIES * PAGE_BYTES
BODY_BYTES = 80 * 1024
CHUNK_BYTES = 2 * HEADS_BYTES + SLOTS * COPIES * BODY_BYTES
MAX_BODY = BODY_BYTES // 512 * PAYLOAD_BYTES
"""Longest record."""
SLOT_BYTES = COPIES * PAGE_BYTES
MAX_CHUNKS = 4096


# -- names


def volume_name(volume: str) -> str:
    """The logical volume of a volume."""
    return f"dwv-{volume}"


def lost_name(volume: str) -> str:
    """The same in quarantine."""
    return f"dwlost-{volume}"


def old_name(volume: str, number: str) -> str:
    """The same when another took its name; ``number`` tells several apart (8 hex digits)."""
    return f"dwold-{volume}-{number}"


def parse_volume(name: str) -> str | None:
    """The volume of a logical volume's name, None: it is none."""
    match = _VOLUME.match(name)
    return match[1] if match else None


def is_lost(name: str) -> bool:
    """Whether a logical volume stands in quarantine."""
    return _LOST.match(name) is not None


def is_old(name: str) -> bool:
    """Whether a logical volume was replaced."""
    return _OLD.match(name) is not None


def is_ours(name: str) -> bool:
    """Whether a logical volume belongs to a repository."""
    return name in (META, META_UNFINISHED) or is_lost(name) or is_old(name) or parse_volume(name) is not None


def volume_tags(format: VolumeFormat, size: int) -> list[str]:
    """What a volume is born with."""
    return [f"{_FORMAT_TAG}{format}", f"{_SIZE_TAG}{size}"]


def size_tag(size: int) -> str:
    """The tag that says how many bytes of a volume are the image."""
    return f"{_SIZE_TAG}{size}"


def parse_tags(tags: frozenset[str]) -> tuple[VolumeFormat, int] | None:
    """(format, bytes of the image) that tags tell, the larger of two sizes (a growth was interrupted before the
    smaller one was taken away); None when they make no sense."""
    formats = [tag[len(_FORMAT_TAG) :] for tag in tags if tag.startswith(_FORMAT_TAG)]
    sizes = [tag[len(_SIZE_TAG) :] for tag in tags if tag.startswith(_SIZE_TAG)]
    if len(formats) != 1 or formats[0] not in list(VolumeFormat) or not sizes:
        return None
    if not all(_SIZE.match(size) and int(size) <= 2 * MAX_IMAGE_BYTES for size in sizes):
        return None
    return VolumeFormat(formats[0]), max(map(int, sizes))


# -- places in dw-meta


def meta_bytes(chunks: int) -> int:
    """Length of ``dw-meta`` with so many chunks."""
    return HEADERS_BYTES + chunks * CHUNK_BYTES


def chunk_start(chunk: int) -> int:
    """Where a chunk begins; its heads are first."""
    return HEADERS_BYTES + chunk * CHUNK_BYTES


def head_offset(slot: int, copy: int) -> int:
    """Where one copy of a record has its head. Slots are numbered through all chunks."""
    return chunk_start(slot // SLOTS) + slot % SLOTS * SLOT_BYTES + copy * PAGE_BYTES


def body_offset(slot: int, copy: int) -> int:
    """Where it has its body."""
    return chunk_start(slot // SLOTS) + 2 * HEADS_BYTES + (slot % SLOTS * COPIES + copy) * BODY_BYTES


def line_offset(slot: int, line: int) -> int:
    """Where a line of a progress log is."""
    return chunk_start(slot // SLOTS) + HEADS_BYTES + slot % SLOTS * SLOT_BYTES + line * PAGE_BYTES


def copy_of(version: int, sequence: int) -> int:
    """In which copy of its slot a change is written."""
    return (version & 1) * 2 + (sequence & 1)


# -- the header of dw-meta


class MetaHeader(NamedTuple):
    """What ``dw-meta`` says of the repository."""

    version: str
    """Of the format, such as "1.0"; the minor may be newer than this program."""
    identity: str
    mode: str
    """"exclusive" or "shared"."""
    chunks: int
    manager: str
    """Host that manages the repository, "" for nobody."""
    term: int
    """Counts managers."""
    sequence: int
    """Counts headers."""


EXCLUSIVE = "exclusive"
SHARED = "shared"
MODES = (EXCLUSIVE, SHARED)


def encode_header(header: MetaHeader) -> bytes:
    """The payload of a header page."""
    data = header._asdict()
    del data["term"], data["sequence"]
    data["format"] = data.pop("version")
    return canonical({"repository": "diskwright lvm", **data})


def newest_header(raw: bytes, place: str) -> MetaHeader | None:
    """The newest of the two headers in ``raw``, None when there was never one. Damaged when there is nothing but
    nonsense, Refused for a newer major."""
    found: MetaHeader | None = None
    trouble = ""
    for page in (raw[:PAGE_BYTES], raw[PAGE_BYTES : 2 * PAGE_BYTES]):
        state, stamp, payload = look(page)
        if state is State.BLANK:
            continue
        if stamp is None:
            trouble = "its checksum is wrong"
            continue
        header = _decode_header(payload.rstrip(b"\0"), stamp.version, stamp.sequence, place)
        if found is None or (header.term, header.sequence) > (found.term, found.sequence):
            found = header
    if found is None and trouble:
        raise Damaged(f"{META} of {place} does not describe a repository: {trouble}", "Nothing was changed")
    return found


def _decode_header(payload: bytes, term: int, sequence: int, place: str) -> MetaHeader:
    try:
        data = json.loads(payload)
        version, identity, mode = data["format"], data["identity"], data["mode"]
        chunks, manager = data["chunks"], data["manager"]
        match = _VERSION.match(version)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Damaged(f"{META} of {place} does not describe a repository") from None
    if match is None:
        raise Damaged(f"{META} of {place} names no format version")
    if int(match[1]) != MAJOR:
        raise Refused(
            f"the repository in {place} has format {version}, this program knows {MAJOR}.x",
            "Use a version of diskwright that knows this format",
        )
    if not is_id(identity) or mode not in MODES or not isinstance(manager, str) or len(manager) > 256:
        raise Damaged(f"{META} of {place} does not describe a repository")
    if type(chunks) is not int or not 0 < chunks <= MAX_CHUNKS:
        raise Damaged(f"{META} of {place} does not tell how long it is")
    return MetaHeader(version, identity, mode, chunks, manager, term, sequence)


# -- how much room a qcow2 needs

_ENTRIES = CLUSTER_BYTES // 8
_COUNTS = CLUSTER_BYTES // 2
_SLACK_CLUSTERS = 16
"""A larger table is written before the smaller one is given back."""


def qcow2_bytes(size: int) -> int:
    """Bytes that a qcow2 as it is made here may ever occupy when it holds ``size`` bytes of data: everything that
    ``qemu-img measure`` counts, and some clusters more."""
    data = -(-size // CLUSTER_BYTES)
    level2 = -(-data // _ENTRIES)
    level1 = -(-level2 // _ENTRIES)
    clusters = 1 + data + level2 + 2 * level1 + _SLACK_CLUSTERS
    blocks = -(-clusters // _COUNTS)
    while True:
        table = -(-blocks // _ENTRIES)
        whole = clusters + blocks + 2 * table
        needed = -(-whole // _COUNTS)
        if needed <= blocks:
            return whole * CLUSTER_BYTES
        blocks = needed
