"""Text from disk never reaches a terminal as anything but visible characters."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.text.printable import cut, pad, printable, width

FORBIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
ANY_TEXT = st.text(st.characters(codec=None))


@given(ANY_TEXT)
def test_nothing_but_visible_characters_remains(text: str):
    """Whatever goes in, no control, format, surrogate, private or unassigned character comes out."""
    assert not {unicodedata.category(character) for character in printable(text)} & FORBIDDEN


@given(ANY_TEXT)
def test_filtering_twice_changes_nothing(text: str):
    """printable is idempotent, so filtering at two edges cannot garble."""
    assert printable(printable(text)) == printable(text)


@given(st.text(st.characters(categories=["L", "N", "P", "S"])))
def test_visible_text_is_left_alone(text: str):
    """Letters, numbers, punctuation and symbols of any script pass unchanged."""
    assert printable(text) == text


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[31m", r"\x1b[31m"),
        ("\x9b31m", r"\x9b31m"),
        ("a\nb\x00\x7f", r"a\x0ab\x00\x7f"),
        ("id\u202e321", r"id\u202e321"),
        ("\u2066x\u2069\u200e\u200f", r"\u2066x\u2069\u200e\u200f"),
        ("\udcff", r"\udcff"),
        ("\U000e0041", r"\U000e0041"),
        ("Größe 日本", "Größe 日本"),
    ],
)
def test_the_escapes_are_readable(raw: str, shown: str):
    """Each forbidden character becomes the escape that Python and people know."""
    assert printable(raw) == shown


@given(ANY_TEXT, st.integers(0, 40))
def test_cut_text_fits(text: str, columns: int):
    """A cut text never takes more columns than it was given, wide characters included."""
    shown = cut(printable(text), columns)
    assert width(shown) <= columns
    assert width(pad(shown, columns)) == columns


def test_wide_and_combining_characters_are_measured():
    """A Japanese character takes two columns, a combining mark none."""
    assert width("日本") == 4
    assert width("e\u0301") == 1
    assert cut("日本語", 5) == "日本…"
