"""Estimates of time: from what was measured here, with their source, or none."""

from __future__ import annotations

from pathlib import Path

from tests.console_model.conftest import Host
from tests.console_model.kit import clean, fix, view
from tui.view import estimates
from tui.view.estimates import Sample, TimeRange, Times, total

MIB = 1 << 20


def test_nothing_measured_is_no_estimate():
    """Without a measurement there is no number, and the text is a question mark."""
    found = Times().range("mend", "B-COPY", 100 * MIB)
    assert not found.known and found.text == "?"


def test_much_data_is_estimated_by_its_rate():
    """Twice the data takes twice the time; the slowest and the quickest run are the range."""
    times = Times([Sample("mend", "B-COPY", 100 * MIB, 1.0), Sample("mend", "B-IMPORT", 100 * MIB, 4.0)])
    assert times.range("mend", "B-COPY", 200 * MIB)[:2] == (2.0, 8.0)


def test_small_work_is_estimated_by_its_rule():
    """What moves no data takes as long as the same rule took before."""
    times = Times([Sample("clean", "C-REMOVED", 0, 0.5), Sample("clean", "C-LITTER", 0, 9.0)])
    found = times.range("clean", "C-REMOVED", 0)
    assert found.low_s is not None and found.low_s < 0.5 < (found.high_s or 0) and "1 earlier run" in found.source


def test_the_engines_own_estimate_is_used_when_there_is_nothing_better():
    """Its throughput of this host gives a range, and is named as the source."""
    found = Times().range("mend", "B-COPY", 100 * MIB, 10.0)
    assert found.known and "throughput" in found.source


def test_a_fix_shows_the_time_that_its_kind_took():
    """The middle of the range stands beside the fix; where nothing is known what the engine says stays."""
    known, unknown = sorted(view([], [clean(1, 0), fix(2, "merge")]).fixes, key=lambda row: row.type)
    times = Times([Sample("clean", known.rule, 0, 3.0), Sample("clean", known.rule, 0, 5.0)])
    assert [row.time_s for row in estimates.measured([known, unknown], times)] == [4.0, unknown.time_s]


def test_a_sum_with_an_unknown_part_is_unknown():
    """Nobody can say how long all of it takes when one step is unknown."""
    known = TimeRange(1.0, 2.0, "x")
    assert total([known, known])[:2] == (2.0, 4.0)
    assert not total([known, TimeRange()]).known


def test_samples_are_kept_and_bounded(host: Host):
    """A measurement is there after a restart; the oldest of many goes; a damaged note is an empty one."""
    for number in range(250):
        estimates.note(host.notes, "e" * 32, Sample("mend", f"B-{number}", 0, 1.0))
    times = estimates.load(host.notes, "e" * 32)
    assert times.range("mend", "B-249", 0).known and not times.range("mend", "B-0", 0).known
    Path(host.notes.path(f"{'e' * 32}/times.json")).write_text('[[1], ["a", "b", 1, -5], "x"]', encoding="utf-8")
    assert not estimates.load(host.notes, "e" * 32).range("mend", "B-249", 0).known
