"""The timeline of one repository as this host knows it: its own runs, what it saw others do, how much was free; and
``Chronicle``, in which the history of what was done on this host stands between.

Bounded, shared by all consoles of the host, and kept over restarts. Times of other hosts are those
of their clocks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from engine.errors import StorageError
from tui.notes import Notes, folder_of
from tui.text.printable import printable
from tui.text.statuses import State, code_of
from tui.view.snapshot import HostOperation, RepositoryView
from tui.work.history import GROUP, Entry, History

MAX_EVENTS = 1000
MAX_SPACES = 500
_LEAST_CHANGE_BYTES, _LEAST_CHANGE_PART = 1 << 20, 50_000
"""A change of free space that is smaller is not kept: of bytes, and of the whole as its part."""
_BADLY = ("failed", "killed")
"""Results that say more of an entry than its verb does."""
_PER_SCAN = 100
"""A scan that finds more changes than this tells how many there were."""


class Event(NamedTuple):
    """Something that happened. Texts are printable."""

    when: float
    host: str
    kind: str
    """run, done, failed, stopped, killed, resumed, status, seen, lost, back, act."""
    image: str
    name: str
    text: str
    mark: str = ""
    """Tells an event that was noted before."""

    @property
    def crash(self) -> bool:
        """Something died or failed."""
        return self.kind in ("killed", "failed", "lost")


class Space(NamedTuple):
    """What was free at a time."""

    when: float
    free_bytes: int


class Journal:
    """The events of one repository."""

    def __init__(self, notes: Notes, identity: str) -> None:
        self._notes = notes
        self._name = f"{folder_of(identity)}/journal.json"
        self._mark = (-1, -1)
        self._events: tuple[Event, ...] = ()
        self._space_name = f"{folder_of(identity)}/space.json"

    def events(self) -> tuple[Event, ...]:
        """All that is kept, the oldest first. One stat when nothing has changed."""
        mark = self._notes.mark(self._name)
        if mark != self._mark:
            with contextlib.suppress(StorageError):  # what was read before is shown
                self._events, self._mark = tuple(_events(self._notes.read(self._name, []))), mark
        return self._events

    def lane(self, image: str) -> tuple[Event, ...]:
        """What happened to one image: which host did what, where it died, who went on."""
        return tuple(event for event in self.events() if event.image == image)

    def add(self, events: Iterable[Event]) -> None:
        """Keep events; one whose mark is known already is left out. Durable on return."""
        fresh = list(events)
        if not fresh:
            return

        def derive(data: list[Any]) -> list[Any] | None:
            kept = _events(data)
            known = {event.mark for event in kept if event.mark}
            new = [event for event in fresh if not event.mark or event.mark not in known]
            return [list(event) for event in (kept + new)[-MAX_EVENTS:]] if new else None

        self._notes.change(self._name, [], derive)

    def note_scan(self, before: RepositoryView | None, now: RepositoryView) -> bool:
        """Keep what a scan tells that the one before did not; return whether there was any. Waits for storage."""
        told = changes(before, now)
        self.add(told)
        if now.known and not now.problem:
            self._note_space(now)
        return bool(told)

    def space(self) -> Sequence[Space]:
        """How much was free, the oldest first: a time for each change that is worth one."""
        return self._notes.remembered(self._space_name, _spaces)

    def _note_space(self, now: RepositoryView) -> None:
        """Keep what is free, when it is another amount than before. Older times are thinned out."""
        least = max(_LEAST_CHANGE_BYTES, now.total_bytes // _LEAST_CHANGE_PART)

        def derive(data: dict[str, Any]) -> dict[str, Any] | None:
            known = list(_spaces(data))
            if known and (now.scanned_at <= known[-1].when or abs(known[-1].free_bytes - now.free_bytes) < least):
                return None
            known.append(Space(now.scanned_at, now.free_bytes))
            if len(known) > MAX_SPACES:
                half = len(known) // 2
                known = known[:half:2] + known[half:]
            return {"space": [list(item) for item in known]}

        self._notes.change(self._space_name, {}, derive)


class Chronicle:
    """The events of one repository, by the name that it has on this host."""

    def __init__(self, journal: Journal, history: History, repo_id: str) -> None:
        self._journal = journal
        self._history = history
        self._repo_id = repo_id
        self._known: tuple[tuple[Event, ...], tuple[Entry, ...]] = ((), ())
        self._events: tuple[Event, ...] = ()

    def events(self) -> tuple[Event, ...]:
        """All of them, the oldest first. Three stats when nothing has changed."""
        known = self._journal.events(), self._history.entries()
        if known[0] is not self._known[0] or known[1] is not self._known[1]:
            done = [event(entry) for entry in known[1] if entry.repo_id == self._repo_id and _told_here(entry)]
            self._events = tuple(sorted((*known[0], *done), key=lambda item: item.when)) if done else known[0]
            self._known = known
        return self._events

    def lane(self, image: str) -> tuple[Event, ...]:
        """What happened to one image: who did what on which host, where it died, who went on."""
        return tuple(item for item in self.events() if item.image == image)

    def of_one_moment(self, snapshot: str) -> tuple[Entry, ...]:
        """The snapshots that one command of this host made together with this one, each as it was noted; none where it
        was made alone, or elsewhere."""
        groups = [one for one in self._history.entries() if one.verb == GROUP and one.repo_id == self._repo_id]
        when = next((one.when for one in groups if one.made == snapshot), None)
        return tuple(one for one in groups if one.when == when and one.made not in ("", snapshot))


def _told_here(entry: Entry) -> bool:
    """A run tells of its steps and of its end itself, in the journal; who began it is told here."""
    of_run = entry.verb.startswith("run ") and entry.result != "started"
    return not of_run and not entry.face.startswith("run ")


def event(entry: Entry) -> Event:
    """An entry of the history as an event: who did it with what, and what came of it."""
    who = f"{entry.user}, {entry.face}: " if entry.user else ""
    what = f" ({entry.text})" if entry.text else ""
    kind, verb = (entry.result, f"{entry.verb} ") if entry.result in _BADLY else (entry.verb, "")
    return Event(entry.when, entry.host, kind, entry.image, entry.name, f"{who}{verb}{entry.outcome}{what}", entry.task)


def _spaces(data: dict[str, Any]) -> list[Space]:
    found = data.get("space")
    good = [item for item in found if _is_space(item)] if isinstance(found, list) else []
    return [Space(float(when), int(free)) for when, free in good]


def _is_space(item: object) -> bool:
    return isinstance(item, list) and len(item) == 2 and all(type(number) in (int, float) for number in item)


def changes(before: RepositoryView | None, now: RepositoryView) -> list[Event]:
    """What happened between two views; without an earlier one, the unfinished work that was found."""
    had_problem = bool(before and before.problem)
    if now.problem:
        lost = Event(now.problem_at, now.host, "lost", "", "", now.problem, f"lost {now.problem_at:.0f}")
        return [] if had_problem else [lost]
    events = []
    if had_problem:
        since = before.problem_at if before else 0.0
        events.append(Event(now.scanned_at, now.host, "back", "", "", "it can be read again", f"back {since:.0f}"))
    known = {(item.image, item.when, item.stage, item.percent) for item in before.operations} if before else set()
    events += [
        _of_operation(item)
        for item in now.operations
        if (item.image, item.when, item.stage, item.percent) not in known and (before or not item.finished)
    ][:_PER_SCAN]
    if before is not None and before.known:
        events += _status_changes(before, now)
    return sorted(events, key=lambda event: event.when)


def _of_operation(item: HostOperation) -> Event:
    stage = f", stage {item.stage}/{item.stages} {item.stage_name}" if item.stages else ""
    share = f" at {item.percent} %" if item.percent >= 0 and not item.finished else ""
    error = "; an operator stopped it" if item.stopped else f"; {item.last_error}" if item.last_error else ""
    text = f"{item.verb}{stage}{share}{error}"
    kind = "stopped" if item.stopped else "failed" if item.last_error else "seen"
    mark = f"{item.image} {item.verb} {item.host} {item.when:.3f} {item.stage} {item.percent}"
    return Event(item.when, item.host, kind, item.image, item.name, text, mark)


def _status_changes(before: RepositoryView, now: RepositoryView) -> list[Event]:
    events: list[Event] = []
    old: dict[str, State] = {}
    for index in range(len(before.images)):
        state = before.images.state(index)
        old[before.images.id(index)] = state
    for index in range(len(now.images)):
        image, state = now.images.id(index), now.images.state(index)
        was = old.pop(image, None)
        if was is not state:
            events.append(_changed(now, image, now.images.label(image), was, state))
    events += [_changed(now, image, before.images.label(image), was, State.GONE) for image, was in old.items()]
    if len(events) > _PER_SCAN:
        more = len(events) - _PER_SCAN
        text = f"{more} more images changed their state"
        rest = Event(now.scanned_at, "", "status", "", "", text, f"more {now.scanned_at:.0f}")
        events = [*events[:_PER_SCAN], rest]
    return events


def _changed(now: RepositoryView, image: str, name: str, was: State | None, state: State) -> Event:
    row = now.image(image)
    text = f"{code_of(was) if was else 'new'} to {code_of(state)}" + (f": {row.reason}" if row else "")
    host = row.host if row else ""
    moment = row.when if row and row.when else now.scanned_at
    return Event(now.scanned_at, host, "status", image, name, text, f"{image} {was} {state} {moment:.0f}")


def _events(data: Sequence[Any]) -> list[Event]:
    found = []
    for item in data:
        if isinstance(item, list) and len(item) == len(Event._fields) and isinstance(item[0], int | float):
            found.append(Event._make([float(item[0]), *map(printable, item[1:])]))
    return found
