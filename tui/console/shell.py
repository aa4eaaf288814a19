"""The shell: all that pages, dialogs, widgets and controllers may know of the application that they run in.

The application is the only one that is a ``Shell``; nothing below it imports it. What must have happened before the
next key is looked at (another page, a dialog) is a method; what only the application can do, and nobody waits for,
is asked for by posting one of the messages at the end of this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from textual.message import Message
from textual.screen import Screen

from tui.console.acts import Act
from tui.console.draw.palette import Palette
from tui.console.draw.signs import Signs
from tui.console.jobs import Jobs
from tui.console.messages import Messages
from tui.console.site import Site
from tui.console.terminal.keyboard import Keyboard
from tui.training.tours import Tour
from tui.view.command_lines import SessionLog
from tui.work.config import Config


class Where(NamedTuple):
    """A page, and what to show on it; "" for what stays as it is."""

    page: str
    """triage, images, runs, timeline, first_run; or above one of those: audit, machines, plan, why, family, space,
    pace."""
    image: str = ""
    fix: str = ""
    """The key of a fix."""
    run: str = ""
    act: str = ""
    """An act to do there as soon as it is shown."""


class Shell(Protocol):
    """The application as everything below sees it."""

    site: Site
    config: Config
    signs: Signs
    palette: Palette
    jobs: Jobs
    keyboard: Keyboard
    messages: Messages
    session_log: SessionLog
    """The commands that do the same as what was done, for the runbook of this session."""

    def tell(self, text: str, severity: str = "information") -> None:
        """Show a sentence in the status line; severity "warning": until a key is pressed."""

    def failed(self, what: str, error: BaseException) -> None:
        """Tell an error: what the engine foresaw as a sentence, all else in a dialog with a report."""

    def do(self, name: str, call: Callable[[], Any], done: Callable[[Any], None], what: str, message: str = "") -> None:
        """Run ``call`` beside the console, then ``done`` with its value in it; ``what`` names the failure.

        At most one call of a name at a time: another is refused and that is told. ``message`` is told at the start."""

    def open(self, dialog: Screen[Any], answered: Callable[[Any], None] | None = None) -> None:
        """Open a dialog or page above the present one; ``answered`` gets what it is dismissed with."""

    def show(self, where: Where) -> None:
        """Show a page: a tab in place of all that is open, any other above it."""

    def page_acts(self) -> Mapping[str, Sequence[Act]]:
        """Return what can be done on each page that is no way to begin, by its name."""

    def refresh_pages(self) -> None:
        """Draw the page on top again; others are drawn when they are shown."""

    def post_message(self, message: Message) -> bool:
        """Give a message to the application: one of those below, or a key as if it had been typed."""


class Copy(Message):
    """A text is to be on the clipboard, and ``what`` it is to be told."""

    def __init__(self, text: str, what: str = "") -> None:
        super().__init__()
        self.text, self.what = text, what


class Save(Message):
    """A text is to be written to a file of the operator's, or downloaded where the console is shown in a browser."""

    def __init__(self, name: str, form: str, text: str) -> None:
        super().__init__()
        self.name, self.form, self.text = name, form, text


class Recolour(Message):
    """Other colours, by their word, kept for the next start."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.word = word


class PlayTour(Message):
    """A tour is to be played, in place of one that is; ``pace``: 1 for reading speed, 0 for none."""

    def __init__(self, tour: Tour, pace: float) -> None:
        super().__init__()
        self.tour, self.pace = tour, pace


class NextTourStep(Message):
    """The tour is not to wait any longer at this step."""


class EndTour(Message):
    """The tour is over, wherever it is."""


class EndConsole(Message):
    """The console is to end at once; what runs goes on."""
