"""Replay: the same screens over a trace, read-only, forwards and backwards."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import pytest
from textual.pilot import Pilot

from tests.console.kit import console, idle, press, screen_text, told
from tui.console.app import ConsoleApp
from tui.console.pages.timeline.page import TimelinePage
from tui.console.site import Site
from tui.training.tours import make_trace


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A recorded run with a kill and a power cut."""
    path = tmp_path_factory.mktemp("trace") / "trace.jsonl"
    make_trace(str(path))
    return str(path)


def replaying(tmp_path: Path, trace: str) -> ConsoleApp:
    return console(Site("host-a", str(tmp_path / "state"), time.time), trace=trace)


async def opened(pilot: Pilot[Any]) -> None:
    """Wait until the trace is on the screen: keys that come before mean what they mean on the first page."""
    app = cast(ConsoleApp, pilot.app)
    for _ in range(500):
        await idle(pilot)
        if app.site.replay is not None and app.screen is app.page("timeline") and app.page("timeline")._ready:
            return
        await pilot.pause(0.02)
    raise AssertionError("the trace was not opened")


async def test_steps_and_crashes_and_back(tmp_path: Path, trace: str) -> None:
    """Both ends hold, and going back shows exactly the screen that was there."""
    app = replaying(tmp_path, trace)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        replay = app.site.replay
        assert replay is not None
        last = len(replay.steps)
        assert f"step 1 of {last}" in screen_text(app)
        await press(pilot, "left_square_bracket")
        assert app.site.step == 0 and "this is the first step" in told(app)
        await press(pilot, "right_square_bracket", "right_square_bracket")
        await idle(pilot)
        third = screen_text(app)
        await press(pilot, "right_curly_bracket")
        assert app.site.step == replay.crashes[0]
        text = screen_text(app)
        assert "Lost" in text and "Saved" in text
        while app.site.step != 2:
            await press(pilot, "left_square_bracket")
        assert screen_text(app) == third
        await press(pilot, "g", *str(last), "enter")
        assert app.site.step == last - 1
        await pilot.click("#scrub", offset=(40, 0))
        assert 0 < app.site.step < last - 1, "a click on the line of all steps goes there"


async def test_nothing_can_be_changed_and_every_screen_says_so(tmp_path: Path, trace: str) -> None:
    """REPLAY and READ ONLY on all four tabs; a key that changes says why it does not."""
    app = replaying(tmp_path, trace)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await press(pilot, "right_curly_bracket")
        for tab in ("1", "2", "3", "4"):
            await press(pilot, tab)
            header = screen_text(app).splitlines()[0]
            assert "REPLAY" in header and "READ ONLY" in header
            assert "Queue fixes" not in screen_text(app)
        await press(pilot, "1", "space")
        assert "this is a replay" in told(app)
        for page in map(app.page, ("triage", "images", "runs", "timeline")):
            for act in page.keys.acts:
                assert not act.changes or "this is a replay" in page.reason(act), (page.tab, act.name)


async def test_the_pages_show_the_repository_as_it_was(tmp_path: Path, trace: str) -> None:
    """At the crash the copy is broken and offered to be mended; at the end it is whole."""
    app = replaying(tmp_path, trace)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await press(pilot, "right_curly_bracket", "1")
        assert "B-COPY" in screen_text(app)
        assert "BRK=1" in screen_text(app)
        replay = app.site.replay
        assert replay is not None
        await press(pilot, "4", "g", *str(len(replay.steps)), "enter", "1")
        assert "BRK=0" in screen_text(app)


async def test_playing_goes_on_by_itself_and_ends_at_the_end(tmp_path: Path, trace: str) -> None:
    """space plays, dot makes it faster, and it holds at the last step."""
    app = replaying(tmp_path, trace)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        page = cast(TimelinePage, app.page("timeline"))
        await press(pilot, "full_stop", "full_stop", "full_stop", "full_stop", "space")
        deadline = time.monotonic() + 60
        replay = app.site.replay
        assert replay is not None
        while app.site.step < len(replay.steps) - 1 and time.monotonic() < deadline:
            await pilot.pause(0.05)
        assert app.site.step == len(replay.steps) - 1
        while page._playing is not None and time.monotonic() < deadline:
            await pilot.pause(0.05)
        assert page._playing is None


async def test_mark_and_compare(tmp_path: Path, trace: str) -> None:
    """What differs between two steps is told in words."""
    app = replaying(tmp_path, trace)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await press(pilot, "m", "right_curly_bracket", "d")
        assert "compared with step" in screen_text(app)
        assert "new: BRK" in screen_text(app)


async def test_a_branch_is_a_live_simulation(tmp_path: Path, trace: str) -> None:
    """b at the crash, r mends in the simulation, esc goes back to the trace, which is as it was."""
    app = replaying(tmp_path, trace)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await press(pilot, "right_curly_bracket", "b")
        assert "A live simulation" in screen_text(app)
        await press(pilot, "escape")
        assert "SIMULATED" in screen_text(app) and "BRK=1" in screen_text(app)
        await press(pilot, "r")
        assert "Simulated: done" in screen_text(app)
        await press(pilot, "escape")
        assert "BRK=0" in screen_text(app)
        await press(pilot, "escape")
        assert "REPLAY" in screen_text(app) and "BRK=1" in screen_text(app)


async def test_a_simulation_begins_where_playing_was(tmp_path: Path, trace: str) -> None:
    """b holds what plays, and the step that the simulation goes on from cannot be changed below it."""
    app = replaying(tmp_path, trace)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        page = cast(TimelinePage, app.page("timeline"))
        await press(pilot, "right_curly_bracket", "space", "b", "escape")
        assert page._playing is None
        step = app.site.step
        await press(pilot, "4", "right_square_bracket", "down")
        assert app.site.step == step and "SIMULATED" in screen_text(app)


async def test_leaving_a_replay_goes_home(tmp_path: Path, trace: str) -> None:
    """Without a repository: to the ways to begin."""
    app = replaying(tmp_path, trace)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await press(pilot, "escape")
        assert "No repository is connected" in screen_text(app)


async def test_what_is_no_trace_is_told(tmp_path: Path) -> None:
    """With the file and what to do."""
    path = tmp_path / "none.jsonl"
    path.write_text("this is no trace\n")
    app = replaying(tmp_path, str(path))
    async with app.run_test(size=(80, 24)) as pilot:
        await idle(pilot)
        assert "The trace could not be opened" in screen_text(app)
        assert "line 1" in " ".join(screen_text(app).split())
