"""The fixes of a view as rows, with the priority that each has unless the operator says otherwise."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any, NamedTuple

from engine.data.model import Fix, FixType, Risk, WaitKind
from tui.text.printable import printable
from tui.text.statuses import State
from tui.text.words import Undo

LOW_SPACE_SHARE = 0.1
"""Less than this part of the storage free is low."""


class FixRow(NamedTuple):
    """One fix as it is shown. Texts are printable."""

    key: str
    """What it does to what: the same while the facts behind it change, unlike ``id``."""
    id: str
    """The engine's: another one as soon as anything the rule looked at has changed."""
    type: str
    rule: str
    target: str
    """Id of the image it is about, "" for the repository itself."""
    name: str
    """What to call the target."""
    now: State
    after: State
    space_bytes: int
    """What it takes from the free space for good; negative: it frees that."""
    later_bytes: int
    """Freed by fixes that it unlocks."""
    peak_bytes: int
    io_bytes: int
    time_s: float | None
    """None: no estimate."""
    exact: bool
    """The numbers are no estimates."""
    undo: Undo
    can_run: bool
    """This host can run it now."""
    waits_for: str
    """Why it cannot run now, "" when it can."""
    needs_room: bool
    """Free space is all that it waits for."""
    needs_srm: bool
    priority: int
    """1 to 4, by rule."""
    why: str
    risk: str
    loses_data: bool
    images: tuple[str, ...]
    depends_on: tuple[str, ...]
    """Ids of fixes."""
    unlocks: tuple[str, ...]
    dependants: int
    """Images that need its target."""
    deep: bool
    """Only a deep look finds it."""
    machine: str
    """What the disk is called whose machine does it while it runs, "" where none does."""
    raw: bytes
    """The fix itself, as JSON."""

    @property
    def irreversible(self) -> bool:
        """What it does cannot be undone."""
        return self.undo is Undo.NEVER

    @property
    def label(self) -> str:
        """The target as a word: "(removed) ci-4411"."""
        if not self.target:
            return "(repository)"
        return f"(removed) {self.name}" if self.now is State.REMOVED else self.name

    @property
    def short(self) -> str:
        """The target as a word, beside its status."""
        return self.name if self.target else self.label

    @property
    def what(self) -> str:
        """In three words: "mend web-db"."""
        return f"{self.type} {self.label}"

    def fix(self) -> Fix:
        """The fix for the engine."""
        return Fix.from_json(json.loads(self.raw))


def key_of(fix: Fix) -> str:
    """What a fix does to what, as 16 hexadecimal digits: rule, target and plan, without generations."""
    whole = json.dumps([fix.rule, fix.target, fix.plan], sort_keys=True)
    return blake2b(whole.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def row(fix: Fix, name: str, dependants: int) -> FixRow:
    """The row of a fix; ``name`` and ``dependants`` are its target's. Its priority comes with ``with_priorities``."""
    cost = fix.cost
    needs_room = fix.wait is not None and fix.wait.kind is WaitKind.ROOM
    return FixRow(
        key=key_of(fix),
        id=fix.id,
        type=str(fix.type),
        rule=printable(fix.rule),
        target=fix.target,
        name=printable(name) or fix.target[:8] or "-",
        now=_state(fix.status_before),
        after=_state(fix.status_after),
        space_bytes=cost.peak_extra_bytes - cost.reclaimed_bytes,
        later_bytes=cost.reclaimed_later_bytes,
        peak_bytes=cost.peak_extra_bytes,
        io_bytes=cost.read_bytes + cost.write_bytes,
        time_s=cost.eta_s,
        exact=cost.exact,
        undo=Undo.NEVER if fix.irreversible else Undo.STOP,
        can_run=not fix.waits_for,
        waits_for=printable(fix.waits_for),
        needs_room=needs_room,
        needs_srm=fix.needs_srm,
        priority=4,
        why=printable(fix.why),
        risk=str(fix.risk),
        loses_data=fix.risk is Risk.LOSES_DATA,
        images=fix.images,
        depends_on=fix.depends_on,
        unlocks=fix.unlocks,
        dependants=dependants,
        deep=fix.deep,
        machine="",
        raw=json.dumps(fix.to_json()).encode(),
    )


def _state(text: str) -> State:
    try:
        return State(text)
    except ValueError:
        return State.NONE


def from_data(data: list[Any], raw: bytes) -> FixRow:
    """A row from ``to_data``; ``raw`` is the fix."""
    values = dict(zip(FixRow._fields, data, strict=False))
    values["now"], values["after"], values["undo"] = State(values["now"]), State(values["after"]), Undo(values["undo"])
    values.setdefault("machine", "")  # of a plan that an older program saved
    for name in ("images", "depends_on", "unlocks"):
        values[name] = tuple(values[name])
    return FixRow(**values, raw=raw)


def to_data(row: FixRow) -> list[Any]:
    """A row as JSON data, without the fix itself."""
    return list(row[:-1])


def with_priorities(rows: list[FixRow], free_bytes: int, total_bytes: int) -> tuple[FixRow, ...]:
    """The rows with their priorities by rule.

    Mend is P1. Clean is P2 when space is low or a mend waits for room, else P4. Merge is P2 when a
    P1 or P2 depends on it or waits for the room that it frees, else P4. Optimize is P3."""
    low = free_bytes < total_bytes * LOW_SPACE_SHARE
    starving = any(row.needs_room and row.type == FixType.MEND for row in rows)
    urgent = {row.id for row in rows if row.type == FixType.MEND}
    if low or starving:
        urgent |= {row.id for row in rows if row.type == FixType.CLEAN and not row.loses_data}
    return tuple(row._replace(priority=_priority(row, urgent, starving)) for row in rows)


def _priority(row: FixRow, urgent: set[str], starving: bool) -> int:
    if row.type == FixType.OPTIMIZE:
        return 3
    if row.id in urgent:
        return 1 if row.type == FixType.MEND else 2
    if row.type == FixType.MERGE and (urgent & set(row.unlocks) or (starving and row.space_bytes < 0)):
        return 2
    return 4
