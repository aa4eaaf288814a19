"""A table of any number of rows: only the lines that are seen are ever made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from rich.cells import cell_len
from textual import events
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui.console.draw.lines import Cell, Line, Span, fit, spans_of, strip, wrap
from tui.console.widgets.base import palette_of, signs_of
from tui.console.widgets.scroll import use_plain_bars

GAP = 1


class Column(NamedTuple):
    """A column: ``columns`` wide, and more by its ``share`` of what is left over, as far as its cells need that."""

    name: str
    title: str
    columns: int
    share: int = 0
    right: bool = False
    from_width: int = 0
    """Columns of the terminal from which on the column is shown."""


@runtime_checkable
class Follows(Protocol):
    """A page or dialog that shows more about the row under the cursor. It is called, not sent a message: that would
    come after the first frame, and what is drawn then waits for the next one."""

    def table_moved(self, table: Table) -> None:
        """The cursor of a table in here is on another row."""


class Rows(Protocol):
    """What a table shows. Only asked for the rows that are seen."""

    def __len__(self) -> int: ...

    def key(self, index: int) -> str:
        """Return what names a row, so that the cursor stays on it when rows come and go."""
        ...

    def find(self, key: str) -> int:
        """Return the index of the row of a key, -1 when that row is gone."""
        ...

    def cells(self, index: int) -> dict[str, Cell]:
        """Return the cells of a row by the names of their columns."""
        ...


class KeyedRows:
    """Rows that are few enough to be looked through for a key."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys = tuple(keys)

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, index: int) -> str:
        return self._keys[index]

    def find(self, key: str) -> int:
        return self._keys.index(key) if key in self._keys else -1


class NoRows(KeyedRows):
    """A table of nothing."""

    def __init__(self) -> None:
        super().__init__(())

    def cells(self, index: int) -> dict[str, Cell]:
        raise IndexError(index)


