"""Clean: space that no image needs. Everything offered here is named by a record that says why,
or is listed by kind; nothing is offered on a guess."""

from __future__ import annotations

from collections.abc import Iterator

from engine.data.model import Fix, FixType, Risk
from engine.data.records import Record
from engine.triage.health import degradations
from engine.triage.propose import cost, fix, reads_of, removes
from engine.triage.view import Graph

LITTER_KINDS = ("temporary", "old-generation", "progress", "digest")


def of_tag(graph: Graph, tag: str, healthy: bool) -> Iterator[Fix]:
    """Clean fixes about one tag; ``healthy``: its data can be read."""
    entry = graph.view.scan.tags[tag]
    record = entry.record
    if record is None:
        if entry.problem and not entry.unreadable and not graph.children(tag):
            yield fix(
                graph,
                FixType.CLEAN,
                "C-RECORD",
                tag,
                "Its record is damaged; this gives the record up and puts unnamed volumes into lost/",
                reads=reads_of(graph, [tag], [tag]),
                risk=Risk.LOSES_DATA,
                before="broken",
                after="gone",
            )
        return
    if not record.strong and not graph.children(tag):
        yield _weak(graph, record)
        return
    if record.purging:
        return
    yield from _leftovers(graph, record, healthy)


def _weak(graph: Graph, record: Record) -> Fix:
    removed = record.removed is not None
    freed = sum(
        graph.used(volume)
        for volume in dict.fromkeys(record.volumes())
        if graph.namers[volume.id] == [record.id] * len(graph.namers[volume.id])
    )
    parent = record.volume.parent if record.volume else ""
    below = graph.record(parent) if parent else None
    later = graph.used(below.volume) if below and not below.strong and len(graph.children(parent)) == 1 else 0
    return fix(
        graph,
        FixType.CLEAN,
        "C-REMOVED" if removed else "C-HIDDEN",
        record.id,
        "The image was removed; its data still holds space" if removed else "Hidden data that nothing needs any more",
        reads=reads_of(graph, [record.id], [record.id]),
        cost=cost(graph, reclaimed=freed, later=later),
        risk=Risk.IRREVERSIBLE if removed else Risk.REVERSIBLE,
        before="removed" if removed else "hidden",
        after="gone",
        volumes=removes(graph, record.volumes()),
    )


def _leftovers(graph: Graph, record: Record, healthy: bool) -> Iterator[Fix]:
    if record.scrap:
        yield fix(
            graph,
            FixType.CLEAN,
            "C-SCRAP",
            record.id,
            "An older representation of the image is left over from a finished operation",
            reads=reads_of(graph, [record.id]),
            cost=cost(graph, reclaimed=sum(graph.used(volume) for volume in record.scrap)),
            volumes=removes(graph, record.scrap),
        )
    if record.evidence:
        yield fix(
            graph,
            FixType.CLEAN,
            "C-EVIDENCE",
            record.id,
            "The damaged volume was kept as evidence after the image was mended",
            reads=reads_of(graph, [record.id]),
            cost=cost(graph, reclaimed=sum(graph.used(volume) for volume in record.evidence)),
            risk=Risk.LOSES_DATA,
            volumes=removes(graph, record.evidence),
        )
    attempt = record.operation.attempt if record.operation else None
    in_use = attempt is not None and any(tag != record.id for tag in graph.namers[attempt.id])
    # The overlay of an interrupted snapshot belongs to the disk once that stands on it: a merge ends it.
    if record.whole and record.operation is not None and healthy and not in_use and not _wanted(graph, record):
        yield fix(
            graph,
            FixType.CLEAN,
            "C-ATTEMPT",
            record.id,
            f"An unfinished {record.operation.verb} is not wanted any more; its partial volume holds space",
            reads=reads_of(graph, [record.id]),
            cost=cost(graph, reclaimed=graph.used(attempt)),
            volumes=removes(graph, [*record.scrap, *([attempt] if attempt is not None else [])]),
        )


def _wanted(graph: Graph, record: Record) -> bool:
    operation = record.operation
    if operation is None:
        return False
    if operation.verb == "merge":
        other = graph.record(operation.other)
        return other is not None and not other.strong and graph.children(other.id) == [record.id]
    if operation.verb == "optimize":
        return any(item.rule in REBUILDS for item in degradations(graph, record))
    return operation.verb == "restore_data" and bool(record.lost)


REBUILDS = ("O-FLAT", "O-FORMAT", "O-DEPTH", "O-OVERSIZE", "O-DIRTY")
"""Degradations that are cured by a fresh flat volume."""


def of_repository(graph: Graph) -> Iterator[Fix]:
    """Clean fixes about no image: leftovers of crashes, quarantine, unnamed volumes."""
    litter = [item for kind in LITTER_KINDS for item in graph.litter(kind) if not item.busy]
    if litter:
        yield fix(
            graph,
            FixType.CLEAN,
            "C-LITTER",
            "",
            f"{len(litter)} small files are left over from interrupted operations",
            reads=(("litter", "each item is looked at again"),),
            facts=tuple(f"{item.kind} {item.name}" for item in sorted(litter)[:20]),
            cost=cost(graph, reclaimed=sum(item.size for item in litter)),
            volumes=any(item.kind == "temporary" for item in litter),
        )
    for item in graph.litter("lost"):
        yield fix(
            graph,
            FixType.CLEAN,
            "C-LOST",
            "",
            f"A volume that no record named stands in quarantine ({item.name}); this deletes it for good",
            reads=((f"litter:{item.kind}", item.name),),
            plan={"name": item.name},
            cost=cost(graph, reclaimed=item.size),
            risk=Risk.LOSES_DATA,
            volumes=True,
        )
    if any(entry.problem for entry in graph.view.scan.tags.values()):
        return  # a record that cannot be understood may name any volume
    for volume in sorted(graph.view.scan.volumes):
        if volume not in graph.namers:
            facts = graph.view.facts.get(volume)
            yield fix(
                graph,
                FixType.CLEAN,
                "C-UNNAMED",
                "",
                f"No record names the volume {volume}; this moves it into quarantine (lost/), nothing is deleted",
                reads=((f"volume:{volume}", "unnamed"),),
                plan={"volume": volume, "format": str(graph.view.scan.volumes[volume])},
                facts=(f"volume {volume}.{graph.view.scan.volumes[volume]}",),
                cost=cost(graph, later=facts.used if facts else 0),
                volumes=True,
            )
