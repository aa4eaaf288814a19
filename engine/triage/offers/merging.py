"""Merge: hidden data with exactly one dependant becomes one with it.

Direction is a planned choice. *Down* writes what the upper layer has into the lower volume and
gives that volume to the upper image: right when the upper layer is the smaller one. *Up* pulls
what the lower layer alone has into the upper volume: right when the lower one is smaller, and
the only way when the upper image has dependants whose headers name its format. *Fresh* copies both
into a new volume: where hosts share a repository and a late write of one of them would hit the volume
that the image has. Of a disk whose machine can be spoken to it is *up*: the machine does that while it runs.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.data.amounts import human
from engine.data.model import Fix, Risk, Status, Strategy, VolumeFormat
from engine.data.records import Record
from engine.tags.chains import grown_to
from engine.triage import rules
from engine.triage.health import Judge
from engine.triage.propose import cost, fix, reads_of
from engine.triage.propose import room as room_for
from engine.triage.view import Graph


def of_tag(judge: Judge, tag: str) -> Iterator[Fix]:
    """Offer the merge of ``tag`` (weak) into its only dependant, if that can be read."""
    graph = judge.graph
    below = graph.record(tag)
    if below is None or below.strong or below.purging or not below.whole or below.volume is None:
        return
    children = graph.children(tag)
    if len(children) != 1:
        return
    above = graph.record(children[0])
    if above is None or above.volume is None or not above.whole or above.purging:
        return
    if above.volume.parent != tag or not _free_to_merge(graph, below, above):
        return
    if judge.health(above.id).status is not Status.OPTIMIZED:
        return  # both are mended first, or the upper one is removed
    if not above.strong and not graph.children(above.id):
        return  # the upper one is about to be cleaned away itself
    if not _to_be_settled(graph, below, above):
        yield _fix(graph, below, above, direction(graph, below, above))


def _to_be_settled(graph: Graph, below: Record, above: Record) -> bool:
    """Return whether something comes first: what others have written, the size of the upper one, or a copy."""
    assert above.volume is not None
    if graph.written(below) is not None or graph.written(above) is not None:
        return True
    facts = graph.view.facts.get(above.volume.id)
    if facts is not None and above.mutable and grown_to(above, above.volume, facts):
        return True
    keeper = graph.view.keepers.get(below.id)
    return keeper is not None and keeper.sure and not above.merges(below.id)


def _free_to_merge(graph: Graph, below: Record, above: Record) -> bool:
    """Return whether neither is in a merge with a third tag. That merge is offered itself, or is given up, first: until
    then the lower volume of it may hold data of both, and only the upper one may read through it. A merge begins when
    its upper record names it; what was reserved for one that never began holds nothing up."""
    if below.merging or below.absorber not in ("", above.id):
        return False
    absorber = graph.record(above.absorber) if above.absorber else None
    if absorber is not None and absorber.merges(above.id):
        return False
    return above.operation is None or above.merges(below.id)


def direction(graph: Graph, below: Record, above: Record) -> str:
    """Return the way of a merge: "down", "up" or "fresh"; a merge that was begun goes on in the direction it has."""
    assert below.volume is not None and above.volume is not None
    if above.operation is not None and above.operation.verb == "merge":
        return above.operation.direction
    if above.id in graph.view.monitored:
        return "up"
    if graph.view.shared:
        return "fresh"
    if graph.children(above.id) and below.volume.format is not above.volume.format:
        return "up"
    if above.strategy is Strategy.PERFORMANCE and not below.volume.parent and below.volume.format is VolumeFormat.RAW:
        return "down"
    return "down" if graph.data(above.volume) <= graph.data(below.volume) else "up"


def _fix(graph: Graph, below: Record, above: Record, way: str) -> Fix:
    assert below.volume is not None and above.volume is not None
    upper, lower = graph.data(above.volume), graph.data(below.volume)
    moved = {"down": upper, "up": lower}.get(way, upper + lower)
    share = " (goes on where it was interrupted)" if above.operation is not None else ""
    by = " by its machine, while it runs" if above.id in graph.view.monitored else ""
    freed = graph.used(below.volume if way == "up" else above.volume)
    keeper = graph.view.keepers.get(below.id)
    risk = {"down": Risk.REWRITES_BASE, "up": Risk.IRREVERSIBLE}.get(way, Risk.REVERSIBLE)
    return fix(
        graph,
        rules.M_CHAIN,
        below.id,
        rules.offer(rules.M_CHAIN, image=above.id, unfinished=share),
        reads=reads_of(graph, [below.id, above.id], [below.id]),
        plan={"above": above.id, "direction": way},
        facts=(f"{way}: {human(moved)} are moved{by}", *([keeper.fact] if keeper else [])),
        images=(above.id, below.id),
        unavailable=(above.id,),
        cost=cost(
            graph,
            read=moved,
            write=moved,
            extra=_room(graph, below, above, way, moved),
            reclaimed=0 if way == "up" else freed,
            later={"down": 0, "up": freed}.get(way, graph.used(below.volume)),
            exact=False,
        ),
        risk=Risk.LOSES_DATA if keeper and not above.merges(below.id) else risk,
        before="optimized",
        after="optimized",
    )


def _room(graph: Graph, below: Record, above: Record, way: str, moved: int) -> int:
    """Return the bytes of free space that the storage must have for a merge."""
    assert above.volume is not None and below.volume is not None
    if way == "fresh":
        begun = above.operation.attempt if above.operation else None
        return room_for(graph, above.size, above.volume.format, begun) or moved
    grown = above.volume if way == "up" else below.volume
    more = room_for(graph, above.size, grown.format, grown)
    return max(0, min(moved, above.size + (1 << 20) - graph.used(grown))) if more is None else more
