"""Building fixes: identity from what a rule looked at, costs from what the survey measured."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

from engine.data.amounts import human
from engine.data.model import Fix, FixCost, Risk, VolumeFormat, Wait, WaitKind, aligned
from engine.data.records import Record, VolumeRef, canonical
from engine.formats.base import TagEntry
from engine.triage.rules import BY_CODE
from engine.triage.shape import Need
from engine.triage.view import Graph

RESERVE_BYTES = 1 << 20
"""Room left for records and metadata when judging whether a fix that writes data fits, where they are beside the
data."""
_RECORDS_BYTES = 128 << 10
"""What the record and the progress log of any fix take at most, with the blocks of their directories."""


def reads_of(graph: Graph, tags: Iterable[str] = (), dependants: Iterable[str] = ()) -> tuple[tuple[str, str], ...]:
    """What a rule looked at, as (name, version): generations of tags, and sets of dependants."""
    found = []
    for tag in sorted(set(tags)):
        found.append((f"tag:{tag}", version_of(graph.entry(tag))))
    found += [(f"dependants:{tag}", ",".join(graph.children(tag))) for tag in sorted(set(dependants))]
    return tuple(found)


def version_of(entry: TagEntry | None) -> str:
    """Return what a fix remembers of a tag that it has read: equal until anything about the tag changes."""
    return f"{entry.generation:x}" if entry else "-"


def identity(repository: str, rule: str, target: str, reads: tuple[tuple[str, str], ...], plan: dict[str, Any]) -> str:
    """The id of a fix: equal exactly when the same rule fires on the same facts."""
    whole = canonical([1, repository, rule, target, reads, plan])
    return blake2b(whole, digest_size=8).hexdigest()


def cost(
    graph: Graph,
    read: int = 0,
    write: int = 0,
    extra: int | None = None,
    reclaimed: int = 0,
    later: int = 0,
    exact: bool = True,
) -> FixCost:
    """A cost with its estimate of time (only from throughput measured on this host) and whether it fits."""
    peak = write if extra is None else extra
    reserve = 0 if graph.view.managed else RESERVE_BYTES
    rate = graph.view.throughput
    return FixCost(
        read_bytes=read,
        write_bytes=write,
        peak_extra_bytes=peak,
        fits=peak == 0 or peak + reserve <= graph.view.free_bytes,
        reclaimed_bytes=reclaimed,
        reclaimed_later_bytes=later,
        exact=exact,
        eta_s=read / rate if rate and read else None,
    )


def removes(graph: Graph, volumes: Iterable[VolumeRef]) -> bool:
    """Whether one of them is there to be removed, because no other tag names it."""
    return any(graph.present(volume) and len(set(graph.namers(volume.id))) == 1 for volume in volumes)


def makes(graph: Graph, record: Record, cursor: int) -> bool:
    """Whether the volume of an unfinished operation has to be made before it can go on."""
    operation = record.operation
    if operation is None or operation.attempt is None:
        return True
    begun = cursor > 0 or operation.is_made
    return not (begun and graph.present(operation.attempt) and operation.attempt.id not in graph.view.late_writers)


def room(graph: Graph, size: int, format: VolumeFormat, present: VolumeRef | None = None) -> int | None:
    """Bytes that a volume for an image of ``size`` takes from the start, less what ``present`` has already; None
    where it takes only what is written to it."""
    if not graph.view.managed:
        return None
    whole = aligned(size)
    if format is VolumeFormat.QCOW2:
        whole += whole // 1024 + RESERVE_BYTES
    return max(0, whole - graph.used(present))


def fix(  # noqa: PLR0913 - a fix has that many sides; callers name each
    graph: Graph,
    code: str,
    target: str,
    why: str,
    *,
    reads: tuple[tuple[str, str], ...],
    plan: dict[str, Any] | None = None,
    facts: tuple[str, ...] = (),
    images: tuple[str, ...] = (),
    unavailable: tuple[str, ...] = (),
    cost: FixCost = FixCost(),  # noqa: B008 - immutable
    risk: Risk | None = None,
    before: str = "",
    after: str = "",
    wait: Wait | None = None,
    deep: bool = False,
    volumes: bool = False,
) -> Fix:
    """Return a fix of the rule ``code``, with its identity.

    ``volumes``, ``deep``: where the rule needs that only sometimes, whether this fix does. ``risk``: where it is not
    the rule's highest."""
    rule = BY_CODE[code]
    assert rule.type is not None, f"{code} has no fix"
    plan = plan or {}
    images = images or ((target,) if target else ())
    wait = wait or _elsewhere(graph, images)
    if not (rule.frees or graph.view.managed) and graph.view.free_bytes < _RECORDS_BYTES:
        cost = cost._replace(fits=False, peak_extra_bytes=max(cost.peak_extra_bytes, _RECORDS_BYTES))
    if wait is None and not cost.fits:
        wait = Wait(WaitKind.ROOM, str(cost.peak_extra_bytes), f"{human(cost.peak_extra_bytes)} of free space")
    assert wait is None or wait.kind in (WaitKind.ROOM, WaitKind.HOST, *rule.waits), f"{code} waits for no {wait.kind}"
    return Fix(
        id=identity(graph.view.repository, code, target, reads, plan),
        type=rule.type,
        rule=code,
        target=target,
        repository=graph.view.repository,
        reads=reads,
        plan=plan,
        why=why,
        facts=facts,
        images=images,
        unavailable=unavailable,
        cost=cost,
        risk=rule.risk if risk is None else risk,
        status_before=before,
        status_after=after,
        needs_srm=graph.view.managed and (_needs(rule.volumes, volumes) or not graph.view.shared),
        wait=wait,
        deep=_needs(rule.deep, deep),
    )


def _elsewhere(graph: Graph, images: Iterable[str]) -> Wait | None:
    """What a fix of these images waits for while another host may use them without a lease."""
    host = next((graph.view.handed_out[tag] for tag in images if tag in graph.view.handed_out), "")
    text = f"host {host}, where a machine may use it whose holder has ended: check there, or stop the machine"
    return Wait(WaitKind.HOST, host, text) if host else None


def _needs(rule: Need, this: bool) -> bool:
    assert not this or rule is not Need.NEVER, "the table of rules says otherwise"
    return rule is Need.ALWAYS or this
