"""Making the volume of a tag longer: what grows with it, in which order."""

from __future__ import annotations

from engine.data.model import aligned
from engine.data.records import VolumeRef
from engine.errors import Damaged
from engine.formats.base import Repository, VolumeFacts
from engine.gate import gate
from engine.gate.gate import Purpose
from engine.tags import changes
from engine.tags.context import Context


def of(facts: VolumeFacts) -> int:
    """Return the length in bytes of a volume, as a machine sees it."""
    return facts.header.size if facts.header else facts.length


def grow(context: Context, repository: Repository, tag: str, volume: VolumeRef, size: int) -> None:
    """Give the volume of ``tag`` room for ``size`` bytes, then that length; what is gained reads as zeros, because no
    base is longer than what stands on it. Durable on return; interrupted, it has the old length or the new one, and may
    have the room. Success when it is as long already. The caller holds the lease.

    ImageBusy while somebody has it open. Damaged when its base is longer than it is."""
    if repository.extents is not None:
        repository.extents.make_room(volume, size)
    facts = repository.volumes.facts(volume.id, volume.format)
    have = of(facts)
    layer = gate.open_layer(repository, tag, volume, Purpose.REWRITE)
    if have >= aligned(size):
        gate.settle(context.doors, layer)
        return
    if volume.parent and aligned(changes.read(repository, volume.parent).record.size) > have:
        raise Damaged(f"volume {volume.id} is shorter than what it is based on")
    if changes.read(repository, tag).record.seen is not None:  # interrupted, this is no write of a stranger
        changes.change(repository, tag, lambda now: now._replace(seen=None))
    context.doors.images.resize(layer, aligned(size))
