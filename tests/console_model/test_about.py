"""What is shown of one image is what a view of everything shows of it."""

from __future__ import annotations

import contextlib

import pytest

from engine.data.model import Status
from engine.errors import DiskwrightError
from engine.tags import changes
from sim.explore.cases.case import Case, prepared
from sim.explore.cases.catalog import BEFORE_USES, CASES, LONG
from sim.explore.cases.fixtures.images import SIZE, a_chain, disk, snap, volume_file
from tui.view.gather import about, gather
from tui.view.snapshot import RepositoryView


def shown(view: RepositoryView, image: str) -> tuple[object, object, list[str]]:
    """The row, the fixes with the images that they are of, and what waits for it."""
    waiting = [row.id for row in map(view.images.__getitem__, view.images.not_optimized()) if image in row.reason]
    row = view.image(image)
    assert row is not None
    return (
        row._replace(number=0),
        sorted((row.rule, row.target, row.key) for row in view.fixes_of(image)),
        sorted(waiting),
    )


@pytest.mark.parametrize("case", [*list(CASES)[::4], *LONG, *BEFORE_USES])
def test_one_image_is_shown_as_among_all(case: str):
    """Before and after what the case does."""
    driver = prepared({**CASES, **LONG, **BEFORE_USES}[case])
    for step in ("before", "after"):
        if step == "after":
            with contextlib.suppress(DiskwrightError):
                {**CASES, **LONG, **BEFORE_USES}[case].operation(driver)
        engine = driver.world.fork(driver.world.storage.clone()).host("one")
        for repo in engine.list_repositories():
            all_of_them = gather(engine, repo)
            for image in [all_of_them.images[index].id for index in range(len(all_of_them.images))]:
                found = about(engine, repo, image)
                assert found is not None
                assert shown(found[1], image) == shown(all_of_them, image), (step, repo)


def test_all_that_waits_for_a_broken_image_is_shown_however_far_above_it_is():
    """A deep look finds the tables of its volume overwritten; disks stand on snapshots of disks above it."""
    driver = prepared(Case("broken", a_chain, lambda driver: None))
    engine, top = driver.world.host("one"), disk(driver)
    for _ in range(3):
        top = engine.create_virtual_disk("a", SIZE, engine.create_snapshot("a", top))
    with volume_file(driver, "a", snap(driver)) as handle:
        handle.write_at(128 << 10, b"\xff" * (128 << 10))
        handle.sync()
    changes.change(engine.context.repository("a"), snap(driver), lambda now: now._replace(seen=None))
    found = about(engine, "a", snap(driver), deep=True)
    assert found is not None and found[0].status is Status.BROKEN
    row, fixes, waiting = shown(found[1], snap(driver))
    assert (row, fixes, waiting) == shown(gather(engine, "a", deep=True), snap(driver)) and top in waiting
