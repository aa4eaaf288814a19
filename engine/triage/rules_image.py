"""Mend what is broken and optimize what is degraded, image by image."""

from __future__ import annotations

from collections.abc import Iterator

from engine.data.model import Fix, FixCost, FixType, ImageReport, Risk, Status, Strategy, VolumeFormat
from engine.data.records import Record
from engine.triage.health import Degradation, Health, Judge, degradations, wanted_format
from engine.triage.propose import cost, fix, makes, reads_of, removes, room
from engine.triage.rules_clean import REBUILDS
from engine.triage.view import Graph, Replica

_UNFINISHED = ("B-CREATE", "B-COPY", "B-IMPORT")


def mend(judge: Judge, tag: str) -> Iterator[Fix]:
    """The way back for an image whose own data or operation is the trouble."""
    health = judge.health(tag)
    record = judge.graph.record(tag)
    if health.culprit != tag or record is None or health.rule == "B-BASE":
        return
    if health.status is not Status.BROKEN and health.rule != "U-READ":
        return
    if not record.strong and not judge.graph.children(tag):
        return
    if health.rule == "B-PURGING":
        yield _take_back(judge.graph, record)
    elif health.rule in _UNFINISHED:
        yield _resume(judge, record, health)
    elif health.rule in ("B-GONE", "B-DATA", "B-DIGEST", "B-CORRUPT"):
        yield from _damage(judge, record, health)
    elif tag in judge.graph.view.depths.lost:
        # Not proven to be damaged: what the operator may choose overwrites nothing and keeps the volume.
        yield from _damage(judge, record, health)


def _take_back(graph: Graph, record: Record) -> Fix:
    whose = next(iter(graph.children(record.id)), "a user")
    if record.destroyed:
        why, after = f"Its deletion was begun and goes on; {whose} needs it and was begun later", "gone"
    else:
        why, after = f"Its deletion was begun, and {whose} depends on it: this takes the deletion back", "removed"
    return fix(
        graph,
        FixType.MEND,
        "B-PURGING",
        record.id,
        why,
        reads=reads_of(graph, [record.id], [record.id]),
        volumes=record.destroyed and removes(graph, record.scrap),
        before="removed",
        after=after,
    )


def _resume(judge: Judge, record: Record, health: Health) -> Fix:
    graph = judge.graph
    operation = record.operation
    assert operation is not None
    cursor = graph.cursor(record)
    pending = graph.view.pending.get(record.id)
    if operation.verb == "create_disk" and not operation.source:
        bytes_left, exact = 0, True
    elif pending is not None:
        bytes_left, exact = int(pending * (1 - cursor / max(record.size, 1))), False
    else:
        bytes_left, exact = max(0, record.size - cursor), False
    attempt = operation.attempt
    extra = room(graph, record.size, attempt.format, attempt) if attempt is not None else None
    written = bytes_left
    if extra and attempt is not None and attempt.format is VolumeFormat.RAW:
        written = max(bytes_left, record.size)  # zeros too
    why = health.reason[:1].upper() + health.reason[1:]
    if cursor:
        why += f"; it goes on at byte {cursor} of {record.size}"
    return fix(
        graph,
        FixType.MEND,
        health.rule,
        record.id,
        why,
        reads=reads_of(graph, [record.id]),
        facts=health.facts,
        cost=cost(graph, read=bytes_left, write=written, extra=extra, exact=exact),
        before=Status.BROKEN,
        after=_after(record),
        waits_for=graph.view.waits.get(record.id, ""),
        volumes=not operation.fills or makes(graph, record, cursor),
    )


def _after(record: Record) -> str:
    operation = record.operation
    assert operation is not None
    if operation.base and record.strategy is Strategy.PERFORMANCE:
        return Status.DEGRADED
    return Status.OPTIMIZED


