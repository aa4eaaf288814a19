"""What an audit found, as rows of a table."""

from __future__ import annotations

from collections.abc import Sequence

from tui.audits import Row
from tui.console.draw.lines import Cell, Span
from tui.console.draw.signs import Signs
from tui.console.widgets.table import Column, KeyedRows
from tui.text.amounts import compact

COLUMNS = (
    Column("state", "STATUS", 6),
    Column("rule", "RULE", 10),
    Column("path", "FILE", 20, share=2),
    Column("held", "HOLDS", 6, right=True),
    Column("reason", "WHY", 20, share=3),
)
HEADS = ("status", "rule", "file", "holds", "why")


class AuditRows(KeyedRows):
    """The rows of an audit."""

    def __init__(self, found: Sequence[Row], places: Sequence[str], signs: Signs) -> None:
        """``places``: where there is one alone, names are told as they are below it."""
        super().__init__(row.key for row in found)
        self.found = found
        self._below = f"{places[0].rstrip('/')}/" if len(places) == 1 else ""
        self._signs = signs

    def cells(self, index: int) -> dict[str, Cell]:
        row = self.found[index]
        return {
            "state": self._signs.short(row.state.value),
            "rule": row.rule or Span("-", "quiet"),
            "path": row.path.removeprefix(self._below),
            "held": compact(row.held_bytes) if row.held_bytes else Span("-", "quiet"),
            "reason": row.reason,
        }

    def text(self, index: int) -> list[str]:
        """The row for a file, bytes as numbers."""
        row = self.found[index]
        return [row.state.value, row.rule, row.path, str(row.held_bytes), row.reason]
