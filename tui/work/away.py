"""What became of work that went on by itself: noted in the history, and told to whoever comes back."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from typing import Any

from engine.doors.processes import ProcessIdentity
from engine.errors import DiskwrightError, NotFound
from engine.host import tasks
from engine.host.state import Task
from tui.notes import Notes
from tui.text.printable import printable
from tui.text.words import RunState, doing
from tui.work import runs
from tui.work.history import Entry, History, Work

_OF_RUN = {RunState.DONE: "done", RunState.STOPPED: "stopped"}
_OF_EVENT = {"done": "done", "stale": "outdated", "failed": "failed"}
_TOLD = 5
_LOST = "nothing is known of it any more"


def settle(notes: Notes, only: Collection[str] | None = None) -> list[Entry]:
    """Note what has ended since somebody looked, of all work or of that with these ids; returns it, the first first:
    an entry for each fix, and one for a process that ended before its work. Nothing is written when nothing has ended.
    StorageError, Conflict."""
    history = History(notes)
    found = {}
    for id, work in history.going_on().items():
        if only is None or id in only:
            entries = _ended(notes, id, work)
            if entries is not None:
                found[id] = entries
    return sorted(history.ended(found), key=lambda entry: entry.when) if found else []


def news(entries: Sequence[Entry]) -> list[str]:
    """What is said of work that ended while nobody followed it, a sentence each. Texts are printable."""
    told = [
        printable(f"{entry.what[:1].upper()}{entry.what[1:]} ended while you were away: {entry.outcome.rstrip('.')}.")
        for entry in entries[-_TOLD:]
    ]
    more = len(entries) - len(told)
    return [f"{more} more ended while you were away: diskwright log tells them.", *told] if more else told


def going_on(notes: Notes) -> list[str]:
    """What is said of the runs that go on by themselves, in whichever repository, a sentence each. Texts are
    printable."""
    told = []
    for id, work in History(notes).going_on().items():
        with contextlib.suppress(NotFound):
            run = runs.get_run(notes, str(work.about.get("run", "")), id)
            if run.alive:
                done = f"{run.done} of {len(run.steps)} done"
                told.append(f"Run {run.short} goes on in {run.repo_id}, {done}: Runs (3) shows it there.")
    return told


def _ended(notes: Notes, id: str, work: Work) -> list[Entry] | None:
    """How a work has ended, None while it goes on."""
    try:
        if "task" in work.about:
            return _of_task(notes, work, _task(work.about["task"]))
        return _of_run(notes, work, str(work.about["run"]), id)
    except (KeyError, TypeError, ValueError, AttributeError):
        return [work.entry._replace(result="killed", error=_LOST)]


def _task(data: dict[str, Any]) -> Task:
    known = {name: data[name] for name in Task._fields}
    known |= {"process": ProcessIdentity(*data["process"]), "images": tuple(data["images"]), "uses": ()}
    return Task(**known)


def _of_task(notes: Notes, work: Work, task: Task) -> list[Entry] | None:
    if tasks.is_running(notes.doors, task):
        return None
    events: list[dict[str, Any]] = []
    when = work.entry.when
    with contextlib.suppress(DiskwrightError, OSError):
        events = tasks.events(notes.doors, task)
        when = max(when, notes.doors.files.stat(task.log).mtime_ns / 1e9)
    base = work.entry._replace(
        when=when, seconds=round(when - work.entry.when, 3), verb=doing(task.rule, task.verb), text=task.rule
    )
    entries = [_of_event(base, work, event) for event in events if event.get("event") in _OF_EVENT]
    if not any(event.get("event") == "end" for event in events):
        lost = "its process ended before it was done; what it did is kept"
        entries.append(base._replace(result="killed", error=lost))
    return entries


def _of_event(base: Entry, work: Work, event: dict[str, Any]) -> Entry:
    """What a task says of one of its fixes."""
    rule, image, code = (str(event.get(key) or "") for key in ("rule", "image", "code"))
    result = "stopped" if code == "stopped" else _OF_EVENT[event["event"]]
    entry = base._replace(result=result, error=str(event.get("error") or ""), code=code)
    if rule:
        entry = entry._replace(verb=doing(rule, str(event.get("type"))), text=rule)
    if image and image != base.image:
        entry = entry._replace(image=image, name=str(work.about.get("names", {}).get(image, "")))
    return entry


def _of_run(notes: Notes, work: Work, identity: str, id: str) -> list[Entry] | None:
    try:
        run = runs.get_run(notes, identity, id)
    except NotFound:
        return [work.entry._replace(result="killed", error=_LOST)]
    if run.alive:
        return None
    when = max(work.entry.when, run.ended or run.saved_at)
    result = _OF_RUN.get(run.state, "failed")
    told = {"text": run.reason} if result == "done" else {"text": "", "error": run.reason}
    return [work.entry._replace(when=when, seconds=round(when - work.entry.when, 3), result=result, **told)]
