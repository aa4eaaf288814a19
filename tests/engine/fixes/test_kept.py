"""Hidden data that is kept for a copy goes only when that is finished for good; on the simulator."""

from __future__ import annotations

from engine.data.kept import Kept
from engine.tags import changes
from engine.triage import rules
from sim.explore.cases.case import Case, prepared
from sim.explore.cases.driver import Driver
from sim.explore.cases.fixtures import images
from sim.hosts.tape import Tape


def a_kept_source() -> tuple[Driver, str]:
    """A copy that was committed, and its source below a disk, which is kept for it alone."""
    driver = prepared(Case("", images.a_chain, lambda driver: None))
    source = images.snap(driver)
    copy = driver.copy(("a", source), "b", auto_fix=False)
    driver.remove("a", source)
    context = driver.engine().context
    kept = Kept(context.repository("b").identity, copy)
    changes.change(context.repository("a"), source, lambda now: now._replace(removed=None, kept=kept))
    return driver, copy


def is_whole(driver: Driver, copy: str) -> bool:
    return changes.read(driver.world.host("two").context.repository("b"), copy).record.whole


def test_a_copy_that_looks_finished_is_made_durable_before_its_source_goes():
    """Who finished it was killed between the link of its record and the sync of the directory. Then what was kept for
    it becomes one with the disk, and the power goes: it would be unfinished again, and have no source any more."""
    driver, copy = a_kept_source()
    for nth in range(1, 30):
        driver, copy = a_kept_source()
        assert not [fix for fix in driver.engine().check_storage_repository("a") if fix.rule == rules.M_CHAIN]
        images.interrupted(driver, "b", rules.B_COPY, "files.sync_directory /srv/b/tags", nth)
        if is_whole(driver, copy):
            break
    (merge,) = [fix for fix in driver.engine().check_storage_repository("a") if fix.rule == rules.M_CHAIN]
    driver.engine().run_fix_here("a", merge)
    driver.world.tape = Tape((), lambda options, label, rarity: 1 if label.startswith("data of") else options - 1)
    driver.world.power_cut()
    assert is_whole(driver, copy)
