"""Why, on a full page: the reason with its rule, what it means, what to do, and facts that open the record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual.containers import Vertical
from textual.widget import Widget

from tui.console.acts import Act
from tui.console.control.decisions import decide
from tui.console.draw.lines import Cell, Line, Span, line, plain
from tui.console.pages.page import CopyItem, Page
from tui.console.pages.why import lines
from tui.console.shell import Where
from tui.console.widgets.bar import Button
from tui.console.widgets.base import set_title
from tui.console.widgets.pane import Item, Pane
from tui.console.widgets.table import Column, Table
from tui.view.command_lines import line as command_line
from tui.view.facts import Fact, facts_of
from tui.view.why import Explanation, explain, explain_fix

COLUMNS = (
    Column("number", "#", 2, right=True),
    Column("fact", "FACT", 26, share=3),
    Column("where", "WHERE", 20, share=2),
)


_EVENTS = 8


class FactRows:
    """The facts for a table."""

    def __init__(self, facts: Sequence[Fact], place: str = "") -> None:
        self._facts = facts
        self._place = place

    def __len__(self) -> int:
        return len(self._facts)

    def key(self, index: int) -> str:
        return str(index)

    def find(self, key: str) -> int:
        return int(key) if int(key) < len(self._facts) else -1

    def cells(self, index: int) -> dict[str, Cell]:
        """Number, text and place; paths are below the place of the repository."""
        fact = self._facts[index]
        path = fact.path.removeprefix(f"{self._place}/") if self._place else fact.path
        where = "  ".join(part for part in (path, fact.place) if part)
        return {"number": str(index + 1), "fact": fact.text, "where": Span(where or "-", "quiet")}


class WhyPage(Page):
    """The reason of one image or of one fix."""

    tab = "why"
    TABS = False
    ALWAYS: ClassVar[Sequence[str]] = ("help", "commands", "back")

    def __init__(self) -> None:
        super().__init__()
        self.image = ""
        self.fix_key = ""
        self._facts: tuple[Fact, ...] = ()
        self._asked = False
        self._problem = ""

    def body(self) -> Iterable[Widget]:
        why, facts = Pane("reason"), Table(COLUMNS, name="facts")
        for widget in (why, facts):
            widget.add_class("panel")
        yield Vertical(why, facts, id="why-body")

    def arrive(self, where: Where) -> None:
        """Tell why an image or a fix is as it is."""
        super().arrive(where)
        self.image, self.fix_key = where.image, where.fix

    # -- drawing

    def explanation(self) -> Explanation | None:
        """What is known now."""
        site = self.shell.site
        view, now = site.view, site.now
        row = view.fix_row(self.fix_key) if self.fix_key else None
        if row is not None:
            return explain_fix(view, row, now, self._facts)
        return explain(view, self.image, now, self._facts) if self.image else None

    def fill(self) -> None:
        pane, table = self.query_one("#reason", Pane), self.query_one("#facts", Table)
        found = self.explanation()
        set_title(pane, "Why")
        if found is None:
            pane.show([line("It is not there any more. esc goes back.")])
            table.show(FactRows(()))
            return
        group = lines.of_group(self.shell.site.chronicle, found.image)
        pane.show([*lines.of(found, self.shell.signs), *group, *self._beyond(found)])
        set_title(table, f"Facts {len(found.facts)}   enter shows what the record or file itself says")
        table.show(FactRows(found.facts, self.shell.site.view.place), self._nothing())
        if not self._asked:
            self._ask(found.image)

    def _beyond(self, found: Explanation) -> list[Item]:
        """Return what a tall screen has room for below the reason; the facts have a table of their own."""
        if not self.tall:
            return []
        site = self.shell.site
        row, known = site.view.image(found.image), site.chronicle
        rule = found.fixes[0].rule if found.fixes else row.rule if row is not None else ""
        events = known.lane(found.image) if known is not None and found.image else ()
        return lines.beyond("", rule, events, _EVENTS)

    def status(self) -> Button:
        found = self.explanation()
        if found is None or not found.fixes or self.shell.site.replay is not None:
            return Button(())
        fix = found.fixes[0]
        place = next((number for number, row in enumerate(self.shell.site.queued(), 1) if row.key == fix.key), 0)
        text = f"is number {place} of the plan" if place else "is not in the plan, space queues it"
        if not place and not (fix.can_run or fix.needs_room):
            text = "cannot be queued: Waits and Why tell what it waits for"
        return Button((Span(f" {fix.what} {text}", "quiet"),), "queue")

    def _nothing(self) -> list[Line]:
        return [line(Span(self._problem or "reading the record", "quiet"))]

    def _ask(self, image: str) -> None:
        """Read the evidence beside the screen; a trace has none on disk."""
        self._asked = True
        site, repo = self.shell.site, self.shell.site.current
        if not image or site.replay is not None:
            self._problem = "a trace keeps no files" if site.replay is not None else "this is about no single image"
            return

        def call() -> tuple[Fact, ...]:
            with site.engine() as engine:
                return facts_of(engine, repo, image)

        def read(value: tuple[Fact, ...] | None, error: BaseException | None) -> None:
            self._facts = value or ()
            self._problem = f"they cannot be read: {error}" if error is not None else ""
            if self.is_mounted:
                self.fill_all()

        self.shell.jobs.start(f"facts {image}", call, read)

    def set_up(self) -> None:
        self.set_focus(self.query_one("#facts", Table))

    def on_table_opened(self, message: Table.Opened) -> None:
        """Enter opens a fact."""
        message.stop()
        act = self.keys.named("open_fact")
        if act is not None:
            self.press(act)

    # -- acts

    def _fact(self) -> Fact | None:
        found = self.explanation()
        cursor = self.query_one("#facts", Table).cursor
        return found.facts[cursor] if found is not None and cursor < len(found.facts) else None

    def why_not(self, act: Act) -> str:
        found = self.explanation()
        if act.name == "open_fact" and self._fact() is None:
            return "no fact is under the cursor"
        if act.name == "history" and not (found and found.image):
            return "this is about no single image"
        if act.name in ("queue", "show_fix") and not (found and found.fixes):
            return "check offers no fix for it"
        if act.name == "queue" and found is not None and not (found.fixes[0].can_run or found.fixes[0].needs_room):
            return f"it waits for {found.fixes[0].waits_for}"
        return ""

    def act_open_fact(self) -> None:
        from tui.console.pages.why.record import RecordPage

        fact = self._fact()
        assert fact is not None
        self.shell.open(RecordPage(fact))

    def act_queue(self) -> None:
        found = self.explanation()
        assert found is not None
        fix = found.fixes[0]
        decide(self.shell, lambda store: store.toggle(fix) and None)

    def act_show_fix(self) -> None:
        found = self.explanation()
        assert found is not None
        self.shell.show(Where("triage", fix=found.fixes[0].key))

    def act_history(self) -> None:
        found = self.explanation()
        assert found is not None
        self.shell.show(Where("timeline", image=found.image))

    def act_back(self) -> None:
        self.dismiss(None)

    def copies(self) -> list[CopyItem]:
        found = self.explanation()
        if found is None:
            return []
        items: list[CopyItem] = [("w", "reason", "\n".join(found.text()))]
        if found.image:
            command = command_line("why", repo=self.shell.site.view.name, image=found.image)
            items = [("i", "id of the image", found.image), ("c", "command", command), *items]
        return items

    def table(self) -> tuple[Sequence[str], list[Sequence[str]]]:
        found = self.explanation()
        if found is None:
            return ("label", "text"), []
        rows: list[Sequence[str]] = [(item.label, item.text) for item in found.lines]
        rows += [("Fact", plain(fact.line)) for fact in found.facts]
        return ("label", "text"), rows

    ACTS: ClassVar[Sequence[Act]] = (
        Act("open_fact", "enter", "Open fact", "Show what the record or file itself says.", act_open_fact,
            "evidence record"),
        Act("queue", "space", "Queue", "Put the fix into the plan, or take it out.", act_queue, "select", changes=True),
        Act("show_fix", "f", "Fix", "Show the fix in Triage.", act_show_fix, "go to"),
        Act("history", "h", "History", "Show in the timeline what happened to this image.", act_history,
            "provenance lane"),
        Act("back", "escape", "Back", "Back to where it was opened.", act_back),
    )  # fmt: skip
