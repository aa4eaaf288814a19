"""What a damaged record said, as far as it can be proven from what is left.

Three witnesses are heard, in this order: the generation before; the same snapshot in another repository; and, of data
that images stand on, the one volume that no record names. What is deduced is conservative: a removed image comes back
as one that is there, a snapshot that counts is never taken back, and no volume gets two owners. Pure: a view in, a
record out.
"""

from __future__ import annotations

from typing import NamedTuple

from engine.data.model import Strategy, VolumeFormat, aligned, is_id
from engine.data.records import Record, VolumeRef
from engine.formats.base import TagEntry, VolumeFacts, backing_name
from engine.tags.chains import contradiction
from engine.triage.view import Graph, Replica

BEFORE, REPLICA, HEADER = "before", "replica", "header"
"""The witnesses; the wordings of the rule have these cases."""


class Recovery(NamedTuple):
    """A record that can take the place of a damaged one."""

    witness: str
    record: Record | None = None
    """None: a copy of the replica, made when the fix runs."""
    replica: Replica | None = None
    facts: tuple[str, ...] = ()
    unsure: str = ""
    """A tag whose record is not known either, and which may have the volume by now."""


def recovery(graph: Graph, tag: str) -> Recovery | None:
    """Return what can take the place of the damaged record of ``tag``, None when nothing proves itself."""
    entry = graph.entry(tag)
    if entry is None or not entry.damaged or graph.view.scan.unlisted:
        return None
    if entry.before is not None and (record := _from_before(graph, entry.before)) is not None:
        facts = (f"the generation before {entry.generation:x} of record {tag}",)
        return Recovery(BEFORE, record, facts=facts, unsure=_perhaps_moved(graph, record))
    replica = next(iter(graph.view.replicas.get(tag, ())), None)
    if replica is not None and _large_enough(graph, tag, replica.size):
        return Recovery(REPLICA, None, replica, (f"snapshot {tag} in {replica.repo_id}",))
    record = _from_header(graph, entry)
    return Recovery(HEADER, record, facts=_facts_of(record)) if record is not None else None


def above(graph: Graph, disk: Record) -> Record | None:
    """Return the record of a disk that has left its volume to a snapshot; None when it is not clear where it went."""
    record = _moved_above(graph, disk) if graph.new_owner(disk) else None
    return _beyond(record) if record is not None else None


def _beyond(record: Record) -> Record:
    """The record with counters that the lost generation cannot have had."""
    writes = record.write_epoch + 2 if record.mutable else record.write_epoch
    return record._replace(epoch=record.epoch + 2, write_epoch=writes)


def _facts_of(record: Record) -> tuple[str, ...]:
    return (f"volume {record.volume.id}.{record.volume.format}",) if record.volume is not None else ()


# -- the generation before


def _from_before(graph: Graph, old: Record) -> Record | None:
    begun = old.operation is not None and old.operation.verb == "create_snapshot"
    record = old if old.purging and (old.destroyed or not begun) else _not_purging(graph, old)
    if record is None:
        return None
    merging = _merged_into(graph, old.id)
    if merging:
        record = record._replace(absorbed_by=merging)
    elif not record.purging and record.removed is not None:
        record = record._replace(strong=True, removed=None)  # it may have been restored
    return _beyond(record)


def _merged_into(graph: Graph, tag: str) -> str:
    """The image whose unfinished merge writes into the volume of ``tag``, "" for none."""
    for child in graph.children(tag):
        record = graph.record(child)
        operation = record.operation if record is not None else None
        if operation is not None and (operation.verb, operation.other, operation.direction) == ("merge", tag, "down"):
            return child
    return ""


