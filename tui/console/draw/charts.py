"""Pictures in cells: how an amount changed, drawn as an area under its curve, with what it is measured by beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tui.console.draw.lines import Line, Span
from tui.console.draw.signs import Signs

_FAR = 1.5
"""A floor further below the curve than so many times its height is told instead of drawn: the change is what counts."""


class Scale(NamedTuple):
    """What the lowest and the highest line of a picture stand for."""

    low: int
    high: int
    floor: int = -1
    """What the lowest line is drawn for in another way: all that is kept below it. -1 for nothing."""

    def part(self, value: int) -> float:
        """Where a value is between them, 0 to 1."""
        return max(0.0, min(1.0, (value - self.low) / max(1, self.high - self.low)))


def scale(values: Sequence[int], rows: int, floor: int = -1) -> Scale:
    """Return a scale of ``rows`` lines on which the changes of ``values`` are seen; the lowest line is what is below
    ``floor`` if that is near."""
    low, high = min(values), max(values)
    height = max(1, high - low)
    if 0 <= floor < low and low - floor <= _FAR * height and rows > 1:
        return Scale(floor - (high - floor) // (rows - 1), high, floor)
    return Scale(max(0, low - max(1, height // 8)), high)


def area(values: Sequence[int | None], rows: int, signs: Signs, on: Scale, label: Callable[[int], str]) -> list[Line]:
    """Return ``rows`` lines, a column for each value, None for one that is not known, behind the axis with labels for
    the highest and the lowest, or for the floor. What is below the floor is drawn lighter."""
    margin, (low, high) = margin_of(on, label), _labels(on, label)
    lines: list[Line] = []
    for row in range(rows - 1, -1, -1):
        kept = row == 0 and on.floor >= 0
        name = high if row == rows - 1 else low if row == 0 else ""
        cells = "".join(_cell(value, row, rows, signs, on, kept) for value in values)
        edge = ("┤" if name else "│") if signs.unicode else "|"
        lines.append((Span(f"{name:>{margin}} {edge}", "quiet"), Span(cells, "quiet" if kept else "bar")))
    return lines


def _cell(value: int | None, row: int, rows: int, signs: Signs, on: Scale, kept: bool) -> str:
    if value is None:
        return " "
    eighths = round((on.part(value) * rows - row) * 8)
    if eighths <= 0:
        return " " if row else signs.levels[0]  # the curve is seen also where it is lowest
    if kept:
        return signs.room
    return signs.levels[min(eighths, 8) - 1] if signs.unicode or eighths < 8 else signs.bar


def _lowest(on: Scale) -> int:
    return on.floor if on.floor >= 0 else on.low


def axis(marks: Mapping[int, str], columns: int, margin: int, signs: Signs) -> Line:
    """Return the line below a picture, with words from some columns on; one that has no room is left out."""
    text = ""
    for column, words in sorted(marks.items()):
        place = min(column, max(0, columns - len(words)))
        if not text or len(text) < place:
            text = text.ljust(place) + words
    corner = "└" if signs.unicode else "+"
    return (Span(f"{' ' * margin} {corner}", "quiet"), Span(text[:columns], "quiet"))


def margin_of(on: Scale, label: Callable[[int], str]) -> int:
    """Return how many columns the labels of a scale take."""
    return max(map(len, _labels(on, label)))


def _labels(on: Scale, label: Callable[[int], str]) -> tuple[str, str]:
    """Of the lowest and the highest line; where they would be alike the lowest tells by how much it is less."""
    low, high = label(_lowest(on)), label(on.high)
    return (f"{low} - {label(on.high - _lowest(on)).strip()}" if low == high else low), high


def over_time(
    points: Sequence[tuple[float, int]], columns: int, start: float, end: float, least: bool = False
) -> list[int | None]:
    """Return the value that held at the end of each of ``columns`` equal spans of time, or the ``least`` that held in
    it; None before the first."""
    found: list[int | None] = []
    index, value = 0, None
    for column in range(columns):
        until = start + (end - start) * (column + 1) / columns
        lowest = value
        while index < len(points) and points[index][0] <= until:
            value = points[index][1]
            lowest = value if lowest is None else min(lowest, value)
            index += 1
        found.append(lowest if least else value)
    return found
