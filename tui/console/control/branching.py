"""A live simulation that begins at a step of a replay: run a fix in it, or kill one, and look what comes of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from tui.console.dialogs.message import Message
from tui.training.branch import Branch, Happened, branch
from tui.view.fixes import FixRow
from tui.view.snapshot import RepositoryView

if TYPE_CHECKING:
    from tui.console.app import ConsoleApp

_LAST_EFFECT = 40
"""A fix is killed before one of so many first effects; one that has fewer is done before that."""


def begin(app: ConsoleApp) -> None:
    """Play the scenario again up to the step that is shown, beside the console, then look at that world."""
    replay, step = app.site.replay, app.site.step
    assert replay is not None

    def call() -> tuple[Branch, dict[str, RepositoryView]]:
        made = branch(replay, step)
        return made, _look(made)

    def done(value: tuple[Branch, dict[str, RepositoryView]]) -> None:
        app.site.begin_branch(*value)
        app.show_page("triage")
        app.refresh_pages()
        told = [
            f"This is a simulation, {value[0].origin}. Nothing real is changed.",
            "r runs the fix under the cursor in it, ! kills it at a random write; : and then power cuts the power.",
            "esc goes back to the replay.",
        ]
        app.push_screen(Message("A live simulation", told))

    app.do("branch", call, done, "The simulation could not begin", "Playing the scenario up to this step.")


def run(app: ConsoleApp, row: FixRow) -> None:
    """Run a fix in the simulation."""
    made, repo = app.site.branch, app.site.current
    assert made is not None
    host = made.hosts[0]
    _do(app, made, lambda: made.run(host, repo, row))


def crash(app: ConsoleApp, row: FixRow) -> None:
    """Run a fix in the simulation and kill it."""
    made, repo = app.site.branch, app.site.current
    assert made is not None
    host, effect = made.hosts[0], random.randint(1, _LAST_EFFECT)
    _do(app, made, lambda: made.crash(host, repo, row, effect))


def power_cut(app: ConsoleApp) -> None:
    """Everything in the simulation dies; what was not durable is lost."""
    made = app.site.branch
    assert made is not None
    _do(app, made, made.power_cut)


def _do(app: ConsoleApp, made: Branch, act: Callable[[], Happened]) -> None:
    def call() -> tuple[Happened, dict[str, RepositoryView]]:
        return act(), _look(made)

    def done(value: tuple[Happened, dict[str, RepositoryView]]) -> None:
        happened, views = value
        app.site.branch_views = views
        app.refresh_pages()
        app.push_screen(Message(f"Simulated: {happened.how}", [happened.text]))

    app.do("branch", call, done, "That could not be simulated")


def _look(made: Branch) -> dict[str, RepositoryView]:
    """Read in the thread that acted: drawing must not simulate anything."""
    return {name: made.view(name) for name in made.repositories}
