"""Machines as rows of a table."""

from __future__ import annotations

from collections.abc import Sequence

from tui.console.draw.formats import clock
from tui.console.draw.lines import Cell, Span
from tui.console.widgets.table import Column, KeyedRows
from tui.text.amounts import duration
from tui.view.machines import MachineRow, MachineState

COLUMNS = (
    Column("state", "STATE", 9),
    Column("name", "IMAGE", 10, share=2),
    Column("repository", "REPO", 6, share=1),
    Column("who", "USED BY", 18, share=2),
    Column("via", "VIA", 7),
    Column("since", "FOR", 6, right=True),
    Column("below", "BELOW", 5, right=True, from_width=100),
    Column("holder", "HOLDER", 7, right=True, from_width=100),
    Column("work", "WORK", 10, share=2),
)
HEADS = ("state", "repository", "image", "name", "used by", "monitor", "since", "holder", "below", "work", "path")
_ROLES = {
    MachineState.UNHELD: "broken",
    MachineState.UNKNOWN: "unknown",
    MachineState.LEFT: "warning",
    MachineState.RUNS: "bold",
    MachineState.READY: "quiet",
}


def role_of(state: MachineState) -> str:
    """The role of a state."""
    return _ROLES[state]


def _age(seconds: float) -> str:
    """For how long: machines run for months."""
    days = int(seconds // 86400)
    return f"{days}d" if days > 1 else duration(max(0.0, seconds))


class MachineRows(KeyedRows):
    """Machines in the order in which they are given."""

    def __init__(self, found: Sequence[MachineRow], now: float) -> None:
        super().__init__(row.key for row in found)
        self.found = found
        self._now = now

    def cells(self, index: int) -> dict[str, Cell]:
        """Who has it open, how to speak to that, for how long it is prepared, and what is done to it."""
        row, none = self.found[index], Span("-", "quiet")
        return {
            "state": Span(str(row.state), role_of(row.state)),
            "name": row.label,
            "repository": row.repository or Span("?", "quiet"),
            "who": row.who or Span("nobody" if row.state is not MachineState.UNKNOWN else "?", "quiet"),
            "via": row.monitor.partition(":")[0] or none,
            "since": _age(self._now - row.since) if row.since else none,
            "below": str(len(row.below)),
            "holder": str(row.holder) if row.held else Span("dead", "broken"),
            "work": row.work or none,
        }

    def text(self, index: int) -> list[str]:
        """The row for a file."""
        row = self.found[index]
        return [
            str(row.state), row.repository, row.image, row.name, row.who, row.monitor, clock(row.since),
            str(row.holder) if row.held else "dead", str(len(row.below)), row.work, row.path,
        ]  # fmt: skip
