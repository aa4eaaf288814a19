"""Why an image or a fix is as it is: the same sentences on the screen and from ``diskwright why``."""

from __future__ import annotations

from typing import NamedTuple

from engine.triage import rules
from tui.text.amounts import compact, duration, moment
from tui.text.statuses import LOOKS, State
from tui.text.words import OLD_AFTER_S
from tui.view.facts import Fact, grounded
from tui.view.fixes import FixRow
from tui.view.images import ImageRow
from tui.view.machines import MachineRow, beside, of_use
from tui.view.snapshot import RepositoryView

_LABEL_WIDTH = 7


class Line(NamedTuple):
    """A labelled sentence. Texts are printable."""

    label: str
    """State, Why, Impact, Action, Live, After, Later, Note or Lost; of what is prepared also those of ``of_use``."""
    text: str


class Explanation(NamedTuple):
    """Everything that is known about one thing."""

    image: str
    """"" for the repository itself."""
    title: str
    state: State
    lines: tuple[Line, ...]
    facts: tuple[Fact, ...]
    fixes: tuple[FixRow, ...]
    """What can be done, the most useful first."""
    running: str = ""
    """That somebody works on it, "" when nobody does."""

    @property
    def meaning(self) -> str:
        """What can be done with an image in that state, and that it is being worked on."""
        meaning = LOOKS[self.state].meaning
        if not self.running:
            return meaning
        return f"{self.running}, {'cannot be used before that is done' if self.state is State.BROKEN else meaning}"

    @property
    def head(self) -> str:
        """The title with the state and what that means."""
        return f"{self.title}  {self.state.upper()} - {self.meaning}" if self.meaning else self.title

    def text(self) -> list[str]:
        """All of it as lines of plain text."""
        lines = [self.head]
        lines += [f"{line.label:<{_LABEL_WIDTH}}{line.text}" for line in self.lines]
        for number, fact in enumerate(self.facts, 1):
            label = "Facts" if number == 1 else ""
            lines.append(f"{label:<{_LABEL_WIDTH}}{number} {fact.line}")
        return lines


def explain(view: RepositoryView, image: str, now: float, facts: tuple[Fact, ...] = ()) -> Explanation | None:
    """Why an image is as it is, from the view; None when it is not in it.

    ``facts``: evidence that was read beside it (``facts.facts_of``); the rule's own comes first."""
    row = view.image(image)
    if row is None:
        return None
    fixes = _useful(view.fixes_of(image))
    rule_facts = (grounded(Fact("rule", row.facts), facts),) if row.facts else ()
    lines = [
        Line("State", _state(row, now)),
        Line("Why", f"{row.reason}{f'; rule {row.rule}' if row.rule else ''}"),
        Line("Impact", _impact(row)),
        *_actions(row, fixes, view.machines_of(image)),
        *_later(view, row, fixes),
    ]
    for machine in view.machines_of(image):
        lines += [Line(label, text) for label, text in of_use(machine)]
    if row.remarks:
        lines.append(Line("Note", row.remarks))
    if row.lost:
        lines.append(Line("Lost", f"{compact(row.lost)} are known to be gone and read as zeros"))
    title = f"{row.name}  {row.id}" if row.name else row.id
    return Explanation(image, title, row.state, tuple(lines), (*rule_facts, *facts), fixes, row.running)


def explain_fix(view: RepositoryView, row: FixRow, now: float, facts: tuple[Fact, ...] = ()) -> Explanation:
    """Why a fix is offered: by its image where it has one that is shown, else by itself."""
    found = explain(view, row.target, now, facts) if row.target else None
    if found is not None:
        ordered = (row, *(fix for fix in found.fixes if fix.key != row.key))
        return found._replace(fixes=ordered)
    lines = (
        Line("State", f"{row.name}: data that no image shows" if row.target else "the repository itself"),
        Line("Why", f"{row.why}; rule {row.rule}"),
        Line("Impact", f"It holds {compact(-row.space_bytes)}" if row.space_bytes < 0 else "It only takes up room"),
        Line("Action", _action(row)),
        *_beside(row),
        Line("After", _after(row)),
    )
    raw = tuple(Fact("rule", text) for text in _facts_of(row))
    return Explanation("", row.label, State.NONE, lines, (*raw, *facts), (row,))


def _facts_of(row: FixRow) -> tuple[str, ...]:
    from tui.text.printable import printable

    return tuple(printable(text) for text in row.fix().facts) if row.raw else ()


def _useful(rows: tuple[FixRow, ...]) -> tuple[FixRow, ...]:
    return tuple(sorted(rows, key=lambda row: (row.priority, row.loses_data, not row.can_run)))


