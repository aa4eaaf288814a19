"""Triage, the first page: what can be fixed, the most urgent first, why, and what the queue amounts to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual import events
from textual.containers import Container, Horizontal, Vertical
from textual.widget import Widget
from textual.widgets import Input

from tui.console import branching, plan_lines, run_lines, why_lines
from tui.console.acts import Act
from tui.console.formats import clock
from tui.console.lines import Line, Span, line
from tui.console.screens.page import CopyItem, Page
from tui.console.triage_acts import TRIAGE_ACTS
from tui.console.triage_rows import COLUMNS, HEADS, TriageRows
from tui.console.widgets.bar import Bar, Button
from tui.console.widgets.base import set_title
from tui.console.widgets.filter import FilterLine
from tui.console.widgets.pane import Pane
from tui.console.widgets.repos import Repos
from tui.console.widgets.table import Table
from tui.model.commands import line as command_line
from tui.model.fixes import FixRow
from tui.model.plan import Plan
from tui.model.query import parse
from tui.model.triage import Triage, TriageOrder, TriageRow, same_kind, triage

_AFTER_DECISIONS = frozenset(("plan", "run", "undo", "redo"))
_SIMULATED = frozenset(("run", "drill", "power_cut"))
_NEEDS_ROW = frozenset(
    ("queue", "why", "open", "queue_kind", "range", "priority", "snooze", "earlier", "later", "drill"),
)


class TriagePage(Page):
    """The table of fixes, the reason of the one under the cursor, and the plan that the queue makes."""

    tab = "triage"
    ACTS: ClassVar[Sequence[Act]] = TRIAGE_ACTS

    def __init__(self) -> None:
        super().__init__()
        self.order = next(iter(TriageOrder))
        self.reversed = False
        self.show_snoozed = False
        self.found: Triage | None = None
        self._plan: tuple[object, Plan] | None = None
        self._extra = 0

    # -- widgets

    def body(self) -> Iterable[Widget]:
        """Repositories, fixes and reason; below them plan and runs, where there is room."""
        table = Table(COLUMNS, name="fixes")
        table.add_class("panel")
        why = Pane("why")
        plan, runs = Pane("plan"), Pane("running")
        for pane in (why, plan, runs):
            pane.add_class("panel")
        for pane in (plan, runs):
            pane.can_focus = False
        yield Container(
            Repos(),
            Vertical(table, FilterLine(table), Horizontal(plan, runs, id="lower"), id="middle"),
            why,
            id="columns",
        )
        yield Bar("plan-strip")

    @property
    def table_widget(self) -> Table:
        """The table of fixes."""
        return self.query_one("#fixes", Table)

    @property
    def filter_line(self) -> FilterLine:
        """Where the filter is typed."""
        return self.query_one(FilterLine)

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
        site = self.console.site
        view = site.view
        query = parse(self.filter_line.value)
        self.found = triage(view, site.decisions, query, self.order, self.reversed, self.show_snoozed, site.marked())
        rows = TriageRows(self.found.rows, view, self.console.signs)
        self.table_widget.show(rows, self._nothing())
        self._title(query.hints)
        self._fill_why()
        self._fill_plan()
        if self.wide:
            self.query_one(Repos).fill(self.console)

    def _title(self, hints: Sequence[str]) -> None:
        found = self.found
        assert found is not None
        shown = f"{len(found.rows)} of {found.total}" if len(found.rows) != found.total else str(found.total)
        text = self.filter_line.value.strip()
        about = hints[0] if hints else f"filter: {text or 'none'}"
        order = f"sort: {self.order.value}{' reversed' if self.reversed else ''}"
        set_title(self.table_widget, f"Fixes {shown}   {order}   {about}")

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
            why_lines.of_fix(self.console.site.view, row, self.console.signs, self.console.site.now) if row else []
        )

    # -- plan

    def plan_now(self) -> Plan | None:
        """What the queue amounts to; made again only when the queue or the repository has changed."""
        chosen = self.console.queued()
        if not chosen:
            return None
        seen = (self.console.site.view, tuple(row.id for row in chosen))
        if self._plan is None or self._plan[0] != seen:
            self._plan = (seen, self.console.site.make_plan(chosen))
        return self._plan[1]

    def _fill_plan(self) -> None:
        plan = self.plan_now()
        strip = self.query_one("#plan-strip", Bar)
        strip.show([Button(plan_lines.strip(plan, self.console.signs), "plan")])
        if self.wide and self.tall:
            pane = self.query_one("#plan", Pane)
            set_title(pane, plan_lines.title(plan))
            pane.show(plan_lines.brief(plan, self.console.signs, pane.columns()))
            runs = self.query_one("#running", Pane)
            set_title(runs, f"Runs {len(self.console.site.live_runs())}")
            runs.show(run_lines.brief(self.console.site, self.console.signs))

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

    def on_mount(self) -> None:
        """The table has the keys."""
        self.set_focus(self.table_widget)

    # -- filter

    def on_input_changed(self, event: Input.Changed) -> None:
        """The filter works while one types."""
        event.stop()
        self.fill()

    def take_field_key(self, field: Input, event: events.Key) -> bool:
        """Enter keeps the filter, esc clears it; the table shows it before the next key is looked at."""
        if self.filter_line.take_key(event.key):
            self.fill_all()
            return True
        return super().take_field_key(field, event)

    def act_filter(self) -> None:
        """Type a filter."""
        self.filter_line.open()

    def act_back(self) -> None:
        """End the range, else clear the filter, else give the panes their size back."""
        table = self.table_widget
        if table.range_start >= 0:
            table.mark()
        elif self.filter_line.value:
            self.filter_line.clear_filter()
            self.fill()
        elif self._extra:
            self._extra = 0
            self._resize()
        elif self.console.site.replay is not None:
            self.console.leave_replay()

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
        if name in ("plan", "run") and not self.console.queued():
            return "the plan is empty, space queues the fix under the cursor"
        if name == "stop" and not self.console.site.live_runs():
            return "nothing is running"
        if name in ("undo", "redo") and not getattr(self.console.site.decisions, name):
            return f"there is nothing to {name}"
        if name in ("earlier", "later") and not self.row_position():
            return "only a queued fix can be moved, space queues it"
        if name == "drill" and not self.console.is_demo():
            return "the crash drill works only in the demo repository"
        return self._why_not_queue() if name == "queue" else ""

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
        return ""

    def act_queue(self) -> None:
        """Queue or unqueue the range, or the fix under the cursor."""
        row, table = self.row(), self.table_widget
        assert row is not None
        keys = table.range()
        rows = [other for other in self.chosen() if other.can_run or other.needs_room]
        if row.position:
            self.console.decide(lambda desk: desk.unqueue(keys))
        else:
            self.console.decide(lambda desk: desk.queue(rows))
        if table.range_start >= 0:
            table.mark()
        else:
            table.go(table.cursor + 1)

    def act_queue_kind(self) -> None:
        """Queue all fixes of the type under the cursor that can run."""
        row = self.row()
        assert row is not None and self.found is not None
        kind = [fix for fix in same_kind(self.found.rows, row) if fix.can_run]
        self.console.decide(lambda desk: desk.queue(kind))

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
        self.console.decide(lambda desk: desk.move(key, by))

    def act_priority(self) -> None:
        """Ask for the priority."""
        from tui.console.screens.priority import ask

        rows = self.chosen()
        ask(self.console, lambda number: self.console.decide(lambda desk: desk.set_priority(rows, number)))

    def act_snooze(self) -> None:
        """Snooze, or bring back what is snoozed."""
        row = self.row()
        assert row is not None
        rows = self.chosen()
        self.console.decide(lambda desk: desk.snooze(rows, not row.snoozed))

    def act_snoozed(self) -> None:
        """Show also what is snoozed, or hide it."""
        self.show_snoozed = not self.show_snoozed
        self.fill_all()

    def act_undo(self) -> None:
        """Undo the last decision."""
        self.console.decide(lambda desk: f"Undone: {desk.undo()}")

    def act_redo(self) -> None:
        """Redo it."""
        self.console.decide(lambda desk: f"Done again: {desk.redo()}")

    def act_sort(self) -> None:
        """Sort by the next."""
        orders = list(TriageOrder)
        self.order = orders[(orders.index(self.order) + 1) % len(orders)]
        self.fill()

    def act_reverse(self) -> None:
        """Turn the order round."""
        self.reversed = not self.reversed
        self.fill()

    def act_larger(self) -> None:
        """More room for the lower pane."""
        self._extra = min(self._extra + 1, 6)
        self._resize()

    def act_smaller(self) -> None:
        """Less room for the lower pane."""
        self._extra = max(self._extra - 1, -4)
        self._resize()

    def _resize(self) -> None:
        why = self.query_one("#why", Pane)
        if self.size.width >= 100:
            why.styles.width = 38 + 4 * self._extra if self._extra else None
            why.styles.height = None
        else:
            why.styles.height = 9 + self._extra if self._extra else None
            why.styles.width = None

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
        from tui.console.screens.why import WhyPage

        row = self.row()
        assert row is not None
        self.console.push_screen(WhyPage(fix=row.fix.key))

    def _only(self, kind: str) -> None:
        self.filter_line.value = f"type:{kind}"
        self.filter_line.close()
        self.fill_all()

    def act_only_mend(self) -> None:
        """Only mends."""
        self._only("mend")

    def act_only_clean(self) -> None:
        """Only cleans."""
        self._only("clean")

    def act_only_merge(self) -> None:
        """Only merges."""
        self._only("merge")

    def act_only_optimize(self) -> None:
        """Only optimizes."""
        self._only("optimize")

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
            ("c", "command", command_line("fix", repo=view.name, fix=row.fix.id)),
            ("w", "reason", row.fix.why),
            ("r", "row", "  ".join(cells)),
        ]

    def table(self) -> tuple[Sequence[str], list[Sequence[str]]]:
        """All rows that are shown."""
        rows = self.found.rows if self.found else ()
        made = TriageRows(rows, self.console.site.view, self.console.signs)
        return HEADS, [made.text(index) for index in range(len(rows))]