class Table(ScrollView, can_focus=True):
    """Rows under a line of heads, with a cursor and a range."""

    DEFAULT_CSS = (
        "Table { scrollbar-size-vertical: 1; scrollbar-gutter: stable; overflow-x: hidden; overflow-y: auto; }"
    )

    class Opened(Message):
        """Enter, or a second click on the row under the cursor."""

        def __init__(self, table: Table) -> None:
            super().__init__()
            self.table = table

    def __init__(self, columns: Sequence[Column], *, name: str = "table", heads: bool = True) -> None:
        super().__init__(id=name)
        self.columns = tuple(columns)
        self.heads = heads
        self.rows: Rows = NoRows()
        self.cursor = 0
        self.range_start = -1
        """Where a range began, -1 for none."""
        self.empty: Sequence[Line] = ()
        """What is written when there is no row."""
        self._centred = False
        self._seen: dict[str, int] = {}
        """How wide the widest cell of a column was that was on the screen."""
        self.opens = False
        """Enter opens a row by a message; else it belongs to the screen."""
        self.passed_on: frozenset[str] = frozenset()
        """Keys that would move the cursor and belong to the screen."""

    # -- rows

    def show(self, rows: Rows, empty: Sequence[Line] = ()) -> None:
        """Show other rows; the cursor stays on the row that it was on, or where it was."""
        key = self.key
        self._centred = False
        self.rows = rows
        self.empty = empty
        found = rows.find(key) if key else -1
        self.cursor = found if found >= 0 else max(0, min(self.cursor, len(rows) - 1))
        if self.range_start >= len(rows):
            self.range_start = -1
        self._measure()
        self._look()
        self.refresh()
        self.call_after_refresh(self._reveal)

    @property
    def key(self) -> str:
        """The key of the row under the cursor, "" when there is none."""
        return self.rows.key(self.cursor) if 0 <= self.cursor < len(self.rows) else ""

    def range(self) -> list[str]:
        """Return the keys of the range, or of the row under the cursor alone."""
        if not len(self.rows):
            return []
        low, high = self._range()
        return [self.rows.key(index) for index in range(low, high + 1)]

    def _range(self) -> tuple[int, int]:
        other = self.cursor if self.range_start < 0 else self.range_start
        return min(self.cursor, other), max(self.cursor, other)

    def mark(self) -> None:
        """Begin a range at the cursor, or end it."""
        self.range_start = self.cursor if self.range_start < 0 and len(self.rows) else -1
        self.refresh()

    def _measure(self) -> None:
        self.virtual_size = Size(max(self.scrollable_content_region.width, 1), len(self.rows) + self.heads)

    def on_mount(self) -> None:
        """Bars that this terminal can show."""
        use_plain_bars(self)

    def on_resize(self) -> None:
        """The cursor stays in sight."""
        self._measure()
        self._reveal()
        self._look()

    # -- cursor

    def go(self, index: int) -> None:
        """Put the cursor on a row, or on the nearest there is."""
        index = max(0, min(index, len(self.rows) - 1))
        if index == self.cursor:
            return
        self.cursor = index
        self._reveal()
        self.refresh()
        follower = next((above for above in self.ancestors if isinstance(above, Follows)), None)
        if follower is not None:
            follower.table_moved(self)

    def centre(self, index: int) -> None:
        """Put the cursor on a row in the middle: what is seen depends on the row alone, not on the way to it."""
        self.cursor = max(0, min(index, len(self.rows) - 1))
        self._centred = True
        self._reveal()
        self.refresh()

    def go_key(self, key: str) -> bool:
        """Put the cursor on the row of a key; False when it is not shown."""
        index = self.rows.find(key)
        if index >= 0:
            self.go(index)
        return index >= 0

    def _visible_rows(self) -> int:
        return max(1, self.scrollable_content_region.height - self.heads)

    def _reveal(self) -> None:
        if self._centred:
            self.scroll_to(y=max(0, self.cursor - self._visible_rows() // 2), animate=False, immediate=True)
            return
        top = round(self.scroll_y)
        seen = self._visible_rows()
        if self.cursor < top:
            top = self.cursor
        elif self.cursor >= top + seen:
            top = self.cursor - seen + 1
        if top != round(self.scroll_y):
            self.scroll_to(y=top, animate=False, immediate=True)

    def take_key(self, key: str) -> bool:
        """Move the cursor or open the row; False for keys that do neither."""
        page = self._visible_rows()
        moves = {
            "up": -1, "k": -1, "down": 1, "j": 1,
            "pageup": -page, "pagedown": page, "ctrl+u": -(page // 2), "ctrl+d": page // 2,
            "home": -len(self.rows), "g": -len(self.rows), "end": len(self.rows), "G": len(self.rows),
        }  # fmt: skip
        if key in self.passed_on:
            return False
        if key in moves:
            self.go(self.cursor + moves[key])
        elif key == "enter" and self.opens:
            self.post_message(self.Opened(self))
        else:
            return False
        return True

    def on_click(self, event: events.Click) -> None:
        """A click moves the cursor; one on the row under the cursor opens it when it is the second."""
        offset = event.get_content_offset(self)
        if offset is None or offset.y < self.heads:
            return
        row = offset.y + round(self.scroll_y) - self.heads
        if not 0 <= row < len(self.rows):
            return
        if row == self.cursor and event.chain == 2:
            self.post_message(self.Opened(self))
        self.go(row)

    # -- drawing

    def shown_columns(self, width: int) -> list[tuple[Column, int]]:
        """Return the columns that fit in ``width`` and how wide each is: what one does not need others get."""
        shown = [column for column in self.columns if column.from_width <= width]
        sizes = {column.name: column.columns for column in shown}
        left = max(0, width - sum(sizes.values()) - GAP * (len(shown) - 1))
        growing = [column for column in shown if column.share]
        while left and (wanting := [column for column in growing if self._needs(column) > sizes[column.name]]):
            shares, room = sum(column.share for column in wanting), left
            for column in wanting:
                part = min(max(1, room * column.share // shares), self._needs(column) - sizes[column.name], left)
                sizes[column.name] += part
                left -= part
        if growing:
            sizes[growing[-1].name] += left
        return [(column, sizes[column.name]) for column in shown]

    def _needs(self, column: Column) -> int:
        return max(column.columns, self._seen.get(column.name, 0))

    def _look(self) -> None:
        """See how wide the cells of the rows on the screen are; what was wider keeps its room, so nothing jumps."""
        top, before = round(self.scroll_y), dict(self._seen)
        for index in range(top, min(len(self.rows), top + self._visible_rows())):
            cells = self.rows.cells(index)
            for column in self.columns:
                if column.share:
                    columns = sum(cell_len(span.text) for span in spans_of(cells.get(column.name, "")))
                    self._seen[column.name] = max(self._seen.get(column.name, 0), columns)
        if self._seen != before:
            self.refresh()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Other rows are seen."""
        super().watch_scroll_y(old_value, new_value)
        self._look()

    def render_line(self, y: int) -> Strip:
        """One line of the screen."""
        width = self.scrollable_content_region.width
        if self.heads and y == 0:
            return self._head(width)
        index = y - self.heads + round(self.scroll_y)
        if not len(self.rows):
            return self._empty(y - self.heads, width)
        if index >= len(self.rows):
            return strip((Span(" " * width),), palette_of(self))
        return self._row(index, width)

    def _head(self, width: int) -> Strip:
        ellipsis = signs_of(self).ellipsis
        spans: list[Span] = []
        for column, columns in self.shown_columns(width):
            spans += fit(Span(column.title, "head"), columns, ellipsis, column.right)
            spans.append(Span(" " * GAP))
        return strip(fit(tuple(spans[:-1]), width, ellipsis), palette_of(self))

    def _empty(self, y: int, width: int) -> Strip:
        lines = [part for text in self.empty for part in wrap(text, width)]
        text = lines[y] if 0 <= y < len(lines) else ()
        return strip(fit(text, width, signs_of(self).ellipsis), palette_of(self))

    def _row(self, index: int, width: int) -> Strip:
        ellipsis = signs_of(self).ellipsis
        cells = self.rows.cells(index)
        spans: list[Span] = []
        for column, columns in self.shown_columns(width):
            spans += fit(cells.get(column.name, ""), columns, ellipsis, column.right)
            spans.append(Span(" " * GAP))
        low, high = self._range()
        ground = ""
        if index == self.cursor:
            ground = "cursor"
        elif self.range_start >= 0 and low <= index <= high:
            ground = "mark"
        return strip(fit(tuple(spans[:-1]), width, ellipsis), palette_of(self), ground)
