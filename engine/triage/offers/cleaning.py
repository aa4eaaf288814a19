"""Clean: space that no image needs. Everything offered here is named by a record that says why,
or is listed by kind; nothing is offered on a guess."""

from __future__ import annotations

from collections.abc import Iterator

from engine.data.model import Fix, Risk, WaitKind
from engine.data.records import Record
from engine.triage import rules
from engine.triage.health import degradations
from engine.triage.propose import cost, fix, reads_of, removes
from engine.triage.recover import recovery
from engine.triage.view import Graph, strong_above


def of_tag(graph: Graph, tag: str, healthy: bool) -> Iterator[Fix]:
    """Clean fixes about one tag; ``healthy``: its data can be read."""
    entry = graph.view.scan.tags[tag]
    record = entry.record
    if record is None:
        needed = strong_above(tag, graph.children, graph.record)
        if entry.damaged and not needed and recovery(graph, tag) is None:
            yield fix(
                graph,
                rules.C_RECORD,
                tag,
                rules.offer(rules.C_RECORD),
                reads=reads_of(graph, [tag], [tag]),
                before="broken",
                after="gone",
            )
        return
    if not record.strong and not graph.children(tag):
        keeper = graph.view.keepers.get(tag)
        if record.purging or keeper is None or not keeper.sure:
            yield _weak(graph, record)
        return
    if record.purging:
        return
    yield from _leftovers(graph, record, healthy)


def _weak(graph: Graph, record: Record) -> Fix:
    removed = record.removed is not None
    code = rules.C_REMOVED if removed else rules.C_HIDDEN
    given_back = record.operation.attempt if record.operation and record.operation.verb == "adopt" else None
    freed = sum(
        graph.used(volume)
        for volume in dict.fromkeys(record.volumes())
        if volume != given_back and set(graph.namers(volume.id)) == {record.id}
    )
    parent = record.volume.parent if record.volume else ""
    below = graph.record(parent) if parent else None
    later = graph.used(below.volume) if below and not below.strong and len(graph.children(parent)) == 1 else 0
    wait = graph.view.waits.get(record.id) if given_back else None
    keeper = graph.view.keepers.get(record.id)
    return fix(
        graph,
        code,
        record.id,
        rules.offer(code, "adopt" if removed and given_back else ""),
        reads=reads_of(graph, [record.id], [record.id]),
        facts=(keeper.fact,) if keeper else (),
        cost=cost(graph, reclaimed=freed, later=later),
        risk=Risk.LOSES_DATA if keeper and not record.purging else None,
        wait=wait if wait is not None and wait.kind is WaitKind.PATH else None,
        before="removed" if removed else "hidden",
        after="gone",
        volumes=removes(graph, record.volumes()),
    )


def _leftovers(graph: Graph, record: Record, healthy: bool) -> Iterator[Fix]:
    if record.scrap:
        yield fix(
            graph,
            rules.C_SCRAP,
            record.id,
            rules.offer(rules.C_SCRAP),
            reads=reads_of(graph, [record.id]),
            cost=cost(graph, reclaimed=sum(graph.used(volume) for volume in record.scrap)),
            volumes=removes(graph, record.scrap),
        )
    if record.evidence:
        yield fix(
            graph,
            rules.C_EVIDENCE,
            record.id,
            rules.offer(rules.C_EVIDENCE),
            reads=reads_of(graph, [record.id]),
            cost=cost(graph, reclaimed=sum(graph.used(volume) for volume in record.evidence)),
            volumes=removes(graph, record.evidence),
        )
    attempt = record.operation.attempt if record.operation else None
    in_use = attempt is not None and any(tag != record.id for tag in graph.namers(attempt.id))
    # The overlay of an interrupted snapshot belongs to the disk once that stands on it: a merge ends it.
    if record.whole and record.operation is not None and healthy and not in_use and not _wanted(graph, record):
        yield fix(
            graph,
            rules.C_ATTEMPT,
            record.id,
            rules.offer(rules.C_ATTEMPT, verb=record.operation.verb),
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
        return any(item.rule in rules.REBUILDS for item in degradations(graph, record))
    return operation.verb == "restore_data" and bool(record.lost)


def of_repository(graph: Graph) -> Iterator[Fix]:
    """Clean fixes about no image: leftovers of crashes, quarantine, unnamed volumes."""
    litter = [item for kind in rules.LITTER_KINDS for item in graph.litter(kind) if not item.busy]
    if litter:
        yield fix(
            graph,
            rules.C_LITTER,
            "",
            rules.offer(rules.C_LITTER, count=len(litter)),
            reads=(("litter", "each item is looked at again"),),
            facts=tuple(f"{item.kind} {item.name}" for item in sorted(litter)[:20]),
            cost=cost(graph, reclaimed=sum(item.size for item in litter)),
            volumes=any(item.kind == "temporary" for item in litter),
        )
    quarantined = graph.litter("lost")
    awaited = _awaited(graph) if quarantined else set()
    for item in quarantined:
        if item.name in awaited:
            continue  # a record names it: it goes back, or goes when that record is gone
        yield fix(
            graph,
            rules.C_LOST,
            "",
            rules.offer(rules.C_LOST, name=item.name),
            reads=((f"litter:{item.kind}", item.name),),
            plan={"name": item.name},
            cost=cost(graph, reclaimed=item.size),
        )
    if any(entry.problem for entry in graph.view.scan.tags.values()):
        return  # a record that cannot be understood may name any volume
    if graph.left_behind:
        return  # the newest record of that disk named one
    for volume in sorted(graph.view.scan.volumes):
        if not graph.namers(volume):
            facts = graph.view.facts.get(volume)
            yield fix(
                graph,
                rules.C_UNNAMED,
                "",
                rules.offer(rules.C_UNNAMED, volume=volume),
                reads=((f"volume:{volume}", "unnamed"),),
                plan={"volume": volume, "format": str(graph.view.scan.volumes[volume])},
                facts=(f"volume {volume}.{graph.view.scan.volumes[volume]}",),
                cost=cost(graph, later=facts.used if facts else 0),
            )


def _awaited(graph: Graph) -> set[str]:
    """What stands in quarantine and is missed: a record has it as its data, and it is not there."""
    records = [entry.record for entry in graph.view.scan.tags.values() if entry.record is not None]
    volumes = [record.volume for record in records if record.volume is not None and not graph.present(record.volume)]
    return {item.name for volume in volumes if (item := graph.quarantined(volume)) is not None}
