"""The rows of the table of fixes."""

from __future__ import annotations

from collections.abc import Sequence

from tui.console.draw.formats import about, signed
from tui.console.draw.lines import Cell, Span, plain
from tui.console.draw.signs import Signs
from tui.console.widgets.table import Column
from tui.text.amounts import compact
from tui.text.words import RunState, Undo
from tui.view.snapshot import RepositoryView
from tui.work.triage import TriageRow

COLUMNS = (
    Column("queue", "Q", 2),
    Column("priority", "PRI", 4),
    Column("type", "FIX", 8),
    Column("image", "IMAGE", 15, share=1),
    Column("change", "NOW / AFTER", 14),
    Column("space", "SPACE", 7, right=True),
    Column("time", "TIME", 5, right=True),
    Column("io", "IO", 6, right=True, from_width=90),
    Column("undo", "UNDO", 5, from_width=90),
    Column("run", "RUN ON", 8),
    Column("why", "WHY", 40, share=2, from_width=120),
)
HEADS = tuple(column.title for column in COLUMNS)


class TriageRows:
    """Rows of ``triage`` for a table."""

    def __init__(self, rows: Sequence[TriageRow], view: RepositoryView, signs: Signs) -> None:
        self._rows = rows
        self._view = view
        self._signs = signs
        self._index = {row.fix.key: index for index, row in enumerate(rows)}

    def __len__(self) -> int:
        return len(self._rows)

    def key(self, index: int) -> str:
        return self._rows[index].fix.key

    def find(self, key: str) -> int:
        return self._index.get(key, -1)

    def cells(self, index: int) -> dict[str, Cell]:
        row = self._rows[index]
        fix = row.fix
        if row.state is RunState.GONE:
            return self._gone(row)
        mark = "" if fix.exact else "~"
        quiet = "quiet" if row.snoozed else "text"
        return {
            "queue": Span(str(row.position), "mark") if row.position else Span("-", "quiet"),
            "priority": Span(row.priority_text, "bold" if row.priority == 1 else quiet),
            "type": Span(fix.type, quiet),
            "image": Span(fix.short, quiet),
            "change": self._signs.change(fix.now.value, fix.after.value),
            "space": f"{mark}{signed(fix.space_bytes)}" if fix.space_bytes else signed(0),
            "time": about(fix.time_s),
            "io": compact(fix.io_bytes) if fix.io_bytes else "-",
            "undo": Span(str(fix.undo), "warning" if fix.undo is Undo.NEVER else "text"),
            "run": self._run_on(row),
            "why": Span(fix.why or "-", "quiet"),
        }

    def _gone(self, row: TriageRow) -> dict[str, Cell]:
        fix, nothing = row.fix, Span("-", "quiet")
        return {
            "queue": nothing,
            "priority": Span(row.priority_text, "quiet"),
            "type": Span(fix.type, "quiet"),
            "image": Span(fix.short, "quiet"),
            "change": Span(f"GONE {row.note}", "quiet"),
            **dict.fromkeys(("space", "time", "io", "undo", "run"), nothing),
            "why": Span(row.note, "quiet"),
        }

    def _run_on(self, row: TriageRow) -> Cell:
        fix = row.fix
        if row.state is not None:
            return Span(str(row.state), "bold")
        if row.snoozed:
            return Span("snoozed", "quiet")
        if row.elsewhere:
            return Span("no SRM" if self._view.srm == "?" else self._view.srm, "warning")
        if fix.can_run:
            return "yes"
        return Span("no room" if fix.needs_room else "waits", "warning")

    def text(self, index: int) -> list[str]:
        cells = self.cells(index)
        return [plain(cells.get(column.name, "")) for column in COLUMNS]
