"""Asking for a priority."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tui.console.dialogs.choose import Choice, Choose
from tui.console.draw.lines import Span
from tui.text.words import PRIORITIES

if TYPE_CHECKING:
    from tui.console.app import ConsoleApp


def ask(app: ConsoleApp, decide: Callable[[int | None], None]) -> None:
    """Call ``decide`` with 1 to 4, or None for the priority by rule; not at all after esc."""
    choices = [
        Choice(str(number), Span(str(number), "key"), f"P{number}  {name}") for number, name in PRIORITIES.items()
    ]
    choices.append(Choice("0", Span("0", "key"), "as the rules say"))

    def chosen(key: str | None) -> None:
        if key is not None:
            decide(int(key) or None)

    app.push_screen(Choose("Priority", lambda: choices, left=3, search=False, hot=True, columns=44), chosen)
