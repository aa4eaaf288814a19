"""Plays a tour: says something, presses keys, and waits until the screen shows what it should.

The same driver serves three ends: a demonstration at reading speed, a quick set-up after which the
operator goes on, and a test, for which a tour that does not find its words fails.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from textual import events
from textual.keys import _character_to_key

from engine.errors import DiskwrightError, StorageError
from tui.console.dialogs.choose import Choice, Choose
from tui.console.draw.lines import Span
from tui.training.tours import TOURS, Tour, TourStep, make_trace

if TYPE_CHECKING:
    from tui.console.app import ConsoleApp

PATIENCE_S = 60.0
"""The words of a step are waited for so long; a run of the demo takes seconds."""
_LOOK_S = 0.1
_SETTLED_S = 0.05


class TourFailed(StorageError):
    """The screen does not show what the tour relies on."""

    code = "tour-failed"


class Player:
    """One tour on one console. ``pace``: 1 for reading speed, 0 for none."""

    def __init__(self, app: ConsoleApp, tour: Tour, pace: float) -> None:
        self._app = app
        self._tour = tour
        self._pace = pace
        self._number = 0
        self.caption = ""
        self.hint = ""
        self._on = asyncio.Event()

    @property
    def place(self) -> str:
        """Which step, and how to go on or away."""
        return f" {self._number}/{len(self._tour.steps)} ctrl+n next, ctrl+t ends "

    def next(self) -> None:
        """Do not wait any longer at this step."""
        self._on.set()

    async def play(self) -> None:
        """From the first step to the last; TourFailed at the first that does not come true."""
        for number, step in enumerate(self._tour.steps, 1):
            self._number, self.caption, self.hint = number, step.caption, step.hint
            self._app.refresh_pages()
            await self._do(step)
            await self._expect(step)
            await self._wait(step.pause_s * self._pace)

    async def _do(self, step: TourStep) -> None:
        for key in step.keys:
            await self._press(key, None)
        for character in step.text:
            await self._press(_character_to_key(character), character)

    async def _press(self, key: str, character: str | None) -> None:
        self._app.post_message(events.Key(key, character or (key if len(key) == 1 else None)))
        await asyncio.sleep(_SETTLED_S)
        while self._app.jobs.deciding:
            await asyncio.sleep(_LOOK_S)

    async def _expect(self, step: TourStep) -> None:
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while step.expect and step.expect not in self._app.screen_text():
            if asyncio.get_running_loop().time() > deadline:
                raise TourFailed(
                    f"the tour expected {step.expect!r} on the screen at step {self._number}", "Try it again"
                )
            await asyncio.sleep(_LOOK_S)

    async def _wait(self, seconds: float) -> None:
        self._on.clear()
        if seconds > 0:
            try:
                await asyncio.wait_for(self._on.wait(), seconds)
            except TimeoutError:
                return


def choose(app: ConsoleApp) -> None:
    """Ask which tour, and whether to watch it or only to have it set up."""
    choices = []
    for key, (name, tour) in zip("abcdefgh", TOURS.items(), strict=False):
        del name
        minutes = max(1, round(tour.minutes))
        choices.append(Choice(key, Span(key, "key"), f"{tour.title}: watch it, {minutes} minutes"))
        choices.append(Choice(key.upper(), Span(key.upper(), "key"), f"{tour.title}: set it up, then I go on"))
    names = dict(zip("abcdefgh", TOURS, strict=False))

    def chosen(key: str | None) -> None:
        if key:
            begin(app, TOURS[names[key.lower()]], 1.0 if key.islower() else 0.0)

    app.push_screen(Choose("Tours", lambda: choices, left=3, search=False, hot=True), chosen)


def begin(app: ConsoleApp, tour: Tour, pace: float) -> None:
    """Prepare what the tour needs, then play it."""
    if tour.needs == "trace":
        path = os.path.join(app.site.state, "tour.jsonl")

        def ready(value: object) -> None:
            del value
            app.open_trace(path, lambda: app.play(Player(app, tour, pace), tour.hand_over))

        app.do("tour", lambda: _make(path), ready, "The tour could not be prepared", "Preparing the tour.")
    else:
        from tui.console.control.demo import make

        make(app, fresh=True, then=lambda: app.play(Player(app, tour, pace), tour.hand_over))


def _make(path: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    make_trace(path)


async def run(app: ConsoleApp, player: Player, hand_over: str) -> None:
    """Play, and say at the end that the operator goes on."""
    try:
        await player.play()
        app.tell(hand_over)
    except DiskwrightError as error:
        app.failed("The tour was ended", error)
    finally:
        app.tour = None
        app.refresh_pages()
