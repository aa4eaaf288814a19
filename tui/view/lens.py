"""The lens: a repository as it will be when the plan of the queue has run.

Only what the plan promises is told: states, free space, and which fixes are left. What the next check would
find besides, nobody knows before it.
"""

from __future__ import annotations

from tui.text.statuses import SHOWN, State
from tui.view.plan import Plan, states_after
from tui.view.snapshot import RepositoryView

READ_ONLY = "AFTER PLAN"


def after(view: RepositoryView, plan: Plan) -> RepositoryView:
    """The view once all steps of ``plan``, which was made from it, have run. Nothing in it can be changed."""
    states = states_after(view, plan.steps)
    gone = {image for image, state in states.items() if state not in SHOWN}
    done = {step.row.key for step in plan.steps}
    mended = {image for image, state in states.items() if state is State.OPTIMIZED}
    changed = {image: (state, _reason(view, image, plan)) for image, state in states.items() if image not in gone}
    return view._replace(
        images=view.images.changed(changed, gone),
        counts=plan.counts_after,
        free_bytes=plan.free_after,
        fixes=tuple(row for row in view.fixes if row.key not in done and row.target not in gone),
        operations=tuple(item for item in view.operations if item.image not in gone | mended),
        read_only=READ_ONLY,
    )


def _reason(view: RepositoryView, image: str, plan: Plan) -> str:
    return f"After plan {plan.short}; now it is {view.images.state(view.images.find(image)).upper()}"
