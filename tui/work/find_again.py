"""The fix of a step as it is now: its own earlier steps may have changed what it was computed from.

Decides from what the engine found by its one look; looks itself only for what to say of a fix that is gone."""

from __future__ import annotations

from engine.api import Engine
from engine.data.model import Fix
from engine.errors import Refused, StaleFix
from engine.survey import survey
from engine.triage.judge import judge
from tui.work.run_notes import RunNote, StepNote


def require_ours(run: RunNote, step: StepNote, now: Fix) -> None:
    """Raise Refused unless nothing but steps of this run has changed what the planned fix looks at; ``now`` is the
    same fix as it is now."""
    if now.id == step.fix.id:
        return
    foreign = _changed_by_others(step.fix, now, _touched(run))
    if foreign:
        raise Refused(f"somebody else has changed {foreign} since the plan was made", "Plan again")


def _touched(run: RunNote) -> set[str]:
    """Images that steps of this run have worked on, earlier attempts included."""
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


def why_gone(engine: Engine, run: RunNote, step: StepNote) -> StaleFix:
    """Return the error for a step whose fix is not offered any more: what its image is now, and who worked on it."""
    context, image = engine.context, step.fix.target
    view = survey.look(context, context.repository(run.repo_id), only=image) if image else None
    images = judge(view).images if view is not None else ()
    target = next((image for image in images if image.id == step.fix.target), None)
    if target is None:
        return StaleFix("it is not needed any more: what it was about is gone", "Look again")
    state = "removed" if target.removed else target.status
    last = f"; last: {target.operation.verb} by host {target.operation.host}" if target.operation else ""
    return StaleFix(f"it is not needed any more: the image is {state} now{last}", "Look again")
