"""What the pages with one long table have in common: the filter, finding, sorting, and panes that change size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import ClassVar

from textual.containers import Container, Vertical
from textual.widget import Widget
from textual.widgets import Input

from tui.console.acts import Act
from tui.console.control.navigation import leave_replay, turn_lens
from tui.console.draw.lines import Line, Span, line
from tui.console.pages.page import HUGE_COLUMNS, THREE_COLUMNS, Page
from tui.console.pages.why import lines
from tui.console.widgets.base import set_title
from tui.console.widgets.filter import FilterLine
from tui.console.widgets.pane import Item, Pane
from tui.console.widgets.repos import Repos
from tui.console.widgets.table import Column, Table
from tui.view.query import Query, parse

_MOST, _LEAST = 6, -4
_EVENTS = 3
WHY_ROWS, WHY_COLUMNS, WHY_COLUMNS_HUGE = 9, 38, 64
"""As in the style sheet."""


class FilteredPage(Page):
    """A table, a filter below it, and a pane with the reason of the row under the cursor."""

    COLUMNS: ClassVar[Sequence[Column]] = ()
    ORDERS: ClassVar[type[StrEnum]]
    WHAT: ClassVar[str] = ""
    """What the rows are, for the title."""

    def __init__(self) -> None:
        super().__init__()
        self.order: StrEnum = next(iter(self.ORDERS))
        self.reversed = False
        self.searched = ""
        """The last filter, which finding goes by."""
        self._extra = 0

    # -- widgets

    def columns_of(self, *below: Widget) -> Container:
        """Make the columns: repositories, the table with its filter and what is ``below`` it, and the reason."""
        table = Table(self.COLUMNS, name=self.WHAT.lower())
        why = Pane("why")
        for widget in (table, why):
            widget.add_class("panel")
        return Container(Repos(), Vertical(table, FilterLine(table), *below, id="middle"), why, id="columns")

    def body(self) -> Iterable[Widget]:
        """The columns."""
        yield self.columns_of()

    @property
    def table_widget(self) -> Table:
        """The table."""
        return self.query_one(f"#{self.WHAT.lower()}", Table)

    @property
    def filter_line(self) -> FilterLine:
        """Where the filter is typed."""
        return self.query_one(FilterLine)

    def set_up(self) -> None:
        """The table has the keys."""
        self.set_focus(self.table_widget)

    def query_now(self) -> Query:
        """Return what the filter asks for; a search goes by the last that was not empty."""
        text = self.filter_line.value.strip()
        self.searched = text or self.searched
        return parse(text)

    def fill_title(self, shown: int, total: int, query: Query) -> None:
        """Write how many rows of how many are shown, in which order, behind which filter."""
        number = self.number(total) if shown == total else f"{shown} of {self.number(total)}"
        order = f"sort: {self.order.value}{' reversed' if self.reversed else ''}"
        about = query.hints[0] if query.hints else f"filter: {query.text or 'none'}"
        set_title(self.table_widget, f"{self.WHAT} {number}   {order}   {about}")

    def hints(self) -> list[Line]:
        """Return what was not understood of the filter, whole: in the title there is no room for that."""
        return [line(Span(f"{hint}.", "warning")) for hint in self.query_now().hints]

    def number(self, total: int) -> str:
        """Say how many rows there are without a filter, as the header counts them."""
        return str(total)

    def fill_repositories(self) -> None:
        """Fill the pane of repositories, where there is room for one."""
        if self.wide:
            self.query_one(Repos).fill()

    def beyond(self, image: str, rule: str) -> list[Item]:
        """Return what stands below the reason where the screen is tall enough for that."""
        site = self.shell.site
        if not (self.wide and self.tall):
            return []
        row, known = site.view.image(image), site.chronicle
        events = known.lane(image) if known is not None and image else ()
        return lines.beyond(row.facts if row is not None else "", rule, events, _EVENTS)

    @property
    def lists_repositories(self) -> bool:
        """There is a pane for them where there is room."""
        return self.size.width >= THREE_COLUMNS

    # -- filter

    def on_input_changed(self, event: Input.Changed) -> None:
        """The filter works while one types."""
        event.stop()
        self.fill()

    def act_filter(self) -> None:
        self.filter_line.open()

    def set_filter(self, text: str) -> None:
        """Set another filter, as if it had been typed."""
        self.filter_line.value = text
        self.filter_line.close()
        self.fill_all()

    # -- finding

    def matching(self, query: Query) -> Callable[[int], bool]:
        """Return the test whether a row, by its place in the table, passes a query."""
        raise NotImplementedError

    def why_not(self, act: Act) -> str:
        """What finding needs."""
        if act.name in ("find_next", "find_previous") and not self.searched:
            return "nothing was looked for yet, / begins a filter"
        if act.name == "larger" and self._extra >= _MOST:
            return "the pane is as large as it can be"
        if act.name == "smaller" and self._extra <= _LEAST:
            return "the pane is as small as it can be"
        return ""

    def act_find_next(self) -> None:
        """The next row that the last filter finds, around at the end."""
        self._find(1)

    def act_find_previous(self) -> None:
        self._find(-1)

    def _find(self, by: int) -> None:
        table = self.table_widget
        count, found = len(table.rows), self.matching(parse(self.searched))
        around = ((table.cursor + by * step) % count for step in range(1, count + 1))
        index = next((index for index in around if found(index)), -1)
        if index < 0:
            self.shell.tell(f"No row matches {self.searched}.")
        else:
            table.go(index)

    # -- order

    def act_sort(self) -> None:
        orders = list(self.ORDERS)
        self.order = orders[(orders.index(self.order) + 1) % len(orders)]
        self.fill()

    def act_reverse(self) -> None:
        self.reversed = not self.reversed
        self.fill()

    # -- panes

    def act_larger(self) -> None:
        self._resize(min(self._extra + 1, _MOST))

    def act_smaller(self) -> None:
        self._resize(max(self._extra - 1, _LEAST))

    def _resize(self, extra: int) -> None:
        self._extra = extra
        why = self.query_one("#why", Pane)
        why.styles.width = why.styles.height = None
        if extra and self.wide:
            why.styles.width = (WHY_COLUMNS_HUGE if self.size.width >= HUGE_COLUMNS else WHY_COLUMNS) + 4 * extra
        elif extra:
            why.styles.height = WHY_ROWS + extra

    def act_back(self) -> None:
        """End the range, else clear the filter, else give the panes their size back, else leave lens or replay."""
        table = self.table_widget
        if table.range_start >= 0:
            table.mark()
        elif self.filter_line.value:
            self.filter_line.clear_filter()
            self.fill()
        elif self._extra:
            self._resize(0)
        elif self.shell.site.lens:
            turn_lens(self.shell)
        elif self.shell.site.replay is not None:
            leave_replay(self.shell)
        else:
            self.nothing_to_close()

    FIND_ACTS: ClassVar[Sequence[Act]] = (
        Act("find_next", "n", "Next", "Go to the next row that the last filter finds.", act_find_next, "search match",
            footer=False),
        Act("find_previous", "N", "Previous", "Go to the row before that the last filter finds.", act_find_previous,
            "search", footer=False),
        Act("larger", "plus", "Larger", "Make the pane with the reason larger.", act_larger, "resize pane",
            footer=False),
        Act("smaller", "underscore", "Smaller", "Make the pane with the reason smaller.", act_smaller, "resize pane",
            footer=False),
    )  # fmt: skip
