"""Tours come true: each is played to its end on a real repository or a real trace, without waiting."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, cast

import pytest
from textual.pilot import Pilot

from engine.errors import StorageError
from tests.console.kit import FixedSite, console, idle, press, running, sample_view, screen_text
from tui.console.app import ConsoleApp
from tui.console.control import demo as demo_module
from tui.console.control import tour as tour_module
from tui.console.shell import PlayTour
from tui.console.site import Site
from tui.training.demo import default_path
from tui.training.tours import TOURS


async def until(pilot: Pilot[Any], text: str, patience_s: float = 60.0) -> None:
    """Wait for words on the screen."""
    deadline = time.monotonic() + patience_s
    app = cast(ConsoleApp, pilot.app)
    while text not in app.screen_text():
        assert time.monotonic() < deadline, f"{text!r} is not on the screen\n{app.screen_text()}"
        await pilot.pause(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(TOURS))
@pytest.mark.parametrize("size", [(80, 24), (160, 50)], ids=["small", "large"])
async def test_a_tour_comes_to_its_end(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    """Every step shows what it promises, and then the operator is told to go on."""
    app = console(Site("host-a", str(tmp_path / "host-state" / "host-a"), time.time))
    ended: list[BaseException] = []
    app.failed = lambda what, error: ended.append(error)  # type: ignore[method-assign]
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        tour_module.begin(app, TOURS[name], 0.0)
        deadline = time.monotonic() + 120
        started = False
        while not ended and time.monotonic() < deadline:
            await pilot.pause(0.05)
            started = started or app.messages.caption is not None
            if started and app.messages.caption is None:
                break
        assert not ended, f"{ended[0]}\n{screen_text(app)}"
        assert started and app.messages.caption is None


async def test_a_tour_that_does_not_find_its_words_is_ended_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says which words it expected; the console lives."""
    monkeypatch.setattr(tour_module, "PATIENCE_S", 0.2)
    app = console(Site("host-a", str(tmp_path / "state"), time.time))
    async with app.run_test() as pilot:
        wrong = TOURS["repair"]._replace(steps=(TOURS["repair"].steps[0]._replace(expect="words that are nowhere"),))
        app.post_message(PlayTour(wrong, 0.0))
        await until(pilot, "The tour was ended")
        assert "words that are nowhere" in screen_text(app)
        assert app.messages.caption is None


async def test_a_tour_can_be_ended(tmp_path: Path) -> None:
    """ctrl+t; ctrl+n goes on at once."""
    app: ConsoleApp = console(Site("host-a", str(tmp_path / "state"), time.time))
    async with app.run_test() as pilot:
        await idle(pilot)
        steps = tuple(step._replace(keys=(), text="", expect="") for step in TOURS["repair"].steps[:3])
        app.post_message(PlayTour(TOURS["repair"]._replace(steps=steps), 1.0))
        await until(pilot, "1/3")
        await press(pilot, "ctrl+n")
        await until(pilot, "2/3")
        await press(pilot, "ctrl+t")
        for _ in range(100):
            if app.messages.caption is None:
                break
            await asyncio.sleep(0.02)
        assert app.messages.caption is None


async def test_a_tour_has_a_repository_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made anew for each tour; the operator's demo, and what is connected of it, stays as it is."""
    made: list[str] = []

    def build(host: str, state: str, fresh: bool, root: str) -> str:
        made.append(root)
        raise StorageError("made up", "")

    monkeypatch.setattr(demo_module, "_build", build)
    async with running(console(FixedSite(tmp_path / "state", [sample_view()]))) as pilot:
        tour = next(tour for tour in TOURS.values() if tour.needs == "demo")
        tour_module.begin(cast(ConsoleApp, pilot.app), tour, 0.0)
        await until(pilot, "made up")
    assert made and made[0] not in ("", default_path())
