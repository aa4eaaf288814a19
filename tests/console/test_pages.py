"""Families, pictures over time, and the history of this host on the pages of the console."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.console.kit import (
    NAMES,
    NOW,
    FixedSite,
    GiB,
    MiB,
    console,
    golden,
    ident,
    idle,
    press,
    running,
    sample_run,
    sample_view,
    screen_lines,
    screen_text,
    told,
)
from tui.console.draw.lines import plain
from tui.console.draw.signs import Signs
from tui.console.pages.family import page as family_page
from tui.console.pages.pictures import lines
from tui.console.pages.timeline import rows as timeline_rows
from tui.text.statuses import State
from tui.view.families import Family, Member
from tui.work import runs
from tui.work.history import Entry, History
from tui.work.journal import Event, Journal

SIZES = ((80, 24), (160, 50))


def a_family() -> Family:
    """A snapshot with a hidden layer and three disks above it."""

    def member(number: int, name: str, state: State, own: int, below: int, last: tuple[bool, ...]) -> Member:
        parent = "" if not last else ident(5)
        return Member(ident(number), name, state, "disk", 18 * GiB, own, below, parent, last)

    base = 2 * GiB
    return (
        member(5, "base-f38", State.OPTIMIZED, base, 0, ()),
        member(11, "web-01", State.DEGRADED, GiB, base, (False,)),
        member(90, "", State.HIDDEN, 200 * MiB, base, (False,)),
        member(12, "web-02", State.DEGRADED, 300 * MiB, base + 200 * MiB, (False, True)),
        member(13, "web-03", State.BROKEN, 3 * GiB, base, (True,)),
    )


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_a_family_is_drawn_as_a_tree(
    size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With own and shared bytes; enter goes to the image, data that no image shows says why not."""
    monkeypatch.setattr(family_page, "families", lambda engine, repo: (a_family(),))
    async with running(console(FixedSite(tmp_path / "state", [sample_view()])), size) as pilot:
        app = pilot.app
        await press(pilot, "2", "slash", *"web-02", "enter", "F")
        golden(f"family-{size[0]}x{size[1]}", screen_text(app))
        await press(pilot, "up", "w")
        assert "data that no image shows" in told(app)
        await press(pilot, "up", "enter")
        assert app.page_shown.tab == "images" and app.page_shown.table_widget.key == ident(11)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_the_space_of_a_repository_is_drawn_over_time(size: tuple[int, int], tmp_path: Path) -> None:
    """Each look that finds another amount is kept; the lowest is told with its time."""
    site = FixedSite(tmp_path / "state", [sample_view()])
    site.reload()
    journal = site.journal
    assert journal is not None
    for hour, free in enumerate((20, 18, 18, 7, 9, 12)):
        journal.note_scan(None, sample_view(scanned_at=NOW - 7200 + 1200 * hour, free_bytes=free * GiB))
    assert [seen.free_bytes // GiB for seen in journal.space()] == [20, 18, 7, 9, 12]
    async with running(console(site), size) as pilot:
        await press(pilot, "4", "s")
        golden(f"space-{size[0]}x{size[1]}", screen_text(pilot.app))


def a_run_with_samples():
    run = sample_run()
    first, second, third = run.steps
    samples = tuple((NOW - 90 + 2.0 * number, number * number * 4 * MiB) for number in range(32))
    return run._replace(steps=(first, second._replace(samples=samples), third))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_the_pace_of_a_run_is_drawn(size: tuple[int, int], tmp_path: Path) -> None:
    """What was done by when, and how fast."""
    async with running(console(FixedSite(tmp_path / "state", [sample_view()], [a_run_with_samples()])), size) as pilot:
        await press(pilot, "3", "p")
        golden(f"pace-{size[0]}x{size[1]}", screen_text(pilot.app))
        assert all(len(line) <= size[0] for line in screen_lines(pilot.app))


def test_stages_and_steps_add_up() -> None:
    """What was done before a step or a stage began is not counted; the next step goes on where the last one ended."""
    run = sample_run()
    steps = (
        run.steps[0]._replace(samples=((1.0, 10), (2.0, 20), (3.0, 5), (4.0, 15))),
        run.steps[1]._replace(samples=((5.0, 700), (6.0, 701))),
    )
    assert lines.done(run._replace(steps=steps)) == [(1.0, 0), (2.0, 10), (3.0, 10), (4.0, 20), (5.0, 20), (6.0, 21)]


def test_the_mean_of_the_bars_is_the_average() -> None:
    """However the times lie that were noted, and a rest without any counts too."""
    points = [(0.0, 0), (0.3, 700), (1.1, 900), (1.15, 2000)]
    bars = lines.speeds(points, 50, 0.0, 4.0)
    assert sum(bars) / 50 == pytest.approx(2000 / 4.0, rel=0.01)


async def test_what_was_done_on_this_host_is_in_the_timeline(tmp_path: Path) -> None:
    """Who did it, with what, and what came of it; in the lane of the image too."""
    site = FixedSite(tmp_path / "state", [sample_view()])
    entry = Entry(NOW - 50, "alice", "host-a", "command", "rename", "pool-nfs", ident(11), "web-01")
    failed = entry._replace(when=NOW - 40, verb="copy", result="failed", error="no space left")
    for item in (entry, failed, entry._replace(repo_id="another")):
        History(site.notes).add(item)
    async with running(console(site), (100, 30)) as pilot:
        await press(pilot, "4")
        text = screen_text(pilot.app)
        assert text.count("alice, command: ") >= 2 and "rename" in text and "failed: no space left" in text
        assert NAMES[ident(11)] in text


async def test_what_a_scan_tells_is_shown_when_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason tells what happened last also when that reaches the disk after the page was drawn, and also
    below a dialog that was opened meanwhile."""
    written, note_scan = threading.Event(), Journal.note_scan
    monkeypatch.setattr(Journal, "note_scan", lambda *given: written.wait(60) and note_scan(*given))
    app = console(FixedSite(tmp_path / "state", [sample_view()]))
    async with app.run_test(size=(250, 60)) as pilot:
        while not app.jobs.busy("journal"):
            await pilot.pause()
        await pilot.press("question_mark")
        assert "What happened last" not in screen_text(app)
        written.set()
        await idle(pilot)
        assert "What happened last" in screen_text(app)


async def test_work_that_ended_while_nobody_was_here_is_told(tmp_path: Path) -> None:
    """Once, by the next console."""
    site = FixedSite(tmp_path / "state", [sample_view()])
    begun = Entry(NOW - 500, "alice", "host-a", "console", "run 90aa", "pool-nfs", result="started", task="b" * 32)
    History(site.notes).add(begun, {"run": "5" * 32})
    async with running(console(site)) as pilot:
        assert "Run 90aa" in told(pilot.app) and "ended while you were away" in told(pilot.app)
    async with running(console(FixedSite(tmp_path / "state", [sample_view()]))) as pilot:
        assert "away" not in told(pilot.app)


async def test_a_run_that_goes_on_is_told_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a repository that is not the one shown: whoever comes back after a crash of the console finds it."""
    site = FixedSite(tmp_path / "state", [sample_view(), sample_view("pool-2")._replace(identity="6" * 32)])
    begun = Entry(NOW - 500, "alice", "host-a", "console", "run 3f2a", "pool-2", result="started", task="b" * 32)
    History(site.notes).add(begun, {"run": "6" * 32})
    monkeypatch.setattr(runs, "get_run", lambda *given: sample_run()._replace(repo_id="pool-2"))
    async with running(console(site)) as pilot:
        assert told(pilot.app) == "Run 3f2a goes on in pool-2, 1 of 3 done: Runs (3) shows it there."


def test_the_lane_of_an_image_has_stops_and_who_went_on() -> None:
    """One line: who did what, where it was stopped, who went on, and how it ended."""
    kinds = (("host-a", "run"), ("host-a", "stopped"), ("host-b", "resumed"), ("host-b", "done"))
    events = [Event(NOW + number, host, kind, ident(1), "web", "") for number, (host, kind) in enumerate(kinds)]
    told = timeline_rows.lane(events[-1], events, Signs())[-1]
    assert plain(told[1]) == "host-a ─|stopped  host-b >resumed=done"
