"""Space and work over time as lines of a pane."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Sequence

from tui.console.draw import charts
from tui.console.draw.formats import clock
from tui.console.draw.lines import Span
from tui.console.draw.signs import Signs
from tui.console.widgets.pane import Item, Paragraph
from tui.text.amounts import compact, difference, duration, moment
from tui.work.runs import Run

_LEAST_ROWS, _MOST_ROWS = 4, 16
_A_DAY_S = 86_400.0
_EDGE_COLUMNS = 3

Points = Sequence[tuple[float, int]]
"""(when, how much), the first first."""


def space(points: Points, now: float, reserve: int, columns: int, rows: int, signs: Signs) -> list[Item]:
    """Free space with its lowest point, and the reserve where that is near."""
    low = min(points, key=lambda point: point[1])
    height = max(_LEAST_ROWS, min(_MOST_ROWS, rows - 6))
    on = charts.scale([free for _, free in points], height, reserve)
    width = columns - charts.margin_of(on, compact) - _EDGE_COLUMNS
    # what is lowest counts, however short it was: each column shows the least of its time
    values = charts.over_time(points, width, points[0][0], now, least=True)
    kept = f"   {signs.room * 2} up to the reserve of {compact(reserve)}" if on.floor >= 0 else ""
    now_free = points[-1][1]
    lowest = f"lowest {compact(low[1])}{difference(now_free, low[1])} at {moment(low[0])}"
    return [
        Paragraph("", (Span(f"now {compact(now_free)}", "bold"), Span(f"   {lowest}{kept}"))),
        (),
        *charts.area(values, height, signs, on, compact),
        _times(points[0][0], now, width, charts.margin_of(on, compact), signs),
    ]


def pace(run: Run, points: Points, end: float, columns: int, rows: int, signs: Signs) -> list[Item]:
    """What was done, and below it how fast, on one axis of time."""
    height = max(_LEAST_ROWS, min(_MOST_ROWS, (rows - 7) // 2))
    start = points[0][0]
    most = charts.Scale(0, max(1, points[-1][1]))
    width = columns - 8 - _EDGE_COLUMNS
    values = charts.over_time(points, width, start, end)
    paces = speeds(points, width, start, end)
    fastest = charts.Scale(0, max(1, *paces))
    took = max(end - start, 0.1)
    mean = compact(int(points[-1][1] / took))
    step = run.current
    now = f"   step {step.number}: {step.what}" if step is not None else ""
    return [
        (Span(f"{compact(points[-1][1])} in {_took(took)}", "bold"), Span(f"   {mean}/s on average{now}")),
        *_labelled("Done", charts.area(values, height, signs, most, _eight)),
        *_labelled("Per second", charts.area(list(paces), height, signs, fastest, _eight)),
        _times(start, end, width, 8, signs),
    ]


def _took(seconds: float) -> str:
    """As exact as the average beside it needs it."""
    return f"{seconds:.1f}s" if seconds < 10 else duration(seconds)


def _labelled(title: str, lines: Sequence[Item]) -> list[Item]:
    return [(Span(title, "head"),), *lines]


def _eight(count: int) -> str:
    return f"{compact(count):>8}"


def speeds(points: Points, columns: int, start: float, end: float) -> list[int]:
    """Bytes per second in the time of each column: what was done evenly between the times that were noted. Their mean
    is that of the whole."""
    each = max(end - start, 0.1) / columns
    reached = [_reached(points, start + each * column) for column in range(columns + 1)]
    return [round((after - before) / each) for before, after in itertools.pairwise(reached)]


def _reached(points: Points, when: float) -> float:
    """What was done by then."""
    index = bisect_right(points, when, key=lambda point: point[0])
    if index in (0, len(points)):
        return points[max(0, index - 1)][1]
    (began, before), (ended, after) = points[index - 1 : index + 1]
    return before + (after - before) * (when - began) / max(ended - began, 0.001)


def _times(start: float, end: float, columns: int, margin: int, signs: Signs) -> Item:
    name = clock if end - start < _A_DAY_S else moment
    last = name(end)
    return charts.axis({0: name(start), columns - len(last): last}, columns, margin, signs)


def done(run: Run) -> list[tuple[float, int]]:
    """What a run has moved, over all its steps, at each time at which that was noted. What a step found done when it
    began, and a stage that begins again at nothing, are no work of it."""
    found: list[tuple[float, int]] = []
    moved = 0
    for step in sorted((step for step in run.steps if step.samples), key=lambda step: step.samples[0][0]):
        before = step.samples[0][1]
        for when, count in step.samples:
            moved += max(0, count - before)
            before = count
            found.append((when, moved))
    return found
