"""Plans as files: what ``diskwright fix REPO --plan ID`` runs is exactly what was shown."""

from __future__ import annotations

import json
from typing import Any

from engine.errors import Ambiguous, Damaged, NotFound
from tui.notes import Notes, folder_of
from tui.text.statuses import SHOWN
from tui.view import fixes
from tui.view.estimates import TimeRange
from tui.view.fixes import FixRow
from tui.view.plan import Offer, Plan, Skipped, Step, plan_id
from tui.view.snapshot import Counts

_KEPT = 50
_MIN_DIGITS = 4

Json = dict[str, Any]


def save(notes: Notes, plan: Plan) -> None:
    """Keep a plan; durable on return. The oldest of many is forgotten."""
    folder = _folder(plan.repository)
    notes.write(f"{folder}/{plan.id}.json", to_json(plan))
    names = notes.names(folder, ".json")
    if len(names) > _KEPT:
        names.sort(key=lambda name: notes.mark(f"{folder}/{name}"))
        for name in names[: len(names) - _KEPT]:
            notes.remove(f"{folder}/{name}")


def load(notes: Notes, identity: str, text: str) -> Plan:
    """The plan with that id, or with an id that begins so. NotFound, Ambiguous, Damaged."""
    folder = _folder(identity)
    known = [name.removesuffix(".json") for name in notes.names(folder, ".json")]
    found = [name for name in known if len(text) >= _MIN_DIGITS and name.startswith(text.lower())]
    if not found:
        raise NotFound(f"there is no plan {text!r:.40} for this repository", "diskwright plan makes one")
    if len(found) > 1:
        raise Ambiguous(f"{text} is the beginning of the plans {', '.join(found[:8])}", "Give more digits")
    try:
        plan = from_json(notes.read(f"{folder}/{found[0]}.json", {}))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise Damaged(f"the saved plan {found[0]} cannot be understood ({error!s:.80})", "Plan again") from None
    if plan.repository != identity or plan_id(identity, [step.row.fix().id for step in plan.steps]) != found[0]:
        raise Damaged(f"the saved plan {found[0]} is not what its name says", "Plan again")
    return plan


def _folder(identity: str) -> str:
    return f"{folder_of(identity)}/plans"


# -- as data


def document(plan: Plan) -> Json:
    """The plan as ``diskwright plan --json`` prints it."""
    return {
        "repository": plan.repo_id,
        "plan": plan.id,
        "host": plan.host,
        "made_at": plan.made_at,
        "seen_at": plan.seen_at,
        "free_bytes": plan.free_before,
        "lowest_free_bytes": plan.lowest_free,
        "lowest_at_step": plan.lowest_at,
        "free_bytes_after": plan.free_after,
        "total_bytes": plan.total_bytes,
        "reserve_bytes": plan.reserve_bytes,
        "status_before": _counts(plan.counts_before),
        "status_after": _counts(plan.counts_after),
        "time": plan.time._asdict(),
        "steps": [_step(step) for step in plan.steps],
        "moved": list(plan.moved),
        "live": list(plan.live),
        "left": list(plan.left),
        "never_undone": list(plan.never),
        "skipped": [
            {"fix": json.loads(item.row.raw), "name": _name(item.row), "why": item.why} for item in plan.skipped
        ],
        "runnable": plan.runnable,
        "refused": plan.refused,
        "missing_bytes": plan.missing_bytes,
        "offers": [{"fix": offer.row.id, "text": offer.text} for offer in plan.offers],
    }


def _name(row: FixRow) -> str:
    """The name of the target, "" for the repository itself; the beginning of its id where it has none."""
    return row.name if row.target else ""


def _counts(counts: Counts) -> dict[str, int]:
    return {str(state): counts.of(state) for state in SHOWN}


def _step(step: Step) -> Json:
    return {
        "fix": json.loads(step.row.raw),
        "name": _name(step.row),
        "free_bytes_before": step.free_before,
        "lowest_free_bytes": step.lowest,
        "free_bytes_after": step.free_after,
        "time": step.time._asdict(),
        "undo": str(step.row.undo),
        "after_steps": list(step.after_steps),
    }


def to_json(plan: Plan) -> Json:
    """The whole plan as JSON data; ``from_json`` of it is equal."""
    rows = [*(step.row for step in plan.steps), *(item.row for item in plan.skipped), *(o.row for o in plan.offers)]
    return {
        **document(plan),
        "identity": plan.repository,
        "rows": {row.key: fixes.to_data(row) for row in rows},
        "raws": {row.key: row.raw.decode() for row in rows},
        "stuck": plan.stuck,
        "step_keys": [step.row.key for step in plan.steps],
        "skipped_keys": [item.row.key for item in plan.skipped],
        "offer_keys": [offer.row.key for offer in plan.offers],
    }


def from_json(data: Json) -> Plan:
    """A plan from ``to_json``; TypeError, ValueError, KeyError or AttributeError when it is none."""
    rows = {key: fixes.from_data(data["rows"][key], data["raws"][key].encode()) for key in data["rows"]}
    steps = [
        Step(
            number,
            rows[key],
            int(step["free_bytes_before"]),
            int(step["lowest_free_bytes"]),
            int(step["free_bytes_after"]),
            TimeRange(**step["time"]),
            tuple(map(int, step["after_steps"])),
        )
        for number, (key, step) in enumerate(zip(data["step_keys"], data["steps"], strict=True), 1)
    ]
    skipped = zip(data["skipped_keys"], data["skipped"], strict=True)
    offers = zip(data["offer_keys"], data["offers"], strict=True)
    return Plan(
        id=str(data["plan"]),
        repo_id=str(data["repository"]),
        repository=str(data["identity"]),
        host=str(data["host"]),
        made_at=float(data["made_at"]),
        seen_at=float(data["seen_at"]),
        steps=tuple(steps),
        total_bytes=int(data["total_bytes"]),
        free_before=int(data["free_bytes"]),
        free_after=int(data["free_bytes_after"]),
        lowest_free=int(data["lowest_free_bytes"]),
        lowest_at=int(data["lowest_at_step"]),
        reserve_bytes=int(data["reserve_bytes"]),
        counts_before=Counts(**data["status_before"]),
        counts_after=Counts(**data["status_after"]),
        time=TimeRange(**data["time"]),
        moved=tuple(map(str, data["moved"])),
        live=tuple(map(str, data.get("live", ()))),
        left=tuple(map(str, data["left"])),
        never=tuple(map(str, data["never_undone"])),
        skipped=tuple(Skipped(rows[key], str(item["why"])) for key, item in skipped),
        refused=str(data["refused"]),
        stuck=str(data["stuck"]),
        missing_bytes=int(data["missing_bytes"]),
        offers=tuple(Offer(rows[key], str(item["text"])) for key, item in offers),
    )
