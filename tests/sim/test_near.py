"""A look at one image sees of it what a look at everything sees, and offers the same fixes."""

from __future__ import annotations

import contextlib

import pytest

from engine.data.model import Fix, ImageReport
from engine.errors import DiskwrightError
from engine.survey import survey
from engine.survey.near import near
from engine.triage.judge import judge
from sim.explore.cases.case import prepared
from sim.explore.cases.catalog import CASES
from sim.explore.oracle.invariants import observe


def without_estimates(fix: Fix) -> Fix:
    """What a fix brings later, by which other images then let something go, is not seen from one image."""
    return fix._replace(cost=fix.cost._replace(reclaimed_later_bytes=0), depends_on=(), unlocks=())


@pytest.mark.parametrize("case", CASES)
def test_one_image_is_seen_alike_from_near_and_from_afar(case: str):
    """Before and after what the case does, for each image and each fix."""
    driver = prepared(CASES[case])
    for step in ("before", "after"):
        if step == "after":
            with contextlib.suppress(DiskwrightError):
                CASES[case].operation(driver)
        engine = driver.world.fork(driver.world.storage.clone()).host("one")
        assert not [text for text in observe(driver.world, engine, driver.models, True).problems if "I17" in text]
        for repo in engine.list_repositories():
            context, repository = engine.context, engine.context.repository(repo)
            report = engine.inspect_repository(repo)
            looked = [image.id for image in report.images if near(repository, image.id) is not None]
            for image in report.images:
                found = judge(survey.look(context, repository, only=image.id))
                seen = next(one for one in found.images if one.id == image.id)
                assert seen._replace(busy="") == image._replace(busy="")
                mine = [without_estimates(fix) for fix in found.fixes if fix.target == image.id]
                if image.id in looked:
                    assert mine == [without_estimates(fix) for fix in report.fixes if fix.target == image.id]


def test_most_of_what_is_looked_at_is_looked_at_from_near():
    """Else the test above compares a thing with itself."""
    near_ones = all_of_them = 0
    for case in ("snapshot", "merge-down", "copy-same-base", "remove-below", "optimize-flat"):
        driver = prepared(CASES[case])
        engine = driver.engine()
        images: tuple[ImageReport, ...] = engine.inspect_repository("a").images
        all_of_them += len(images)
        near_ones += sum(near(engine.context.repository("a"), image.id) is not None for image in images)
    assert near_ones == all_of_them > 0
