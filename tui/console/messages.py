"""What the console tells: the newest stands in the status line of the page, all of it is kept to be read again."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from tui.console.draw.formats import clock
from tui.console.draw.lines import Cell, Line, Span

KEPT = 200
STANDS_S = 1.0
"""What nobody asked for stands at least so long, whatever is typed."""
NEWS_S = 6.0
"""Mere news leave by themselves then; warnings stay until a key is pressed."""


class Told(NamedTuple):
    """One message."""

    when: float
    text: str
    warning: bool
    asked: bool
    """It answers a key, so the next key may take it away at once."""

    @property
    def time(self) -> str:
        """Of day."""
        return clock(self.when)

    def line(self) -> Line:
        """For the status line."""
        return (Span(" "), Span("! ", "danger") if self.warning else Span(""), Span(self.text, "bold"))


class Messages:
    """The last messages; ``shown`` is the one that stands in the status line."""

    def __init__(self) -> None:
        self._all: deque[Told] = deque(maxlen=KEPT)
        self.shown: Told | None = None

    def add(self, told: Told) -> None:
        """Show a message in place of the one before."""
        self._all.append(told)
        self.shown = told

    @property
    def last(self) -> Told | None:
        """The newest."""
        return self._all[-1] if self._all else None

    def key_pressed(self, now: float) -> bool:
        """Take away what has stood long enough for a key to do so; whether anything was."""
        told = self.shown
        if told is None or not (told.asked or now - told.when >= STANDS_S):
            return False
        self.shown = None
        return True

    def time_passed(self, now: float) -> bool:
        """Take away news that are old; whether anything was."""
        told = self.shown
        if told is None or told.warning or now - told.when < NEWS_S:
            return False
        self.shown = None
        return True

    def listed(self) -> Sequence[Cell]:
        """All that are kept, the newest first."""
        return [(Span(f"{told.time}  ", "quiet"), *told.line()[1:2], Span(told.text)) for told in reversed(self._all)]
