"""The pane of repositories, where there is room for three columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tui.console.draw.formats import share
from tui.console.draw.headers import counts_of, srm_of
from tui.console.draw.lines import Line, Span
from tui.console.widgets.base import console, set_title
from tui.console.widgets.pane import Pane

if TYPE_CHECKING:
    from tui.console.app import ConsoleApp


class Repos(Pane):
    """Name, counts and free space of each; a click chooses."""

    def __init__(self) -> None:
        super().__init__("repos")
        self.add_class("panel")
        self.can_focus = False
        self._owners: list[str] = []
        """Whose each line is."""

    def fill(self, app: ConsoleApp) -> None:
        """Write what is known of each."""
        site = app.site
        set_title(self, "Repos")
        lines: list[Line] = []
        self._owners = []
        for name in site.names():
            lines += self._about(app, name)
            self._owners += [name] * (len(lines) - len(self._owners))
        self.show(lines)

    def _about(self, app: ConsoleApp, name: str) -> list[Line]:
        site = app.site
        view = site.view if name == site.current else site.view_named(name)
        here = name == site.current
        title = (Span(">" if here else " ", "key"), Span(f" {name}", "title" if here else "text"))
        if view is None or not view.known:
            told = Span("  lost", "broken") if view is not None and view.problem else Span("  not scanned", "quiet")
            return [title, (told,), ()]
        counts = {key: value for key, value in counts_of(view).items() if value and key != "removed"}
        worst = app.signs.counts(counts)[:3] if counts else (Span("empty", "quiet"),)
        free = f"  free {share(view.free_bytes, view.total_bytes)}"
        low = (Span("  LOW", "warning"),) if view.low_space else ()
        lines: list[Line] = [title, (Span("  "), *worst), (Span(free), *low)]
        if view.srm not in ("", "-"):
            lines.append((Span(f"  SRM {srm_of(view)}", "text" if view.srm == view.host else "warning"),))
        return [*lines, ()]

    def on_pane_picked(self, message: Pane.Picked) -> None:
        """A click on any line of a repository chooses it."""
        message.stop()
        if message.index < len(self._owners):
            console(self).look_at(self._owners[message.index])
