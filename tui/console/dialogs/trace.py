"""Asking for the file of a trace."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

from textual.widget import Widget
from textual.widgets import Input

from tui.console.acts import Act
from tui.console.dialogs.dialog import Dialog
from tui.console.dialogs.fields import FieldsDialog
from tui.console.widgets.pane import Pane, Paragraph


class OpenTrace(FieldsDialog):
    """Dismissed with the path that was typed."""

    def __init__(self) -> None:
        super().__init__("Open a simulation trace")

    def body(self) -> Iterable[Widget]:
        yield Input(id="typed", placeholder="trace.jsonl")
        yield Pane("text")

    def set_up(self) -> None:
        pane = self.query_one("#text", Pane)
        pane.can_focus = False
        pane.styles.height = 3
        found = sorted(str(path) for path in Path().glob("*.jsonl"))[:3]
        here = f" Here: {', '.join(found)}." if found else ""
        pane.show([Paragraph("", f"diskwright sim run --trace FILE writes one; it is only read.{here}")])
        self.set_focus(self.query_one("#typed", Input))

    def is_path(self, field: Input) -> bool:
        return True

    def act_open(self) -> None:
        typed = self.query_one("#typed", Input).value.strip()
        if typed:
            self.dismiss(str(Path(typed).expanduser()))

    ACTS: ClassVar[Sequence[Act]] = (
        Act("open", "enter", "Open", "Open it and replay it.", act_open),
        Dialog.CLOSE,
    )  # fmt: skip
