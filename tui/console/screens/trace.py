"""Asking for the file of a trace."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from textual.widget import Widget
from textual.widgets import Input

from tui.console.screens.dialog import Dialog
from tui.console.widgets.pane import Pane, Paragraph


class OpenTrace(Dialog):
    """Dismissed with the path that was typed."""

    TYPES = True

    def __init__(self) -> None:
        super().__init__("Open a simulation trace")

    def body(self) -> Iterable[Widget]:
        """One field."""
        yield Input(id="typed", placeholder="trace.jsonl")
        yield Pane("told")

    def on_mount(self) -> None:
        """Where traces come from."""
        pane = self.query_one("#told", Pane)
        pane.can_focus = False
        pane.styles.height = 3
        found = sorted(str(path) for path in Path().glob("*.jsonl"))[:3]
        here = f" Here: {', '.join(found)}." if found else ""
        pane.show([Paragraph("", f"diskwright sim run --trace FILE writes one; it is only read.{here}")])
        self.type_into(self.query_one("#typed", Input))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter opens it."""
        event.stop()
        if event.value.strip():
            self.dismiss(str(Path(event.value.strip()).expanduser()))
