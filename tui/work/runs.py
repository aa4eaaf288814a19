"""Runs as the console sees them: started, listed from what is persisted, stopped, resumed, taken over.

Listing reads this host's notes only. What other hosts do is in the repository and comes with a view.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from engine.api import Engine
from engine.data.model import Status
from engine.errors import Conflict, Irreversible, NotFound, Refused, from_os_error
from tui.notes import Notes
from tui.text.amounts import compact, moment
from tui.text.printable import printable
from tui.text.words import OLD_AFTER_S, RunState, doing
from tui.view.estimates import TimeRange, pace_of
from tui.view.plan import Plan
from tui.work import plans, run_notes
from tui.work.noted import NotedEngine
from tui.work.run_notes import RunNote, StepNote
from tui.work.triage import Marked

_LOG_LIMIT = 64 * 1024 * 1024
_STARTING_S = 10.0
"""A process that was just started has this long to say that it lives."""
_RATE_SPREAD = 0.3
_LOOK_S = 0.1

_OVER = (RunState.DONE, RunState.GONE)
_UNDER_WAY = (RunState.RUNNING, RunState.STOPPING)


class RunStep(NamedTuple):
    """One step of a run. Texts are printable."""

    number: int
    key: str
    type: str
    rule: str
    target: str
    name: str
    state: RunState
    reason: str
    started: float
    ended: float
    attempts: int
    error: str
    code: str
    stage: int = 0
    stages: int = 0
    stage_name: str = ""
    percent: int = -1
    """-1: nothing is known, and then nothing may be shown as a bar."""
    saved_at: float = 0.0
    bytes_done: int = 0
    bytes_total: int = 0
    rate: float = 0.0
    """Bytes per second, 0: not known."""
    samples: run_notes.Samples = ()
    """What was done by which time, as far as it is kept."""
    left: TimeRange = TimeRange()
    pace: str = ""
    """That it does not come on as it should, "" when it does."""
    images: tuple[str, ...] = ()
    """Every image that it is about."""
    freed_bytes: int = 0
    taken_bytes: int = 0
    """What a step that is done freed and took, as its plan told; the difference is what triage promised."""
    exact: bool = True

    @property
    def over(self) -> bool:
        """It needs nothing more."""
        return self.state in _OVER

    @property
    def space(self) -> str:
        """What it took of the free space and what it gave back, in words; "" for nothing."""
        about = "" if self.exact else "~"
        parts = [("took", self.taken_bytes), ("freed", self.freed_bytes)]
        return ", ".join(f"{word} {about}{compact(count)}" for word, count in parts if count)

    @property
    def what(self) -> str:
        """In a few words, as people call it: "import web-db", for a fix that finishes an import."""
        return f"{doing(self.rule, self.type)} {self.name}"

    def seconds(self, now: float) -> float:
        """How long it took, or takes until now."""
        return max(0.0, (self.ended or now) - self.started) if self.started else 0.0


class Run(NamedTuple):
    """A run of this host, as far as it is persisted."""

    id: str
    plan_id: str
    repo_id: str
    repository: str
    host: str
    started: float
    ended: float
    state: RunState
    reason: str
    """Why it has that state; the summary once it has ended."""
    steps: tuple[RunStep, ...]
    alive: bool
    """Whether the process of the run lives."""
    pid: int
    """0 when no process is known."""
    saved_at: float
    resumable: bool

    @property
    def short(self) -> str:
        """The first four digits of the plan's id."""
        return self.plan_id[:4]

    @property
    def current(self) -> RunStep | None:
        """The step that runs now."""
        return next((step for step in self.steps if step.state in _UNDER_WAY), None)

    @property
    def ending(self) -> bool:
        """No step of it is under way any more, or the one that is was asked to stop."""
        step = self.current
        return self.alive and self.pid > 0 and (step is None or step.state is RunState.STOPPING)

    @property
    def done(self) -> int:
        """Steps that need nothing more."""
        return sum(step.over for step in self.steps)


class LogLine(NamedTuple):
    """A line of a run's log."""

    when: float
    step: int
    """0: about the run itself."""
    text: str


# -- starting and ending


def start(engine: Engine, notes: Notes, plan: Plan, irreversible: bool) -> str:
    """Start a run of a plan in a process of its own; returns its id. The plan is saved first.

    Refused for a plan that must not run; Irreversible for one with a step that cannot be undone, unless
    ``irreversible`` says that the operator knows; Conflict while another run works on this repository here."""
    if not plan.runnable:
        raise Refused(plan.refused or "the plan has no step", "Change the queue and plan again")
    if plan.never and not irreversible:
        raise Irreversible(plan.never[0].rstrip("."), "Confirm that, or give --irreversible")
    for run in list_runs(notes, plan.repository):
        if run.alive:
            raise Conflict(f"run {run.short} works on {plan.repo_id} now", "Wait for it, or stop it")
    plans.save(notes, plan)
    run_notes.forget_old(notes, plan.repository)
    run_id = engine.doors.ids.new_id()
    now = engine.doors.clock.wall()
    begun = run_notes.of_plan(plan, run_id, now, engine.doors.ids.host_id)._replace(saved=now)
    run_notes.save(notes, begun)
    _spawn(engine, notes, plan.repository, run_id)
    _note(engine, begun)
    return run_id


