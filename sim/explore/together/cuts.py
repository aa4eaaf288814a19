"""The power is cut while machines run: of the states that may be left one of those that are alike to the engine."""

from __future__ import annotations

from collections.abc import Iterator

from sim.explore.search.cuts import cuts, pending_count
from sim.explore.search.explorer import MAX_PENDING
from sim.hosts.world import World


def worlds_after(world: World) -> Iterator[World]:
    """Yield a world for each, in which nobody runs; that in which nothing is lost first."""
    count = pending_count(world.storage)
    assert count <= MAX_PENDING, f"{count} operations are not durable: {world.storage.pending()}"
    told_apart, seen = set[int](), set[bytes]()
    for cut in cuts(world.storage, world.profile):
        if cut.key not in told_apart:
            told_apart.add(cut.key)
            if (key := cut.canonical()) not in seen:
                seen.add(key)
                yield world.fork(cut.build())
