"""Going from one place of the console to another: pages, repositories, replays, tours, and out."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from tui.console.draw.palette import PALETTES
from tui.text.printable import printable
from tui.work.config import keep_choice

if TYPE_CHECKING:
    from tui.console.app import ConsoleApp
    from tui.console.control.tour import Player
    from tui.console.pages.runs.page import RunsPage
    from tui.console.pages.timeline.page import TimelinePage
    from tui.console.pages.triage.page import TriagePage
    from tui.training.replay import Replay


class GoingActs:
    """Methods of the application."""

    @property
    def _going(self) -> ConsoleApp:
        return cast("ConsoleApp", self)

    def look_at(self, name: str) -> None:
        """Look at another repository."""
        self._going.site.current = name
        self._going.site.lens = False
        self._going.site.chosen = True
        self._going.site.poll()
        self._going.show_page("triage")
        self._going.refresh_pages()
        self._going.rescan(told=False)

    def show_fix(self, key: str) -> None:
        """Triage with the cursor on a fix; whatever hides it is cleared."""
        page = cast("TriagePage", self._going.page("triage"))
        self._going.show_page("triage")
        page.call_after_refresh(page.show_fix, key)

    def show_plan(self) -> None:
        """The plan of what is queued."""
        from tui.console.pages.plan.page import PlanPage

        self._going.push_screen(PlanPage())

    def show_run(self, run_id: str) -> None:
        """The run."""
        page = cast("RunsPage", self._going.page("runs"))
        page.run_id = run_id
        self._going.show_page("runs")

    def show_lane(self, image: str) -> None:
        """What happened to one image."""
        page = cast("TimelinePage", self._going.page("timeline"))
        page.image = image
        self._going.show_page("timeline")

    def use_palette(self, word: str) -> None:
        """Other colours, kept for the next start."""
        self._going.palette = PALETTES[word]
        self._going.theme = self._going.palette.name
        self._going.tell(f"Colours: {self._going.palette.title}")
        notes = self._going.site.notes
        self._going.do(
            "theme", lambda: keep_choice(notes, "theme", word), lambda value: None, "The theme was not saved"
        )
        for widget in self._going.screen.query("*"):
            widget.refresh()

    def leave(self) -> None:
        """End the console at once; what runs goes on, and that is said."""
        runs = self._going.site.live_runs()
        if runs:
            self._going.last_words = f"Run {runs[0].short} goes on. Look: diskwright tasks, or diskwright tui"
        self._going.exit(0)

    def begin_demo(self) -> None:
        """Open the demo, or make it."""
        from tui.console.control.demo import make

        make(self._going, fresh=False)

    def begin_branch(self) -> None:
        """A live simulation from the step that is shown."""
        from tui.console.control.branching import begin

        begin(self._going)

    def demo_place(self) -> str:
        """Where a demo would be made."""
        from tui.training.demo import default_path

        return printable(default_path().replace(os.path.expanduser("~"), "~", 1))

    def act_lens(self) -> None:
        """All pages as they will be after the plan of the queue, or as they are."""
        site = self._going.site
        site.lens = not site.lens
        if self._going.page_shown.tab == "plan":
            self._going.show_page("images")
        self._going.refresh_pages()

    # -- replay

    def open_trace(self, path: str, then: Callable[[], None] = lambda: None) -> None:
        """Read a trace and replay it."""
        from tui.training.replay import open_trace

        def done(replay: Replay) -> None:
            self._going.site.begin_replay(replay)
            self._going.show_page("timeline")
            self._going.refresh_pages()
            then()

        self._going.do("trace", lambda: open_trace(path), done, "The trace could not be opened")

    # -- tours

    def play(self, player: Player, hand_over: str) -> None:
        """Play a tour, beside everything else; one at a time."""
        from tui.console.control.tour import run

        self._going.tour = player
        self._going.run_worker(run(self._going, player, hand_over), group="tour", exclusive=True, exit_on_error=False)

    def act_tour_next(self) -> None:
        """The next step of the tour now."""
        if self._going.tour is not None:
            self._going.tour.next()

    def act_tour_end(self) -> None:
        """End the tour."""
        self._going.workers.cancel_group(self._going, "tour")

    def screen_text(self) -> str:
        """What is on the screen, as plain text."""
        return "\n".join(strip.text for strip in self._going.screen._compositor.render_strips())

    def leave_replay(self) -> None:
        """From a simulation back to its replay, from a replay back to what is real."""
        if self._going.site.branch is not None:
            self._going.site.end_branch()
            self._going.show_page("timeline")
            self._going.refresh_pages()
            return
        self._going.site.end_replay()
        self._going.go_home()
        self._going.refresh_pages()

    def note(self, command: str) -> None:
        """Remember the command that does the same, for the runbook of this session."""
        self._going.session_log.add(self._going.site.clock(), command)
