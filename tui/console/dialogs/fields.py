"""Dialogs with fields to fill in: the arrows go from field to field, tab completes paths, errors stay in the dialog."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from textual import events
from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Input, Label

from engine.errors import DiskwrightError
from tui.console.acts import Act
from tui.console.dialogs.dialog import EDGES, Dialog
from tui.console.draw.lines import Cell, Span
from tui.console.shell import Shell
from tui.console.widgets.pane import Pane, Paragraph, rows_of
from tui.text.printable import printable

_TOLD = 8
_TEXT_ROWS, _MOST_TEXT_ROWS = 3, 8
"""Of what is said below the fields."""


class FieldsDialog(Dialog):
    """What dialogs with fields have in common. ``#text`` is the pane for what is to be said."""

    def is_path(self, field: Input) -> bool:
        """Whether a path belongs in a field, or several with commas between."""
        del field
        return False

    def tell_here(self, text: str, role: str = "text") -> None:
        """Write below the fields."""
        pane, told = self.query_one("#text", Pane), Paragraph("", Span(text, role))
        if (rows := rows_of([told], self.box_columns - EDGES)) > _TEXT_ROWS:
            pane.styles.height = min(_MOST_TEXT_ROWS, rows)
        pane.show([told])

    def tell_error(self, error: DiskwrightError) -> None:
        """Write an error and what to do about it."""
        if self.is_mounted:
            text = printable(f"{error.message}. {error.next_step}").strip()
            self.tell_here(f"{text[:1].upper()}{text[1:]}", "broken")

    def take_field_key(self, field: Input, event: events.Key) -> bool:
        """The arrows go from field to field; tab completes what is a path."""
        if event.key in ("up", "down"):
            (self.focus_previous if event.key == "up" else self.focus_next)()
            return True
        if event.key == "tab" and field.value and self.is_path(field):
            self._complete(field, field.value)
            return True
        return super().take_field_key(field, event)

    def _complete(self, field: Input, typed: str) -> None:
        """Look what begins so, beside the console: a directory may be on a storage that does not answer."""

        def done(found: tuple[str, Sequence[str]] | None, error: BaseException | None) -> None:
            if error is not None or found is None or not self.is_mounted or field.value != typed:
                return
            text, names = found
            if text != typed:
                field.value = text
                field.cursor_position = len(text)
            if len(names) > 1:
                more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
                self.tell_here(f"{'  '.join(names[:_TOLD])}{more}", "quiet")
            elif text == typed:
                if not names:
                    self.tell_here("Nothing that is there begins so.", "quiet")
                self.focus_next()

        self.shell.jobs.start("complete", lambda: completed(typed), done)


def completed(typed: str) -> tuple[str, list[str]]:
    """Return a path as far as there is only one way to go on, and what it may be: the last part of a list with commas,
    ~ for the user's home. A directory ends in a slash. Nothing is found in what cannot be read, and no name that could
    tell a terminal what to do."""
    head, comma, last = typed.rpartition(",")
    directory, begun = os.path.split(last)
    try:
        with os.scandir(os.path.expanduser(directory) or ".") as entries:
            names = sorted(
                entry.name + ("/" if entry.is_dir() else "")
                for entry in entries
                if entry.name.startswith(begun)
                and (begun or not entry.name.startswith("."))
                and printable(entry.name) == entry.name
            )
    except OSError:
        names = []
    common = names[0] if names else begun
    while not all(name.startswith(common) for name in names):
        common = common[:-1]
    return f"{head}{comma}{os.path.join(directory, common)}", names


class FormField(NamedTuple):
    """A field to fill in."""

    name: str
    hint: str = ""
    value: str = ""
    path: bool = False


class Form(FieldsDialog):
    """``attempt`` is called with the values by field, beside the console; ``done`` with what it returned, also when
    the dialog was closed meanwhile. An error of the engine stays in the dialog."""

    def __init__(
        self, title: str, text: Sequence[Cell], fields: Sequence[FormField], label: str,
        attempt: Callable[[Mapping[str, str]], Any], done: Callable[[Any], None],
    ) -> None:  # fmt: skip
        super().__init__(title, columns=78)
        self.said = text
        self.fields = fields
        self._shell: Shell
        self.attempt = attempt
        self.done = done
        self.answer = Act("answer", "enter", label, "Do it with what is filled in.", Form.act_answer)

    def all_acts(self) -> Sequence[Act]:
        return (self.answer, *self.ACTS)

    def body(self) -> Iterable[Widget]:
        yield Pane("said")
        for number, field in enumerate(self.fields):
            made = Input(value=field.value, placeholder=field.hint, id=f"field-{number}", select_on_focus=False)
            yield Horizontal(Label(field.name), made)
        yield Pane("text")

    def set_up(self) -> None:
        self.write(self.query_one("#said", Pane), self.said, beside=11 + len(self.fields))
        self.query_one("#text", Pane).styles.height = _TEXT_ROWS
        for pane in self.query(Pane):
            pane.can_focus = False
        for field in self.query(Input):
            field.cursor_position = len(field.value)
        self.set_focus(self.query_one("#field-0", Input))

    def is_path(self, field: Input) -> bool:
        return self.fields[int(str(field.id).removeprefix("field-"))].path

    def values(self) -> dict[str, str]:
        """What was filled in, by the names of the fields."""
        typed = (self.query_one(f"#field-{number}", Input).value.strip() for number in range(len(self.fields)))
        return {field.name: value for field, value in zip(self.fields, typed, strict=True)}

    def act_answer(self) -> None:
        """Try it."""
        shell, values = self.shell, self.values()
        self._shell = shell  # what is done may be done when the dialog is gone
        if not shell.jobs.start(f"form {self.box_title}", lambda: self.attempt(values), self._done):
            self.tell_here("The last attempt is still under way.", "warning")
        else:
            self.tell_here("Doing it.", "quiet")

    def _done(self, value: Any, error: BaseException | None) -> None:
        here = self.is_mounted and self.is_current
        if isinstance(error, DiskwrightError) and here:
            self.tell_error(error)
        elif error is not None:
            self._shell.failed(f"{self.box_title}: it was not done", error)
        else:
            if here:
                self.dismiss(None)
            self.done(value)

    ACTS: ClassVar[Sequence[Act]] = (Dialog.CLOSE,)
