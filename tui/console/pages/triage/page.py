"""Triage, the first page: what can be fixed, the most urgent first, why, and what the queue amounts to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from textual.containers import Horizontal
from textual.widget import Widget

from tui.console.acts import Act
from tui.console.control import branching
from tui.console.draw.formats import clock
from tui.console.draw.lines import Line, Span, line
from tui.console.pages.filtered import FilteredPage
from tui.console.pages.page import CopyItem
from tui.console.pages.plan import lines
from tui.console.pages.runs import lines as run_lines
from tui.console.pages.triage.acts import TRIAGE_ACTS
from tui.console.pages.triage.rows import COLUMNS, HEADS, TriageRows
from tui.console.pages.why import lines as why_lines
from tui.console.widgets.bar import Button
from tui.console.widgets.base import set_title
from tui.console.widgets.pane import Pane
from tui.console.widgets.table import Table
from tui.view.command_lines import line as command_line
from tui.view.fixes import FixRow
from tui.view.query import Query
from tui.work.triage import Triage, TriageOrder, TriageRow, same_kind, triage

_AFTER_DECISIONS = frozenset(("plan", "run", "undo", "redo", "lens"))
_SIMULATED = frozenset(("run", "drill", "power_cut"))
_NEEDS_ROW = frozenset(
    ("queue", "why", "open", "queue_kind", "range", "priority", "snooze", "earlier", "later", "drill"),
)


class TriagePage(FilteredPage):
    """The table of fixes, the reason of the one under the cursor, and the plan that the queue makes."""

    tab = "triage"
    ACTS: ClassVar[Sequence[Act]] = TRIAGE_ACTS
    COLUMNS = COLUMNS
    ORDERS = TriageOrder
    WHAT = "Fixes"

    def __init__(self) -> None:
        super().__init__()
        self.show_snoozed = False
        self.found: Triage | None = None

    # -- widgets

    def body(self) -> Iterable[Widget]:
        """Repositories, fixes and reason; below them plan and runs, where there is room."""
        plan, runs = Pane("plan"), Pane("running")
        for pane in (plan, runs):
            pane.add_class("panel")
            pane.can_focus = False
        yield self.columns_of(Horizontal(plan, runs, id="lower"))

    # -- what is under the cursor

    def row(self) -> TriageRow | None:
        """The row under the cursor."""
        key = self.table_widget.key
        return next((row for row in self.found.rows if row.fix.key == key), None) if self.found else None

    def chosen(self) -> list[FixRow]:
        """The fixes of the range, or the one under the cursor."""
        keys = set(self.table_widget.range())
        return [row.fix for row in self.found.rows if row.fix.key in keys and row.fix.raw] if self.found else []

    # -- drawing

    def fill(self) -> None:
        """Everything, from what is known now."""
        query = self.query_now()
        found = self.found = self._triage(query)
        self.table_widget.show(TriageRows(found.rows, self.console.site.view, self.console.signs), self._nothing())
        self.fill_title(len(found.rows), found.total, query)
        self._fill_why()
        self._fill_plan()
        self.fill_repositories()

    def _triage(self, query: Query) -> Triage:
        site, order = self.console.site, TriageOrder(self.order)
        decisions = site.decisions._replace(queue=()) if site.lens else site.decisions
        return triage(site.view, decisions, query, order, self.reversed, self.show_snoozed, site.marked())

    def matching(self, query: Query) -> Callable[[int], bool]:
        """By the key of its fix."""
        rows, keys = self.table_widget.rows, {row.fix.key for row in self._triage(query).rows}
        return lambda index: rows.key(index) in keys

    def _nothing(self) -> list[Line]:
        console = self.console
        view, found = console.site.view, self.found
        assert found is not None
        if view.problem and not view.known:
            return [(), line(Span(f"{view.problem}.", "broken")), line(f"{view.next_step}."), (), line("R  Try again")]
        if not view.known:
            return [(), line("Looking at the repository…" if console.signs.unicode else "Looking at the repository...")]
        if found.filtered and self.filter_line.value:
            return [
                (),
                line(f"No fix matches {self.filter_line.value}. {found.filtered} hidden.  esc clears the filter."),
            ]
        if not view.counts.total and not view.counts.removed:
            return [
                (),
                line(f"{view.name} is empty. Create a disk with the command line:"),
                line(Span(f"  diskwright create-disk {view.name} 10G", "key")),
                line("y copies that."),
            ]
        snoozed = f", {found.snoozed} fixes snoozed (S shows them)" if found.snoozed else ""
        low = ", free space is LOW" if view.low_space else ""
        usable = f"{view.counts.optimized} of {view.counts.total} images OPTIMIZED"
        return [(), line(f"Nothing to fix. {usable}. Scanned {clock(view.scanned_at)}{snoozed}{low}.")]

    def _fill_why(self) -> None:
        row = self.row()
        pane = self.query_one("#why", Pane)
        set_title(pane, "Why")
        pane.show(
            why_lines.of_fix(self.console.site.view, row, self.console.signs, self.console.site.now, pane.columns())
            if row
            else []
        )

    # -- plan

    def _fill_plan(self) -> None:
        if self.wide and self.tall:
            plan = self.console.site.plan_now()
            pane = self.query_one("#plan", Pane)
            set_title(pane, lines.title(plan))
            pane.show(lines.brief(plan, self.console.signs, pane.columns()))
            runs = self.query_one("#running", Pane)
            set_title(runs, f"Runs {len(self.console.site.live_runs())}")
            runs.show(run_lines.brief(self.console.site, self.console.signs))

    def status(self) -> Button:
        """What the queue amounts to, unless there is a pane for that; in a replay what can be done."""
        site = self.console.site
        if site.branch is not None:
            return Button((Span(" r runs the fix under the cursor, ! kills it, esc goes back.", "quiet"),))
        if site.replay is not None:
            return Button((Span(" Nothing can be queued in a replay: 4 shows its steps, esc leaves it.", "quiet"),))
        if self.wide and self.tall:
            return Button(())
        return Button(lines.strip(site.plan_now(), self.console.signs), "plan")

    # -- moving

    def on_table_moved(self, message: Table.Moved) -> None:
        """The reason is that of the row under the cursor."""
        message.stop()
        self._fill_why()
        self.fill_footer()

    def on_table_opened(self, message: Table.Opened) -> None:
        """A second click tells why."""
        message.stop()
        if self.row():
            self.act_why()

    def act_open(self) -> None:
        """Enter tells why."""
        self.act_why()

    def show_fix(self, key: str) -> None:
        """Put the cursor on a fix; whatever hides it is cleared."""
        if not self.table_widget.go_key(key):
            self.filter_line.clear_filter()
            self.fill()
            if not self.table_widget.go_key(key):
                self.show_snoozed = True
                self.fill()
                self.table_widget.go_key(key)
        self.set_focus(self.table_widget)

    # -- acts

    def press(self, act: Act) -> None:
        """What depends on the whole queue waits until earlier keys have been saved."""
        jobs = self.console.jobs
        if act.name in _AFTER_DECISIONS and jobs.deciding:
            self.console.hold(lambda: super(TriagePage, self).press(act))
        else:
            super().press(act)

    def reason(self, act: Act) -> str:
        """In a simulation fixes are run and killed one by one, and nothing is queued."""
        if self.console.site.branch is None or act.name not in _SIMULATED:
            return super().reason(act)
        row = self.row()
        if act.name == "power_cut" or (row is not None and row.fix.can_run):
            return ""
        return "nothing is under the cursor" if row is None else row.run_note

    def why_not(self, act: Act) -> str:
        """What the act needs."""
        name = act.name
        if name == "power_cut":
            return "only in a simulation: open a trace, then b"
        if name in _NEEDS_ROW and self.row() is None:
            return "nothing is under the cursor"
        if name in ("plan", "run") and not self.console.site.queued():
            return "the plan is empty, space queues the fix under the cursor"
        if name == "stop" and not self.console.site.live_runs():
            return "nothing is running"
        if name in ("undo", "redo") and not getattr(self.console.site.decisions, name):
            return f"there is nothing to {name}"
        if name in ("earlier", "later") and not self.row_position():
            return "only a queued fix can be moved, space queues it"
        if name == "drill" and not self.console.is_demo():
            return "the crash drill works only in the demo repository"
        return self._why_not_queue() if name == "queue" else super().why_not(act)

    def row_position(self) -> int:
        """The place in the queue of the fix under the cursor, 0 when it is not queued."""
        row = self.row()
        return row.position if row else 0

    def _why_not_queue(self) -> str:
        row = self.row()
        if row is None or row.position or self.table_widget.range_start >= 0:
            return ""
        if not row.fix.raw:
            return f"check does not offer it now: {row.note}"
        if not row.fix.can_run and not row.fix.needs_room:
            return f"it waits for {row.fix.waits_for}"
        return f"{row.elsewhere}: y copies the command for there, : then SRM takes the role" if row.elsewhere else ""

    def act_queue(self) -> None:
        """Queue or unqueue the range, or the fix under the cursor."""
        row, table = self.row(), self.table_widget
        assert row is not None
        keys = table.range()
        rows = [other for other in self.chosen() if other.can_run or other.needs_room]
        if row.position:
            self.console.decide(lambda store: store.unqueue(keys))
        else:
            self.console.decide(lambda store: store.queue(rows))
        if table.range_start >= 0:
            table.mark()
        else:
            table.go(table.cursor + 1)

    def act_queue_kind(self) -> None:
        """Queue all fixes of the type under the cursor that can run."""
        row = self.row()
        assert row is not None and self.found is not None
        kind = [fix for fix in same_kind(self.found.rows, row) if fix.can_run]
        self.console.decide(lambda store: store.queue(kind))

    def act_range(self) -> None:
        """Begin or end a range."""
        self.table_widget.mark()

    def act_earlier(self) -> None:
        """Move towards the start."""
        self._move(-1)

    def act_later(self) -> None:
        """Move towards the end."""
        self._move(1)

    def _move(self, by: int) -> None:
        key = self.table_widget.key
        self.console.decide(lambda store: store.move(key, by))

    def act_priority(self) -> None:
        """Ask for the priority."""
        from tui.console.dialogs.priority import ask

        rows = self.chosen()
        ask(self.console, lambda number: self.console.decide(lambda store: store.set_priority(rows, number)))

    def act_snooze(self) -> None:
        """Snooze, or bring back what is snoozed."""
        row = self.row()
        assert row is not None
        rows = self.chosen()
        self.console.decide(lambda store: store.snooze(rows, not row.snoozed))

    def act_snoozed(self) -> None:
        """Show also what is snoozed, or hide it."""
        self.show_snoozed = not self.show_snoozed
        self.fill_all()

    def act_undo(self) -> None:
        """Undo the last decision."""
        self.console.decide(lambda store: f"Undone: {store.undo()}")

    def act_redo(self) -> None:
        """Redo it."""
        self.console.decide(lambda store: f"Done again: {store.redo()}")

    def act_plan(self) -> None:
        """Show what the queue will do."""
        self.console.show_plan()

    def act_run(self) -> None:
        """As ``plan``: nothing runs that was not shown. In a simulation the fix under the cursor runs."""
        row = self.row()
        if self.console.site.branch is not None and row is not None:
            branching.run(self.console, row.fix)
        else:
            self.act_plan()

    def act_why(self) -> None:
        """Tell why, on a full page."""
        from tui.console.pages.why.page import WhyPage

        row = self.row()
        assert row is not None
        self.console.push_screen(WhyPage(fix=row.fix.key))

    def act_only_mend(self) -> None:
        """Only mends."""
        self.set_filter("type:mend")

    def act_only_clean(self) -> None:
        """Only cleans."""
        self.set_filter("type:clean")

    def act_only_merge(self) -> None:
        """Only merges."""
        self.set_filter("type:merge")

    def act_only_optimize(self) -> None:
        """Only optimizes."""
        self.set_filter("type:optimize")

    def act_stop(self) -> None:
        """Stop what runs."""
        self.console.stop_runs()

    def act_drill(self) -> None:
        """Begin a crash drill on the fix under the cursor."""
        row = self.row()
        assert row is not None
        if self.console.site.branch is not None:
            branching.crash(self.console, row.fix)
        else:
            self.console.crash_drill(row.fix)

    def act_power_cut(self) -> None:
        """Cut the power of the simulated world."""
        branching.power_cut(self.console)

    # -- taking out

    def copies(self) -> list[CopyItem]:
        """Id, command, reason, row."""
        row = self.row()
        view = self.console.site.view
        if row is None:
            return [("c", "command", f"diskwright create-disk {view.name} 10G")] if view.known else []
        cells = TriageRows([row], view, self.console.signs).text(0)
        return [
            ("i", "id of the image", row.fix.target or row.fix.id),
            ("c", "command", command_line("fix", repo=view.name, fix=row.fix.id, irreversible=row.fix.irreversible)),
            ("w", "reason", row.fix.why),
            ("r", "row", "  ".join(cells)),
        ]

    def table(self) -> tuple[Sequence[str], list[Sequence[str]]]:
        """All rows that are shown."""
        rows = self.found.rows if self.found else ()
        made = TriageRows(rows, self.console.site.view, self.console.signs)
        return HEADS, [made.text(index) for index in range(len(rows))]
