"""Where everything is written: data to standard output, narration to standard error.

Decides once whether there is a terminal, colour and UTF-8. With ``--json`` standard output gets
one JSON document and nothing else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TextIO

from tui.text.printable import cut, pad, printable, width
from tui.text.statuses import LOOKS, State, role_of

GAP = "  "
_LAST_COLUMNS = 12
"""The last column of a table is not cut below this."""


class OutputClosed(Exception):
    """Nobody reads our output any more (a closed pipe): end quietly."""


class _Paint(NamedTuple):
    """How a colour role is painted."""

    attributes: str = ""
    colour: tuple[int, int, int] | None = None
    nearest: int = 0
    """The nearest of the 256 colours."""


_PAINTS = {
    "broken": _Paint("1", (0xFF, 0x7F, 0x50), 209),
    "degraded": _Paint("", (0xE6, 0x9F, 0x00), 178),
    "optimized": _Paint("", (0x56, 0xB4, 0xE9), 74),
    "removed": _Paint("", (0x9A, 0xA5, 0xB1), 247),
    "unknown": _Paint("3"),
    "quiet": _Paint("2"),
}
"""By role of ``tui.text.statuses``."""


class Output:
    """Standard output and standard error of one command."""

    def __init__(self, json_wanted: bool = False, colour_wanted: bool = True) -> None:
        self.json_wanted = json_wanted
        self.answered = False
        """A JSON document was written; there must not be a second one."""
        for stream in (sys.stdout, sys.stderr):
            reconfigure = getattr(stream, "reconfigure", None)
            if reconfigure is not None:
                reconfigure(errors="backslashreplace")
        self.terminal = is_terminal(sys.stdout)
        encoding = getattr(sys.stdout, "encoding", None) or "ascii"
        self.unicode = encoding.lower().replace("-", "").replace("_", "") == "utf8"
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self.colour = colour_wanted and self.terminal and not plain
        self.true_colour = os.environ.get("COLORTERM", "") in ("truecolor", "24bit")
        self.columns = columns(sys.stdout)
        self.bounded = self.terminal or _asked_for() > 0
        """Lines are to be no longer than ``columns``; a pipe gets them whole, unless $COLUMNS says otherwise."""

    # -- writing

    def line(self, text: str = "") -> None:
        """One line of data; nothing when JSON is wanted."""
        if not self.json_wanted:
            self._write(text + "\n")

    def prose(self, text: str, indent: int = 0) -> None:
        """Words as data, in as many lines as they need where lines have a limit; all but the first begin with
        ``indent`` spaces."""
        import textwrap

        space = " " * indent
        lines = [text]
        if self.bounded and width(text) > self.columns:
            lines = textwrap.wrap(
                text, self.columns, subsequent_indent=space, break_long_words=False, break_on_hyphens=False
            )
        for part in lines:
            self.line(part)

    def document(self, data: Any) -> None:
        """The one JSON document, ASCII only, so nothing in it can reach the terminal as a control."""
        if self.json_wanted:
            self.answered = True
            self._write(json_text(data) + "\n")

    def event(self, text: str) -> None:
        """One of several JSON documents, each on a line of its own."""
        self.answered = True
        self._write(text + "\n")

    def bytes(self, produce: Callable[[Callable[[Any], None]], None]) -> None:
        """Bytes as data: ``produce`` gets what writes them. BadRequest on a terminal, or where JSON is wanted."""
        from engine.errors import BadRequest

        if self.terminal or self.json_wanted or sys.stdout is None:
            raise BadRequest("bytes of an image are not for a terminal, nor for --json", "Redirect standard output")
        raw = sys.stdout.buffer

        def write(data: Any) -> None:
            self._guarded(lambda: raw.write(data))

        produce(write)
        self._guarded(raw.flush)

    def flush(self) -> None:
        """Everything is written, or an exception says so."""
        self._guarded(lambda: sys.stdout.flush() if sys.stdout else None)

    def _write(self, text: str) -> None:
        self._guarded(lambda: sys.stdout.write(text) if sys.stdout else None)

    @staticmethod
    def _guarded(write: Any) -> None:
        try:
            write()
        except BrokenPipeError:
            raise OutputClosed from None
        except OSError as error:
            from engine.errors import from_os_error

            raise from_os_error(error, "write the output") from error

    @staticmethod
    def say(text: str) -> None:
        """Narration: one line on standard error. That nobody can read it is not an error."""
        try:
            if sys.stderr:
                sys.stderr.write(text + "\n")
                sys.stderr.flush()
        except OSError:
            return

    # -- words and signs

    @property
    def arrow(self) -> str:
        """Between before and after."""
        return "→" if self.unicode else "->"

    @property
    def ellipsis(self) -> str:
        """For what was cut off."""
        return "…" if self.unicode else "..."

    def status(self, name: str, short: bool = False, usable: bool = True) -> str:
        """Sign and word of a status, without colour. "Degraded" is told to be usable."""
        look = LOOKS.get(name)
        if look is None or not name:
            return printable(name) or "-"
        word = look.code if short else name.upper()
        if name == State.DEGRADED and usable and not short:
            word += f" ({look.brief})"
        return look.signed(word, self.unicode)

    def paint(self, name: str, text: str) -> str:
        """``text`` in the colour of a status, where there is colour."""
        if not self.colour or name not in LOOKS:
            return text
        paint = _PAINTS[role_of(name)]
        codes = [paint.attributes] if paint.attributes else []
        if paint.colour is not None:
            codes.append("38;2;{};{};{}".format(*paint.colour) if self.true_colour else f"38;5;{paint.nearest}")
        return f"\x1b[{';'.join(codes)}m{text}\x1b[0m" if codes else text

    def bold(self, text: str) -> str:
        """``text`` in bold, where there is colour."""
        return f"\x1b[1m{text}\x1b[0m" if self.colour else text

    def table(
        self,
        heads: Sequence[str],
        rows: Sequence[Sequence[str]],
        states: Sequence[str] = (),
        painted: int = -1,
        right: frozenset[int] = frozenset(),
        give_up: Sequence[int] = (),
        whole: bool = False,
        least: int = 12,
    ) -> None:
        """A table as wide as what it is written for: the columns ``give_up`` go one after the other until the rest
        fits, then the last one is cut, not below 12 columns; they go as long as it has less than ``least``. ``whole``:
        nothing goes and nothing is cut. ``states[i]`` colours the cell ``painted`` of row i. Cells are printable
        already."""
        if not rows:
            return
        widths = [max(width(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
        if self.bounded and not whole:
            last = min(widths[-1], least)
            for column in give_up:
                if sum(widths[:-1]) + last + len(GAP) * (sum(map(bool, widths)) - 1) <= self.columns:
                    break
                widths[column] = 0
            room = self.columns - sum(widths[:-1]) - len(GAP) * (sum(map(bool, widths)) - 1)
            widths[-1] = min(widths[-1], max(room, _LAST_COLUMNS))
        self.line(self.bold(self._row(heads, widths, right)))
        for number, row in enumerate(rows):
            state = states[number] if number < len(states) else ""
            self.line(self._row(row, widths, right, state, painted))

    def _row(
        self, row: Sequence[str], widths: list[int], right: frozenset[int], state: str = "", painted: int = -1
    ) -> str:
        cells = []
        for column, cell in enumerate(row):
            if not widths[column]:
                continue
            last = column == len(row) - 1
            text = cut(cell, widths[column], self.ellipsis) if last else cell
            text = text if last and column not in right else pad(text, widths[column], column in right)
            cells.append(self.paint(state, text) if column == painted else text)
        return GAP.join(cells).rstrip()

    def short(self, identifiers: Sequence[str]) -> dict[str, str]:
        """How ids are shown: whole in a pipe, where lines have a limit the shortest unambiguous 8 digits or more."""
        if not self.bounded:
            return {item: item for item in identifiers}
        ordered = sorted(set(identifiers))
        shown = {}
        for index, item in enumerate(ordered):
            around = ordered[max(0, index - 1) : index] + ordered[index + 1 : index + 2]
            length = max([8, *(_common(item, other) + 1 for other in around)])
            shown[item] = item[:length]
        return shown


def _common(one: str, other: str) -> int:
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count


def flowed(text: str, columns: int) -> str:
    """A help text in lines of at most ``columns``. Prose is broken anew, what stands in columns under itself; a command
    is one line whatever its length: it is copied."""
    import textwrap

    lines: list[str] = []
    prose: list[str] = []

    def wrap(words: str, first: str, rest: str) -> None:
        if len(rest) > columns // 2:
            rest = "    "
        lines.extend(
            textwrap.wrap(
                words, columns, initial_indent=first, subsequent_indent=rest, break_long_words=False,
                break_on_hyphens=False,
            )
        )  # fmt: skip

    def end_prose() -> None:
        if any(width(line) > columns for line in prose):
            wrap(" ".join(prose), "", "")
        else:
            lines.extend(prose)
        prose.clear()

    for line in text.split("\n"):
        indent = len(line) - len(line.lstrip(" "))
        column = line.find("  ", indent)
        if line and not indent and column < 0:
            prose.append(line)
            continue
        end_prose()
        start = len(line) - len(line[column:].lstrip(" ")) if column >= 0 else indent
        if width(line) <= columns or (indent and "diskwright " in line):
            lines.append(line)
        else:
            wrap(line[start:], line[:start], " " * start)
    end_prose()
    return "\n".join(lines)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether the stream is a terminal; a closed one is none."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def _asked_for() -> int:
    """$COLUMNS, 0 where it says nothing."""
    given = os.environ.get("COLUMNS", "")
    return int(given[:6]) if given.isascii() and given.isdigit() else 0


def columns(stream: TextIO | None) -> int:
    """Width to write for: COLUMNS, else the terminal's, else 80."""
    if given := _asked_for():
        return given
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80 if stream is not None else 80
    except (OSError, ValueError, AttributeError):
        return 80


def json_text(data: Any) -> str:
    """``data`` as JSON in ASCII, without a raw DEL."""
    import json

    return json.dumps(data, indent=2, ensure_ascii=True).replace("\x7f", "\\u007f")
