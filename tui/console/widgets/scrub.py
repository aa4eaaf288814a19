"""The line of all steps of a trace, with its crashes and the place of now; a click goes there."""

from __future__ import annotations

from collections.abc import Sequence

from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from tui.console.draw.lines import Span, fit, strip
from tui.console.widgets.base import palette_of, signs_of


class Scrub(Widget):
    """``0 ├────!──●───┤ 210``."""

    DEFAULT_CSS = "Scrub { height: 1; width: 1fr; }"

    class Picked(Message):
        """A place was clicked; ``step`` counts from 0."""

        def __init__(self, step: int) -> None:
            super().__init__()
            self.step = step

    def __init__(self) -> None:
        super().__init__(id="scrub")
        self.steps = 0
        self.at = 0
        self.crashes: Sequence[int] = ()
        self.marked = -1

    def show(self, steps: int, at: int, crashes: Sequence[int], marked: int) -> None:
        """Show another trace, or another place in it."""
        self.steps, self.at, self.crashes, self.marked = steps, at, crashes, marked
        self.refresh()

    def _ends(self) -> tuple[str, str]:
        signs = signs_of(self)
        left, right = ("├", "┤") if signs.unicode else ("|", "|")
        return f" 1 {left}", f"{right} {self.steps} "

    def _columns(self) -> int:
        left, right = self._ends()
        return max(1, self.size.width - len(left) - len(right))

    def _column(self, step: int) -> int:
        return step * (self._columns() - 1) // max(1, self.steps - 1)

    def render_line(self, y: int) -> Strip:
        del y
        signs = signs_of(self)
        columns = self._columns()
        cells = [Span("─" if signs.unicode else "-", "quiet")] * columns
        for crash in self.crashes:
            cells[min(columns - 1, self._column(crash))] = Span("!", "broken")
        if self.marked >= 0:
            cells[min(columns - 1, self._column(self.marked))] = Span("m", "warning")
        cells[min(columns - 1, self._column(self.at))] = Span("●" if signs.unicode else "#", "title")
        left, right = self._ends()
        return strip(fit((Span(left), *cells, Span(right)), self.size.width, signs.ellipsis), palette_of(self))

    def on_click(self, event: events.Click) -> None:
        """Go to the step under the pointer."""
        event.stop()
        place = event.x - len(self._ends()[0])
        if 0 <= place < self._columns() and self.steps:
            self.post_message(self.Picked(place * (self.steps - 1) // max(1, self._columns() - 1)))
