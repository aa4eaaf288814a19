"""Dialogs: a box over the screen that waits for an answer. ``esc`` always leaves everything as it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widget import Widget

from tui.console.acts import Act
from tui.console.widgets.bar import Bar
from tui.console.widgets.base import set_title
from tui.console.widgets.screen import ActScreen


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
        """Contents, title, width and keys; nothing where the console ends while the dialog opens: no widgets then."""
        if not self.query("#footer"):
            return
        self.set_up()
        box = self.query_one("#box")
        box.styles.width = min(self.columns, max(20, self.app.size.width - 2))
        self.show_message()
        self.call_after_refresh(self._begin)

    def _begin(self) -> None:
        self.fill_footer()
        self.become_ready()

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
