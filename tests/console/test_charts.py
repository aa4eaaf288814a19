"""Pictures in cells: changes are seen whatever the amounts, axes tell them, and nothing is wider than asked for."""

from __future__ import annotations

import pytest

from tui.console.draw import charts
from tui.console.draw.lines import plain
from tui.console.draw.signs import Signs
from tui.text.amounts import compact, difference

GiB = 1 << 30


def drawn(values: list[int | None], rows: int = 4, floor: int = -1, unicode: bool = True) -> list[str]:
    known = [value for value in values if value is not None]
    on = charts.scale(known, rows, floor)
    return [plain(line) for line in charts.area(values, rows, Signs(unicode), on, compact)]


def test_a_small_change_of_a_large_amount_is_seen() -> None:
    """The scale is that of the change; the axis tells its two ends."""
    lines = drawn([900 * GiB, 899 * GiB, 900 * GiB])
    assert lines[0] == "900.0G ┤█ █" and lines[-1].endswith("┤█▄█")
    assert compact(charts.scale([900 * GiB, 899 * GiB], 4).low) == "898.9G"


def test_two_ends_that_look_alike_tell_their_difference() -> None:
    """A few megabytes of many gigabytes are a change too."""
    lines = drawn([73 * GiB, 73 * GiB - (4 << 20)])
    assert lines[0].startswith("       73.0G ┤") and lines[-1].startswith("73.0G - 4.5M ┤")
    assert difference(73 * GiB, 73 * GiB - (4 << 20)) == " (-4.0M)"
    assert not difference(73 * GiB, 72 * GiB) and not difference(5, 5)


def test_a_floor_that_is_near_is_the_lowest_line_of_its_own() -> None:
    """What is kept looks other; a floor far below is not drawn."""
    assert drawn([12 * GiB, 8 * GiB], floor=5 * GiB)[-1] == " 5.0G ┤░░"
    assert charts.scale([900 * GiB, 899 * GiB], 4, 5 * GiB).floor == -1


@pytest.mark.parametrize("rows", [2, 4, 9])
@pytest.mark.parametrize("values", [[0], [5, 5, 5], [0, 1], [None, 3, 7], [1 << 60, 0]])
def test_every_line_is_as_wide_as_the_values_and_their_axis(rows: int, values: list[int | None]) -> None:
    """Also where nothing changes, where nothing is known, and in ASCII, which has no other characters."""
    for unicode in (True, False):
        lines = drawn(values, rows, 0, unicode)
        assert len(lines) == rows and len({len(line) for line in lines}) == 1
        assert unicode or all(line.isascii() for line in lines)


def test_over_time_each_column_has_what_held_then() -> None:
    """Before the first value nothing is known."""
    assert charts.over_time([(10.0, 1), (20.0, 2)], 4, 0.0, 20.0) == [None, 1, 1, 2]


def test_words_below_a_picture_never_overlap() -> None:
    """One that has no room is left out."""
    line = plain(charts.axis({0: "now", 2: "1", 4: "2", 8: "3"}, 10, 3, Signs()))
    assert line == "    └now 2   3"
