"""A sentence that must not be missed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual.widget import Widget

from tui.console.acts import Act
from tui.console.dialogs.dialog import Dialog
from tui.console.draw.lines import Cell
from tui.console.shell import Save
from tui.console.widgets.pane import Pane


class Notice(Dialog):
    """Text with a title; ``enter`` or ``esc`` closes it. ``report``: text that ``e`` writes to a file."""

    def __init__(self, title: str, text: Sequence[Cell], report: str = "", columns: int = 72) -> None:
        super().__init__(title, columns)
        self.text = text
        self.report = report

    def all_acts(self) -> Sequence[Act]:
        return [act for act in self.ACTS if act.name != "report" or self.report]

    def body(self) -> Iterable[Widget]:
        yield Pane("text")

    def set_up(self) -> None:
        self.write(self.query_one("#text", Pane), self.text, beside=8)

    def act_report(self) -> None:
        self.shell.post_message(Save("error", "txt", self.report))
        self.dismiss(None)

    ACTS: ClassVar[Sequence[Act]] = (
        Act("close", "escape", "Close", "Close this.", Dialog.act_close),
        Act("close_too", "enter", "Close", "Close this.", Dialog.act_close, footer=False),
        Act("report", "e", "Write report", "Write the details to a file.", act_report),
    )  # fmt: skip
