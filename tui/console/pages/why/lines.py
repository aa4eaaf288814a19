"""The reason of a status or a fix as lines of a pane."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from tui.console.draw.lines import Line, Span, plain
from tui.console.draw.signs import Signs
from tui.console.widgets.pane import Item, Paragraph
from tui.text.amounts import moment
from tui.text.rules import EVERY
from tui.text.rules import lines as of_rule
from tui.text.words import RunState
from tui.view.snapshot import RepositoryView
from tui.view.why import Explanation, explain, explain_fix
from tui.work.journal import Chronicle, Event
from tui.work.triage import TriageRow

_OTHERS = 4
_OF_RULE = ("Means", "Does", "Risk", "Needs", "If not")


def of_fix(view: RepositoryView, row: TriageRow, signs: Signs, now: float, columns: int) -> list[Item]:
    """Why a fix is offered, or why it is gone."""
    if not row.fix.raw:
        lines: list[Item] = [
            Paragraph("", Span(row.fix.label, "title")),
            Paragraph("Gone" if row.state is RunState.GONE else "Run", row.note or str(row.state)),
        ]
        found = explain(view, row.fix.target, now) if row.fix.target else None
        return lines + (body(found) if found is not None else [])
    explained = explain_fix(view, row.fix, now)
    lines = title(explained, signs, columns)
    if row.run_note:
        lines.append(Paragraph("Waits", Span(row.run_note, "warning")))
    if row.note:
        lines.append(Paragraph("Run", f"{row.state}: {row.note}"))
    return lines + body(explained)


def of_image(view: RepositoryView, image: str, signs: Signs, now: float, columns: int) -> list[Item]:
    """Why an image is as it is."""
    found = explain(view, image, now)
    return [*title(found, signs, columns), *body(found)] if found is not None else []


def of_group(known: Chronicle | None, image: str) -> list[Item]:
    """With which snapshots one is of one moment, as far as this host made them."""
    others = known.of_one_moment(image) if known is not None and image else ()
    if not others:
        return []
    told = ", ".join(f"{one.made[:8]} of {one.name or one.image[:8]}" for one in others[:_OTHERS])
    more = f" and {len(others) - _OTHERS} more" if len(others) > _OTHERS else ""
    return [Paragraph("Group", f"of one moment with {told}{more}")]


def of(found: Explanation, signs: Signs) -> list[Item]:
    """An explanation without its facts, the title with sign and word first."""
    return [*title(found, signs), *body(found)]


def beyond(facts: str, rule: str, events: Sequence[Event], most: int) -> list[Item]:
    """What a tall screen has room for below the reason: what the rule saw, what happened last, what it is about."""
    lines: list[Item] = [Paragraph("Facts", facts)] if facts else []
    if events:
        last = [Paragraph("", f"{moment(one.when)}  {one.host}  {one.kind}: {one.text}") for one in events[-most:]]
        lines += [(), (Span("What happened last", "head"),), *last]
    if rule in EVERY:
        told = [Paragraph(label, text) for label, text in of_rule(EVERY[rule]) if label in _OF_RULE]
        lines += [(), (Span(f"Rule {rule}", "head"),), *told]
    return lines


def title(found: Explanation, signs: Signs, columns: int = 0) -> list[Item]:
    """What it is about, its status and what that means; in one line, with the first digits of the id, where
    ``columns`` are enough for that."""
    whole = Paragraph("", Span(found.title, "title"))
    if not found.state:
        return [whole]
    state = signs.word(found.state.value, found.meaning)
    brief = found.title.replace(found.image, found.image[:8]) if found.image else found.title
    one: Line = (Span(f"{brief}  ", "title"), *state)
    if cell_len(plain(one)) <= columns:
        return [one]
    first = whole if not 0 < columns < cell_len(found.title) else Paragraph("", Span(brief, "title"))
    return [first, Paragraph("", state)]


def body(found: Explanation) -> list[Item]:
    """The labelled sentences."""
    return [Paragraph(item.label, item.text) for item in found.lines]
