"""What is shown when the terminal is too small for anything else."""

from __future__ import annotations

from collections.abc import Sequence

from textual.strip import Strip
from textual.widget import Widget

from tui.console.draw.lines import Line, Span, fit, strip
from tui.console.widgets.base import palette_of, signs_of


class Small(Widget):
    """The needed and the present size, what is wrong, and what runs."""

    DEFAULT_CSS = "Small { width: 1fr; height: 1fr; display: none; }"

    def __init__(self, name: str) -> None:
        super().__init__(id=name)
        self.columns, self.rows = 0, 0
        self.summary: Sequence[Line] = ()

    def show(self, columns: int, rows: int, summary: Sequence[Line]) -> None:
        """Write another size, and what there is to say at least."""
        self.columns, self.rows, self.summary = columns, rows, summary
        self.refresh()

    def render_line(self, y: int) -> Strip:
        lines: list[Line] = [
            (),
            (Span(f" Need 80x24, have {self.columns}x{self.rows}", "bold"),),
            (),
            *((Span(" "), *line) for line in self.summary),
            (),
            (Span(" q", "key"), Span(" Quit   Make the window larger to go on.")),
        ]
        line = lines[y] if y < len(lines) else ()
        return strip(fit(line, self.size.width, signs_of(self).ellipsis), palette_of(self))
