"""Building fixes: identity from what a rule looked at, costs from what the survey measured."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

from engine.data.model import Fix, FixCost, FixType, Risk, VolumeFormat, aligned
from engine.data.records import Record, VolumeRef, canonical
from engine.triage.view import Graph

RESERVE_BYTES = 1 << 20
"""Room left for records and metadata when judging whether a fix fits."""


def reads_of(graph: Graph, tags: Iterable[str] = (), dependants: Iterable[str] = ()) -> tuple[tuple[str, str], ...]:
    """What a rule looked at, as (name, version): generations of tags, and sets of dependants."""
    found = []
    for tag in sorted(set(tags)):
        entry = graph.entry(tag)
        found.append((f"tag:{tag}", f"{entry.generation:x}" if entry else "-"))
    found += [(f"dependants:{tag}", ",".join(graph.children(tag))) for tag in sorted(set(dependants))]
    return tuple(found)


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
    rate = graph.view.throughput
    return FixCost(
        read_bytes=read,
        write_bytes=write,
        peak_extra_bytes=peak,
        fits=peak == 0 or peak + RESERVE_BYTES <= graph.view.free_bytes,
        reclaimed_bytes=reclaimed,
        reclaimed_later_bytes=later,
        exact=exact,
        eta_s=read / rate if rate and read else None,
    )


def removes(graph: Graph, volumes: Iterable[VolumeRef]) -> bool:
    """Whether one of them is there to be removed, because no other tag names it."""
    return any(graph.present(volume) and len(set(graph.namers[volume.id])) == 1 for volume in volumes)


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
    type: FixType,
    rule: str,
    target: str,
    why: str,
    *,
    reads: tuple[tuple[str, str], ...],
    plan: dict[str, Any] | None = None,
    facts: tuple[str, ...] = (),
    images: tuple[str, ...] = (),
    unavailable: tuple[str, ...] = (),
    cost: FixCost = FixCost(),  # noqa: B008 - immutable
    risk: Risk = Risk.REVERSIBLE,
    before: str = "",
    after: str = "",
    waits_for: str = "",
    deep: bool = False,
    volumes: bool = False,
) -> Fix:
    """A fix with its identity. ``volumes``: to execute it volumes are made, removed, renamed or resized."""
    plan = plan or {}
    if not waits_for and not cost.fits:
        waits_for = f"{cost.peak_extra_bytes} bytes of free space"
    return Fix(
        id=identity(graph.view.repository, rule, target, reads, plan),
        type=type,
        rule=rule,
        target=target,
        repository=graph.view.repository,
        reads=reads,
        plan=plan,
        why=why,
        facts=facts,
        images=images or ((target,) if target else ()),
        unavailable=unavailable,
        cost=cost,
        risk=risk,
        status_before=before,
        status_after=after,
        needs_srm=graph.view.managed and (volumes or not graph.view.shared),
        waits_for=waits_for,
        deep=deep,
    )
