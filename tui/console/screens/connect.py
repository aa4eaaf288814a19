"""Connecting a repository: a name for this host, the format, and where it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Input, Label

from engine.formats.registry import known_formats
from tui.arguments import UsageError, parameters
from tui.console.acts import Act
from tui.console.lines import Span, line
from tui.console.screens.dialog import Dialog
from tui.console.widgets.pane import Pane, Paragraph

_EXAMPLES = {
    "localfs": "path=/srv/images",
    "nfs": "server=10.0.0.4 export=/srv/images",
    "lvm": "volume_group=images",
}
"""What the parameters of a type look like."""


class Connect(Dialog):
    """Three fields. Dismissed with the name when it is connected; errors stay in the dialog."""

    ACTS: ClassVar[Sequence[Act]] = (
        Act("connect_now", "enter", "Connect", "Connect it, and look at it."),
        Act("next_format", "ctrl+f", "Other format", "The next format."),
        Act("create", "ctrl+n", "Create empty", "Make an empty repository there, then connect it."),
        Act("close", "escape", "Close", "Connect nothing."),
    )

    def __init__(self) -> None:
        super().__init__("Connect a repository", columns=78)
        self.formats = known_formats()
        self.format = 0

    def body(self) -> Iterable[Widget]:
        """Name, format, parameters, and what went wrong."""
        yield Horizontal(Label("Name   "), Input(id="repo-name", placeholder="what it is called on this host"))
        yield Pane("format")
        yield Horizontal(Label("Where  "), Input(id="where"))
        yield Pane("told")

    def on_mount(self) -> None:
        """The cursor is in the first field."""
        self.query_one("#format", Pane).styles.height = 1
        self.query_one("#told", Pane).styles.height = 4
        for name in ("#format", "#told"):
            self.query_one(name, Pane).can_focus = False
        self._show_format()
        self.tell_here(f"Formats this program knows: {', '.join(self.formats)}. tab goes to the next field.")
        self.set_focus(self.query_one("#repo-name", Input))

    def _show_format(self) -> None:
        name = self.formats[self.format]
        self.query_one("#format", Pane).show(
            [line("Format ", Span(name, "bold"), Span("   ctrl+f: the next", "quiet"))]
        )
        self.query_one("#where", Input).placeholder = _EXAMPLES.get(name.partition("-")[0], "KEY=VALUE ...")

    def tell_here(self, text: str, role: str = "text") -> None:
        """Write below the fields."""
        self.query_one("#told", Pane).show([Paragraph("", Span(text, role))])

    def act_next_format(self) -> None:
        """The next format."""
        self.format = (self.format + 1) % len(self.formats)
        self._show_format()

    def act_connect_now(self) -> None:
        """Connect it."""
        self._connect(create=False)

    def act_create(self) -> None:
        """Make an empty repository first."""
        if locked := self.console.why_locked():
            self.tell_here(f"Nothing is created: {locked}.", "warning")
            return
        self._connect(create=True)

    def _connect(self, create: bool) -> None:
        name = self.query_one("#repo-name", Input).value.strip()
        words = self.query_one("#where", Input).value.split()
        if not name or not words:
            self.tell_here("A name and where it is are needed.", "warning")
            return
        try:
            given = parameters(words)
        except UsageError as error:
            self.tell_here(f"{error.message}. Write KEY=VALUE.", "warning")
            return
        form = self.formats[self.format]
        self.tell_here("Connecting…" if self.console.signs.unicode else "Connecting...")
        site = self.console.site

        def call() -> None:
            with site.engine() as engine:
                if create:
                    engine.create_repository(form, given)
                engine.connect_storage_repository(name, form, given)

        if not self.console.jobs.start("connect", call, lambda value, error: self._ended(name, error)):
            self.tell_here("The last attempt is still under way.", "warning")

    def _ended(self, name: str, error: BaseException | None) -> None:
        from engine.errors import DiskwrightError

        if isinstance(error, DiskwrightError):
            if self.is_mounted:
                self.tell_here(f"{error.message}. {error.next_step}", "broken")
            return
        if error is not None:
            self.console.failed("The repository could not be connected", error)
            return
        self.console.site.reload()
        if self.is_mounted and self.is_current:
            self.dismiss(name)
