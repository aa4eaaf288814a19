"""Removed layers that follow each other become one with the image above them in one pass; on the simulator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.data.model import Fix
from engine.errors import StaleFix
from engine.fixes import clean, merge, run
from engine.tags import changes
from engine.triage import rules
from engine.triage.offers.merging import RUN_LAYERS
from sim.explore.cases.case import Case, prepared
from sim.explore.cases.driver import Driver
from sim.explore.cases.fixtures import images
from sim.hosts.world import NFS
from sim.qemu.images import SimImageTool
from tests.engine.kit import record, shown
from tui.view.gather import gather


def offered(driver: Driver) -> list[Fix]:
    return [fix for fix in driver.engine().check_storage_repository("a") if fix.rule == rules.M_CHAIN]


def tags(driver: Driver) -> set[str]:
    return {tag for tag, entry in driver.engine().context.repository("a").tags.scan().items() if not entry.tombstone}


@pytest.fixture
def driver() -> Driver:
    return prepared(Case("", images.a_run, lambda driver: None))


@pytest.mark.parametrize("format", ["localfs-1.0", NFS])
@pytest.mark.parametrize(("prepare", "way"), [(images.a_run, "fresh"), (images.a_run_on_nothing, "down")])
def test_a_run_of_removed_layers_is_one_fix_and_leaves_the_image_alone(
    prepare: Callable[[Driver], None], way: str, format: str
):
    """Both ways; each image reads the same, and of the layers nothing is left."""
    driver = prepared(Case("", prepare, lambda driver: None, format=format))
    (fix,) = offered(driver)
    assert fix.plan["direction"] == way and len(fix.images) == RUN_LAYERS + 1 and fix.irreversible
    assert f"{RUN_LAYERS} layers" in fix.why
    driver.engine().run_fix_here("a", fix)
    kept = {images.disk(driver), driver.named.get("base", images.disk(driver))}
    assert tags(driver) == kept and all(shown(driver, image) for image in kept)
    assert driver.engine().check_storage_repository("a") == []


def test_the_data_of_a_run_is_moved_once_however_many_layers_it_has(monkeypatch: pytest.MonkeyPatch):
    """As many sessions are opened for a long run as for a short one."""
    opened = 0
    open_session = SimImageTool.open_session

    def counted(*arguments: Any, **named: Any) -> object:
        nonlocal opened
        opened += 1
        return open_session(*arguments, **named)

    found = []
    for layers in (RUN_LAYERS, 3 * RUN_LAYERS):
        monkeypatch.setattr(images, "RUN_LAYERS", layers)
        driver = prepared(Case("", images.a_run, lambda driver: None))
        (fix,) = offered(driver)
        monkeypatch.setattr(SimImageTool, "open_session", counted)
        opened = 0
        driver.engine().run_fix_here("a", fix)
        monkeypatch.setattr(SimImageTool, "open_session", open_session)
        found.append(opened)
        assert shown(driver, images.disk(driver))
    assert found == [2, 2]


def test_where_a_second_copy_has_no_room_layers_are_merged_two_by_two(driver: Driver):
    """In place, as a shorter run is."""
    storage = driver.world.storage
    storage.capacity -= storage.space("/").free_bytes - (1 << 20)
    assert len(offered(driver)) == RUN_LAYERS and not [fix for fix in offered(driver) if "base" in fix.plan]


def test_a_view_of_the_repository_has_the_same_fixes(driver: Driver):
    """What the console shows and plans is what check returns."""
    checked = driver.engine().check_storage_repository("a")
    assert [row.id for row in gather(driver.engine(), "a").fixes] == [fix.id for fix in checked]


def test_an_image_in_between_cuts_a_run(driver: Driver):
    """A layer that was restored, or that another image stands on, is none of it; what was offered before is stale."""
    (before,) = offered(driver)
    driver.restore("a", images.snap(driver))
    with pytest.raises(StaleFix):
        driver.engine().run_fix_here("a", before)
    found = offered(driver)
    assert found and not [fix for fix in found if images.snap(driver) in fix.images[1:]]
    driver.create("a", images.SIZE, ("a", images.snap(driver)))
    driver.remove("a", images.snap(driver))
    found = offered(driver)
    assert found and not [fix for fix in found if images.snap(driver) in fix.images[1:]]
    for fix in found:  # what a look around one tag sees is the same
        run.verify(driver.engine().context, driver.engine().context.repository("a"), fix)


def test_a_layer_that_is_restored_while_the_run_is_merged_stays_with_all_below_it(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
):
    """The merge wrote to none of them. The disk stands on what is below the run already."""
    (fix,) = offered(driver)
    cleaned, deleted = [], clean.tag

    def restoring(*arguments: object) -> None:
        cleaned.append(arguments[2])
        if len(cleaned) == 1:
            driver.on("two").restore("a", images.snap(driver))
        deleted(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(clean, "tag", restoring)
    driver.engine("one").run_fix_here("a", fix)
    assert [tag in tags(driver) for tag in fix.images] == [True, False, False, True, True]
    assert all(shown(driver, image) for image in (images.disk(driver), images.snap(driver), driver.named["base"]))
    volume = record(driver.engine(), "a", images.disk(driver)).volume
    assert volume is not None and volume.parent == driver.named["base"]


def test_what_another_program_goes_on_with_as_a_merge_of_two_is_begun_anew(driver: Driver):
    """A record that says that a run is being merged names the uppermost layer, as that of a merge of two does."""
    images.interrupted(driver, "a", rules.M_CHAIN, before="handle.sync /srv/a/volumes")
    begun = record(driver.engine(), "a", images.disk(driver)).operation
    (fix,) = offered(driver)
    assert begun is not None and begun.other == fix.target and "goes on" in fix.why
    context = driver.engine().context
    merge.merge(context, context.repository("a"), fix.target, images.disk(driver), "fresh")
    assert shown(driver, images.disk(driver))
    while fixes := driver.engine().check_storage_repository("a"):
        driver.engine().run_fix_here("a", fixes[0])
    assert tags(driver) == {images.disk(driver), driver.named["base"]} and shown(driver, images.disk(driver))


def test_the_layers_below_one_that_was_reserved_for_a_merge_are_merged_two_by_two(monkeypatch: pytest.MonkeyPatch):
    """A merge of two died before it had begun: its lower tag is absorbed, and no chain goes through that by itself. All
    that is offered can be run."""
    monkeypatch.setattr(images, "RUN_LAYERS", RUN_LAYERS + 1)
    driver = prepared(Case("", images.a_run, lambda driver: None))
    (fix,) = offered(driver)
    disk, reserved = fix.images[:2]
    repository = driver.engine().context.repository("a")
    changes.change(repository, reserved, lambda record: record._replace(absorbed_by=disk))
    for _ in range(20):
        found = offered(driver)
        if not found:
            break
        driver.engine().run_fix_here("a", max(found, key=lambda fix: fix.target != reserved))
    assert not offered(driver) and shown(driver, disk) and shown(driver, driver.named["base"])
