"""Verbs and fixes on logical volumes: who may, what stays active, and how much room is taken."""

from __future__ import annotations

import pytest

from engine.copying import pump
from engine.data.model import FixType, Status
from engine.errors import NoSpace, NotFound, Refused, StorageError
from engine.tags import changes
from sim.explore.cases.driver import Driver, MiB, read
from sim.explore.cases.fixtures import lvm
from sim.hosts.world import DEVICE_BYTES, LVM, World
from sim.lvm.volume_groups import groups_of
from tests.engine.kit import shown

EXTENT = 4 * MiB


@pytest.fixture
def world() -> World:
    """Repositories a and b on a volume group each, made by the host setup."""
    world = World(format=LVM)
    world.create("a", "b")
    return world


@pytest.fixture
def driver(world) -> Driver:
    world.host("one")
    return Driver(world)


def active(world: World) -> set[str]:
    """Names of volumes that are active on the host, without the records."""
    here = world.machine("one").active
    return {
        name
        for group in groups_of(world.storage).values()
        for name, volume in group.volumes.items()
        if volume.uuid in here and name != "dw-meta"
    }


def volume_name(engine, image: str) -> str:
    volume = changes.read(engine.context.repository("a"), image).record.volume
    assert volume is not None
    return f"dwv-{volume.id}"


def test_no_verb_leaves_a_volume_active(world, driver):
    """Create, snapshot, copy, export, deep check, digest and fixes: all is inactive when they have returned."""
    engine = driver.engine()
    world.storage.make_directory("/files")
    disk = driver.create("a", 6 * MiB)
    assert not active(world)
    driver.write("a", disk, 0, b"x" * 4096)
    snapshot = driver.snapshot("a", disk)
    assert not active(world)
    engine.export_image("a", disk, "/files/out", "raw")
    engine.inspect_repository("a", {"deep": True})
    engine.get_image_status("a", disk, {"deep": True})
    engine.record_digest("a", snapshot)
    assert not active(world)
    driver.copy(("a", snapshot), "b")
    driver.wait()
    driver.set_strategy("a", disk, "performance")
    driver.fix("a", "O-FLAT")
    assert not active(world)
    with pytest.raises(NotFound):
        engine.create_snapshot("a", "f" * 32)
    engine.create_snapshot("a", disk)
    assert not active(world)


def test_a_prepared_chain_is_active_as_long_as_its_holder_lives(world, driver):
    """Every layer of it; teardown takes them away, and so does the next one that looks when the holder died."""
    engine = driver.engine()
    disk = driver.create("a", 6 * MiB)
    driver.snapshot("a", disk)
    entry = engine.prepare_image("a", disk)
    assert len(active(world)) == 2
    engine.inspect_repository("a", {"deep": True})
    assert len(active(world)) == 2
    engine.teardown_image("a", disk)
    assert not active(world)
    entry = engine.prepare_image("a", disk)
    engine.doors.processes.kill(entry.process)
    assert len(active(world)) == 2
    engine.create_snapshot("a", disk)
    assert not active(world)


def test_disconnect_leaves_nothing_active(world, driver):
    """Not even the volume of the records."""
    engine = driver.engine()
    disk = driver.create("a", 6 * MiB)
    engine.doors.processes.kill(engine.prepare_image("a", disk).process)
    for repo in ("a", "b"):
        engine.disconnect_storage_repository(repo)
    assert not world.machine("one").active


def test_what_does_not_fit_is_refused_and_nothing_is_made(world, driver):
    """The verb says so before its intent is on disk."""
    engine = driver.engine()
    before = world.storage.fingerprint()
    for strategy in ("space", "performance"):
        with pytest.raises(NoSpace, match="are needed"):
            engine.create_virtual_disk("a", DEVICE_BYTES, options={"strategy": strategy})
    assert world.storage.fingerprint() == before
    assert engine.list_images("a") == []
    half = DEVICE_BYTES // 2
    disk = driver.create("a", half)
    with pytest.raises(NoSpace):
        engine.create_snapshot("a", disk)
    with pytest.raises(NoSpace):
        engine.copy_image("a", disk, None, None, {"auto_fix": False})
    assert [image.status for image in engine.list_images("a")] == [Status.OPTIMIZED]


