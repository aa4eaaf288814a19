"""Runs: steps in order, failures that stop only their dependants, stopping, dying, and going on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from engine.data.model import OperationStatus
from engine.errors import Conflict, NotFound, Refused
from tests.console_model.conftest import Demo
from tests.console_model.kit import until
from tests.doors.children import frozen, gate
from tui.text.words import RunState
from tui.view import live
from tui.view.estimates import Times, load
from tui.view.fixes import FixRow
from tui.view.gather import gather, operation_row
from tui.view.plan import Plan, make
from tui.work import plans, run_notes, runs
from tui.work.batch import Batch
from tui.work.journal import Journal
from tui.work.run_notes import RunNote
from tui.work.runs import Run
from tui.work.step_watch import Watch


def plan_of(demo: Demo, *names: str) -> Plan:
    """A plan for the fixes of these images, in this order; "type name" or a rule."""
    view = gather(demo.engine, "demo")
    rows = [_row(view.fixes, name) for name in names]
    return make(view, rows, Times(), 1.0, 0.0)


def _row(rows: tuple[FixRow, ...], name: str) -> FixRow:
    return next(row for row in rows if name in (row.rule, row.name, row.what))


def execute(demo: Demo, plan: Plan, stopping=lambda: False, **steps) -> RunNote:
    """A run of a plan in this process, as the process of a run does it."""
    run = run_notes.of_plan(plan, "1" * 32, 1.0, "host-a")
    for number, changed in steps.items():
        step = run.steps[int(number[1:]) - 1]
        run = run.with_step(step._replace(**changed))
    run_notes.save(demo.notes, run)
    return Batch(demo.engine, demo.notes, run, stopping, lambda line: None).execute()


def states(run: RunNote | Run) -> list[str]:
    return [str(step.state) for step in run.steps]


def ended(demo: Demo, run_id: str) -> Run:
    until(demo.engine, lambda: not runs.get_run(demo.notes, demo.identity, run_id).alive)
    return runs.get_run(demo.notes, demo.identity, run_id)


def test_a_run_does_what_its_plan_says(demo: Demo):
    """A process of its own executes the steps, writes down each, and what it did is on the disk."""
    plan = plan_of(demo, "mail-spool", "web-db", "clean (removed) ci-4411")
    run = ended(demo, runs.start(demo.engine, demo.notes, plan, irreversible=True))
    assert run.state is RunState.DONE and run.reason == "3 done" and states(run) == ["DONE"] * 3
    view = gather(demo.engine, "demo")
    assert view.counts == plan.counts_after
    assert runs.log(demo.notes, run)[0].text == "3 steps; 3 to do"
    assert any("begins in process" in line.text for line in runs.log(demo.notes, run, 2))
    assert plans.load(demo.notes, demo.identity, plan.id) == plan
    events = Journal(demo.notes, demo.identity).events()
    assert [event.kind for event in events].count("done") == 4


def test_a_run_measures_for_later_estimates(demo: Demo):
    """After a run its kind of step has an estimate."""
    row = plan_of(demo, "web-01").steps[0].row
    execute(demo, plan_of(demo, "web-01"))
    assert load(demo.notes, demo.identity).of(row).known


def test_a_step_may_follow_from_a_step_before(demo: Demo):
    """Steps change what later ones were computed from: what only this run has changed does not stop it."""
    plan = plan_of(demo, "web-01", "ci-runner", "M-CHAIN", "build-cache-before", "build-cache")
    assert states(execute(demo, plan)) == ["DONE"] * 5


def test_a_failure_does_not_stop_independent_steps(demo: Demo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """With no tools a copy fails; cleaning still runs; what needs the failed step is blocked and says so."""
    plan = plan_of(demo, "web-db", "clean (removed) ci-4411", "mail-spool")
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    run = execute(demo, plan, n3={"after_steps": (1,)})
    assert states(run) == ["FAILED", "DONE", "WAITING"]
    assert "qemu" in run.steps[0].reason and run.steps[0].code == "tool-missing"
    assert run.steps[2].reason == "blocked: step 1, mend web-db, is FAILED"
    assert run.state is RunState.FAILED and run.reason == "1 done, 1 failed, 1 not begun"


def test_a_failed_run_is_resumed(demo: Demo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Resuming does what is left, and does nothing again that is done."""
    plan = plan_of(demo, "web-db", "clean (removed) ci-4411")
    (tmp_path / "empty").mkdir()
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path / "empty"))
        execute(demo, plan)
    runs.resume(demo.engine, demo.notes, demo.identity, "1" * 32)
    run = ended(demo, "1" * 32)
    assert states(run) == ["DONE", "DONE"] and [step.attempts for step in run.steps] == [2, 1]
    assert not run.resumable


