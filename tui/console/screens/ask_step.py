"""Asking for the number of a step."""

from __future__ import annotations

from collections.abc import Iterable

from textual.widget import Widget
from textual.widgets import Input

from tui.console.screens.dialog import Dialog


class AskStep(Dialog):
    """Dismissed with a number from 1 to ``steps``."""

    TYPES = True

    def __init__(self, steps: int) -> None:
        super().__init__(f"Go to step (1 to {steps})", columns=44)
        self.steps = steps

    def body(self) -> Iterable[Widget]:
        """One field."""
        yield Input(id="typed", type="integer", placeholder="number")

    def on_mount(self) -> None:
        """The cursor is in it."""
        self.type_into(self.query_one("#typed", Input))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter goes there; what is no step of it is told."""
        event.stop()
        text = event.value.strip()
        if text.isdigit() and 1 <= int(text[:9]) <= self.steps:
            self.dismiss(int(text))
        else:
            self.console.tell(f"There are the steps 1 to {self.steps}.", "warning")
