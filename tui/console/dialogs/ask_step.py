"""Asking for the number of a step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual.widget import Widget
from textual.widgets import Input

from tui.console.acts import Act
from tui.console.dialogs.dialog import Dialog


class AskStep(Dialog):
    """Dismissed with a number from 1 to ``steps``."""

    def __init__(self, steps: int) -> None:
        super().__init__(f"Go to step (1 to {steps})", columns=44)
        self.steps = steps

    def body(self) -> Iterable[Widget]:
        yield Input(id="typed", type="integer", placeholder="number")

    def set_up(self) -> None:
        self.set_focus(self.query_one("#typed", Input))

    def act_answer(self) -> None:
        """Enter goes there; what is no step of it is told."""
        text = self.query_one("#typed", Input).value.strip()
        if text.isdigit() and 1 <= int(text[:9]) <= self.steps:
            self.dismiss(int(text))
        else:
            self.shell.tell(f"There are the steps 1 to {self.steps}.", "warning")

    ACTS: ClassVar[Sequence[Act]] = (
        Act("answer", "enter", "Go there", "Go to that step.", act_answer),
        Dialog.CLOSE,
    )  # fmt: skip
