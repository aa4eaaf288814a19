"""Interrupting a process at a chosen effect, the same on simulated and on real doors.

Effects are numbered as in ``sim.hosts.crash``, so a number or a name means the same place everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

from engine.doors import Doors
from sim.hosts.crash import Effects, crashing
from sim.scenario.language.model import Point


class Reached(NamedTuple):
    """Where a process was interrupted."""

    number: int
    name: str
    """The effect that did not happen any more (or, for ``stop``, that was the next one)."""


class Watch(Effects):
    """Counts effects and calls ``act`` just before the one that ``point`` names; never without one."""

    def __init__(self, point: Point | None = None, act: Callable[[Reached], None] = lambda reached: None) -> None:
        super().__init__()
        self.point = point
        self.reached: Reached | None = None
        self._act = act

    def on_reached(self, act: Callable[[Reached], None]) -> None:
        """Call ``act`` at the point, instead of what was to be called until now."""
        self._act = act

    def step(self, name: str) -> None:
        """Take note that an effect is about to happen, and interrupt the process when it is at the point."""
        self.alive()
        point = self.point
        if point is not None and self.reached is None and point.percent < 0:
            number = self.count + 1
            if number == point.effect or (name == point.before and self.names.count(name) + 1 == point.nth):
                self._interrupt(Reached(number, name))
        self.count += 1
        self.names.append(name)

    def at_share(self, start: int, size: int) -> None:
        """A write at ``start`` of an image of ``size`` bytes is about to happen; it is counted already."""
        point = self.point
        if point is not None and self.reached is None and point.percent >= 0 and start * 100 >= point.percent * size:
            self._interrupt(Reached(self.count, self.names[-1]))

    def _interrupt(self, reached: Reached) -> None:
        self.reached = reached
        self._act(reached)


def watching(doors: Doors, watch: Watch) -> Doors:
    """``doors`` whose effects ``watch`` sees."""
    return crashing(doors._replace(images=cast(Any, _Images(doors.images, watch))), watch)


class _Images:
    """Passes everything on; sessions tell how far they write."""

    def __init__(self, inner: Any, watch: Watch) -> None:
        self._inner = inner
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def open_session(self, chain: Any, writable: bool, direct: bool, later: bool = False) -> Any:
        session = self._inner.open_session(chain, writable, direct, later)
        return _Session(session, self._watch) if writable and self._watch.point is not None else session


class _Session:
    def __init__(self, inner: Any, watch: Watch) -> None:
        self._inner = inner
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, start: int, data: bytes) -> None:
        self._watch.at_share(start, self._inner.size)
        self._inner.write(start, data)

    def zero(self, start: int, length: int) -> None:
        self._watch.at_share(start, self._inner.size)
        self._inner.zero(start, length)
