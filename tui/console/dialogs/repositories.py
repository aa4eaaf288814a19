"""The list of repositories to choose from, with the manager of each that has one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from tui.console.acts import Act
from tui.console.dialogs.choose import Choice, Choose
from tui.console.draw.formats import share
from tui.console.draw.headers import counts_of, srm_of
from tui.console.draw.lines import Cell, Span

if TYPE_CHECKING:
    from tui.console.app import ConsoleApp


class Repositories(Choose):
    """Dismissed with the name of a repository to look at."""

    ACTS: ClassVar[Sequence[Act]] = (
        Act("take", "enter", "Look at it", "Look at the repository under the cursor."),
        Act("manage", "ctrl+s", "SRM", "Become its manager (SRM), or give the role up. Asks first."),
        Act("close", "escape", "Close", "Leave everything as it is."),
    )

    def __init__(self, app: ConsoleApp) -> None:
        super().__init__("Repositories", lambda: choices(app), left=16)

    def why_not(self, act: Act) -> str:
        """What the act needs."""
        if act.name != "manage" or not self.is_mounted:
            return ""
        view = self.console.site.view_named(self.chosen) if self.chosen else None
        return self.console.why_no_manager(view) if view is not None else "no repository is under the cursor"

    def act_manage(self) -> None:
        """Take the role of its manager, or give it up."""
        view = self.console.site.view_named(self.chosen)
        assert view is not None
        self.dismiss(None)
        self.console.manage(view)


def choices(app: ConsoleApp) -> list[Choice]:
    """Each repository with what is known of it."""
    found = []
    for name in app.site.names():
        view = app.site.view_named(name)
        about: Cell
        if view is None or not view.known:
            about = Span(view.problem if view is not None and view.problem else "not looked at yet", "quiet")
        else:
            free = f"   free {share(view.free_bytes, view.total_bytes)}"
            srm = f"   SRM: {srm_of(view)}" if view.srm not in ("", "-") else ""
            low = " LOW" if view.low_space else ""
            about = (*app.signs.counts(counts_of(view)), Span(f"{free}{low}{srm}   {view.format}"))
        here = name == app.site.current
        found.append(Choice(name, Span(name, "title" if here else "text"), about, view.place if view else ""))
    return found
