"""An operator who takes what check offers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from engine.api import Engine
from engine.data.model import Fix, Risk
from engine.errors import DiskwrightError

Offer = tuple[str, Fix]
"""Of a repository."""


def offered(engine: Engine, repo_id: str = "", deep: bool = False, losing: bool = True) -> list[Offer]:
    """Return what check offers in one repository, or in all, that can run now; ``losing``: also what loses data."""
    return [
        (repo, fix)
        for repo in ([repo_id] if repo_id else engine.list_repositories())
        for fix in engine.check_storage_repository(repo, {"deep": deep})
        if not fix.waits_for and (losing or fix.risk is not Risk.LOSES_DATA)
    ]


def run_each_once(engine: Engine, look: Callable[[], list[Offer]], most: int) -> list[Offer]:
    """Run the first of what ``look`` returns, and look again, until it has nothing that was not tried, or ``most``
    were. Who is refused goes on with the next. Return what was done."""
    tried: set[tuple[str, str, str]] = set()
    done = []
    for _ in range(most):
        fresh = [(repo, fix) for repo, fix in look() if (repo, fix.rule, fix.target) not in tried]
        if not fresh:
            break
        repo, fix = fresh[0]
        tried.add((repo, fix.rule, fix.target))
        with contextlib.suppress(DiskwrightError):
            engine.run_fix_here(repo, fix)
            done.append((repo, fix))
    return done
