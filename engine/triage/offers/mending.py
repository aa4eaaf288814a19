"""Mend: the way back for an image that is broken, or whose operation was interrupted."""

from __future__ import annotations

from collections.abc import Iterator

from engine.data.amounts import human
from engine.data.digests import DIGEST_BYTES, chunk_count
from engine.data.model import Fix, FixCost, Risk, Status, Strategy, VolumeFormat, Wait, WaitKind
from engine.data.records import Record
from engine.formats.base import Litter
from engine.triage import rules
from engine.triage.health import Health, Judge
from engine.triage.propose import cost, fix, makes, reads_of, removes, room
from engine.triage.recover import above, recovery
from engine.triage.shape import Need
from engine.triage.view import Graph, Replica, unseen

_DAMAGED = frozenset(
    rule.code
    for rule in rules.BY_CODE.values()
    if rule.status is Status.BROKEN and rules.B_REPLICA in rule.mended_by and rule.type is None
)
_DEEP = frozenset(rule.code for rule in rules.BY_CODE.values() if rule.deep is Need.ALWAYS)


def mend(judge: Judge, tag: str) -> Iterator[Fix]:
    """The way back for an image whose own data or operation is the trouble."""
    health = judge.health(tag)
    record = judge.graph.record(tag)
    if record is None:
        yield from _record(judge.graph, tag, health)
    if health.culprit != tag or record is None or health.rule == rules.B_BASE:
        return
    if health.status is not Status.BROKEN and health.rule != rules.U_READ:
        return
    if not record.strong and not judge.graph.children(tag):
        return
    if health.rule == rules.B_PURGING:
        yield _take_back(judge.graph, record)
    elif health.rule in rules.UNFINISHED:
        yield _resume(judge, record, health)
    elif health.rule == rules.B_OLDER:
        yield from _older(judge.graph, record, health)
    elif health.rule == rules.B_GONE and (item := _quarantined(judge.graph, record)) is not None:
        yield _put_back(judge.graph, record, health, item.name)
    elif health.rule in _DAMAGED:
        yield from _damage(judge, record, health)
    elif tag in judge.graph.view.depths.lost:
        # Not proven to be damaged: what the operator may choose overwrites nothing and keeps the volume.
        yield from _damage(judge, record, health)


def of_repository(graph: Graph) -> Iterator[Fix]:
    """The way back for parts of the repository that are missing; and to those that it never had."""
    for part in graph.view.scan.missing:
        if not part.held:
            yield from _never_had(graph, part.name)
            continue
        code = rules.B_LOCKS if part.held == "leases" else rules.B_PART
        hidden = unseen(graph.view.scan) if code == rules.B_LOCKS else ""
        yield fix(
            graph,
            code,
            "",
            rules.offer(code, part.held, name=part.name),
            reads=((f"part:{part.name}", "missing"),),
            plan={"name": part.name},
            facts=(f"{part.name}: missing or damaged",),
            risk=Risk.LOSES_DATA if part.held == "volumes" else Risk.REVERSIBLE,
            wait=Wait(WaitKind.DATA, hidden, f"the data in {hidden}, which cannot be seen now") if hidden else None,
        )


def _never_had(graph: Graph, name: str) -> Iterator[Fix]:
    scan = graph.view.scan
    bad = next((tag for tag, entry in scan.tags.items() if entry.problem), "")
    text = f"the record of image {bad}, which cannot be understood now: what it needs is not known"
    if not scan.unlisted:
        yield fix(
            graph,
            rules.O_USES,
            "",
            rules.offer(rules.O_USES),
            reads=((f"part:{name}", "never made"),),
            plan={"name": name},
            risk=Risk.IRREVERSIBLE,
            wait=Wait(WaitKind.RECORD, bad, text) if bad else None,
        )


def _record(graph: Graph, tag: str, health: Health) -> Iterator[Fix]:
    """The way back for an image whose record is damaged."""
    found = recovery(graph, tag)
    if found is None:
        return
    where = found.replica.repo_id if found.replica is not None else ""
    entry = graph.entry(tag)
    gone = entry is not None and entry.gone  # it may be put back, and then it would not count any more
    text = f"the record of image {found.unsure}, which cannot be understood now and may have its volume"
    yield fix(
        graph,
        rules.B_RECORD,
        tag,
        rules.offer(rules.B_RECORD, found.witness, reason=rules.sentence(health.reason), where=where),
        reads=reads_of(graph, [tag], [tag]),
        plan={"witness": found.witness},
        facts=(*health.facts, *found.facts),
        before=Status.BROKEN,
        after=Status.OPTIMIZED if found.record is not None and found.record.whole else Status.BROKEN,
        risk=Risk.IRREVERSIBLE if gone else Risk.REVERSIBLE,
        wait=Wait(WaitKind.RECORD, found.unsure, text) if found.unsure else None,
    )