def resume(engine: Engine, notes: Notes, identity: str, run_id: str, wait: Callable[[], bool] = lambda: False) -> None:
    """Go on with what a run has not done; Conflict while a process executes it, NotFound.

    The end of a run that is about to end is waited for as long as ``wait`` says so: its next save may be far away.
    Refused when nothing of it is left to do."""
    run = _ended(notes, identity, run_id, wait)
    if all(step.state in _OVER for step in run.steps):
        raise Refused(f"everything in run {run.plan[:4]} is done", "Queue what check offers now")
    now = engine.doors.clock.wall()
    run_notes.save(notes, run._replace(state=RunState.WAITING, reason="", process=None, ended=0.0, saved=now))
    _spawn(engine, notes, identity, run_id)
    _note(engine, run)


def _note(engine: Engine, run: RunNote) -> None:
    """Have the history tell that a run goes on by itself from now on."""
    if isinstance(engine, NotedEngine):
        number = len(run.steps)
        text = f"{number} step{'' if number == 1 else 's'}"
        engine.went_on(f"run {run.plan[:4]}", run.repo_id, run.id, {"run": run.repository}, text=text)


def _ended(notes: Notes, identity: str, run_id: str, wait: Callable[[], bool]) -> RunNote:
    first = _noted(notes, identity, run_id).process
    while True:
        run = _noted(notes, identity, run_id)
        if run.process is None or not notes.alive(run.process):
            return run
        if run.process != first or not wait():
            raise Conflict(f"run {run.plan[:4]} is executed by process {run.process.pid}", "Wait for it, or stop it")
        notes.doors.clock.sleep(_LOOK_S)


def _spawn(engine: Engine, notes: Notes, identity: str, run_id: str) -> None:
    folder = run_notes.folder(identity)
    notes.make_folder(folder)
    words = [engine.doors.ids.host_id, notes.host_state_directory, identity, run_id]
    try:
        engine.doors.processes.spawn("tui.work.batch", words, [], notes.path(f"{folder}/{run_id}.log"))
    except OSError as error:
        raise from_os_error(error, "start a process for the run") from error


def stop(engine: Engine, notes: Notes, identity: str, run_id: str) -> None:
    """Ask a run to stop at its next save; returns at once, the work done is kept. NotFound when it does not run.

    A fix whose run died and that goes on by itself is asked too."""
    run = _noted(notes, identity, run_id)
    processes = [run.process, *(step.process for step in run.steps if step.state in _UNDER_WAY)]
    alive = [process for process in processes if process is not None and notes.alive(process)]
    if not alive:
        raise NotFound(f"nothing of run {run.plan[:4]} runs", "Resume it, or look at its log")
    engine.doors.processes.terminate(alive[0])


def discard(engine: Engine, repo_id: str, image: str) -> str:
    """Give up the unfinished work on an image and free what it holds; returns what was done.

    An image that cannot be used without that work is removed (its space comes with a clean fix, and until
    then it can be restored). Refused when the image is usable: then there is nothing to give up."""
    report = engine.get_image_status(repo_id, image)
    if report.busy:
        raise Conflict(f"image {image} is being worked on: {printable(report.busy)}", "Stop that first")
    if report.status is not Status.BROKEN or report.operation is None:
        raise Refused(f"image {image} is {report.status}", "A clean fix frees what is left of interrupted work")
    engine.remove_image(repo_id, image)
    return f"Removed {image}; restore undoes that until a clean fix ran"


def _noted(notes: Notes, identity: str, run_id: str) -> RunNote:
    run = run_notes.read(notes, identity, run_id)
    if run is None:
        raise NotFound(f"there is no run {run_id[:40]}", "Look at the list of runs")
    return run


# -- listing


def list_runs(notes: Notes, identity: str) -> tuple[Run, ...]:
    """The runs of this host on a repository, the newest first; from notes alone."""
    now = notes.doors.clock.wall()
    return tuple(_run(notes, run, now) for run in run_notes.read_all(notes, identity))


def get_run(notes: Notes, identity: str, run_id: str) -> Run:
    """One run; NotFound."""
    return _run(notes, _noted(notes, identity, run_id), notes.doors.clock.wall())


