"""How long fixes take: a range from what was measured on this host, with where it is from, or nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from tui.notes import Notes, folder_of
from tui.text.amounts import compact, duration
from tui.view.fixes import FixRow

_SAMPLES = 200
_MUCH_BYTES = 16 << 20
"""From here on the time depends on the bytes, below on the kind of fix."""
_SPREAD = 1.3
"""A single measurement is taken for this much more or less."""
_QUIET_S = 60.0
_QUIET_STEPS = 5
"""Work that has not come on for as long as so many percents took, and a minute, stands still."""
_ENOUGH = 8
_SLOWER = 4


class TimeRange(NamedTuple):
    """A time span with its source."""

    low_s: float | None = None
    """None: no estimate."""
    high_s: float | None = None
    source: str = "no estimate: nothing like it was measured here before"

    @property
    def known(self) -> bool:
        """There is an estimate."""
        return self.low_s is not None

    @property
    def text(self) -> str:
        """In a table: "20s", "2m-4m", "?"."""
        if self.low_s is None or self.high_s is None:
            return "?"
        low, high = duration(self.low_s), duration(self.high_s)
        return f"~{low}" if low == high else f"{low}-{high}"


NO_ESTIMATE = TimeRange()


class Sample(NamedTuple):
    """One fix that was run to its end."""

    type: str
    rule: str
    io_bytes: int
    seconds: float


class Times:
    """What was measured on this host for one repository, as it was when this was made."""

    def __init__(self, samples: Iterable[Sample] = ()) -> None:
        self._samples = tuple(samples)

    def of(self, row: FixRow) -> TimeRange:
        """The range for one fix."""
        return self.range(row.type, row.rule, row.io_bytes, row.time_s)

    def range(self, type: str, rule: str, io_bytes: int, engine_s: float | None = None) -> TimeRange:
        """The range for a fix that reads and writes ``io_bytes``; ``engine_s``: the engine's own estimate."""
        if io_bytes >= _MUCH_BYTES:
            found = [s.seconds / s.io_bytes * io_bytes for s in self._samples if s.type == type and _much(s)]
        else:
            found = [s.seconds for s in self._samples if s.rule == rule and not _much(s)]
        if found:
            spread = _SPREAD if len(found) == 1 else 1.0
            runs = "1 earlier run" if len(found) == 1 else f"{len(found)} earlier runs"
            return TimeRange(min(found) / spread, max(found) * spread, f"from {runs} on this host")
        if engine_s is not None:
            return TimeRange(engine_s / _SPREAD, engine_s * _SPREAD, "from the throughput measured on this host")
        return NO_ESTIMATE


def pace_of(done: Sequence[tuple[float, int]], size_bytes: int, now: float) -> str:
    """What the pace of work says of its end: "" as long as it comes on, else a sentence. ``done``: bytes that were done
    by which time; only whole percents are noted, so what is large is given longer."""
    if len(done) < 2 or size_bytes <= 0:
        return ""
    (began, first), (last, most) = done[0], done[-1]
    if last <= began or most <= first:
        return ""
    rate = (most - first) / (last - began)
    each_s = size_bytes / 100 / rate
    if now - last > max(_QUIET_S, _QUIET_STEPS * each_s):
        return f"It has not come on for {duration(now - last)}: as it goes it does not converge."
    if len(done) < _ENOUGH:
        return ""
    begin, before = done[len(done) * 3 // 4 - 1]
    lately, earlier = (most - before) / max(last - begin, 1.0), (before - first) / max(begin - began, 1.0)
    if lately < earlier / _SLOWER:
        return f"It gets slower: {compact(int(lately))}/s lately, {compact(int(earlier))}/s before."
    return ""


def measured(rows: Iterable[FixRow], times: Times) -> tuple[FixRow, ...]:
    """The rows with the middle of the range for the time of each that has one."""
    return tuple(_measured(row, times.of(row)) for row in rows)


def _measured(row: FixRow, found: TimeRange) -> FixRow:
    if found.low_s is None or found.high_s is None:
        return row
    return row._replace(time_s=(found.low_s + found.high_s) / 2)


def _much(sample: Sample) -> bool:
    return sample.io_bytes >= _MUCH_BYTES and sample.seconds > 0


def total(ranges: Iterable[TimeRange]) -> TimeRange:
    """All of them one after the other; without an estimate when one has none."""
    low = high = 0.0
    sources: set[str] = set()
    missing = count = 0
    for item in ranges:
        count += 1
        if item.low_s is None or item.high_s is None:
            missing += 1
            continue
        low, high = low + item.low_s, high + item.high_s
        sources.add(item.source)
    if missing:
        return TimeRange(source=f"no estimate: {missing} of {count} steps are of a kind never measured here")
    return TimeRange(low, high, "; ".join(sorted(sources)))


def load(notes: Notes, identity: str) -> Times:
    """What is known now."""
    return Times(_samples(notes.glance(_name(identity), [])))


def note(notes: Notes, identity: str, sample: Sample) -> None:
    """Remember one more measurement; the oldest is forgotten."""

    def derive(data: list[Any]) -> list[Any]:
        kept = [list(item) for item in _samples(data)]
        return [*kept, list(sample)][-_SAMPLES:]

    notes.change(_name(identity), [], derive)


def _name(identity: str) -> str:
    return f"{folder_of(identity)}/times.json"


def _samples(data: list[Any]) -> list[Sample]:
    found = []
    for item in data:
        if isinstance(item, list) and len(item) == len(Sample._fields):
            kind, rule, size, seconds = item
            good = isinstance(kind, str) and isinstance(rule, str) and type(size) is int
            if good and isinstance(seconds, int | float) and 0 <= seconds < float("inf"):
                found.append(Sample(kind, rule, size, float(seconds)))
    return found
