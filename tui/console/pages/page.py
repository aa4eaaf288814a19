"""What the tabs and the full pages have in common: header, tabs, body and footer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widget import Widget

from tui.console.acts import Act
from tui.console.pages.acting import Acting
from tui.console.widgets.bar import Bar, Button
from tui.console.widgets.caption import Caption
from tui.console.widgets.small import Small
from tui.console.widgets.status import StatusLine

LEAST_COLUMNS, LEAST_ROWS = 80, 24
WIDE_COLUMNS, THREE_COLUMNS, HUGE_COLUMNS, TALL_ROWS = 120, 140, 200, 40

CopyItem = tuple[str, str, str]
"""Something that can be copied: key, name, text."""

GLOBAL: tuple[Act, ...] = (
    Act("tab_triage", "1", "Triage", "Show what can be fixed, the most urgent first.", "home fixes", footer=False),
    Act("tab_images", "2", "Images", "Show all images of the repository.", "disks snapshots list", footer=False),
    Act("tab_runs", "3", "Runs", "Show what runs here and on other hosts.", "progress log tasks", footer=False),
    Act("tab_timeline", "4", "Timeline", "Show what happened, step by step.", "journal history", footer=False),
    Act("repositories", "0", "Repos", "Choose another repository.", "switch storage pool", footer=False),
    Act("rescan", "R", "Rescan", "Look at the repository again.", "refresh reload check scan", footer=False),
    Act("rescan_again", "f5", "Rescan", "Look at the repository again.", "refresh", footer=False),
    Act("connect", "c", "Connect", "Connect a repository to this host.", "add storage nfs lvm localfs", footer=False),
    Act("copy", "y", "Copy", "Copy an id, a command, the reason or the row.", "clipboard yank", footer=False),
    Act("export", "e", "Export", "Write what is shown to a file.", "save json csv txt svg report", footer=False),
    Act("lens", "L", "Lens", "Show every page as it will be after the plan, or as it is.", "preview future after",
        footer=False),
    Act("messages", "M", "Messages", "Show the last messages with their times.", "notes warnings errors told",
        footer=False),
    Act("theme", "T", "Theme", "Change the colours: dark, light, high contrast, terminal.", "color", footer=False),
    Act("tours", "t", "Tours", "Take a guided tour in the demo repository.", "learn training demo", footer=False),
    Act("open_trace", "", "Open trace", "Open a simulation trace and replay it.", "replay simulation", footer=False),
    Act("demo", "", "Demo", "Create the demo repository and connect it.", "training practice", footer=False),
    Act("disconnect", "", "Disconnect", "Forget the repository on this host; it stays as it is.", changes=True),
    Act("manager", "", "SRM", "Become the manager (SRM) of the repository, or give the role up. Asks first.",
        "take release fence", changes=True),
    Act("deep_rescan", "", "Deep rescan", "Look at the repository and read its data too: slow.", "check digest verify"),
    Act("stop_scan", "", "Stop scan", "Give up the scan that is under way.", "cancel"),
    Act("runbook", "", "Runbook", "Write what was done in this session as a script.", "export history commands"),
    Act("help", "question_mark", "Help", "Tell all keys of this screen.", "keys"),
    Act("commands", "colon", "Cmd", "Find an act by words.", "palette search command"),
    Act("commands_again", "ctrl+p", "Cmd", "Find an act by words.", footer=False),
    Act("quit", "q", "Quit", "End the console. What runs goes on.", "exit close"),
    Act("tour_next", "ctrl+n", "Next", "Go on to the next step of the tour.", footer=False),
    Act("tour_end", "ctrl+t", "End tour", "End the tour; everything stays as it is.", footer=False),
    Act("back", "escape", "Back", "Close what is open, clear the filter or the range.", footer=False),
)  # fmt: skip


class Page(Acting):
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
    """Its widgets are made."""
    _to_fill = False
    """It will be drawn before the next frame."""
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

    def fill_all(self) -> None:
        """Header, tabs, body and footer; nothing while the screen is too small, not there yet or going."""
        self._to_fill = False
        captions = self.query(Caption)
        if not self._there or self.too_small or not captions:  # none: the screen is being taken away
            return
        captions.first().fill()
        self.fill_header()
        self.fill()
        self.fill_status()
        self.fill_footer()

    def fill_header(self) -> None:
        """The lines above the body."""
        self.query_one("#header", Bar).show(*self.console.header(self.size.width))
        if self.TABS:
            self.query_one("#tabs", Bar).show(*self.console.tabs(self, self.size.width))
        self.set_class(bool(problem := self.console.problem()), "-problem")
        for name, button in zip(("problem", "problem-next"), problem, strict=False):
            self.query_one(f"#{name}", Bar).show([button])

    def status(self) -> Button:
        """What stands above the footer while there is no message."""
        return Button(())

    def fill_status(self) -> None:
        """The newest message until it was seen, else what the page has to say."""
        self.query_one(StatusLine).say(self.status(), self.console.messages.shown, self.size.width)

    def show_told(self) -> None:
        """In the status line."""
        if self._there and not self.too_small:
            self.fill_status()

    @property
    def too_small(self) -> bool:
        """Whether nothing can be shown properly."""
        return self.size.width < LEAST_COLUMNS or self.size.height < LEAST_ROWS

    @property
    def wide(self) -> bool:
        """Whether the reason stands beside the table."""
        return self.size.width >= WIDE_COLUMNS

    @property
    def tall(self) -> bool:
        """Whether there is room for panes below the table."""
        return self.size.height >= TALL_ROWS

    def on_mount(self) -> None:
        """Draw what is known."""
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

    def on_resize(self, event: events.Resize) -> None:
        """Change the layout; the cursor, the filter and all else stay."""
        small = event.size.width < LEAST_COLUMNS or event.size.height < LEAST_ROWS
        self.set_class(small, "-small")
        self.query_one("#small", Small).measure(event.size.width, event.size.height)
        self.fill_soon()
