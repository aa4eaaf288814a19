"""One fact, opened: what the record, the progress or the data file itself says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual.widget import Widget

from tui.console.acts import Act
from tui.console.draw.lines import Span
from tui.console.pages.page import CopyItem, Page
from tui.console.widgets.base import set_title
from tui.console.widgets.pane import Item, Pane, Paragraph
from tui.view.facts import Fact, open_fact


class RecordPage(Page):
    """The lines of one piece of evidence."""

    tab = "record"
    TABS = False
    ALWAYS: ClassVar[Sequence[str]] = ("help", "commands", "back")

    def __init__(self, fact: Fact) -> None:
        super().__init__()
        self.fact = fact
        self._lines: tuple[str, ...] = ()

    def body(self) -> Iterable[Widget]:
        pane = Pane("record")
        pane.add_class("panel")
        yield pane

    def set_up(self) -> None:
        self.set_focus(self.query_one("#record", Pane))
        self.act_reload()

    def fill(self) -> None:
        pane = self.query_one("#record", Pane)
        set_title(pane, f"Fact: {self.fact.kind}")
        said = Paragraph("", Span(self.fact.text, "bold"))  # all of it, however narrow the screen
        where = Paragraph("", Span(self.fact.path or "no file", "title"))
        place: list[Item] = [said, where, Paragraph("", Span(self.fact.place, "quiet")), ()]
        pane.show([*place, *(Paragraph("", text) for text in self._lines)])

    def act_reload(self) -> None:
        site, repo, fact = self.shell.site, self.shell.site.current, self.fact

        def call() -> tuple[str, ...]:
            with site.engine() as engine:
                return open_fact(engine, repo, fact)

        def done(lines: tuple[str, ...]) -> None:
            self._lines = lines
            if self.is_mounted:
                self.fill_all()

        self.shell.do("record", call, done, "It cannot be read")

    def act_back(self) -> None:
        self.dismiss(None)

    def copies(self) -> list[CopyItem]:
        return [("i", "path", self.fact.path), ("r", "text", "\n".join(self._lines))]

    def table(self) -> tuple[Sequence[str], list[Sequence[str]]]:
        return ("line",), [(text,) for text in self._lines]

    ACTS: ClassVar[Sequence[Act]] = (
        Act("reload", "r", "Read again", "Read it again.", act_reload, "refresh"),
        Act("back", "escape", "Back", "Back to the reason.", act_back),
    )  # fmt: skip
