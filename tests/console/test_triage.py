"""Triage and the plan: what the operator decides is shown, saved, and can be taken back."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from textual import events

from engine.data.model import RepositoryReport, Status
from tests.console.kit import (
    NAMES,
    NOW,
    FixedSite,
    GiB,
    console,
    ident,
    idle,
    image,
    operation,
    press,
    running,
    sample_report,
    sample_view,
    screen_text,
    told,
)
from tui.console.app import ConsoleApp
from tui.console.control import running as runs_controller
from tui.console.dialogs.choose import Choose
from tui.console.dialogs.confirm import word_of
from tui.console.pages.registry import page_acts
from tui.console.pages.triage.page import TriagePage
from tui.text.statuses import State


def site_of(tmp_path: Path, **more: object) -> FixedSite:
    return FixedSite(tmp_path / "state", [sample_view(**more)])  # type: ignore[arg-type]


def page_of(app: ConsoleApp) -> TriagePage:
    return cast(TriagePage, app.page("triage"))


def names(app: ConsoleApp) -> list[str]:
    """The queue, by names."""
    return [item.name for item in app.site.decisions.queue]


async def test_the_pane_of_the_plan_has_whole_names(tmp_path: Path) -> None:
    """One that is too long for a line with the rest has a line of its own; what has no room is counted."""
    view, long = sample_view(free_bytes=150 * GiB), "perf (before the long storm)"
    view = view._replace(fixes=tuple(row._replace(name=long) if row.name == "web-01" else row for row in view.fixes))
    async with running(console(FixedSite(tmp_path / "state", [view])), (160, 50)) as pilot:
        await press(pilot, *["down"] * 4, "a")
        plan = screen_text(pilot.app).partition("─ Plan ")[2]
        assert f"optimize {long}" in plan and "more " in plan


def test_every_key_is_told_whole_on_the_narrowest_screen() -> None:
    """A line of the list of keys has room for what the key does."""
    told_of = {f"{act.label}: {act.sentence}" for acts in page_acts().values() for act in acts if act.key}
    assert not [text for text in told_of if len(text) > 64]


async def test_the_palette_begins_with_what_is_possible(tmp_path: Path) -> None:
    """In Timeline most acts need a trace: they come last."""
    async with running(console(site_of(tmp_path))) as pilot:
        await press(pilot, "4", "colon")
        choices = cast(Choose, pilot.app.screen).choices()
        assert [bool(choice.off) for choice in choices] == sorted(bool(choice.off) for choice in choices)
        assert not choices[0].off and choices[-1].off


async def test_urgent_fixes_come_first_and_quicker_ones_before_slower_ones(tmp_path: Path) -> None:
    """P1 before P2 before P3; inside of a priority by time."""
    async with running(console(site_of(tmp_path))) as pilot:
        found = page_of(pilot.app).found
        assert found is not None
        assert [row.priority for row in found.rows] == sorted(row.priority for row in found.rows)
        assert [row.fix.name for row in found.rows][:3] == ["mail-spool", "web-db", "erp-data"]


async def test_every_cell_of_a_fix_says_something(tmp_path: Path) -> None:
    """A dash or a question mark, where nothing is known; never nothing."""
    async with running(console(site_of(tmp_path)), (160, 50)) as pilot:
        _, rows = page_of(pilot.app).table()
        assert rows
        assert all(cell.strip() for row in rows for cell in row)


async def test_queue_range_all_move_and_undo(tmp_path: Path) -> None:
    """space, V, a, J, K, z and Z, each seen in the queue that is saved."""
    async with running(console(site_of(tmp_path))) as pilot:
        app = pilot.app
        await press(pilot, "space")
        assert names(app) == ["mail-spool"]
        await press(pilot, "g", "space")
        assert names(app) == [], "again takes it out"
        await press(pilot, "g", "V", "down", "space")
        assert names(app) == ["mail-spool", "web-db"]
        await press(pilot, "g", "J")
        assert names(app) == ["web-db", "mail-spool"]
        await press(pilot, "K")
        assert names(app) == ["mail-spool", "web-db"]
        await press(pilot, "z")
        assert names(app) == ["web-db", "mail-spool"]
        await press(pilot, "Z")
        assert names(app) == ["mail-spool", "web-db"]
        page_of(app).table_widget.go(5)
        await press(pilot, "a")
        assert names(app)[2:] == [f"web-{n:02d}" for n in range(1, 6)]


async def test_priority_and_snooze(tmp_path: Path) -> None:
    """P sets a priority that is marked as the operator's; H hides, and the header counts what is hidden."""
    async with running(console(site_of(tmp_path))) as pilot:
        app = pilot.app
        page_of(app).table_widget.go(4)
        await press(pilot, "P", "1")
        assert "P1*" in screen_text(app)
        page_of(app).table_widget.go(0)
        before = page_of(app).table_widget.key
        await press(pilot, "H")
        text = screen_text(app)
        assert "1 snoozed" in text
        found = page_of(app).found
        assert found is not None and before not in [row.key for row in found.rows]
        await press(pilot, "S")
        found = page_of(app).found
        assert found is not None and before in [row.key for row in found.rows]


