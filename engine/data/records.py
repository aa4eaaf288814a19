"""The record of a tag: the one place where the truth about an image is kept.

On disk a record is one header line and one line of JSON::

    dw1 <length of the JSON in bytes> <BLAKE2b-128 of the JSON, hex>\\n
    {...}\\n

The JSON is canonical (sorted keys, no spaces, UTF-8, no NaN). Fields unknown to this version
are kept when the record is changed. A tag names at most one volume as its data (``volume``),
may be making another (``operation.attempt``) and may have some to delete (``scrap``); a volume
exists only while one of these names it. The parent of a volume is a *tag* and stands here and
nowhere else; a qcow2 header is derived from it.

Generations are 64 bit: 16 bits incarnation, 48 bits counter. A purge leaves a tombstone with
the next incarnation, so a writer that slept through it can never win.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any, NamedTuple

from engine.data import kept, seen
from engine.data.model import (
    GROUP,
    MAX_USER_DATA_BYTES,
    SNAPSHOT,
    OperationStatus,
    Strategy,
    VolumeFormat,
)
from engine.errors import BadRequest, Damaged

MAX_RECORD_BYTES = 1024 * 1024
"""Longest record read: 64 KiB of user data escapes to 384 KiB at worst; the rest is small."""

MAX_USER_DATA_DEPTH = 64
"""Deepest nesting of ``user_data``, far below what any reader's stack can take."""

MAX_REMARKS = 16
MAX_REMARK_CHARACTERS = 1024
MOST = 1 << 63

MAGIC = "dw1"
INCARNATION_SHIFT = 48
_COUNTER_MASK = (1 << INCARNATION_SHIFT) - 1


class VolumeRef(NamedTuple):
    """A volume as its tag names it."""

    id: str
    format: VolumeFormat
    parent: str
    """The tag below, "" for none."""


class Operation(NamedTuple):
    """What an image still needs, as data. Ids only; nothing here is code."""

    verb: str
    """One of ``VERBS``."""
    attempt: VolumeRef | None = None
    """The volume being made or filled."""
    cursor: int = 0
    """Everything below is durable in ``attempt``; a lower bound."""
    source: str = ""
    """Image the data comes from."""
    source_repository: str = ""
    """Identity of the storage that held it."""
    source_write_epoch: int = 0
    base: str = ""
    """Tag in this repository that the result is based on; of a merge the tag below both."""
    other: str = ""
    """The tag below, in a merge; the disk, in a snapshot."""
    direction: str = ""
    """"down" or "up", in a merge."""
    pinned: tuple[str, ...] = ()
    """Ids of the volumes a merge works on: (upper, lower). It starts over when they are others. Of a group its
    snapshots, this one among them; the first has the seal."""
    path: str = ""
    """The imported file; the name that an adopted one had."""
    path_facts: tuple[int, ...] = ()
    """(size, mtime in ns, inode) of that file: it must be the same to go on; of an adopted one also (user, group, mode)
    that it had."""
    source_format: str = ""
    data_bytes: int = 0
    """Of what is imported: as much of it is not a hole, at most; 0 when that is not known."""
    digest: bool = True
    """Compute the content digest while copying."""
    made: str = ""
    """Id of the volume that was made before the work began, durable: it is filled from 0 on as it is."""
    source_content: str = ""
    """``content`` of the source's record when the copy began."""
    extra: tuple[tuple[str, Any], ...] = ()
    """Fields of a newer minor version, kept as they are."""

    @property
    def fills(self) -> bool:
        """The volume of the attempt is made first and then filled; where not, making it is the last that is done."""
        return self.verb != "create_disk" or (bool(self.source) and not self.base)

    @property
    def begins_snapshot(self) -> bool:
        """A snapshot was begun, whose disk is to move above it."""
        return self.verb in (SNAPSHOT, GROUP)

    @property
    def is_made(self) -> bool:
        """The volume of the attempt is there to be filled, whatever the cursor is."""
        return self.attempt is not None and self.made == self.attempt.id

    @property
    def target(self) -> str:
        """Id of the volume that is written: the cursor is about this one and no other."""
        if self.attempt is not None:
            return self.attempt.id
        return self.pinned[self.direction == "down"] if len(self.pinned) == 2 else ""


