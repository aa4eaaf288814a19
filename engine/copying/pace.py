"""How fast data moves: a limit in bytes per second that may change at any moment, kept by waiting after what moved."""

from __future__ import annotations

from collections.abc import Callable

from engine.doors.clock import Clock

_LOOK_AGAIN_S = 1.0
_STEP_S = 0.5
"""After so long a wait the limit is asked for again, and whether to stop."""
_AHEAD_S = 0.05
"""What is ahead of the limit by less is not waited for."""


def noted(clock: Clock, look: Callable[[], int | None], rate: int) -> Callable[[], int]:
    """Return what tells a limit that is noted somewhere: it has a look once in a while, and begins with ``rate``.
    ``look`` returns None when nothing is noted."""
    now, looked = rate, clock.monotonic()

    def current() -> int:
        nonlocal now, looked
        if clock.monotonic() > looked + _LOOK_AGAIN_S:
            looked = clock.monotonic()
            found = look()
            now = now if found is None else found
        return now

    return current


class Pace:
    """What one run of work may move."""

    def __init__(self, clock: Clock, rate: Callable[[], int], check: Callable[[], None]) -> None:
        """``rate``: the limit now, 0 for none; ``check`` is called while it waits, and may raise to stop."""
        self._clock = clock
        self._rate = rate
        self._check = check
        self._ahead = 0.0
        """Bytes that were moved and that the limit did not allow yet."""
        self._since = clock.monotonic()
        self.waited = False
        """The work would have been faster."""

    def moved(self, count: int) -> None:
        """Return when so many bytes more were not too many. Time in which nothing moved is not made up for."""
        self._ahead += count
        while self._is_ahead():
            self.waited = True
            self._clock.sleep(min(_STEP_S, self._ahead / max(1, self._rate())))
            self._check()

    def _is_ahead(self) -> bool:
        now, rate = self._clock.monotonic(), self._rate()
        self._ahead = max(0.0, self._ahead - (now - self._since) * rate) if rate else 0.0
        self._since = now
        return self._ahead > rate * _AHEAD_S
