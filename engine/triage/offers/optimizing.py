"""Optimize: what could be represented better, and what an image does not need. The image is usable before and after."""

from __future__ import annotations

from collections.abc import Iterator

from engine.data.model import Fix, ImageReport, Risk, Status, Wait, WaitKind
from engine.data.records import Record
from engine.tags.chains import grown_to, may_adopt
from engine.triage import rules
from engine.triage.health import Degradation, Judge, degradations, wanted_format
from engine.triage.offers.mending import from_replica, usable_replica
from engine.triage.propose import cost, fix, reads_of, room
from engine.triage.view import Graph

_BY_MACHINE = (
    "its machine does that while it runs, and begins anew when it is interrupted: each write of its guest goes into "
    "both volumes meanwhile, so it ends however much that writes; then the guest stands still as long as one record "
    "takes, and the path of the disk is another where its format is"
)
_IN_PLACE = (rules.O_LEAKS, rules.O_ZEROS)
"""Mended in the volume as it is, if no fresh one takes its place anyway."""


def optimize(judge: Judge, tag: str, report: ImageReport) -> Iterator[Fix]:
    """Offer fixes for a usable image that could be represented better: at most one rebuild, and the small ones."""
    record = judge.graph.record(tag)
    if record is None or not record.strong or report.status is not Status.DEGRADED:
        return
    found = degradations(judge.graph, record)
    rebuild = next((item for item in found if item.rule in rules.REBUILDS), None)
    settled = all(judge.graph.written(link) is None for link in judge.graph.chain(record))
    if rebuild is not None and settled and (record.operation is None or record.operation.verb == "optimize"):
        yield _rebuild(judge, record, rebuild)  # an unfinished merge comes first, and is offered by itself
    for item in found:
        if item.rule == rules.O_HEADER or (item.rule in _IN_PLACE and rebuild is None):
            yield _small(judge, record, item)
        elif item.rule == rules.O_UNHELD:
            yield _take_over(judge.graph, record, item)
        elif item.rule == rules.O_GROWN and may_adopt(record):
            yield _adopt_size(judge, record, item)
        elif item.rule == rules.D_LOST and record.lost:
            if (replica := usable_replica(judge.graph, record)) is not None:
                why = rules.sentence(item.reason)
                yield from_replica(judge.graph, record, replica, why, facts=item.facts, before=Status.DEGRADED)
            yield _accept(judge, record, item)


def reduce(judge: Judge, tag: str, report: ImageReport) -> Iterator[Fix]:
    """Offer to cut off what the volume of an image that does not change any more will never use. Like a merge it is a
    fix of its own: the image is as good without."""
    graph = judge.graph
    record = graph.record(tag)
    if record is None or record.mutable or not record.whole or record.volume is None or record.operation is not None:
        return
    facts = graph.view.facts.get(record.volume.id)
    if facts is None or facts.in_use is None or facts.in_use >= facts.length:
        return
    shared = list(graph.namers(record.volume.id)) != [tag]
    if shared or record.purging or record.absorbed_by or judge.health(tag).status is not Status.OPTIMIZED:
        return
    yield fix(
        graph,
        rules.O_REDUCE,
        tag,
        rules.offer(rules.O_REDUCE),
        reads=reads_of(graph, [tag]),
        facts=(f"volume {record.volume.id}: {facts.in_use} of {facts.length} bytes are in use",),
        unavailable=(tag,),
        cost=cost(graph, reclaimed=facts.length - facts.in_use),
        before=report.status,
        after=report.status,
        wait=_late_writer(graph, record),
    )


def accept_written(judge: Judge, tag: str, report: ImageReport) -> Iterator[Fix]:
    """Offer to take what was written to an image while nobody had it prepared for its content; also of hidden data,
    which images stand on."""
    graph = judge.graph
    record = graph.record(tag)
    if record is None or (record.strong and report.rule != rules.O_WRITTEN):
        return
    stamp = graph.written(record)
    if stamp is None or judge.health(tag).status is not Status.OPTIMIZED:
        return
    found = degradations(graph, record)
    if not found or found[0].rule != rules.O_WRITTEN:
        return
    if record.mutable:
        case, risk = "disk", Risk.IRREVERSIBLE
    elif not record.digest_is_valid:
        case, risk = "unproven", Risk.LOSES_DATA
    elif graph.view.deep and tag not in graph.view.depths.failed and tag not in graph.view.depths.unreadable:
        case, risk = "proven", Risk.REVERSIBLE
    else:
        return  # a deep check finds out
    yield fix(
        graph,
        rules.O_WRITTEN,
        tag,
        rules.offer(rules.O_WRITTEN, case, reason=rules.sentence(found[0].reason)),
        reads=reads_of(graph, [tag]),
        plan={"mtime_ns": stamp.mtime_ns},
        facts=found[0].facts,
        cost=cost(graph, read=graph.chain_bytes(record) if case == "proven" else 0, exact=False),
        risk=risk,
        deep=case == "proven",
        before=report.status,
        after=Status.OPTIMIZED if record.strong else report.status,
    )


