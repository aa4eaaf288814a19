"""The operator's decisions about one repository: queue, priorities, what is snoozed; with undo and redo.

All consoles of a host share them: each change is on disk on return and has a generation of its own,
and whoever asks for ``now`` gets what is on disk. They outlive restarts, undo and redo included.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from engine.errors import BadRequest, Refused, StorageError
from tui.notes import Notes, folder_of
from tui.text.printable import printable
from tui.view.fixes import FixRow

MAX_QUEUED = 2000
_MAX_UNDO = 50
_MAX_UNDO_ITEMS = 10_000
"""Entries in all remembered queues together: a note must stay small."""
_MAX_KEYS = 5000

Json = dict[str, Any]


class Queued(NamedTuple):
    """A queued fix, also when check does not offer it any more. Texts are printable."""

    key: str
    fix_id: str
    type: str
    rule: str
    target: str
    name: str
    since: float


class Decisions(NamedTuple):
    """Everything that was decided."""

    generation: int = 0
    queue: tuple[Queued, ...] = ()
    priorities: Mapping[str, int] = {}
    """By key of a fix."""
    snoozed: frozenset[str] = frozenset()
    undo: tuple[str, ...] = ()
    """What can be undone, the last one last."""
    redo: tuple[str, ...] = ()
    note: str = ""
    """What is wrong with the file, "" when it is fine."""

    def position(self, key: str) -> int:
        """Place in the queue from 1, 0 when it is not queued."""
        return next((number for number, item in enumerate(self.queue, 1) if item.key == key), 0)

    @property
    def hidden(self) -> frozenset[str]:
        """Keys of the fixes that are snoozed; one that is queued too (older programs let it be) is not."""
        return self.snoozed - {item.key for item in self.queue}


class _Part(NamedTuple):
    """What undo brings back."""

    what: str
    queue: list[Queued]
    priorities: dict[str, int]
    snoozed: list[str]


class DecisionStore:
    """The decisions about one repository. Methods that change something are durable on return."""

    def __init__(self, notes: Notes, identity: str) -> None:
        self._notes = notes
        self._name = f"{folder_of(identity)}/desk.json"  # as the first consoles called it
        self._mark = (-1, -1)
        self._known = Decisions()

    def now(self) -> Decisions:
        """What holds now. One stat when nothing has changed."""
        mark = self._notes.mark(self._name)
        if mark != self._mark:
            try:
                data = self._notes.read(self._name, {})
            except StorageError:
                return self._known._replace(note="The saved queue cannot be read now; it is kept as it is")
            damaged = mark != (0, 0) and not data
            note = "The saved queue could not be read; it begins empty" if damaged else ""
            self._known, self._mark = _decisions(data)._replace(note=note), mark
        return self._known

    # -- changes

    def queue(self, rows: Sequence[FixRow]) -> None:
        """Put fixes at the end of the queue; those that are in it stay, and what was snoozed wakes."""
        now = self._notes.doors.clock.wall()
        fresh = [Queued(row.key, row.id, row.type, row.rule, row.target, row.name, now) for row in rows]

        def change(part: _Part) -> _Part:
            known = {item.key for item in part.queue}
            queue = part.queue + [item for item in fresh if item.key not in known]
            if len(queue) > MAX_QUEUED:
                raise BadRequest(f"a queue takes at most {MAX_QUEUED} fixes", "Run what is queued first")
            snoozed = [key for key in part.snoozed if key not in {item.key for item in queue}]
            return part._replace(what=f"queue {_several(rows)}", queue=queue, snoozed=snoozed)

        self._change(change)

    def unqueue(self, keys: Sequence[str]) -> None:
        """Take fixes out of the queue."""
        gone = set(keys)

        def change(part: _Part) -> _Part:
            names = [f"{item.type} {item.name}" for item in part.queue if item.key in gone]
            what = f"unqueue {names[0] if len(names) == 1 else f'{len(names)} fixes'}"
            return part._replace(what=what, queue=[item for item in part.queue if item.key not in gone])

        self._change(change)

    def toggle(self, row: FixRow) -> bool:
        """Queue a fix, or take it out; whether it is queued now."""
        if self.now().position(row.key):
            self.unqueue([row.key])
            return False
        self.queue([row])
        return True

    def move(self, key: str, by: int, steps: Collection[str]) -> None:
        """Move a queued fix ``by`` places, negative: to the front; counted are those with the keys ``steps``."""

        def change(part: _Part) -> _Part:
            places = [number for number, item in enumerate(part.queue) if item.key in steps or item.key == key]
            index = next((place for place in places if part.queue[place].key == key), -1)
            if index < 0:
                return part
            queue = list(part.queue)
            item = queue.pop(index)
            queue.insert(places[max(0, min(places.index(index) + by, len(places) - 1))], item)
            return part._replace(what=f"move {item.type} {item.name}", queue=queue)

        self._change(change)

    def clear(self) -> None:
        """Empty the queue."""
        self._change(lambda part: part._replace(what="clear the queue", queue=[]))

    def set_priority(self, rows: Sequence[FixRow], priority: int | None) -> None:
        """Give fixes a priority of 1 to 4, or back the one by rule (None)."""
        if priority is not None and priority not in (1, 2, 3, 4):
            raise BadRequest(f"priority {priority} is unknown", "Use 1 to 4")

        def change(part: _Part) -> _Part:
            priorities = {key: value for key, value in part.priorities.items() if key not in {row.key for row in rows}}
            if priority is not None:
                priorities |= {row.key: priority for row in rows}
            what = f"priority of {_several(rows)} to {f'P{priority}' if priority else 'that by rule'}"
            return part._replace(what=what, priorities=dict(list(priorities.items())[-_MAX_KEYS:]))

        self._change(change)

    def snooze(self, rows: Sequence[FixRow], on: bool) -> None:
        """Hide fixes until they are shown again, or show them. What is hidden is no step of the plan."""
        keys = {row.key for row in rows}

        def change(part: _Part) -> _Part:
            snoozed = [key for key in part.snoozed if key not in keys] + (sorted(keys) if on else [])
            queue = [item for item in part.queue if not on or item.key not in keys]
            what = f"{'snooze' if on else 'wake'} {_several(rows)}"
            return part._replace(what=what, queue=queue, snoozed=snoozed[-_MAX_KEYS:])

        self._change(change)

    def undo(self) -> str:
        """Take the last change back, whichever console made it. Returns what it was; Refused when there is none."""
        return self._go("undo", "redo")

    def redo(self) -> str:
        """Make the change again that was undone last."""
        return self._go("redo", "undo")

    # -- inside

    def _change(self, change: Callable[[_Part], _Part]) -> None:
        def derive(data: Json) -> Json | None:
            old = _part(data)
            new = change(old)
            if new._replace(what="") == old._replace(what=""):
                return None
            undo = _bounded([*_parts(data, "undo"), old._replace(what=new.what)])
            return _document(new, undo, [], _generation(data) + 1)

        self._notes.change(self._name, {}, derive)

    def _go(self, here: str, there: str) -> str:
        what = ""

        def derive(data: Json) -> Json:
            nonlocal what
            stacks = {name: _parts(data, name) for name in ("undo", "redo")}
            if not stacks[here]:
                raise Refused(f"there is nothing to {here}")
            back = stacks[here].pop()
            what = back.what
            stacks[there] = _bounded([*stacks[there], _part(data)._replace(what=what)])
            return _document(back, stacks["undo"], stacks["redo"], _generation(data) + 1)

        self._notes.change(self._name, {}, derive)
        return what


def _several(rows: Sequence[FixRow]) -> str:
    return rows[0].what if len(rows) == 1 else f"{len(rows)} fixes"


def _bounded(parts: list[_Part]) -> list[_Part]:
    """The newest parts that are worth their room."""
    kept: list[_Part] = []
    room = _MAX_UNDO_ITEMS
    for part in reversed(parts[-_MAX_UNDO:]):
        room -= len(part.queue) + len(part.priorities) + len(part.snoozed)
        if room < 0:
            break
        kept.append(part)
    return kept[::-1]


# -- as data: notes of this host, and still read as if somebody had damaged them


def _document(part: _Part, undo: list[_Part], redo: list[_Part], generation: int) -> Json:
    plain: Json = dict(part._asdict())
    return {
        **plain,
        "generation": generation,
        "undo": [item._asdict() for item in undo],
        "redo": [item._asdict() for item in redo],
    }


def _decisions(data: Json) -> Decisions:
    part = _part(data)
    return Decisions(
        generation=_generation(data),
        queue=tuple(part.queue),
        priorities=part.priorities,
        snoozed=frozenset(part.snoozed),
        undo=tuple(item.what for item in _parts(data, "undo")),
        redo=tuple(item.what for item in _parts(data, "redo")),
    )


def _generation(data: Json) -> int:
    found = data.get("generation")
    return found if type(found) is int else 0


def _parts(data: Json, name: str) -> list[_Part]:
    return [_part(item) for item in _list(data.get(name)) if isinstance(item, dict)]


def _part(data: Mapping[str, Any]) -> _Part:
    priorities = data.get("priorities")
    return _Part(
        what=printable(data.get("what", ""))[:200],
        queue=[item for item in map(_queued, _list(data.get("queue"))) if item is not None],
        priorities={
            printable(key): value
            for key, value in (priorities.items() if isinstance(priorities, dict) else ())
            if type(value) is int and value in (1, 2, 3, 4)
        },
        snoozed=[key for key in _list(data.get("snoozed")) if isinstance(key, str)],
    )


def _queued(data: object) -> Queued | None:
    if not isinstance(data, list) or len(data) != len(Queued._fields):
        return None
    if not all(isinstance(text, str) for text in data[:-1]) or type(data[-1]) not in (int, float):
        return None
    return Queued._make([*map(printable, data[:-1]), float(data[-1])])


def _list(data: object) -> list[Any]:
    return data if isinstance(data, list) else []
