"""A pane of lines that scrolls when there are more than fit."""

from __future__ import annotations

from collections.abc import Sequence

from textual import events
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui.console.draw.lines import Cell, Line, Span, fit, spans_of, strip, wrap
from tui.console.widgets.base import palette_of, signs_of
from tui.console.widgets.scroll import use_plain_bars


class Paragraph(tuple[str, Line]):
    """A label and what belongs to it, which is broken into lines under itself."""

    def __new__(cls, label: str, body: Cell) -> Paragraph:
        """``label`` stands in a column of its own; "" for none."""
        return super().__new__(cls, (label, spans_of(body)))


Item = Line | Paragraph


def rows_of(items: Sequence[Item], columns: int) -> int:
    """Return how many lines items without labels take."""
    return sum(len(wrap(item[1], columns)) if isinstance(item, Paragraph) else 1 for item in items)


class Pane(ScrollView, can_focus=True):
    """Lines, each cut to the width; paragraphs, each broken between words."""

    DEFAULT_CSS = "Pane { scrollbar-size-vertical: 1; scrollbar-gutter: stable; overflow-x: hidden; overflow-y: auto; }"

    class Picked(Message):
        """A line was clicked or opened."""

        def __init__(self, pane: Pane, index: int) -> None:
            super().__init__()
            self.pane = pane
            self.index = index

    def __init__(self, name: str, *, label_columns: int = 7) -> None:
        super().__init__(id=name)
        self.label_columns = label_columns
        self.items: Sequence[Item] = ()
        self._lines: list[Line] = []
        self._sources: list[int] = []
        self._width = -1

    def show(self, items: Sequence[Item]) -> None:
        """Show other lines, from the top if they are others."""
        if list(items) == list(self.items) and self._width == self.columns():
            return
        self.items = tuple(items)
        self._lay_out()

    def columns(self) -> int:
        """Return how wide a line can be."""
        return max(1, self.scrollable_content_region.width)

    def _lay_out(self) -> None:
        self._width = self.columns()
        self._lines, self._sources = [], []
        for index, item in enumerate(self.items):
            made = self._paragraph(item) if isinstance(item, Paragraph) else [item]
            self._lines += made
            self._sources += [index] * len(made)
        self.virtual_size = Size(self._width, len(self._lines))
        self.refresh()

    def _paragraph(self, item: Paragraph) -> list[Line]:
        label, body = item
        if not label:
            return wrap(body, self._width)
        room = self.label_columns
        lines = wrap(body, max(10, self._width - room))
        first = (*fit(Span(label, "head"), room, " "), *lines[0])
        return [first, *((Span(" " * room), *line) for line in lines[1:])]

    def on_mount(self) -> None:
        use_plain_bars(self)

    def on_resize(self) -> None:
        """Paragraphs are broken anew."""
        if self._width != self.columns():
            self._lay_out()

    def take_key(self, key: str) -> bool:
        """Scroll; False for keys that do not."""
        page = max(1, self.scrollable_content_region.height)
        end = len(self._lines)
        moves = {
            "up": -1, "k": -1, "down": 1, "j": 1, "pageup": -page, "pagedown": page,
            "ctrl+u": -(page // 2), "ctrl+d": page // 2, "home": -end, "g": -end, "end": end, "G": end,
        }  # fmt: skip
        if key in moves:
            self.scroll_to(y=self.scroll_y + moves[key], animate=False, immediate=True)
        return key in moves

    def on_click(self, event: events.Click) -> None:
        """Tell which item was clicked."""
        offset = event.get_content_offset(self)
        row = offset.y + round(self.scroll_y) if offset is not None else -1
        if 0 <= row < len(self._sources):
            self.post_message(self.Picked(self, self._sources[row]))

    def render_line(self, y: int) -> Strip:
        row = y + round(self.scroll_y)
        line = self._lines[row] if row < len(self._lines) else ()
        return strip(fit(line, self.columns(), signs_of(self).ellipsis), palette_of(self))
