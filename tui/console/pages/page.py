"""What the tabs and the full pages have in common: header, tabs, body and footer.

A method of a page that stands in for one of these does what the docstring here says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widget import Widget
from textual.widgets import Input

from tui.console.acts import Act
from tui.console.control import elsewhere
from tui.console.control.anywhere import GLOBAL, why_not_anywhere
from tui.console.control.navigation import look_at
from tui.console.pages import frame
from tui.console.shell import Where
from tui.console.widgets.bar import Bar, Button
from tui.console.widgets.caption import Caption
from tui.console.widgets.filter import FilterLine
from tui.console.widgets.repos import Repos
from tui.console.widgets.screen import ActScreen
from tui.console.widgets.small import Small
from tui.console.widgets.status import StatusLine

LEAST_COLUMNS, LEAST_ROWS = 80, 24
WIDE_COLUMNS, THREE_COLUMNS, HUGE_COLUMNS, TALL_ROWS = 120, 140, 200, 40

CopyItem = tuple[str, str, str]
"""Something that can be copied: key, name, text."""


class Page(ActScreen):
    """A full screen. Subclasses compose the body and write into it in ``fill``."""

    ALWAYS: ClassVar[Sequence[str]] = ("help", "commands", "quit")
    TABS: ClassVar[bool] = True
    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012 - declared by Textual
        (0, "-narrow"),
        (WIDE_COLUMNS, "-wide"),
        (THREE_COLUMNS, "-three"),
        (HUGE_COLUMNS, "-huge"),
    ]
    VERTICAL_BREAKPOINTS = [(0, "-short"), (TALL_ROWS, "-tall")]  # noqa: RUF012 - declared by Textual
    tab = ""
    """Which tab it belongs to."""
    _there = False
    """The widgets are made."""
    _to_fill = False
    """The page will be drawn before the next frame."""
    watched = False
    """Changes of others are looked for often while it is shown."""

    def all_acts(self) -> Sequence[Act]:
        """The screen's own acts hide global ones of the same name or key."""
        own = tuple(self.ACTS)
        names = {act.name for act in own}
        keys = {act.key for act in own if act.key}
        return (*own, *(act for act in GLOBAL if act.name not in names and act.key not in keys))

    def compose(self) -> ComposeResult:
        """The frame."""
        with Vertical(id="frame"):
            yield Bar("header")
            if self.TABS:
                yield Bar("tabs")
                yield Bar("elsewhere")
            yield Bar("problem")
            yield Bar("problem-next")
            with Vertical(id="body"):
                yield from self.body()
            yield Caption()
            yield StatusLine()
            yield Bar("footer")
        yield Small("small")

    def body(self) -> Iterable[Widget]:
        """The widgets of the page."""
        return ()

    def fill(self) -> None:
        """Write what the model says into the widgets. Quick: it is called for every change."""

    def copies(self) -> list[CopyItem]:
        """What can be copied."""
        return []

    def table(self) -> tuple[Sequence[str], list[Sequence[str]]]:
        """What is written by export: heads and rows."""
        return (), []

    def picture(self) -> str:
        """The screen as SVG."""
        return self.app.export_screenshot()

    def arrive(self, where: Where) -> None:
        """Show what whoever went here wants to see; the widgets may not be there yet."""
        if act := self.keys.named(where.act):
            self.call_after_refresh(self.press, act)

    def fill_all(self) -> None:
        """Header, tabs, body and footer; nothing while the screen is too small, not there yet or going."""
        self._to_fill = False
        captions = self.query(Caption)
        if not self._there or not captions:  # none: the screen is being taken away
            return
        if self.too_small:
            self._fill_small()
            return
        captions.first().fill()
        self.fill_header()
        self.fill()
        self.fill_status()
        self.fill_footer()

    def fill_header(self) -> None:
        """The lines above the body."""
        columns = self.size.width
        self.query_one("#header", Bar).show(*frame.header(self.shell, columns))
        if self.TABS:
            self.query_one("#tabs", Bar).show(*frame.tabs(self.shell, self.tab, columns))
            others = [] if self.lists_repositories else frame.others(self.shell, columns)
            self.set_class(bool(others), "-others")
            self.query_one("#elsewhere", Bar).show(others)
        self.set_class(bool(problem := frame.problem(self.shell)), "-problem")
        for name, button in zip(("problem", "problem-next"), problem, strict=False):
            self.query_one(f"#{name}", Bar).show([button])

    def _fill_small(self) -> None:
        self.query_one("#small", Small).show(self.size.width, self.size.height, frame.summary(self.shell))

    def status(self) -> Button:
        """What stands above the footer while there is no message."""
        return Button(())

    def fill_status(self) -> None:
        """The newest message until it was seen, else what the page has to say."""
        self.query_one(StatusLine).say(self.status(), self.shell.messages.shown, self.size.width)

    def show_message(self) -> None:
        """Write the message in the status line."""
        if self._there and not self.too_small:
            self.fill_status()

    @property
    def too_small(self) -> bool:
        """Whether nothing can be shown properly."""
        return self.size.width < LEAST_COLUMNS or self.size.height < LEAST_ROWS

    @property
    def lists_repositories(self) -> bool:
        """Whether a pane of the page tells of all repositories."""
        return False

    @property
    def wide(self) -> bool:
        """Whether the reason stands beside the table."""
        return self.size.width >= WIDE_COLUMNS

    @property
    def tall(self) -> bool:
        """Whether there is room for panes below the table."""
        return self.size.height >= TALL_ROWS

    def set_up(self) -> None:
        """Choose the widget that has the keys, and begin what the page needs."""

    def on_mount(self) -> None:
        """Draw what is known; nothing where the console ends while the page opens: it has no widgets then."""
        if not self.query(Caption):
            return
        self.set_up()
        self._there = True
        self.call_after_refresh(self._begin)

    def _begin(self) -> None:
        self.fill_all()
        self.become_ready()

    def fill_soon(self) -> None:
        """Draw once for everything that asks for it before the next frame."""
        if not self._to_fill:
            self._to_fill = True
            self.call_after_refresh(self._fill_now)

    def _fill_now(self) -> None:
        if self._to_fill:
            self.fill_all()

    def on_screen_resume(self) -> None:
        """What changed while another screen was shown."""
        self._to_fill = False  # what was asked for then may have been dropped
        self.fill_soon()

    def on_repos_chosen(self, message: Repos.Chosen) -> None:
        """Look at the repository that was clicked."""
        message.stop()
        look_at(self.shell, message.repository)

    def take_key(self, event: events.Key) -> bool:
        """A key that means nothing here is told of."""
        return super().take_key(event) or elsewhere.tell(self.shell, event)

    def reason(self, act: Act) -> str:
        """What holds for the acts of every page too."""
        return super().reason(act) or why_not_anywhere(self.shell, act)

    def nothing_to_close(self) -> None:
        """Tell that esc has nothing to do."""
        self.shell.tell("Nothing is open that esc would close; q ends the console.")

    def take_field_key(self, field: Input, event: events.Key) -> bool:
        """Enter keeps a filter, esc clears it; the table shows what it finds before the next key is looked at."""
        if isinstance(field, FilterLine) and field.take_key(event.key):
            self.fill_all()
            return True
        return super().take_field_key(field, event)

    # -- its own size

    def on_resize(self, event: events.Resize) -> None:
        """Change the layout; the cursor, the filter and all else stay."""
        small = event.size.width < LEAST_COLUMNS or event.size.height < LEAST_ROWS
        self.set_class(small, "-small")
        self._fill_small()
        self.fill_soon()
