"""The filter language: words and ``field:value`` terms that must all hold.

::

    web db              both words, anywhere in name, id, rule or reason; case does not matter
    type:mend,clean     one of these kinds of fixes (of images: disk or snapshot)
    status:brk          the state, by word or code or their beginning; hidden: of data that no image shows
    host:b rule:B-COPY name:web pri:1
    !type:clean !web    not that
    /^web-0[1-3]/       a regular expression (also a word that has one in it)

Nothing here raises for what was typed: mistakes become hints.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from tui.text.statuses import SHOWN, State, code_of

Test = Callable[[str], bool]

FIELDS = ("type", "status", "host", "rule", "name", "pri")
_STATES = (*SHOWN, State.HIDDEN)
_EXPRESSION = frozenset("^$*+?[](){}|\\.")
_LONGEST = 500


class Term(NamedTuple):
    """One condition."""

    field: str
    """One of FIELDS, "" for any text."""
    negated: bool
    test: Test
    """On lower-case text."""
    states: frozenset[State] = frozenset()
    """For ``status``: the states that pass."""

    def passes(self, text: str) -> bool:
        """Whether a row whose field reads ``text`` (lower case) is wanted."""
        return self.test(text) is not self.negated


class Query(NamedTuple):
    """What was typed, understood as far as possible."""

    text: str = ""
    terms: tuple[Term, ...] = ()
    hints: tuple[str, ...] = ()
    """One sentence for each thing that could not be understood."""

    @property
    def empty(self) -> bool:
        """Everything passes."""
        return not self.terms


EVERYTHING = Query()


def parse(text: str) -> Query:
    """What ``text`` asks for. Never raises; what makes no sense is left out or taken literally, with a hint."""
    text = text.strip()[:_LONGEST]
    terms: list[Term] = []
    hints: list[str] = []
    for word in _words(text):
        term = _term(word, hints)
        if term is not None:
            terms.append(term)
    return Query(text, tuple(terms), tuple(hints))


def _words(text: str) -> list[str]:
    """Words; ``/…/`` and "…" may contain spaces."""
    return re.findall(r"""!?(?:[a-z]+:)?(?:/[^/]*/|"[^"]*")(?=\s|\Z)|\S+""", text, re.IGNORECASE)


def _term(word: str, hints: list[str]) -> Term | None:
    negated = word.startswith("!")
    body = word[1:] if negated else word
    field, colon, value = body.partition(":")
    if not colon or field.lower() not in FIELDS:
        if colon and field.isalpha() and value:
            hints.append(f"There is no field {field}; known: {' '.join(f'{name}:' for name in FIELDS)}")
        field, value = "", body
    field = field.lower()
    if not value:
        hints.append(f"Write what to look for after {word}")
        return None
    if field == "status":
        return _status(value, negated, hints)
    return Term(field, negated, _test(field, value, hints))


def _status(value: str, negated: bool, hints: list[str]) -> Term:
    wanted: set[State] = set()
    for part in value.lower().split(","):
        found = {state for state in _STATES if part and (state.startswith(part) or code_of(state).lower() == part)}
        if part and not found:
            hints.append(f"No status begins with {part}; known: {' '.join(_STATES)}")
        wanted |= found
    states = frozenset(wanted)
    return Term("status", negated, lambda text: text in states, states)


def _test(field: str, value: str, hints: list[str]) -> Test:
    if len(value) > 2 and value[0] == value[-1] == '"':
        return _literal(value[1:-1].lower())
    if len(value) > 2 and value[0] == value[-1] == "/":
        return _expression(value[1:-1], hints)
    if field and "," in value:
        tests = [_test(field, part, hints) for part in value.split(",") if part]
        return lambda text: any(test(text) for test in tests)
    if field == "pri":
        wanted = value.lower().lstrip("p")
        return lambda text: text == wanted
    if _EXPRESSION & set(value) - {"."}:
        return _expression(value, hints)
    return _literal(value.lower())


def _literal(word: str) -> Test:
    return lambda text: word in text


def _expression(value: str, hints: list[str]) -> Test:
    try:
        search = re.compile(value, re.IGNORECASE).search
    except (re.error, RecursionError, OverflowError) as error:
        hints.append(f"{value} is no regular expression ({error}); it is looked for as it stands")
        return _literal(value.lower())
    return lambda text: search(text) is not None
