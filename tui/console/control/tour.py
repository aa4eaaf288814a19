"""Plays a tour: says something, presses keys, and waits until the screen shows what it should.

The same driver serves three ends: a demonstration at reading speed, a quick set-up after which the
operator goes on, and a test, for which a tour that does not find its words fails.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from textual import events
from textual.keys import _character_to_key

from engine.errors import DiskwrightError, StorageError
from tui.console.control import demo
from tui.console.control.navigation import open_trace
from tui.console.dialogs.choose import Choice, Choose
from tui.console.draw.lines import Span
from tui.console.messages import Caption
from tui.console.shell import PlayTour, Shell
from tui.training.demo import default_path
from tui.training.tours import TOURS, Tour, TourStep, make_trace

PATIENCE_S = 60.0
"""The words of a step are waited for so long; a run of the demo takes seconds."""
_LOOK_S = 0.1
_SETTLED_S = 0.05


class TourFailed(StorageError):
    """The screen does not show what the tour relies on."""

    code = "tour-failed"


class Player:
    """One tour on one console. ``pace``: 1 for reading speed, 0 for none; ``look`` returns the text of the screen."""

    def __init__(self, shell: Shell, tour: Tour, pace: float, look: Callable[[], str]) -> None:
        self._shell = shell
        self._tour = tour
        self._pace = pace
        self._look = look
        self._number = 0
        self._on = asyncio.Event()

    def next(self) -> None:
        """Do not wait any longer at this step."""
        self._on.set()

    async def play(self) -> None:
        """Play it from the first step to the last, then tell that the operator goes on.

        A step that does not come true ends it, which is told too. No caption is left, also when it is cancelled."""
        try:
            for number, step in enumerate(self._tour.steps, 1):
                self._number = number
                await self._play_step(step)
            self._shell.tell(self._tour.hand_over)
        except DiskwrightError as error:
            self._shell.failed("The tour was ended", error)
        finally:
            self._shell.messages.caption = None
            self._shell.refresh_pages()

    async def _play_step(self, step: TourStep) -> None:
        place = f" {self._number}/{len(self._tour.steps)} ctrl+n next, ctrl+t ends "
        self._shell.messages.caption = Caption(place, step.caption, step.hint)
        self._shell.refresh_pages()
        await self._press_keys(step)
        await self._expect(step)
        await self._wait(step.pause_s * self._pace)

    async def _press_keys(self, step: TourStep) -> None:
        for key in step.keys:
            await self._press(key, None)
        for character in step.text:
            await self._press(_character_to_key(character), character)

    async def _press(self, key: str, character: str | None) -> None:
        self._shell.post_message(events.Key(key, character or (key if len(key) == 1 else None)))
        await asyncio.sleep(_SETTLED_S)
        while self._shell.jobs.deciding:
            await asyncio.sleep(_LOOK_S)

    async def _expect(self, step: TourStep) -> None:
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while step.expect and step.expect not in self._look():
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


def choose(shell: Shell) -> None:
    """Ask which tour, and whether to watch it or only to have it set up."""
    choices = []
    for key, tour in zip("abcdefgh", TOURS.values(), strict=False):
        minutes = max(1, round(tour.minutes))
        choices.append(Choice(key, Span(key, "key"), f"{tour.title}: watch it, {minutes} minutes"))
        choices.append(Choice(key.upper(), Span(key.upper(), "key"), f"{tour.title}: set it up, then I go on"))
    tours = dict(zip("abcdefgh", TOURS.values(), strict=False))

    def chosen(key: str | None) -> None:
        if key:
            begin(shell, tours[key.lower()], 1.0 if key.islower() else 0.0)

    shell.open(Choose("Tours", lambda: choices, left=3, search=False, hot=True), chosen)


def begin(shell: Shell, tour: Tour, pace: float) -> None:
    """Prepare what the tour needs, then ask for it to be played."""

    def play() -> None:
        shell.post_message(PlayTour(tour, pace))

    if tour.needs == "trace":
        path = os.path.join(shell.site.state, "tour.jsonl")
        shell.do(
            "tour", lambda: _make(path), lambda value: open_trace(shell, path, play), "The tour could not be prepared",
            "Preparing the tour.",
        )  # fmt: skip
    else:
        demo.make(shell, fresh=True, root=_own_root(), then=play)


def _own_root() -> str:
    """Where the repository of a tour is made, each time anew: the operator's demo is left as it is."""
    return os.path.join(os.path.dirname(default_path()), "tour")


def _make(path: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    make_trace(path)
