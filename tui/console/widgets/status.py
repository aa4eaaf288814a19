"""The line above the footer: what the page has to say, or the newest message."""

from __future__ import annotations

from rich.cells import cell_len as width_of
from textual import events
from textual.strip import Strip

from tui.console.draw.lines import Line, Span, fit, plain, strip, wrap
from tui.console.messages import Told
from tui.console.widgets.bar import Bar, Button
from tui.console.widgets.base import palette_of, signs_of

_MOST_LINES = 3


class StatusLine(Bar):
    """One line; a message that needs more gets them, and nothing is covered by it."""

    def __init__(self) -> None:
        super().__init__("status")
        self._told: Told | None = None
        self._lines: list[Line] = []
        self._columns = 0

    def say(self, button: Button, told: Told | None, columns: int) -> None:
        """Write the message, or ``button`` when there is none."""
        self.show([button])
        if told is not self._told or (told is not None and columns != self._columns):
            self._told, self._columns = told, columns
            self._lines = self._broken(told, columns) if told is not None else []
            self.styles.height = max(1, len(self._lines))
            self.refresh()

    def _broken(self, told: Told, columns: int) -> list[Line]:
        end = (Span(f"  {told.time}  M ", "quiet"),)
        room = columns - width_of(plain(end))
        lines = wrap(told.line(), columns - 1, 3 if told.warning else 1)
        if width_of(plain(lines[-1])) > room:
            lines.append(())
        lines = lines[:_MOST_LINES]
        return [*lines[:-1], (*fit(lines[-1], room, signs_of(self).ellipsis), *end)]

    def render_line(self, y: int) -> Strip:
        """A line of the message, or the line of the page."""
        if self._told is None:
            return super().render_line(y)
        line = self._lines[y] if y < len(self._lines) else ()
        return strip(fit(line, self.size.width, signs_of(self).ellipsis), palette_of(self), "mark")

    def on_click(self, event: events.Click) -> None:
        """All messages, or what the button of the page does."""
        if self._told is not None:
            event.stop()
            event.prevent_default()
            self.post_message(self.Pressed("messages"))
