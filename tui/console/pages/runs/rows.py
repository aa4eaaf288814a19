"""The rows of the page of runs: steps of a run, work of others, lines of a log."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from tui.console.draw.formats import clock
from tui.console.draw.lines import Cell, Line, Span
from tui.console.widgets.table import Column, KeyedRows
from tui.text.amounts import duration
from tui.view.snapshot import HostOperation
from tui.work.runs import LogLine

COLUMNS = (Column("line", "", 20, share=1),)
OTHER_COLUMNS = (
    Column("host", "HOST", 10),
    Column("verb", "WORK", 8),
    Column("image", "IMAGE", 12, share=1),
    Column("stage", "STAGE", 9),
    Column("share", "SO FAR", 10),
    Column("saved", "SAVED", 8),
    Column("age", "AGE", 4, right=True),
    Column("state", "", 5),
)
LOG_COLUMNS = (Column("when", "", 8), Column("step", "", 4, right=True), Column("text", "", 20, share=1))


class Entries(KeyedRows):
    """The lines of the upper table: each run with its steps, or each operation of another host."""

    def __init__(self, entries: Sequence[tuple[str, Line]]) -> None:
        super().__init__(key for key, _ in entries)
        self._entries = entries

    def cells(self, index: int) -> dict[str, Cell]:
        return {"line": self._entries[index][1]}


class OtherRows(KeyedRows):
    """Unfinished work of other hosts."""

    def __init__(self, operations: Sequence[HostOperation], now: float) -> None:
        super().__init__(item.image for item in operations)
        self._operations = operations
        self._now = now

    def cells(self, index: int) -> dict[str, Cell]:
        """Who, what, how far, and how long ago that was saved."""
        item = self._operations[index]
        old = Span("OLD", "warning") if item.old(self._now) else Span("")
        return {
            "host": item.host,
            "verb": item.verb,
            "image": item.name,
            "stage": f"stage {item.stage}/{item.stages}" if item.stages else "-",
            "share": f"{item.percent}%" if item.percent >= 0 else Span("no % given", "quiet"),
            "saved": clock(item.when),
            "age": duration(max(0.0, self._now - item.when)),
            "state": Span("works", "bold") if item.busy else old,
        }


class LogRows:
    """Some lines of a log: those whose numbers are given, in order."""

    def __init__(self, lines: Sequence[LogLine], numbers: Sequence[int]) -> None:
        self._lines = lines
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def key(self, index: int) -> str:
        return str(self._numbers[index])

    def find(self, key: str) -> int:
        index = bisect_left(self._numbers, int(key))
        return index if index < len(self) and self._numbers[index] == int(key) else -1

    def cells(self, index: int) -> dict[str, Cell]:
        item = self._lines[self._numbers[index]]
        return {"when": Span(clock(item.when), "quiet"), "step": str(item.step or "-"), "text": item.text}