def test_what_somebody_else_has_done_is_gone(demo: Demo):
    """A fix that is not needed any more is GONE with who did it, and the run is still a success."""
    plan = plan_of(demo, "mail-spool", "web-db")
    demo.engine.run_fix_here("demo", plan.steps[0].row.fix())
    run = execute(demo, plan)
    assert states(run) == ["GONE", "DONE"] and run.state is RunState.DONE
    assert "optimized now; last: import by host host-a" in run.steps[0].reason


def test_what_somebody_else_has_changed_is_not_run(demo: Demo):
    """A plan is what was shown: when another hand changed the image the step is not run."""
    plan = plan_of(demo, "web-01")
    demo.engine.set_user_data("demo", demo.ids["web-01"], {"changed": True})
    run = execute(demo, plan)
    assert states(run) == ["REJECTED"] and "somebody else has changed image" in run.steps[0].reason
    assert gather(demo.engine, "demo").image(demo.ids["web-01"]).state == "degraded"  # type: ignore[union-attr]


def test_the_reserve_is_kept_at_run_time_too(demo: Demo):
    """A step for which there is no room any more is refused before it touches anything."""
    plan = plan_of(demo, "web-01")
    run = execute(demo, plan._replace(reserve_bytes=1 << 60))
    assert states(run) == ["REJECTED"] and "kept free" in run.steps[0].reason


def test_a_step_whose_image_is_in_use_waits_and_then_runs(demo: Demo):
    """WAITING names the holder; when that has gone the step is done."""
    plan = plan_of(demo, "web-01", "clean (removed) ci-4411")
    prepared = demo.engine.prepare_image("demo", demo.ids["web-01"], writable=False)
    run_id = runs.start(demo.engine, demo.notes, plan, irreversible=True)

    def waiting() -> Run | None:
        run = runs.get_run(demo.notes, demo.identity, run_id)
        return run if states(run) == ["WAITING", "DONE"] and run.steps[0].reason else None

    assert "in use" in until(demo.engine, waiting).steps[0].reason
    assert runs.marked(runs.list_runs(demo.notes, demo.identity))[plan.steps[0].row.key].state is RunState.WAITING
    demo.engine.teardown_image("demo", demo.ids["web-01"])
    assert states(ended(demo, run_id)) == ["DONE", "DONE"]
    assert prepared.image == demo.ids["web-01"]


@pytest.fixture
def waiting(demo: Demo) -> tuple[Demo, str, Run]:
    """A run whose only step waits for an image that is prepared."""
    plan = plan_of(demo, "web-01")
    demo.engine.prepare_image("demo", demo.ids["web-01"], writable=False)
    run_id = runs.start(demo.engine, demo.notes, plan, irreversible=True)

    def found() -> Run | None:
        run = runs.get_run(demo.notes, demo.identity, run_id)
        return run if run.pid and run.steps[0].reason else None

    return demo, run_id, until(demo.engine, found)


