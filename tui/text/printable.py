"""Text from disk made harmless for a terminal, and how many columns it takes.

Names, user data and errors come from strangers: an escape sequence in one of them could repaint
the screen, and a bidirectional control could make one id look like another.
"""

from __future__ import annotations

from collections.abc import Iterable

WIDE = ("W", "F")
_NAME_COLUMNS = 80


def printable(text: object) -> str:
    """``text`` with everything that is not a visible character or a space as an escape like ``\\x1b``.

    Control and format characters, surrogates, private and unassigned code points are escaped.
    Idempotent; the result holds no line break.
    """
    words = text if isinstance(text, str) else str(text)
    if words.isprintable():  # the usual case, decided in C
        return words
    return "".join(character if _harmless(character) else _escape(ord(character)) for character in words)


def _harmless(character: str) -> bool:
    if character.isprintable():
        return True
    from unicodedata import category

    return category(character) == "Zs"  # wide and narrow spaces: visible as such


def _escape(code: int) -> str:
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def quoted(text: str) -> str:
    """``text`` printable, and one word for a shell: for the commands that are told to be typed next."""
    from shlex import quote

    return quote(printable(text))


def typed(words: Iterable[str]) -> str:
    """A command that can be copied from a terminal and typed: names with controls in them are written as escapes that
    the shell takes back (``$'…'``)."""
    from shlex import quote

    return " ".join(quote(word) if printable(word) == word else _ansi_c(word) for word in words)


def _ansi_c(word: str) -> str:
    raw = word.encode("utf-8", "surrogateescape")
    return "$'" + "".join(chr(b) if 0x20 <= b < 0x7F and b not in b"\\'" else f"\\x{b:02x}" for b in raw) + "'"


def width(text: str) -> int:
    """Columns that ``text`` (printable already) takes: two for wide East Asian characters, none for marks."""
    if text.isascii():
        return len(text)
    from unicodedata import category, east_asian_width

    total = 0
    for character in text:
        if category(character) not in ("Mn", "Me"):
            total += 2 if east_asian_width(character) in WIDE else 1
    return total


def cut(text: str, columns: int, ellipsis: str = "…") -> str:
    """``text`` in at most ``columns`` columns; ``ellipsis`` stands for what was cut off."""
    if width(text) <= columns:
        return text
    room = columns - width(ellipsis)
    if room < 0:
        return ""
    kept = []
    for character in text:
        room -= width(character)
        if room < 0:
            break
        kept.append(character)
    return "".join(kept).rstrip() + ellipsis


def pad(text: str, columns: int, right: bool = False) -> str:
    """``text`` filled with spaces to ``columns``; ``right``: aligned to the right."""
    space = " " * max(0, columns - width(text))
    return space + text if right else text + space


def name_shown(name: str) -> str:
    """The name of an image as a view has it: printable, and no longer than anybody reads."""
    return cut(printable(name), _NAME_COLUMNS)
