"""The plan, before anything is done: steps in the order they will run, the outcome, and what cannot be undone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual.containers import Vertical
from textual.widget import Widget

from tui.console.acts import Act
from tui.console.control import running
from tui.console.control.anywhere import export, turn_lens_on
from tui.console.control.decisions import decide, save_plan
from tui.console.dialogs.confirm import Confirm, word_of
from tui.console.draw.formats import clock, signed
from tui.console.draw.lines import Cell, Line, Span, line, plain
from tui.console.draw.signs import Signs
from tui.console.pages.frame import mode
from tui.console.pages.page import CopyItem, Page
from tui.console.pages.plan import lines
from tui.console.shell import Copy, Where
from tui.console.widgets.bar import Bar, Button
from tui.console.widgets.base import set_title
from tui.console.widgets.pane import Pane
from tui.console.widgets.table import Column, KeyedRows, Table
from tui.text.amounts import compact
from tui.text.words import Undo
from tui.view.command_lines import line as command_line
from tui.view.fixes import FixRow
from tui.view.plan import Plan, Step, validity
from tui.work.triage import TriageRow, not_offered

COLUMNS = (
    Column("number", "#", 2),
    Column("type", "FIX", 8),
    Column("image", "IMAGE", 15, share=1),
    Column("change", "NOW / AFTER", 14),
    Column("space", "SPACE", 7, right=True, from_width=100),
    Column("lowest", "LOWEST", 7, right=True, from_width=100),
    Column("free", "FREE", 8, right=True),
    Column("time", "TIME", 7, right=True),
    Column("undo", "UNDO", 5),
    Column("needs", "NEEDS", 7, share=1),
)
HEADS = tuple(column.title for column in COLUMNS)


class StepRows(KeyedRows):
    """The steps of a plan for a table."""

    def __init__(self, steps: Sequence[Step], signs: Signs) -> None:
        super().__init__(step.row.key for step in steps)
        self._steps = steps
        self._signs = signs

    def cells(self, index: int) -> dict[str, Cell]:
        step = self._steps[index]
        row = step.row
        return {
            "number": str(step.number),
            "type": row.type,
            "image": row.short,
            "change": self._signs.change(row.now.value, row.after.value),
            "space": signed(row.space_bytes),
            "lowest": compact(step.lowest),
            "free": compact(step.free_after),
            "time": step.time.text,
            "undo": Span(str(row.undo), "warning" if row.undo is Undo.NEVER else "text"),
            "needs": step.needs,
        }

    def text(self, index: int) -> list[str]:
        cells = self.cells(index)
        return [plain(cells.get(column.name, "")) for column in COLUMNS]


class PlanPage(Page):
    """The plan of what is queued. It says when it does not hold any more, and is then made again first."""

    tab = "plan"
    TABS = False
    watched = True
    ALWAYS: ClassVar[Sequence[str]] = ("help", "commands", "back")

    def __init__(self) -> None:
        super().__init__()
        self.plan: Plan | None = None
        self.gone: Sequence[TriageRow] = ()
        """What is queued and was not offered when the plan was made."""

    def body(self) -> Iterable[Widget]:
        table = Table(COLUMNS, name="steps")
        outcome = Pane("outcome", label_columns=8)
        for widget in (table, outcome):
            widget.add_class("panel")
        yield Vertical(table, outcome, id="plan-body")

    @property
    def table_widget(self) -> Table:
        return self.query_one("#steps", Table)

    # -- drawing

    def fill_header(self) -> None:
        """Which plan, and whether it holds."""
        if self.plan is None:
            self.make()
        plan = self.plan
        assert plan is not None
        bar = self.query_one("#header", Bar)
        number = len(plan.steps)
        about = f"   {number} {'fix' if number == 1 else 'fixes'}   {plan.repo_id}"
        word = plan.word(valid=not self.why_stale())
        bar.show(
            [Button((*mode(self.shell), Span(f" Plan {plan.short}", "title"), Span(about)))],
            (
                Span(f"made {clock(plan.made_at)}   ", "quiet"),
                Span(f"{word} ", "optimized" if word == "VALID" else "danger"),
            ),
        )

    def why_stale(self) -> str:
        """Why the plan does not hold any more, "" when it does."""
        if self.plan is None:
            return ""
        found = validity(self.plan, self.shell.site.actual_view)
        return "" if found.valid else found.reason

    def fill(self) -> None:
        """Steps and outcome; the plan itself changes only when it is made again."""
        plan = self.plan
        assert plan is not None
        signs = self.shell.signs
        self.table_widget.show(StepRows(plan.steps, signs), self._nothing())
        stale = self.why_stale()
        title = f"STALE: {stale}. r makes the plan again first" if stale else "Steps, in the order they will run"
        set_title(self.table_widget, title)
        outcome = self.query_one("#outcome", Pane)
        set_title(outcome, "Outcome")
        rows = self._size_table(len(plan.steps))
        outcome.show(lines.outcome(plan, self.gone, signs, outcome.columns(), rows))

    def status(self) -> Button:
        if not (self.plan and self.plan.steps):
            return Button((Span(" esc goes back; what is queued stays queued.", "quiet"),))
        return Button((Span(" Same as: ", "quiet"), Span(self.command())), "copy_command")

    def _size_table(self, steps: int) -> int:
        """Give the table what it needs of its half; return the lines that are left in the pane below."""
        room = self.size.height - 3
        taken = max(5, min(steps + 3, room // 2))
        self.table_widget.styles.height = taken
        return room - taken - 2

    def _nothing(self) -> list[Line]:
        return [(), line("No step can run now. Below is why.")]

    def make(self) -> None:
        """Make the plan from what is queued and known now."""
        site = self.shell.site
        self.plan = site.make_plan(site.queued())
        self.gone = not_offered(site.actual_view, site.decisions, site.marked())
        save_plan(self.shell, self.plan)

    def command(self) -> str:
        """The command that runs the same plan."""
        plan = self.plan
        if plan is None:
            return ""
        return command_line("run", repo=plan.repo_id, plan=plan.short, irreversible=bool(plan.never))

    def set_up(self) -> None:
        """The table has the keys; a plan is made from what is, not from what will be."""
        self.shell.site.lens = False
        self.set_focus(self.table_widget)

    # -- acts

    def why_not(self, act: Act) -> str:
        plan = self.plan
        if plan is None:
            return "there is no plan yet"
        if act.name == "run" and not self.why_stale():
            if plan.refused:
                return f"{plan.refused[:1].lower()}{plan.refused[1:]}"
            if not plan.steps:
                return "no step of it can run now"
        if act.name == "offer" and not plan.offers:
            return "there is nothing to add"
        if act.name in ("drop", "earlier", "later", "why", "copy_command") and not plan.steps:
            return "there is no step"
        if act.name == "earlier" and self.table_widget.cursor == 0:
            return "it is the first step"
        if act.name == "later" and self.table_widget.cursor == len(plan.steps) - 1:
            return "it is the last step"
        return ""

    def act_run(self) -> None:
        """Run it; a plan that does not hold any more is made again and shown first."""
        plan = self.plan
        assert plan is not None
        if self.why_stale():
            self.act_replan()
            self.shell.tell("The plan was made again from what is true now. Look at it, then r runs it.", "warning")
            return
        never = [step for step in plan.steps if step.row.irreversible]
        if not never:
            self._start(irreversible=False)
            return
        word = word_of(never[0].row.name, never[0].row.target) if len(never) == 1 else ""
        text: list[Cell] = [*plan.never, "It cannot be undone. Everything else can be stopped and is kept."]
        self.shell.open(Confirm("This cannot be undone", text, word or plan.short, "run the plan"), self._answered)

    def _answered(self, yes: bool | None) -> None:
        if yes:
            self._start(irreversible=True)

    def _start(self, irreversible: bool) -> None:
        if self.plan is None:
            return
        if self.why_stale():
            self.shell.tell(f"Nothing was run: {self.why_stale()}.", "warning")
            return
        running.start_plan(self.shell, self.plan, irreversible)

    def act_replan(self) -> None:
        self.make()
        self.fill_all()

    def act_drop(self) -> None:
        key = self.table_widget.key
        decide(self.shell, lambda store: store.unqueue([key]), self._dropped)

    def _dropped(self) -> None:
        if self.shell.site.queued():
            self.act_replan()
        else:
            self.act_back()

    def act_earlier(self) -> None:
        self._move(-1)

    def act_later(self) -> None:
        self._move(1)

    def _move(self, by: int) -> None:
        key, steps = self.table_widget.key, {row.key for row in self.shell.site.queued()}
        decide(self.shell, lambda store: store.move(key, by, steps), self.act_replan)

    def act_offer(self) -> None:
        assert self.plan is not None
        rows: list[FixRow] = [self.plan.offers[0].row]
        decide(self.shell, lambda store: store.queue(rows), self.act_replan)

    def act_copy_command(self) -> None:
        self.shell.post_message(Copy(self.command()))

    def act_save(self) -> None:
        export(self)

    def act_why(self) -> None:
        key, steps = self.table_widget.key, self.plan.steps if self.plan else ()
        image = next((step.row.target for step in steps if step.row.key == key), "")
        self.shell.show(Where("why", fix=key, image=image))

    def act_back(self) -> None:
        self.dismiss(None)

    def copies(self) -> list[CopyItem]:
        return [("c", "command", self.command())]

    def table(self) -> tuple[Sequence[str], list[Sequence[str]]]:
        if self.plan is None:
            return HEADS, []
        rows = StepRows(self.plan.steps, self.shell.signs)
        return HEADS, [rows.text(index) for index in range(len(rows))]

    ACTS: ClassVar[Sequence[Act]] = (
        Act("run", "r", "Run", "Run the plan as shown; asks before what cannot be undone.", act_run, "start go",
            changes=True),
        Act("earlier", "K", "Up", "Move the step towards the start.", act_earlier, "order", changes=True),
        Act("later", "J", "Down", "Move the step towards the end.", act_later, "order", changes=True),
        Act("drop", "x", "Drop", "Take the step out of the plan.", act_drop, "remove unqueue", changes=True),
        Act("lens", "L", "Lens", "Show every page as it will be after the plan.", turn_lens_on, "preview future after"),
        Act("offer", "a", "Add offer", "Add the fix that would make the plan possible.", act_offer, "space room",
            changes=True, footer=False),
        Act("copy_command", "y", "Copy CLI", "Copy the command that runs the same plan.", act_copy_command,
            "clipboard"),
        Act("save", "e", "Export", "Write the plan to a file.", act_save, "save"),
        Act("replan", "p", "Plan again", "Make the plan again from what is true now.", act_replan, "refresh",
            footer=False),
        Act("why", "w", "Why", "Tell why this fix is offered.", act_why, "explain", footer=False),
        Act("back", "escape", "Back", "Back to Triage; the queue stays.", act_back),
    )  # fmt: skip
