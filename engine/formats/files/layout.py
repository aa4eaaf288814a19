"""Where everything is in a repository of files, and what the names and small files look like.

::

    repository.json                {"format":"1.0","id":"<32 hex>","needs":["uses"]}, and owner,
                                   group, mode where they were stated: written last when a
                                   repository is created, so its presence is the commit. Before
                                   there were uses: {"format":"1.0","identity":"<32 hex>"}; one that
                                   was given them later also has "later":true, and needs
                                   "uses-begun" until all are entered (``entering``)
    repository.copy                a checksum and the same again, made after it
    locks                          empty; the lease of a tag or temporary file is one byte of it
    access.json                    owner, group and mode of volumes, where they were stated after the creation
    ballast                        zeros, 1 MiB where there is room: released for what frees room
    tags/ab/<tag>.<generation>     a record, immutable once linked; the highest generation (16 hex
                                   digits) wins; ab: the first two digits; empty: a tombstone
    tags/ab/<tag>.<gen…>.before    the record before it, which never counts
    tags/ab/use.<id>.<tag>.<generation>
                                   empty; that generation of a tag, or a later one, may need the tag
                                   or volume <id> (``uses``)
    volumes/ab/<volume>.<format>   data, "raw" or "qcow2"
    progress/<tag>.<epoch>         32 slots of 512 bytes, allocated in full at the start
    digests/<volume>               chunk digests
    tmp/<id>-<purpose>             a file being written; its writer holds the byte of its name
    lost/<volume>.<format>         quarantined volumes

Nothing here has an effect. Names come from strangers: what does not parse is foreign.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import NamedTuple

from engine.data.model import VolumeFormat, is_id
from engine.data.records import INCARNATION_SHIFT, canonical, has_room, incarnation, is_tombstone
from engine.doors.files import Access
from engine.errors import Damaged, Refused
from engine.formats.access import decoded, encoded

MAJOR = 1
MINOR = 0

_MANY_PURGES = 1 << 15
"""Tombstones of later incarnations stay for ever, and nothing begins after them."""

IDENTITY_FILE = "repository.json"
COPY_FILE = "repository.copy"
_USES = "uses"
_BEGUN = "uses-begun"
_KNOWN_NEEDS = frozenset([_USES, _BEGUN])
"""What a program must know that works with a repository, beyond its format."""
LOCKS_FILE = "locks"
BALLAST_FILE = "ballast"
ACCESS_FILE = "access.json"
TAGS = "tags"
DIRECTORIES = (TAGS, "volumes", "progress", "digests", "tmp", "lost")
PARTS = frozenset([*DIRECTORIES, IDENTITY_FILE, COPY_FILE, LOCKS_FILE, BALLAST_FILE, ACCESS_FILE])
"""All names at the top of a repository."""

RECORD = "record"
"""What temporary files of records are for."""

MAX_IDENTITY_BYTES = 64 * 1024

SLOT_BYTES = 512
SLOTS = 32
PROGRESS_BYTES = SLOT_BYTES * SLOTS
MAX_LINE_BYTES = 440
"""What fits into a slot beside the longest header."""

_SHARD = re.compile(r"[0-9a-f]{2}\Z")
_BEFORE = ".before"
_TAG = re.compile(r"([0-9a-f]{32})\.([0-9a-f]{16})(\.before)?\Z")
_USE = re.compile(r"use\.([0-9a-f]{32})\.([0-9a-f]{32})\.([0-9a-f]{16})\Z")
_VOLUME = re.compile(r"([0-9a-f]{32})\.(raw|qcow2)\Z")
_FORMATS = {str(format): format for format in VolumeFormat}
_PROGRESS = re.compile(r"([0-9a-f]{32})\.(0|[1-9][0-9]{0,18})\Z")
_TEMPORARY = re.compile(r"[0-9a-f]{32}-[a-z]{1,16}\Z")
_SLOT_HEAD = re.compile(rb"dwp1 (0|[1-9][0-9]{0,18}) (0|[1-9][0-9]{0,2}) ([0-9a-f]{32})\Z")
_VERSION = re.compile(r"(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})\Z")


class Identity(NamedTuple):
    """What ``repository.json`` says."""

    version: str
    """Such as "1.0"; the minor may be newer than this program."""
    identity: str
    access: Access | None = None
    """What volumes are given; None: what the process that makes them gives to any file."""
    text: bytes = b""
    """The whole file."""
    uses: bool = False
    """Who uses a tag or a volume is entered beside the records (``uses``), for all of them: that may be believed."""
    enters: bool = False
    """Whoever publishes a record enters it. Without ``uses`` records from before may lack it."""
    later: bool = False
    """The repository was made before there were uses."""
    unclear: str = ""
    """Why it is not known what was stated about access after the creation."""


# -- paths inside the repository


def tag_shard(tag: str) -> str:
    """Return the directory of the generations of a tag."""
    return f"tags/{tag[:2]}"


def tag_name(tag: str, generation: int, before: bool = False) -> str:
    """Return the file name of one generation; ``before``: a newer one has been durable."""
    return f"{tag}.{generation:016x}{_BEFORE if before else ''}"


def use_name(subject: str, user: str, generation: int) -> str:
    """Return the file name that says that a generation of ``user``, or a later one, may need ``subject``."""
    return f"use.{subject}.{user}.{generation:016x}"


def volume_shard(volume: str) -> str:
    """Return the directory of a volume."""
    return f"volumes/{volume[:2]}"


def volume_name(volume: str, format: VolumeFormat) -> str:
    """Return the file name of a volume, the same under ``volumes`` and ``lost``."""
    return f"{volume}.{format}"


def volume_path(volume: str, format: VolumeFormat) -> str:
    """Return the path of a volume."""
    return f"volumes/{volume[:2]}/{volume}.{format}"


def progress_path(tag: str, epoch: int) -> str:
    """Return the path of the progress log of an attempt."""
    return f"progress/{tag}.{epoch}"


def digests_path(volume: str) -> str:
    """Return the path of the digest list of a volume."""
    return f"digests/{volume}"


def lease_key(name: str) -> int:
    """Return the byte of ``locks`` that stands for a tag or a temporary file: 60 bits of its id."""
    return int(name[:15], 16)


# -- names back to what they mean; None: foreign


Generations = dict[int, tuple[bool, ...]]
"""The generations of a tag that are there, each with its names: True for that of one that a newer one was after. After
a loss of power one may have both."""


def is_shard(name: str) -> bool:
    """Return whether ``name`` is one of the 256 directories."""
    return _SHARD.match(name) is not None


def parse_tag_name(name: str, shard: str) -> tuple[str, int, bool] | None:
    """Return (tag, generation, before) of a file in ``tags/<shard>``; None for generations that are never written:
    0, and those after which there is no room for another."""
    match = _TAG.match(name)
    if match is None or name[:2] != shard:
        return None
    generation = int(match[2], 16)
    return (match[1], generation, match[3] is not None) if generation > 0 and has_room(generation) else None


def newest_of(generations: Generations) -> int:
    """Return the newest generation of a tag, 0 for none. It may not be there: the one before it says that it was."""
    if len(generations) == 1:
        ((generation, names),) = generations.items()
        return generation + any(names)
    return max((generation + any(names) for generation, names in generations.items()), default=0)


def superseded(newest: int, generations: Iterable[int]) -> list[int]:
    """Return those of the generations of a tag that nothing needs: all below the one before ``newest``, and that one
    too below a tombstone."""
    below = [generation for generation in generations if generation < newest]
    kept = 0 if is_tombstone(newest) else max(below, default=0)
    return [generation for generation in below if generation != kept]


def tombstones(tags: Mapping[str, Generations]) -> list[tuple[int, str]]:
    """Return the tombstones that stand alone among the tags of a directory, the highest last, but none of an
    incarnation that only a stranger makes."""
    found = [(newest_of(generations), tag) for tag, generations in tags.items() if len(generations) == 1]
    return sorted(one for one in found if is_tombstone(one[0]) and incarnation(one[0]) < _MANY_PURGES)


def beginning(tags: Mapping[str, Generations]) -> int:
    """Return what a new tag of a directory goes on from: counter 0 of the highest incarnation there, but for those that
    only a stranger makes; 0 for none."""
    found = (incarnation(newest_of(generations)) for generations in tags.values())
    return max((one for one in found if one < _MANY_PURGES), default=0) << INCARNATION_SHIFT


def parse_use_name(name: str, shard: str) -> tuple[str, str, int] | None:
    """Return (subject, user, generation) of a file in ``tags/<shard>``."""
    match = _USE.match(name)
    if match is None or match[1][:2] != shard:
        return None
    generation = int(match[3], 16)
    return (match[1], match[2], generation) if not generation or has_room(generation) else None


def parse_volume_name(name: str, shard: str = "") -> tuple[str, VolumeFormat] | None:
    """Return (volume, format) of a file in ``volumes/<shard>``, or in ``lost`` when ``shard`` is ""."""
    match = _VOLUME.match(name)
    if match is None or not name.startswith(shard):
        return None
    return match[1], _FORMATS[match[2]]


def parse_progress_name(name: str) -> tuple[str, int] | None:
    """Return (tag, epoch) of a file in ``progress``."""
    match = _PROGRESS.match(name)
    return (match[1], int(match[2])) if match else None


def is_temporary(name: str, purpose: str = "") -> bool:
    """Return whether ``name`` is one that a writer gives to a file in ``tmp``, for that purpose or for any."""
    return _TEMPORARY.match(name) is not None and name.endswith(purpose and f"-{purpose}")


# -- progress slots


def slot_of(sequence: int) -> int:
    """Return the offset of the slot in which line number ``sequence`` is written."""
    return sequence % SLOTS * SLOT_BYTES


def encode_slot(sequence: int, line: bytes) -> bytes:
    """Return one slot: header line, the line itself, zeros."""
    assert 0 <= sequence < 1 << 62 and len(line) <= MAX_LINE_BYTES, "a progress line is too long for its slot"
    head = b"dwp1 %d %d %s\n" % (sequence, len(line), _line_checksum(sequence, line))
    return (head + line).ljust(SLOT_BYTES, b"\0")


def newest_line(raw: bytes) -> bytes | None:
    """Return the intact line with the highest sequence in a progress log, None when there is none."""
    best: tuple[int, bytes] | None = None
    for offset in range(0, min(len(raw), PROGRESS_BYTES), SLOT_BYTES):
        found = _decode_slot(raw[offset : offset + SLOT_BYTES])
        if found is not None and slot_of(found[0]) == offset and (best is None or found[0] > best[0]):
            best = found
    return best[1] if best else None


def _decode_slot(slot: bytes) -> tuple[int, bytes] | None:
    head, _, rest = slot.partition(b"\n")
    match = _SLOT_HEAD.match(head)
    if match is None:
        return None
    sequence, line = int(match[1]), rest[: int(match[2])]
    if len(line) != int(match[2]) or _line_checksum(sequence, line) != match[3]:
        return None
    return sequence, line


def _line_checksum(sequence: int, line: bytes) -> bytes:
    # The sequence is covered too: a line must not become the newest by a flipped digit.
    return blake2b(b"%d %s" % (sequence, line), digest_size=16).hexdigest().encode()


# -- repository.json


def encode_identity(identity: str, access: Access | None = None) -> bytes:
    """Return the bytes of ``repository.json`` of a new repository.

    A program that does not know what the repository needs finds no "identity", and refuses it."""
    data = {"format": f"{MAJOR}.{MINOR}", "id": identity, "needs": [_USES], **encoded(access)}
    return canonical(data) + b"\n"


def encode_later(found: Identity, complete: bool) -> bytes:
    """Return the bytes of ``repository.json`` of a repository that gets its uses now, or is ``complete``. Refused when
    what it says besides could not be read any more, or not be written."""
    data = json.loads(found.text)
    data.pop("identity", None)
    needs = [_USES if complete else _BEGUN]
    try:
        text = canonical({**data, "id": found.identity, "needs": needs, "later": True}) + b"\n"
    except ValueError:
        text = b""
    if not text or len(encode_copy(text)) > MAX_IDENTITY_BYTES:
        raise Refused(
            f"{IDENTITY_FILE} says what cannot be written again",
            f"Take out what docs/on-disk.md does not name, move {COPY_FILE} elsewhere, and connect with --accept-moved",
        )
    return text


def decode_identity(raw: bytes, place: str) -> Identity:
    """Return what ``repository.json`` says. Damaged when it makes no sense, Refused for a newer major, and for a
    repository that needs what this program does not know."""
    try:
        data = json.loads(raw)
        version, needs = data["format"], data.get("needs", [])
        identity = data["id"] if needs else data["identity"]
        match = _VERSION.match(version)
        unknown = sorted({str(need) for need in needs} - _KNOWN_NEEDS)
        if not isinstance(needs, list):
            raise ValueError(needs)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise Damaged(f"{place}/{IDENTITY_FILE} does not describe a repository") from None
    if match is None:
        raise Damaged(f"{place}/{IDENTITY_FILE} names no format version")
    if int(match[1]) != MAJOR or unknown:
        what = f"needs {', '.join(unknown):.200}" if unknown else f"has format {version}"
        raise Refused(
            f"the repository at {place} {what}, this program knows {MAJOR}.x",
            "Use a version of diskwright that knows this format",
        )
    if not is_id(identity):
        raise Damaged(f"{place}/{IDENTITY_FILE} has no valid identity")
    access = decoded(data, f"{place}/{IDENTITY_FILE}")
    return Identity(version, identity, access, raw, _USES in needs, bool(needs), bool(data.get("later")))


def encode_access(access: Access) -> bytes:
    """Return the bytes of ``access.json``."""
    return canonical(encoded(access)) + b"\n"


def decode_access(raw: bytes, place: str) -> Access | None:
    """Return what ``access.json`` says. Damaged."""
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise Damaged(f"{place}/{ACCESS_FILE} cannot be understood", "State owner, group and mode anew, at a connect")
    return decoded(data, f"{place}/{ACCESS_FILE}")


def encode_copy(text: bytes) -> bytes:
    """Return the bytes of the copy of ``repository.json``."""
    return b"%s\n%s" % (_copy_checksum(text), text)


def decode_copy(raw: bytes) -> bytes | None:
    """Return what ``repository.json`` said; None when the copy is damaged."""
    checksum, _, text = raw.partition(b"\n")
    return text if checksum == _copy_checksum(text) else None


def _copy_checksum(text: bytes) -> bytes:
    return blake2b(text, digest_size=16).hexdigest().encode()


def is_no_small_file(error: OSError) -> bool:
    """Return whether reading a small file failed because there is something else in its place."""
    return error.errno in (errno.ELOOP, errno.EINVAL, errno.EFBIG, errno.EISDIR, errno.ENXIO)
