"""Keys in the order in which they were typed: each is given to the screen on top when all before it have been obeyed.

What a key does is the screen's to know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from textual import events

from tui.console.jobs import Jobs
from tui.console.messages import Messages


class TakesKeys(Protocol):
    """The screen on top."""

    def take_key(self, event: events.Key) -> bool:
        """Do what a key does; False when it means nothing here."""

    def show_message(self) -> None:
        """Write the message that stands now, or that there is none."""


class Keyboard:
    """Gives keys to whatever ``top`` returns, None for nobody."""

    def __init__(
        self, top: Callable[[], TakesKeys | None], jobs: Jobs, messages: Messages, clock: Callable[[], float]
    ) -> None:
        self._top = top
        self._jobs = jobs
        self._messages = messages
        self._clock = clock
        self._held: list[events.Key] | None = None
        self.answering = False
        """A key is being obeyed: what is told now answers it."""

    def take(self, event: events.Key) -> bool:
        """Give a key to the screen on top; False when it means nothing there."""
        if self._held is not None:
            self._held.append(event)
            return True
        screen = self._top()
        if screen is None:
            return False
        if self._messages.key_pressed(self._clock()):
            screen.show_message()
        self.answering = True
        try:
            return screen.take_key(event)
        finally:
            self.answering = False

    def hold(self, then: Callable[[], None]) -> None:
        """Call ``then`` once all decisions are saved; keys that are typed meanwhile wait behind it."""
        self._held = []

        def go_on(value: Any, error: BaseException | None) -> None:
            del value, error
            held, self._held = self._held or [], None
            then()
            for event in held:
                self.take(event)

        self._jobs.in_turn(lambda: None, go_on)