def _not_purging(graph: Graph, old: Record) -> Record | None:
    operation = old.operation
    if operation is not None and operation.verb == "create_snapshot":
        return _snapshot(graph, old)
    if not old.whole:
        needed = any(_stands_on(graph, child, old.id) for child in graph.children(old.id))
        if needed and operation is not None and operation.attempt is not None and _is(graph, old, operation.attempt):
            # Nothing is made on an image before that is whole, so this one was.
            return old._replace(whole=True, volume=operation.attempt, operation=None)
        return None if needed else old
    if old.volume is None:
        return None
    if _foreign_namers(graph, old, old.volume):
        return _moved_above(graph, old)
    if _is(graph, old, old.volume):
        return old._replace(volume=volume) if (volume := _on_its_base(graph, old.volume)) is not None else None
    ended = _ended(graph, old)
    # A volume is deleted only after the record has another: what the operation was making is that one.
    if ended is None or graph.present(old.volume) or not _is(graph, old, ended):
        return None
    return old._replace(volume=ended, operation=None)


def _snapshot(graph: Graph, old: Record) -> Record | None:
    """An unfinished snapshot. Once the disk has left its volume the snapshot may count, so it does."""
    assert old.operation is not None
    if old.volume is None or not _is(graph, old, old.volume):
        return None
    namers = _namers(graph, old.id, old.volume)
    if namers == [old.operation.other]:
        return old
    return None if namers else old._replace(strong=True, operation=None, purging=False)


def _foreign_namers(graph: Graph, old: Record, volume: VolumeRef) -> bool:
    """Whether another record has the volume; a snapshot of this very disk that was only begun does not count."""
    for tag in _namers(graph, old.id, volume):
        record = graph.record(tag)
        operation = record.operation if record is not None else None
        if operation is None or operation.verb != "create_snapshot" or operation.other != old.id:
            return True
    return False


def _namers(graph: Graph, tag: str, volume: VolumeRef) -> list[str]:
    """The other tags that have the volume, or had it when their records were last intact."""
    found = dict.fromkeys(graph.namers(volume.id))
    for other, entry in graph.view.scan.tags.items():
        if entry.before is not None and volume.id in [named.id for named in entry.before.volumes()]:
            found[other] = None
    return [namer for namer in found if namer != tag]


def _moved_above(graph: Graph, old: Record) -> Record | None:
    """The disk has left its volume to a snapshot: it is on the one volume without a name that stands on that."""
    assert old.volume is not None
    below = [tag for tag in _namers(graph, old.id, old.volume) if _has(graph.record(tag), old.volume)]
    if len(below) != 1:
        return None
    base = graph.record(below[0])
    if base is None or not old.left_to(base):
        return None
    fitting = [
        volume
        for volume in _unnamed(graph)
        if (facts := graph.view.facts.get(volume)) is not None and facts.backing_name == backing_name(base.id)
    ]
    if len(fitting) != 1:
        return None
    overlay = VolumeRef(fitting[0], VolumeFormat.QCOW2, base.id)
    return old._replace(volume=overlay, operation=None) if _is(graph, old, overlay) else None


def _perhaps_moved(graph: Graph, record: Record) -> str:
    """The tag that may have got the volume of a disk: nothing is known of it but an overlay on it that nobody has."""
    if not record.mutable:
        return ""
    names = {
        backing_name(tag): tag
        for tag, entry in graph.view.scan.tags.items()
        if entry.problem and entry.before is None and tag != record.id
    }
    for volume in _unnamed(graph) if names else ():
        facts = graph.view.facts.get(volume)
        named = facts.backing_name if facts is not None else None
        if named in names and (record.volume is None or record.volume.id != volume):
            return names[named]
    return ""


def _has(record: Record | None, volume: VolumeRef) -> bool:
    return record is not None and record.volume is not None and record.volume.id == volume.id


def _ended(graph: Graph, old: Record) -> VolumeRef | None:
    """The volume that the record has had since its operation ended."""
    operation = old.operation
    if operation is None:
        return None
    if operation.verb == "merge" and operation.direction == "down":
        lower = graph.record(operation.other)
        fits = lower is not None and lower.volume is not None and operation.pinned[1:] == (lower.volume.id,)
        return lower.volume if lower is not None and fits else None
    attempt = operation.attempt
    return attempt if attempt is not None and not _namers(graph, old.id, attempt) else None


