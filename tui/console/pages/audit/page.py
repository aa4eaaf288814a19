"""An audit: findings among image files that are in no repository, and why each is one. Nothing is changed there."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from textual.containers import Container, Vertical
from textual.message import Message
from textual.widget import Widget

from engine.audit.model import AuditReport
from engine.errors import DiskwrightError, Stopped
from tui import audits
from tui.audits import Request, Row
from tui.console.acts import Act
from tui.console.control.adopting import adopt
from tui.console.dialogs.fields import Form, FormField
from tui.console.draw.lines import Line, Span, line
from tui.console.pages.audit.rows import COLUMNS, HEADS, AuditRows
from tui.console.pages.page import CopyItem, Page
from tui.console.pages.why import lines
from tui.console.widgets.bar import Button
from tui.console.widgets.base import set_title
from tui.console.widgets.pane import Item, Pane, Paragraph
from tui.console.widgets.table import Table
from tui.text.printable import printable
from tui.view.why import Explanation

_TOLD_EVERY_S = 0.5
_JOB = "audit"
_CHOOSE = "No directory was chosen: o chooses them."
_TEXT = (
    "Files of libvirt, Proxmox VE, oVirt or of nobody: what is wrong with them, and what nobody needs. Nothing is "
    "changed there, and no image is called an orphan unless all that may need it was given."
)


def _request(values: Mapping[str, str], host: str) -> Request:
    """Return what was filled in, if an audit of it can begin."""
    places, definitions = (
        tuple(_path(path.strip()) for path in values[name].split(",") if path.strip())
        for name in ("images", "machines")
    )
    request = Request(places, definitions, values["complete"].lower() in ("y", "yes"))
    audits.require(request, host)
    return request


def _path(typed: str) -> str:
    return typed if typed.startswith(audits.VOLUME_GROUP) else os.path.abspath(os.path.expanduser(typed))


class AuditPage(Page):
    """The findings of one audit; it begins when the directories are chosen."""

    tab = "audit"
    TABS = False
    ALWAYS: ClassVar[Sequence[str]] = ("help", "commands", "back")

    class Progressed(Message):
        """There is more to tell of how far it is."""

    def __init__(self) -> None:
        super().__init__()
        self.request = Request(())
        self.every = False
        self._report: AuditReport | None = None
        self._problem = ""
        self._how_far = ""
        self._left = False
        """The page is gone: what still looks, ends."""

    def body(self) -> Iterable[Widget]:
        table, why = Table(COLUMNS, name="findings"), Pane("why")
        for widget in (table, why):
            widget.add_class("panel")
        yield Container(Vertical(table, id="middle"), why, id="columns")

    @property
    def table_widget(self) -> Table:
        return self.query_one("#findings", Table)

    def set_up(self) -> None:
        self.set_focus(self.table_widget)

    def on_unmount(self) -> None:
        """Nobody waits for it any more."""
        self._left = True

    # -- looking

    def _begin_audit(self) -> None:
        told = 0.0
        request, shell = self.request, self.shell  # the page may be gone when it ends

        def progress(what: str, done: int, of: int) -> None:
            nonlocal told
            if self._left:
                raise Stopped("the audit was left", "")
            if (now := time.monotonic()) - told >= _TOLD_EVERY_S:
                told = now
                self._how_far = f"{what}: {f'{done} of {of}' if of else done}"
                self.post_message(self.Progressed())

        def done(report: AuditReport | None, error: BaseException | None) -> None:
            self._how_far = ""
            if isinstance(error, DiskwrightError):
                self._problem = printable(f"{error.message}. {error.next_step}")
            elif error is not None:
                shell.failed("The audit has failed", error)
                self._problem = "It has failed."
            else:
                self._problem, self._report = "", report
            if self.is_mounted:
                self.fill_all()

        if self.shell.jobs.start(_JOB, lambda: audits.run(request, shell.site.host, progress), done):
            self._problem, self._how_far, self._report = "", "Looking", None
            self.shell.session_log.add(self.shell.site.clock(), request.command)
        else:
            self.shell.tell("An audit is under way.", "warning")

    def on_audit_page_progressed(self, message: Progressed) -> None:
        """Tell how far it is."""
        message.stop()
        self.fill_soon()

    # -- drawing

    def shown(self) -> AuditRows:
        """The rows that are looked at."""
        found = audits.rows(self._report, self.every) if self._report is not None else ()
        return AuditRows(found, [path for path, _ in self._places()], self.shell.signs)

    def _places(self) -> Sequence[tuple[str, str]]:
        """What is looked at, with its layout; a volume group is the directory of its devices once it was looked at."""
        return self._report.places if self._report is not None else [(path, "") for path in self.request.places]

    def fill(self) -> None:
        table, rows = self.table_widget, self.shown()
        table.show(rows, self._nothing())
        report = self._report
        name = "Audit" if report is None else f"Findings {len(report.findings)}"
        where = ", ".join(f"{printable(path)}{f' ({layout})' if layout else ''}" for path, layout in self._places())
        set_title(table, f"{name}   {'every image   ' if self.every else ''}{where}".rstrip())
        self.fill_why()

    def fill_why(self) -> None:
        """Write why the row under the cursor is there."""
        pane, found = self.query_one("#why", Pane), self.explanation()
        set_title(pane, "Why")
        pane.show(self._why(found) if found is not None else [line(Span("Nothing is under the cursor.", "quiet"))])

    def _why(self, found: Explanation) -> list[Item]:
        items = lines.of(found, self.shell.signs)
        items += [Paragraph("Facts" if not number else "", fact.text) for number, fact in enumerate(found.facts)]
        row = self.row()
        return [*items, *(lines.beyond("", row.rule, (), 0) if row is not None and self.tall and self.wide else [])]

    def table_moved(self, table: Table) -> None:
        """Another row, another reason."""
        self.fill_why()

    def status(self) -> Button:
        report = self._report
        if report is None:
            return Button((Span(f" {self._how_far}", "quiet"),))
        text = f" {audits.counts(report)}"
        if report.unsure:
            text += f" No orphan is named: {printable(report.unsure[0])}."
        return Button((Span(text, "quiet"),))

    def _nothing(self) -> list[Line]:
        if self._problem:
            return [line(Span(self._problem, "broken"))]
        if self._report is None:
            text = f"{self._how_far}. Nothing is changed there; esc ends it." if self._how_far else _CHOOSE
            return [line(Span(text, "quiet"))]
        return [line(Span("Nothing was found; a shows every image." if not self.every else "No image is there."))]

    # -- acts

    def row(self) -> Row | None:
        """The row under the cursor."""
        rows, cursor = self.table_widget.rows, self.table_widget.cursor
        return rows.found[cursor] if isinstance(rows, AuditRows) and 0 <= cursor < len(rows) else None

    def explanation(self) -> Explanation | None:
        """Why the row under the cursor is there."""
        row = self.row()
        return audits.explain(row) if row is not None else None

    def why_not(self, act: Act) -> str:
        if act.name in ("choose_places", "deep_audit", "reload") and self.shell.jobs.busy(_JOB):
            return "an audit is under way"
        if act.name in ("every_image", "deep_audit", "reload") and not self.request.places:
            return "no directory was chosen, o chooses them"
        if act.name == "adopt" and not self.shell.site.current:
            return "no repository is connected, c connects one"
        return ""

    def act_choose(self) -> None:
        """Ask for the directories, then look."""
        now = self.request
        fields = (
            FormField("images", "/var/lib/libvirt/images or vg:NAME, several with commas", ",".join(now.places), True),
            FormField("machines", "/etc/libvirt: where machines are defined", ",".join(now.definitions), True),
            FormField("complete", "yes: nothing else refers to the images", "yes" if now.complete else ""),
        )
        host = self.shell.site.host
        title, attempt = "Audit images that are in no repository", lambda values: _request(values, host)
        self.shell.open(Form(title, [_TEXT], fields, "Audit", attempt, self._chosen))

    def _chosen(self, request: Request) -> None:
        self.request = request
        self.act_again()

    def act_every(self) -> None:
        self.every = not self.every
        self.fill_all()

    def act_adopt(self) -> None:
        """Take what was looked at over into a repository, after a look at what becomes of it."""
        adopt(self.shell, [path for path, _ in self._places()])

    def act_again(self) -> None:
        self._begin_audit()
        self.fill_all()

    def act_deep(self) -> None:
        self.request = self.request._replace(deep=True)
        self.act_again()

    def act_back(self) -> None:
        self.dismiss(None)

    def copies(self) -> list[CopyItem]:
        row, found = self.row(), self.explanation()
        items: list[CopyItem] = [("c", "command", self.request.command)]
        if row is not None and found is not None:
            items += [("i", "path", row.path), ("w", "reason", "\n".join(found.text()))]
        return items

    def table(self) -> tuple[Sequence[str], list[Sequence[str]]]:
        rows = self.shown()
        return HEADS, [rows.text(index) for index in range(len(rows))]

    ACTS: ClassVar[Sequence[Act]] = (
        Act("choose_places", "o", "Open", "Choose the directories to look at.", act_choose, "path directory"),
        Act("every_image", "a", "All", "Show every image, or what was found alone.", act_every, "optimized list"),
        Act("reload", "r", "Again", "Look again.", act_again, "refresh"),
        Act("deep_audit", "x", "Deep", "Look again, and run qemu-img check on each image: slow.", act_deep, "check"),
        Act("adopt", "A", "Adopt", "Take files over into a repository. Asks first.", act_adopt,
            "import take over", changes=True),
        Act("back", "escape", "Back", "Back to where it was opened; an audit under way ends.", act_back),
    )  # fmt: skip