async def test_decisions_are_there_after_a_restart(tmp_path: Path) -> None:
    """Queue, priorities, snoozing and what can be undone."""
    async with running(console(site_of(tmp_path))) as pilot:
        await press(pilot, "space", "space", "H")
    async with running(console(site_of(tmp_path))) as pilot:
        assert names(pilot.app) == ["mail-spool", "web-db"]
        assert len(pilot.app.site.decisions.snoozed) == 1
        await press(pilot, "z", "z")
        assert names(pilot.app) == ["mail-spool"]


async def test_two_consoles_share_one_queue(tmp_path: Path) -> None:
    """What one decides the other shows at its next look."""
    async with running(console(site_of(tmp_path))) as pilot:
        async with running(console(site_of(tmp_path))) as other:
            await press(other, "space")
        pilot.app.tick()
        await idle(pilot)
        assert names(pilot.app) == ["mail-spool"]
        assert "Plan 1 fix" in screen_text(pilot.app)


async def test_a_key_that_cannot_work_says_why(tmp_path: Path) -> None:
    """In one sentence, and nothing happens."""
    async with running(console(site_of(tmp_path))) as pilot:
        await press(pilot, "p")
        assert "the plan is empty" in told(pilot.app)
        page_of(pilot.app).table_widget.go(2)
        await press(pilot, "space")
        assert "it waits for image 99 to copy from" in told(pilot.app)
        assert names(pilot.app) == []
        await press(pilot, "exclamation_mark")
        assert "only in the demo repository" in told(pilot.app)


async def test_read_only_dims_every_change(tmp_path: Path) -> None:
    """Each act that changes something tells that the console is read-only, and none is done."""
    async with running(console(site_of(tmp_path), readonly=True)) as pilot:
        page = page_of(pilot.app)
        changing = [act for act in page.keys.acts if act.changes]
        assert {act.name for act in changing} >= {"queue", "run", "stop", "snooze", "priority", "undo"}
        assert all("--readonly" in page.reason(act) for act in changing)
        await press(pilot, "space")
        assert names(pilot.app) == []
        assert "READ ONLY" in screen_text(pilot.app)


async def test_filter_works_while_one_types(tmp_path: Path) -> None:
    """It counts, it keeps on enter, esc clears it, and a wrong expression is a hint."""
    async with running(console(site_of(tmp_path))) as pilot:
        await press(pilot, "slash", *"web-0")
        assert "Fixes 5 of 10" in screen_text(pilot.app)
        await press(pilot, "enter", "down")
        assert page_of(pilot.app).table_widget.cursor == 1, "the table has the keys again"
        await press(pilot, "escape")
        assert "Fixes 10 " in screen_text(pilot.app)
        await press(pilot, "slash", *"/(")
        assert "Fixes" in screen_text(pilot.app)
        await press(pilot, "escape", "slash", *"nothing-is-called-so", "enter")
        assert "No fix matches nothing-is-called-so. 10 hidden." in screen_text(pilot.app)
        await press(pilot, "escape", "slash", *"type:mend !web", "enter")
        found = page_of(pilot.app).found
        assert found is not None and {row.fix.name for row in found.rows} == {"mail-spool", "erp-data"}


