"""Starting the work that a verb has committed: the fix that makes an image whole."""

from __future__ import annotations

from collections.abc import Sequence

from engine.errors import DiskwrightError
from engine.fixes.work import Work
from engine.host import tasks
from engine.host.state import HostState
from engine.survey import survey
from engine.tags import leasing
from engine.tags.attempt import not_begun
from engine.tags.context import Context
from engine.triage.judge import judge
from engine.triage.rules import B_CREATE, UNFINISHED

_SOON_BYTES = 64 * 1024 * 1024
"""So much is quicker written than a process is started."""


def start(context: Context, state: HostState, repo_id: str, image: str, rate: int) -> None:
    """Start the fix that makes one image whole, or run it where that is quicker; nothing where none is offered. It
    moves ``rate`` bytes per second at most."""
    from engine.fixes import run as fixes

    repository = context.repository(repo_id)
    with leasing.take(context.doors, repository, [image]) as leases:
        view = survey.look(context, repository, only=image, mine=True)
        found = [fix for fix in judge(view).fixes if fix.rule in UNFINISHED and fix.target == image]
        if not found:
            return
        cost, work = found[0].cost, fixes.work_of(context, repository, found[0], view)
        if found[0].rule == B_CREATE and not cost.read_bytes and cost.write_bytes <= _SOON_BYTES:
            fixes.execute(context, repository, work)  # quicker than starting a process
        else:
            try:
                tasks.start(context, state, repo_id, [work], leases, rate)
            except DiskwrightError as error:
                not_begun(repository, image, error)
                raise


def start_all(context: Context, state: HostState, repo_id: str, images: Sequence[str]) -> None:
    """Start the fixes that make several images whole, in that order, in one process."""
    offered = {
        fix.target: fix for fix in survey.report(context, context.repository(repo_id)).fixes if fix.rule in UNFINISHED
    }
    wanted = [Work(offered[image]) for image in images if image in offered]
    if wanted:
        tasks.start(context, state, repo_id, wanted, leasing.LeaseSet({}))
