"""Merge: hidden data with exactly one dependant becomes one with it.

Direction is a planned choice. *Down* writes what the upper layer has into the lower volume and
gives that volume to the upper image: right when the upper layer is the smaller one. *Up* pulls
what the lower layer alone has into the upper volume: right when the lower one is smaller, and
the only way when the upper image has dependants whose headers name its format. *Fresh* copies both
into a new volume: where hosts share a repository and a late write of one of them would hit the volume
that the image has. Of a disk whose machine can be spoken to, and of what is below that alone, it is *up*: the machine
does that while it runs.

A *run* of layers, each the only dependant of the one below it, is merged in one pass. Merged two by two the n - 1 upper
ones of them move log2 n times at best, and n times at worst; in one pass into a fresh volume they move once, and twice
where the lowest layer, which holds more than all of them, stays where it is and takes them in afterwards. So from four
layers on one pass is the cheaper one. It needs room for what it moves beside what is there; where that is not free, and
where volumes take all their room at once, the layers are merged two by two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from engine.data.amounts import human
from engine.data.model import Fix, Risk, Status, Strategy, VolumeFormat
from engine.data.records import Record
from engine.tags.chains import grown_to
from engine.triage import rules
from engine.triage.health import Judge
from engine.triage.propose import cost, fix, reads_of
from engine.triage.propose import room as room_for
from engine.triage.view import Graph

_BY_MACHINE = " by its machine, while it runs; the guest does not stop, and what it writes meanwhile delays nothing"
RUN_LAYERS = 4
"""So many are merged in one pass."""


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
    if above.id in graph.view.monitored and not (above.strong or above.merges(tag)):
        return  # the upper one is merged first: a machine would move the lower one twice
    if not _to_be_settled(graph, below, above):
        yield _in_one_pass(graph, below, above) or _fix(graph, below, above, direction(graph, below, above))


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


def one_of_a_run(record: Record) -> bool:
    """Tell whether the record of a tag lets it be merged with others at once: hidden, whole, and in nothing else."""
    hidden = record.whole and record.volume is not None and not (record.strong or record.purging)
    return hidden and record.operation is None and not (record.absorbed_by or record.lost)


def without_parts(fixes: Iterable[Fix]) -> list[Fix]:
    """Leave out the merges of two layers of which another fix makes one with others."""
    fixes = list(fixes)
    in_runs = {tag for fix in fixes if fix.rule == rules.M_CHAIN and "base" in fix.plan for tag in fix.images}
    return [fix for fix in fixes if fix.rule != rules.M_CHAIN or "base" in fix.plan or in_runs.isdisjoint(fix.images)]


def _in_one_pass(graph: Graph, below: Record, above: Record) -> Fix | None:
    """Return the merge of a run of layers, the uppermost of which is ``below``; None where two by two is better, or
    where that has begun."""
    operation = above.operation
    if graph.view.managed or above.id in graph.view.monitored:
        return None
    if above.absorber:
        return None  # reserved for a merge that never began: no chain goes through it but that one's
    if one_of_a_run(above) and len(graph.children(above.id)) == 1:
        return None  # it is offered for the image above the whole run
    assert below.volume is not None and above.volume is not None
    if operation is not None and operation.base == below.volume.parent:
        return None
    layers = _run(graph, below, above)
    if len(layers) < RUN_LAYERS:
        return None
    lowest = layers[-1]
    assert lowest.volume is not None
    absorbing = _direction_of_a_run(graph, above, layers) == "down"
    base = lowest.id if absorbing else lowest.volume.parent
    volumes = [above.volume, *(layer.volume for layer in layers[: len(layers) - absorbing] if layer.volume)]
    moved, freed = (sum(count(volume) for volume in volumes) for count in (graph.data, graph.used))
    whole = cost(
        graph, read=moved * (1 + absorbing), write=moved * (1 + absorbing), extra=moved, reclaimed=freed, exact=False
    )
    if not whole.fits:
        return None
    way = "down" if absorbing else "fresh"
    unfinished = " (goes on where it was interrupted)" if operation is not None and operation.base == base else ""
    number = len(layers)
    return fix(
        graph,
        rules.M_CHAIN,
        below.id,
        rules.offer(rules.M_CHAIN, "run", image=above.id, number=number, unfinished=unfinished),
        reads=reads_of(graph, [above.id, *(layer.id for layer in layers)], [layer.id for layer in layers]),
        plan={"above": above.id, "direction": way, "base": base},
        facts=(f"one pass instead of {number} merges: {human(moved)} are moved{' twice' if absorbing else ''}",),
        images=(above.id, *(layer.id for layer in layers)),
        unavailable=(above.id,),
        cost=whole,
        risk=Risk.REWRITES_BASE if absorbing else Risk.IRREVERSIBLE,
        before="optimized",
        after="optimized",
    )


def _run(graph: Graph, below: Record, above: Record) -> list[Record]:
    """Return the hidden layers below an image that nothing else needs, from the top down. That the image is about to
    stand on one of them itself, when a merge that was begun has ended, is no other need."""
    found: list[Record] = []
    record: Record | None = below
    user = above.id
    while record is not None and record.volume is not None:  # in no circle, or its data could not be read
        others = [child for child in graph.children(record.id) if child != above.id or user == above.id]
        needed = others != [user] or record.id in graph.view.keepers
        if not one_of_a_run(record) or needed or graph.written(record) is not None:
            break
        found.append(record)
        user = record.id
        record = graph.record(record.volume.parent)
    while found and record is not None and record.absorbed_by:  # for a merge that never began
        record = found.pop()
    return found


def _direction_of_a_run(graph: Graph, above: Record, layers: list[Record]) -> str:
    """Return "down" if the lowest layer stays where it is and takes in the others, which are one by then; "fresh" if it
    becomes one with them in a fresh volume. What was begun goes on."""
    lowest = layers[-1]
    assert lowest.volume is not None and above.volume is not None
    if above.operation is not None and above.operation.base in (lowest.id, lowest.volume.parent):
        return "down" if above.operation.base == lowest.id else "fresh"
    if graph.children(above.id) and lowest.volume.format is not above.volume.format:
        return "fresh"
    if above.strategy is Strategy.PERFORMANCE and not lowest.volume.parent and lowest.volume.format is VolumeFormat.RAW:
        return "down"
    moved = [above.volume, *(layer.volume for layer in layers[:-1] if layer.volume is not None)]
    return "down" if sum(graph.data(volume) for volume in moved) < graph.data(lowest.volume) else "fresh"


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
    by = _BY_MACHINE if above.id in graph.view.monitored else ""
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
