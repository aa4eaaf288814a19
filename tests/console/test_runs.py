"""The page of runs: every step says why it is as it is, and what others did is only touched after a question."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from engine.api import Engine
from engine.errors import Conflict, StorageError
from tests.console.kit import (
    NOW,
    FixedSite,
    MiB,
    console,
    ident,
    idle,
    press,
    run_step,
    running,
    sample_run,
    sample_view,
    screen_text,
    told,
)
from tui.console.draw.lines import plain
from tui.console.pages.runs.page import RunsPage
from tui.console.widgets.table import Table
from tui.notes import Notes
from tui.text.words import RunState
from tui.view import live
from tui.work import runs
from tui.work.runs import LogLine, Run

_LONG = "qemu-nbd is not installed on this host. Install the package qemu-utils, then resume the run with r"


def batch_of_twenty() -> Run:
    """One failed, one that needs it, eight that wait for their turn, ten done."""
    failed = run_step(1, "mend", 1, RunState.FAILED, reason=_LONG, ended=NOW)
    blocked = run_step(2, "optimize", 1, RunState.WAITING, reason="blocked: step 1, mend web-db, is FAILED")
    done = [run_step(number, "optimize", 8 + number, RunState.DONE) for number in range(3, 13)]
    rest = [run_step(number, "clean", 4, RunState.WAITING) for number in range(13, 21)]
    return sample_run()._replace(
        state=RunState.FAILED, reason="10 done, 1 failed, 9 not begun", alive=False, ended=NOW, resumable=True,
        steps=(failed, blocked, *done, *rest),
    )  # fmt: skip


async def test_a_batch_of_twenty_tells_of_every_step(tmp_path: Path) -> None:
    """What failed tells all of its reason however narrow the screen is, what waits tells for what, and the end is
    summed up."""
    site = FixedSite(tmp_path / "state", [sample_view()], [batch_of_twenty()])
    async with running(console(site), (80, 60)) as pilot:
        await press(pilot, "3")
        shown = screen_text(pilot.app)
        steps = shown.partition("Other unfinished")[0].replace("│", " ").replace("┃", " ")
        assert _LONG in " ".join(steps.split())
        assert "blocked: step 1, mend web-db, is FAILED" in " ".join(steps.split())
        waiting = re.findall(r"WAITING +\d+ clean .*", steps)
        assert len(waiting) == 8 and all("waits for its turn" in row for row in waiting)
        assert "10 done, 1 failed, 9 not begun" in shown
        page = cast(RunsPage, pilot.app.page("runs"))
        await press(pilot, "down")
        assert page.step_number() == 1, "the second line of a step is the step too"


@pytest.mark.parametrize("percent", [-1, 41])
async def test_a_number_is_shown_only_when_it_is_known(percent: int, tmp_path: Path) -> None:
    """Without a percent no bar and no number; with one the bytes, the rate and a range of time too."""
    run = sample_run()
    step = run.steps[1]._replace(percent=percent, rate=96.0 * MiB if percent >= 0 else 0.0)
    site = FixedSite(tmp_path / "state", [sample_view()], [run._replace(steps=(step,))])
    async with running(console(site)) as pilot:
        await press(pilot, "3")
        bar = screen_text(pilot.app).splitlines()[4]
        if percent < 0:
            assert "no % is given" in bar and not re.search(r"\d+%|█|░", bar)
        else:
            assert re.search(r"█+░+ +41%  4.0G of 10.0G  96.0M/s  left 60s-2m", bar)


async def test_giving_work_up_needs_the_name_and_is_not_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X asks; enter, esc and a wrong word keep; s is another key and asks nothing."""
    given_up: list[str] = []

    def discard(engine: Engine, repo_id: str, image: str) -> str:
        given_up.append(image)
        return f"Removed {image}"

    monkeypatch.setattr(runs, "discard", discard)
    site = FixedSite(tmp_path / "state", [sample_view()], [batch_of_twenty()])
    async with running(console(site)) as pilot:
        await press(pilot, "3", "s")
        assert "nothing is running" in told(pilot.app) and not given_up
        for answer in (("enter",), ("escape",), (*"web", "enter", "escape")):
            await press(pilot, "X")
            assert "Type web-db" in screen_text(pilot.app)
            await press(pilot, *answer)
            assert not given_up
        await press(pilot, "X", *"web-db", "enter")
        assert given_up == [ident(1)]


async def test_what_is_done_or_usable_is_not_given_up(tmp_path: Path) -> None:
    """X on such a step says so, as the command line does, and offers nothing."""
    run = batch_of_twenty()
    waits = run_step(3, "optimize", 11, RunState.WAITING)
    site = FixedSite(tmp_path / "state", [sample_view()], [run._replace(steps=(*run.steps[:2], waits, *run.steps[3:]))])
    async with running(console(site), (80, 40)) as pilot:
        page = cast(RunsPage, pilot.app.page("runs"))
        await press(pilot, "3")
        for number, said in ((3, "web-01 is usable"), (4, "everything in step 4 is done")):
            while page.step_number() < number:
                await press(pilot, "down")
            await press(pilot, "X")
            assert said in told(pilot.app) and "Type " not in screen_text(pilot.app)


async def test_a_step_that_is_done_tells_what_it_took_too(tmp_path: Path) -> None:
    """As triage promised, and told as an estimate where it was one."""
    step = run_step(1, "optimize", 1, RunState.DONE, freed_bytes=12 << 10, taken_bytes=100 * MiB, exact=False)
    site = FixedSite(tmp_path / "state", [sample_view()], [sample_run()._replace(steps=(step,))])
    async with running(console(site)) as pilot:
        await press(pilot, "3")
        assert "took ~100.0M, freed ~12.0K" in screen_text(pilot.app)