class Record(NamedTuple):
    """One generation of a tag."""

    id: str
    strong: bool
    """Visible as an image. Weak: removed, or hidden data."""
    mutable: bool
    size: int
    """Exact logical size; the volume's is rounded up."""
    whole: bool
    """All data is there. False: forming."""
    volume: VolumeRef | None
    strategy: Strategy
    operation: Operation | None = None
    epoch: int = 1
    """Counts attempts; a new claim, a removal or a stop by force raises it."""
    write_epoch: int = 0
    """Raised durably before anybody may write to a disk."""
    scrap: tuple[VolumeRef, ...] = ()
    """Volumes replaced and not yet deleted."""
    evidence: tuple[VolumeRef, ...] = ()
    """Damaged volumes kept until the operator says so."""
    last: OperationStatus | None = None
    removed: float | None = None
    """When it was removed by a user; None for other weak tags."""
    purging: bool = False
    """Deletion has begun: nothing new may build on it, and it is not restored. See ``destroyed``."""
    absorbed_by: str = ""
    """A merge writes into our volume on behalf of that tag: no way back. Our own id while one is being prepared:
    nothing new may build on us, and who does so already can still read."""
    prepared_by: str = ""
    """Host that last prepared it for writing. It *is* prepared only while its lease is held too."""
    digest: str = ""
    """Root of the content digest, "" when not known; valid while the content cannot change."""
    digest_write_epoch: int = 0
    lost: tuple[tuple[int, int], ...] = ()
    user_data: Any = None
    remarks: tuple[str, ...] = ()
    """Sentences for people about where it came from: what an import left out, what its file looked like."""
    content: str = ""
    """Random, of a disk: drawn anew whenever its content may be another. "" in old records, until the next session."""
    seen: seen.Seen | None = None
    """What its volume looked like at rest; None where that is not known."""
    kept: kept.Kept | None = None
    """Of a weak tag: the copy that it is the source of."""
    extra: tuple[tuple[str, Any], ...] = ()
    """Fields of a newer minor version, kept as they are."""

    @property
    def name(self) -> str:
        """What people call the image: ``name`` in its user data, "" when there is none."""
        name = self.user_data.get("name") if isinstance(self.user_data, dict) else None
        return name.strip() if isinstance(name, str) else ""

    def volumes(self) -> tuple[VolumeRef, ...]:
        """Return every volume that the record names."""
        if self.volume and not (self.operation or self.scrap or self.evidence):
            return (self.volume,)  # nearly every record there is
        named = [self.volume] if self.volume else []
        if self.operation and self.operation.attempt:
            named.append(self.operation.attempt)
        return (*named, *self.scrap, *self.evidence)

    @property
    def absorber(self) -> str:
        """The tag whose data our volume is about to hold, or holds already; "" when there is none."""
        return "" if self.absorbed_by == self.id else self.absorbed_by

    @property
    def merging(self) -> bool:
        """Whether the tag below is being merged into this one: it may hold our data already."""
        return self.operation is not None and self.operation.verb == "merge"

    @property
    def in_group(self) -> bool:
        """Whether it is one of several snapshots that count together; see ``engine.formats.groups``."""
        return self.operation is not None and self.operation.verb == GROUP

    def merges(self, below: str) -> bool:
        """Tell whether ``below`` is the tag that is being merged into this one."""
        return self.operation is not None and self.operation.verb == "merge" and self.operation.other == below

    @property
    def destroyed(self) -> bool:
        """Whether the deletion cannot be taken back: the tag has no data of its own any more, all volumes are scrap.
        Before that no volume of a purging tag is deleted, so a late deletion deletes nothing that came back."""
        return self.purging and self.volume is None and self.operation is None

    def parents(self) -> tuple[str, ...]:
        """Return every tag that the record depends on for data, now or when its operation ends."""
        if not self.operation:
            return (self.volume.parent,) if self.volume and self.volume.parent else ()
        found = []
        if self.volume and self.volume.parent:
            found.append(self.volume.parent)
        if self.operation:
            if self.operation.attempt and self.operation.attempt.parent:
                found.append(self.operation.attempt.parent)
            if self.operation.base:
                found.append(self.operation.base)
        return tuple(dict.fromkeys(found))

    def left_to(self, other: Record) -> bool:
        """Tell whether ``other`` is a snapshot, removed or not, that has the volume of this disk as its own data: then
        the disk has left it, and this record is older than that. One that was only begun has not yet taken it over; one
        that is merged into another has given it away."""
        if not self.mutable or not self.whole or self.volume is None or other.volume is None or other.id == self.id:
            return False
        begun = other.operation is not None and other.operation.begins_snapshot
        sealed = other.whole and not (other.mutable or other.absorber or begun)
        return sealed and other.volume.id == self.volume.id

    @property
    def digest_is_valid(self) -> bool:
        """The recorded digest still describes the content. While ranges are lost it says what the image was:
        what an intact replica must have."""
        return bool(self.digest) and self.digest_write_epoch == self.write_epoch and not self.lost


