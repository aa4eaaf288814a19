"""Lines of the frame: header, tabs, plan strip and footer. What can be clicked is a button."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len as width_of
from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from tui.console.draw.lines import Line, Span, fit, plain, strip
from tui.console.widgets.base import palette_of, signs_of


class Button(NamedTuple):
    """A part of a bar; ``act`` is done when it is clicked, "" for plain words."""

    text: Line
    act: str = ""


class Bar(Widget):
    """One line: parts from the left, one part at the right edge."""

    DEFAULT_CSS = "Bar { height: 1; width: 1fr; }"

    class Pressed(Message):
        """A button was clicked."""

        def __init__(self, act: str) -> None:
            super().__init__()
            self.act = act

    def __init__(self, name: str) -> None:
        super().__init__(id=name)
        self.parts: Sequence[Button] = ()
        self.right: Line = ()

    def show(self, parts: Sequence[Button], right: Line = ()) -> None:
        """Write other parts; ``right`` is left out where it does not fit."""
        if (tuple(parts), right) != (self.parts, self.right):
            self.parts, self.right = tuple(parts), right
            self.refresh()

    def render_line(self, y: int) -> Strip:
        del y
        columns = self.size.width
        ellipsis = signs_of(self).ellipsis
        spans: Line = tuple(span for part in self.parts for span in part.text)
        taken = width_of(plain(spans))
        right = width_of(plain(self.right))
        if self.right and taken + right + 2 <= columns:
            space = Span(" " * (columns - taken - right - 1))
            spans = (*spans, space, *self.right)
        return strip(fit(spans, columns, ellipsis), palette_of(self))

    def on_click(self, event: events.Click) -> None:
        """Find the button under the pointer."""
        event.stop()
        position = 0
        for part in self.parts:
            position += width_of(plain(part.text))
            if event.x < position:
                if part.act:
                    self.post_message(self.Pressed(part.act))
                return
