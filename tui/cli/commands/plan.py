"""plan: which fixes would run in which order, and what would come of it."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Sequence

from engine.data.amounts import human
from engine.errors import DiskwrightError
from tui.cli.arguments import Parser
from tui.cli.fixes import Names, called, change, names_in, space
from tui.cli.render import Output
from tui.cli.selection import Choice, add_selectors, chosen, selection
from tui.cli.session import Handler, Session
from tui.notes import Notes, notes_of
from tui.text.amounts import compact
from tui.text.printable import printable, quoted
from tui.text.statuses import SHOWN, State
from tui.view import estimates
from tui.view.fixes import FixRow
from tui.view.fixes import row as fix_row
from tui.view.gather import gather
from tui.view.plan import Plan, Skipped, Step, make, validity
from tui.view.snapshot import RepositoryView
from tui.work import plans
from tui.work.config import load as load_config


def add_plan(parser: Parser) -> None:
    add_selectors(parser)


def run_plan(session: Session, arguments: argparse.Namespace) -> int:
    view = gather(session.engine, arguments.repo, arguments.deep)
    choice = chosen(arguments, [row.fix() for row in view.fixes], everything=True)
    return show(session, arguments, view, choice)


def show(session: Session, arguments: argparse.Namespace, view: RepositoryView, choice: Choice) -> int:
    """Make the plan, keep it, and print it."""
    notes = notes_of(session.engine)
    plan = _make(notes, view, choice)
    runnable = plan.runnable and validity(plan, view).valid and _kept(notes, plan)
    out = session.out
    out.document(plans.document(plan))
    if out.json_wanted:
        return 0
    names = names_in([step.row for step in plan.steps] + [item.row for item in plan.skipped])
    if plan.refused:
        out.prose(f"REFUSED   {printable(plan.refused)}.", 10)
    ids = out.short([step.row.id for step in plan.steps] + [item.row.id for item in plan.skipped])
    for step in plan.steps:
        _print_step(out, step, ids[step.row.id], names)
    if plan.steps:
        _print_outcome(out, plan)
    else:
        _print_told(out, "live", plan.live)
    for item in plan.skipped:
        row = item.row
        out.prose(
            f"skipped   {ids[row.id]}  {row.type} {row.rule} {called(names, row.target)}: {printable(item.why)}", 10
        )
        if row.needs_room and plan.free_after > row.peak_bytes:
            out.line("          It may fit after the steps above; fix --all looks again by itself.")
    if not plan.steps and not plan.skipped:
        out.line("Nothing can be done now." if plan.live else "Nothing to do.")
    elif plan.steps and not plan.refused:
        out.line(f"Next: diskwright fix {quoted(arguments.repo)} {selection(arguments)}")
    if runnable:
        words = f"{quoted(arguments.repo)} --plan {plan.id[:8]}{_flag(bool(plan.never))}"
        out.line(f"Exactly these steps: diskwright fix {words}")
    return 0


def _flag(irreversible: bool) -> str:
    return " --irreversible" if irreversible else ""


def _make(notes: Notes, view: RepositoryView, choice: Choice) -> Plan:
    """The plan for a choice. What was not named one by one and does not fit is left out, not a reason to refuse."""
    config = load_config()
    times = estimates.load(notes, view.identity)
    known = {row.id: row for row in view.fixes}
    rows: list[FixRow] = []
    skipped: list[Skipped] = []
    for fix in choice.of([row.fix() for row in view.fixes]):
        row = known.get(fix.id) or fix_row(fix, "", 0)
        why = choice.skipped(fix)
        if why and not row.needs_room:
            skipped.append(Skipped(row, why))
        else:
            rows.append(row)
    while True:
        plan = make(view, rows, times, time.time(), config.reserve_share)
        stuck = next((row for row in rows if row.key == plan.stuck), None)
        if stuck is None or not choice.by_kind:
            return plan._replace(skipped=(*skipped, *plan.skipped))
        rows.remove(stuck)
        skipped.append(Skipped(stuck, f"it needs {_room(plan, stuck)}"))


def _room(plan: Plan, row: FixRow) -> str:
    missing = compact(plan.missing_bytes)
    return f"{compact(row.peak_bytes)} with {compact(plan.reserve_bytes)} kept free: {missing} are missing"


def _kept(notes: Notes, plan: Plan) -> bool:
    """Whether the plan could be kept: a host whose notes cannot be written can still look."""
    with contextlib.suppress(DiskwrightError):
        plans.save(notes, plan)
        return True
    return False


def _print_step(out: Output, step: Step, shown: str, names: Names) -> None:
    row = step.row
    fix = row.fix()
    out.line(f"{step.number:3d}. {shown}  {row.type} {row.rule}  {called(names, row.target)}")
    room = "" if step.lowest >= 0 else "  does not fit"
    time_left = f"   time: {step.time.text}" if step.time.known else ""
    needs = f"   needs: {step.needs}" if step.needs != "-" else ""
    out.prose(
        f"     {change(out, fix, False)}   space: {space(fix)}   free afterwards: {compact(step.free_after)}{room}"
        f"   {row.risk}{time_left}{needs}",
        5,
    )
    out.prose(f"     {row.why}", 5)


def _print_told(out: Output, label: str, texts: Sequence[str]) -> None:
    for text in texts:
        out.prose(f"{label:<9} {printable(text)}", 10)


def _print_outcome(out: Output, plan: Plan) -> None:
    for text in plan.moved:
        out.prose(f"moved     {text}", 10)
    states = [
        f"{out.status(state, usable=False)} {plan.counts_before.of(state)} {out.arrow} {plan.counts_after.of(state)}"
        for state in SHOWN
        if plan.counts_before.of(state) != plan.counts_after.of(state) and state is not State.UNKNOWN
    ]
    if states:
        out.line(f"status    {', '.join(states)}")
    out.prose(
        f"Free space: {human(plan.free_before)} now, {human(max(plan.lowest_free, 0))} at the lowest point, "
        f"{human(max(plan.free_after, 0))} afterwards (estimates)."
    )
    out.line(f"time      {f'{plan.time.text} ({plan.time.source})' if plan.time.known else plan.time.source}")
    for label, texts in (("live", plan.live), ("left", plan.left), ("never", plan.never)):
        _print_told(out, label, texts)
    if plan.refused:
        for offer in plan.offers:
            out.line(
                f"offer     {printable(offer.text)}: diskwright fix {quoted(plan.repo_id)} {offer.row.id}"
                f"{_flag(offer.row.irreversible)}"
            )


HANDLERS = {
    "plan": Handler(add_plan, run_plan),
}
