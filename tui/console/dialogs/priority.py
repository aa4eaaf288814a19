"""Asking for a priority."""

from __future__ import annotations

from collections.abc import Callable

from tui.console.dialogs.choose import Choice, Choose
from tui.console.draw.lines import Span
from tui.console.shell import Shell
from tui.text.words import PRIORITIES


def ask(shell: Shell, decide: Callable[[int | None], None]) -> None:
    """Call ``decide`` with 1 to 4, or None for the priority by rule; not at all after esc."""
    choices = [
        Choice(str(number), Span(str(number), "key"), f"P{number}  {name}") for number, name in PRIORITIES.items()
    ]
    choices.append(Choice("0", Span("0", "key"), "as the rules say"))

    def chosen(key: str | None) -> None:
        if key is not None:
            decide(int(key) or None)

    shell.open(Choose("Priority", lambda: choices, left=3, search=False, hot=True, columns=44), chosen)