def _older(graph: Graph, record: Record, health: Health) -> Iterator[Fix]:
    found = above(graph, record)
    if found is None or found.volume is None:
        return
    yield fix(
        graph,
        rules.B_OLDER,
        record.id,
        rules.offer(rules.B_OLDER, reason=rules.sentence(health.reason)),
        reads=reads_of(graph, [record.id, found.volume.parent]),
        plan={"volume": found.volume.id},
        facts=(*health.facts, f"volume {found.volume.id}.{found.volume.format}"),
        before=Status.BROKEN,
        after=Status.OPTIMIZED,
    )


def _quarantined(graph: Graph, record: Record) -> Litter | None:
    return graph.quarantined(record.volume) if record.volume is not None else None


def _put_back(graph: Graph, record: Record, health: Health, name: str) -> Fix:
    return fix(
        graph,
        rules.B_LOST,
        record.id,
        rules.offer(rules.B_LOST, reason=rules.sentence(health.reason), name=name),
        reads=reads_of(graph, [record.id]),
        facts=health.facts,
        before=Status.BROKEN,
        after=Status.OPTIMIZED,
        volumes=True,
    )


def _take_back(graph: Graph, record: Record) -> Fix:
    whose = next(iter(graph.children(record.id)), "a user")
    if record.destroyed:
        case, after = "goes on", "gone"
    else:
        case, after = "taken back", "removed"
    return fix(
        graph,
        rules.B_PURGING,
        record.id,
        rules.offer(rules.B_PURGING, case, whose=whose),
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
    pending = graph.view.pending.get(record.id, operation.data_bytes or None)
    if operation.verb == "adopt" or (operation.verb == "create_disk" and not operation.source):
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
    if extra is None and bytes_left and operation.digest and not graph.view.managed:
        extra = written + chunk_count(record.size) * DIGEST_BYTES  # digest lists lie beside the data
    goes_on = f"; it goes on at {human(cursor)} of {human(record.size)}" if cursor else ""
    return fix(
        graph,
        health.rule,
        record.id,
        rules.offer(health.rule, reason=rules.sentence(health.reason), cursor=goes_on),
        reads=reads_of(graph, [record.id]),
        facts=health.facts,
        cost=cost(graph, read=bytes_left, write=written, extra=extra, exact=exact),
        before=Status.BROKEN,
        after=_after(record),
        wait=graph.view.waits.get(record.id),
        volumes=not operation.fills or makes(graph, record, cursor),
    )


def _after(record: Record) -> str:
    operation = record.operation
    assert operation is not None
    if operation.base and (record.strategy is Strategy.PERFORMANCE or operation.verb == "adopt"):
        return Status.DEGRADED  # what is adopted has a header that names the base as it was called
    return Status.OPTIMIZED


def _damage(judge: Judge, record: Record, health: Health) -> Iterator[Fix]:
    graph = judge.graph
    reads = reads_of(graph, [record.id])
    deep = health.rule in _DEEP
    replica = usable_replica(graph, record)
    why = rules.sentence(health.reason)
    if replica is not None:
        yield from_replica(graph, record, replica, why, facts=health.facts, before=health.status, deep=deep)
    elif _salvageable(judge, record, health):
        yield fix(
            graph,
            rules.B_SALVAGE,
            record.id,
            rules.offer(rules.B_SALVAGE, reason=why),
            reads=reads,
            facts=(*health.facts, *_lost_facts(graph, record)),
            cost=_copy_cost(graph, record),
            before=health.status,
            after=Status.DEGRADED,
            deep=deep,
        )
    elif not record.mutable and health.status is Status.BROKEN:
        yield fix(
            graph,
            rules.B_REPLICA,
            record.id,
            rules.offer(rules.B_REPLICA, "wanted", reason=why),
            reads=reads,
            facts=health.facts,
            cost=FixCost(),
            before=Status.BROKEN,
            after=Status.OPTIMIZED,
            wait=Wait(WaitKind.REPLICA, record.id, f"a connected repository that has snapshot {record.id} intact"),
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
    if facts is None or not facts.present or health.rule == rules.B_GONE:
        return False
    if health.rule == rules.B_DIGEST and record.id not in judge.graph.view.depths.lost:
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


def from_replica(
    graph: Graph, record: Record, replica: Replica, why: str, *, facts: tuple[str, ...], before: str, deep: bool = False
) -> Fix:
    """Offer to bring the data of a snapshot in from ``replica``."""
    return fix(
        graph,
        rules.B_REPLICA,
        record.id,
        rules.offer(rules.B_REPLICA, "found", reason=why, where=replica.repo_id),
        reads=reads_of(graph, [record.id]),
        plan={"source": replica.repository},
        facts=facts,
        cost=_copy_cost(graph, record),
        before=before,
        after=Status.OPTIMIZED,
        deep=deep,
        volumes=_replaces(graph, record),
    )


def _replaces(graph: Graph, record: Record) -> bool:
    """Whether bringing the data of a replica in makes a volume, or removes one."""
    operation = record.operation
    begun = operation is not None and operation.verb == "restore_data"
    return not begun or makes(graph, record, graph.cursor(record)) or removes(graph, record.scrap)
