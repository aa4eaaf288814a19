"""Signs and words of statuses, in Unicode or in ASCII where the terminal has no more."""

from __future__ import annotations

from typing import NamedTuple

from tui.console.draw.lines import Line, Span
from tui.text.statuses import COUNTED, LOOKS, State, code_of, role_of


class Signs(NamedTuple):
    """How this terminal is written to."""

    unicode: bool = True

    @property
    def ellipsis(self) -> str:
        """The sign for what was cut off."""
        return "…" if self.unicode else "~"

    @property
    def arrow(self) -> str:
        """Between before and after."""
        return "→" if self.unicode else "->"

    @property
    def bar(self) -> str:
        """A filled cell of a bar."""
        return "█" if self.unicode else "#"

    @property
    def room(self) -> str:
        """An empty cell of a bar."""
        return "░" if self.unicode else "."

    @property
    def levels(self) -> str:
        """Heights of a curve, from the lowest to the highest."""
        return "▁▂▃▄▅▆▇█" if self.unicode else "_.-=+*#%"

    def sign(self, status: str) -> str:
        """The shape of a status."""
        look = LOOKS.get(status)
        if look is None:
            return "?"
        return look.sign if self.unicode else look.ascii

    def short(self, status: str) -> Span:
        """Sign and three-letter code: ``✖ BRK``; "gone" and "" are words of their own."""
        look = LOOKS.get(status)
        return Span(look.signed(look.code, self.unicode) if look is not None else status, role_of(status))

    def word(self, status: str, meaning: str) -> Line:
        """Sign, word and what it means: ``◐ DEGRADED   usable, can be made better``."""
        look = LOOKS.get(status)
        name = look.signed(status.upper(), self.unicode) if look is not None else f"? {status.upper()}"
        return (Span(name, role_of(status)), Span(f"   {meaning}" if meaning else ""))

    def change(self, before: str, after: str) -> Line:
        """``✖ BRK → ◐ DEG``."""
        if not before and not after:
            return (Span("-", "quiet"),)
        return (self.short(before), Span(f" {self.arrow} "), self.short(after))

    def counts(self, counts: dict[str, int], gap: str = " ") -> Line:
        """``✖ BRK=3 ◐ DEG=5``; a status that nothing has is left out, except the three an image can have."""
        spans: list[Span] = []
        for status in COUNTED:
            number = counts.get(status, 0)
            if not number and status in (State.UNKNOWN, State.REMOVED):
                continue
            role = role_of(status) if number else "quiet"
            spans += [Span(f"{self.sign(status)} {code_of(status)}={number}", role), Span(gap)]
        return tuple(spans[:-1])

    def gauge(self, share: float, columns: int) -> str:
        """A bar of ``columns`` cells, filled to ``share`` (0 to 1)."""
        full = round(max(0.0, min(1.0, share)) * columns)
        return self.bar * full + self.room * (columns - full)

    def curve(self, values: list[int], columns: int, floor: int = 0) -> str:
        """``values`` as a line of heights in ``columns`` cells; ``floor`` is the bottom, the highest the top."""
        if not values or columns <= 0:
            return ""
        low, high = min(floor, *values), max(values)
        span = max(high - low, 1)
        top = len(self.levels) - 1
        picked = [values[min(len(values) - 1, index * len(values) // columns)] for index in range(columns)]
        return "".join(self.levels[(value - low) * top // span] for value in picked)
