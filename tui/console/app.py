"""The application: it owns the site, the pages and the clock's tick, and tells errors."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from textual import events
from textual.app import App
from textual.timer import Timer

from engine.errors import DiskwrightError
from tui.console.control.anywhere import GlobalActs
from tui.console.control.manager import ManagerActs
from tui.console.control.navigation import GoingActs
from tui.console.control.running import RunActs
from tui.console.dialogs.message import Message
from tui.console.draw import headers
from tui.console.draw.lines import Line, Span
from tui.console.draw.palette import MONO, PALETTES, Palette
from tui.console.draw.signs import Signs
from tui.console.jobs import JobDone, Jobs
from tui.console.messages import Messages, Told
from tui.console.pages.acting import Acting
from tui.console.pages.page import Page
from tui.console.pages.registry import make_page
from tui.console.site import Site
from tui.console.widgets.bar import Button
from tui.text.printable import printable
from tui.text.words import RunState
from tui.view.command_lines import SessionLog
from tui.view.snapshot import RepositoryView
from tui.work.config import Config, choice

if TYPE_CHECKING:
    from tui.console.control.tour import Player

IDLE_TICK_S = 1.0
LIVE_TICK_S = 0.33
QUIET_RESCAN_S = 30.0
WATCHED_RESCAN_S = 2.0
"""While a plan is shown, changes of others are seen within about this time."""
LIVE_RESCAN_S = 6.0
"""While something runs: each scan is a process, and the bar does not come from scans."""
RESCAN_SHARE = 20
"""A scan that takes long is repeated less often: at most this share of the time is spent scanning."""
RETRY_LOST_S = 30.0
OTHERS_RESCAN_S = 300.0
"""Repositories that are not looked at are scanned as often, one after the other."""
_OTHERS = "scan of another repository"
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


def ended_as(state: RunState) -> str:
    """Whether the end of a run is mere news."""
    return "information" if state is RunState.DONE else "warning"


class ConsoleApp(GlobalActs, RunActs, GoingActs, ManagerActs, App[int]):
    """The console. Pages read ``site``; whatever blocks goes through ``jobs``."""

    CSS_PATH = "console.tcss"
    ENABLE_COMMAND_PALETTE = False
    TITLE = "diskwright"

    def __init__(self, site: Site, config: Config, options: Options = Options()) -> None:  # noqa: B008 - immutable
        mono = "NO_COLOR" in os.environ
        super().__init__(ansi_color=True if mono else None)
        self.site = site
        self.config = config
        self.options = options
        self.signs = Signs(options.unicode and not config.ascii)
        self.jobs = Jobs(self)
        self.mono = mono
        theme = options.theme or choice(site.notes, "theme") or config.theme
        self.palette: Palette = MONO if mono else PALETTES.get(theme, PALETTES["dark"])
        for known in (*PALETTES.values(), MONO):
            self.register_theme(known.theme())
        self.theme = self.palette.name
        self.key_changes: Mapping[str, Sequence[str]] = config.keys
        self.session_log = SessionLog()
        self.messages = Messages()
        self.tour: Player | None = None
        self.last_words = ""
        """What is printed when the console has ended."""
        self._pages: dict[str, Page] = {}
        self._ticking: Timer | None = None
        self._pace = 0.0
        self._last_scan = 0.0
        self._echo = 0
        self._others: dict[str, float] = {}
        """When a repository that is not looked at was last begun to be scanned, by name."""
        self._held: list[events.Key] | None = None
        self._answering = False
        """A key is being looked at."""

    # -- lifecycle

    def on_mount(self) -> None:
        """Show the first page."""
        self.set_class(not self.signs.unicode, "-plain-border")
        self._end_on_signals()
        self.site.reload()
        if self.options.repository:
            self.site.current = self.options.repository
        self.site.poll()
        self._set_pace()
        self.go_home()
        if self.options.demo:
            self.begin_demo()
        elif self.options.trace:
            self.open_trace(self.options.trace)
        for problem in self.config.problems:
            self.tell(problem, "warning")

    def _end_on_signals(self) -> None:
        import asyncio

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            with suppress(ValueError, RuntimeError, NotImplementedError):  # not in the main thread
                loop.add_signal_handler(number, self._end, 128 + number)

    def _end(self, code: int) -> None:
        self.exit(code, return_code=code)

    def page(self, name: str) -> Page:
        """The page of a tab; made when it is first shown."""
        if name not in self._pages:
            page = make_page(name)
            self._pages[name] = page
            self.install_screen(page, name)
        return self._pages[name]

    def show_page(self, name: str) -> None:
        """Switch to a tab, closing what is open above it."""
        while len(self.screen_stack) > 2:
            self.pop_screen()
        page = self.page(name)
        if len(self.screen_stack) < 2:
            self.push_screen(page)
        elif self.screen is not page:
            self.switch_screen(page)

    def go_home(self) -> None:
        """Triage, or the ways to begin when there is nothing to look at."""
        self.show_page("triage" if self.site.current else "first_run")
        if self.site.current and self.site.replay is None and not self.site.view.known:
            self.rescan(told=False)

    # -- keys

    async def on_event(self, event: events.Event) -> None:
        """Keys are taken here, one after the other, before Textual hands them around between its queues."""
        if isinstance(event, events.Key) and not event.is_forwarded and self.take_key(event):
            return
        await super().on_event(event)

    def take_key(self, event: events.Key) -> bool:
        """Give a key to the screen on top; False when it means nothing there."""
        if self._held is not None:
            self._held.append(event)
            return True
        screen = self.screen_stack[-1] if self.screen_stack else None
        if not isinstance(screen, Acting):
            return False
        if self.messages.key_pressed(self.site.clock()):
            screen.show_told()
        self._answering = True
        try:
            return screen.take_key(event)
        finally:
            self._answering = False

    def hold(self, then: Callable[[], None]) -> None:
        """Do something once all decisions are saved; keys that are typed meanwhile wait behind it."""
        self._held = []

        def go_on(value: Any, error: BaseException | None) -> None:
            del value, error
            held, self._held = self._held or [], None
            then()
            for event in held:
                self.take_key(event)

        self.jobs.in_turn(lambda: None, go_on)

    # -- time

    def _set_pace(self) -> None:
        """Tick several times a second only while something runs."""
        pace = LIVE_TICK_S if self.busy else IDLE_TICK_S
        if pace == self._pace:
            return
        if self._ticking is not None:
            self._ticking.stop()
        self._pace, self._ticking = pace, self.set_interval(pace, self.tick)

    @property
    def busy(self) -> bool:
        """Something runs on this host, or storage is being read."""
        return bool(self.site.live_runs()) or self.jobs.busy()

    def tick(self) -> None:
        """Read what others wrote on this host, look at the repository again when it is time, draw."""
        if not any(isinstance(screen, Page) for screen in self.screen_stack):
            return  # it begins, or it ends
        if self.messages.time_passed(self.site.clock()):
            self.show_told()
        were = {run.id for run in self.site.live_runs()}
        changed = self.site.poll()
        live = bool(self.site.live_runs())
        for run in self.site.runs:
            if run.id in were and not run.alive:
                self.tell(f"Run {run.short} {run.state}: {run.reason}", ended_as(run.state))
        self._echo = _ECHO_TICKS if live else max(0, self._echo - 1)
        if changed or live or self._echo:
            self.refresh_pages()
        if (were and not live) or self._scan_is_due():
            self.rescan(told=False)
        self._scan_another()
        self._set_pace()

    def _scan_is_due(self) -> bool:
        if not self.site.current or self.site.replay is not None:
            return False
        view = self.site.view
        if self.page_shown.watched:
            pause = WATCHED_RESCAN_S
        else:
            usual = LIVE_RESCAN_S if self.site.live_runs() else QUIET_RESCAN_S
            pause = max(usual, RESCAN_SHARE * view.took_s)
        if view.problem:
            pause = RETRY_LOST_S
        return self.site.clock() - self._last_scan >= pause

    # -- looking

    def rescan(self, told: bool = True, deep: bool = False) -> None:
        """Look at the repository again, beside everything else; ``deep``: read the data too."""
        name = self.site.current
        if not name or self.site.replay is not None:
            return
        self._last_scan = self.site.clock()
        started = self.jobs.start(f"scan {name}", lambda: self.site.scan(name, deep), self._scanned)
        if not started and told:
            self.tell("A scan is under way.")

    def _scanned(self, view: RepositoryView | None, error: BaseException | None) -> None:
        if view is None or view.name == self.site.current:
            self._last_scan = self.site.clock()
        if error is not None:
            if type(error).__name__ != "Cancelled":
                self.failed("The repository could not be scanned", error)
            return
        assert view is not None
        old = self.site.views.get(view.name)
        self.site.accept(view._replace(fixes=self.config.prioritised(view.fixes)))
        journal = self.site.journal
        if journal is not None and view.name == self.site.current:
            self.jobs.start("journal", lambda: journal.note_scan(old, view), self._noted)
        self.refresh_pages()
        self._scan_another()

    def _scan_another(self) -> None:
        """Scan a repository that is not looked at and was not for long: the list tells of all of them."""
        site = self.site
        if site.replay is not None or self.jobs.busy(_OTHERS) or not site.view.known:
            return
        due = site.clock() - OTHERS_RESCAN_S
        names = [entry.name for entry in site.entries if entry.name != site.current]
        name = next((name for name in names if self._others.get(name, 0.0) <= due), "")
        if name:
            self._others[name] = site.clock()
            self.jobs.start(_OTHERS, lambda: site.scan(name), self._scanned)

    def _noted(self, value: object, error: BaseException | None) -> None:
        del value
        if error is not None and not isinstance(error, DiskwrightError):
            self.failed("The timeline could not be written", error)

    # -- drawing

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

    def header(self, columns: int) -> tuple[list[Button], Line]:
        """The first line of every page."""
        return headers.header(self.site.view, self.signs, columns, self.site.now, self.hidden(), self.mode())

    def tabs(self, page: Page, columns: int) -> tuple[list[Button], Line]:
        """The second line of every page."""
        live = len(self.site.live_runs())
        return headers.tabs(self.site.view, page.tab, live, columns, self.site.now)

    def problem(self) -> list[Button]:
        """Why the repository could not be read, for every page."""
        next_try = RETRY_LOST_S - (self.site.clock() - self._last_scan)
        return headers.problem(self.site.view, self.site.now, next_try)

    def hidden(self) -> str:
        """What is not shown in Triage: how many fixes are snoozed."""
        snoozed = len(self.site.decisions.snoozed)
        return f"{snoozed} snoozed" if snoozed else ""

    def mode(self) -> Sequence[Span]:
        """Words for the mode in which nothing, or nothing real, can be changed."""
        site = self.site
        if site.branch is not None:
            return (Span(" SIMULATED ", "danger"), Span(f" from step {site.step + 1}"))
        if site.replay is not None:
            step = f"step {site.step + 1} of {len(site.replay.steps)}"
            return (Span(" REPLAY ", "danger"), Span(f" {step}  READ ONLY"))
        if site.lens:
            plan = site.plan_now()
            return (Span(" AFTER PLAN ", "danger"), Span(f" {plan.short if plan is not None else '(empty)'}"))
        return (Span(" READ ONLY ", "danger"),) if self.options.readonly else ()

    def why_locked(self) -> str:
        """Why nothing can be changed, "" when it can."""
        if self.site.branch is not None:
            return "this is a simulation: r runs the fix under the cursor in it, ! kills it, esc goes back"
        if self.site.replay is not None:
            return "this is a replay, nothing in it can be changed"
        if self.site.lens:
            return "this is how it will be after the plan, L shows it as it is"
        return "the console was started with --readonly" if self.options.readonly else ""

    def why_no_lens(self) -> str:
        """Why the pages cannot be shown as after the plan, "" when they can."""
        if self.site.replay is not None:
            return "a replay has no plan"
        return (
            "" if self.site.lens or self.site.queued() else "the plan is empty, space queues the fix under the cursor"
        )

    def summary(self) -> list[Line]:
        """The least there is to say, for a terminal that is too small."""
        view = self.site.view
        if not view.name:
            return [(Span("No repository is connected."),)]
        lines: list[Line] = [(Span(view.name, "title"),), self.signs.counts(headers.counts_of(view))]
        return [*lines, *self.what_goes_on()]

    def what_goes_on(self) -> list[Line]:
        """A line for each run that is not over."""
        found: list[Line] = []
        for run in self.site.live_runs():
            step = run.current
            at = f"step {step.number} of {len(run.steps)}: {step.type} {step.name}" if step is not None else ""
            found.append((Span(f"Run {run.id[:8]} "), Span(str(run.state), "bold"), Span(f" {at}")))
        if self.jobs.busy("demo"):
            found.append((Span("The demo is being made: every crash in it is a real one.", "bold"),))
        return found or [(Span("Nothing is running.", "quiet"),)]

    @property
    def in_browser(self) -> bool:
        """Files that are written here are not where the operator is."""
        return self._driver is not None and self._driver.is_web

    # -- telling

    def tell(self, text: str, severity: str = "information") -> None:
        """A sentence in the status line; ``M`` shows the last of them again."""
        self.messages.add(Told(self.site.clock(), printable(text), severity == "warning", self._answering))
        self.show_told()

    def show_told(self) -> None:
        """Write the newest message where it is seen now."""
        screen = self.screen_stack[-1] if self.screen_stack else None
        if isinstance(screen, Acting):
            screen.show_told()

    def failed(self, what: str, error: BaseException) -> None:
        """Tell an error: what the engine foresaw is a sentence, all else is a dialog with a report."""
        if isinstance(error, DiskwrightError):
            told = [f"{error.message}.", *([f"{error.next_step}."] if error.next_step else [])]
            self.push_screen(Message(what, [printable(line) for line in told]))
            return
        report = "".join(traceback.format_exception(error))
        short = printable(f"{type(error).__name__}: {error}")[:300]
        told = [short, "", "What runs is not affected. Press e to write a report, esc to go on."]
        self.push_screen(Message(f"{what}: this should not have happened", told, report))

    def on_job_done(self, message: JobDone) -> None:
        """Give the result of a call to whoever asked for it; nothing that fails there ends the console."""
        try:
            message.finish(message.value, message.error)
        except Exception as error:  # noqa: BLE001 - told in a dialog; the console lives
            self.failed("The console could not show a result", error)
        self._set_pace()

    def do(self, name: str, call: Callable[[], Any], done: Callable[[Any], None], what: str, told: str = "") -> None:
        """Run a call of the engine beside the console; ``what`` names the failure."""

        def finish(value: Any, error: BaseException | None) -> None:
            if error is not None:
                self.failed(what, error)
            else:
                done(value)
            self.refresh_pages()

        if not self.jobs.start(name, call, finish):
            self.tell("That is under way already.")
        elif told:
            self.tell(told)
            self.refresh_pages()
        self._set_pace()
