"""The images of a view: columns instead of objects, rows built when they are looked at.

100,000 images cost about 30 MB and no start-up; whatever shows them asks for the rows on the screen.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from tui.text.statuses import ATTENTION, SHOWN, State
from tui.text.words import running
from tui.view.query import EVERYTHING, Query, Term

ID_DIGITS = 32
_REMEMBERED = 8
"""Selections that are kept: the last filters and orders."""


class ImageOrder(StrEnum):
    """What to sort images by."""

    STATE = "severity"
    """What needs attention first, then by name and id."""
    NAME = "name"
    SIZE = "size"
    USED = "used"
    WHEN = "last operation"
    ID = "id"


class ImageRow(NamedTuple):
    """One image as it is shown. Texts are printable."""

    number: int
    """Place of the image in the table."""
    id: str
    name: str
    """From its user data; "" when it has none."""
    state: State
    reason: str
    rule: str
    facts: str
    """What the rule saw, in one line."""
    kind: str
    """disk or snapshot."""
    size_bytes: int
    used_bytes: int
    strategy: str
    dependants: int
    """Images that need it."""
    busy: str
    """Who works on it now, "" for nobody."""
    verb: str
    """Of the last persisted operation; "" when none is recorded."""
    host: str
    stage: int
    stages: int
    stage_name: str
    percent: int
    """-1 when no progress is known, or when it has ended and somebody works on the image all the same."""
    when: float
    """When that was persisted, 0 for never."""
    ending: str
    """How that ended before it was done, "" when it did not."""
    remarks: str
    """Where it came from, as far as people should know; "" for nothing."""
    lost: int
    """Bytes known to be gone; they read as zeros."""

    @property
    def label(self) -> str:
        """What to call it: its name, else the beginning of its id."""
        return self.name or self.id[:8]

    @property
    def running(self) -> str:
        """That somebody works on it, and how far that is; "" when nobody does."""
        return running(self.percent) if self.busy else ""

    @property
    def usable(self) -> bool:
        """Whether the image can be used now."""
        return self.state in (State.OPTIMIZED, State.DEGRADED)


TEXTS = ("reason", "rule", "facts", "strategy", "busy", "verb", "host", "stage_name", "ending", "remarks")
"""Columns of texts: few different ones, each kept once."""

NUMBERS = {
    "state": "B", "mutable": "B", "size_bytes": "q", "used_bytes": "q", "dependants": "l", "stage": "l", "stages": "l",
    "percent": "b", "when": "d", "lost": "q",
}  # fmt: skip
"""Columns of numbers with their type codes."""


class ImageTable:
    """Images in the order of their ids. Filled once by ``add`` or ``extend``, then only read."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        """Id, a space, and the name."""
        self._texts: list[str] = []
        self._known: dict[str, int] = {}
        self._columns: dict[str, array[Any]] = {name: array("L") for name in TEXTS}
        self._columns |= {name: array(code) for name, code in NUMBERS.items()}
        self._selected: dict[tuple[str, ImageOrder, bool], array[int]] = {}
        self._sorted: dict[ImageOrder, list[int]] = {}

    # -- filling

    def add(self, id: str, name: str, values: dict[str, Any]) -> None:
        """One more image, printable already; ``values`` has all of TEXTS and NUMBERS. Ids come in ascending order."""
        self._lines.append(f"{id} {name}")
        for column in TEXTS:
            self._columns[column].append(self._text(values[column]))
        for column in NUMBERS:
            self._columns[column].append(values[column])

    def _text(self, text: str) -> int:
        index = self._known.get(text)
        if index is None:
            index = self._known[text] = len(self._texts)
            self._texts.append(text)
        return index

    def parts(self, rows: int = 2000) -> Iterable[dict[str, Any]]:
        """The table as JSON data, in parts that are quick to read one by one."""
        given = 0
        for start in range(0, len(self._lines), rows):
            end = start + rows
            part: dict[str, Any] = {"lines": self._lines[start:end]}
            for name, column in self._columns.items():
                part[name] = column[start:end].tolist()
            last = max((max(part[name]) for name in TEXTS), default=-1) + 1
            part["texts"] = self._texts[given : max(last, given)]
            given = max(last, given)
            yield part

    def extend(self, part: dict[str, Any]) -> None:
        """Add what ``parts`` gave."""
        self._texts += part["texts"]
        self._lines += part["lines"]
        for name, column in self._columns.items():
            column.extend(part[name])

    def named(self, name: str) -> list[str]:
        """Ids of the images with that name, which is printable."""
        return [line[:ID_DIGITS] for line in self._lines if line[ID_DIGITS + 1 :] == name]

    def changed(self, states: Mapping[str, tuple[State, str]], gone: Collection[str] = ()) -> ImageTable:
        """A copy with other states, each with its reason, and without the images that are gone."""
        copy = ImageTable()
        copy._lines, copy._texts, copy._known = list(self._lines), list(self._texts), dict(self._known)
        copy._columns = {name: column[:] for name, column in self._columns.items()}
        for id, (state, reason) in states.items():
            if (index := self.find(id)) >= 0:
                copy._columns["state"][index] = SHOWN.index(state)
                for name, text in (("reason", reason), ("rule", ""), ("facts", "")):
                    copy._columns[name][index] = copy._text(text)
        for index in sorted((self.find(id) for id in gone), reverse=True):
            if index >= 0:
                del copy._lines[index]
                for column in copy._columns.values():
                    del column[index]
        return copy

    # -- reading

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> ImageRow:
        line = self._lines[index]
        columns, texts = self._columns, self._texts
        values: dict[str, Any] = {name: texts[columns[name][index]] for name in TEXTS}
        values |= {name: columns[name][index] for name in NUMBERS}
        values["state"] = SHOWN[values["state"]]
        values["kind"] = "disk" if values.pop("mutable") else "snapshot"
        return ImageRow(number=index, id=line[:ID_DIGITS], name=line[ID_DIGITS + 1 :], **values)

    def state(self, index: int) -> State:
        """The state of one image."""
        return SHOWN[self._columns["state"][index]]

    def id(self, index: int) -> str:
        """The id of one image."""
        return self._lines[index][:ID_DIGITS]

    def count(self, state: State) -> int:
        """How many images are in a state."""
        return self._columns["state"].count(SHOWN.index(state))

    def find(self, id: str) -> int:
        """The index of an image, -1 when it is not there."""
        index = bisect_left(self._lines, id)
        return index if index < len(self._lines) and self._lines[index].startswith(f"{id} ") else -1

    def get(self, id: str) -> ImageRow | None:
        """The row of an image, None when it is not there."""
        index = self.find(id)
        return None if index < 0 else self[index]

    def label(self, id: str) -> str:
        """What to call an image, also one that is not there."""
        index = self.find(id)
        return (self._lines[index][ID_DIGITS + 1 :] if index >= 0 else "") or id[:8]

    def not_optimized(self) -> Iterable[int]:
        """Indexes of the images that are not optimized."""
        good = SHOWN.index(State.OPTIMIZED)
        return [index for index, state in enumerate(self._columns["state"]) if state != good]

    # -- filter and order

    def select(
        self, query: Query = EVERYTHING, order: ImageOrder = ImageOrder.STATE, reverse: bool = False
    ) -> array[int]:
        """Indexes of the images that pass, sorted. Not to be changed: it is remembered."""
        key = (query.text, order, reverse)
        if key not in self._selected:
            if len(self._selected) >= _REMEMBERED:
                self._selected.pop(next(iter(self._selected)))
            self._selected[key] = array("L", self._select(query, order, reverse))
        return self._selected[key]

    def _select(self, query: Query, order: ImageOrder, reverse: bool) -> list[int]:
        wanted = self._in_order(order)
        for term in query.terms:
            wanted = self._passing(term, wanted)
        return wanted[::-1] if reverse else list(wanted)

    def _in_order(self, order: ImageOrder) -> list[int]:
        if order not in self._sorted:
            self._sorted[order] = self._sort(order)
        return self._sorted[order]

    def _sort(self, order: ImageOrder) -> list[int]:
        everything = range(len(self))
        if order is ImageOrder.ID:
            return list(everything)
        if order is ImageOrder.NAME:
            names = [line[ID_DIGITS + 1 :].casefold() or "\U0010ffff" for line in self._lines]
            return sorted(everything, key=names.__getitem__)
        if order is ImageOrder.STATE:
            column = self._columns["state"]
            rank = bytes(ATTENTION.index(state) for state in SHOWN)
            return sorted(self._in_order(ImageOrder.NAME), key=lambda index: rank[column[index]])
        name = {ImageOrder.SIZE: "size_bytes", ImageOrder.USED: "used_bytes", ImageOrder.WHEN: "when"}[order]
        return sorted(everything, key=self._columns[name].__getitem__, reverse=True)

    def _passing(self, term: Term, wanted: list[int]) -> list[int]:
        if term.field == "status":
            states = self._columns["state"]
            good = {SHOWN.index(state) for state in term.states}
            return [index for index in wanted if (states[index] in good) is not term.negated]
        if term.field in ("host", "rule"):
            return self._by_text(term, term.field, wanted)
        if term.field == "type":
            kinds = (term.passes("snapshot"), term.passes("disk"))
            mutable = self._columns["mutable"]
            return [index for index in wanted if kinds[mutable[index]]]
        if term.field == "pri":
            return wanted if term.negated else []
        return self._by_words(term, wanted)

    def _by_text(self, term: Term, column: str, wanted: list[int]) -> list[int]:
        good = {index for index, text in enumerate(self._texts) if term.passes(text.lower())}
        texts = self._columns[column]
        return [index for index in wanted if texts[index] in good]

    def _by_words(self, term: Term, wanted: list[int]) -> list[int]:
        """Names and ids are looked at one by one, the few different reasons and rules once each."""
        lines, test = self._lines, term.test
        if term.field == "name":
            return [i for i in wanted if test(lines[i][ID_DIGITS + 1 :].lower()) is not term.negated]
        good = {index for index, text in enumerate(self._texts) if test(text.lower())}
        if not good:
            return [i for i in wanted if test(lines[i].lower()) is not term.negated]
        reasons, rules = self._columns["reason"], self._columns["rule"]
        return [
            i for i in wanted if (reasons[i] in good or rules[i] in good or test(lines[i].lower())) is not term.negated
        ]
