"""Connecting a repository: a name for this host, the format, and a field for each of its parameters."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Input, Label

from engine.errors import DiskwrightError, Moved
from engine.formats.registry import known_formats
from tui.console.acts import Act
from tui.console.dialogs.confirm import Ask
from tui.console.dialogs.dialog import Dialog
from tui.console.dialogs.fields import FieldsDialog
from tui.console.draw.lines import Span, line
from tui.console.widgets.pane import Pane
from tui.view.command_lines import line as command_line
from tui.work import places

_ROWS = max(map(len, places.FIELDS.values()))
_NAME = "repo-name"


class Connect(FieldsDialog):
    """Dismissed with the name when it is connected; errors stay in the dialog, the cursor in what is wrong."""

    def __init__(self) -> None:
        super().__init__("Connect a repository", columns=78)
        self.formats = known_formats()
        self.format = 0

    @property
    def format_name(self) -> str:
        """The format that is chosen."""
        return self.formats[self.format]

    def body(self) -> Iterable[Widget]:
        """Name, format, parameters, and what went wrong."""
        yield Horizontal(Label("name"), Input(id=_NAME, placeholder="what it is called on this host"))
        yield Pane("format")
        for number in range(_ROWS):
            yield Horizontal(Label("", id=f"label-{number}"), Input(id=f"field-{number}"), id=f"row-{number}")
        yield Pane("text")

    def set_up(self) -> None:
        self.query_one("#format", Pane).styles.height = 1
        self.query_one("#text", Pane).styles.height = 4
        for name in ("#format", "#text"):
            self.query_one(name, Pane).can_focus = False
        self._show_format()
        self.set_focus(self._input(_NAME))

    def _input(self, name: str) -> Input:
        return self.query_one(f"#{name}", Input)

    # -- fields

    def _show_format(self) -> None:
        name = self.format_name
        self.query_one("#format", Pane).show(
            [line(f"{'format':<15}", Span(name, "bold"), Span("   ctrl+f: the next", "quiet"))]
        )
        fields = places.fields_of(name)
        for number in range(_ROWS):
            used = number < len(fields)
            self.query_one(f"#row-{number}").display = used
            self._input(f"field-{number}").can_focus = used
            if used:
                self.query_one(f"#label-{number}", Label).update(fields[number].name)
                self._input(f"field-{number}").placeholder = fields[number].hint
        self.tell_here(
            f"Formats: {', '.join(self.formats)}. The arrows go from field to field, tab completes paths.", "quiet"
        )

    def values(self) -> dict[str, str]:
        """What was filled in, by field."""
        fields = places.fields_of(self.format_name)
        return {field.name: self._input(f"field-{number}").value.strip() for number, field in enumerate(fields)}

    def _wrong(self, field: str, text: str) -> None:
        """Say what is wrong with a field, and go there."""
        self.tell_here(text, "warning")
        names = [item.name for item in places.fields_of(self.format_name)]
        self.set_focus(self._input(f"field-{names.index(field)}" if field in names else _NAME))

    def is_path(self, field: Input) -> bool:
        fields, number = places.fields_of(self.format_name), str(field.id).removeprefix("field-")
        return number.isdigit() and fields[int(number)].name in places.PATHS

    # -- acts

    def act_next_format(self) -> None:
        """The next format; what was typed belongs to the one before."""
        self.format = (self.format + 1) % len(self.formats)
        for number in range(_ROWS):
            self._input(f"field-{number}").value = ""
        self._show_format()
        self.set_focus(self._input("field-0" if self._input(_NAME).value else _NAME))

    def act_connect_now(self) -> None:
        self._connect(create=False)

    def act_create(self) -> None:
        if locked := self.shell.site.why_locked():
            self.tell_here(f"Nothing is created: {locked}.", "warning")
            return
        self._connect(create=True)

    def _connect(self, create: bool, accept_moved: bool = False) -> None:
        name, form, values = self._input(_NAME).value.strip(), self.format_name, self.values()
        if not name:
            self._wrong("", "It needs a name.")
            return
        if wrong := places.problem(form, values):
            self._wrong(wrong.field, f"{wrong.text[:1].upper()}{wrong.text[1:]}.")
            return
        given: dict[str, object] = dict(places.given(form, values))
        what = "Creating and connecting" if create else "Connecting"
        self.tell_here(f"{what}…" if self.shell.signs.unicode else f"{what}...")
        site = self.shell.site

        def call() -> None:
            with site.engine() as engine:
                if create:
                    engine.create_repository(form, dict(given))
                engine.connect_storage_repository(name, form, dict(given), accept_moved)

        def done(value: object, error: BaseException | None) -> None:
            del value
            self._ended(name, error)
            if isinstance(error, Moved) and self.is_current:
                self._ask_whether_moved(error)
            if error is None:
                words = shlex.join(f"{key}={value}" for key, value in given.items())
                for verb in ("create_repo", "connect") if create else ("connect",):
                    command = command_line(verb, repo=name, format=form, parameters=words)
                    self.shell.session_log.add(site.clock(), command)

        if not self.shell.jobs.start("connect", call, done):
            self.tell_here("The last attempt is still under way.", "warning")

    def _ask_whether_moved(self, error: Moved) -> None:
        """What stands there is not what was connected: say what differs, and take it only when that is confirmed."""
        text = [f"{error.message}.", "Everything else is refused until somebody says which one is meant."]
        answered = Ask("Is it the one to use from now on?", text, "M", "Take what is there")
        self.shell.open(answered, lambda yes: self._connect(create=False, accept_moved=True) if yes else None)

    def _ended(self, name: str, error: BaseException | None) -> None:
        if isinstance(error, DiskwrightError):
            self.tell_error(error)
            return
        if error is not None:
            self.shell.failed("The repository could not be connected", error)
            return
        self.shell.site.reload()
        if self.is_mounted and self.is_current:
            self.dismiss(name)

    ACTS: ClassVar[Sequence[Act]] = (
        Act("connect_now", "enter", "Connect", "Connect it, and look at it.", act_connect_now),
        Act("next_format", "ctrl+f", "Other format", "The next format.", act_next_format),
        Act("create", "ctrl+n", "Create empty", "Make an empty repository there, then connect it.", act_create),
        Act("close", "escape", "Close", "Connect nothing.", Dialog.act_close),
    )  # fmt: skip
