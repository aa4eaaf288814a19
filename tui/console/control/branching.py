"""A live simulation that begins at a step of a replay: run a fix in it, or kill one, and look what comes of it."""

from __future__ import annotations

import random
from collections.abc import Callable

from tui.console.dialogs.notice import Notice
from tui.console.shell import Shell, Where
from tui.training.branch import Branch, Outcome, branch
from tui.view.fixes import FixRow
from tui.view.snapshot import RepositoryView

_LAST_EFFECT = 40
"""A fix is killed before one of so many first effects; one that has fewer is done before that."""


def begin(shell: Shell) -> None:
    """Play the scenario again up to the step that is shown, beside the console, then look at that world."""
    replay, step = shell.site.replay, shell.site.step
    assert replay is not None

    def call() -> tuple[Branch, dict[str, RepositoryView]]:
        made = branch(replay, step)
        return made, _look(made)

    def done(value: tuple[Branch, dict[str, RepositoryView]]) -> None:
        shell.site.begin_branch(*value)
        shell.show(Where("triage"))
        shell.refresh_pages()
        lines = [
            f"This is a simulation, {value[0].origin}. Nothing real is changed.",
            "r runs the fix under the cursor in it, ! kills it at a random write; : and then power cuts the power.",
            "esc goes back to the replay.",
        ]
        shell.open(Notice("A live simulation", lines))

    shell.do("branch", call, done, "The simulation could not begin", "Playing the scenario up to this step.")


def run(shell: Shell, row: FixRow) -> None:
    """Run a fix in the simulation."""
    made, repo = shell.site.branch, shell.site.current
    assert made is not None
    host = made.hosts[0]
    _simulate(shell, made, lambda: made.run(host, repo, row))


def crash(shell: Shell, row: FixRow) -> None:
    """Run a fix in the simulation and kill it."""
    made, repo = shell.site.branch, shell.site.current
    assert made is not None
    host, effect = made.hosts[0], random.randint(1, _LAST_EFFECT)
    _simulate(shell, made, lambda: made.crash(host, repo, row, effect))


def power_cut(shell: Shell) -> None:
    """Cut the power of the simulation: everything dies, what was not durable is lost."""
    made = shell.site.branch
    assert made is not None
    _simulate(shell, made, made.power_cut)


def _simulate(shell: Shell, made: Branch, act: Callable[[], Outcome]) -> None:
    def call() -> tuple[Outcome, dict[str, RepositoryView]]:
        return act(), _look(made)

    def done(value: tuple[Outcome, dict[str, RepositoryView]]) -> None:
        outcome, views = value
        shell.site.branch_views = views
        shell.refresh_pages()
        shell.open(Notice(f"Simulated: {outcome.how}", [outcome.text]))

    shell.do("branch", call, done, "That could not be simulated")


def _look(made: Branch) -> dict[str, RepositoryView]:
    """Read in the thread that acted: drawing must not simulate anything."""
    return {name: made.view(name) for name in made.repositories}
