"""Lists to choose from: type to search, enter takes. Help, palette, repositories, tours and copying use it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, NamedTuple

from textual import events
from textual.widget import Widget
from textual.widgets import Input

from tui.console.acts import Act
from tui.console.dialogs.dialog import Dialog
from tui.console.draw.lines import Cell, Span, line, plain
from tui.console.widgets.table import Column, KeyedRows, Table

_MOVES = ("up", "down", "pageup", "pagedown", "ctrl+u", "ctrl+d")


class Choice(NamedTuple):
    """One line of a list."""

    key: str
    left: Cell
    text: Cell
    words: str = ""
    """Further words to find it by."""
    off: str = ""
    """Why it cannot be taken now, "" when it can."""


class Choices(KeyedRows):
    """The choices that match what was typed."""

    def __init__(self, choices: Sequence[Choice], query: str = "") -> None:
        wanted = query.strip().lower()
        found = [choice for choice in choices if all(word in _searched(choice) for word in wanted.split())]
        self.shown = (
            sorted(found, key=lambda choice: _distance(plain(choice.left).lower(), wanted)) if wanted else found
        )
        super().__init__(choice.key for choice in self.shown)

    def cells(self, index: int) -> dict[str, Cell]:
        """Return the line of a choice; one that cannot be taken is dimmed."""
        choice = self.shown[index]
        if choice.off:
            return {"left": Span(plain(choice.left), "off"), "text": Span(plain(choice.text), "off")}
        return {"left": choice.left, "text": choice.text}


class Choose(Dialog):
    """Dismissed with the key of the choice. ``hot``: a choice is taken by its left key at once."""

    def __init__(
        self, title: str, choices: Callable[[], Sequence[Choice]], left: int = 12, search: bool = True,
        empty: str = "Nothing matches.", hot: bool = False, columns: int = 76,
    ) -> None:  # fmt: skip
        super().__init__(title, columns)
        self.choices = choices
        self.left = left
        self.search = search
        self.empty = empty
        self.hot = hot
        self._query = ""

    def body(self) -> Iterable[Widget]:
        if self.search:
            yield Input(placeholder="type to search", id="typed", select_on_focus=False)
        table = Table((Column("left", "", self.left), Column("text", "", 10, share=1)), name="list", heads=False)
        table.can_focus = not self.search
        if self.hot:
            table.passed_on = frozenset(choice.key for choice in self.choices())
        yield table

    def set_up(self) -> None:
        count = len(self.choices())
        self._table.styles.height = max(1, min(count, self.app.size.height - 8))
        self._show("")
        self.set_focus(self.query_one("#typed", Input) if self.search else self._table)

    @property
    def chosen(self) -> str:
        """The key of the line under the cursor, "" for none."""
        return self._table.key

    def table_moved(self, table: Table) -> None:
        """What can be done may depend on the line."""
        self.fill_footer()

    @property
    def _table(self) -> Table:
        return self.query_one("#list", Table)

    def _show(self, query: str) -> None:
        self._table.show(Choices(self.choices(), query), [line(Span(self.empty, "quiet"))])

    def on_input_changed(self, event: Input.Changed) -> None:
        """Search while typing."""
        event.stop()
        self._search()

    def on_table_opened(self, message: Table.Opened) -> None:
        """Take the line under the cursor."""
        message.stop()
        self.act_take()

    def take_key(self, event: events.Key) -> bool:
        """The keys of a short list take at once."""
        if self._ready and self.hot and any(choice.key == event.key for choice in self.choices()):
            self._take(event.key)
            return True
        return super().take_key(event)

    def take_field_key(self, field: Input, event: events.Key) -> bool:
        """Arrows move in the list while one types."""
        if event.key in _MOVES:
            return self._table.take_key(event.key)
        return super().take_field_key(field, event)

    def _search(self) -> None:
        query = self.query_one("#typed", Input).value
        if query != self._query:
            self._query = query
            self._show(query)
            self._table.go(0)

    def act_take(self) -> None:
        """Take the line under the cursor, or tell why it cannot be taken."""
        if self.search:
            self._search()
        if self._table.key:
            self._take(self._table.key)

    def _take(self, key: str) -> None:
        choice = next(choice for choice in self.choices() if choice.key == key)
        if choice.off:
            self.shell.tell(choice.off, "warning")
        else:
            self.dismiss(key)

    ACTS: ClassVar[Sequence[Act]] = (
        Act("take", "enter", "Take", "Take the line under the cursor.", act_take),
        Act("close", "escape", "Close", "Leave everything as it is.", Dialog.act_close),
    )  # fmt: skip


def _distance(name: str, wanted: str) -> int:
    """What is called exactly so comes first, then what begins so; all else stays in its order."""
    return 0 if name == wanted else 1 if name.startswith(wanted) else 2


def _searched(choice: Choice) -> str:
    return f"{plain(choice.left)} {plain(choice.text)} {choice.words}".lower()