async def test_what_is_wrong_with_a_filter_is_told_whole(tmp_path: Path) -> None:
    """On the narrowest screen too, where the title has no room for it."""
    async with running(console(site_of(tmp_path))) as pilot:
        for tab in ("1", "2"):
            await press(pilot, tab, "slash", *"[a", "enter")
            told_there = " ".join(screen_text(pilot.app).replace("│", " ").split())
            assert "unterminated character set" in told_there and "it is looked for as it stands." in told_there


async def test_a_filter_typed_at_once_leaves_the_field_with_enter(tmp_path: Path) -> None:
    """Every key has its effect before the next one is looked at, however quickly they come."""
    site = site_of(tmp_path)
    async with running(console(site)) as pilot:
        app = pilot.app
        page_of(app).act_filter()
        for character in "web-db":
            app.keyboard.take(events.Key(character, character))
        for key in ("enter", "space"):
            app.keyboard.take(events.Key(key, " " if key == "space" else None))
        await idle(pilot)
        assert page_of(app).filter_line.value == "web-db" and names(app) == ["web-db"]


@pytest.mark.parametrize(("tab", "word", "first"), [("1", "web-0", "web-01"), ("2", "app-0", "app-00")])
async def test_finding_goes_from_match_to_match_among_all_rows(tab: str, word: str, first: str, tmp_path: Path) -> None:
    """n and N after the filter was cleared, around at both ends, on both pages that have a filter."""
    async with running(console(site_of(tmp_path))) as pilot:
        await press(pilot, tab, "n")
        assert "nothing was looked for yet" in told(pilot.app)
        await press(pilot, "slash", *word, "escape")
        table = pilot.app.page_shown.table_widget
        found = [pilot.app.page_shown.row()]
        for _ in range(3):
            await press(pilot, "n")
            found.append(pilot.app.page_shown.row())
        labels = [row.fix.name if tab == "1" else row.label for row in found]
        assert labels[0] == first and len(set(labels)) == 4 and all(label.startswith(word) for label in labels)
        end = table.cursor
        await press(pilot, "N", "n")
        assert table.cursor == end
        await press(pilot, "G", "n")
        assert pilot.app.page_shown.row() == found[0]


async def test_a_queued_fix_that_is_not_offered_any_more_is_gone(tmp_path: Path) -> None:
    """It stays in the queue, dimmed, with what became of it."""
    site = site_of(tmp_path)
    async with running(console(site), (160, 50)) as pilot:
        await press(pilot, "space")
        report = sample_report()
        images = tuple(
            image._replace(status=Status.OPTIMIZED, reason="", rule="") if image.id == ident(2) else image
            for image in report.images
        )
        fixes = tuple(fix for fix in report.fixes if fix.target != ident(2))
        site.fixed["pool-nfs"] = sample_view(report=report._replace(images=images, fixes=fixes))
        await press(pilot, "R")
        text = screen_text(pilot.app)
        assert "GONE" in text
        found = page_of(pilot.app).found
        gone = [row for row in found.rows if not row.fix.raw] if found else []
        assert [row.fix.name for row in gone] == ["mail-spool"]
        await press(pilot, "G", "w")
        text = screen_text(pilot.app)
        assert "not there any more" not in text and "● OPTIMIZED   usable" in text, "the image tells why"


async def test_what_cannot_be_queued_is_not_offered_for_it(tmp_path: Path) -> None:
    """The full page of a reason says that the fix waits, as its key does."""
    async with running(console(site_of(tmp_path))) as pilot:
        page_of(pilot.app).table_widget.go(2)
        await press(pilot, "w")
        assert "cannot be queued: Waits and Why tell" in screen_text(pilot.app)


