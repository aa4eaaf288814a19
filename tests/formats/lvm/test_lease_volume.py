"""A group that hosts share, and ``dw-leases`` is not what it was: each is told that, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.api import Engine
from engine.data.model import VolumeFormat
from engine.data.records import VolumeRef
from engine.errors import Damaged
from engine.formats.lvm.metadata import layout
from sim.disk.nodes import FileNode
from sim.explore.cases.case import prepared
from sim.explore.cases.catalog import SHARED_BY_HOSTS
from sim.explore.cases.driver import Driver
from sim.hosts.lease_areas import Area, Slot
from sim.lvm.group_model import Group
from sim.lvm.volume_groups import SimVolumeGroups

MiB = 1 << 20


@pytest.fixture
def driver() -> Driver:
    """With a disk."""
    driver = prepared(SHARED_BY_HOSTS["shared:prepared"])
    driver.close()
    return driver


def disk(driver: Driver) -> str:
    return next(image for _, image in driver.model.images)


def by_hand(driver: Driver, change: Callable[[Group], Group]) -> None:
    """Change the group with other tools, which do not care for who uses what."""
    groups = driver.world.machine("one").process("direct").doors.volume_groups
    assert isinstance(groups, SimVolumeGroups)
    place, found = groups._find("a")
    groups._commit(place, change(found))
    driver.world.storage.settle()


def storage(driver: Driver) -> dict[str, bytes]:
    """What is on the devices."""
    return {path: node.content.digest for path, _, node in driver.world.storage.walk() if isinstance(node, FileNode)}


def area_of(driver: Driver, engine: Engine) -> Area:
    """As sanlock has it."""
    return driver.world.shared.areas[layout.area_name(engine.list_repositories()["a"].identity)]


def new(driver: Driver) -> Engine:
    return driver.world.host("one", connect=False)


VERBS: dict[str, Callable[[Engine, str], object]] = {
    "check": lambda engine, disk: engine.inspect_repository("a"),
    "status": lambda engine, disk: engine.get_image_status("a", disk),
    "create": lambda engine, disk: engine.create_virtual_disk("a", MiB),
    "snapshot": lambda engine, disk: engine.create_snapshot("a", disk),
    "remove": lambda engine, disk: engine.remove_image("a", disk),
    "prepare": lambda engine, disk: engine.prepare_image("a", disk),
    "teardown": lambda engine, disk: engine.teardown_image("a", disk),
    "srm": lambda engine, disk: engine.take_srm("a"),
}
LOST: dict[str, Callable[[Group], Group]] = {
    "has no dw-leases": lambda group: group.removed(layout.LEASES),
    "dw-leases .* was cut": lambda group: group.resized(layout.LEASES, MiB),
}
PUT_BACK: dict[str, Callable[[Group], Group]] = {
    "has no dw-leases": lambda group: group.created(layout.LEASES, layout.leases_bytes(1), []),
    "dw-leases .* was cut": lambda group: group.resized(layout.LEASES, layout.leases_bytes(1)),
}


@pytest.mark.parametrize("words", LOST)
def test_each_command_says_that_it_is_lost_and_changes_nothing(driver: Driver, words: str):
    """It is not made anew. Put back where it lay, everything works; until then the host can disconnect."""
    driver.world.host("one").close()  # it takes part
    by_hand(driver, LOST[words])
    seen = storage(driver)
    for verb in VERBS.values():
        with pytest.raises(Damaged, match=rf"{words}.*When dw-leases is gone"):
            verb(new(driver), disk(driver))
    assert storage(driver) == seen
    area = area_of(driver, new(driver))
    new(driver).disconnect_storage_repository("a")
    assert "one" in [one.host for one in area.presences.values() if one.left]
    by_hand(driver, PUT_BACK[words])
    engine = driver.world.host("two")
    engine.take_srm("a")
    assert engine.create_virtual_disk("a", MiB)


def test_its_place_is_not_given_away_by_a_host_that_has_it_open(driver: Driver):
    """Whose sanlock goes on writing there."""
    engine = driver.world.host("one")
    engine.take_srm("a")
    engine.context.repository("a")
    by_hand(driver, LOST["has no dw-leases"])
    volume = VolumeRef("f" * 32, VolumeFormat.RAW, "")
    with pytest.raises(Damaged, match="has no dw-leases"):
        engine.context.repository("a").volumes.make(volume, MiB, None)
    assert layout.volume_name(volume.id) not in engine.doors.volume_groups.report("a").volumes


def test_leases_that_were_made_anew_are_noticed_before_anything_is_written(driver: Driver):
    """They count from the beginning: what is written under them would be older than what it replaces. The header and
    each record tell."""
    engine = driver.world.host("one")
    engine.take_srm("a")
    for number in range(3):
        engine.set_user_data("a", disk(driver), {"n": number})
    area = area_of(driver, engine)
    area.slots = {key: Slot() for key in area.slots}
    seen = storage(driver)
    for verb in (
        lambda: engine.set_user_data("a", disk(driver), {"n": 9}),
        lambda: engine.remove_image("a", disk(driver)),
        lambda: engine.release_srm("a"),
    ):
        with pytest.raises(Damaged, match=r"older than its records .*When dw-leases is gone"):
            verb()
    assert storage(driver) == seen and engine.get_user_data("a", disk(driver)) == {"n": 2}


def test_a_host_whose_presence_counts_from_the_beginning_is_refused(driver: Driver):
    """Its notes of what it has handed out would not count."""
    engine = driver.world.host("one")
    engine.prepare_image("a", disk(driver))
    driver.world.machine("one").lose_power()
    area = area_of(driver, new(driver))
    engine = driver.world.host("one")
    engine.prepare_image("a", disk(driver))
    driver.world.machine("one").lose_power()
    area.presences.clear()
    with pytest.raises(Damaged, match="older than its records"):
        new(driver).list_images("a")
