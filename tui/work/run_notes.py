"""A run as it is persisted: one note per run, replaced after every event by the process that executes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from engine.data.model import Fix
from engine.doors.processes import ProcessIdentity
from engine.errors import DiskwrightError
from tui.notes import Notes, folder_of, process_of
from tui.text.printable import printable
from tui.text.words import RunState
from tui.view.plan import Plan

KEPT_RUNS = 50
_REASON_CHARACTERS = 500
_KEPT_SAMPLES = 400

Samples = tuple[tuple[float, int], ...]
"""(wall time, bytes done by then)."""


class StepNote(NamedTuple):
    """One step of a run."""

    number: int
    key: str
    fix: Fix
    name: str
    after_steps: tuple[int, ...]
    io_bytes: int
    state: RunState = RunState.WAITING
    reason: str = ""
    started: float = 0.0
    ended: float = 0.0
    attempts: int = 0
    task: str = ""
    """Of the last attempt: its id on this host, its log, its process."""
    log: str = ""
    process: ProcessIdentity | None = None
    error: str = ""
    code: str = ""

    @property
    def what(self) -> str:
        """In three words."""
        return f"{self.fix.type} {self.name}"


class RunNote(NamedTuple):
    """A whole run."""

    id: str
    plan: str
    repo_id: str
    repository: str
    host: str
    started: float
    steps: tuple[StepNote, ...]
    reserve_bytes: int = 0
    state: RunState = RunState.WAITING
    reason: str = ""
    ended: float = 0.0
    process: ProcessIdentity | None = None
    saved: float = 0.0
    """When this was written."""

    def with_step(self, step: StepNote) -> RunNote:
        """The run with one step replaced."""
        return self._replace(steps=tuple(step if old.number == step.number else old for old in self.steps))


def of_plan(plan: Plan, run_id: str, now: float, host: str) -> RunNote:
    """A run of a plan that has not begun."""
    steps = tuple(
        StepNote(step.number, step.row.key, step.row.fix(), step.row.label, step.after_steps, step.row.io_bytes)
        for step in plan.steps
    )
    return RunNote(run_id, plan.id, plan.repo_id, plan.repository, host, now, steps, plan.reserve_bytes)


def folder(identity: str) -> str:
    """Where the runs of a repository are noted."""
    return f"{folder_of(identity)}/runs"


def save(notes: Notes, run: RunNote) -> None:
    """Replace the note of a run; durable on return."""
    notes.write(f"{folder(run.repository)}/{run.id}.json", _to_json(run))


def read(notes: Notes, identity: str, run_id: str) -> RunNote | None:
    """The note of a run, None when there is none or it makes no sense."""
    run = notes.remembered(f"{folder(identity)}/{run_id}.json", _understood)
    return run if run is not None and (run.id, run.repository) == (run_id, identity) else None


def _understood(data: dict[str, Any]) -> RunNote | None:
    try:
        return _from_json(data)
    except (TypeError, ValueError, KeyError, AttributeError, DiskwrightError):
        return None


def read_all(notes: Notes, identity: str) -> list[RunNote]:
    """All runs that are noted, the newest first."""
    names = notes.names(folder(identity), ".json")
    found = [read(notes, identity, name.removesuffix(".json")) for name in names]
    return sorted((run for run in found if run is not None), key=lambda run: -run.started)


def forget_old(notes: Notes, identity: str) -> None:
    """Keep the newest runs only; one that is executed is among them."""
    for run in read_all(notes, identity)[KEPT_RUNS:]:
        if run.process is None or not notes.alive(run.process):
            for ending in ("json", "log", "progress", "samples", "lock"):
                notes.remove(f"{folder(identity)}/{run.id}.{ending}")


def progress_name(run: RunNote) -> str:
    """The note with what the running step has persisted last; worth nothing after a crash."""
    return f"{folder(run.repository)}/{run.id}.progress"


def add_samples(notes: Notes, run: RunNote, step: int, samples: Sequence[tuple[float, int]]) -> None:
    """Keep what a step had done at which time, for pictures; a crash may lose it."""
    known = notes.read(_samples_name(run), {})
    notes.write_quickly(
        _samples_name(run), {**known, str(step): [*known.get(str(step), []), *samples][-_KEPT_SAMPLES:]}
    )


def samples(notes: Notes, run: RunNote) -> Mapping[int, Samples]:
    """What the steps that were executed had done at which times."""
    return notes.remembered(_samples_name(run), _understood_samples)


def _samples_name(run: RunNote) -> str:
    return f"{folder(run.repository)}/{run.id}.samples"


def _understood_samples(data: Mapping[str, Any]) -> dict[int, Samples]:
    return {int(step): samples_of(found) for step, found in data.items() if step.isdigit()}


def samples_of(data: object) -> Samples:
    """Samples from a note: those that make sense, in their order."""
    found = [item for item in data if isinstance(item, list) and len(item) == 2] if isinstance(data, list) else []
    good = [(when, done) for when, done in found if type(when) in (int, float) and type(done) is int and done >= 0]
    return tuple(sorted((float(when), done) for when, done in good))


def _to_json(run: RunNote) -> dict[str, Any]:
    data: dict[str, Any] = run._asdict()
    data["steps"] = [{**step._asdict(), "fix": step.fix.to_json()} for step in run.steps]
    return data


def _from_json(data: dict[str, Any]) -> RunNote:
    fields = dict(data)
    fields["steps"] = tuple(_step(item) for item in data["steps"])
    fields["state"] = RunState(data["state"])
    fields["process"] = process_of(data["process"])
    for name in ("id", "plan", "repo_id", "repository", "host"):
        if not isinstance(fields[name], str):
            raise TypeError(name)
    for name in ("started", "ended", "saved"):
        fields[name] = float(fields[name])
    fields["reason"] = printable(fields["reason"])[:_REASON_CHARACTERS]
    return RunNote(**fields)


def _step(data: dict[str, Any]) -> StepNote:
    fields = dict(data)
    fields["fix"] = Fix.from_json(data["fix"])
    fields["state"] = RunState(data["state"])
    fields["process"] = process_of(data["process"])
    fields["after_steps"] = tuple(int(number) for number in data["after_steps"])
    for name in ("number", "attempts", "io_bytes"):
        fields[name] = int(fields[name])
    for name in ("started", "ended"):
        fields[name] = float(fields[name])
    for name in ("name", "reason", "error", "code", "key", "task", "log"):
        fields[name] = printable(fields[name])[:_REASON_CHARACTERS]
    return StepNote(**fields)
