"""Lines and cells: exact widths, harmless text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tui.cli.render import Output
from tui.console.draw.lines import Span, fit, plain, strip, wrap
from tui.console.draw.palette import DARK
from tui.console.draw.signs import Signs
from tui.text.statuses import LOOKS, SHOWN

HOSTILE = "\x1b]0;owned\x07\x1b[2J[red]x[/x]\t\u202eevil\u202c\r\n漢字かな" + "A" * 500


@given(st.text(max_size=60), st.integers(1, 40))
def test_a_cell_takes_exactly_its_columns(text: str, columns: int) -> None:
    """Whatever is in it: wide characters, marks, controls."""
    made = fit(Span(text), columns, "…")
    assert cell_len(plain(made)) == columns


@given(st.text(max_size=200), st.integers(12, 60))
def test_no_control_character_reaches_the_terminal(text: str, columns: int) -> None:
    """Everything that is drawn is printable."""
    drawn = strip(fit(Span(text), columns, "…"), DARK).text
    assert all(character.isprintable() or character.isspace() for character in drawn)
    assert "\x1b" not in drawn and "\n" not in drawn


@given(st.text(alphabet="ab 漢\u0301", max_size=120), st.integers(12, 40))
def test_wrapping_loses_no_word_and_keeps_the_width(text: str, columns: int) -> None:
    """Only spaces at the ends of lines may go."""
    lines = wrap(Span(text), columns)
    assert all(cell_len(plain(line)) <= columns for line in lines)
    assert "".join(plain(line) for line in lines).replace(" ", "") == text.replace(" ", "")


def test_hostile_text_is_shown_and_not_obeyed() -> None:
    """Escapes are visible as escapes, and what looks like markup is not swallowed."""
    drawn = plain(fit(Span(HOSTILE), 120, "…"))
    assert "\\x1b]0;owned\\x07" in drawn
    assert "[red]x[/x]" in drawn
    assert "\\u202e" in drawn


@pytest.mark.parametrize("unicode", [True, False])
def test_all_signs_are_one_cell_and_differ(unicode: bool) -> None:
    """Five shapes, none of them an emoji."""
    signs = Signs(unicode)
    shapes = [signs.sign(name) for name in ("broken", "degraded", "optimized", "removed", "unknown")]
    assert len(set(shapes)) == 5
    assert all(cell_len(shape) == 1 for shape in shapes)
    if not unicode:
        assert all(shape.isascii() for shape in shapes)
        assert (signs.arrow + signs.bar + signs.room + signs.levels + signs.ellipsis).isascii()


def test_degraded_is_told_to_be_usable() -> None:
    """Also in the long form of every usable status."""
    assert "usable" in plain(Signs().word("degraded", LOOKS["degraded"].meaning))
    assert "usable" in plain(Signs().word("optimized", LOOKS["optimized"].meaning))
    assert "usable" not in plain(Signs().word("broken", LOOKS["broken"].meaning))


def test_both_faces_show_a_status_alike() -> None:
    """One product, one table: sign, code and word are the same, and every role has its colour in both."""
    out = Output(colour_wanted=False)
    for unicode in (True, False):
        out.unicode = unicode
        for status in SHOWN:
            assert Signs(unicode).short(status).text == out.status(status, short=True)
            assert plain(Signs(unicode).word(status, "")).startswith(out.status(status, usable=False))
    out.colour = True
    for name, look in LOOKS.items():
        assert look.role in DARK.roles and out.paint(name, "x") != "x"


def test_counts_leave_out_what_there_is_none_of() -> None:
    """But never the three statuses an image can have."""
    assert plain(Signs().counts({"broken": 0, "degraded": 2, "optimized": 1, "removed": 0})) == (
        "✖ BRK=0 ◐ DEG=2 ● OPT=1"
    )


def test_a_curve_shows_its_lowest_point() -> None:
    """The bottom is the floor: what hardly changes is a flat line."""
    assert Signs().curve([10, 2, 8], 3, 2) == "█▁▆"
    assert Signs().curve([1000, 999, 1000], 3, 100) == "█▇█"
    assert Signs().curve([5, 1], 2, 3) == "█▁"