def _on_its_base(graph: Graph, volume: VolumeRef) -> VolumeRef | None:
    """The volume with the base that it has. One that the older record names and that is gone was merged into it: then
    its header, which was rewritten after that, names the one below."""
    if not volume.parent or _is_there(graph.entry(volume.parent)):
        return volume
    facts = graph.view.facts.get(volume.id)
    if facts is None or facts.header is None:
        return None
    named = _parent_of(facts)
    if named is None or named == volume.parent or (named and not _is_there(graph.entry(named))):
        return None
    return volume._replace(parent=named)


def _is_there(entry: TagEntry | None) -> bool:
    return entry is not None and not entry.tombstone


# -- the header


def _from_header(graph: Graph, entry: TagEntry) -> Record | None:
    """Data that whole images stand on is a snapshot; it is the one volume that no record names, if that fits."""
    problems = [tag for tag, other in graph.view.scan.tags.items() if other.problem]
    unnamed = _unnamed(graph)
    children = [child for child in graph.children(entry.id) if _stands_on(graph, child, entry.id)]
    if problems != [entry.id] or len(unnamed) != 1 or not children:
        return None
    facts = graph.view.facts.get(unnamed[0])
    if facts is None or facts.unreadable or not facts.present:
        return None
    parent = _parent_of(facts)
    base = graph.record(parent) if parent else None
    if parent is None or (parent and (base is None or base.mutable or not base.whole or base.purging)):
        return None
    if base is not None and entry.id in [link.id for link in graph.chain(base)]:
        return None
    size = facts.header.size if facts.header is not None else facts.length
    volume = VolumeRef(facts.id, facts.format, parent)
    strategy = Strategy.SPACE if facts.format is VolumeFormat.QCOW2 else Strategy.PERFORMANCE
    record = Record(entry.id, True, False, size, True, volume, strategy)
    fits = _is(graph, record, volume) and _large_enough(graph, entry.id, size)
    dirty = facts.header is not None and facts.header.dirty
    return record if fits and not dirty and all(_expects(graph, child, facts.format) for child in children) else None


def _expects(graph: Graph, child: str, format: VolumeFormat) -> bool:
    """Whether the header of an image, where it has one, says that its base has that format."""
    record = graph.record(child)
    facts = graph.view.facts.get(record.volume.id) if record is not None and record.volume is not None else None
    return facts is None or facts.header is None or facts.header.backing_format == str(format)


def _parent_of(facts: VolumeFacts) -> str | None:
    """The tag that the header names, "" for none, None for something else."""
    name = facts.backing_name
    if name is None:
        return ""
    tag = name.removeprefix(backing_name(""))
    return tag if is_id(tag) and name == backing_name(tag) else None


# -- what is there


def _unnamed(graph: Graph) -> list[str]:
    return sorted(volume for volume in graph.view.scan.volumes if not graph.namers(volume))


def _stands_on(graph: Graph, child: str, tag: str) -> bool:
    record = graph.record(child)
    return record is not None and record.whole and record.volume is not None and record.volume.parent == tag


def _large_enough(graph: Graph, tag: str, size: int) -> bool:
    """Whether an image of that size can be below all that stands on the tag."""
    records = [graph.record(child) for child in graph.children(tag)]
    return all(record is None or aligned(size) <= aligned(record.size) for record in records)


def _is(graph: Graph, record: Record, volume: VolumeRef) -> bool:
    """Whether the volume is there and can be what the record says."""
    facts = graph.view.facts.get(volume.id)
    if facts is None or not facts.present or facts.problem or facts.unreadable:
        return False
    return not contradiction(record, volume, facts)
