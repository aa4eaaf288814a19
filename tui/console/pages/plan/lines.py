"""A plan as lines: the strip of Triage, the pane below the table, the outcome of the plan page."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from tui.console.draw import charts
from tui.console.draw.lines import Line, Span, fit, line, wrap
from tui.console.draw.signs import Signs
from tui.console.widgets.pane import Item, Paragraph
from tui.text.amounts import compact, difference, duration
from tui.text.statuses import SHOWN
from tui.text.words import Undo
from tui.view.plan import Plan, Step
from tui.view.snapshot import Counts
from tui.work.triage import TriageRow

_EMPTY = "Plan is empty. space queues the fix under the cursor."
_CURVE_COLUMNS = 24
_LABEL_COLUMNS = 8
_STEP_COLUMNS = 8
"""Half a step is at most so wide."""
_STEP_ROWS = 5
"""Of the pane below the table."""
_BESIDE_NAME = 25
"""Number, free space, time and undo of a step."""
_LEAST_ROWS, _MOST_ROWS = 4, 12


def strip(plan: Plan | None, signs: Signs, queued: int) -> Line:
    """One line: how many fixes, what becomes of the broken ones, free space and its lowest point, time. ``queued``:
    how many fixes are, those that check does not offer now too."""
    if plan is None:
        return (Span(f" {why_empty(queued)}", "quiet"),)
    number = len(plan.steps)
    head = Span(f" Plan {number} {_fixes(number)}  ", "title")
    if plan.refused:
        return (
            head,
            Span(f"does not fit: {compact(plan.missing_bytes)} missing", "warning"),
            Span("  p tells more", "quiet"),
        )
    if not number:
        return (head, Span("none of them can run now", "warning"), Span("  p tells why", "quiet"))
    before, after = plan.counts_before, plan.counts_after
    change = Span(f"{signs.sign('broken')} BRK {before.broken}{signs.arrow}{after.broken}", "broken")
    free = f"  free {compact(plan.free_before)}{signs.arrow}{compact(plan.free_after)}"
    low = f" (low {compact(plan.lowest_free)} at #{plan.lowest_at})" if plan.lowest_at else ""
    return (head, change, Span(f"{free}{low}  {plan.time.text}"), Span("  p preview", "quiet"))


def why_empty(queued: int) -> str:
    """Return why there is no plan."""
    if not queued:
        return _EMPTY
    none = "The queued fix is not" if queued == 1 else f"None of the {queued} queued fixes is"
    return f"{none} offered now; NOW / AFTER tells what became of it."


def title(plan: Plan | None) -> str:
    """The title of the pane."""
    return f"Plan {plan.short}   {len(plan.steps)} {_fixes(len(plan.steps))}" if plan is not None else "Plan"


def brief(plan: Plan | None, signs: Signs, columns: int, queued: int) -> list[Item]:
    """The steps and the outcome in short, for the pane below the table; ``queued`` as for ``strip``."""
    if plan is None:
        return [Paragraph("", Span(why_empty(queued), "quiet"))]
    lines: list[Item] = [*_steps(plan, columns, signs.ellipsis)]
    lines.append(())
    lines += problems(plan)
    lines.append(counts(plan.counts_before, plan.counts_after, signs, only_changed=True))
    lines.append(line(f"free {curve(plan, signs)}"))
    lines.append(line(f"time {plan.time.text}"))
    return lines


def _steps(plan: Plan, columns: int, ellipsis: str) -> list[Line]:
    """Heads and as many steps as there is room for; one whose name is long takes two lines."""
    kind = max((len(step.row.type) for step in plan.steps), default=0)
    name = max(8, columns - kind - _BESIDE_NAME)
    heads = f" # {'FIX':<{kind}} {'IMAGE':<{name}} {'FREE':>6} {'TIME':>7} UNDO"
    rows: list[Line] = []
    for index, step in enumerate(plan.steps):
        made = _brief(step, kind, name, columns, ellipsis)
        left = len(plan.steps) - index
        if len(rows) + len(made) + (left > 1) > _STEP_ROWS:
            rows.append((Span(f"and {left} more", "quiet"),))
            break
        rows += made
    return [(Span(heads, "head"),), *rows] if rows else []


def _brief(step: Step, kind: int, name: int, columns: int, ellipsis: str) -> list[Line]:
    row = step.row
    head = Span(f"{step.number:>2} {row.type:<{kind}} ")
    tail = (
        Span(f" {compact(step.free_after):>6} {step.time.text:>7} "),
        Span(f"{row.undo!s:<5}", "warning" if row.undo is Undo.NEVER else "quiet"),
    )
    if cell_len(row.short) <= name:
        return [(head, *fit(Span(row.short), name, ellipsis), *tail)]
    whole = line(head, *fit(Span(row.short), columns - kind - 4, ellipsis))
    return [whole, (Span(" " * (name + kind + 4)), *tail)]


def problems(plan: Plan) -> list[Item]:
    """What stands against it: too little room, fixes that cannot run, what would help."""
    lines: list[Item] = []
    if plan.refused:
        lines.append(Paragraph("Refused", Span(f"{plan.refused}.", "warning")))
    lines += [Paragraph("Offer", f"{offer.text}.  a adds it.") for offer in plan.offers]
    lines += [Paragraph("Not in", f"{item.row.what}: {item.why}.") for item in plan.skipped]
    return lines


def outcome(plan: Plan, gone: Sequence[TriageRow], signs: Signs, columns: int, rows: int) -> list[Item]:
    """What the repository will be, and at what price, with a picture of its free space; in ``rows`` lines, if they
    are enough. ``gone``: what is queued and is no step, because check does not offer it now."""
    lines: list[Item] = [
        Paragraph(str(row.state).capitalize(), Span(f"{row.fix.what}: {row.note}.", "warning")) for row in gone
    ]
    lines += _outcome(plan, signs)
    if plan.steps:
        room = rows - sum(_rows(item, columns) for item in lines)
        lines += picture(plan, signs, columns, max(_LEAST_ROWS, min(_MOST_ROWS, room - 4)))
        if rows - sum(_rows(item, columns) for item in lines) > len(plan.steps):
            lines += [
                (),
                *(Paragraph(f"Step {step.number}", f"{step.row.what}: {step.row.why}.") for step in plan.steps),
            ]
    return lines


def _rows(item: Item, columns: int) -> int:
    if not isinstance(item, Paragraph):
        return 1
    return len(wrap(item[1], max(10, columns - _LABEL_COLUMNS)))


def picture(plan: Plan, signs: Signs, columns: int, rows: int) -> list[Item]:
    """Free space before the plan, then at its lowest and at the end of each step; the reserve where that is near."""
    points = plan.curve()
    on = charts.scale(points, rows, plan.reserve_bytes)
    margin = charts.margin_of(on, compact)
    each = max(1, min(_STEP_COLUMNS, (columns - margin - 3) // len(points)))
    width = min(columns - margin - 3, each * len(points))
    shown = [points[column * len(points) // width] for column in range(width)]
    lines: list[Item] = [(), (Span("Free space over the plan", "head"), *_reserve(plan, on, signs))]
    lines += charts.area(shown, rows, signs, on, compact)
    marks = {0: "now"} | {(2 * step.number - 1) * width // len(points): str(step.number) for step in plan.steps}
    lines.append(charts.axis(marks, width, margin, signs))
    if plan.lowest_at:
        place = (2 * plan.lowest_at - 1) * width // len(points)
        words = f"{'▲' if signs.unicode else '^'} lowest: {compact(plan.lowest_free)} in step {plan.lowest_at}"
        lines.append(
            (Span(" " * (margin + 2 + max(0, min(place, columns - margin - 2 - len(words))))), Span(words, "warning"))
        )
    return lines


def _reserve(plan: Plan, on: charts.Scale, signs: Signs) -> Line:
    if not plan.reserve_bytes:
        return ()
    reserve = compact(plan.reserve_bytes)
    if on.floor < 0:
        where = "below" if max(plan.curve()) > plan.reserve_bytes else "above"
        return (Span(f"   the reserve of {reserve} is far {where}", "quiet"),)
    return (Span(f"   {signs.room * 2} up to the reserve of {reserve}, which is kept", "quiet"),)


def _outcome(plan: Plan, signs: Signs) -> list[Item]:
    lines: list[Item] = problems(plan)
    lines.append(Paragraph("Status", counts(plan.counts_before, plan.counts_after, signs)))
    low = f"lowest {compact(plan.lowest_free)}, " + (f"in step {plan.lowest_at}" if plan.lowest_at else "before step 1")
    lines.append(
        Paragraph(
            "Space",
            f"free {compact(plan.free_before)} {signs.arrow} {compact(plan.free_after)}"
            f"{difference(plan.free_before, plan.free_after)}   {low}   "
            f"reserve {compact(plan.reserve_bytes)} kept",
        )
    )
    lines.append(Paragraph("Time", time(plan)))
    lines += [Paragraph("Moved", f"{text.rstrip('.')}.") for text in plan.moved]
    lines += [Paragraph("Live", text) for text in plan.live]
    if plan.left:
        lines += [Paragraph("Left", text) for text in plan.left]
    else:
        lines.append(Paragraph("Left", "nothing is broken afterwards"))
    lines += [Paragraph("Never", Span(text, "warning")) for text in plan.never]
    return lines


def counts(before: Counts, after: Counts, signs: Signs, only_changed: bool = False) -> Line:
    """How many images have which status, before and after."""
    spans: list[Span] = []
    for state in SHOWN:
        old, new = before.of(state), after.of(state)
        if (only_changed and old == new) or (not old and not new):
            continue
        spans += [signs.short(state.value), Span(f" {old} {signs.arrow} {new}    ")]
    return tuple(spans) or (Span("no status changes", "quiet"),)


def curve(plan: Plan, signs: Signs) -> str:
    """Free space over the plan."""
    points = plan.curve()
    low = charts.scale(points, len(signs.levels), plan.reserve_bytes).low
    curve = signs.curve(points, _CURVE_COLUMNS, low)
    return f"{compact(points[0])} {curve} {compact(points[-1])}{difference(points[0], points[-1])}"


def time(plan: Plan) -> str:
    """The range with where it is from."""
    found = plan.time
    if found.low_s is None or found.high_s is None:
        return found.source
    low, high = duration(found.low_s), duration(found.high_s)
    said = f"   ({found.source})" if found.source else ""
    return f"{low if low == high else f'{low} to {high}'}{said}"


def _fixes(number: int) -> str:
    return "fix" if number == 1 else "fixes"