@pytest.mark.parametrize("held", [False, True])
async def test_taking_over_shows_the_evidence_first(
    held: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who worked on it, when it saved last, whether its lease is held; only then, and only if it is not, a again."""
    lines = ("host-b worked on it: copy, stage 2/3.", "It saved last 4 min ago.", "Its lease: see above.")
    evidence = live.Evidence(None, held, "host-b" if held else "", "", not held, lines)
    monkeypatch.setattr(live, "evidence", lambda engine, repo, image: evidence)
    site = FixedSite(tmp_path / "state", [sample_view()])
    async with running(console(site)) as pilot:
        await press(pilot, "3", "tab", "down", "a")
        await idle(pilot)
        shown = screen_text(pilot.app)
        assert all(line in shown for line in lines)
        await press(pilot, "enter")
        assert not site.decisions.queue, "enter means no"
        await press(pilot, "a")
        await press(pilot, "a")
        assert bool(site.decisions.queue) is not held


async def test_a_log_is_searched_and_the_line_that_was_found_stays(tmp_path: Path) -> None:
    """Only lines that match are shown; with all of them again the cursor is on the one that was found."""
    site = FixedSite(tmp_path / "state", [sample_view()], [sample_run()])
    lines = tuple(LogLine(NOW, 1, f"saved at {number} %" if number != 40 else "disk is slow") for number in range(90))
    site.log_of = lambda run, since: lines[since:]  # type: ignore[method-assign]
    async with running(console(site)) as pilot:
        page = cast(RunsPage, pilot.app.page("runs"))
        await press(pilot, "3", "slash", *"SLOW", "enter")
        shown = screen_text(pilot.app)
        assert "Log 1 of 90   find: SLOW" in shown and "saved at" not in shown.partition("Log 1 of")[2]
        await press(pilot, "escape")
        log = page.query_one("#log", Table)
        assert (len(log.rows), log.key, page.following) == (90, "40", False)
        await press(pilot, "slash", *"nothing", "enter")
        assert "No line matches nothing" in screen_text(pilot.app)


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.STOPPING, RunState.RUNNING])
async def test_a_run_that_is_about_to_end_can_be_resumed(
    state: RunState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """r waits for its end instead of asking to be pressed again; while it works there is nothing to resume."""
    resumed: list[bool] = []
    monkeypatch.setattr(runs, "resume", lambda *given: resumed.append(given[-1]()))
    run = sample_run()
    site = FixedSite(tmp_path / "state", [sample_view()], [run._replace(steps=(run.steps[1]._replace(state=state),))])
    async with running(console(site)) as pilot:
        await press(pilot, "3", "r")
        if state is RunState.RUNNING:
            assert not resumed and "it is running" in told(pilot.app)
        else:
            assert resumed == [True] and "goes on" in told(pilot.app)


async def test_the_last_of_resume_and_stop_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """r waits for the end of a run that stops, however far its next save is; s while it waits lets it stop."""

    def resume(engine: Engine, notes: Notes, identity: str, run_id: str, wait: Callable[[], bool]) -> None:
        while wait():
            time.sleep(0.005)
        raise Conflict("it is executed by a process")

    monkeypatch.setattr(runs, "resume", resume)
    monkeypatch.setattr(runs, "stop", lambda *given: None)
    run = sample_run()
    site = FixedSite(tmp_path / "state", [sample_view()], [run])
    async with running(console(site)) as pilot:
        await press(pilot, "3", "r")
        assert "it is running" in told(pilot.app)
        await press(pilot, "s")
        await pilot.press("r")  # the run has not said yet that it stops
        assert "goes on after that" in told(pilot.app) and site.resuming == {run.id}
        await press(pilot, "s")
        said = " ".join(map(plain, pilot.app.messages.listed()))
        assert "stays stopped" in said and not site.resuming


async def test_a_run_that_could_not_be_stopped_is_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """r does not wait for its end, then: it would come when all is done."""

    def stop(*given: object) -> None:
        raise StorageError("the notes cannot be written", "Look at them")

    monkeypatch.setattr(runs, "stop", stop)
    site = FixedSite(tmp_path / "state", [sample_view()], [sample_run()])
    async with running(console(site)) as pilot:
        await press(pilot, "3", "s")
        assert "The run was not stopped" in screen_text(pilot.app) and not site.stopping
        await press(pilot, "escape", "r")
        assert "it is running" in told(pilot.app)


async def test_a_line_of_the_log_can_be_read_whole(tmp_path: Path) -> None:
    """Enter shows what the screen has no room for."""
    site = FixedSite(tmp_path / "state", [sample_view()], [sample_run()])
    site.log_of = lambda run, since: (LogLine(NOW, 1, f"{_LONG}. {_LONG}."),)[since:]  # type: ignore[method-assign]
    async with running(console(site)) as pilot:
        await press(pilot, "3", "tab", "tab", "enter")
        shown = screen_text(pilot.app)
        assert "Log at 12:00:00" in shown and shown.count("resume the run") == 2


async def test_names_are_whole_where_there_is_room(tmp_path: Path) -> None:
    """Two removed images differ in their last digit, on the narrowest screen too."""
    steps = tuple(run_step(n, "clean", 4, RunState.DONE)._replace(name=f"(removed) ci-441{n}") for n in (1, 2))
    site = FixedSite(tmp_path / "state", [sample_view()], [sample_run()._replace(steps=steps)])
    async with running(console(site)) as pilot:
        await press(pilot, "3")
        assert all(step.name in screen_text(pilot.app) for step in steps)
