"""Families as a tree: which images stand on which, and how much of each is its own. Read when the page is opened."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual.widget import Widget

from tui.console.acts import Act
from tui.console.draw.lines import Line, Span, line
from tui.console.pages.family.rows import COLUMNS, HEADS, FamilyRows
from tui.console.pages.page import CopyItem, Page
from tui.console.shell import Where
from tui.console.widgets.bar import Button
from tui.console.widgets.base import set_title
from tui.console.widgets.table import Table
from tui.text.amounts import compact
from tui.view.command_lines import line as command_line
from tui.view.families import Family, Member, families


class FamilyPage(Page):
    """The family of one image, or all families of the repository."""

    tab = "family"
    TABS = False
    ALWAYS: ClassVar[Sequence[str]] = ("help", "commands", "back")

    def __init__(self) -> None:
        super().__init__()
        self.image = ""
        self.all = False
        self._families: tuple[Family, ...] | None = None
        self._problem = ""

    def body(self) -> Iterable[Widget]:
        table = Table(COLUMNS, name="family")
        table.add_class("panel")
        yield table

    @property
    def table_widget(self) -> Table:
        return self.query_one("#family", Table)

    def arrive(self, where: Where) -> None:
        """Show the family of an image."""
        super().arrive(where)
        self.image = where.image

    def set_up(self) -> None:
        self.set_focus(self.table_widget)
        self.act_reload()

    # -- drawing

    def shown(self) -> list[Family]:
        """The families that are looked at."""
        known = self._families or ()
        return [family for family in known if self.all or any(member.id == self.image for member in family)]

    def fill(self) -> None:
        found = self.shown()
        table = self.table_widget
        first = not len(table.rows) and bool(found)
        table.show(FamilyRows(found, self.shell.signs), self._nothing())
        if first:
            table.go_key(self.image)
        name = "All families" if self.all else "Family"
        members = sum(map(len, found))
        own = sum(member.own_bytes for family in found for member in family)
        number = f"{members} member{'' if members == 1 else 's'}"
        number = f"{len(found)} with {number}" if self.all else number
        set_title(table, f"{name}   {number}   {compact(own)} in all" if found else name)

    def status(self) -> Button:
        signs = self.shell.signs
        text = f" {signs.bar * 2} its own   {signs.room * 2} shared with what it stands on"
        return Button((Span(text, "quiet"), Span("   It may change with every fix.", "quiet")))

    def _nothing(self) -> list[Line]:
        if self._problem:
            return [line(Span(self._problem, "broken"))]
        return [line(Span("Reading the records." if self._families is None else "It is not there any more.", "quiet"))]

    # -- acts

    def member(self) -> Member | None:
        """The member under the cursor."""
        rows, cursor = self.table_widget.rows, self.table_widget.cursor
        return rows.members[cursor] if isinstance(rows, FamilyRows) and 0 <= cursor < len(rows) else None

    def why_not(self, act: Act) -> str:
        if act.name in ("why", "go_to_image"):
            member = self.member()
            if member is None:
                return "nothing is under the cursor"
            if self.shell.site.view.image(member.id) is None:
                return "it is data that no image shows, and something else needs"
        return ""

    def act_reload(self) -> None:
        """Read the records again, beside the console."""
        site, repo = self.shell.site, self.shell.site.current

        def call() -> tuple[Family, ...]:
            with site.engine() as engine:
                return families(engine, repo)

        def read(value: tuple[Family, ...] | None, error: BaseException | None) -> None:
            self._problem = f"They cannot be read: {error}" if error is not None else ""
            self._families = value if value is not None else self._families
            if self.is_mounted:
                self.fill_all()

        self.shell.jobs.start("families", call, read)

    def act_all(self) -> None:
        self.all = not self.all
        self.fill_all()

    def act_why(self) -> None:
        member = self.member()
        assert member is not None
        self.shell.show(Where("why", image=member.id))

    def act_image(self) -> None:
        member = self.member()
        assert member is not None
        self.shell.show(Where("images", image=member.id))

    def act_back(self) -> None:
        self.dismiss(None)

    def copies(self) -> list[CopyItem]:
        member = self.member()
        command = command_line("tree", repo=self.shell.site.view.name)
        return [("c", "command", command), *([("i", "id of the image", member.id)] if member else [])]

    def table(self) -> tuple[Sequence[str], list[Sequence[str]]]:
        rows = FamilyRows(self.shown(), self.shell.signs)
        return HEADS, [rows.text(index) for index in range(len(rows))]

    ACTS: ClassVar[Sequence[Act]] = (
        Act("why", "w", "Why", "Tell why the image is as it is.", act_why, "explain"),
        Act("go_to_image", "enter", "Image", "Show the image among all.", act_image, "open go to"),
        Act("all_families", "a", "All", "Show all families of the repository, or this one alone.", act_all, "tree"),
        Act("reload", "r", "Read again", "Read the records again.", act_reload, "refresh"),
        Act("back", "escape", "Back", "Back to the images.", act_back),
    )  # fmt: skip