def _rebuild(judge: Judge, record: Record, item: Degradation) -> Fix:
    graph = judge.graph
    size = graph.chain_bytes(record)
    chain = [link.id for link in graph.chain(record)]
    gained = graph.used(record.volume)
    unfinished = " (goes on where it was interrupted)" if record.operation else ""
    attempt = record.operation.attempt if record.operation else None
    deep = item.rule == rules.O_OVERSIZE and record.id in graph.view.depths.required
    beside = rules.by_machine(item.rule, (record.id,), graph.view.monitored, deep)
    extra = room(graph, record.size, attempt.format if attempt else wanted_format(record.strategy), attempt)
    return fix(
        graph,
        item.rule,
        record.id,
        rules.offer(item.rule, reason=rules.sentence(item.reason), unfinished=unfinished),
        reads=reads_of(graph, chain),
        facts=(*item.facts, _BY_MACHINE) if beside else item.facts,
        unavailable=() if beside else (record.id,),
        cost=cost(graph, read=size, write=size, extra=extra, reclaimed=gained, exact=False),
        before=Status.DEGRADED,
        after=Status.OPTIMIZED,
        deep=deep,
    )


def _small(judge: Judge, record: Record, item: Degradation) -> Fix:
    return fix(
        judge.graph,
        item.rule,
        record.id,
        rules.offer(item.rule, reason=rules.sentence(item.reason)),
        reads=reads_of(judge.graph, [record.id]),
        facts=item.facts,
        unavailable=(record.id,),
        cost=cost(
            judge.graph,
            read=judge.graph.used(record.volume) if item.rule == rules.O_ZEROS else 0,
            reclaimed=item.gains,
            exact=item.rule not in _IN_PLACE,
        ),
        before=Status.DEGRADED,
        after=Status.OPTIMIZED,
        wait=_late_writer(judge.graph, record) if item.rule == rules.O_LEAKS else None,
    )


def _take_over(graph: Graph, record: Record, item: Degradation) -> Fix:
    by = graph.view.unheld[record.id]
    here = not any(user.host for user in by) and (graph.view.managed or all(user.pid for user in by))
    host = next((f"host {user.host}, on which" for user in by if user.host), "the host on which")
    return fix(
        graph,
        rules.O_UNHELD,
        record.id,
        rules.offer(rules.O_UNHELD, reason=rules.sentence(item.reason)),
        reads=reads_of(graph, [record.id]),
        facts=item.facts,
        before=Status.DEGRADED,
        after=Status.OPTIMIZED,
        wait=None if here else Wait(WaitKind.HOST, "", f"{host} that runs: check and run this fix there"),
    )


def _adopt_size(judge: Judge, record: Record, item: Degradation) -> Fix:
    graph = judge.graph
    assert record.volume is not None
    size = grown_to(record, record.volume, graph.view.facts[record.volume.id])
    return fix(
        graph,
        rules.O_GROWN,
        record.id,
        rules.offer(rules.O_GROWN, reason=rules.sentence(item.reason), size=size),
        reads=reads_of(graph, [record.id]),
        plan={"size": size},
        facts=item.facts,
        unavailable=(record.id,),
        before=Status.DEGRADED,
        after=Status.OPTIMIZED,
    )


def _late_writer(graph: Graph, record: Record) -> Wait | None:
    host = graph.view.late_writers.get(record.volume.id, "") if record.volume is not None else ""
    if not host:
        return None
    return Wait(WaitKind.HOST, host, f"host {host}, which may still write to it: until it is back, or restarted")


def _accept(judge: Judge, record: Record, item: Degradation) -> Fix:
    return fix(
        judge.graph,
        rules.C_LOSSES,
        record.id,
        rules.offer(rules.C_LOSSES, reason=rules.sentence(item.reason)),
        reads=reads_of(judge.graph, [record.id]),
        facts=tuple(f"lost: {length} bytes at {start}" for start, length in record.lost[:20]),
        cost=cost(judge.graph, read=0 if record.mutable else judge.graph.chain_bytes(record), exact=False),
        before=Status.DEGRADED,
        after=Status.OPTIMIZED,
    )
