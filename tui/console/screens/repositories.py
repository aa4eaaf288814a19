"""The list of repositories to choose from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tui.console.formats import share
from tui.console.headers import counts_of
from tui.console.lines import Cell, Span
from tui.console.screens.choose import Choice

if TYPE_CHECKING:
    from tui.console.app import ConsoleApp


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
            srm = f"   SRM: {view.srm}" if view.srm not in ("", "-") else ""
            low = " LOW" if view.low_space else ""
            about = (*app.signs.counts(counts_of(view)), Span(f"{free}{low}{srm}   {view.format}"))
        here = name == app.site.current
        found.append(Choice(name, Span(name, "title" if here else "text"), about, view.place if view else ""))
    return found
