"""Several repositories: the worst is looked at first, all pages tell of the others, and one is found by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.data.model import Status
from tests.console.kit import FixedSite, console, idle, press, running, sample_report, sample_view, screen_text, told
from tui.view.snapshot import RepositoryView
from tui.work.scanner import RepositoryEntry


def healthy(name: str) -> RepositoryView:
    report = sample_report()
    images = tuple(image for image in report.images if image.status is Status.OPTIMIZED)
    return sample_view(name, report._replace(images=images, fixes=(), free_bytes=150 << 30))


def hung(name: str) -> RepositoryView:
    return healthy(name)._replace(problem="the storage did not answer for 30 s", counts=healthy(name).counts)


async def test_the_worst_repository_is_opened(tmp_path: Path) -> None:
    """Whatever it is called; the line below the tabs says what the others have, at 80 columns too."""
    site = FixedSite(tmp_path / "state", [healthy("alpha"), hung("beta"), sample_view("zeta")])
    async with running(console(site)) as pilot:
        text = screen_text(pilot.app)
        assert site.current == "zeta" and "zeta" in text.split("\n")[0]
        assert "Others:  beta lost   alpha nothing broken    0 lists all" in text
        assert "zeta is shown first: ✖ BRK=3" in told(pilot.app)


async def test_what_the_operator_works_on_stays(tmp_path: Path) -> None:
    """Once a key was pressed another repository that is worse is told of, not put in its place."""
    site = FixedSite(tmp_path / "state", [healthy("alpha"), healthy("beta")])
    async with running(console(site)) as pilot:
        await press(pilot, "down")
        site.fixed["beta"] = sample_view("beta")
        site.scan_times.clear()
        pilot.app.tick()
        await idle(pilot)
        await press(pilot, "1")
        assert site.current == "alpha" and "beta ✖ BRK=3" in screen_text(pilot.app)


async def test_the_repository_that_is_asked_for_is_opened(tmp_path: Path) -> None:
    """Also where another is worse."""
    site = FixedSite(tmp_path / "state", [healthy("alpha"), sample_view("zeta")])
    async with running(console(site, repository="alpha")) as pilot:
        assert site.current == "alpha" and "zeta ✖ BRK=3" in screen_text(pilot.app)


async def test_one_that_hangs_does_not_keep_the_others_from_being_looked_at(tmp_path: Path) -> None:
    """A first look that takes long is not waited for."""
    site = FixedSite(tmp_path / "state", [healthy("alpha"), sample_view("zeta")])
    async with running(console(site, repository="alpha")) as pilot:
        site.views.clear()
        site.scan_times = {"alpha": site.time - 4}
        pilot.app.jobs._running.add("scan alpha")
        pilot.app.tick()
        pilot.app.jobs._running.discard("scan alpha")
        await idle(pilot)
        assert "zeta" in site.views


@pytest.mark.parametrize("columns", [80, 100, 160])
async def test_many_others_fit_in_their_line(columns: int, tmp_path: Path) -> None:
    """The worst come first, and how many more there are is said."""
    views = [healthy(f"a-rather-long-name-of-a-pool-{n:02d}") for n in range(20)]
    site = FixedSite(tmp_path / "state", [sample_view("zeta"), *views])
    async with running(console(site), (columns, 24)) as pilot:
        await press(pilot, "3")
        line = next(line for line in screen_text(pilot.app).split("\n") if "Others:" in line)
        assert "more   0 lists all" in line and len(line) <= columns


async def test_the_picker_takes_an_exact_name_first(tmp_path: Path) -> None:
    """Also where others, which come before it, have it in their name."""
    site = FixedSite(tmp_path / "state", [healthy("backup-pool"), healthy("mypool"), healthy("pool")])
    async with running(console(site)) as pilot:
        await press(pilot, "0", *"pool", "enter")
        assert site.current == "pool"


def test_an_entry_that_is_gone_gives_way_to_the_worst(tmp_path: Path) -> None:
    """After disconnecting."""
    site = FixedSite(tmp_path / "state", [healthy("alpha"), sample_view("zeta")])
    site.reload()
    site.views = dict(site.fixed)
    site.entries = tuple(RepositoryEntry(v.name, v.format, v.place, v.identity) for v in site.fixed.values())
    assert site.worst() == "zeta"