def _damage(judge: Judge, record: Record, health: Health) -> Iterator[Fix]:
    graph = judge.graph
    reads = reads_of(graph, [record.id])
    deep = health.rule in ("B-DIGEST", "B-CORRUPT", "U-READ")
    replica = usable_replica(graph, record)
    why = health.reason[:1].upper() + health.reason[1:]
    if replica is not None:
        yield fix(
            graph,
            FixType.MEND,
            "B-REPLICA",
            record.id,
            f"{why}; the same snapshot is intact in {replica.repo_id}",
            reads=reads,
            plan={"source": replica.repository},
            facts=health.facts,
            cost=_copy_cost(graph, record),
            before=health.status,
            after=Status.OPTIMIZED,
            deep=deep,
            volumes=_replaces(graph, record),
        )
    elif _salvageable(judge, record, health):
        yield fix(
            graph,
            FixType.MEND,
            "B-SALVAGE",
            record.id,
            f"{why}; what can still be read is copied into a fresh volume, the rest reads as zeros and is named",
            reads=reads,
            facts=(*health.facts, *_lost_facts(graph, record)),
            cost=_copy_cost(graph, record),
            risk=Risk.LOSES_DATA,
            before=health.status,
            after=Status.DEGRADED,
            deep=deep,
            volumes=True,
        )
    elif not record.mutable and health.status is Status.BROKEN:
        yield fix(
            graph,
            FixType.MEND,
            "B-REPLICA",
            record.id,
            why,
            reads=reads,
            facts=health.facts,
            cost=FixCost(),
            before=Status.BROKEN,
            after=Status.OPTIMIZED,
            waits_for=f"a connected repository that has snapshot {record.id} intact",
            deep=deep,
            volumes=_replaces(graph, record),
        )


def usable_replica(graph: Graph, record: Record) -> Replica | None:
    """A replica that is provably the same snapshot: same id and size, and the same digest where both have one."""
    if record.mutable:
        return None
    for replica in graph.view.replicas.get(record.id, ()):
        if replica.size == record.size and (not record.digest or not replica.digest or replica.digest == record.digest):
            return replica
    return None


def _salvageable(judge: Judge, record: Record, health: Health) -> bool:
    facts = judge.graph.view.facts.get(record.volume.id) if record.volume else None
    if facts is None or not facts.present or health.rule == "B-GONE":
        return False
    if health.rule == "B-DIGEST" and record.id not in judge.graph.view.depths.lost:
        return False
    if facts.format is VolumeFormat.RAW:
        return True
    header = facts.header
    return header is not None and not header.has_data_file and not header.unknown_incompatible


def _lost_facts(graph: Graph, record: Record) -> tuple[str, ...]:
    ranges = graph.view.depths.lost.get(record.id, ())
    return tuple(f"wrong or unreadable: {length} bytes at {start}" for start, length in ranges[:20])


def _copy_cost(graph: Graph, record: Record) -> FixCost:
    size = graph.chain_bytes(record) or record.size
    return cost(graph, read=size, write=size, later=graph.used(record.volume), exact=False)


def optimize(judge: Judge, tag: str, report: ImageReport) -> Iterator[Fix]:
    """Fixes for a usable image that could be represented better: at most one rebuild, and the small ones."""
    record = judge.graph.record(tag)
    if record is None or not record.strong or report.status is not Status.DEGRADED:
        return
    found = degradations(judge.graph, record)
    rebuild = next((item for item in found if item.rule in REBUILDS), None)
    if rebuild is not None and (record.operation is None or record.operation.verb == "optimize"):
        yield _rebuild(judge, record, rebuild)  # an unfinished merge comes first, and is offered by itself
    for item in found:
        if item.rule == "O-HEADER":
            yield _small(judge, record, item, "rewrites the header only")
        elif item.rule == "O-LEAKS" and rebuild is None:
            yield _small(judge, record, item, "gives the leaked clusters back, touches nothing else")
        elif item.rule == "D-LOST" and record.lost:
            yield from _restore(judge, record, item)
            yield _accept(judge, record, item)


