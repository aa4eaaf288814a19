"""Crash drill: kill a repair at a random place and see what is left. In a demo only: there is nothing to lose.

The repair runs in a process of its own that gets a real SIGKILL just before one of its effects.
"""

from __future__ import annotations

import os
import random
from typing import NamedTuple

from engine.api import Engine
from engine.errors import DiskwrightError, Refused
from tui.text.amounts import compact
from tui.text.statuses import code_of
from tui.view import live
from tui.view.fixes import FixRow
from tui.view.gather import gather
from tui.view.snapshot import HostOperation, RepositoryView

_LAST_EFFECT = 60
"""Repairs of the demo have about so many effects; one that has fewer is killed earlier at the next try."""
_TRIES = 6


class DrillResult(NamedTuple):
    """What a drill did and what it showed."""

    killed: bool
    """False: the repair was done before it could be killed."""
    effect: int
    """The number of the effect that did not happen any more."""
    lines: tuple[str, ...]
    """What happened, in sentences."""
    key: str
    """Of the fix that goes on with it, "" when nothing is left to do."""


def is_demo(engine: Engine, repo_id: str) -> bool:
    """Whether a connected repository belongs to a demo that ``diskwright demo`` made."""
    from tui.training.demo import DemoFolder, DemoState
    from tui.training.demo_build import FOLDERS

    connection = engine.list_repositories().get(repo_id)
    path = connection.parameters.get("path") if connection else None
    if connection is None or not isinstance(path, str) or os.path.basename(path) not in FOLDERS.values():
        return False
    folder = DemoFolder(os.path.dirname(os.path.realpath(path)))
    try:
        return folder.owns(connection) and folder.look() is DemoState.COMPLETE
    except DiskwrightError:
        return False


def crash_drill(engine: Engine, repo_id: str, row: FixRow, seed: int | None = None) -> DrillResult:
    """Start a fix, kill it at a random effect, and say what that did. Blocks for about a second.

    Refused outside of a demo, and for a fix that cannot run."""
    from sim.hosts.victim import sacrifice

    if not is_demo(engine, repo_id):
        raise Refused(f"{repo_id} is no demo", "Crash drills are for the demo only: diskwright demo makes one")
    if not row.can_run:
        raise Refused(f"{row.what} cannot run now: it waits for {row.waits_for}", "Choose another fix")
    chance = random.Random(seed)
    before = gather(engine, repo_id)
    arguments = {"repo_id": repo_id, "rule": row.rule, "image": row.target}
    last = _LAST_EFFECT
    for _ in range(_TRIES):
        effect = chance.randint(1, last)
        outcome = sacrifice(engine.doors.ids.host_id, engine.state.directory, "run_fix", arguments, {"before": effect})
        if outcome.killed:
            return _explained(engine, repo_id, row, before, effect)
        again = gather(engine, repo_id).fix_row(row.key)
        if again is None:  # it was done: there were fewer effects than that
            name = len(outcome.effects)
            text = f"The repair has only {name} steps on disk and was to be killed before step {effect}: it is done."
            return DrillResult(False, effect, (text, *_states(row, before, gather(engine, repo_id))), "")
        last = max(2, len(outcome.effects))
    raise Refused(f"{row.what} could not be killed", "Choose another fix")


def _explained(engine: Engine, repo_id: str, row: FixRow, before: RepositoryView, effect: int) -> DrillResult:
    after = gather(engine, repo_id)
    saved = live.operation(engine, repo_id, row.target) if row.target else None
    again = after.fix_row(row.key)
    lines = [f"The process of {row.what} got a SIGKILL just before its effect number {effect} on the disk."]
    lines += _states(row, before, after)
    lines.append(_saved(saved))
    if again is not None:
        lines.append(f"Check offers it again: {again.why}.")
        lines.append("Run it on any host: it goes on from what is saved.")
    elif later := [fix for fix in after.fixes_of(row.target) if row.target]:
        lines.append(f"Check offers now: {later[0].type} ({later[0].rule}): {later[0].why}.")
        again = later[0]
    else:
        lines.append("Nothing is left to do: the change that counts was on disk before.")
    return DrillResult(True, effect, tuple(lines), again.key if again else "")


def _states(row: FixRow, before: RepositoryView, after: RepositoryView) -> list[str]:
    was, now = before.image(row.target), after.image(row.target)
    if was is None or now is None:
        return []
    others = [image for image in range(len(after.images)) if _differs(before, after, image) and image != now.number]
    rest = f"{len(others)} other images changed." if others else "No other image changed."
    return [f"{now.label} was {code_of(was.state)} and is {code_of(now.state)}: {now.reason}. {rest}"]


def _differs(before: RepositoryView, after: RepositoryView, index: int) -> bool:
    was = before.images.find(after.images.id(index))
    return was < 0 or before.images.state(was) is not after.images.state(index)


def _saved(saved: HostOperation | None) -> str:
    if saved is None or not saved.stages:
        return "Nothing of it had been saved: it begins at the beginning."
    if saved.percent < 0:
        return f"Saved: stage {saved.stage}/{saved.stages}, {saved.stage_name}. No part of the data counts yet."
    done = saved.size_bytes * saved.percent // 100
    return f"Saved: stage {saved.stage}/{saved.stages}, {saved.stage_name}, {saved.percent} % ({compact(done)})."
