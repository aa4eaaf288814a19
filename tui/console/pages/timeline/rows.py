"""Events and steps as rows, and what is told of one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tui.console.draw.formats import clock, share
from tui.console.draw.lines import Cell, Line, Span, plain
from tui.console.draw.signs import Signs
from tui.console.widgets.headers import counts_of
from tui.console.widgets.pane import Item, Paragraph
from tui.console.widgets.table import Column
from tui.text.amounts import compact, moment
from tui.view.snapshot import RepositoryView
from tui.work.journal import Event

if TYPE_CHECKING:
    from tui.training.replay import Replay

COLUMNS = (
    Column("mark", "", 1),
    Column("when", "WHEN", 8),
    Column("host", "HOST", 10),
    Column("kind", "WHAT", 11, share=1),
    Column("image", "IMAGE", 10, share=1),
    Column("text", "", 30, share=6),
)
STEP_COLUMNS = (
    Column("mark", "", 1),
    Column("when", "STEP", 6),
    Column("host", "HOST", 8),
    Column("kind", "WHAT", 11),
    *COLUMNS[4:],  # what a step does is one short word
)
"""Of a replay."""
_ROLES = {"failed": "broken", "killed": "broken", "lost": "broken", "CRASH": "broken", "done": "optimized"}
_LANE_SIGNS = {"killed": "!", "failed": "!", "stopped": "|", "resumed": ">", "done": "="}


class EventRows:
    """Events for a table, the oldest first."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = events

    def __len__(self) -> int:
        return len(self._events)

    def key(self, index: int) -> str:
        event = self._events[index]
        return f"{event.when} {event.mark} {event.text}"

    def find(self, key: str) -> int:
        return next((index for index in range(len(self._events)) if self.key(index) == key), -1)

    def cells(self, index: int) -> dict[str, Cell]:
        event = self._events[index]
        role = _ROLES.get(event.kind, "text")
        return {
            "mark": Span("!" if event.crash else "", "broken"),
            "when": Span(clock(event.when), "quiet"),
            "host": event.host or "-",
            "kind": Span(event.kind.upper() if event.crash else event.kind, role),
            "image": event.name or (event.image[:8] if event.image else "-"),
            "text": event.text,
        }


class StepRows:
    """The steps of a trace for a table."""

    def __init__(self, replay: Replay) -> None:
        self.replay = replay

    def __len__(self) -> int:
        return len(self.replay.steps)

    def key(self, index: int) -> str:
        return str(index)

    def find(self, key: str) -> int:
        return int(key) if key.isdigit() and int(key) < len(self.replay.steps) else -1

    def cells(self, index: int) -> dict[str, Cell]:
        step = self.replay.steps[index]
        return {
            "mark": Span("!" if step.crash else "", "broken"),
            "when": Span(str(index + 1), "quiet"),
            "host": step.host or "-",
            "kind": Span("CRASH", "broken") if step.crash else step.verb,
            "image": step.name or "-",
            "text": step.text,
        }


def lane(event: Event | None, events: Sequence[Event], signs: Signs) -> list[Item]:
    """The event in full, and on one line per host what happened to its image: who did what, where it
    crashed, who went on."""
    if event is None:
        return []
    lines: list[Item] = [Paragraph("When", moment(event.when)), Paragraph("What", event.text)]
    if events:
        lines.append(Paragraph("Lane", _provenance(events, signs)))
    return lines


def _provenance(events: Sequence[Event], signs: Signs) -> Line:
    spans: list[Span] = []
    host = ""
    for event in events[-40:]:
        if event.host and event.host != host:
            spans.append(Span(f"  {event.host} " if host else f"{event.host} ", "bold"))
            host = event.host
        role = _ROLES.get(event.kind, "text")
        spans.append(Span(_LANE_SIGNS.get(event.kind, "─" if signs.unicode else "-"), role))
        if event.crash or event.kind in ("stopped", "resumed", "done"):
            spans.append(Span(event.kind, role))
    return tuple(spans)


def event_text(event: Event) -> str:
    """The event in one line."""
    return f"{moment(event.when)}  {event.host}  {event.kind}  {event.name or event.image}  {event.text}"


def changed(replay: Replay, step: int) -> list[Item]:
    """What the step changed; at a crash also what was lost, what was saved, who goes on."""
    at = replay.steps[step]
    lines: list[Item] = [Paragraph("What", f"{at.verb}: {at.text}")]
    if at.crash:
        lines.append(Paragraph("Lost", at.lost or "nothing"))
        lines.append(Paragraph("Saved", at.saved or "nothing yet"))
        lines.append(Paragraph("Resumed", at.resumed or "by nobody in this trace"))
    if at.checks:
        lines.append(Paragraph("Checks", at.checks))
    lines += [Paragraph("Changed", text) for text in replay.changed(step)]
    return lines


def repository(view: RepositoryView, signs: Signs) -> Line:
    """Counts and free space of then."""
    free = f"   free {compact(view.free_bytes)} {share(view.free_bytes, view.total_bytes)}"
    return (*signs.counts(counts_of(view), "  "), Span(f"{free}    1 and 2 show it"))


def crashes(replay: Replay) -> str:
    """How many there are, and where."""
    number = len(replay.crashes)
    where = ", ".join(str(step + 1) for step in replay.crashes[:12])
    more = ", ..." if number > 12 else ""
    return f"{number} {'crash' if number == 1 else 'crashes'}: {where}{more}" if number else "no crash in this trace"


def export(replay: Replay | None, events: Sequence[Event]) -> tuple[Sequence[str], list[Sequence[str]]]:
    """What is shown, for a file."""
    if replay is None:
        rows: list[Sequence[str]] = [(moment(e.when), e.host, e.kind, e.image, e.name, e.text) for e in events]
        return ("when", "host", "kind", "image", "name", "text"), rows
    made = StepRows(replay)
    names = ("when", "host", "kind", "text")
    steps = [[plain(made.cells(index)[name]) for name in names] for index in range(len(made))]
    return ("step", "host", "what", "text"), [tuple(row) for row in steps]
