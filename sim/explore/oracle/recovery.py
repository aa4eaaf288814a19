"""The liveness phase: faults have stopped, one host checks and fixes until nothing is left to do."""

from __future__ import annotations

from collections.abc import Sequence

from engine.errors import DiskwrightError
from sim.explore.oracle.invariants import Rank, observe
from sim.explore.oracle.reference import Model
from sim.hosts.world import World

MOST_FIXES = 80


def recover(world: World, models: Sequence[Model], host: str = "rescuer", strangers: bool = False) -> list[str]:
    """Fix everything and compare at every step; what is wrong. Nothing else may run."""
    if world.sharing:
        world.manage(host)
    engine = world.host(host)
    rank: Rank | None = None
    for _ in range(MOST_FIXES):
        found = observe(world, engine, models, strangers)
        problems = list(found.problems)
        if rank is not None and found.rank >= rank:
            problems.append(f"I10 a fix brought nothing nearer to its end: rank {rank} then {found.rank}")
        if problems or not found.fixes:
            return problems
        models, rank = found.models, found.rank
        repo, fix = found.fixes[0]
        try:
            engine.run_fix_here(repo, fix)
        except DiskwrightError as error:
            return [f"I10 the fix {fix.rule} of {fix.target} fails: {error}"]
    return [f"I10 after {MOST_FIXES} fixes there is no end"]
