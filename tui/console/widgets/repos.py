"""The pane of repositories, where there is room for three columns."""

from __future__ import annotations

from textual.message import Message

from tui.console.draw.formats import share
from tui.console.draw.lines import Line, Span
from tui.console.site import Site
from tui.console.widgets.base import set_title, shell_of, signs_of
from tui.console.widgets.headers import counts_of, srm_of
from tui.console.widgets.pane import Pane


class Repos(Pane):
    """Name, counts and free space of each; a click chooses."""

    def __init__(self) -> None:
        super().__init__("repos")
        self.add_class("panel")
        self.can_focus = False
        self._owners: list[str] = []
        """Whose each line is."""

    class Chosen(Message):
        """A repository was clicked."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.repository = name

    def fill(self) -> None:
        site = shell_of(self).site
        set_title(self, "Repos")
        lines: list[Line] = []
        self._owners = []
        for name in site.names():
            lines += self._about(site, name)
            self._owners += [name] * (len(lines) - len(self._owners))
        self.show(lines)

    def _about(self, site: Site, name: str) -> list[Line]:
        view = site.view if name == site.current else site.view_named(name)
        here = name == site.current
        title = (Span(">" if here else " ", "key"), Span(f" {name}", "title" if here else "text"))
        if view is None or not view.known:
            text = Span("  lost", "broken") if view is not None and view.problem else Span("  not scanned", "quiet")
            return [title, (text,), ()]
        counts = {key: value for key, value in counts_of(view).items() if value and key != "removed"}
        worst = signs_of(self).counts(counts)[:3] if counts else (Span("empty", "quiet"),)
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
            self.post_message(self.Chosen(self._owners[message.index]))
