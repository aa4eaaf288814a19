"""Lines of text with roles, and how they become cells of the screen.

A line is a tuple of spans; a span is text and the name of a role of the palette. No markup is ever
parsed, and everything that is drawn passes ``printable`` here once more: whatever the model let
through cannot reach the terminal as a control character. Widths are those that Textual lays out by.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from tui.console.draw.palette import Palette
from tui.text.printable import printable


class Span(NamedTuple):
    """Text of one role."""

    text: str
    role: str = "text"


Line = tuple[Span, ...]
Cell = str | Span | Line

EMPTY: Line = ()

_BOLD = Style(bold=True)
_NATIVE_GROUND = {"cursor": Style(reverse=True), "mark": Style(underline=True)}
"""With the terminal's own colours a ground is an attribute: no colour of it is known."""


def line(*parts: Cell) -> Line:
    """Make a line of parts, one after the other."""
    spans: list[Span] = []
    for part in parts:
        spans.extend(spans_of(part))
    return tuple(spans)


def spans_of(cell: Cell) -> Line:
    """Return the spans of a cell."""
    if isinstance(cell, str):
        return (Span(cell),)
    if isinstance(cell, Span):
        return (cell,)
    return cell


def plain(cell: Cell) -> str:
    """Return the text of a cell, harmless for a terminal."""
    return "".join(printable(span.text) for span in spans_of(cell))


def fit(cell: Cell, columns: int, ellipsis: str, right: bool = False) -> Line:
    """Return ``cell`` in exactly ``columns`` columns: cut with ``ellipsis``, or filled with spaces."""
    spans = [Span(printable(span.text), span.role) for span in spans_of(cell)]
    total = sum(cell_len(span.text) for span in spans)
    if total > columns:
        return _cut(spans, columns, ellipsis)
    space = Span(" " * (columns - total))
    if total == columns:
        return tuple(spans)
    return (space, *spans) if right else (*spans, space)


def _cut(spans: Sequence[Span], columns: int, ellipsis: str) -> Line:
    """As many whole characters as there is room for before ``ellipsis``."""
    kept: list[Span] = []
    room = columns - cell_len(ellipsis)
    for span in spans:
        taken = cell_len(span.text)
        if taken > room:
            head = span.text[: _prefix(span.text, max(0, room))].rstrip()
            text = head + ellipsis if columns >= cell_len(ellipsis) else ""
            kept.append(Span(text + " " * max(0, columns - _cells(kept) - cell_len(text)), span.role))
            break
        kept.append(span)
        room -= taken
    return tuple(kept)


def _cells(spans: Sequence[Span]) -> int:
    return sum(cell_len(span.text) for span in spans)


def _prefix(text: str, columns: int) -> int:
    """How many characters fit."""
    fitting = 0
    for end in range(1, len(text) + 1):
        if cell_len(text[:end]) > columns:
            break
        fitting = end
    return fitting


def wrap(cell: Cell, columns: int, indent: int = 0) -> list[Line]:
    """Return ``cell`` broken between words into lines of at most ``columns``; all but the first begin with
    ``indent`` spaces. A word that is longer than a line is broken anywhere."""
    rows: list[list[Span]] = [[]]
    room = columns
    for span in spans_of(cell):
        for word in _words(printable(span.text)):
            size = cell_len(word)
            if size > room and room < columns - indent and word.strip():
                rows.append([Span(" " * indent)] if indent else [])
                room = columns - indent
                word = word.lstrip()
                size = cell_len(word)
            if size > room and not word.strip():
                continue  # spaces at the end of a line
            while size > room:
                head = word[: max(1, _prefix(word, room))]
                rows[-1].append(Span(head, span.role))
                word = word[len(head) :]
                size = cell_len(word)
                rows.append([Span(" " * indent)] if indent else [])
                room = columns - indent
                if not word.strip():
                    word, size = "", 0
            if word:
                rows[-1].append(Span(word, span.role))
                room -= size
    return [tuple(row) for row in rows]


def _words(text: str) -> list[str]:
    """``text`` in pieces of a run of spaces (or none) and the word after it."""
    pieces: list[str] = []
    start = 0
    for index in range(1, len(text)):
        if text[index] == " " and text[index - 1] != " ":
            pieces.append(text[start:index])
            start = index
    if start < len(text):
        pieces.append(text[start:])
    return pieces


def strip(spans: Iterable[Span], palette: Palette, ground: str = "", bold: bool = False) -> Strip:
    """Draw spans as a strip of the screen on ``ground`` ("", "cursor", "mark")."""
    segments = []
    for span in spans:
        style = palette.style(span.role, ground)
        if palette.native and ground:
            style += _NATIVE_GROUND[ground]
        segments.append(Segment(printable(span.text), style + _BOLD if bold else style))
    return Strip(segments)
