"""A volume group of which a physical volume is missing: what is there can be read, what is not is named, nothing is
given up, and all is as before when it comes back."""

from __future__ import annotations

import pytest

from engine.api import Engine
from engine.data.model import Status
from engine.errors import StorageError
from engine.tags import changes
from sim.disk.nodes import DataOp
from sim.hosts.world import LVM, REPOSITORIES, World
from sim.lvm.volume_groups import GARBAGE, make_device

MiB = 1 << 20
FLAT = {"strategy": "performance"}
FIRST, SECOND = f"{REPOSITORIES}/a/device", f"{REPOSITORIES}/a/second"
AWAY = f"{REPOSITORIES}/a/unplugged"


@pytest.fixture
def world() -> World:
    """A group of two devices; the records and the first disk that is made lie on the first."""
    world = World(format=LVM)
    world.storage.make_directory(f"{REPOSITORIES}/a")
    make_device(world.storage, FIRST, 200 * MiB)
    inode = world.storage.create(SECOND)
    world.storage.change(inode, DataOp(0, "fill", 0, 200 * MiB, GARBAGE), SECOND)
    world.storage.devices = world.storage.devices | {inode}
    engine = world.host("one", connect=False)
    engine.create_repository("lvm-1.0", {"volume_group": "a", "devices": [FIRST, SECOND]})
    engine.connect_storage_repository("a", "lvm-1.0", {"volume_group": "a"})
    return world


def disks(engine: Engine) -> tuple[str, str]:
    """A disk on the first device, and one that lies on the second at least in part."""
    found = [engine.create_virtual_disk("a", 60 * MiB, options=FLAT) for _ in range(3)]
    volumes = engine.context.repository("a").volumes.listing().volumes  # type: ignore[attr-defined]
    where = {}
    for disk in found:
        volume = changes.read(engine.context.repository("a"), disk).record.volume
        name = next(name for name in volumes if volume is not None and volume.id in name)
        where[disk] = {part.device for part in volumes[name].ranges}
    here = next(disk for disk in found if where[disk] == {FIRST})
    return here, next(disk for disk in found if SECOND in where[disk])


def unplugged(world: World) -> Engine:
    """The group after the machine has booted without its second device."""
    world.storage.rename(SECOND, AWAY)
    return world.host("one")


def test_what_is_there_is_read_and_what_is_missing_is_named(world):
    """One image is in order, the other is unknown and names the physical volume; nothing is offered on a guess."""
    here, away = disks(world.host("one"))
    engine = unplugged(world)
    status = {image.id: image for image in engine.list_images("a")}
    assert status[here].status == Status.OPTIMIZED
    assert (status[away].status, status[away].rule) == (Status.UNKNOWN, "U-DATA")
    assert "is missing the physical volume pv-second" in status[away].reason
    assert engine.check_storage_repository("a") == []
    engine.export_image("a", here, "/srv/out.raw", "raw")
    engine.teardown_image("a", engine.prepare_image("a", here, writable=False).image)
    with pytest.raises(StorageError, match="physical volume pv-second"):
        engine.export_image("a", away, "/srv/other.raw", "raw")


def test_records_change_and_volumes_do_not_until_it_is_back(world):
    """What needs LVM's metadata is refused and names the device; a removal waits; then everything goes on."""
    here, away = disks(world.host("one"))
    engine = unplugged(world)
    engine.set_user_data("a", away, {"name": "away"})
    for verb in (engine.create_snapshot, engine.prepare_image):
        with pytest.raises(StorageError, match=r"physical volume pv-second|PVs are missing"):
            verb("a", here)
    engine.remove_image("a", here)
    (fix,) = engine.check_storage_repository("a")
    with pytest.raises(StorageError, match="PVs are missing"):
        engine.run_fix_here("a", fix)
    world.storage.rename(AWAY, SECOND)
    engine = world.host("one")
    (fix,) = engine.check_storage_repository("a")
    engine.run_fix_here("a", fix)
    assert {image.status for image in engine.list_images("a")} == {Status.OPTIMIZED}
    engine.create_snapshot("a", away)


def test_records_that_lie_on_the_missing_device_name_it(world):
    """Nothing can be told of the repository then but which physical volume has to come back."""
    disks(world.host("one"))
    world.storage.rename(FIRST, AWAY)
    with pytest.raises(StorageError, match=r"records in a cannot be read.*physical volume pv-device"):
        world.host("one").list_images("a")
