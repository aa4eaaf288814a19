"""What pages with pictures have in common, and the two there are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual.widget import Widget

from tui.console.acts import Act
from tui.console.pages.page import CopyItem, Page
from tui.console.pages.pictures import lines
from tui.console.shell import Where
from tui.console.widgets.base import set_title
from tui.console.widgets.pane import Item, Pane, Paragraph
from tui.text.amounts import moment
from tui.work.runs import Run

_FRAME_ROWS = 5


class PicturePage(Page):
    """A pane that is filled with pictures as large as it is; e writes the numbers, or the picture as SVG."""

    TABS = False
    ALWAYS: ClassVar[Sequence[str]] = ("help", "commands", "back")

    def body(self) -> Iterable[Widget]:
        pane = Pane("picture")
        pane.add_class("panel")
        yield pane

    def set_up(self) -> None:
        self.set_focus(self.query_one("#picture", Pane))

    def picture_title(self) -> str:
        """What is drawn."""
        raise NotImplementedError

    def drawn(self, columns: int, rows: int) -> list[Item]:
        """The pictures, in so many columns and about so many rows."""
        raise NotImplementedError

    def fill(self) -> None:
        pane = self.query_one("#picture", Pane)
        set_title(pane, self.picture_title())
        pane.show(self.drawn(max(40, self.size.width - 5), max(8, self.size.height - _FRAME_ROWS)))

    def act_back(self) -> None:
        self.dismiss(None)

    def copies(self) -> list[CopyItem]:
        heads, rows = self.table()
        return [("r", "numbers", "\n".join("  ".join(row) for row in (heads, *rows)))]

    ACTS: ClassVar[Sequence[Act]] = (Act("back", "escape", "Back", "Back to where it was opened.", act_back),)


class SpacePage(PicturePage):
    """Free space of the repository as scans of this host saw it."""

    tab = "space"

    def picture_title(self) -> str:
        return f"Free space of {self.shell.site.view.name} over time, as seen by this host"

    def _points(self) -> list[tuple[float, int]]:
        journal = self.shell.site.journal
        return [(seen.when, seen.free_bytes) for seen in journal.space()] if journal is not None else []

    def drawn(self, columns: int, rows: int) -> list[Item]:
        points = self._points()
        if len(points) < 2:
            return [
                (),
                Paragraph("", "One amount was seen so far; there is a picture once a scan finds another."),
            ]
        site = self.shell.site
        reserve = int(site.view.total_bytes * site.reserve_share)
        return lines.space(points, site.clock(), reserve, columns, rows, self.shell.signs)

    def table(self) -> tuple[Sequence[str], list[Sequence[str]]]:
        return ("when", "free_bytes"), [(moment(when), str(free)) for when, free in self._points()]


class PacePage(PicturePage):
    """What a run has done over time, and how fast."""

    tab = "pace"

    def __init__(self) -> None:
        super().__init__()
        self.run_id = ""

    def arrive(self, where: Where) -> None:
        """Draw a run."""
        super().arrive(where)
        self.run_id = where.run

    def run_shown(self) -> Run | None:
        """The run that is drawn, None when it is not kept any more."""
        return next((run for run in self.shell.site.runs if run.id == self.run_id), None)

    def picture_title(self) -> str:
        run = self.run_shown()
        return f"Run {run.short}   {run.state}   data over time" if run is not None else "Data over time"

    def drawn(self, columns: int, rows: int) -> list[Item]:
        run = self.run_shown()
        points = lines.done(run) if run is not None else []
        if run is None or len(points) < 2 or not points[-1][1]:
            text = "No data was seen to move: a step is looked at four times a second, and most are done before that."
            return [(), Paragraph("", text)]
        return lines.pace(run, points, run.ended or self.shell.site.clock(), columns, rows, self.shell.signs)

    def table(self) -> tuple[Sequence[str], list[Sequence[str]]]:
        run = self.run_shown()
        return ("when", "bytes"), [(moment(when), str(done)) for when, done in (lines.done(run) if run else [])]
