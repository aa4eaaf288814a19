"""The application: the one that is the shell. It holds what all share, shows pages, ticks, and tells errors.

What keys do is in ``control`` and in the pages; they know the application only as ``tui.console.shell.Shell``.
"""

from __future__ import annotations

import asyncio
import io
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from textual import events
from textual.app import App
from textual.screen import Screen
from textual.timer import Timer

from engine.errors import DiskwrightError
from tui.console.acts import Act
from tui.console.control import exports, news
from tui.console.control.navigation import go_home, open_trace
from tui.console.control.scanning import rescan, scan_if_due
from tui.console.dialogs.notice import Notice
from tui.console.draw.palette import MONO, PALETTES, Palette
from tui.console.draw.signs import Signs
from tui.console.jobs import JobDone, Jobs
from tui.console.messages import Message, Messages
from tui.console.pages import registry
from tui.console.pages.page import Page
from tui.console.shell import Copy, EndConsole, EndTour, NextTourStep, PlayTour, Recolour, Save, Where
from tui.console.site import Site
from tui.console.terminal.driver import end_on_signals
from tui.console.terminal.keyboard import Keyboard
from tui.console.widgets.screen import ActScreen
from tui.text.printable import printable
from tui.text.words import RunState
from tui.view.command_lines import SessionLog
from tui.work.config import Config, choice, keep_choice

IDLE_TICK_S = 1.0
LIVE_TICK_S = 0.33
_ECHO_TICKS = 3
"""So often is drawn again after a run has ended: its log ends a moment after it."""


class Options(NamedTuple):
    """What the command line said."""

    readonly: bool = False
    theme: str = ""
    unicode: bool = True
    trace: str = ""
    repository: str = ""
    demo: bool = False
    """Make the demo at once, or open the one there is."""


