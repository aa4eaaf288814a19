"""The process that executes a run: ``python -m tui.work.batch HOST STATE IDENTITY RUN``.

It starts the fixes one after the other, each in a runner of its own as every other command does, and
writes down what became of each before it goes on. It needs no console: consoles read what it wrote.
Killed at any moment it leaves a run that can be resumed; the fix that was running goes on by itself.
SIGTERM: stop the running fix at its next save, and the run with it.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Callable
from typing import Any

from engine.api import Engine
from engine.assembly import real_doors
from engine.data.model import Fix
from engine.doors.clock import Clock
from engine.errors import Conflict, DiskwrightError, ImageBusy, NotFound, Refused, StaleFix, from_os_error
from engine.host.state import Task
from engine.tools.local.leases import OfdLeases
from tui.notes import Notes
from tui.text.amounts import compact
from tui.text.printable import printable
from tui.text.words import RunState
from tui.view import estimates
from tui.work import away, run_notes
from tui.work.find_again import require_ours, why_gone
from tui.work.journal import Event, Journal
from tui.work.noted import NotedEngine
from tui.work.run_notes import RunNote, StepNote
from tui.work.step_watch import Watch, found_done

PATIENCE_S = 60.0
"""A step whose image is in use is tried again for so long after all others."""
_AGAIN_S = 1.0
_LOOK_S = 0.25
_HANDOVER_S = 5.0
_ENDINGS = (RunState.DONE, RunState.GONE, RunState.FAILED, RunState.REJECTED, RunState.STOPPED, RunState.WAITING)
_ENDED_BADLY = "its process ended before it was done; what it did is kept"


class Batch:
    """One execution of a run."""

    def __init__(
        self, engine: Engine, notes: Notes, run: RunNote, stopping: Callable[[], bool], say: Callable[[str], None]
    ) -> None:
        self._engine = engine
        self._notes = notes
        self._run = run
        self._stopping = stopping
        self._say = say
        self._clock = engine.doors.clock
        self._journal = Journal(notes, run.repository)

    def execute(self) -> RunNote:
        """Do what is left of the run; returns it as it is persisted then."""
        self._save(state=RunState.RUNNING, reason="", ended=0.0, process=self._engine.doors.processes.own())
        steps = len(self._run.steps)
        self._tell(None, f"{steps} step{'' if steps == 1 else 's'}; {self._left()} to do", "run")
        pending = [step.number for step in self._run.steps if self._wanted(step)]
        deadline = self._clock.monotonic() + PATIENCE_S
        pending = self._round(pending)
        while pending and not self._stopping() and self._clock.monotonic() < deadline:
            self._pause()
            pending = self._round(pending)
        for number in pending if not self._stopping() else ():
            step = self._step(number)
            if self._blocked(step):
                self._put(step._replace(reason=self._blocked(step)))
            else:
                self._end(step, RunState.FAILED, step.reason, ImageBusy.code)
        self._finish()
        return self._run

    def _pause(self) -> None:
        until = self._clock.monotonic() + _AGAIN_S
        while self._clock.monotonic() < until and not self._stopping():
            self._clock.sleep(_LOOK_S / 5)

    def _round(self, pending: list[int]) -> list[int]:
        """Try each of these steps once; returns those that are to be tried again."""
        again: list[int] = []
        for number in pending:
            if not self._try(number, again):
                again.append(number)
        return again

    def _step(self, number: int) -> StepNote:
        return self._run.steps[number - 1]

    @staticmethod
    def _wanted(step: StepNote) -> bool:
        return step.state not in (RunState.DONE, RunState.GONE)

    def _left(self) -> int:
        return sum(self._wanted(step) for step in self._run.steps)

    # -- one step

    def _try(self, number: int, pending: list[int]) -> bool:
        """Bring a step to an end; False when its image is in use, or it needs one of ``pending``: it is to be
        tried again."""
        step = self._step(number)
        if self._stopping():
            self._put(step._replace(state=RunState.WAITING, reason="the run was stopped before it began"))
            return True
        blocked = self._blocked(step)
        if blocked:
            self._put(step._replace(state=RunState.WAITING, reason=blocked))
            self._tell(step, f"not begun: {blocked}", "")
            return not set(step.after_steps) & set(pending)
        try:
            task, done_before = self._begin(step)
        except ImageBusy as error:
            self._put(step._replace(state=RunState.WAITING, reason=printable(error.message), code=error.code))
            return False
        except (StaleFix, NotFound) as error:
            self._end(step, RunState.GONE, error.message, error.code)
        except Refused as error:
            self._end(step, RunState.REJECTED, error.message, error.code)
        except DiskwrightError as error:
            self._end(step, RunState.FAILED, str(error), error.code)
        else:
            self._follow(number, task, done_before)
        return True

    def _blocked(self, step: StepNote) -> str:
        """Why a step cannot begin because of others, "" when it can."""
        for number in step.after_steps:
            other = self._step(number)
            if other.state not in (RunState.DONE, RunState.GONE):
                return f"blocked: step {number}, {other.what}, is {other.state}"
        return ""

    def _begin(self, step: StepNote) -> tuple[Task, int]:
        """The task of the step, the one that still runs from before or a new one, and the bytes done before it."""
        for task in self._engine.list_tasks():
            if task.id == step.task:
                self._tell(step, f"goes on in process {task.process.pid}", "resumed")
                self._put(step._replace(state=RunState.RUNNING, reason="", process=task.process))
                return task, 0
        shown = [step.fix]

        def accept(now: Fix) -> None:
            require_ours(self._run, step, now)
            self._require_room(now)
            shown.append(now)

        # The operator was shown the step as it was noted: what has become irreversible since then is refused.
        allowed = {"irreversible": step.fix.irreversible}
        done_before = found_done(self._engine, self._run.repo_id, step)
        try:
            task = self._engine.fix_storage_repository(self._run.repo_id, step.fix, allowed, accept)
        except StaleFix:
            raise why_gone(self._engine, self._run, step) from None
        now = self._clock.wall()
        self._put(
            step._replace(
                fix=shown[-1], state=RunState.RUNNING, reason="", started=now, ended=0.0, error="", code="",
                attempts=step.attempts + 1, task=task.id, log=task.log, process=task.process,
            )
        )  # fmt: skip
        again = f", attempt {step.attempts + 1}" if step.attempts else ""
        self._tell(step, f"begins in process {task.process.pid}{again}", "resumed" if step.attempts else "run")
        return task, done_before

    def _require_room(self, fix: Fix) -> None:
        peak = fix.cost.peak_extra_bytes
        if peak <= 0:
            return
        _, free = self._engine.context.repository(self._run.repo_id).space()
        if free - peak < self._run.reserve_bytes:
            kept = compact(self._run.reserve_bytes)
            raise Refused(f"it needs {compact(peak)}, {compact(free)} are free, and {kept} are kept free", "Make room")

    # -- following

    def _follow(self, number: int, task: Task, done_before: int) -> None:
        watch = Watch(self._engine, self._run, self._step(number), done_before)
        asked = False
        while self._engine.task_is_running(task):
            if self._stopping() and not asked:
                asked = True
                self._engine.doors.processes.terminate(task.process)
                self._put(self._step(number)._replace(state=RunState.STOPPING, reason="it stops at its next save"))
                self._save(state=RunState.STOPPING)
            if watch.look():
                self._notes.write_quickly(run_notes.progress_name(self._run), watch.note())
            for text in watch.fresh:
                self._tell(self._step(number), text, "")
            self._clock.sleep(_LOOK_S / 5 if not watch.begun else _LOOK_S)
        if watch.samples:
            run_notes.add_samples(self._notes, self._run, number, watch.samples)
        self._judge(number, task, asked)
        with contextlib.suppress(DiskwrightError):
            away.settle(self._notes, {task.id})

    def _judge(self, number: int, task: Task, asked: bool) -> None:
        """What became of a task that has ended; ``asked``: it was asked to stop, which it may have heard before it
        could say anything."""
        step = self._step(number)
        last = [event for event in self._engine.task_events(task) if event.get("event") in ("done", "stale", "failed")]
        event: dict[str, Any] = last[-1] if last else {}
        text, code = printable(event.get("error", "")), printable(event.get("code", ""))
        if event.get("event") == "done":
            self._end(step, RunState.DONE, "", "")
            seconds = self._clock.wall() - step.started
            sample = estimates.Sample(str(step.fix.type), step.fix.rule, step.io_bytes, max(0.0, seconds))
            if step.attempts == 1:
                estimates.note(self._notes, self._run.repository, sample)
        elif event.get("event") == "stale":
            self._end(step, RunState.GONE, text, code)
        elif code == "stopped" or (asked and not event):
            self._end(step, RunState.STOPPED, "stopped by the operator; what it did is kept", "stopped")
        elif event:
            self._end(step, RunState.FAILED, text, code)
        else:
            self._end(step, RunState.FAILED, _ENDED_BADLY, "ended")

    # -- writing down

    def _end(self, step: StepNote, state: RunState, reason: str, code: str) -> None:
        error = reason if state in (RunState.FAILED, RunState.REJECTED) else ""
        now = self._clock.wall()
        self._put(step._replace(state=state, reason=printable(reason), error=printable(error), code=code, ended=now))
        kinds = {RunState.DONE: "done", RunState.FAILED: "failed", RunState.STOPPED: "stopped"}
        kind = "killed" if code == "ended" else kinds.get(state, "run")
        self._tell(step, f"{state}{f': {printable(reason)}' if reason else ''}", kind)

    def _put(self, step: StepNote) -> None:
        self._run = self._run.with_step(step)
        self._save()

    def _save(self, **changed: Any) -> None:
        self._run = self._run._replace(**changed, saved=self._clock.wall())
        run_notes.save(self._notes, self._run)

    def _tell(self, step: StepNote | None, text: str, kind: str) -> None:
        """A line of the log; one with a ``kind`` names its fix and goes into the journal too."""
        now = self._clock.wall()
        shown = f"{step.what}: {text}" if step and kind else text
        self._say(json.dumps({"when": now, "step": step.number if step else 0, "text": shown}))
        if kind:
            image, name = (step.fix.target, step.name) if step else ("", "")
            what = f"step {step.number}, {step.what}: {text}" if step else f"run {self._run.plan[:4]}: {text}"
            self._journal.add([Event(now, self._run.host, kind, image, name, what)])

    def _finish(self) -> None:
        states = [step.state for step in self._run.steps]
        done = sum(state in (RunState.DONE, RunState.GONE) for state in states)
        if done == len(states):
            state = RunState.DONE
        elif RunState.FAILED in states or RunState.REJECTED in states:
            state = RunState.FAILED
        else:
            state = RunState.STOPPED if self._stopping() or RunState.STOPPED in states else RunState.FAILED
        summary = self.summary()
        self._save(state=state, reason=summary, ended=self._clock.wall(), process=None)
        self._notes.remove(run_notes.progress_name(self._run))
        self._tell(
            None, f"{state}: {summary}", {RunState.DONE: "done", RunState.STOPPED: "stopped"}.get(state, "failed")
        )

    def summary(self) -> str:
        """How many steps came to which end."""
        states = [step.state for step in self._run.steps]
        words = {RunState.WAITING: "not begun"}
        counts = [(states.count(state), words.get(state, str(state).lower())) for state in _ENDINGS]
        return ", ".join(f"{count} {word}" for count, word in counts if count)


def main(arguments: list[str]) -> int:
    """Entry point of the process."""
    requests: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: requests.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C in the terminal is for its follower
    host, state, identity, run_id = arguments
    engine = NotedEngine(real_doors(host, state), state, "run")
    notes = engine.notes
    try:
        lock = _lock(notes, identity, run_id)
        run = run_notes.read(notes, identity, run_id)
        if run is None:
            raise NotFound(f"there is no run {run_id}", "Plan again")
        engine.face = f"run {run.plan[:4]}"
        ended = Batch(engine, notes, run, lambda: bool(requests), _print).execute()
        lock.release()
    except DiskwrightError as error:
        _print(json.dumps({"when": 0, "step": 0, "text": str(error)}))
        return error.exit_code
    finally:
        engine.close()
    return 0 if ended.state is RunState.DONE else 1


def _lock(notes: Notes, identity: str, run_id: str) -> Any:
    """Only one process executes a run. Its own set of leases: no program that a fix starts may carry it on."""
    path, leases = notes.path(f"{run_notes.folder(identity)}/{run_id}.lock"), OfdLeases()
    try:
        with contextlib.suppress(FileExistsError):
            notes.doors.files.create(path).close()
        lock = _patiently(notes.doors.clock, lambda: leases.try_acquire(path, 0, shared=False))
    except OSError as error:
        raise from_os_error(error, "lock the run") from error
    if lock is None:
        raise Conflict(f"another process executes run {run_id}", "Wait for it")
    return lock


def _patiently(clock: Clock, acquire: Callable[[], Any]) -> Any:
    """What ``acquire`` gives: the process that was before us lets go a moment after it has said that it is done."""
    deadline = clock.monotonic() + _HANDOVER_S
    while (lock := acquire()) is None and clock.monotonic() < deadline:
        clock.sleep(_LOOK_S / 5)
    return lock


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
