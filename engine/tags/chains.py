"""The chain below an image: which volumes, in which order, make up its content."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from engine.copying.ranges import exact
from engine.data.model import VolumeFormat, aligned
from engine.data.records import Record, VolumeRef
from engine.doors.images import ImageTool, Layer
from engine.errors import Conflict, Damaged, Refused, StorageError
from engine.formats.base import Repository, VolumeFacts, backing_name
from engine.gate import gate
from engine.gate.gate import Purpose
from engine.tags import changes, seen
from engine.tools.qemu.qcow2 import Header

MAX_DEPTH = 400
"""A chain deeper than this is taken for damage (qemu itself gets slow long before)."""


class Link(NamedTuple):
    """One layer: a tag and the volume that it points to."""

    record: Record
    volume: VolumeRef

    @property
    def tag(self) -> str:
        """The id of the tag."""
        return self.record.id


def walk(record: Record, look_up: Callable[[str], Record], reader: str = "") -> list[Link]:
    """Return the chain from ``record`` down to its root, top first.

    ``reader``: on whose behalf ``record`` is read. A tag that is being merged into another holds that one's data
    already, so only that one may read through it.

    Raises Damaged for a loop, an endless chain or a base larger than what is above it, Refused when a layer is not
    whole or not its own any more, and whatever ``look_up`` raises for a missing parent."""
    links: list[Link] = []
    seen: set[str] = set()
    while True:
        if record.id in seen or len(links) > MAX_DEPTH:
            raise Damaged(f"the chain of image {links[0].tag} runs in a circle at {record.id}")
        seen.add(record.id)
        if not record.whole or record.volume is None:
            raise Refused(f"image {record.id} is not complete", "Run its mend fix first")
        if record.purging or record.absorber not in ("", reader):
            what = "deleted" if record.purging else f"merged into {record.absorber}"
            raise Refused(f"image {record.id} is being {what}", "Its data cannot be used any more; copy it again")
        if links and aligned(record.size) > aligned(links[-1].record.size):
            raise Damaged(f"image {links[-1].tag} is smaller than its base {record.id}")
        links.append(Link(record, record.volume))
        if not record.volume.parent:
            return links
        reader = record.id
        record = look_up(record.volume.parent)


def load(repository: Repository, record: Record, reader: str = "") -> list[Link]:
    """Return the chain of ``record`` in its repository, each record read afresh. Raises as ``walk``."""

    def look_up(tag: str) -> Record:
        return changes.read(repository, tag).record

    return walk(record, look_up, reader)


def usable(repository: Repository, record: Record, grown: bool = False, written: bool = False) -> list[Link]:
    """Return the chain of ``record`` if each volume is there and can be what its record says.

    Each layer gets a cheap look, before its data is read or given to anybody. Raises as ``walk``, Damaged for data that
    is gone or contradicts its record, Refused for a disk that another tool has made longer (but with ``grown``) and for
    data that was written to while nobody had it prepared (but with ``written``), StorageError when it cannot be looked
    at."""
    links = load(repository, record)
    listing = repository.volumes.listing()
    for link in links:
        facts = repository.volumes.facts(link.volume.id, link.volume.format, listing)
        _require_sound(link.record, link.volume, facts)
        if not grown:
            _require_recorded_size(link.record, link.volume, facts)
        if not (written or (grown and grown_to(link.record, link.volume, facts))):  # what is longer was written to
            _require_unwritten(repository, link.record, facts)
    return links


def _require_sound(record: Record, volume: VolumeRef, facts: VolumeFacts) -> None:
    if facts.unreadable:
        raise StorageError(f"the data of image {record.id} cannot be read: {facts.problem}", "Try again")
    problem = facts.problem or contradiction(record, volume, facts)
    if problem or not facts.present:
        raise Damaged(
            f"the data of image {record.id} is {f'damaged: {problem}' if facts.present else 'gone'}",
            "diskwright why tells what can be done",
        )


def sealable(repository: Repository, record: Record, volume: VolumeRef) -> None:
    """Return if a disk can be sealed as it is: its volume is as recorded, and nothing of it is missing. Raises as
    ``as_recorded``; Damaged, StorageError."""
    as_recorded(repository, record, volume)
    _require_sound(record, volume, repository.volumes.facts(volume.id, volume.format))


def as_recorded(repository: Repository, record: Record, volume: VolumeRef) -> None:
    """Return if the volume of an image is what its record says: before it is sealed, merged or replaced. Refused when
    another tool has made a disk longer, or has written to the volume while nobody had it prepared."""
    facts = repository.volumes.facts(volume.id, volume.format)
    if record.mutable:
        _require_recorded_size(record, volume, facts)
    _require_unwritten(repository, record, facts)


def _require_unwritten(repository: Repository, record: Record, facts: VolumeFacts) -> None:
    stamp = seen.written(record, facts)
    if stamp is None:
        return
    if changes.read(repository, record.id).record != record:
        raise Conflict(f"image {record.id} was changed at the same moment", "Try again")
    if record.volume and (writers := [user for user in gate.users(repository, record.volume) if user.writes]):
        raise gate.in_use(record.id, writers)  # what it contains is nobody's to judge while it changes
    raise Refused(
        f"the data of image {record.id} was written to at {stamp.when} while nobody had it prepared (O-WRITTEN)",
        "Look at what it contains now (prepare --read-only, export); if that is to be its content, run its fix "
        "O-WRITTEN",
    )


def _require_recorded_size(record: Record, volume: VolumeRef, facts: VolumeFacts) -> None:
    if size := grown_to(record, volume, facts):
        raise Refused(
            f"the volume of image {record.id} is {size} bytes long, its record says {record.size} (O-GROWN): another "
            "tool has made it longer, or a resize was interrupted",
            "Run its fix O-GROWN, which makes the new size its size",
        )


def grown_to(record: Record, volume: VolumeRef, facts: VolumeFacts) -> int:
    """Return the length in bytes that another tool has given the volume, 0 when it is not longer than its record says.
    A volume that takes what is merged into it is made longer by us."""
    if volume.format is VolumeFormat.RAW:
        length = facts.length
    else:
        length = facts.header.size if facts.header else 0
    return 0 if length <= aligned(record.size) or record.absorber else length


def may_adopt(record: Record) -> bool:
    """Return whether a size that another tool gave its volume can be made its size now. A merge that is begun starts
    over then, since it compares write epochs; what else is begun is given up before."""
    return record.operation is None or record.operation.verb == "merge"


def unchanged(repository: Repository, links: list[Link]) -> None:
    """Return if the chain is still ``links``, else raise Conflict (or as ``walk``). To be called when the
    leases are held: who looked before that and was paused may find other data in the same volumes."""
    now = load(repository, changes.read(repository, links[0].tag).record, links[0].record.absorbed_by)
    if [(link.tag, link.volume) for link in now] != [(link.tag, link.volume) for link in links]:
        raise Conflict(f"image {links[0].tag} was changed at the same moment", "Try again")


def lost(links: list[Link]) -> tuple[tuple[int, int], ...]:
    """Return the ranges known to be lost anywhere in the chain: some may be hidden by a layer above."""
    return tuple(exact(part for link in links for part in link.record.lost))


def contradiction(record: Record, volume: VolumeRef, facts: VolumeFacts) -> str:
    """Tell why the volume cannot be what its record says, "" when it can."""
    size = aligned(record.size)
    if not record.mutable and (longer := grown_to(record, volume, facts)):
        return f"it does not change any more, and is {longer} bytes long instead of {size}"
    if volume.format is VolumeFormat.RAW:
        return f"the raw volume has {facts.length} of {size} bytes" if facts.length < size else ""
    return "it has no qcow2 header" if facts.header is None else _header_contradicts(facts.header, size)


def _header_contradicts(header: Header, size: int) -> str:
    if header.size < size:
        return f"the qcow2 header says {header.size} bytes, the record {size}"
    if header.corrupt:
        return "the corrupt bit is set in its qcow2 header"
    if header.has_data_file:
        return "its qcow2 header names an external data file, which is never followed"
    if header.encrypted:
        return "it is encrypted"
    if header.unknown_incompatible:
        return f"its qcow2 header has unknown features {header.unknown_incompatible:#x}"
    return ""


def layers(repository: Repository, links: list[Link]) -> list[Layer]:
    """Return the chain as a tool opens it, top first."""
    return [gate.open_layer(repository, link.tag, link.volume, Purpose.READ) for link in links]


def rewrite_header(images: ImageTool, repository: Repository, tag: str, volume: VolumeRef) -> None:
    """Make the qcow2 header of ``volume``, the data of ``tag``, say what the records say. Content is untouched; durable
    on return. ImageBusy while somebody has it open."""
    layer = gate.open_layer(repository, tag, volume, Purpose.REWRITE)
    if not volume.parent:
        images.set_backing(layer, None, None)
        return
    parent = changes.read(repository, volume.parent).record
    assert parent.volume is not None
    images.set_backing(layer, backing_name(volume.parent), parent.volume.format)
