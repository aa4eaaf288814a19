"""A plan: which fixes run in which order, and what the repository will be after each of them.

Made from one view and compared with a fresher one later: what is run is what was shown, or the
plan says why it does not hold any more. The numbers of the steps are estimates where the engine's are.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from engine.triage import rules
from tui.text.amounts import compact
from tui.text.statuses import SHOWN, State
from tui.view import estimates
from tui.view.estimates import TimeRange, Times
from tui.view.fixes import FixRow
from tui.view.machines import beside
from tui.view.plan_order import Ordered, fits, in_order
from tui.view.snapshot import Counts, RepositoryView

DEFAULT_RESERVE_SHARE = 0.025
"""This part of the storage is kept free."""
_LEFT_TOLD = 20
_OFFERS = 5


class Step(NamedTuple):
    """One fix of a plan. Texts are printable."""

    number: int
    row: FixRow
    free_before: int
    lowest: int
    """Free space while it runs, at its lowest."""
    free_after: int
    time: TimeRange
    after_steps: tuple[int, ...]
    """Steps that must have been done: those it depends on, and those whose room it needs."""

    @property
    def needs(self) -> str:
        """What must be there: "step 1", "SRM", or "-"."""
        words = ["SRM"] if self.row.needs_srm else []
        words += [f"step {number}" for number in self.after_steps]
        return ", ".join(words) or "-"


class Skipped(NamedTuple):
    """A chosen fix that is not in the plan, and why."""

    row: FixRow
    why: str


class Offer(NamedTuple):
    """A fix to add, and what it would do for the plan."""

    row: FixRow
    text: str


class Plan(NamedTuple):
    """What would be done and what would come of it."""

    id: str
    """A hash over the repository and the fixes in their order, 16 hexadecimal digits."""
    repo_id: str
    repository: str
    host: str
    made_at: float
    seen_at: float
    """When the view was read that it was made from."""
    steps: tuple[Step, ...]
    total_bytes: int
    free_before: int
    free_after: int
    lowest_free: int
    lowest_at: int
    """The step during which free space is lowest, 0: before the first."""
    reserve_bytes: int
    counts_before: Counts
    counts_after: Counts
    time: TimeRange
    moved: tuple[str, ...] = ()
    live: tuple[str, ...] = ()
    """What it means for machines that run, and what waits for them, a sentence each."""
    left: tuple[str, ...] = ()
    """What is broken afterwards, a sentence each."""
    never: tuple[str, ...] = ()
    """What can never be undone, a sentence each."""
    skipped: tuple[Skipped, ...] = ()
    refused: str = ""
    """Why the plan must not run, "" when it may."""
    stuck: str = ""
    """The key of the fix for which there is no room."""
    missing_bytes: int = 0
    offers: tuple[Offer, ...] = ()

    @property
    def short(self) -> str:
        """The first four digits of the id."""
        return self.id[:4]

    @property
    def runnable(self) -> bool:
        """There is something to run and nothing against it."""
        return bool(self.steps) and not self.refused

    def word(self, valid: bool) -> str:
        """What stands over the plan: STALE unless it is ``valid`` still, REFUSED, EMPTY where nothing of it can run,
        else VALID."""
        if not valid:
            return "STALE"
        if self.refused:
            return "REFUSED"
        return "VALID" if self.steps else "EMPTY"

    def curve(self) -> list[int]:
        """Free space before the first step, then at the lowest point of each and after it."""
        points = [self.free_before]
        for step in self.steps:
            points += [step.lowest, step.free_after]
        return points


class Validity(NamedTuple):
    """Whether a plan still holds."""

    valid: bool
    reason: str = ""


def make(
    view: RepositoryView,
    chosen: Sequence[FixRow],
    times: Times,
    now: float,
    reserve_share: float = DEFAULT_RESERVE_SHARE,
) -> Plan:
    """The plan for the chosen fixes of a view, given in the order the operator wants. Changes nothing."""
    reserve = int(view.total_bytes * reserve_share)
    todo, skipped, offers = _possible(view, chosen)
    ordered = in_order(todo, view.free_bytes, reserve)
    steps = tuple(_steps(ordered, view.free_bytes, reserve, times))
    lowest, lowest_at = view.free_bytes, 0
    for step in steps:
        if step.lowest < lowest:
            lowest, lowest_at = step.lowest, step.number
    if ordered.stuck is not None:
        offers += _offers_of_room(view, todo, ordered.missing_bytes)
    states = states_after(view, steps)
    return Plan(
        id=plan_id(view.identity, [step.row.id for step in steps]),
        repo_id=view.name,
        repository=view.identity,
        host=view.host,
        made_at=now,
        seen_at=view.scanned_at,
        steps=steps,
        total_bytes=view.total_bytes,
        free_before=view.free_bytes,
        free_after=steps[-1].free_after if steps else view.free_bytes,
        lowest_free=lowest,
        lowest_at=lowest_at,
        reserve_bytes=reserve,
        counts_before=view.counts,
        counts_after=_counts_after(view, states),
        time=estimates.total(step.time for step in steps),
        moved=ordered.moved,
        live=tuple(_live(view, steps)),
        left=tuple(_left(view, states)),
        never=tuple(_never(step) for step in steps if step.row.irreversible),
        skipped=tuple(skipped),
        refused=_refusal(ordered, steps, reserve),
        stuck=ordered.stuck.key if ordered.stuck else "",
        missing_bytes=max(0, ordered.missing_bytes),
        offers=tuple(offers),
    )


def plan_id(identity: str, fixes: Sequence[str]) -> str:
    """The id of a plan that runs these fixes in this order."""
    return blake2b(json.dumps([identity, *fixes]).encode(errors="surrogatepass"), digest_size=8).hexdigest()


def validity(plan: Plan, view: RepositoryView) -> Validity:
    """Whether the plan would do what it shows, as far as the view tells."""
    if view.identity != plan.repository:
        return Validity(False, "it was made for another repository")
    if view.problem:
        return Validity(False, "the repository cannot be read now")
    since = clock_text(plan.seen_at)
    offered = {row.id for row in view.fixes}
    looked_for = [step for step in plan.steps if view.deep or not step.row.deep]
    changed = [step for step in looked_for if step.row.id not in offered]
    busy = [image for step in changed if (image := view.image(step.row.target)) is not None and image.busy]
    if busy:
        return Validity(False, f"{busy[0].label} is being worked on: {busy[0].busy}")
    if changed:
        images = len({step.row.target for step in changed})
        noun = "1 image has" if images == 1 else f"{images} images have"
        return Validity(False, f"{noun} changed since {since}")
    free = view.free_bytes
    for step in plan.steps:
        if not plan.refused and not fits(step.row, free, plan.reserve_bytes):
            room = compact(view.free_bytes)
            return Validity(False, f"free space is {room} now; step {step.number} would not fit")
        free -= step.row.space_bytes
    return Validity(True)


def clock_text(when: float) -> str:
    """Local time of day as 12:06, "?" for a number that is none."""
    try:
        return time.strftime("%H:%M", time.localtime(when))
    except (OverflowError, ValueError, OSError):
        return "?"


# -- inside


def _possible(view: RepositoryView, chosen: Sequence[FixRow]) -> tuple[list[FixRow], list[Skipped], list[Offer]]:
    """What of the chosen can run once the rest of it ran, what cannot, and what would help."""
    unique = list({row.key: row for row in chosen}.values())
    offered = {row.id: row for row in view.fixes}
    todo: list[FixRow] = []
    skipped: list[Skipped] = []
    for row in unique:
        if not row.can_run and not row.needs_room:
            skipped.append(Skipped(row, f"it waits for {row.waits_for}"))
        elif elsewhere := view.runs_elsewhere(row):
            skipped.append(Skipped(row, elsewhere))
        else:
            todo.append(row)
    offers: list[Offer] = []
    while True:
        ids = {row.id for row in todo}
        lacking = [(row, other) for row in todo for other in row.depends_on if other in offered and other not in ids]
        if not lacking:
            return todo, skipped, offers
        row, other = lacking[0]
        todo.remove(row)
        needed = offered[other]
        skipped.append(Skipped(row, f"it depends on {needed.what}, which is not in the plan"))
        if needed.can_run and needed.key not in {offer.row.key for offer in offers}:
            offers.append(Offer(needed, f"{row.what} depends on {needed.what}"))


def _steps(ordered: Ordered, free: int, reserve: int, times: Times) -> list[Step]:
    steps: list[Step] = []
    numbers: dict[str, int] = {}
    start = free
    for number, row in enumerate(ordered.rows, 1):
        after = {numbers[other] for other in row.depends_on if other in numbers}
        if not fits(row, start, reserve) and fits(row, free, reserve):
            after |= {step.number for step in steps if step.row.space_bytes < 0}
        lowest = free - max(0, row.peak_bytes)
        left = free - row.space_bytes
        steps.append(Step(number, row, free, lowest, left, times.of(row), tuple(sorted(after))))
        numbers[row.id] = number
        free = left
    return steps


def _refusal(ordered: Ordered, steps: tuple[Step, ...], reserve: int) -> str:
    if ordered.stuck is None:
        return ""
    number = next(step.number for step in steps if step.row is ordered.stuck)
    kept = f"and {compact(reserve)} are kept free" if reserve else "nothing is kept free"
    peak, missing = compact(ordered.stuck.peak_bytes), compact(ordered.missing_bytes)
    return f"Step {number}, {ordered.stuck.what}, needs {peak} {kept}: {missing} are missing"


def _offers_of_room(view: RepositoryView, todo: list[FixRow], missing: int) -> list[Offer]:
    """Fixes that would make enough room, the largest first, as few as do."""
    taken = {row.key for row in todo}
    freeing = [row for row in view.fixes if row.space_bytes < 0 and row.can_run and row.key not in taken]
    freeing.sort(key=lambda row: (row.loses_data, row.space_bytes))
    found = []
    for row in freeing[:_OFFERS]:
        if missing <= 0:
            break
        missing += row.space_bytes
        found.append(Offer(row, f"{row.what} frees {compact(-row.space_bytes)}"))
    return found


def states_after(view: RepositoryView, steps: Sequence[Step]) -> dict[str, State]:
    """States of images that the steps change, by id. Images above a mended one become usable with it."""
    states: dict[str, State] = {}
    waiting = _waiting(view) if any(_carries(step.row) for step in steps) else []
    for step in steps:
        row = step.row
        if row.after is not State.NONE and view.images.find(row.target) >= 0:
            states[row.target] = row.after
        if _carries(row):
            states |= {image: State.OPTIMIZED for image, reason in waiting if row.target in reason}
    return states


def _carries(row: FixRow) -> bool:
    """Whether mending the target mends images that stand on it."""
    return row.type == "mend" and row.dependants > 0


def _waiting(view: RepositoryView) -> list[tuple[str, str]]:
    """Images that only wait for their base, with the reason, which names it."""
    rows = (view.images[index] for index in view.images.not_optimized())
    return [(row.id, row.reason) for row in rows if row.rule == rules.B_BASE]


def _counts_after(view: RepositoryView, states: dict[str, State]) -> Counts:
    counts = dict(zip(SHOWN, view.counts, strict=True))
    for image, state in states.items():
        counts[view.images.state(view.images.find(image))] -= 1
        if state in counts:
            counts[state] += 1
    return Counts(*(counts[state] for state in SHOWN))


def _live(view: RepositoryView, steps: Sequence[Step]) -> list[str]:
    """Which machine works, what its guest notices of that, and which fixes wait until a machine is stopped."""
    sentences = [f"Step {step.number}: {beside(step.row)}" for step in steps if step.row.machine]
    waiting = [row for row in view.machines if row.waits]
    for row in waiting[:_LEFT_TOLD]:
        others = f" and {len(row.waits) - 1} more wait" if len(row.waits) > 1 else " waits"
        used = f"is used by {row.who}" if row.who else "is prepared"
        sentences.append(f"{row.label} {used}: {row.waits[0]}{others} until it is torn down.")
    return [*sentences, f"and {len(waiting) - _LEFT_TOLD} more."] if len(waiting) > _LEFT_TOLD else sentences


def _left(view: RepositoryView, states: dict[str, State]) -> list[str]:
    """What is broken or unknown after the plan."""
    sentences: list[str] = []
    more = 0
    for index in view.images.not_optimized():
        image = view.images[index]
        if states.get(image.id, image.state) not in (State.BROKEN, State.UNKNOWN):
            continue
        if len(sentences) >= _LEFT_TOLD:
            more += 1
            continue
        fixes = [row for row in view.fixes_of(image.id) if row.type == "mend"]
        if image.state is State.UNKNOWN or not fixes:
            why = image.reason
        elif fixes[0].waits_for:
            why = f"It waits for {fixes[0].waits_for}"
        else:
            why = f"{fixes[0].what} is not in the plan"
        sentences.append(f"{image.label}: {why}.")
    return [*sentences, f"and {more} more."] if more else sentences


def _never(step: Step) -> str:
    row = step.row
    if row.loses_data:
        return f"Step {step.number} loses data: {row.why}."
    if row.now is State.REMOVED:
        return f"Step {step.number} deletes {row.name} ({compact(-row.space_bytes)}): it cannot be restored then."
    if row.type == "merge":
        return f"Step {step.number} makes {row.name} one: they cannot be separated again."
    return f"Step {step.number}, {row.what}, cannot be undone."
