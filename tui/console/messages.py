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


class Message(NamedTuple):
    """A sentence that was told."""

    when: float
    text: str
    warning: bool
    asked: bool
    """The message answers a key, so the next key may take it away at once."""

    @property
    def time(self) -> str:
        """The time of day at which it was told."""
        return clock(self.when)

    def line(self) -> Line:
        """Return the message as it stands in the status line."""
        return (Span(" "), Span("! ", "danger") if self.warning else Span(""), Span(self.text, "bold"))


class Caption(NamedTuple):
    """What a tour says while it is played."""

    place: str
    """Which step, and how to go on or away."""
    text: str
    hint: str


class Messages:
    """The last messages; ``shown`` is the one that stands in the status line."""

    def __init__(self) -> None:
        self._all: deque[Message] = deque(maxlen=KEPT)
        self.shown: Message | None = None
        self.caption: Caption | None = None
        """None while no tour is played."""

    def add(self, message: Message) -> None:
        """Show a message in place of the one before."""
        self._all.append(message)
        self.shown = message

    @property
    def last(self) -> Message | None:
        """The newest message, None before the first."""
        return self._all[-1] if self._all else None

    def key_pressed(self, now: float) -> bool:
        """Take away a message that has stood long enough for a key to do so; return whether there was one."""
        message = self.shown
        if message is None or not (message.asked or now - message.when >= STANDS_S):
            return False
        self.shown = None
        return True

    def time_passed(self, now: float) -> bool:
        """Take away news that are old; return whether there were any."""
        message = self.shown
        if message is None or message.warning or now - message.when < NEWS_S:
            return False
        self.shown = None
        return True

    def listed(self) -> Sequence[Cell]:
        """Return all messages that are kept, the newest first."""
        return [(Span(f"{item.time}  ", "quiet"), *item.line()[1:2], Span(item.text)) for item in reversed(self._all)]
