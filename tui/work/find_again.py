"""The fix of a step as it is now: its own earlier steps may have changed what it was computed from."""

from __future__ import annotations

from engine.api import Engine
from engine.data.model import Fix, RepositoryReport
from engine.errors import ImageBusy, Refused, StaleFix
from tui.view.fixes import key_of
from tui.work.run_notes import RunNote, StepNote


def same_fix(engine: Engine, run: RunNote, step: StepNote) -> Fix:
    """The fix to run for a step: the planned one, or the same rule on the same target with the same plan when
    nothing but steps of this run has changed what it looks at.

    StaleFix when it is not offered any more; Refused when somebody else has changed something; ImageBusy."""
    report = engine.inspect_repository(run.repo_id, {"deep": True} if step.fix.deep else {})
    for fix in report.fixes:
        if fix.id == step.fix.id:
            return fix
    for fix in report.fixes:
        if key_of(fix) == step.key:
            foreign = _changed_by_others(step.fix, fix, _touched(run, step))
            if not foreign:
                return fix
            raise Refused(f"somebody else has changed {foreign} since the plan was made", "Plan again")
    raise _absent(report, step)


def _touched(run: RunNote, step: StepNote) -> set[str]:
    """Images that steps of this run have worked on, this one's earlier attempts included."""
    begun = [other for other in run.steps if other.attempts]
    return {image for other in begun for image in (other.fix.target, *other.fix.images)}


def _changed_by_others(planned: Fix, now: Fix, touched: set[str]) -> str:
    """The first thing the fix looks at that has changed, and not by this run; "" when there is none."""
    before = dict(planned.reads)
    for name, version in now.reads:
        _, _, subject = name.partition(":")
        if before.get(name) != version and subject not in touched:
            if name.startswith("dependants:") and _ours(before.get(name, ""), version, touched):
                continue
            return f"image {subject}" if name.startswith("tag:") else f"what depends on {subject}"
    return ""


def _ours(before: str, now: str, touched: set[str]) -> bool:
    """Whether the dependants that came or went are all images of this run."""
    return set(before.split(",")) ^ set(now.split(",")) <= touched


def _absent(report: RepositoryReport, step: StepNote) -> StaleFix | ImageBusy:
    for image in report.images:
        if image.busy and image.id in (step.fix.target, *step.fix.images):
            return ImageBusy(f"image {image.id} is in use: {image.busy}", "Wait for it")
    target = next((image for image in report.images if image.id == step.fix.target), None)
    if target is None:
        return StaleFix("it is not needed any more: what it was about is gone", "Look again")
    state = "removed" if target.removed else target.status
    last = f"; last: {target.operation.verb} by host {target.operation.host}" if target.operation else ""
    return StaleFix(f"it is not needed any more: the image is {state} now{last}", "Look again")