def test_a_snapshot_gives_back_what_it_will_never_use(world, driver):
    """A fix of type optimize with the exact bytes; a disk is never offered one, and the data stays."""
    engine = driver.engine()
    disk = driver.create("a", 16 * MiB)
    driver.write("a", disk, 5 * MiB, b"d" * 4096)
    assert engine.check_storage_repository("a") == []
    snapshot = driver.snapshot("a", disk)
    (fix,) = engine.check_storage_repository("a")
    assert (fix.rule, fix.type, fix.target, fix.needs_srm) == ("O-REDUCE", FixType.OPTIMIZE, snapshot, True)
    free = engine.context.repository("a").space()[1]
    engine.run_fix_here("a", fix)
    assert engine.context.repository("a").space()[1] == free + fix.cost.reclaimed_bytes
    assert fix.cost.reclaimed_bytes % EXTENT == 0 and fix.cost.reclaimed_bytes >= 12 * MiB
    assert engine.check_storage_repository("a") == []
    assert engine.get_image_status("a", snapshot).status == Status.OPTIMIZED


def test_a_disk_on_a_merged_down_base_has_all_its_room(world, driver):
    """The base was reduced as a snapshot; before the merge writes into it, it is extended."""
    engine = driver.engine()
    disk = driver.create("a", 16 * MiB, strategy="performance")
    snapshot = driver.snapshot("a", disk, strategy="space")
    driver.write("a", disk, 0, b"1" * 4096)
    second = driver.snapshot("a", disk, strategy="space")
    driver.fix("a", "O-REDUCE", second)
    driver.remove("a", second)
    merge = driver.fix("a", "M-CHAIN", second)
    group = engine.doors.volume_groups.report("a")
    assert group.volumes[volume_name(engine, disk)].size >= 16 * MiB, merge.plan
    driver.write("a", disk, 9 * MiB, b"2" * 4096)
    assert snapshot


def test_the_bytes_of_removed_disks_never_come_back(world, driver):
    """Raw and qcow2 volumes made where others were read as zeros."""
    engine = driver.engine()
    world.storage.make_directory("/files")
    for strategy in ("performance", "space"):
        disk = driver.create("a", 6 * MiB, strategy="performance")
        for at in range(0, 6 * MiB, MiB):
            driver.write("a", disk, at, b"s" * 4096)
        driver.remove("a", disk)
        driver.fix("a", "C-REMOVED")
        fresh = engine.create_virtual_disk("a", 6 * MiB, options={"strategy": strategy})
        engine.export_image("a", fresh, f"/files/{strategy}", "raw")
        content = world.storage.file(f"/files/{strategy}")[1].content
        assert content.read(0, 6 * MiB) == bytes(6 * MiB)
        engine.remove_image("a", fresh)
        engine.run_fix_here("a", engine.check_storage_repository("a")[0])


def filled(driver: Driver) -> list[tuple[str, str]]:
    """Raw images with holes, each filled in another way on devices of garbage: what of them reads wrong."""
    lvm.a_raw_copy_with_windows(driver)
    snapshot = driver.named["snapshot"]
    driver.fix("b", "B-COPY")
    second = driver.snapshot("a", driver.named["disk"])
    longer = driver.create("b", 9 * MiB, ("a", second), strategy="performance")
    flat = driver.create("a", 8 * MiB, ("a", second))
    driver.set_strategy("a", flat, "performance")
    driver.fix("a", "O-FLAT")
    engine = driver.engine()
    driver.give_file("/files/odd", b"i" * (3 * MiB - 1000) + bytes(2 * MiB) + b"i" * 77)
    imported = driver.import_raw("a", "/files/odd", strategy="performance")
    driver.wait()
    wrong = []
    for repo, image in (("b", snapshot), ("b", longer), ("a", flat), ("a", imported)):
        assert engine.get_image_status(repo, image).status is Status.OPTIMIZED
        if not shown(driver, image, repo):
            wrong.append((repo, image))
    return wrong


def test_no_fill_shows_what_was_on_the_device(world, driver):
    """Copies, a base of another repository under a longer disk, a flattened disk, an import: holes are zeros."""
    world.storage.make_directory("/files")
    assert filled(driver) == []


@pytest.mark.parametrize(
    ("where", "what", "instead"),
    [
        (pump, "_gap", lambda start, end: iter(())),
        (pump, "subtract", lambda ranges, hidden: []),
        (pump._Zeros, "issue", lambda zeros: None),
    ],
    ids=["a hole", "a hole beside data", "zeros that were read"],
)
def test_what_is_not_zeroed_shows(world, driver, monkeypatch, where, what, instead):
    """The test above would not let it pass."""
    world.storage.make_directory("/files")
    monkeypatch.setattr(where, what, instead)
    assert filled(driver)


