"""The home screen as data: the fixes of a view with what the operator decided about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from tui.text.statuses import State, code_of
from tui.text.words import RunState, Undo
from tui.view.fixes import FixRow
from tui.view.query import EVERYTHING, Query, Term
from tui.view.snapshot import RepositoryView
from tui.work.decisions import Decisions, Queued


class TriageOrder(StrEnum):
    """What to sort fixes by."""

    PRIORITY = "priority"
    SPACE = "space"
    """What frees most first."""
    TIME = "time"
    IMAGE = "image"
    TYPE = "type"


class Marked(NamedTuple):
    """What a run says of a fix."""

    state: RunState
    reason: str


class TriageRow(NamedTuple):
    """A fix and what was decided about it."""

    fix: FixRow
    priority: int
    pinned: bool
    """The priority is the operator's."""
    queued: bool
    position: int
    """Its step in the plan from 1, 0: none. What check does not offer now is no step, though it is queued still."""
    snoozed: bool
    state: RunState | None
    """RUNNING, GONE and the like; None: it waits for the operator."""
    note: str
    """Why it has that state."""
    elsewhere: str = ""
    """Why only another host can run it now, "" when it is no matter of hosts."""

    @property
    def key(self) -> str:
        """What decisions about the row go by."""
        return self.fix.key

    @property
    def priority_text(self) -> str:
        """P1, or P1* when the operator said so."""
        return f"P{self.priority}{'*' if self.pinned else ''}"

    @property
    def run_note(self) -> str:
        """Why it cannot run here now, "" when it can."""
        return f"it waits for {self.fix.waits_for}" if self.fix.waits_for else self.elsewhere


class Triage(NamedTuple):
    """The rows to show, and what is not shown."""

    rows: tuple[TriageRow, ...]
    total: int
    """Fixes, snoozed ones included."""
    snoozed: int
    filtered: int
    """Rows that the filter hides."""


def triage(
    view: RepositoryView,
    decisions: Decisions,
    query: Query = EVERYTHING,
    order: TriageOrder = TriageOrder.PRIORITY,
    reverse: bool = False,
    show_snoozed: bool = False,
    marked: Mapping[str, Marked] | None = None,
) -> Triage:
    """What the home screen shows. ``marked``: what runs say of fixes, by key."""
    positions = {row.key: number for number, row in enumerate(queued_rows(view, decisions), 1)}
    hidden = decisions.hidden
    rows = [
        _row(row, decisions, positions.get(row.key, 0), marked or {})._replace(
            elsewhere=view.runs_elsewhere(row), snoozed=row.key in hidden
        )
        for row in view.fixes
    ]
    rows += not_offered(view, decisions, marked)
    awake = [row for row in rows if show_snoozed or not row.snoozed]
    passing = [row for row in awake if all(_passes(term, row, view) for term in query.terms)]
    passing.sort(key=_KEYS[order], reverse=reverse)
    snoozed = sum(row.snoozed for row in rows)
    return Triage(tuple(passing), len(rows), snoozed, len(awake) - len(passing))


def queued_rows(view: RepositoryView, decisions: Decisions) -> list[FixRow]:
    """The queued fixes that check offers now, in the order of the queue."""
    offered = {row.key: row for row in view.fixes}
    return [offered[item.key] for item in decisions.queue if item.key in offered]


def same_kind(rows: tuple[TriageRow, ...], row: TriageRow) -> list[FixRow]:
    """Fixes of the same type among the rows shown, in their order; none that loses data but ``row`` itself."""
    return [
        item.fix
        for item in rows
        if item.fix.type == row.fix.type and item.state is not RunState.GONE
        if not item.fix.loses_data or item.key == row.key
    ]


def _row(row: FixRow, decisions: Decisions, position: int, marked: Mapping[str, Marked]) -> TriageRow:
    pinned = decisions.priorities.get(row.key)
    mark = marked.get(row.key)
    return TriageRow(
        fix=row,
        priority=pinned or row.priority,
        pinned=pinned is not None,
        queued=position > 0,
        position=position,
        snoozed=False,
        state=mark.state if mark else None,
        note=mark.reason if mark else "",
    )


def not_offered(
    view: RepositoryView, decisions: Decisions, marked: Mapping[str, Marked] | None = None
) -> list[TriageRow]:
    """Queued fixes that check does not offer now: somebody works on the image, or they are not needed any more."""
    if not view.known:
        return []
    offered = {row.key for row in view.fixes}
    rows = []
    for item in decisions.queue:
        if item.key not in offered:
            mark = (marked or {}).get(item.key) or _absent(view, item)
            rows.append(_row(_ghost(view, item), decisions, 0, {item.key: mark})._replace(queued=True))
    return rows


def _absent(view: RepositoryView, item: Queued) -> Marked:
    image = view.image(item.target)
    if image is None:
        gone = f"{item.name} is not there any more" if item.target else "check does not find it any more"
        return Marked(RunState.GONE, gone)
    if image.busy:
        return Marked(RunState.RUNNING, image.busy)
    last = f"; last: {image.verb} by {image.host}" if image.verb else ""
    return Marked(RunState.GONE, f"{image.label} is {image.state.upper()} now{last}")


def _ghost(view: RepositoryView, item: Queued) -> FixRow:
    image = view.image(item.target)
    state = image.state if image else State.NONE
    return FixRow(
        key=item.key, id=item.fix_id, type=item.type, rule=item.rule, target=item.target, name=item.name, now=state,
        after=State.NONE, space_bytes=0, later_bytes=0, peak_bytes=0, io_bytes=0, time_s=None, exact=False,
        undo=Undo.STOP, can_run=False, waits_for="", needs_room=False, needs_srm=False, priority=4, why="",
        risk="", loses_data=False, images=(), depends_on=(), unlocks=(), dependants=0, deep=False, machine="", raw=b"",
    )  # fmt: skip


def _passes(term: Term, row: TriageRow, view: RepositoryView) -> bool:
    fix = row.fix
    if term.field == "status":
        return (fix.now in term.states) is not term.negated
    if term.field == "host":
        image = view.image(fix.target) if fix.target else None
        return term.passes(image.host.lower() if image else "")
    texts = {
        "type": fix.type,
        "rule": fix.rule,
        "name": fix.name,
        "pri": str(row.priority),
        "": f"{fix.label} {fix.target} {fix.id} {fix.type} {fix.rule} {code_of(fix.now)} {fix.why} {row.note}",
    }
    return term.passes(texts[term.field].lower())


def _by_priority(row: TriageRow) -> tuple[Any, ...]:
    time = row.fix.time_s
    return (row.priority, -row.fix.dependants, time is None, time or 0.0)


_KEYS: dict[TriageOrder, Callable[[TriageRow], Any]] = {
    TriageOrder.PRIORITY: _by_priority,
    TriageOrder.SPACE: lambda row: (row.fix.space_bytes, row.fix.type),
    TriageOrder.TIME: lambda row: (row.fix.time_s is None, row.fix.time_s or 0.0),
    TriageOrder.IMAGE: lambda row: row.fix.name.casefold(),
    TriageOrder.TYPE: lambda row: (row.fix.type, row.priority),
}