async def test_nothing_to_fix_is_told_with_its_age(tmp_path: Path) -> None:
    """And with what is hidden: green that does not lie."""
    report = sample_report()._replace(fixes=())
    async with running(console(site_of(tmp_path, report=report))) as pilot:
        text = " ".join(screen_text(pilot.app).split())
        assert "Nothing to fix. 13 of 21 images OPTIMIZED. Scanned 11:59:57, free space is LOW." in text.replace(
            "│ │ ", ""
        )


async def test_an_empty_repository_tells_what_to_do(tmp_path: Path) -> None:
    """The command is shown and can be copied."""
    async with running(console(site_of(tmp_path, report=RepositoryReport((), (), (), GiB, GiB)))) as pilot:
        assert "diskwright create-disk pool-nfs 10G" in screen_text(pilot.app)
        await press(pilot, "y", "c")
        assert pilot.app.clipboard == "diskwright create-disk pool-nfs 10G"


async def test_a_lost_repository_keeps_its_old_data_and_says_so(tmp_path: Path) -> None:
    """The header tells from when the data are, and the problem has its own pane."""
    site = site_of(tmp_path)
    async with running(console(site)) as pilot:
        site.fixed["pool-nfs"] = sample_view(
            problem="the storage did not answer for 30 s", next_step="Try again", problem_at=NOW, problem_code="storage"
        )
        await press(pilot, "R")
        text = screen_text(pilot.app)
        assert "LOST, data of 11:59:57" in text
        assert "the storage did not answer for 30 s" in " ".join(text.split())
        assert "mail-spool" in text


# -- plan


async def test_a_plan_that_would_go_under_the_reserve_is_refused_with_an_offer(tmp_path: Path) -> None:
    """The missing amount is told, and one key adds what makes room."""
    async with running(console(site_of(tmp_path))) as pilot:
        page_of(pilot.app).table_widget.go(4)
        await press(pilot, "space", "p")
        text = screen_text(pilot.app)
        assert "are missing" in text
        assert "REFUSED" in text and "VALID" not in text
        assert "clean (removed) ci-4411 frees 9.6G" in text
        await press(pilot, "r")
        assert isinstance(pilot.app.site.fixed_runs, tuple) and not pilot.app.site.fixed_runs
        await press(pilot, "a")
        assert "ci-4411" in names(pilot.app)


async def test_a_plan_of_which_nothing_can_run_is_not_called_valid(tmp_path: Path) -> None:
    """What waits for something else is named, and the head says that the plan is empty."""
    async with running(console(site_of(tmp_path))) as pilot:
        found, store = page_of(pilot.app).found, pilot.app.site.decision_store
        assert found is not None and store is not None
        store.queue([found.rows[2].fix])
        pilot.app.tick()
        await press(pilot, "p")
        text = screen_text(pilot.app)
        assert "EMPTY" in text and "VALID" not in text and "it waits for image 99" in text


async def test_the_plan_fills_the_screen_with_what_is_read(tmp_path: Path) -> None:
    """A picture of the free space with its lowest point and the reserve, and why each step is there."""
    async with running(console(site_of(tmp_path)), (160, 50)) as pilot:
        await press(pilot, "space", "space", "p")
        text = screen_text(pilot.app)
        assert "▲ lowest: 8.0G in step 2" in text and "5.0G ┤░░░" in text
        assert "Step 2  mend web-db: Copy has not finished at 41 %; it goes on there." in text


async def test_a_plan_goes_stale_and_is_made_again_before_it_runs(tmp_path: Path) -> None:
    """What is run is what was shown."""
    site = site_of(tmp_path)
    async with running(console(site)) as pilot:
        await press(pilot, "space", "p")
        assert "VALID" in screen_text(pilot.app)
        report = sample_report()
        changed = tuple(fix._replace(id="f" * 16) if fix.target == ident(2) else fix for fix in report.fixes)
        site.fixed["pool-nfs"] = sample_view(report=report._replace(fixes=changed))
        await press(pilot, "R")
        assert "STALE" in screen_text(pilot.app)
        assert "1 image has changed since" in screen_text(pilot.app)
        await press(pilot, "r")
        assert "VALID" in screen_text(pilot.app) and "made again" in told(pilot.app)


