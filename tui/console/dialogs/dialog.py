"""Dialogs: a box over the screen that waits for an answer. ``esc`` always leaves everything as it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widget import Widget

from tui.console.acts import Act
from tui.console.draw.lines import Cell
from tui.console.widgets.bar import Bar
from tui.console.widgets.base import set_title
from tui.console.widgets.pane import Pane, Paragraph, rows_of
from tui.console.widgets.screen import ActScreen

EDGES = 5
"""Frame and padding of the box, and the bar of a pane."""


class Dialog(ModalScreen[Any], ActScreen):
    """A box with a title, a body and its own footer. The answer is what it is dismissed with; None
    for ``esc``."""

    ALWAYS: ClassVar[Sequence[str]] = ("close",)

    def __init__(self, title: str, columns: int = 72) -> None:
        super().__init__()
        self.box_title = title
        self.columns = columns

    def compose(self) -> ComposeResult:
        """The box."""
        with Vertical(id="box", classes="panel"):
            yield from self.body()
            yield Bar("footer")

    def body(self) -> Iterable[Widget]:
        """The widgets of the dialog."""
        return ()

    def set_up(self) -> None:
        """Write into the widgets that were just made, and choose the one that has the keys."""

    def on_mount(self) -> None:
        """Contents, title, width and keys; nothing where the console ends while the dialog opens: widgets are missing
        then, any of them."""
        if not self.query("#footer") or not all(widget.is_mounted for widget in self.query("*")):
            return
        self.set_up()
        box = self.query_one("#box")
        box.styles.width = self.box_columns
        self.show_message()
        self.call_after_refresh(self._begin)

    def _begin(self) -> None:
        self.fill_footer()
        self.become_ready()

    @property
    def box_columns(self) -> int:
        """How wide the box is."""
        return min(self.columns, max(20, self.app.size.width - 2))

    def write(self, pane: Pane, text: Sequence[Cell], beside: int) -> None:
        """Write paragraphs into a pane, as high as they need while ``beside`` rows are left for all else."""
        items = [Paragraph("", part) for part in text]
        rows = rows_of(items, self.box_columns - EDGES)
        pane.styles.height = max(1, min(rows, self.app.size.height - beside))
        pane.show(items)

    def show_message(self) -> None:
        """Write the message in the lower edge of the box: the page below is dimmed."""
        message = self.shell.messages.shown
        box = self.query("#box")
        if box:
            set_title(box.first(), self.box_title, message.line()[1:] if message is not None else "")

    def act_close(self) -> None:
        self.dismiss(None)

    CLOSE: ClassVar[Act] = Act("close", "escape", "Close", "Leave everything as it is.", act_close)
    ACTS: ClassVar[Sequence[Act]] = (CLOSE,)