def test_a_run_is_stopped_and_resumed(waiting: tuple[Demo, str, Run]):
    """Stopping keeps what is done and leaves a run that can go on."""
    demo, run_id, _ = waiting
    runs.stop(demo.engine, demo.notes, demo.identity, run_id)
    run = ended(demo, run_id)
    assert run.state is RunState.STOPPED and run.resumable
    demo.engine.teardown_image("demo", demo.ids["web-01"])
    runs.resume(demo.engine, demo.notes, demo.identity, run_id)
    assert states(ended(demo, run_id)) == ["DONE"]


def test_a_killed_run_is_seen_and_resumed(waiting: tuple[Demo, str, Run]):
    """kill -9 of the process of a run: every console sees it from the notes alone, and the run goes on where it was."""
    demo, run_id, run = waiting
    os.kill(run.pid, signal.SIGKILL)
    dead = ended(demo, run_id)
    assert dead.state is RunState.FAILED and dead.resumable
    assert f"({run.pid}) has ended" in dead.reason and "Resume: r" in dead.reason
    demo.engine.teardown_image("demo", demo.ids["web-01"])
    runs.resume(demo.engine, demo.notes, demo.identity, run_id)
    assert states(ended(demo, run_id)) == ["DONE"]


def test_resuming_a_run_that_is_about_to_end_waits_for_its_end(waiting: tuple[Demo, str, Run]):
    """Asked to stop and resumed at once, it stops and goes on: nobody has to press the key again."""
    demo, run_id, run = waiting
    runs.stop(demo.engine, demo.notes, demo.identity, run_id)
    runs.resume(demo.engine, demo.notes, demo.identity, run_id, lambda: True)
    demo.engine.teardown_image("demo", demo.ids["web-01"])
    again = ended(demo, run_id)
    assert states(again) == ["DONE"] and again.pid != run.pid
    with pytest.raises(Refused):
        runs.resume(demo.engine, demo.notes, demo.identity, run_id)


def test_only_one_run_at_a_time(waiting: tuple[Demo, str, Run]):
    """A second run and a second executor of the same run are refused while one lives."""
    demo, run_id, _ = waiting
    with pytest.raises(Conflict):
        runs.start(demo.engine, demo.notes, plan_of(demo, "web-db"), irreversible=False)
    with pytest.raises(Conflict):
        runs.resume(demo.engine, demo.notes, demo.identity, run_id)
    demo.engine.teardown_image("demo", demo.ids["web-01"])
    ended(demo, run_id)


def test_a_step_that_is_stopped_is_stopped(demo: Demo):
    """A fix that is asked to stop is STOPPED, not FAILED, and those after it are not begun."""
    asked: list[bool] = []
    run = run_notes.of_plan(plan_of(demo, "web-db", "mail-spool"), "1" * 32, 1.0, "host-a")
    run_notes.save(demo.notes, run)

    def say(line: str) -> None:
        asked.append("begins in process" in line or any(asked))

    done = Batch(demo.engine, demo.notes, run, lambda: any(asked), say).execute()
    assert states(done) == ["STOPPED", "WAITING"] and done.state is RunState.STOPPED
    assert done.steps[1].reason == "the run was stopped before it began"
    runs.resume(demo.engine, demo.notes, demo.identity, run.id)
    assert states(ended(demo, run.id)) == ["DONE", "DONE"]


def test_a_fix_goes_on_when_its_run_dies_and_is_found_again(demo: Demo):
    """The runner of a step is a process of its own: the next executor follows it instead of starting another."""
    plan = plan_of(demo, "web-db")
    with frozen(demo.engine.doors.processes):
        task = demo.engine.fix_storage_repository("demo", plan.steps[0].row.fix())
    run = run_notes.of_plan(plan, "1" * 32, 1.0, "host-a")
    begun = run.steps[0]._replace(state=RunState.RUNNING, task=task.id, log=task.log, process=task.process, attempts=1)
    run = run.with_step(begun)._replace(process=task.process._replace(pid=1 << 22, started=1))
    run_notes.save(demo.notes, run)
    seen = runs.get_run(demo.notes, demo.identity, run.id)
    assert seen.state is RunState.FAILED and "goes on by itself" in seen.reason
    assert seen.steps[0].state is RunState.RUNNING
    os.kill(task.process.pid, signal.SIGCONT)
    done = Batch(demo.engine, demo.notes, run, lambda: False, lambda line: None).execute()
    assert states(done) == ["DONE"] and done.steps[0].attempts == 1


