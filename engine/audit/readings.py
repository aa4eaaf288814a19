"""All that a text may mean to a program that takes escapes and quotes away. No effects.

Nobody knows what reads a text: so it is read in every way, and in the ways of ways. A reading too many only hides an
orphan; one too few would make one up. Nothing that is read so is ever opened or told.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable

_DEPTH = 3
"""Ways that are taken one after the other: an argument of a shell in JSON in XML has three."""
MAX_CHARACTERS = 64 << 20
"""In all readings of all texts, without the texts themselves."""
_MARKS = re.compile(r"[\\%|&'\"]")

_ESCAPE = re.compile(
    r"\\(?:u\{(?P<braced>[0-9a-fA-F]{1,8})\}|u(?P<four>[0-9a-fA-F]{4})|U(?P<eight>[0-9a-fA-F]{8})|x(?P<two>[0-9a-fA-F]{2})"
    r"|(?P<octal>[0-3]?[0-7]{1,2})|(?P<join>\r?\n[ \t]*)|(?P<one>.))",
    re.DOTALL,
)
_ONES = {"a": "\a", "b": "\b", "e": "\x1b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
         "N": "\x85", "_": "\xa0", "L": "\u2028", "P": "\u2029"}  # fmt: skip
_HEX = re.compile(r"[%|](?P<two>[0-9a-fA-F]{2})")
"""As URLs, and VMware, write what they may not."""
_ZEROS = re.compile(r"&#0+(?=[0-9])")
_NO_CHARACTER = re.compile(r"&#(?=[0-9]{9})")
"""A number that no character has: to convert a long one is an error."""
_QUOTED = re.compile(r"'(?P<single>[^'\n]*)'|\"(?P<double>(?:\\[^\n]|[^\"\\\n])*)\"|\\(?P<one>.)", re.DOTALL)
_DOUBLED = re.compile(r"''|\"\"")
"""One quote inside of quotes, as YAML and others write it."""


class TooMany(Exception):
    """There are more readings than can be kept."""


def readings(texts: Iterable[str], room: int = MAX_CHARACTERS) -> set[str]:
    """Return the texts, and all that they may mean. TooMany where that is more than ``room`` characters besides
    the texts."""
    found = set(texts)
    new = found
    left = room
    for _ in range(_DEPTH):
        fresh: set[str] = set()
        for text in new:
            for way in _WAYS if _MARKS.search(text) else ():
                read = way(text)
                if read not in found and read not in fresh:
                    fresh.add(read)
                    left -= len(read)
                    if left < 0:
                        raise TooMany
        new = fresh
        found |= fresh
    return found


def _characters(text: str) -> str:
    """Escapes as JSON and YAML have them: each a character. Halves of one are joined."""
    return _joined(_ESCAPE.sub(_character, text), "utf-16", "surrogatepass")


def _bytes(text: str) -> str:
    """Escapes as C and shells have them: each a byte."""
    return _joined(_ESCAPE.sub(_byte, text), "utf-8", "surrogateescape")


def _hex(text: str) -> str:
    return _joined(_HEX.sub(_byte, text), "utf-8", "surrogateescape")


def _entities(text: str) -> str:
    return html.unescape(_NO_CHARACTER.sub("", _ZEROS.sub("&#", text)))


def _unquoted(text: str) -> str:
    """As a shell joins words."""
    return _QUOTED.sub(lambda match: match["single"] or match["double"] or match["one"] or "", text)


def _undoubled(text: str) -> str:
    return _DOUBLED.sub(lambda match: match[0][0], text)


_WAYS: tuple[Callable[[str], str], ...] = (_characters, _bytes, _hex, _entities, _unquoted, _undoubled)


def _character(match: re.Match[str]) -> str:
    number = match["braced"] or match["four"] or match["eight"] or match["two"]
    if number or match["octal"]:
        value = int(number, 16) if number else int(match["octal"], 8)
        return chr(value) if value < 0x110000 else match[0]
    return "" if match["join"] else _ONES.get(match["one"], match["one"])


def _byte(match: re.Match[str]) -> str:
    """A byte as names of files have it: one that is no ASCII as a surrogate."""
    groups = match.groupdict()
    if groups["two"] or groups.get("octal"):
        value = int(groups["two"], 16) if groups["two"] else int(groups["octal"] or "", 8)
        return chr(value) if value < 0x80 else chr(0xDC00 + value)
    return _character(match)


def _joined(text: str, encoding: str, errors: str) -> str:
    """Join the parts of characters, where all parts can be."""
    try:
        return text.encode(encoding, errors).decode(encoding, errors)
    except UnicodeError:
        return text
