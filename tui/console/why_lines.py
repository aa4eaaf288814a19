"""The reason of a status or a fix as lines of a pane."""

from __future__ import annotations

from tui.console.lines import Span
from tui.console.signs import Signs
from tui.console.widgets.pane import Item, Paragraph
from tui.model.snapshot import RepositoryView
from tui.model.triage import TriageRow
from tui.model.why import Explanation, explain, explain_fix


def of_fix(view: RepositoryView, row: TriageRow, signs: Signs, now: float) -> list[Item]:
    """Why a fix is offered, or why it is gone."""
    if not row.fix.raw:
        lines: list[Item] = [(Span(row.fix.label, "title"),), Paragraph("State", row.note or str(row.state))]
        found = explain(view, row.fix.target, now) if row.fix.target else None
        return lines + (body(found) if found is not None else [])
    lines = of(explain_fix(view, row.fix, now), signs)
    if row.note:
        lines.insert(2, Paragraph("Run", f"{row.state}: {row.note}"))
    if row.run_note:
        lines.insert(2, Paragraph("Waits", Span(row.run_note, "warning")))
    return lines


def of_image(view: RepositoryView, image: str, signs: Signs, now: float) -> list[Item]:
    """Why an image is as it is."""
    found = explain(view, image, now)
    return of(found, signs) if found is not None else []


def of(found: Explanation, signs: Signs) -> list[Item]:
    """An explanation without its facts, the title with sign and word first."""
    return [*title(found, signs), *body(found)]


def title(found: Explanation, signs: Signs) -> list[Item]:
    """What it is about, its status and what that means."""
    lines: list[Item] = [(Span(found.title, "title"),)]
    if found.state:
        lines.append(signs.word(found.state.value))
    return lines


def body(found: Explanation) -> list[Item]:
    """The labelled sentences."""
    return [Paragraph(item.label, item.text) for item in found.lines]