def marked(runs: tuple[Run, ...]) -> Mapping[str, Marked]:
    """What runs that are under way say of fixes, by key: for triage."""
    found: dict[str, Marked] = {}
    for run in runs:
        if run.alive:
            for step in run.steps:
                if step.state in (*_UNDER_WAY, RunState.WAITING):
                    found.setdefault(step.key, Marked(step.state, step.reason or f"run {run.short}"))
    return found


def log(notes: Notes, run: Run, step: int | None = None, since: int = 0) -> tuple[LogLine, ...]:
    """Lines of a run's log after the first ``since``, of one step or of all."""
    path = notes.path(f"{run_notes.folder(run.repository)}/{run.id}.log")
    try:
        raw = notes.doors.files.read_file(path, _LOG_LIMIT)
    except OSError:
        return ()
    lines = (_log_line(line) for line in raw.decode("utf-8", "replace").splitlines()[since:])
    return tuple(line for line in lines if step is None or line.step == step)


def _log_line(text: str) -> LogLine:
    try:
        data = json.loads(text)
        return LogLine(float(data["when"]), int(data["step"]), printable(data["text"]))
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return LogLine(0.0, 0, printable(text))


def _run(notes: Notes, run: RunNote, now: float) -> Run:
    alive = run.process is not None and notes.alive(run.process)
    steps = tuple(_step(notes, run, step, alive, now) for step in run.steps)
    state, reason = run.state, run.reason
    if run.process is None and run.state is RunState.WAITING and not run.ended:
        if now - run.saved > _STARTING_S:
            state, reason = RunState.FAILED, "Its process never began. Resume: r"
        else:
            alive, reason = True, "its process starts"
    elif run.process is not None and not alive:
        state, reason = RunState.FAILED, _died(run, steps)
    resumable = not alive and not all(step.over for step in steps)
    return Run(
        run.id, run.plan, printable(run.repo_id), run.repository, printable(run.host), run.started, run.ended,
        state, reason, steps, alive, run.process.pid if run.process else 0, run.saved, resumable,
    )  # fmt: skip


def _died(run: RunNote, steps: tuple[RunStep, ...]) -> str:
    pid = run.process.pid if run.process else 0
    goes_on = next((step for step in steps if step.state in _UNDER_WAY), None)
    alone = f" Step {goes_on.number} goes on by itself." if goes_on else ""
    return f"The process of the run ({pid}) has ended. Last save {moment(run.saved)}.{alone} Resume: r"


def _step(notes: Notes, run: RunNote, step: StepNote, run_alive: bool, now: float) -> RunStep:
    state, reason = step.state, step.reason
    if state in _UNDER_WAY and not run_alive:
        if step.process is not None and notes.alive(step.process):
            reason = "its runner goes on, the process of the run has ended"
        else:
            state, reason = RunState.FAILED, "its runner ended with the run; what it did is kept"
    row = RunStep(
        step.number, step.key, str(step.fix.type), printable(step.fix.rule), step.fix.target, step.name, state, reason,
        step.started, step.ended, step.attempts, step.error, step.code,
        freed_bytes=step.fix.cost.reclaimed_bytes if state is RunState.DONE else 0,
        taken_bytes=step.fix.cost.peak_extra_bytes if state is RunState.DONE else 0,
        exact=step.fix.cost.exact,
        images=step.fix.images,
        samples=run_notes.samples(notes, run).get(step.number, ()),
    )  # fmt: skip
    if state in _UNDER_WAY:
        return _with_progress(row, notes.glance(run_notes.progress_name(run), {}), now)
    return row


def _with_progress(row: RunStep, note: Mapping[str, Any], now: float) -> RunStep:
    try:
        if note["step"] != row.number or float(note["when"]) < row.started - 1:
            return row
        percent, size = max(-1, min(100, int(note["percent"]))), max(0, int(note["size_bytes"]))
        rate = max(0.0, float(note["rate"]))
        row = row._replace(
            stage=int(note["stage"]), stages=int(note["stages"]), stage_name=printable(note["stage_name"]),
            percent=percent, saved_at=float(note["when"]), rate=rate,
            samples=(*row.samples, *run_notes.samples_of(note.get("samples"))),
        )  # fmt: skip
    except (TypeError, ValueError, KeyError, OverflowError):
        return row
    if percent < 0:
        return row
    row = row._replace(pace=pace_of(row.samples, size, now) if row.state is RunState.RUNNING else "")
    done = size * percent // 100
    left = TimeRange()
    if rate:
        seconds = (size - done) / rate
        left = TimeRange(seconds * (1 - _RATE_SPREAD), seconds * (1 + _RATE_SPREAD), "from the rate of this step")
    old = RunState.OLD if now - row.saved_at > OLD_AFTER_S and row.state is RunState.RUNNING else row.state
    return row._replace(state=old, bytes_done=done, bytes_total=size, left=left)
