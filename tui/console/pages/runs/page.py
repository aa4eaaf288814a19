"""What runs: the steps of a run with their progress, what other hosts saved last, and the log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual.containers import Vertical
from textual.widget import Widget
from textual.widgets import Input

from tui.console.acts import Act
from tui.console.control import running
from tui.console.control.machines import ask_rate
from tui.console.control.navigation import leave_replay
from tui.console.dialogs.notice import Notice
from tui.console.draw.formats import clock
from tui.console.draw.lines import Line, Span, line
from tui.console.pages.page import CopyItem, Page
from tui.console.pages.runs import lines
from tui.console.pages.runs.rows import COLUMNS, LOG_COLUMNS, OTHER_COLUMNS, Entries, LogRows, OtherRows
from tui.console.shell import Where
from tui.console.widgets.bar import Button
from tui.console.widgets.base import set_title
from tui.console.widgets.filter import FilterLine
from tui.console.widgets.table import Table
from tui.text.amounts import duration
from tui.view.command_lines import line as command_line
from tui.view.query import Query, parse
from tui.view.snapshot import HostOperation
from tui.work.runs import LogLine, Run

_FRAME_ROWS = 6
"""What is above and below the tables."""
_MOST_OTHER_ROWS = 6
_LEAST_ROWS = 6
_LAST_LINES_S = 3.0
"""The last lines of a log come a moment after the run has ended."""


class RunsPage(Page):
    """Runs of this host, work of others, log."""

    tab = "runs"

    def __init__(self) -> None:
        super().__init__()
        self.run_id = ""
        """The run that is shown, "" for the newest."""
        self.following = True
        self.only_step = False
        self._log: tuple[LogLine, ...] = ()
        self._log_read = 0.0
        self._log_of = ""
        self._chosen: tuple[object, Sequence[int]] = (None, ())
        """The numbers of the lines of the log that are shown, with what they were chosen by."""

    def body(self) -> Iterable[Widget]:
        steps, others = Table(COLUMNS, name="run-steps", heads=False), Table(OTHER_COLUMNS, name="others")
        log = Table(LOG_COLUMNS, name="log", heads=False)
        for widget in (steps, others, log):
            widget.add_class("panel")
        yield Vertical(steps, others, log, FilterLine(log, "words   !not   /expression/"), id="run-body")

    def arrive(self, where: Where) -> None:
        """Show a run."""
        super().arrive(where)
        self.run_id = where.run or self.run_id

    # -- what is shown

    def shown_run(self) -> Run | None:
        """The run that is shown: one that was chosen, else the newest."""
        runs = self.shell.site.runs
        return next((run for run in runs if run.id == self.run_id), runs[0] if runs else None)

    def operation(self) -> HostOperation | None:
        """The work of another host under the cursor."""
        key = self.query_one("#others", Table).key
        return next((item for item in lines.others(self.shell.site) if item.image == key), None)

    def step_number(self) -> int:
        """The step under the cursor, 0 when there is none."""
        return int(self.query_one("#run-steps", Table).key.partition(".")[0] or 0)

    # -- drawing

    def fill(self) -> None:
        run = self.shown_run()
        now = self.shell.site.now
        self._fill_steps(run, now)
        self._fill_others(now)
        self._fill_log(run)

    def _fill_steps(self, run: Run | None, now: float) -> None:
        table = self.query_one("#run-steps", Table)
        if run is None:
            set_title(table, "Steps")
            table.show(Entries(()), [(), line(self._nothing())])
            return
        found = lines.steps(run, self.shell.site.view, self.shell.signs, max(40, table.size.width - 4), now)
        entries = [
            (f"{step.number}.{part}", row)
            for step, rows in zip(run.steps, found, strict=True)
            for part, row in enumerate(rows)
        ]
        table.show(Entries(entries))
        room = self.size.height - _FRAME_ROWS - self._other_rows()
        table.styles.height = max(_LEAST_ROWS, min(len(entries) + 2, room - room // 3))  # the log has the rest
        set_title(table, self._run_title(run, now), self._which(run))

    def _nothing(self) -> str:
        if self.shell.site.replay is not None:
            return "Neither trace nor simulation has runs of this console: below is what hosts had under way."
        return "Nothing has run here. Queue fixes in Triage (1), p shows the plan."

    def _run_title(self, run: Run, now: float) -> Line:
        took = duration((run.ended or now) - run.started)
        when = f"{clock(run.started)}, {took}"
        return line(f"Run {run.short}   {run.state}   {run.done} of {len(run.steps)} done   {when}")

    def _which(self, run: Run) -> str:
        runs = self.shell.site.runs
        if len(runs) < 2:
            return ""
        index = next(index for index, other in enumerate(runs) if other.id == run.id)
        return f"run {len(runs) - index} of {len(runs)}: left and right"

    def _fill_others(self, now: float) -> None:
        table = self.query_one("#others", Table)
        table.show(OtherRows(lines.others(self.shell.site), now), [line(Span("None is known.", "quiet"))])
        table.styles.height = self._other_rows()
        set_title(table, "Other unfinished work: last saved state")

    def _other_rows(self) -> int:
        """How high that table is: its frame, its heads, and what there is."""
        return min(_MOST_OTHER_ROWS, 3 + max(1, len(lines.others(self.shell.site))))

    def _fill_log(self, run: Run | None) -> None:
        table = self.query_one("#log", Table)
        if run is None:
            set_title(table, "Log")
            table.show(LogRows((), ()))
            return
        if run.id != self._log_of:
            self._log, self._log_of = (), run.id
            self._read_log(run)
        elif (self.following and run.alive) or run.ended + _LAST_LINES_S > self._log_read:
            self._read_log(run)
        step = self.step_number() if self.only_step else 0
        query = parse(self.filter_line.value)
        shown = self._lines_of(step, query)
        what = f"Log of step {step}" if step else "Log"
        found = f" {len(shown)} of {len(self._log)}   find: {query.text}" if not query.empty else ""
        set_title(table, f"{what}{found}   {'following' if self.following else 'held, f follows'}")
        nothing = " nothing yet" if query.empty else f" No line matches {query.text}. esc shows all."
        table.show(LogRows(self._log, shown), [line(Span(nothing, "quiet"))])
        if self.following:
            table.go(len(shown) - 1)

    def _lines_of(self, step: int, query: Query) -> Sequence[int]:
        """The numbers of the lines of a step, 0 for all, that match; looked for again only when something changed."""
        key = (self._log_of, len(self._log), step, query.text)
        if self._chosen[0] != key:
            wanted: Sequence[int] = range(len(self._log))
            if step or not query.empty:
                wanted = [
                    number
                    for number, item in enumerate(self._log)
                    if (not step or item.step == step) and all(term.passes(item.text.lower()) for term in query.terms)
                ]
            self._chosen = (key, wanted)
        return self._chosen[1]

    def _read_log(self, run: Run) -> None:
        """Fetch what is new, beside everything else."""
        site, known = self.shell.site, len(self._log)
        self._log_read = site.clock()

        def read(value: tuple[LogLine, ...] | None, error: BaseException | None) -> None:
            if error is not None:
                self.shell.failed("The log could not be read", error)
            elif value and run.id == self._log_of and len(self._log) == known:
                self._log = (*self._log, *value)
                self._fill_log(run)

        self.shell.jobs.start("log", lambda: site.log_of(run, known), read)

    def status(self) -> Button:
        """How the run ended, or that nobody has to watch it."""
        run = self.shown_run()
        if run is None:
            text = "" if self.shell.site.replay is not None else "Nothing is running."
        elif run.alive:
            text = "You can quit: the run goes on. Any host can resume it from the last save."
        else:
            text = run.reason or str(run.state)
        return Button((Span(f" {text}", "quiet"),))

    def set_up(self) -> None:
        self.set_focus(self.query_one("#run-steps", Table))

    def table_moved(self, table: Table) -> None:
        """The log may be that of another step; whoever goes up in it holds it."""
        if table.id == "log":
            self.following = table.cursor >= len(table.rows) - 1
        self.fill_footer()
        if self.only_step and table.id == "run-steps":
            self._fill_log(self.shown_run())

    def on_table_opened(self, message: Table.Opened) -> None:
        """Enter and a second click read the line of the log."""
        message.stop()
        act = self.keys.named("read")
        if act is not None:
            self.press(act)

    # -- acts

    def why_not(self, act: Act) -> str:
        run = self.shown_run()
        if act.name == "stop" and (run is None or not run.alive):
            return "nothing is running in this run"
        if act.name == "resume":
            if run is None:
                return "there is no run"
            if not run.resumable and not run.ending and run.id not in self.shell.site.stopping:
                return "it is running" if run.alive else "everything in it is done"
        if act.name == "discard":
            return self._why_not_discard(run)
        if act.name in ("take_over", "limit"):
            return self._why_not_work(act)
        if act.name in ("filter", "pace", "read") and run is None:
            return "there is no run yet"
        if act.name in ("earlier_run", "later_run"):
            return self._why_not_other(run, 1 if act.name == "earlier_run" else -1)
        return ""

    def _why_not_work(self, act: Act) -> str:
        if act.name == "limit":
            return "" if self._worked_on() is not None else "nothing that runs here is under the cursor"
        none = "no unfinished work of another host is known (tab goes to that list)"
        return none if self.operation() is None else ""

    def _why_not_discard(self, run: Run | None) -> str:
        found = self._discarded()
        if found is None:
            return "no unfinished work on an image is under the cursor"
        number = self.step_number() if self.focused is not self.query_one("#others", Table) else 0
        if run is not None and number and run.steps[number - 1].over:
            return f"everything in step {number} is done"
        image = self.shell.site.view.image(found[0])
        return f"{found[1]} is usable, there is nothing to give up" if image is not None and image.usable else ""

    def _why_not_other(self, run: Run | None, by: int) -> str:
        runs = self.shell.site.runs
        if run is None or len(runs) < 2:
            return "there is only one run" if run is not None else "there is no run"
        index = next(index for index, other in enumerate(runs) if other.id == run.id) + by
        return "" if 0 <= index < len(runs) else f"this is the {'oldest run that is kept' if by > 0 else 'newest run'}"

    def act_stop(self) -> None:
        run = self.shown_run()
        assert run is not None
        running.stop_run(self.shell, run)

    def act_resume(self) -> None:
        run = self.shown_run()
        assert run is not None
        running.resume_run(self.shell, run)

    def _discarded(self) -> tuple[str, str] | None:
        """Id and name of the image whose unfinished work is under the cursor."""
        if self.focused is self.query_one("#others", Table):
            operation = self.operation()
            return (operation.image, operation.name or operation.image[:8]) if operation else None
        run, number = self.shown_run(), self.step_number()
        if run is None or not number or run.alive:
            return None
        step = run.steps[number - 1]
        return (step.target, step.name) if step.target else None

    def act_discard(self) -> None:
        found = self._discarded()
        assert found is not None
        running.discard(self.shell, *found)

    def _worked_on(self) -> tuple[str, str] | None:
        """Id and name of the image on which a task of this host works, of what is under the cursor or runs."""
        site, operation = self.shell.site, self.operation()
        if self.focused is self.query_one("#others", Table):
            here = operation is not None and operation.host == site.host and operation.busy
            return (operation.image, operation.name) if operation is not None and here else None
        run = self.shown_run()
        step = run.current if run is not None else None
        return ((*step.images, step.target)[0], step.name) if step is not None else None

    def act_limit(self) -> None:
        found = self._worked_on()
        assert found is not None
        ask_rate(self.shell, self.shell.site.current, *found, self.fill_all)

    def act_take_over(self) -> None:
        operation = self.operation()
        assert operation is not None
        running.take_over(self.shell, operation)

    def act_follow(self) -> None:
        self.following = not self.following
        self.fill()

    @property
    def filter_line(self) -> FilterLine:
        return self.query_one(FilterLine)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Find while one types."""
        event.stop()
        self._fill_log(self.shown_run())

    def act_filter(self) -> None:
        self.following = False
        self.filter_line.open()

    def act_step_log(self) -> None:
        self.only_step = not self.only_step
        self.following = True
        self.fill()

    def act_read(self) -> None:
        key = self.query_one("#log", Table).key
        item = self._log[int(key)] if key else LogLine(self.shell.site.now, 0, "There is no line yet.")
        self.shell.open(Notice(f"Log at {clock(item.when)}", [item.text]))

    def act_pace(self) -> None:
        run = self.shown_run()
        assert run is not None
        self.shell.show(Where("pace", run=run.id))

    def act_earlier_run(self) -> None:
        self._choose(1)

    def act_later_run(self) -> None:
        self._choose(-1)

    def _choose(self, by: int) -> None:
        runs, run = self.shell.site.runs, self.shown_run()
        assert run is not None
        index = next(index for index, other in enumerate(runs) if other.id == run.id) + by
        self.run_id = runs[max(0, min(index, len(runs) - 1))].id
        self._log_of = ""
        self.fill_all()

    def act_back(self) -> None:
        """All lines of the log again, else the newest run."""
        if self.filter_line.value:
            self.filter_line.clear_filter()
        elif self.run_id:
            self.run_id = ""
        elif self.shell.site.replay is not None:
            leave_replay(self.shell)
        else:
            self.nothing_to_close()
        self.fill_all()

    # -- taking out

    def copies(self) -> list[CopyItem]:
        run = self.shown_run()
        if run is None:
            return []
        number = self.step_number()
        items: list[CopyItem] = [("i", "id of the run", run.id), ("c", "command", command_line("tasks"))]
        if number:
            step = run.steps[number - 1]
            items += [("w", "reason", step.reason or step.error or str(step.state)), ("r", "image", step.target)]
        return items

    def table(self) -> tuple[Sequence[str], list[Sequence[str]]]:
        return ("when", "step", "text"), [(clock(item.when), str(item.step), item.text) for item in self._log]

    ACTS: ClassVar[Sequence[Act]] = (
        Act("stop", "s", "Stop, keep", "Stop at the next save; what was done is kept.", act_stop, "halt pause",
            changes=True),
        Act("resume", "r", "Resume", "Go on with what the run has not done.", act_resume, "continue start",
            changes=True),
        Act("discard", "X", "Discard", "Give up the unfinished work on an image. Asks first.", act_discard, "remove",
            changes=True),
        Act("take_over", "a", "Take over", "Go on with work of a host that is gone.", act_take_over, "other host",
            changes=True),
        Act("filter", "slash", "Find", "Show only matching lines of the log; esc there shows all.", act_filter,
            "search filter"),
        Act("follow", "f", "Follow", "Follow the log, or hold it.", act_follow, "tail pause"),
        Act("earlier_run", "left", "Earlier", "Show the run before this one.", act_earlier_run, "previous history",
            footer=False),
        Act("later_run", "right", "Later", "Show the run after this one.", act_later_run, "next history", footer=False),
        Act("limit", "b", "Rate", "Let what runs here move so much in a second.", act_limit,
            "speed bandwidth slow throttle", changes=True),
        Act("pace", "p", "Pace", "Draw what the run has done over time, and how fast.", act_pace,
            "picture throughput progress chart"),
        Act("read", "enter", "Read", "Show the line of the log under its cursor whole.", act_read, "log line open",
            footer=False),
        Act("step_log", "l", "Log of step", "Show the log of this step, or of the whole run.", act_step_log,
            "lines"),
    )  # fmt: skip