class ConsoleApp(App[int]):
    """The console: a ``Shell`` on a terminal. Whatever blocks goes through ``jobs``."""

    CSS_PATH = "console.tcss"
    ENABLE_COMMAND_PALETTE = False
    TITLE = "diskwright"

    def __init__(self, site: Site, config: Config, options: Options = Options()) -> None:  # noqa: B008 - immutable
        mono = "NO_COLOR" in os.environ
        super().__init__(ansi_color=True if mono else None)
        self.site = site
        self.site.readonly = options.readonly
        self.config = config
        self.options = options
        self.signs = Signs(options.unicode and not config.ascii)
        self.jobs = Jobs(self.post_message)
        self.messages = Messages()
        self.keyboard = Keyboard(self._screen_on_top, self.jobs, self.messages, site.clock)
        theme = options.theme or choice(site.notes, "theme") or config.theme
        self.palette: Palette = MONO if mono else PALETTES.get(theme, PALETTES["dark"])
        for known in (*PALETTES.values(), MONO):
            self.register_theme(known.theme())
        self.theme = self.palette.name
        self.session_log = SessionLog()
        self.last_words = ""
        """What is printed when the console has ended."""
        self._pages: dict[str, Page] = {}
        self._ticking: Timer | None = None
        self._pace = 0.0
        self._echo = 0
        self._next_tour_step: Callable[[], None] = lambda: None

    # -- lifecycle

    def on_mount(self) -> None:
        """Show the first page."""
        self.set_class(not self.signs.unicode, "-plain-border")
        end_on_signals(asyncio.get_running_loop(), self._end)
        self.site.reload()
        if self.options.repository:
            self.site.current, self.site.settled = self.options.repository, True
        self.site.poll()
        self._set_pace()
        go_home(self)
        if self.options.demo:
            from tui.console.control.demo import make

            make(self, fresh=False)
        elif self.options.trace:
            open_trace(self, self.options.trace)
        for problem in self.config.problems:
            self.tell(problem, "warning")
        if self.site.replay is None:
            news.settle(self, at_start=True)

    def _end(self, code: int) -> None:
        self.exit(code, return_code=code)

    def on_end_console(self, message: EndConsole) -> None:
        """End the console at once; what runs goes on, and that is said."""
        del message
        runs = self.site.live_runs()
        if runs:
            does = "stops at its next save; all is kept" if runs[0].state is RunState.STOPPING else "goes on"
            self.last_words = f"Run {runs[0].short} {does}. Look: diskwright tasks, or diskwright tui"
        self.exit(0)

    # -- pages

    def page(self, name: str) -> Page:
        """The page of a tab; made when it is first shown."""
        if name not in self._pages:
            page = registry.make_page(name)
            self._pages[name] = page
            self.install_screen(page, name)
        return self._pages[name]

    def show(self, where: Where) -> None:
        """Show a page: a tab in place of all that is open, any other above it."""
        if registry.is_standing(where.page):
            page = self._show_standing(where.page)
        elif registry.is_open_once(where.page) and (opened := self._opened(where.page)) is not None:
            page = opened
        else:
            page = registry.make_page(where.page)
            self.push_screen(page)
        page.arrive(where)

    def _show_standing(self, name: str) -> Page:
        while len(self.screen_stack) > 2:
            self.pop_screen()
        page = self.page(name)
        if len(self.screen_stack) < 2:
            self.push_screen(page)
        elif self.screen is not page:
            self.switch_screen(page)
        return page

    def _opened(self, name: str) -> Page | None:
        """The page of that name that is open, with what was above it closed; None when it is not."""
        found = next((one for one in self.screen_stack if isinstance(one, Page) and one.tab == name), None)
        while found is not None and self.screen is not found:
            self.pop_screen()
        return found

    def open(self, dialog: Screen[Any], answered: Callable[[Any], None] | None = None) -> None:
        """Open a dialog or page above the present one; ``answered`` gets what it is dismissed with."""
        self.push_screen(dialog, answered)

    def page_acts(self) -> Mapping[str, Sequence[Act]]:
        """What can be done on each page."""
        return registry.page_acts()

    @property
    def page_shown(self) -> Page:
        """The page on top, below any dialog."""
        return next(screen for screen in reversed(self.screen_stack) if isinstance(screen, Page))

    def refresh_pages(self) -> None:
        """Draw the page on top again; others do so when they are shown."""
        for screen in reversed(self.screen_stack):
            if isinstance(screen, Page):
                screen.fill_all()
                break

    def on_recolour(self, message: Recolour) -> None:
        """Other colours, kept for the next start."""
        self.palette = PALETTES[message.word]
        self.theme = self.palette.name
        self.tell(f"Colours: {self.palette.title}")
        notes, word = self.site.notes, message.word
        self.do("theme", lambda: keep_choice(notes, "theme", word), lambda value: None, "The theme was not saved")
        for widget in self.screen.query("*"):
            widget.refresh()

    # -- keys

    async def on_event(self, event: events.Event) -> None:
        """Keys are taken here, one after the other, before Textual hands them around between its queues."""
        if isinstance(event, events.Key | events.MouseDown):
            self.site.settled = True
        if isinstance(event, events.Key) and not event.is_forwarded and self.keyboard.take(event):
            return
        await super().on_event(event)

    def _screen_on_top(self) -> ActScreen | None:
        screen = self.screen_stack[-1] if self.screen_stack else None
        return screen if isinstance(screen, ActScreen) else None

    # -- time

    def _set_pace(self) -> None:
        """Tick several times a second only while something runs, or storage is being read."""
        busy = bool(self.site.live_runs()) or self.jobs.busy()
        pace = LIVE_TICK_S if busy else IDLE_TICK_S
        if pace == self._pace:
            return
        if self._ticking is not None:
            self._ticking.stop()
        self._pace, self._ticking = pace, self.set_interval(pace, self.tick)

    def tick(self) -> None:
        """Read what others wrote on this host, look at the repository again when it is time, draw."""
        if not any(isinstance(screen, Page) for screen in self.screen_stack):
            return  # it begins, or it ends
        if self.messages.time_passed(self.site.clock()):
            self._show_message()
        were = {run.id for run in self.site.live_runs()}
        changed = self.site.poll()
        live = bool(self.site.live_runs())
        for run in self.site.runs:
            if run.id in were and not run.alive:
                self.site.stopping.discard(run.id)
                well = run.state is RunState.DONE
                self.tell(f"Run {run.short} {run.state}: {run.reason}", "information" if well else "warning")
        self._echo = _ECHO_TICKS if live else max(0, self._echo - 1)
        if changed or live or self._echo:
            self.refresh_pages()
        if were and not live:
            rescan(self)
            news.settle(self)
        scan_if_due(self, self.page_shown.watched)
        self._set_pace()

    # -- messages

    def tell(self, text: str, severity: str = "information") -> None:
        """Show a sentence in the status line; ``M`` shows the last of them again."""
        warning = severity == "warning"
        self.messages.add(Message(self.site.clock(), printable(text), warning, self.keyboard.answering))
        self._show_message()

    def _show_message(self) -> None:
        screen = self._screen_on_top()
        if screen is not None:
            screen.show_message()

    def failed(self, what: str, error: BaseException) -> None:
        """Tell an error: what the engine foresaw is a sentence, all else is a dialog with a report."""
        if isinstance(error, DiskwrightError):
            text = [f"{error.message}.", *([f"{error.next_step}."] if error.next_step else [])]
            self.open(Notice(what, [printable(line) for line in text]))
            return
        report = "".join(traceback.format_exception(error))
        short = printable(f"{type(error).__name__}: {error}")[:300]
        text = [short, "", "What runs is not affected. Press e to write a report, esc to go on."]
        self.open(Notice(f"{what}: this should not have happened", text, report))

    # -- calls beside the console

    def do(self, name: str, call: Callable[[], Any], done: Callable[[Any], None], what: str, message: str = "") -> None:
        """Run ``call`` beside the console, then ``done`` with its value in it; ``what`` names the failure."""

        def finish(value: Any, error: BaseException | None) -> None:
            if error is not None:
                self.failed(what, error)
            else:
                done(value)
            self.refresh_pages()

        if not self.jobs.start(name, call, finish):
            self.tell("That is under way already.")
        elif message:
            self.tell(message)
            self.refresh_pages()
        self._set_pace()

    def on_job_done(self, message: JobDone) -> None:
        """Give the result of a call to whoever asked for it; nothing that fails there ends the console."""
        try:
            message.finish(message.value, message.error)
        except Exception as error:  # noqa: BLE001 - told in a dialog; the console lives
            self.failed("The console could not show a result", error)
        self._set_pace()

    # -- taking things out

    def on_copy(self, message: Copy) -> None:
        """Put a text on the clipboard."""
        self.copy_to_clipboard(message.text)
        self.tell(f"Copied{' ' if message.what else ''}{message.what}: {message.text}")

    def on_save(self, message: Save) -> None:
        """Write a text to a file; in a browser files that are written here are not where the operator is."""
        if self._driver is None or not self._driver.is_web:
            exports.write(self, message.name, message.form, message.text)
            return
        from tui.view.export import file_name

        name = file_name(message.name, message.form)
        self.deliver_text(io.StringIO(message.text), save_filename=name, mime_type="text/plain")
        self.tell(f"Downloaded: {name}")

    # -- tours

    def on_play_tour(self, message: PlayTour) -> None:
        """Play a tour, beside everything else; one at a time."""
        from tui.console.control.tour import Player

        player = Player(self, message.tour, message.pace, self.screen_text)
        self._next_tour_step = player.next
        self.run_worker(player.play(), group="tour", exclusive=True, exit_on_error=False)

    def on_next_tour_step(self, message: NextTourStep) -> None:
        """Go on with the tour now, if one is played."""
        del message
        self._next_tour_step()

    def on_end_tour(self, message: EndTour) -> None:
        """End the tour; everything stays as it is."""
        del message
        self.workers.cancel_group(self, "tour")

    def screen_text(self) -> str:
        """What is on the screen, as plain text."""
        return "\n".join(strip.text for strip in self.screen._compositor.render_strips())
