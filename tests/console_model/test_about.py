"""What is shown of one image is what a view of everything shows of it."""

from __future__ import annotations

import contextlib

import pytest

from engine.errors import DiskwrightError
from sim.explore.cases.case import prepared
from sim.explore.cases.catalog import BEFORE_USES, CASES, LONG
from tui.view.gather import about, gather
from tui.view.snapshot import RepositoryView


def shown(view: RepositoryView, image: str) -> tuple[object, ...]:
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
