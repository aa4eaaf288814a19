"""A fix is out of date as soon as a record that it goes by has changed. Which those are is told here once more, by the
records alone, and not by what the fix says that it has read."""

from __future__ import annotations

import pytest

from engine.api import Engine
from engine.data.model import Fix
from engine.errors import StaleFix
from engine.tags import changes
from engine.triage import propose, rules
from engine.triage.offers import merging, optimizing
from sim.explore.cases.case import prepared
from sim.explore.cases.catalog import CASES

FIXES = {
    "merge-down": ("a", rules.M_CHAIN),
    "merge-up": ("a", rules.M_CHAIN),
    "optimize-flat": ("a", rules.O_FLAT),
    "optimize-format": ("a", rules.O_FORMAT),
    "mend-copy": ("b", rules.B_COPY),
    "mend-import": ("a", rules.B_IMPORT),
    "clean-removed": ("a", rules.C_REMOVED),
    "clean-scrap": ("a", rules.C_SCRAP),
}


def gone_by(engine: Engine, repo: str, fix: Fix) -> set[str]:
    """The tags that a fix goes by: its image; of a merge the one above, too; of a rebuild all that is below."""
    repository = engine.context.repository(repo)
    records = {tag: entry.record for tag, entry in repository.tags.scan().items() if entry.record is not None}
    found = {fix.target}
    if fix.rule == rules.M_CHAIN:
        found |= {tag for tag, record in records.items() if record.volume and record.volume.parent == fix.target}
    tag = fix.target
    while fix.rule == rules.O_FLAT and (volume := records[tag].volume) is not None and volume.parent:
        tag = volume.parent
        found.add(tag)
    return found


def unnoticed(case: str) -> list[str]:
    """The tags whose change leaves the fix of a case as good as it was."""
    driver = prepared(CASES[case], "process")
    repo, rule = FIXES[case]
    offered = driver.engine("two").check_storage_repository(repo)
    fix = next(fix for fix in offered if fix.rule == rule)
    found = []
    for tag in sorted(gone_by(driver.engine("two"), repo, fix)):
        engine = driver.world.fork(driver.world.storage.clone()).host("three")
        changes.change(engine.context.repository(repo), tag, lambda record: record._replace(user_data={"changed": 1}))
        try:
            engine.run_fix_here(repo, fix)
        except StaleFix:
            continue
        found.append(tag)
    return found


@pytest.mark.parametrize("case", FIXES)
def test_a_fix_is_out_of_date_when_a_record_that_it_goes_by_has_changed(case: str):
    """Each of them."""
    assert unnoticed(case) == []


def test_a_merge_whose_identity_leaves_one_side_out_is_reported(monkeypatch: pytest.MonkeyPatch):
    """The lower tag, or the upper one."""
    for side in (0, 1):
        with monkeypatch.context() as patch:
            patch.setattr(
                merging,
                "reads_of",
                lambda graph, tags, dependants, side=side: propose.reads_of(graph, [tags[side]], dependants),
            )
            assert len(unnoticed("merge-down")) == 1


def test_a_rebuild_whose_identity_leaves_its_base_out_is_reported(monkeypatch: pytest.MonkeyPatch):
    """What is below the image."""
    monkeypatch.setattr(optimizing, "reads_of", lambda graph, tags: propose.reads_of(graph, tags[:1]))
    assert len(unnoticed("optimize-flat")) == 1
