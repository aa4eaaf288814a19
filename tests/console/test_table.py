"""The table: speed with very many rows, cursor, range, columns by width."""

from __future__ import annotations

import time

import pytest
from textual.app import App, ComposeResult
from textual.events import Event, Key, MouseScrollDown

from tui.console.draw.lines import Cell, Span, line, plain
from tui.console.draw.palette import DARK
from tui.console.draw.signs import Signs
from tui.console.widgets.table import Column, NoRows, Table

COLUMNS = (
    Column("number", "#", 8, right=True),
    Column("name", "NAME", 10, share=1),
    Column("extra", "EXTRA", 6, from_width=100),
)


class Many:
    def __init__(self, count: int, first: int = 0) -> None:
        self.count = count
        self.first = first
        self.asked = 0

    def __len__(self) -> int:
        return self.count

    def key(self, index: int) -> str:
        return str(index + self.first)

    def find(self, key: str) -> int:
        index = int(key) - self.first
        return index if 0 <= index < self.count else -1

    def cells(self, index: int) -> dict[str, Cell]:
        self.asked += 1
        return {"number": str(index + self.first), "name": Span(f"image {index + self.first}"), "extra": "x"}


class TableApp(App[None]):
    palette = DARK
    signs = Signs()

    def compose(self) -> ComposeResult:
        yield Table(COLUMNS)

    async def on_event(self, event: Event) -> None:
        """Keys go to the table first, as in the console."""
        if not (isinstance(event, Key) and self.query_one(Table).take_key(event.key)):
            await super().on_event(event)


def text_of(app: App[None]) -> list[str]:
    return [strip.text for strip in app.screen._compositor.render_strips()]


async def test_only_rows_that_are_seen_are_asked_for() -> None:
    """A million rows open at once: what is drawn depends on the screen, not on the rows."""
    async with TableApp().run_test(size=(80, 24)) as pilot:
        table = pilot.app.query_one(Table)
        rows = Many(1_000_000)
        started = time.process_time()
        table.show(rows)
        await pilot.pause()
        assert time.process_time() - started < 1.0
        assert rows.asked < 200
        assert "999" not in "\n".join(text_of(pilot.app))
        await pilot.press("G")
        assert "image 999999" in "\n".join(text_of(pilot.app))
        assert rows.asked < 600


async def test_keys_move_the_cursor() -> None:
    """Arrows, letters and pages; the ends hold."""
    async with TableApp().run_test(size=(80, 24)) as pilot:
        table = pilot.app.query_one(Table)
        table.show(Many(100))
        table.focus()
        for keys, row in (
            ("down", 1), ("j", 2), ("k", 1), ("up", 0), ("up", 0), ("pagedown", 23), ("ctrl+d", 34), ("ctrl+u", 23),
            ("G", 99), ("down", 99), ("g", 0), ("end", 99), ("home", 0),
        ):  # fmt: skip
            await pilot.press(keys)
            assert table.cursor == row, keys
            shown = "\n".join(text_of(pilot.app))
            assert f"image {row} " in shown, "the row under the cursor is in sight"


async def test_the_cursor_stays_on_its_row_when_rows_come_and_go() -> None:
    """It follows the key, and stays near when the row is gone."""
    async with TableApp().run_test(size=(80, 24)) as pilot:
        table = pilot.app.query_one(Table)
        table.show(Many(100))
        table.go(50)
        table.show(Many(100, first=20))
        assert table.key == "50"
        table.show(Many(5, first=200))
        assert table.key == "204"
        table.show(NoRows(), [line("nothing here")])
        await pilot.pause()
        assert table.key == ""
        assert "nothing here" in text_of(pilot.app)[1]


async def test_a_range_is_what_is_between() -> None:
    """From where it was begun to the cursor, in both directions."""
    async with TableApp().run_test(size=(80, 24)) as pilot:
        table = pilot.app.query_one(Table)
        table.show(Many(100))
        table.go(10)
        table.mark()
        table.go(8)
        assert table.range() == ["8", "9", "10"]
        table.mark()
        assert table.range() == ["8"]


async def test_clicks_and_the_wheel() -> None:
    """A click moves the cursor; the wheel moves what is seen."""
    async with TableApp().run_test(size=(80, 24)) as pilot:
        table = pilot.app.query_one(Table)
        table.show(Many(100))
        await pilot.click(Table, offset=(5, 4))
        assert table.cursor == 3
        await pilot._post_mouse_events([MouseScrollDown], Table, offset=(5, 4))
        await pilot.pause()
        assert round(table.scroll_y) > 0


@pytest.mark.parametrize(("width", "shown"), [(80, 2), (100, 2), (102, 3), (160, 3)])
async def test_columns_fill_the_width_and_never_more(width: int, shown: int) -> None:
    """A column that needs room appears only where there is some; shares take the rest."""
    async with TableApp().run_test(size=(width, 24)) as pilot:
        table = pilot.app.query_one(Table)
        table.show(Many(100))
        await pilot.pause()
        inner = table.scrollable_content_region.width
        sized = table.shown_columns(inner)
        assert len(sized) == shown
        assert sum(columns for _, columns in sized) + len(sized) - 1 == inner
        await pilot.pause()
        assert all(len(plain(row)) == width for row in text_of(pilot.app))


async def test_columns_get_the_room_that_their_cells_need() -> None:
    """What one column does not need another gets; what was seen keeps its room while one scrolls."""

    class Uneven(Many):
        def cells(self, index: int) -> dict[str, Cell]:
            return {"short": "ab", "long": "y" * (30 if index < 30 else 60)}

    columns = (Column("short", "SHORT", 5, share=3), Column("long", "LONG", 10, share=1))

    class UnevenApp(TableApp):
        def compose(self) -> ComposeResult:
            yield Table(columns)

    app = UnevenApp()
    async with app.run_test(size=(80, 10)) as pilot:
        table = app.query_one(Table)
        table.show(Uneven(100))
        await pilot.pause()
        assert "y" * 30 in text_of(app)[1]
        table.go(99)
        await pilot.pause()
        assert "y" * 60 in text_of(app)[-1]
        assert {column.name: size for column, size in table.shown_columns(60)}["short"] == 5
