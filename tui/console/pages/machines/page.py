"""All that is prepared on this host, of every repository, in one list: the machines that run, what needs somebody
first. It is looked at again while it is shown; no machine is asked before somebody asks for that.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual.containers import Container, Vertical
from textual.widget import Widget

from engine.errors import DiskwrightError
from tui.console.acts import Act
from tui.console.control import machines as control
from tui.console.control.navigation import look_at
from tui.console.draw.lines import Line, Span, line
from tui.console.pages.machines.rows import COLUMNS, HEADS, MachineRows, role_of
from tui.console.pages.page import CopyItem, Page
from tui.console.shell import Where
from tui.console.widgets.bar import Button
from tui.console.widgets.base import set_title
from tui.console.widgets.pane import Item, Pane, Paragraph
from tui.console.widgets.table import Table
from tui.text.printable import printable
from tui.view.command_lines import line as command_line
from tui.view.machines import MachineRow, MachineState, ordered, told

_LOOK_S = 3.0
_SHARE = 4
"""Looking takes at most one part in so many of the time."""
_JOB = "machines"
_DONE = {
    MachineState.UNHELD: "Its holder is dead: a puts a new one beside the machine, which goes on.",
    MachineState.UNKNOWN: "",
    MachineState.LEFT: "Its holder is dead, and nobody has it open: x tears it down.",
    MachineState.READY: "Nobody has it open: start the machine, or x tears it down.",
    MachineState.RUNS: "m tells its monitor: then it is worked on while it runs.",
}
"""What can be done; of a machine that runs, where its monitor is not known."""


class MachinesPage(Page):
    """The machines of this host."""

    tab = "machines"
    TABS = False
    ALWAYS: ClassVar[Sequence[str]] = ("help", "commands", "back")

    def __init__(self) -> None:
        super().__init__()
        self._rows: dict[str, MachineRow] = {}
        self._problem = ""
        self._looked = False
        self._next = 0.0
        self._began: dict[str, float] = {}

    def body(self) -> Iterable[Widget]:
        table, why = Table(COLUMNS, name="machines"), Pane("why")
        for widget in (table, why):
            widget.add_class("panel")
        yield Container(Vertical(table, id="middle"), why, id="columns")

    @property
    def table_widget(self) -> Table:
        return self.query_one("#machines", Table)

    def set_up(self) -> None:
        self.set_focus(self.table_widget)
        self._look()
        self.set_interval(1.0, self._look_if_due)

    # -- looking

    def _look_if_due(self) -> None:
        if self.app.screen is self and time.monotonic() >= self._next:
            self._look()

    def _look(self) -> None:
        """Look at what this host has noted, then at each repository by itself: one that hangs holds up no other."""
        site = self.shell.site
        if site.replay is not None:
            return
        self._next = time.monotonic() + _LOOK_S
        self.shell.jobs.start(_JOB, site.machines, self._noted)

    def _noted(self, rows: tuple[MachineRow, ...] | None, error: BaseException | None) -> None:
        if not self.is_mounted:
            return
        self._looked = True
        if isinstance(error, DiskwrightError):
            self._problem = printable(f"{error.message}. {error.next_step}")
        elif error is not None or rows is None:
            self.shell.failed("The machines could not be looked at", error or AssertionError("a look found nothing"))
        else:
            self._problem = ""
            self._rows = {row.key: self._known(row) for row in rows}
            for repo in dict.fromkeys(row.repository for row in rows if row.repository):
                self._look_into(repo, [row for row in rows if row.repository == repo])
        self.fill_all()

    def _known(self, row: MachineRow) -> MachineRow:
        """A row as it was noted now, with what was seen of it before."""
        old = self._rows.get(row.key)
        if old is not None and old.held == row.held:
            return old._replace(monitor=row.monitor, holder=row.holder)
        view = self.shell.site.view_named(row.repository)
        seen = next((one for one in view.machines if one.key == row.key), None) if view is not None else None
        return row._replace(name=seen.name, below=seen.below, waits=seen.waits) if seen is not None else row

    def _look_into(self, repo: str, rows: list[MachineRow]) -> None:
        site = self.shell.site
        began = time.monotonic()

        def seen(found: tuple[MachineRow, ...] | None, error: BaseException | None) -> None:
            if not self.is_mounted:
                return
            self._next = max(self._next, time.monotonic() + _SHARE * (time.monotonic() - began))
            if found is None:
                self._problem = printable(f"{repo}: {error}")
                if not isinstance(error, DiskwrightError):
                    self.shell.failed(f"{repo} could not be looked at", error or AssertionError("nothing was found"))
            else:
                view = site.view_named(repo)
                waits = {row.key: row.waits for row in view.machines} if view is not None else {}
                known = {row.key: row._replace(waits=waits.get(row.key, ())) for row in found}
                self._rows |= {key: row for key, row in known.items() if key in self._rows}
            self.fill_soon()

        self.shell.jobs.start(f"{_JOB} {repo}", lambda: site.machines_of(repo, rows), seen)

    # -- drawing

    def shown(self) -> MachineRows:
        """The rows that are looked at."""
        site = self.shell.site
        rows = self._rows.values() if site.replay is None else site.view.machines
        return MachineRows(ordered(rows), site.now)

    def fill(self) -> None:
        table, rows = self.table_widget, self.shown()
        table.show(rows, self._nothing())
        run = sum(row.state in (MachineState.RUNS, MachineState.UNHELD) for row in rows.found)
        set_title(table, f"Machines {run} of {len(rows)} prepared   all repositories of {self.shell.site.host}")
        self.fill_why()

    def _nothing(self) -> list[Line]:
        if self._problem:
            return [line(Span(self._problem, "broken"))]
        if not self._looked and self.shell.site.replay is None:
            return [line(Span("Looking at what is prepared here.", "quiet"))]
        return [
            line("No image is prepared on this host."),
            line(Span("p in Images prepares one, or diskwright prepare", "quiet")),
        ]

    def fill_why(self) -> None:
        """Write all that is known of the row under the cursor."""
        pane, row = self.query_one("#why", Pane), self.row()
        set_title(pane, "Machine")
        if row is None:
            pane.show([])
            return
        title: list[Item] = [(Span(f"{row.label}  ", "title"), Span(str(row.state), role_of(row.state)))]
        pane.show([*title, *(Paragraph(label, text) for label, text in told(row))])

    def table_moved(self, table: Table) -> None:
        """Another machine."""
        del table
        self.fill_why()
        self.fill_footer()
        self.fill_status()

    def status(self) -> Button:
        """What is wrong, or what can be done for the machine under the cursor."""
        row = self.row()
        if self._problem and row is not None:
            return Button((Span(f" {self._problem}", "warning"),))
        if row is None:
            return Button(())
        told = _DONE[row.state] if row.state is not MachineState.RUNS or (row.writable and not row.monitor) else ""
        return Button((Span(f" {told}", "quiet"),))

    # -- acts

    def row(self) -> MachineRow | None:
        """The row under the cursor."""
        rows, cursor = self.table_widget.rows, self.table_widget.cursor
        return rows.found[cursor] if isinstance(rows, MachineRows) and 0 <= cursor < len(rows) else None

    def why_not(self, act: Act) -> str:
        if act.name in control.ACTS or act.name == "show_image":
            return control.why_not(self.shell, act.name, self.row())
        return ""

    def on_table_opened(self, message: Table.Opened) -> None:
        """Enter shows the image."""
        message.stop()
        act = self.keys.named("show_image")
        if act is not None:
            self.press(act)

    def _with_row(self, do: control.Deed) -> None:
        row = self.row()
        assert row is not None
        do(self.shell, row, self._look)

    def act_image(self) -> None:
        """Go to the image, in its repository."""
        row = self.row()
        assert row is not None
        shell = self.shell
        if shell.site.current != row.repository:
            look_at(shell, row.repository)
        shell.show(Where("images", image=row.image))

    def act_again(self) -> None:
        self._look()

    def act_back(self) -> None:
        self.dismiss(None)

    # -- taking out

    def copies(self) -> list[CopyItem]:
        row = self.row()
        if row is None:
            return []
        command = command_line("status", repo=row.repository or "REPO", image=row.image)
        return [
            ("i", "id of the image", row.image),
            ("c", "command", command),
            ("p", "path", row.path),
            ("w", "machine", "\n".join(f"{label} {text}" for label, text in told(row))),
        ]

    def table(self) -> tuple[Sequence[str], list[Sequence[str]]]:
        rows = self.shown()
        return HEADS, [rows.text(index) for index in range(len(rows))]

    ACTS: ClassVar[Sequence[Act]] = (
        Act("show_image", "enter", "Image", "Show the image in its repository.", act_image, "open go"),
        Act("ask_machine", "w", "Ask", "Ask the machine what it has open and does now.",
            lambda page: page._with_row(control.ask), "monitor layers jobs qmp query"),
        Act("attach", "m", "Monitor", "Tell how the machine is spoken to, to work on it live.",
            lambda page: page._with_row(control.attach), "attach qmp libvirt live", changes=True),
        Act("take_over_machine", "a", "Take over", "Give a machine that lost its holder a new one. Asks.",
            lambda page: page._with_row(control.take_over), "unheld holder dead adopt", changes=True),
        Act("limit", "b", "Rate", "Let what works on it move so much in a second.",
            lambda page: page._with_row(control.limit), "speed bandwidth slow limit throttle", changes=True),
        Act("teardown", "x", "Tear down", "Undo prepare; not while a machine has it. Asks.",
            lambda page: page._with_row(control.teardown), "release unprepare detach end", changes=True),
        Act("reload", "r", "Again", "Look again.", act_again, "refresh", footer=False),
        Act("back", "escape", "Back", "Back to where it was opened.", act_back),
    )  # fmt: skip