async def test_a_plan_of_which_nothing_is_left_says_why(tmp_path: Path) -> None:
    """STALE, then EMPTY: what became of each fix stands there, on the plan and below the list."""
    site = site_of(tmp_path)
    async with running(console(site)) as pilot:
        await press(pilot, "space", "p")
        report = sample_report()
        images = tuple(image(2) if seen.id == ident(2) else seen for seen in report.images)
        fixes = tuple(fix for fix in report.fixes if fix.target != ident(2))
        site.fixed["pool-nfs"] = sample_view(report=report._replace(images=images, fixes=fixes))
        await press(pilot, "R", "r")
        text = screen_text(pilot.app)
        assert "EMPTY" in text and "Gone    mend mail-spool: mail-spool is OPTIMIZED now." in text
        assert "Same as" not in text
        await press(pilot, "escape")
        assert "The queued fix is not offered now" in screen_text(pilot.app)
        await press(pilot, "p")
        assert "check offers none of the queued fixes now" in told(pilot.app)


async def test_what_is_being_worked_on_is_no_empty_page(tmp_path: Path) -> None:
    """Where all that is broken is under way nothing is offered: it says so, and is looked at often meanwhile."""
    busy = image(1, "broken", "Copy has not finished", "B-COPY", busy="copy by host host-b")
    busy = busy._replace(operation=operation("copy", "host-b", 2, 3, 41, 5))
    site = FixedSite(tmp_path / "state", [sample_view(report=RepositoryReport((busy,), (), (), 200 * GiB, 12 * GiB))])
    async with running(console(site)) as pilot:
        assert "web-db is being worked on: copy by host host-b. 3 shows how far" in screen_text(pilot.app)
        scans = site.scans
        site.time += 9  # a scan of this took 0.4 s, and a twentieth of the time is spent scanning
        pilot.app.tick()
        await idle(pilot)
        assert site.scans > scans


async def test_what_cannot_be_undone_needs_the_name_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Enter alone keeps, esc keeps, a wrong word keeps; only the very word goes on."""
    started: list[object] = []
    app = console(site_of(tmp_path))
    monkeypatch.setattr(runs_controller, "start_plan", lambda shell, plan, irreversible: started.append(irreversible))
    async with running(app) as pilot:
        page_of(app).table_widget.go(3)
        await press(pilot, "space", "p")
        for keys in (("enter",), ("escape",), (*"ci-441", "enter", "escape")):
            await press(pilot, "r")
            assert "Type ci-4411 and enter" in screen_text(app)
            await press(pilot, *keys)
            assert not started
        await press(pilot, "r", *"ci-4411", "enter")
        assert started == [True]


@pytest.mark.parametrize("name", ["x" * 79 + "…", "x" * 33, "漢字", "\\x1b]0;x", "", " web"])
def test_what_nobody_could_type_is_confirmed_by_its_id(name: str) -> None:
    """A name that was cut, is long, or that a keyboard does not have: the first digits of the id are asked for."""
    assert word_of(name, ident(4)) == ident(4)[:8]
    assert word_of("ci-4411 (copy)", ident(4)) == "ci-4411 (copy)"


async def test_steps_can_be_moved_and_dropped(tmp_path: Path) -> None:
    """The plan is made again each time."""
    async with running(console(site_of(tmp_path))) as pilot:
        await press(pilot, "space", "space", "p", "J")
        assert names(pilot.app) == ["web-db", "mail-spool"]
        await press(pilot, "g", "x")
        assert names(pilot.app) == ["mail-spool"]
        await press(pilot, "x")
        assert isinstance(pilot.app.screen, TriagePage), "an empty plan is closed"


def test_the_sample_has_every_status() -> None:
    """So that the tests and goldens show all of them."""
    view = sample_view()
    assert all(view.counts.of(state) for state in (State.BROKEN, State.DEGRADED, State.OPTIMIZED, State.REMOVED))
    assert NAMES[ident(4)] == "ci-4411"