def _state(row: ImageRow, now: float) -> str:
    if row.busy:
        return f"in progress: {row.busy}"
    if not row.verb:
        return "no operation is recorded"
    stage = f", stage {row.stage}/{row.stages} {row.stage_name}" if row.stages else ""
    share = f", {row.percent} %" if row.percent >= 0 else ""
    unfinished = row.state is State.BROKEN or row.ending
    old = ", OLD" if unfinished and now - row.when > OLD_AFTER_S else ""
    ending = f"; {row.ending}" if row.ending else ""
    return f"{row.verb}{stage}{share} (saved {moment(row.when)} by {row.host}{old}){ending}"


def _impact(row: ImageRow) -> str:
    need = {0: "no other image needs it", 1: "1 image needs it"}.get(row.dependants, f"{row.dependants} images need it")
    impact = "Its deletion has begun: it cannot be restored" if row.rule == rules.B_PURGING else LOOKS[row.state].impact
    return f"{impact}; {need}"


def _actions(row: ImageRow, fixes: tuple[FixRow, ...], prepared: tuple[MachineRow, ...]) -> list[Line]:
    if row.busy and prepared and not fixes:
        return [Line("Action", prepared_action(prepared))]
    if row.busy and not prepared:  # else what is offered can be done beside the machine
        return [Line("Action", "Wait: somebody works on it")]
    if not fixes:
        return [Line("Action", _without_fix(row))]
    lines = []
    for fix in fixes[:1]:
        lines += [Line("Action", _action(fix, row.reason)), *_beside(fix), Line("After", _after(fix))]
    return lines


def prepared_action(prepared: tuple[MachineRow, ...]) -> str:
    """What can be done to an image that is prepared here, and that somebody has therefore."""
    if any(machine.monitor for machine in prepared):
        return "None: it is prepared here; snapshots, copies and merges go on beside its machine"
    return "None: it is prepared here; what is to be done to it waits for a teardown, or for attach to tell its monitor"


def _without_fix(row: ImageRow) -> str:
    if row.state is State.OPTIMIZED:
        return "None is needed"
    if row.rule in (rules.B_BASE, rules.U_BASE):
        return "Mend the image that it needs; nothing is to be done here"
    if row.state is State.UNKNOWN:
        return "Make the storage readable, then look again"
    if row.state is State.REMOVED:
        return "It can be restored; check offers no clean fix for it now"
    return "No fix is known here. Connect a repository that has it, or remove it"


def _action(fix: FixRow, reason: str = "") -> str:
    """What the fix does, without the ``reason`` that was told already."""
    why = fix.why.removeprefix(reason).lstrip("; ") if reason else fix.why
    wait = f"it waits for {fix.waits_for}" if fix.waits_for and fix.waits_for not in fix.why else ""
    about = "; ".join(part for part in (why, wait) if part)
    return f"{fix.type} ({fix.rule}, fix {fix.id}){f': {about}' if about else ''}"


def _beside(fix: FixRow) -> list[Line]:
    return [Line("Live", beside(fix))] if fix.machine else []


def _after(fix: FixRow) -> str:
    words = [fix.after.upper() if fix.after is not State.NONE else "no status changes"]
    if meaning := LOOKS[fix.after].meaning:
        words[0] += f" ({meaning.partition(',')[0]})"
    if fix.space_bytes:
        words.append(
            f"takes {compact(fix.space_bytes)}" if fix.space_bytes > 0 else f"frees {compact(-fix.space_bytes)}"
        )
    words.append("time unknown (nothing like it was measured here)" if fix.time_s is None else _about(fix.time_s))
    words.append("it cannot be undone" if fix.undo == "never" else "it can be stopped, and loses nothing")
    return ", ".join(words)


def _about(seconds: float) -> str:
    return f"about {duration(seconds)}"


def _later(view: RepositoryView, row: ImageRow, fixes: tuple[FixRow, ...]) -> list[Line]:
    """What else could follow, and what would have to be so for the image to be optimized."""
    lines = []
    for fix in fixes[1:4]:
        lines.append(Line("Later", f"{_action(fix)}: {_after(fix)}"))
    if fixes and fixes[0].unlocks:
        names = [other.what for other in view.fixes if other.id in fixes[0].unlocks]
        lines.append(Line("Later", f"then possible: {', '.join(names[:5])}"))
    counterfactual = _would_be(row, fixes)
    return [*lines, Line("Later", counterfactual)] if counterfactual else lines


def _would_be(row: ImageRow, fixes: tuple[FixRow, ...]) -> str:
    if row.state in (State.OPTIMIZED, State.REMOVED):
        return ""
    best = next((fix for fix in fixes if fix.after is State.OPTIMIZED), None)
    if best is not None:
        condition = f"{best.waits_for} were there and {best.type} ran" if best.waits_for else f"{best.type} ran"
        return f"it would be OPTIMIZED if {condition}"
    if row.rule in (rules.B_BASE, rules.U_BASE):
        return "it would be judged by itself again if the image that it needs were in order"
    return ""
