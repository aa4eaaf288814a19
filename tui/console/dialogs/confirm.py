"""Asking before something that cannot be undone: the id is to be typed. Enter keeps, esc keeps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual.widget import Widget
from textual.widgets import Input

from tui.console.acts import Act
from tui.console.dialogs.dialog import Dialog
from tui.console.draw.lines import Cell, Line, Span
from tui.console.widgets.pane import Pane

_MOST_TYPED = 32


def word_of(name: str, id: str) -> str:
    """Return what is to be typed for an image: its name where any keyboard has that and it is short, else the first
    digits of its id."""
    plain = name.isascii() and name == name.strip() and "\\" not in name
    return name if plain and 0 < len(name) <= _MOST_TYPED else id[:8]


class Confirm(Dialog):
    """Dismissed with True only after ``word`` was typed and enter pressed; every other way keeps."""

    ALWAYS: ClassVar[Sequence[str]] = ("keep",)

    def __init__(self, title: str, text: Sequence[Cell], word: str, label: str) -> None:
        super().__init__(title)
        self.text = text
        self.word = word
        self.label = label

    def body(self) -> Iterable[Widget]:
        yield Pane("text")
        yield Pane("ask")
        yield Input(id="typed", select_on_focus=False, placeholder="nothing typed: it is kept")

    def set_up(self) -> None:
        pane = self.query_one("#text", Pane)
        self.write(pane, self.text, beside=12)
        pane.can_focus = False
        ask = self.query_one("#ask", Pane)
        ask.can_focus = False
        self.write(ask, ["", self._question()], beside=12)
        self.set_focus(self.query_one("#typed", Input))

    def _question(self) -> Line:
        return (Span("Type "), Span(self.word, "bold"), Span(f" and enter to {self.label}. Enter alone keeps it:"))

    def act_answer(self) -> None:
        """Only the very word means yes; nothing typed means no; a wrong word means nothing."""
        typed = self.query_one("#typed", Input).value.strip()
        if typed == self.word:
            self.dismiss(True)
        elif not typed:
            self.dismiss(False)
        else:
            self.shell.tell(f"That is not {self.word}. Nothing was done.", "warning")

    def act_keep(self) -> None:
        self.dismiss(False)

    ACTS: ClassVar[Sequence[Act]] = (
        Act("keep", "escape", "Keep it", "Leave everything as it is.", act_keep),
        Act("answer", "enter", "Answer", "Only the very word means yes.", act_answer, footer=False),
    )  # fmt: skip


class Ask(Dialog):
    """A question that is answered by a key; ``enter`` and ``esc`` mean no."""

    ALWAYS: ClassVar[Sequence[str]] = ("no",)

    def __init__(self, title: str, text: Sequence[Cell], key: str, label: str) -> None:
        super().__init__(title)
        self.text = text
        self.yes = Act("yes", key, label, "Do it.", Ask.act_yes)

    def all_acts(self) -> Sequence[Act]:
        return (self.yes, *self.ACTS)

    def body(self) -> Iterable[Widget]:
        yield Pane("text")

    def set_up(self) -> None:
        self.write(self.query_one("#text", Pane), self.text, beside=10)

    def act_yes(self) -> None:
        self.dismiss(True)

    def act_no(self) -> None:
        self.dismiss(False)

    ACTS: ClassVar[Sequence[Act]] = (
        Act("no", "escape", "No", "Leave everything as it is.", act_no),
        Act("no_too", "enter", "No", "Leave everything as it is.", act_no, footer=False),
    )  # fmt: skip