def test_a_runner_that_is_killed_is_a_failure_with_a_reason(
    demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """kill -9 of the process of a step: FAILED, and what it did is kept."""
    plan = plan_of(demo, "web-db", "clean (removed) ci-4411")
    run = run_notes.of_plan(plan, "1" * 32, 1.0, "host-a")
    run_notes.save(demo.notes, run)

    def say(line: str) -> None:
        if "begins in process" in line and '"step": 1' in line:
            os.kill(int(line.split("process ")[1].rstrip('"}')), signal.SIGKILL)
            copying.open()

    with gate(tmp_path / "held") as copying:
        monkeypatch.setenv("PATH", copying.path)
        done = Batch(demo.engine, demo.notes, run, lambda: False, say).execute()
    assert states(done) == ["FAILED", "DONE"]
    assert "ended before it was done" in done.steps[0].reason
    assert "killed" in {event.kind for event in Journal(demo.notes, demo.identity).events()}


def test_a_run_that_never_began_is_told(demo: Demo):
    """A console that died between writing the run and starting its process leaves a run that can be resumed."""
    run = run_notes.of_plan(plan_of(demo, "web-db"), "1" * 32, 1.0, "host-a")
    run_notes.save(demo.notes, run._replace(saved=1.0))
    seen = runs.get_run(demo.notes, demo.identity, run.id)
    assert seen.state is RunState.FAILED and seen.resumable and "never began" in seen.reason


def test_a_plan_that_must_not_run_is_refused(demo: Demo):
    """A refused plan and an empty one start nothing."""
    plan = plan_of(demo, "web-db")
    for wrong in (plan._replace(refused="no room"), plan._replace(steps=())):
        with pytest.raises(Refused):
            runs.start(demo.engine, demo.notes, wrong, irreversible=True)
    assert runs.list_runs(demo.notes, demo.identity) == ()


def test_unknown_runs_are_named(demo: Demo):
    """Stopping what does not run, and resuming what is not there, are errors with a sentence."""
    with pytest.raises(NotFound):
        runs.resume(demo.engine, demo.notes, demo.identity, "f" * 32)
    execute(demo, plan_of(demo, "build-cache"))
    with pytest.raises(NotFound, match="nothing of run"):
        runs.stop(demo.engine, demo.notes, demo.identity, "1" * 32)


@pytest.mark.parametrize("text", ["", "{}", '{"id": 7}', "[[["])
def test_damaged_notes_of_runs_are_left_out(demo: Demo, text: str):
    """A run whose note makes no sense is not listed, and the others are."""
    execute(demo, plan_of(demo, "build-cache"))
    folder = Path(demo.notes.path(run_notes.folder(demo.identity)))
    (folder / f"{'2' * 32}.json").write_text(text, encoding="utf-8")
    assert [run.id for run in runs.list_runs(demo.notes, demo.identity)] == ["1" * 32]


def test_progress_of_the_running_step_is_read_from_its_note(demo: Demo):
    """Stage, percent, rate and a range for what is left come from what the process wrote; nonsense is no progress."""
    run = run_notes.of_plan(plan_of(demo, "web-db"), "1" * 32, 1.0, "host-a")
    own = demo.engine.doors.processes.own()
    step = run.steps[0]._replace(state=RunState.RUNNING, process=own, started=5.0)
    run = run.with_step(step)._replace(process=own, state=RunState.RUNNING)
    run_notes.save(demo.notes, run)
    now = demo.engine.doors.clock.wall()
    note = {"step": 1, "stage": 2, "stages": 3, "stage_name": "copy data", "percent": 40, "when": now,
            "size_bytes": 1000, "rate": 60.0}  # fmt: skip
    demo.notes.write_quickly(run_notes.progress_name(run), note)
    seen = runs.get_run(demo.notes, demo.identity, run.id).current
    assert seen is not None and (seen.stage, seen.stages, seen.percent, seen.bytes_done) == (2, 3, 40, 400)
    assert seen.left.low_s == pytest.approx(7.0) and seen.left.high_s == pytest.approx(13.0)
    demo.notes.write_quickly(run_notes.progress_name(run), note | {"when": now - 100})
    old = runs.get_run(demo.notes, demo.identity, run.id).steps[0]
    assert old.state is RunState.OLD
    for wrong in ({}, note | {"percent": "x"}, note | {"step": 9}, note | {"when": 1.0}):
        demo.notes.write_quickly(run_notes.progress_name(run), wrong)
        assert runs.get_run(demo.notes, demo.identity, run.id).steps[0].percent == -1


@pytest.mark.parametrize("before", [0, 24])
def test_a_step_is_counted_from_its_beginning(before: int, demo: Demo, monkeypatch: pytest.MonkeyPatch):
    """What was moved before the first look at it is work of it; what an earlier attempt had moved is not."""
    run = run_notes.of_plan(plan_of(demo, "web-db"), "2" * 32, 1.0, "host-a")
    now = demo.engine.doors.clock.wall()
    status = OperationStatus("copy", "host-a", 2, 3, 32, "", now, "copy data")
    seen = operation_row("", "web-db", status, "host-a", 1000)
    monkeypatch.setattr(live, "operation", lambda *given: seen)
    watch = Watch(demo.engine, run, run.steps[0]._replace(started=now - 0.2), before * 10)
    assert watch.look()
    assert [done for _, done in watch.samples] == [before * 10, 320] and watch.samples[0][0] == now - 0.2


def test_discard_gives_up_unfinished_work_only(demo: Demo):
    """A broken copy is removed and can be restored; an image that is usable is left alone."""
    assert "restore undoes" in runs.discard(demo.engine, "demo", demo.ids["web-db"])
    assert gather(demo.engine, "demo").counts.removed == 3
    with pytest.raises(Refused, match="is degraded"):
        runs.discard(demo.engine, "demo", demo.ids["web-01"])


def test_old_runs_are_forgotten(demo: Demo):
    """The newest 50 runs are kept, with their files."""
    plan = plan_of(demo, "build-cache")
    for number in range(55):
        run = run_notes.of_plan(plan, f"{number:032x}", float(number), "host-a")
        run_notes.save(demo.notes, run._replace(state=RunState.DONE, ended=1.0))
    run_notes.forget_old(demo.notes, demo.identity)
    kept = runs.list_runs(demo.notes, demo.identity)
    assert len(kept) == 50 and kept[0].started == 54.0


def test_what_a_step_had_done_when_is_kept_for_pictures(demo: Demo):
    """Attempts are added to each other, a damaged note is none, and it goes with its run."""
    run = run_notes.of_plan(plan_of(demo, "web-db"), "2" * 32, 1.0, "host-a")
    notes = demo.notes
    run_notes.save(notes, run)
    run_notes.add_samples(notes, run, 1, [(10.0, 0), (11.0, 4096)])
    run_notes.add_samples(notes, run, 1, [(20.0, 4096), (21.0, 8192)])
    assert runs.get_run(notes, run.repository, run.id).steps[0].samples == (
        (10.0, 0), (11.0, 4096), (20.0, 4096), (21.0, 8192),
    )  # fmt: skip
    damaged = {"1": [[1, "x"], "y", [2.0, -5], [3.0, 7]], "two": [[1.0, 1]]}
    notes.write(f"{run_notes.folder(run.repository)}/{run.id}.samples", damaged)
    assert runs.get_run(notes, run.repository, run.id).steps[0].samples == ((3.0, 7),)
