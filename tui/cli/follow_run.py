"""Following a run of a plan: what its own process persisted, told step by step. Ctrl-C ends the following only."""

from __future__ import annotations

import time
from typing import Any

from tui.cli.follow import INTERRUPTED, Bar, exit_code
from tui.cli.session import Session
from tui.notes import Notes
from tui.text.amounts import compact, duration
from tui.text.printable import cut, printable, quoted
from tui.text.words import RunState, doing
from tui.view.plan import Plan
from tui.work import runs
from tui.work.runs import Run, RunStep

_LOOK_S = 0.1
_NAME_COLUMNS = 20
_BAD = (RunState.FAILED, RunState.REJECTED, RunState.STOPPED, RunState.WAITING)


def run_plan(session: Session, notes: Notes, plan: Plan, wait: bool) -> int:
    """Start a run of ``plan``, whose operator allowed what cannot be undone, and, with ``wait``, follow it to its end.
    The exit code is that of the first failure."""
    run_id = runs.start(session.engine, notes, plan, irreversible=bool(plan.never))
    name = quoted(plan.repo_id)
    if not wait:
        session.out.document({"repository": plan.repo_id, "plan": plan.id, "run": run_id, "steps": len(plan.steps)})
        session.out.say(f"Started plan {plan.short} with {len(plan.steps)} steps. Look: diskwright tasks")
        return 0
    try:
        run = _follow(session, notes, plan, run_id)
    except KeyboardInterrupt:
        session.out.document({"repository": plan.repo_id, "plan": plan.id, "run": run_id, "detached": True})
        session.out.say(f"Detached; the plan goes on. Look: diskwright check {name}")
        return INTERRUPTED
    session.followed(run_id)
    session.out.document(document(run))
    session.out.line(f"{run.state}: {run.reason}.")
    failed = [step for step in run.steps if step.state in _BAD]
    for step in failed:
        what = f"{doing(step.rule, step.type)} {step.name}"
        session.out.line(f"{step.state.lower():<9} {step.number}. {what}: {printable(step.reason)}")
    coded = [step.code for step in failed if step.state in (RunState.FAILED, RunState.REJECTED)]
    if run.state is RunState.STOPPED:
        return exit_code("stopped")
    return exit_code(coded[0]) if coded else 0 if run.state is RunState.DONE else 1


def _follow(session: Session, notes: Notes, plan: Plan, run_id: str) -> Run:
    told: dict[int, RunState] = {}
    slow: set[int] = set()
    """Steps of which it was told that they do not come on."""
    bar = Bar()
    try:
        while True:
            run = runs.get_run(notes, plan.repository, run_id)
            for step in run.steps:
                if told.get(step.number, RunState.WAITING) is not step.state:
                    told[step.number] = step.state
                    bar.clear()
                    _tell(session, step)
            if not run.alive:
                return run
            if run.current is not None:
                if run.current.pace and run.current.number not in slow:
                    slow.add(run.current.number)
                    bar.clear()
                    session.out.say(f"{'slow':<9} {run.current.number}. {run.current.pace}")
                _show(bar, run.current)
            time.sleep(_LOOK_S)
    finally:
        bar.clear()


def _tell(session: Session, step: RunStep) -> None:
    reason = f": {printable(step.reason)}" if step.reason and step.state is not RunState.DONE else ""
    spent = f" in {duration(step.ended - step.started)}" if step.ended and step.started else ""
    space = f", {step.space}" if step.space else ""
    session.out.say(
        f"{step.state.lower():<9} {step.number}. {doing(step.rule, step.type)} {step.name}{spent}{space}{reason}"
    )


def _show(bar: Bar, step: RunStep) -> None:
    label = f"{step.number}. {doing(step.rule, step.type)} {cut(step.name, _NAME_COLUMNS)}"
    stage = f"  {step.stage}/{step.stages}" if step.stages else ""
    if stage and not bar.narrow:
        stage += f" {step.stage_name}"
    if step.percent < 0:
        bar.show(f"{label}{stage}")
        return
    rate = f"  {compact(int(step.rate))}/s" if step.rate else ""
    left = f"  {step.left.text} left" if step.left.known else ""
    bar.show(f"{label}{stage}  {bar.cells(step.percent)} {step.percent:3d} %{rate}{left}")


def document(run: Run) -> dict[str, Any]:
    """A run as JSON data."""
    return {
        "repository": run.repo_id,
        "plan": run.plan_id,
        "run": run.id,
        "state": str(run.state),
        "summary": run.reason,
        "steps": [
            {
                "step": step.number,
                "type": step.type,
                "rule": step.rule,
                "image": step.target,
                "name": step.name,
                "state": str(step.state),
                "reason": step.reason,
                "code": step.code,
                "attempts": step.attempts,
                "seconds": step.seconds(run.ended or run.saved_at),
                "freed_bytes": step.freed_bytes,
                "taken_bytes": step.taken_bytes,
            }
            for step in run.steps
        ],
    }
