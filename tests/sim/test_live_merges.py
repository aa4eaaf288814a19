"""What a merge beside a running machine refuses, and what it does not call a failure."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import ImageBusy, Refused
from engine.host import machines
from engine.tags import changes
from sim.explore.cases.driver import Driver
from sim.explore.cases.fixtures import images
from tests.sim.live_kit import a_merge, start


@pytest.mark.parametrize("lags", [True, False])
def test_an_interrupted_snapshot_and_a_merge_that_was_begun_downwards_are_refused(
    lags: bool, driver: Driver, monkeypatch: pytest.MonkeyPatch
):
    """With nothing done: its machine still writes below, or can only go on upwards."""
    images.a_removed_snapshot(driver)
    disk, engine = driver.named["disk"], driver.engine()
    machine = start(driver, disk)
    fix, repository = a_merge(driver), engine.context.repository("a")
    generation = changes.read(repository, disk).generation
    if lags:
        find = machines.find
        monkeypatch.setattr(machines, "find", lambda *arguments: find(*arguments)._replace(lags=True))
    else:
        fix = fix._replace(plan={**fix.plan, "direction": "down"})
    with pytest.raises(Refused, match="snapshot was interrupted" if lags else "begun the other way"):
        engine.run_fix_here("a", fix)
    assert (changes.read(repository, disk).generation, machine.jobs()) == (generation, {})


def test_a_merge_that_is_done_is_done_though_another_host_comes_in_between(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
):
    """For the lease of what is below; the disk has a holder all the same."""
    images.a_removed_middle(driver)
    engine = driver.engine()
    machine = start(driver, driver.named["disk"])
    deep = len(machine.nodes())

    def busy(*arguments: Any) -> None:
        raise ImageBusy("another host has it")

    monkeypatch.setattr(machines, "give_back", busy)
    engine.run_fix_here("a", a_merge(driver))
    assert (len(machine.nodes()), len(engine.list_prepared())) == (deep - 1, 1)
