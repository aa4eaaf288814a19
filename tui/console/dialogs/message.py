"""A sentence that must not be missed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual.widget import Widget

from tui.console.acts import Act
from tui.console.dialogs.dialog import Dialog
from tui.console.draw.lines import Cell
from tui.console.widgets.pane import Pane, Paragraph


class Message(Dialog):
    """Told with a title; ``enter`` or ``esc`` closes it. ``report``: text that ``e`` writes to a file."""

    ACTS: ClassVar[Sequence[Act]] = (
        Act("close", "escape", "Close", "Close this."),
        Act("close_too", "enter", "Close", "Close this.", footer=False),
        Act("report", "e", "Write report", "Write the details to a file."),
    )

    def __init__(self, title: str, told: Sequence[Cell], report: str = "", columns: int = 72) -> None:
        super().__init__(title, columns)
        self.told = told
        self.report = report

    def all_acts(self) -> Sequence[Act]:
        """There is a report only for errors."""
        return [act for act in self.ACTS if act.name != "report" or self.report]

    def body(self) -> Iterable[Widget]:
        """What is told."""
        yield Pane("told")

    def on_mount(self) -> None:
        """Write it."""
        pane = self.query_one("#told", Pane)
        room = max(20, min(self.columns, self.app.size.width - 2) - 4)
        rows = sum(1 + sum(len(span.text) for span in Paragraph("", part)[1]) // room for part in self.told)
        pane.styles.height = max(1, min(16, rows + 1))
        pane.show([Paragraph("", part) for part in self.told])

    def act_close_too(self) -> None:
        """Close this."""
        self.act_close()

    def act_report(self) -> None:
        """Write the details to a file and tell where."""
        self.console.write_report(self.report)
        self.dismiss(None)
