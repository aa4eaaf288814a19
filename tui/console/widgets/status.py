"""The line above the footer: what the page has to say, or the newest message."""

from __future__ import annotations

from rich.cells import cell_len as width_of
from textual import events
from textual.strip import Strip

from tui.console.draw.lines import Line, Span, fit, plain, strip, wrap
from tui.console.messages import Message
from tui.console.widgets.bar import Bar, Button
from tui.console.widgets.base import palette_of, signs_of

_MOST_LINES = 3


class StatusLine(Bar):
    """One line; a message that needs more gets them, and nothing is covered by it."""

    def __init__(self) -> None:
        super().__init__("status")
        self._message: Message | None = None
        self._lines: list[Line] = []
        self._columns = 0

    def say(self, button: Button, message: Message | None, columns: int) -> None:
        """Write the message, or ``button`` when there is none."""
        self.show([button])
        if message is not self._message or (message is not None and columns != self._columns):
            self._message, self._columns = message, columns
            self._lines = self._broken(message, columns) if message is not None else []
            self.styles.height = max(1, len(self._lines))
            self.refresh()

    def _broken(self, message: Message, columns: int) -> list[Line]:
        end = (Span(f"  {message.time}  M ", "quiet"),)
        room = columns - width_of(plain(end))
        lines = wrap(message.line(), columns - 1, 3 if message.warning else 1)
        if width_of(plain(lines[-1])) > room:
            lines.append(())
        lines = lines[:_MOST_LINES]
        return [*lines[:-1], (*fit(lines[-1], room, signs_of(self).ellipsis), *end)]

    def render_line(self, y: int) -> Strip:
        """A line of the message, or the line of the page."""
        if self._message is None:
            return super().render_line(y)
        line = self._lines[y] if y < len(self._lines) else ()
        return strip(fit(line, self.size.width, signs_of(self).ellipsis), palette_of(self), "mark")

    def on_click(self, event: events.Click) -> None:
        """All messages, or what the button of the page does."""
        if self._message is not None:
            event.stop()
            event.prevent_default()
            self.post_message(self.Pressed("messages"))
