"""Merge: hidden data with exactly one dependant becomes one with it.

Direction is a planned choice. *Down* writes what the upper layer has into the lower volume and
gives that volume to the upper image: right when the upper layer is the smaller one. *Up* pulls
what the lower layer alone has into the upper volume: right when the lower one is smaller, and
the only way when the upper image has dependants whose headers name its format.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.model import Fix, FixType, Risk, Strategy, VolumeFormat
from engine.records import Record
from engine.triage.propose import cost, fix, reads_of
from engine.triage.propose import room as room_for
from engine.triage.view import Graph


def of_tag(graph: Graph, tag: str) -> Iterator[Fix]:
    """The merge of ``tag`` (weak) into its only dependant."""
    below = graph.record(tag)
    if below is None or below.strong or below.purging or not below.whole or below.volume is None:
        return
    children = graph.children(tag)
    if len(children) != 1:
        return
    above = graph.record(children[0])
    if above is None or above.volume is None or not above.whole or above.purging:
        return
    if above.volume.parent != tag or not _free_to_merge(above, tag):
        return
    if not above.strong and not graph.children(above.id):
        return  # the upper one is about to be cleaned away itself
    yield _fix(graph, below, above, direction(graph, below, above))


def _free_to_merge(above: Record, tag: str) -> bool:
    operation = above.operation
    return operation is None or (operation.verb == "merge" and operation.other == tag)


def direction(graph: Graph, below: Record, above: Record) -> str:
    """Which way, "down" or "up"; a merge that was begun goes on in the direction it has."""
    assert below.volume is not None and above.volume is not None
    if above.operation is not None and above.operation.verb == "merge":
        return above.operation.direction
    if graph.children(above.id) and below.volume.format is not above.volume.format:
        return "up"
    if above.strategy is Strategy.PERFORMANCE and not below.volume.parent and below.volume.format is VolumeFormat.RAW:
        return "down"
    return "down" if graph.used(above.volume) <= graph.used(below.volume) else "up"


def _fix(graph: Graph, below: Record, above: Record, way: str) -> Fix:
    moved = graph.used(above.volume if way == "down" else below.volume)
    kept = graph.used(below.volume if way == "down" else above.volume)
    room = max(0, min(moved, above.size + (1 << 20) - kept))
    grown = (below if way == "down" else above).volume
    assert grown is not None
    more = room_for(graph, above.size, grown.format, grown)
    if more is not None:
        room = more
    freed = moved
    operation = above.operation
    share = " (goes on where it was interrupted)" if operation is not None else ""
    return fix(
        graph,
        FixType.MERGE,
        "M-CHAIN",
        below.id,
        f"Hidden data below image {above.id} has no other dependant and can become one with it{share}",
        reads=reads_of(graph, [below.id, above.id], [below.id]),
        plan={"above": above.id, "direction": way},
        facts=(f"{way}: {moved} bytes are moved",),
        images=(above.id, below.id),
        unavailable=(above.id,),
        cost=cost(
            graph,
            read=moved,
            write=moved,
            extra=room,
            reclaimed=freed if way == "down" else 0,
            later=freed if way == "up" else 0,
            exact=False,
        ),
        risk=Risk.REWRITES_BASE if way == "down" else Risk.IRREVERSIBLE,
        before="optimized",
        after="optimized",
    )
