"""What a tour says, above the footer of whatever page it is on."""

from __future__ import annotations

from textual.strip import Strip
from textual.widget import Widget

from tui.console.draw.lines import Line, Span, fit, strip, wrap
from tui.console.widgets.base import palette_of, shell_of, signs_of

_MOST_LINES = 5


class Caption(Widget):
    """Shown only while a tour is played."""

    DEFAULT_CSS = "Caption { height: 1; width: 1fr; display: none; padding: 0 1; } Caption.-open { display: block; }"

    def __init__(self) -> None:
        super().__init__(id="caption")
        self._lines: list[Line] = []

    def fill(self) -> None:
        said = shell_of(self).messages.caption
        self.set_class(said is not None, "-open")
        if said is None:
            return
        width = max(20, self.app.size.width - 2)
        head = Span(f"{said.place} ", "danger")
        lines = wrap((head, Span(f" {said.text}", "bold"), Span(f"  {said.hint}")), width)
        self._lines = lines[:_MOST_LINES]
        self.styles.height = len(self._lines)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        line = self._lines[y] if y < len(self._lines) else ()
        return strip(fit(line, self.size.width, signs_of(self).ellipsis), palette_of(self), "mark")
