"""The pane of repositories, where there is room for three columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tui.console.formats import share
from tui.console.headers import counts_of
from tui.console.lines import Line, Span
from tui.console.widgets.base import console, set_title
from tui.console.widgets.pane import Pane

if TYPE_CHECKING:
    from tui.console.app import ConsoleApp

_LINES_EACH = 4


class Repos(Pane):
    """Name, counts and free space of each; a click chooses."""

    def __init__(self) -> None:
        super().__init__("repos")
        self.add_class("panel")
        self.can_focus = False
        self._names: list[str] = []

    def fill(self, app: ConsoleApp) -> None:
        """Write what is known of each."""
        site = app.site
        set_title(self, "Repos")
        self._names = site.names()
        lines: list[Line] = []
        for name in self._names:
            lines += self._about(app, name)
        self.show(lines)

    def _about(self, app: ConsoleApp, name: str) -> list[Line]:
        site = app.site
        view = site.view if name == site.current else site.view_named(name)
        here = name == site.current
        title = (Span(">" if here else " ", "key"), Span(f" {name}", "title" if here else "text"))
        if view is None or not view.known:
            told = Span("  lost", "broken") if view is not None and view.problem else Span("  not scanned", "quiet")
            return [title, (told,), (), ()]
        counts = {key: value for key, value in counts_of(view).items() if value and key != "removed"}
        worst = app.signs.counts(counts)[:3] if counts else (Span("empty", "quiet"),)
        free = f"  free {share(view.free_bytes, view.total_bytes)}"
        low = (Span("  LOW", "warning"),) if view.low_space else ()
        return [title, (Span("  "), *worst), (Span(free), *low), ()]

    def on_pane_picked(self, message: Pane.Picked) -> None:
        """A click on any line of a repository chooses it."""
        message.stop()
        index = message.index // _LINES_EACH
        if index < len(self._names):
            console(self).look_at(self._names[index])
