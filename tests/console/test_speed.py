"""Budgets that do not depend on the machine: how often things are drawn, and that size does not matter."""

from __future__ import annotations

import time
from pathlib import Path
from typing import cast

from tests.console.kit import NOW, FixedSite, console, idle, press, running, sample_run, sample_view, screen_text
from tui.console.pages.images.page import ImagesPage
from tui.console.pages.runs.page import RunsPage
from tui.console.widgets.pane import Pane
from tui.text.statuses import SHOWN, State
from tui.view.images import NUMBERS, TEXTS, ImageTable
from tui.view.snapshot import Counts, RepositoryView
from tui.work.runs import LogLine

BUDGET_S = 2.0
"""A hundred thousand rows one by one would take many times this; what is seen takes a small part of it."""


def many(count: int) -> RepositoryView:
    table = ImageTable()
    texts = dict.fromkeys(TEXTS, "")
    numbers: dict[str, int] = dict.fromkeys(NUMBERS, 0)
    good, bad = SHOWN.index(State.OPTIMIZED), SHOWN.index(State.BROKEN)
    for index in range(count):
        state = bad if index % 100 == 0 else good
        table.add(f"{index:032x}", f"image-{index:06d}", {**texts, **numbers, "state": state, "percent": -1})
    broken = table.count(State.BROKEN)
    return sample_view()._replace(images=table, counts=Counts(broken=broken, optimized=count - broken), fixes=())


async def test_a_hundred_thousand_images(tmp_path: Path) -> None:
    """Opening, going to the end, filtering and sorting: only what is seen is made."""
    view = many(100_000)
    async with running(console(FixedSite(tmp_path / "state", [view]))) as pilot:
        started = time.process_time()
        await press(pilot, "2")
        await press(pilot, "G")
        page = cast(ImagesPage, pilot.app.page("images"))
        assert page.table_widget.cursor == 99_999
        assert time.process_time() - started < BUDGET_S
        started = time.process_time()
        await press(pilot, "slash", *"image-09999", "enter")
        assert "Images 10 of 100000" in screen_text(pilot.app)
        await press(pilot, "escape", "o", "O")
        assert time.process_time() - started < 2 * BUDGET_S
        started = time.process_time()
        page.table_widget.go(50_000)
        await pilot.pause()
        assert time.process_time() - started < BUDGET_S


async def test_a_log_of_a_hundred_thousand_lines(tmp_path: Path) -> None:
    """It is followed and scrolled without making its lines."""
    site = FixedSite(tmp_path / "state", [sample_view()], [sample_run()])
    lines = tuple(LogLine(NOW, 1, f"line {number}") for number in range(100_000))
    site.log_of = lambda run, since: lines[since:]  # type: ignore[method-assign]
    async with running(console(site)) as pilot:
        started = time.process_time()
        await press(pilot, "3")
        await idle(pilot)
        assert "line 99999" in screen_text(pilot.app)
        page = cast(RunsPage, pilot.app.page("runs"))
        assert page.following
        assert time.process_time() - started < BUDGET_S


async def test_an_idle_console_draws_nothing(tmp_path: Path) -> None:
    """Ticks look at notes; as long as nothing has changed no line is made."""
    async with running(console(FixedSite(tmp_path / "state", [sample_view()]))) as pilot:
        app = pilot.app
        page = app.page("triage")
        drawn: list[str] = []
        page.fill = lambda: drawn.append("fill")
        for _ in range(10):
            app.tick()
            await pilot.pause()
        assert drawn == []
        assert app._pace == 1.0


async def test_a_live_run_ticks_a_few_times_a_second(tmp_path: Path) -> None:
    """And no faster than four times."""
    async with running(console(FixedSite(tmp_path / "state", [sample_view()], [sample_run()]))) as pilot:
        pilot.app.tick()
        assert 0.25 <= pilot.app._pace <= 0.5


async def test_what_follows_the_cursor_is_drawn_in_the_same_frame(tmp_path: Path) -> None:
    """When the cursor has moved, the reason is that of its row already: a key is one frame and not two."""
    async with running(console(FixedSite(tmp_path / "state", [many(100)]))) as pilot:
        await press(pilot, "2")
        page = cast(ImagesPage, pilot.app.page("images"))
        pane = page.query_one("#why", Pane)
        before = list(pane._lines)
        page.table_widget.go(7)  # nothing is awaited
        assert list(pane._lines) != before
