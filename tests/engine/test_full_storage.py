"""A storage without one free byte: what frees room works, everything else is refused."""

from __future__ import annotations

import pytest

from engine.api import Engine
from engine.errors import NoSpace
from engine.formats.base import Ballast, Repository
from engine.formats.files.ballast import BALLAST_BYTES
from sim.disk.storage import DEFAULT_CAPACITY
from sim.explore.cases.case import Case, prepared
from sim.explore.cases.driver import Driver
from sim.explore.cases.fixtures import images
from sim.hosts.world import DEVICE_BYTES, LVM, NFS, SHARED, World

BALLAST = "/srv/a/ballast"
"""On the storage itself, wherever a host may have mounted it."""


@pytest.fixture(params=["localfs-1.0", "nfs-1.0"])
def driver(request: pytest.FixtureRequest) -> Driver:
    """A disk in a, and nothing else."""
    case = Case("full", images.a_disk, lambda driver: None, format=request.param)
    return prepared(case, "nfs" if request.param == "nfs-1.0" else "posix")


def leave(world: World, room: int | None) -> None:
    """So many bytes are free from here on; None: plenty."""
    space = world.storage.space("/")
    world.storage.capacity = DEFAULT_CAPACITY if room is None else space.total_bytes - space.free_bytes + room


def repository(driver: Driver) -> Repository:
    return driver.engine().context.repository("a")


def ballast(driver: Driver) -> Ballast:
    """What sets room apart in repository a."""
    found = repository(driver).ballast
    assert found is not None
    return found


def length(driver: Driver) -> int:
    return driver.world.storage.stat(BALLAST).size


def test_a_full_storage_can_be_emptied(driver: Driver):
    """Not one byte is free, and others fill at once what becomes free: remove and the clean after it work all the
    same, and when there is room again the ballast is what it was."""
    engine, disk = driver.engine(), driver.named["disk"]
    leave(driver.world, 0)
    with pytest.raises(NoSpace):
        engine.create_virtual_disk("a", 1 << 20)
    assert length(driver) == BALLAST_BYTES  # whoever wants room for something new gets none of it
    engine.remove_image("a", disk)
    leave(driver.world, 0)
    (fix,) = engine.check_storage_repository("a")
    engine.run_fix_here("a", fix)
    assert not engine.check_storage_repository("a")
    leave(driver.world, None)
    engine.create_virtual_disk("a", 1 << 20)
    ballast(driver).keep()
    assert length(driver) == BALLAST_BYTES


def test_room_is_taken_back_at_once(driver: Driver):
    """What a removal did not need of the room that it was given is set apart again before anybody can use it up, so
    removals can follow each other on a storage that stays full."""
    engine, disk = driver.engine(), driver.named["disk"]
    leave(driver.world, 0)
    for _ in range(12):
        engine.remove_image("a", disk)
        engine.restore_image("a", disk)
    assert length(driver) > BALLAST_BYTES // 2


def test_without_ballast_the_error_says_what_helps(driver: Driver):
    """It names the storage, and does not advise a clean, which would fail too."""
    engine, disk = driver.engine(), driver.named["disk"]
    leave(driver.world, 0)
    while ballast(driver).release():
        leave(driver.world, 0)
    with pytest.raises(NoSpace, match="cannot write a record") as caught:
        engine.remove_image("a", disk)
    assert "few hundred KiB" in caught.value.next_step and repository(driver).place in caught.value.next_step
    assert "clean" not in caught.value.next_step


def test_an_old_repository_gets_ballast_when_it_is_written(driver: Driver):
    """Its first new record makes it, if there is room to spare; a small storage is left alone."""
    driver.world.storage.unlink(BALLAST)
    leave(driver.world, 4 * BALLAST_BYTES)
    driver.world.host("two").set_user_data("a", driver.named["disk"], {"n": 1})
    with pytest.raises(FileNotFoundError):
        driver.world.storage.stat(BALLAST)
    leave(driver.world, 16 * BALLAST_BYTES)
    driver.world.host("three").set_user_data("a", driver.named["disk"], {"n": 2})
    assert length(driver) == BALLAST_BYTES


def test_the_notes_of_a_host_may_stand_on_the_storage_that_is_full(driver: Driver):
    """A clean is a task, which is noted: on the only file system of a host that needs room there too, for itself and
    for what it says. Found so: the clean that the error advised failed, having no room for its note."""
    world, disk = driver.world, driver.named["disk"]
    process = world.process_of(world.host("four"))
    world.storage.make_directory("/srv/notes")
    engine = Engine(process.doors, "/srv/notes")
    on_nfs = {"server": "nas", "export": "/srv", "directory": "a"}
    engine.connect_storage_repository("a", world.format, on_nfs if world.format == NFS else {"path": "/srv/a"})
    engine.remove_image("a", disk)
    leave(world, 0)
    (fix,) = engine.check_storage_repository("a")
    task = engine.fix_storage_repository("a", fix, {"irreversible": True})
    engine.wait_for_task(task)
    assert [event["event"] for event in engine.task_events(task)] == ["start", "done", "end"]
    assert not engine.check_storage_repository("a")
    leave(world, 0)
    with pytest.raises(NoSpace):
        engine.create_virtual_disk("a", 1 << 20)


# -- what a fix needs


def test_a_fix_whose_own_record_has_no_room_does_not_fit(driver: Driver):
    """Finishing a disk moves no data; where not even its record has room it waits for room, and a clean does not."""
    engine = driver.engine()
    engine.create_virtual_disk("a", 1 << 20, options={"auto_fix": False})
    engine.remove_image("a", driver.named["disk"])
    leave(driver.world, 64 << 10)
    fits = {fix.rule: (fix.cost.fits, bool(fix.waits_for)) for fix in engine.check_storage_repository("a")}
    assert fits == {"B-CREATE": (False, True), "C-REMOVED": (True, False)}


def test_digest_lists_need_room_too(driver: Driver):
    """A thin file of 1 TiB has a digest list of 16 MiB: as long as there is less the import waits."""
    files = driver.world.storage
    files.make_directory("/thin")
    engine = driver.engine()
    with engine.context.doors.files.create("/thin/disk.raw") as handle:
        handle.truncate(1 << 40)
        handle.write_at(1 << 39, b"x" * 4096)
    engine.import_image("a", "/thin/disk.raw", "raw", options={"auto_fix": False})
    for room, fits in ((8 << 20, False), (32 << 20, True)):
        leave(driver.world, room)
        (fix,) = engine.check_storage_repository("a")
        assert (fix.rule, fix.cost.fits) == ("B-IMPORT", fits)


# -- volume groups


@pytest.mark.parametrize("format", [LVM, SHARED])
def test_a_full_volume_group_can_be_emptied(format: str):
    """Not one extent is free: what was refused says what helps, and that works, down to the last image."""
    world = World(format=format)
    world.create("a")
    engine = world.host("one")
    engine.take_srm("a")
    space, advice = engine.context.repository("a").space, ""
    size = DEVICE_BYTES // 4
    for _ in range(40):
        try:
            engine.create_virtual_disk("a", size)
        except NoSpace as error:
            advice, size = error.next_step, max(size // 2, 1 << 20)
    assert space()[1] == 0 and "check lists what can be cleaned" in advice
    for image in engine.list_images("a"):
        engine.remove_image("a", image.id)
        (fix,) = engine.check_storage_repository("a")
        engine.run_fix_here("a", fix)
    assert not engine.list_images("a") and not engine.check_storage_repository("a")
    engine.create_virtual_disk("a", DEVICE_BYTES // 4)
