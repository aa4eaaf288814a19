"""Calls beside the console: one of each name, in order where that matters, harmless when they come too late."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.console.kit import FixedSite, console, idle, running, sample_view


async def test_a_call_that_ends_after_the_console_is_silent(tmp_path: Path) -> None:
    """Its thread finds nobody to tell, and dies without a word."""
    go_on = threading.Event()
    app = console(FixedSite(tmp_path / "state", [sample_view()]))
    async with app.run_test() as pilot:
        await idle(pilot)
        app.jobs.start("late", go_on.wait, lambda value, error: None)
        thread = next(thread for thread in threading.enumerate() if thread.name == "console-late")
    go_on.set()
    thread.join(10)
    assert not thread.is_alive()


async def test_changes_come_in_the_order_in_which_they_were_made(tmp_path: Path) -> None:
    """One after the other, whatever each takes."""
    done: list[int] = []
    async with running(console(FixedSite(tmp_path / "state", [sample_view()]))) as pilot:
        first = threading.Event()

        def change(number: int) -> None:
            first.wait()
            done.append(number)

        for number in (1, 2, 3):
            pilot.app.jobs.in_turn(lambda number=number: change(number), lambda value, error: None)
        assert pilot.app.jobs.deciding
        first.set()
        await idle(pilot)
        assert done == [1, 2, 3]


async def test_only_one_call_of_a_name_is_under_way(tmp_path: Path) -> None:
    """The second is refused, not queued."""
    async with running(console(FixedSite(tmp_path / "state", [sample_view()]))) as pilot:
        go_on = threading.Event()
        assert pilot.app.jobs.start("scan", go_on.wait, lambda value, error: None)
        assert not pilot.app.jobs.start("scan", go_on.wait, lambda value, error: None)
        go_on.set()
        await idle(pilot)


async def test_keys_typed_while_a_decision_is_saved_wait_behind_it(tmp_path: Path) -> None:
    """space and p at once: the plan has the fix."""
    async with running(console(FixedSite(tmp_path / "state", [sample_view()]))) as pilot:
        await pilot.press("space", "space", "p")
        await idle(pilot)
        await idle(pilot)
        plan = getattr(pilot.app.screen, "plan", None)
        assert plan is not None and len(plan.steps) == 2
