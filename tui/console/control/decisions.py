"""Saving what the operator decides: one change after the other, each on disk before it is shown."""

from __future__ import annotations

from collections.abc import Callable

from tui.console.shell import Shell
from tui.view.plan import Plan
from tui.work import plans
from tui.work.decisions import DecisionStore


def decide(shell: Shell, change: Callable[[DecisionStore], object], done: Callable[[], None] = lambda: None) -> None:
    """Make a change in its turn, then call ``done``, also when it failed. A text that ``change`` returns is told.

    Nothing is done where there is nothing to decide about: in a replay and without a repository."""
    store = shell.site.decision_store
    if store is None:
        return

    def finish(value: object, error: BaseException | None) -> None:
        if error is not None:
            shell.failed("That could not be saved", error)
        elif isinstance(value, str):
            shell.tell(value)
        shell.site.poll()
        shell.refresh_pages()
        done()

    shell.jobs.in_turn(lambda: change(store), finish)


def save_plan(shell: Shell, plan: Plan) -> None:
    """Keep a plan that has steps, so that a command can run the same."""
    notes = shell.site.notes

    def finish(value: object, error: BaseException | None) -> None:
        del value
        if error is not None:
            shell.failed("The plan could not be saved", error)

    if plan.steps:
        shell.jobs.in_turn(lambda: plans.save(notes, plan), finish)
