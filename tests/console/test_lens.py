"""The lens: all pages as they will be after the plan of the queue, and nothing can be done there."""

from __future__ import annotations

from pathlib import Path

from tests.console.kit import FixedSite, console, golden, ident, press, running, sample_view, screen_text, told
from tui.text.statuses import State


def site_of(tmp_path: Path) -> FixedSite:
    return FixedSite(tmp_path / "state", [sample_view()])


async def test_every_page_is_as_it_will_be_after_the_plan(tmp_path: Path) -> None:
    """Mended images are optimized, cleaned ones are not there, free space and counts are the plan's."""
    site = site_of(tmp_path)
    async with running(console(site)) as pilot:
        await press(pilot, "space", "slash", *"type:clean", "enter", "space", "escape", "L")
        plan = site.plan_now()
        assert plan is not None and len(plan.steps) == 2
        view = site.view
        assert view.counts == plan.counts_after and view.free_bytes == plan.free_after
        assert view.images.state(view.images.find(ident(2))) is State.OPTIMIZED
        assert view.images.get(ident(4)) is None and site.actual_view.images.get(ident(4)) is not None
        assert len(view.images) == len(site.actual_view.images) - 1
        assert "Fixes 8" in screen_text(pilot.app)
        await press(pilot, "2", "slash", *"mail", "enter")
        golden("images-lens-80x24", screen_text(pilot.app))


async def test_nothing_is_done_through_the_lens(tmp_path: Path) -> None:
    """Keys that change something say why they do not, and L or esc shows what is."""
    site = site_of(tmp_path)
    async with running(console(site)) as pilot:
        await press(pilot, "space", "L", "down", "space")
        assert "this is how it will be after the plan" in told(pilot.app)
        assert len(site.decisions.queue) == 1
        await press(pilot, "escape")
        assert not site.lens and "AFTER PLAN" not in screen_text(pilot.app)
        await press(pilot, "L", "L")
        assert not site.lens


async def test_an_empty_plan_has_no_lens(tmp_path: Path) -> None:
    """The key says so; the plan itself is always made from what is."""
    site = site_of(tmp_path)
    async with running(console(site)) as pilot:
        await press(pilot, "L")
        assert not site.lens and "the plan is empty" in told(pilot.app)
        await press(pilot, "space", "L", "p")
        assert not site.lens and "VALID" in screen_text(pilot.app)
        await press(pilot, "L")
        assert site.lens and "AFTER PLAN" in screen_text(pilot.app) and "[2 Images]" in screen_text(pilot.app)