def next_generation(generation: int) -> int:
    """Return the generation after this one; the counter never wraps into the incarnation."""
    assert generation & _COUNTER_MASK != _COUNTER_MASK, "2^48 changes to one tag"
    return generation + 1


def has_room(generation: int) -> bool:
    """Tell whether another generation and another incarnation can follow."""
    return generation & _COUNTER_MASK != _COUNTER_MASK and generation >> INCARNATION_SHIFT < 0xFFFF


def incarnation(generation: int) -> int:
    """Return how often the tag was purged before this generation."""
    return generation >> INCARNATION_SHIFT


def tombstone_generation(generation: int) -> int:
    """Return counter 0 of the next incarnation."""
    return (incarnation(generation) + 1) << INCARNATION_SHIFT


def is_tombstone(generation: int) -> bool:
    """Tell whether a generation marks a purge."""
    return generation & _COUNTER_MASK == 0


def canonical(data: Any) -> bytes:
    """Return canonical JSON of ``data``; ValueError on NaN or infinity."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()


def check_user_data(user_data: object) -> Any:
    """Return ``user_data`` as it will be read back, or raise BadRequest saying what is wrong."""
    try:
        _require_depth(user_data)
        encoded = canonical(user_data)
        decoded = json.loads(encoded)
    except (TypeError, ValueError) as error:
        raise BadRequest(f"user_data is not JSON: {error!s:.120}", "Give any JSON value without NaN") from None
    if len(encoded) > MAX_USER_DATA_BYTES:
        raise BadRequest(
            f"user_data is {len(encoded)} bytes as JSON, over the limit MAX_USER_DATA_BYTES of {MAX_USER_DATA_BYTES}",
            "Store the rest elsewhere and keep a reference here",
        )
    return decoded


def _require_depth(data: object) -> None:
    level = [data]
    for _ in range(MAX_USER_DATA_DEPTH):
        level = [
            inner
            for item in level
            if isinstance(item, dict | list | tuple)
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {MAX_USER_DATA_DEPTH} levels")


def _ref_json(ref: VolumeRef | None) -> Any:
    return None if ref is None else {"id": ref.id, "format": str(ref.format), "parent": ref.parent}


def _leave_out(data: dict[str, Any], *names: str) -> None:
    """Leave out what says nothing: a record without any is byte for byte what older programs write."""
    for name in names:
        if not data[name]:
            del data[name]


def encode(record: Record) -> bytes:
    """Return the bytes of a record on disk. Damaged for one with counters that ``decode`` would not take."""
    if max(record.epoch, record.write_epoch, record.digest_write_epoch) >= MOST:  # only a stranger gets there
        raise Damaged(f"no counter of image {record.id} can be {MOST}", "Copy what is needed to another repository")
    data = record._asdict()
    del data["extra"]
    data["volume"] = _ref_json(record.volume)
    data["scrap"] = [_ref_json(ref) for ref in record.scrap]
    data["evidence"] = [_ref_json(ref) for ref in record.evidence]
    data["last"] = record.last.to_json() if record.last else None
    data["seen"] = record.seen.to_json() if record.seen else None
    _leave_out(data, "remarks", "content", "seen", "kept")
    if record.operation:
        operation = record.operation._asdict() | {"attempt": _ref_json(record.operation.attempt)}
        del operation["extra"]
        _leave_out(operation, "source_content", "data_bytes")
        operation.update((key, value) for key, value in record.operation.extra if key not in operation)
        data["operation"] = operation
    data.update((key, value) for key, value in record.extra if key not in data)
    return framed(canonical(data))


def framed(body: bytes) -> bytes:
    """Return the bytes on disk of a record that says ``body``: its version, length and checksum come first."""
    checksum = blake2b(body, digest_size=16).hexdigest()
    return b"%s %d %s\n%s\n" % (MAGIC.encode(), len(body), checksum.encode(), body)