def reduce(judge: Judge, tag: str, report: ImageReport) -> Iterator[Fix]:
    """What the volume of an image that does not change any more will never use. Like a merge it is a fix of its own:
    the image is as good without."""
    graph = judge.graph
    record = graph.record(tag)
    if record is None or record.mutable or not record.whole or record.volume is None or record.operation is not None:
        return
    facts = graph.view.facts.get(record.volume.id)
    if facts is None or facts.in_use is None or facts.in_use >= facts.length:
        return
    shared = graph.namers[record.volume.id] != [tag]
    if shared or record.purging or record.absorbed_by or judge.health(tag).status is not Status.OPTIMIZED:
        return
    yield fix(
        graph,
        FixType.OPTIMIZE,
        "O-REDUCE",
        tag,
        "It does not change any more, and its volume has room that it will never use; this gives that back",
        reads=reads_of(graph, [tag]),
        facts=(f"volume {record.volume.id}: {facts.in_use} of {facts.length} bytes are in use",),
        unavailable=(tag,),
        cost=cost(graph, reclaimed=facts.length - facts.in_use),
        volumes=True,
        before=report.status,
        after=report.status,
        waits_for=_late_writer(graph, record),
    )


def _rebuild(judge: Judge, record: Record, item: Degradation) -> Fix:
    graph = judge.graph
    size = graph.chain_bytes(record)
    chain = [link.id for link in graph.chain(record)]
    gained = graph.used(record.volume)
    unfinished = " (goes on where it was interrupted)" if record.operation else ""
    attempt = record.operation.attempt if record.operation else None
    extra = room(graph, record.size, attempt.format if attempt else wanted_format(record.strategy), attempt)
    return fix(
        graph,
        FixType.OPTIMIZE,
        item.rule,
        record.id,
        f"{_capital(item.reason)}; a fresh flat volume replaces it{unfinished}",
        reads=reads_of(graph, chain),
        facts=item.facts,
        unavailable=(record.id,),
        cost=cost(graph, read=size, write=size, extra=extra, reclaimed=gained, exact=False),
        before=Status.DEGRADED,
        after=Status.OPTIMIZED,
        volumes=True,
        deep=item.rule == "O-OVERSIZE" and record.id in graph.view.depths.required,
    )


def _small(judge: Judge, record: Record, item: Degradation, what: str) -> Fix:
    return fix(
        judge.graph,
        FixType.OPTIMIZE,
        item.rule,
        record.id,
        f"{_capital(item.reason)}; this {what}",
        reads=reads_of(judge.graph, [record.id]),
        facts=item.facts,
        unavailable=(record.id,),
        cost=cost(judge.graph, reclaimed=item.gains, exact=item.rule != "O-LEAKS"),
        before=Status.DEGRADED,
        after=Status.OPTIMIZED,
        deep=item.rule == "O-LEAKS",
        waits_for=_late_writer(judge.graph, record) if item.rule == "O-LEAKS" else "",
    )


def _late_writer(graph: Graph, record: Record) -> str:
    host = graph.view.late_writers.get(record.volume.id, "") if record.volume is not None else ""
    return f"host {host}, which may still write to it: until it is back, or restarted" if host else ""


def _restore(judge: Judge, record: Record, item: Degradation) -> Iterator[Fix]:
    replica = usable_replica(judge.graph, record)
    if replica is None:
        return
    yield fix(
        judge.graph,
        FixType.MEND,
        "B-REPLICA",
        record.id,
        f"{_capital(item.reason)}; the same snapshot is intact in {replica.repo_id}",
        reads=reads_of(judge.graph, [record.id]),
        plan={"source": replica.repository},
        facts=item.facts,
        cost=_copy_cost(judge.graph, record),
        before=Status.DEGRADED,
        after=Status.OPTIMIZED,
        volumes=_replaces(judge.graph, record),
    )


def _replaces(graph: Graph, record: Record) -> bool:
    """Whether bringing the data of a replica in makes a volume, or removes one."""
    operation = record.operation
    begun = operation is not None and operation.verb == "restore_data"
    return not begun or makes(graph, record, graph.cursor(record)) or removes(graph, record.scrap)


def _accept(judge: Judge, record: Record, item: Degradation) -> Fix:
    return fix(
        judge.graph,
        FixType.CLEAN,
        "C-LOSSES",
        record.id,
        f"{_capital(item.reason)}; this accepts the zeros as the image's content and forgets which ranges they were",
        reads=reads_of(judge.graph, [record.id]),
        facts=tuple(f"lost: {length} bytes at {start}" for start, length in record.lost[:20]),
        cost=cost(judge.graph, read=0 if record.mutable else judge.graph.chain_bytes(record), exact=False),
        risk=Risk.LOSES_DATA,
        before=Status.DEGRADED,
        after=Status.OPTIMIZED,
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
