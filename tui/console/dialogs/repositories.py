"""The list of repositories to choose from, with the manager of each that has one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from tui.console.acts import Act
from tui.console.dialogs.choose import Choice, Choose
from tui.console.draw.formats import share
from tui.console.draw.lines import Cell, Span
from tui.console.shell import Shell
from tui.console.widgets.headers import counts_of, srm_of
from tui.view.snapshot import RepositoryView


class Repositories(Choose):
    """Dismissed with the name of a repository to look at, or with None; ``manage`` changes the manager of one."""

    def __init__(self, shell: Shell, manage: Callable[[RepositoryView], None]) -> None:
        super().__init__("Repositories", lambda: choices(shell), left=16)
        self._manage = manage

    def why_not(self, act: Act) -> str:
        if act.name != "manage" or not self.is_mounted:
            return ""
        view = self.shell.site.view_named(self.chosen) if self.chosen else None
        return self.shell.site.why_no_manager(view) if view is not None else "no repository is under the cursor"

    def act_manage(self) -> None:
        view = self.shell.site.view_named(self.chosen)
        assert view is not None
        self.dismiss(None)
        self._manage(view)

    ACTS: ClassVar[Sequence[Act]] = (
        Act("take", "enter", "Look at it", "Look at the repository under the cursor.", Choose.act_take),
        Act("manage", "ctrl+s", "SRM", "Become its manager (SRM), or give the role up. Asks first.", act_manage),
        Act("close", "escape", "Close", "Leave everything as it is.", Choose.act_close),
    )  # fmt: skip


def choices(shell: Shell) -> list[Choice]:
    """Each repository with what is known of it."""
    found = []
    for name in shell.site.names():
        view = shell.site.view_named(name)
        about: Cell
        if view is None or not view.known:
            about = Span(view.problem if view is not None and view.problem else "not looked at yet", "quiet")
        else:
            free = f"   free {share(view.free_bytes, view.total_bytes)}"
            srm = f"   SRM: {srm_of(view)}" if view.srm not in ("", "-") else ""
            low = " LOW" if view.low_space else ""
            about = (*shell.signs.counts(counts_of(view)), Span(f"{free}{low}{srm}   {view.format}"))
        here = name == shell.site.current
        found.append(Choice(name, Span(name, "title" if here else "text"), about, view.place if view else ""))
    return found
