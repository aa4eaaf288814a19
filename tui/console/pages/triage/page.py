"""Triage, the first page: what can be fixed, the most urgent first, why, and what the queue amounts to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from textual.containers import Horizontal
from textual.widget import Widget

from tui.console.acts import Act
from tui.console.control import branching, drill, images, running
from tui.console.control.decisions import decide
from tui.console.draw.formats import clock
from tui.console.draw.lines import Line, Span, line
from tui.console.pages.filtered import FilteredPage
from tui.console.pages.page import CopyItem
from tui.console.pages.plan import lines
from tui.console.pages.runs import lines as run_lines
from tui.console.pages.triage.rows import COLUMNS, HEADS, TriageRows
from tui.console.pages.why import lines as why_lines
from tui.console.shell import Where
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


def _only(type: str) -> Callable[[TriagePage], None]:
    return lambda page: page.set_filter(f"type:{type}")


class TriagePage(FilteredPage):
    """The table of fixes, the reason of the one under the cursor, and the plan that the queue makes."""

    tab = "triage"
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
        key = self.table_widget.key
        return next((row for row in self.found.rows if row.fix.key == key), None) if self.found else None

    def chosen(self) -> list[FixRow]:
        """The fixes of the range, or the one under the cursor."""
        keys = set(self.table_widget.range())
        return [row.fix for row in self.found.rows if row.fix.key in keys and row.fix.raw] if self.found else []

    # -- drawing

    def fill(self) -> None:
        query = self.query_now()
        found = self.found = self._triage(query)
        self.table_widget.show(TriageRows(found.rows, self.shell.site.view, self.shell.signs), self._nothing())
        self.fill_title(len(found.rows), found.total, query)
        self._fill_why()
        self._fill_plan()
        self.fill_repositories()

    def _triage(self, query: Query) -> Triage:
        site, order = self.shell.site, TriageOrder(self.order)
        decisions = site.decisions._replace(queue=()) if site.lens else site.decisions
        return triage(site.view, decisions, query, order, self.reversed, self.show_snoozed, site.marked())

    def matching(self, query: Query) -> Callable[[int], bool]:
        rows, keys = self.table_widget.rows, {row.fix.key for row in self._triage(query).rows}
        return lambda index: rows.key(index) in keys

    def _nothing(self) -> list[Line]:
        shell = self.shell
        view, found = shell.site.view, self.found
        assert found is not None
        if view.problem and not view.known:
            return [(), line(Span(f"{view.problem}.", "broken")), line(f"{view.next_step}."), (), line("R  Try again")]
        if not view.known:
            return [(), line("Looking at the repository…" if shell.signs.unicode else "Looking at the repository...")]
        if found.filtered and self.filter_line.value:
            return [
                (),
                line(f"No fix matches {self.filter_line.value}. {found.filtered} hidden.  esc clears the filter."),
                *self.hints(),
            ]
        if not view.counts.total and not view.counts.removed:
            return [
                (),
                line(f"{view.name} is empty. 2, then a creates a disk; so does the command line:"),
                line(Span(f"  diskwright create-disk {view.name} 10G", "key")),
                line("y copies that."),
            ]
        snoozed = f", {found.snoozed} fixes snoozed (S shows them)" if found.snoozed else ""
        low = ", free space is LOW" if view.low_space else ""
        usable = f"{view.counts.optimized} of {view.counts.total} images OPTIMIZED"
        told = line(f"Nothing to fix. {usable}. Scanned {clock(view.scanned_at)}{snoozed}{low}.")
        busy = [item for item in view.operations if item.busy]
        if not busy:
            return [(), told]
        others = f" and {len(busy) - 1} more are" if len(busy) > 1 else " is"
        return [(), told, line(f"{busy[0].name}{others} being worked on: {busy[0].busy}. 3 shows how far that is.")]

    def _fill_why(self) -> None:
        row = self.row()
        pane = self.query_one("#why", Pane)
        set_title(pane, "Why")
        if row is None:
            pane.show([])
            return
        site = self.shell.site
        told = why_lines.of_fix(site.view, row, self.shell.signs, site.now, pane.columns())
        pane.show([*told, *self.beyond(row.fix.target, row.fix.rule)])

    # -- plan

    def _fill_plan(self) -> None:
        if self.wide and self.tall:
            plan = self.shell.site.plan_now()
            pane = self.query_one("#plan", Pane)
            set_title(pane, lines.title(plan))
            pane.show(lines.brief(plan, self.shell.signs, pane.columns(), len(self.shell.site.decisions.queue)))
            runs = self.query_one("#running", Pane)
            set_title(runs, run_lines.title(self.shell.site))
            runs.show(run_lines.brief(self.shell.site, self.shell.signs))

    def status(self) -> Button:
        """What the queue amounts to, unless there is a pane for that; in a replay what can be done."""
        site = self.shell.site
        if site.branch is not None:
            return Button((Span(" r runs the fix under the cursor, ! kills it, esc goes back.", "quiet"),))
        if site.replay is not None:
            return Button((Span(" Nothing can be queued in a replay: 4 shows its steps, esc leaves it.", "quiet"),))
        if self.wide and self.tall:
            return Button(())
        return Button(lines.strip(site.plan_now(), self.shell.signs, len(site.decisions.queue)), "plan")

    # -- moving

    def table_moved(self, table: Table) -> None:
        """The reason is that of the row under the cursor."""
        self._fill_why()
        self.fill_footer()

    def on_table_opened(self, message: Table.Opened) -> None:
        """A second click tells why."""
        message.stop()
        if self.row():
            self.act_why()

    def arrive(self, where: Where) -> None:
        """Put the cursor on a fix."""
        super().arrive(where)
        if where.fix:
            self.call_after_refresh(self.show_fix, where.fix)

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
        jobs = self.shell.jobs
        if act.name in _AFTER_DECISIONS and jobs.deciding:
            self.shell.keyboard.hold(lambda: super(TriagePage, self).press(act))
        else:
            super().press(act)

    def reason(self, act: Act) -> str:
        """Let fixes be run and killed one by one in a simulation, and nothing be queued."""
        if self.shell.site.branch is None or act.name not in _SIMULATED:
            return super().reason(act)
        row = self.row()
        if act.name == "power_cut" or (row is not None and row.fix.can_run):
            return ""
        return "nothing is under the cursor" if row is None else row.run_note

    def why_not(self, act: Act) -> str:
        name, decisions = act.name, self.shell.site.decisions
        if name == "power_cut":
            return "only in a simulation: open a trace, then b"
        if name in _NEEDS_ROW and self.row() is None:
            return "nothing is under the cursor"
        if name in ("plan", "run") and (empty := self.shell.site.why_no_plan()):
            return empty
        if name == "stop" and not self.shell.site.live_runs():
            return "nothing is running"
        if name in ("undo", "redo") and not (decisions.undo if name == "undo" else decisions.redo):
            return f"there is nothing to {name}"
        if name == "drill" and not drill.is_demo(self.shell):
            return "the crash drill works only in the demo repository"
        of_row = {
            "queue": self._why_not_queue, "earlier": self._why_not_move, "later": self._why_not_move,
            "name_file": self._why_not_name_file,
        }  # fmt: skip
        return of_row[name](name) if name in of_row else super().why_not(act)

    def _why_not_name_file(self, name: str) -> str:
        del name
        row = self.row()
        return "" if row and images.needs_file(row.fix) else "no fix that waits for its file is under the cursor"

    def _why_not_move(self, name: str) -> str:
        row = self.row()
        place = row.position if row else 0
        if not place:
            gone = row is not None and row.queued
            return (
                "it is no step now, space takes it out" if gone else "only a queued fix can be moved, space queues it"
            )
        if place == 1 and name == "earlier":
            return "it is the first of the queue"
        last = place == len(self.shell.site.queued())
        return "it is the last of the queue" if last and name == "later" else ""

    def _why_not_queue(self, name: str) -> str:
        del name
        row = self.row()
        if row is None or row.queued or self.table_widget.range_start >= 0:
            return ""
        if not row.fix.raw:
            return f"check does not offer it now: {row.note}"
        if not row.fix.can_run and not row.fix.needs_room:
            names = ": F names it" if images.needs_file(row.fix) else ""
            return f"it waits for {row.fix.waits_for}{names}"
        return f"{row.elsewhere}: y copies the command for there, : then SRM takes the role" if row.elsewhere else ""

    def act_queue(self) -> None:
        row, table = self.row(), self.table_widget
        assert row is not None
        keys = table.range()
        rows = [other for other in self.chosen() if other.can_run or other.needs_room]
        if row.queued:
            decide(self.shell, lambda store: store.unqueue(keys))
        else:
            decide(self.shell, lambda store: store.queue(rows))
        if table.range_start >= 0:
            table.mark()
        else:
            table.go(table.cursor + 1)

    def act_queue_kind(self) -> None:
        """Queue all fixes of the type under the cursor that can run."""
        row = self.row()
        assert row is not None and self.found is not None
        kind = [fix for fix in same_kind(self.found.rows, row) if fix.can_run]
        decide(self.shell, lambda store: store.queue(kind))

    def act_range(self) -> None:
        self.table_widget.mark()

    def act_earlier(self) -> None:
        self._move(-1)

    def act_later(self) -> None:
        self._move(1)

    def _move(self, by: int) -> None:
        key, steps = self.table_widget.key, {row.key for row in self.shell.site.queued()}
        decide(self.shell, lambda store: store.move(key, by, steps))

    def act_priority(self) -> None:
        from tui.console.dialogs.priority import ask

        rows = self.chosen()
        ask(self.shell, lambda number: decide(self.shell, lambda store: store.set_priority(rows, number)))

    def act_snooze(self) -> None:
        row = self.row()
        assert row is not None
        rows = self.chosen()
        decide(self.shell, lambda store: store.snooze(rows, not row.snoozed))

    def act_snoozed(self) -> None:
        self.show_snoozed = not self.show_snoozed
        self.fill_all()

    def act_undo(self) -> None:
        decide(self.shell, lambda store: f"Undone: {store.undo()}")

    def act_redo(self) -> None:
        decide(self.shell, lambda store: f"Done again: {store.redo()}")

    def act_plan(self) -> None:
        self.shell.show(Where("plan"))

    def act_run(self) -> None:
        """Show the plan: nothing runs that was not shown. In a simulation run the fix under the cursor."""
        row = self.row()
        if self.shell.site.branch is not None and row is not None:
            branching.run(self.shell, row.fix)
        else:
            self.act_plan()

    def act_why(self) -> None:
        row = self.row()
        assert row is not None
        self.shell.show(Where("why", fix=row.fix.key, image=row.fix.target))

    def act_stop(self) -> None:
        running.stop_runs(self.shell)

    def act_drill(self) -> None:
        row = self.row()
        assert row is not None
        if self.shell.site.branch is not None:
            branching.crash(self.shell, row.fix)
        else:
            drill.begin(self.shell, row.fix)

    def act_name_file(self) -> None:
        row = self.row()
        assert row is not None
        images.name_file(self.shell, row.fix)

    def act_power_cut(self) -> None:
        branching.power_cut(self.shell)

    # -- taking out

    def copies(self) -> list[CopyItem]:
        row = self.row()
        view = self.shell.site.view
        if row is None:
            return [("c", "command", f"diskwright create-disk {view.name} 10G")] if view.known else []
        cells = TriageRows([row], view, self.shell.signs).text(0)
        return [
            ("i", "id of the image", row.fix.target or row.fix.id),
            ("c", "command", command_line("fix", repo=view.name, fix=row.fix.id, irreversible=row.fix.irreversible)),
            ("w", "reason", row.fix.why),
            ("r", "row", "  ".join(cells)),
        ]

    def table(self) -> tuple[Sequence[str], list[Sequence[str]]]:
        rows = self.found.rows if self.found else ()
        made = TriageRows(rows, self.shell.site.view, self.shell.signs)
        return HEADS, [made.text(index) for index in range(len(rows))]

    ACTS: ClassVar[Sequence[Act]] = (
        Act("queue", "space", "Queue", "Put the fix into the plan, or take it out.", act_queue, "select choose",
            changes=True),
        Act("plan", "p", "Plan", "Show what the queued fixes will do, step by step.", act_plan,
            "preview dry run space"),
        Act("run", "r", "Run", "Run the plan; it is shown first.", act_run, "start fix repair", changes=True),
        Act("why", "w", "Why", "Tell why it is so, on a full page with its facts.", act_why, "explain reason facts"),
        Act("filter", "slash", "Filter", "Show only what matches: type: status: host: pri: !not.",
            FilteredPage.act_filter, "search find"),
        Act("stop", "s", "Stop", "Stop what runs at its next save; the work is kept.", act_stop, "cancel halt",
            changes=True),
        Act("queue_kind", "a", "All", "Queue all fixes of this type.", act_queue_kind, "make space clean everything",
            changes=True),
        Act("range", "V", "Range", "Begin a range here, or end it.", act_range, "select several"),
        Act("earlier", "K", "Up", "Move the queued fix towards the start of the plan.", act_earlier, "order",
            changes=True),
        Act("later", "J", "Down", "Move the queued fix towards the end of the plan.", act_later, "order", changes=True),
        Act("priority", "P", "Priority", "Set the priority yourself, P1 to P4.", act_priority, "urgent", changes=True),
        Act("snooze", "H", "Snooze", "Hide the fix, or bring it back.", act_snooze, "hide", changes=True),
        Act("snoozed", "S", "Snoozed", "Show also what is snoozed, or hide it again.", act_snoozed, "hidden"),
        Act("undo", "z", "Undo", "Undo the last change of queue, priority or snoozing.", act_undo, "back",
            changes=True),
        Act("redo", "Z", "Redo", "Redo what was undone.", act_redo, changes=True),
        Act("name_file", "F", "Name file", "Say where the file that a fix needs is on this host.",
            act_name_file, "path import", changes=True, footer=False),
        Act("sort", "o", "Sort", "Sort by the next: priority, space, time, image, type.", FilteredPage.act_sort,
            "order"),
        Act("reverse", "O", "Reverse", "Turn the order round.", FilteredPage.act_reverse, "sort"),
        Act("open", "enter", "Why", "Tell why it is so, on a full page with its facts.", act_why, footer=False),
        *FilteredPage.FIND_ACTS,
        Act("only_mend", "", "Mend fixes", "Show only what makes broken images usable.", _only("mend"),
            "repair broken"),
        Act("only_clean", "", "Clean fixes", "Show only what frees space.", _only("clean"),
            "make space free room delete removed"),
        Act("only_merge", "", "Merge fixes", "Show only what joins snapshots.", _only("merge"), "chain space"),
        Act("only_optimize", "", "Optimize fixes", "Show only what makes usable images better.", _only("optimize"),
            "performance"),
        Act("drill", "exclamation_mark", "Drill", "Crash drill: kill a fix of the demo at a random write.", act_drill,
            "crash", changes=True, footer=False),
        Act("power_cut", "", "Power cut", "In a simulation: everything dies, what was not durable is lost.",
            act_power_cut, "crash"),
    )  # fmt: skip