def test_a_copy_that_goes_on_trusts_nothing_above_its_cursor(world, driver, monkeypatch):
    """Made ahead by whichever version, begun at whichever cursor: what is above the cursor is never trusted."""
    lvm.a_raw_copy_with_windows(driver)
    repository = driver.engine().context.repository("b")
    entry = repository.tags.read(driver.named["snapshot"])
    assert entry is not None and entry.record is not None and entry.record.operation is not None
    operation = entry.record.operation
    assert operation.is_made and operation.attempt is not None
    with driver.engine().doors.volume_groups.open_device(
        repository.volumes.layer(operation.attempt).path, True
    ) as device:
        device.write_at(0, b"?" * 6 * MiB)
        device.sync()
    content = driver.image("b", driver.named["snapshot"]).content
    with driver.engine().doors.volume_groups.open_device(
        repository.volumes.layer(operation.attempt).path, True
    ) as device:
        device.write_at(0, content.read(0, 2 * MiB))
        device.sync()
    changes.change(
        repository,
        driver.named["snapshot"],
        lambda record: record._replace(operation=operation._replace(cursor=2 * MiB)),
    )
    repository.activation.deactivate()
    driver.fix("b", "B-COPY")
    assert read(driver.engine(), "b", driver.named["snapshot"], 6 * MiB).same(content)


# -- the manager


@pytest.fixture
def two() -> World:
    """Two hosts: the repository is made and managed by host one."""
    world = World(format=LVM)
    world.create("a")
    world.only_host = ""
    return world


def test_a_host_that_is_not_the_manager_looks_and_is_refused(two):
    """Every verb names the manager, before anything is written; check, status and constraints work."""
    one, other = two.host("one"), two.host("other")
    disk = one.create_virtual_disk("a", MiB)
    removed = one.create_virtual_disk("a", MiB)
    one.remove_image("a", removed)
    fix = other.check_storage_repository("a")[0]
    assert other.get_image_status("a", disk).status == Status.OPTIMIZED
    assert other.get_srm("a") == "one" and other.get_storage_repository_constraints("a").needs_srm
    before = two.storage.fingerprint()
    for call in (
        lambda: other.create_virtual_disk("a", MiB),
        lambda: other.create_snapshot("a", disk),
        lambda: other.copy_image("a", disk),
        lambda: other.remove_image("a", disk),
        lambda: other.restore_image("a", removed),
        lambda: other.set_user_data("a", disk, {}),
        lambda: other.prepare_image("a", disk),
        lambda: other.run_fix_here("a", fix),
        lambda: other.fix_storage_repository("a", fix),
        lambda: other.take_srm("a"),
        lambda: other.release_srm("a"),
    ):
        with pytest.raises(Refused, match=r"\bone\b"):
            call()
    assert two.storage.fingerprint() == before
    one.run_fix_here("a", fix)


def test_work_of_a_dead_manager_is_finished_by_the_next(two):
    """Its death is asserted by name; what it had under way goes on."""
    one = two.host("one")
    disk = one.create_virtual_disk("a", MiB, options={"auto_fix": False})
    two.bury("one")
    other = two.host("other")
    with pytest.raises(Refused, match="--dead one"):
        other.take_srm("a")
    other.take_srm("a", "one")
    assert other.get_srm("a") == "other"
    (fix,) = other.check_storage_repository("a")
    other.run_fix_here("a", fix)
    assert other.get_image_status("a", disk).status == Status.OPTIMIZED
    back = two.host("one")
    assert back.get_srm("a") == "other"
    with pytest.raises(Refused, match="other"):
        back.create_virtual_disk("a", MiB)


def test_the_role_is_given_up_only_when_nothing_is_in_use(two):
    """Prepared images are named; afterwards another host takes it without asserting anything."""
    one, other = two.host("one"), two.host("other")
    disk = one.create_virtual_disk("a", MiB)
    one.prepare_image("a", disk)
    with pytest.raises(Refused, match=disk):
        one.release_srm("a")
    one.teardown_image("a", disk)
    one.release_srm("a")
    assert one.get_srm("a") == ""
    with pytest.raises(Refused, match="nobody"):
        one.create_snapshot("a", disk)
    other.take_srm("a")
    other.create_snapshot("a", disk)


def test_a_repository_of_files_has_no_manager():
    """The three calls say so."""
    world = World()
    world.create("a")
    engine = world.host("one")
    for call in (engine.take_srm, engine.release_srm, engine.get_srm):
        with pytest.raises(Refused, match="no storage repository manager"):
            call("a")


def test_a_group_that_is_gone_is_an_operating_error(two):
    """And other repositories go on."""
    one = two.host("one")
    two.storage.unlink("/srv/a/metadata")
    fresh = two.host("one")
    with pytest.raises(StorageError):
        fresh.list_images("a")
    assert one.list_repositories().keys() == {"a"}
