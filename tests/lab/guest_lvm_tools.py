"""The door to LVM where the kernel has device-mapper: run by ``test_lvm_tools`` inside a guest."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from engine.api import Engine
from engine.assembly import real_doors
from engine.audit.audit import audit
from engine.audit.group_tree import GroupTree
from engine.data.model import VolumeFormat
from engine.data.records import VolumeRef
from engine.errors import NotFound, Refused, StorageError
from engine.tools.block.device import DirectBlockHandle, flush_device, is_block_device
from engine.tools.lvm.volume_groups import LvmVolumeGroups
from engine.tools.qemu.qcow2 import fresh_image
from tests.tools.lvm_kit import EXTENT, Bench, commands, lvm, write_pieces

OWNER = LvmVolumeGroups("host-a").system_id


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """LVM's configuration and a device with the group ``g``, once: to make one takes seconds here."""
    directory = tmp_path_factory.mktemp("lvm")
    with pytest.MonkeyPatch.context() as surroundings:
        surroundings.setenv("LVM_SYSTEM_DIR", str(directory))
        made = Bench(directory, activation=True)
        device = made.device()
        LvmVolumeGroups("host-a").create_group("g", [device], OWNER)
        yield made, device
        lvm(directory, "vgremove", "-ff", "-y", "g", system_id=OWNER)
        made.end()


@pytest.fixture(scope="module")
def known(made):
    return LvmVolumeGroups("host-a")


@pytest.fixture
def bench(made):
    return made[0]


@pytest.fixture
def door(known):
    """It knows the devices of the group."""
    known.recent_commands.clear()
    return known


@pytest.fixture
def group(made, door):
    """The device of the group; in it there is ``v``, and after the test nothing."""
    door.create("g", "v", 2 * EXTENT, ["t"])
    yield made[1]
    lvm(made[0].directory, "lvremove", "-ff", "-y", "g", system_id=OWNER)


@pytest.fixture
def another(bench, door):
    """Makes a group ``h`` on a device of its own; returns the device."""

    def make(**options):
        device = bench.device(**options)
        door.create_group("h", [device], OWNER)
        return device

    yield make
    lvm(bench.directory, "vgremove", "-ff", "-y", "h", system_id=OWNER)


def flushes(device: str) -> int:
    """How many flushes the kernel has sent to a disk."""
    return int(Path(f"/sys/block/{os.path.basename(device)}/stat").read_text().split()[15])


def test_an_activated_volume_is_the_range_of_the_device_that_the_report_tells(group, door):
    """What is written through it lies there, and nowhere else."""
    path = door.activate("g", "v")
    assert path == "/dev/g/v"
    volume = door.report("g").volumes["v"]
    assert (volume.active, volume.open) == (True, False)
    (place,) = volume.ranges
    with door.open_device(path, writable=True) as handle:
        assert handle.size == volume.size == place.length
        handle.write_at(EXTENT, b"x" * 4096)
        handle.sync()
    with door.open_device(group) as handle:
        assert handle.read_at(place.start + EXTENT - 4096, 12288) == bytes(4096) + b"x" * 4096 + bytes(4096)


def test_activating_and_deactivating_twice_changes_nothing(group, door):
    """The second time the device is there, or is not."""
    assert door.activate("g", "v") == door.activate("g", "v")
    assert is_block_device("/dev/g/v")
    for _ in range(2):
        door.deactivate("g", "v")
        assert not is_block_device("/dev/g/v")
        assert not os.path.lexists("/dev/mapper/g-v")
    assert not door.report("g").volumes["v"].active


def test_many_are_deactivated_by_one_command(group, door):
    """What is gone, or was not active, is passed over; what is open stays, and keeps nothing else."""
    for name in ("a", "b"):
        door.create("g", name, EXTENT, [])
    paths = [door.activate("g", name) for name in ("v", "b")]
    before = len(commands(door))
    assert door.deactivate_each("g", ["v", "a", "b"]) == []
    assert len(commands(door)[before:]) == 1
    assert not any(os.path.lexists(path) for path in paths)
    for name in ("v", "b"):
        door.activate("g", name)
    before = len(commands(door))
    with DirectBlockHandle(paths[1]):
        assert door.deactivate_each("g", ["b", "gone", "v", "a"]) == ["b"]
        assert len(commands(door)[before:]) == 5, "one for all, and one for each"
        with pytest.raises(StorageError, match="in use"):
            door.deactivate("g", "b")
    assert [os.path.lexists(path) for path in paths] == [False, True]
    door.deactivate("g", "b")


def test_what_is_active_and_open_is_told_without_asking_lvm(group, door):
    """It changes no metadata, so whatever LVM said before still holds; the kernel tells the rest."""
    door.report("g")
    path = door.activate("g", "v")
    before = len(commands(door))
    for opened in (False, True, False):
        with contextlib.ExitStack() as stack:
            if opened:
                stack.enter_context(DirectBlockHandle(path))
            volume = door.report("g").volumes["v"]
            assert (volume.active, volume.open) == (True, opened)
    assert commands(door)[before:] == []
    assert door.report("g") == LvmVolumeGroups("host-a").report("g")
    door.deactivate("g", "v")
    assert not door.report("g").volumes["v"].active


def test_a_host_that_lost_the_group_can_still_let_go_of_it(bench, group, door):
    """LVM refuses; what is open stays, and other groups too. Volumes that are gone from the group leave devices."""

    def elsewhere(owner, verb, *arguments):
        lvm(bench.directory, verb, "--yes", "--driverloaded", "n", *arguments, system_id=owner)

    other = LvmVolumeGroups("host-b").system_id
    for name in ("w", "gone"):
        door.create("g", name, EXTENT, [])
    paths = [door.activate("g", name) for name in ("v", "w", "gone")]
    elsewhere(OWNER, "vgchange", "--systemid", other, "g")
    try:
        with pytest.raises(Refused):
            door.activate("g", "v")
        door.deactivate("g", "v")
        assert not os.path.lexists(paths[0])
        elsewhere(other, "lvremove", "g/gone")
        report = door.report("g")
        assert [volume.name for volume in report.volumes.values() if volume.active] == ["w"]
        with DirectBlockHandle(paths[1]):
            with pytest.raises(StorageError, match="in use"):
                door.deactivate("g", "w")
            assert door.remove_devices("x" * 32) == []
            assert door.remove_devices(report.uuid) == ["g-w"]
        assert not os.path.lexists("/dev/mapper/g-gone")
        assert door.remove_devices(report.uuid) == []
        assert not any(os.path.lexists(path) for path in paths)
    finally:
        elsewhere(other, "vgchange", "--systemid", OWNER, "g")


def test_a_volume_that_another_host_extended_gets_its_new_size(group, door, bench):
    """The kernel's table is of the time when it was activated; activating again renews it."""
    path = door.activate("g", "v")
    lvm(bench.directory, "lvresize", "--driverloaded", "n", "-L", f"{4 * EXTENT}b", "g/v", system_id=OWNER)
    assert door.report("g").volumes["v"].size == 4 * EXTENT
    with DirectBlockHandle(path) as handle:
        assert handle.size == 2 * EXTENT
    assert door.activate("g", "v") == path
    with DirectBlockHandle(path) as handle:
        assert handle.size == 4 * EXTENT


def test_the_device_of_a_removed_volume_is_not_taken_for_its_successor(group, door, bench):
    """Another host removed the volume that is active here, gave its room away and made one of that name elsewhere."""
    path = door.activate("g", "v")
    for words in (
        ["lvremove", "--yes", "g/v"],
        ["lvcreate", "-an", "-Zn", "-l", "1", "-n", "taker", "g"],
        ["lvcreate", "-an", "-Zn", "-l", "1", "-n", "v", "g"],
    ):
        lvm(bench.directory, words[0], "--driverloaded", "n", *words[1:], system_id=OWNER)
    assert door.activate("g", "v") == path
    with DirectBlockHandle(path, writable=True) as handle:
        assert handle.size == EXTENT
        handle.write_at(0, b"successor".ljust(4096))
        handle.sync()
    (place,) = door.report("g").volumes["v"].ranges
    with DirectBlockHandle(place.device) as device:
        assert device.read_at(place.start, 4096).startswith(b"successor")


def test_names_that_were_lost_are_made_again(group, door):
    """Somebody tidied up /dev, or udev did not make them. A file in the place of one is not taken for the device, and
    not written into."""
    os.makedirs("/dev/g", exist_ok=True)
    Path("/dev/g/v").write_bytes(b"not a device")
    with pytest.raises(StorageError, match="/dev/g/v is not its device"):
        door.activate("g", "v")
    os.unlink("/dev/g/v")
    path = door.activate("g", "v")
    assert is_block_device(path)
    os.unlink(path)
    assert door.activate("g", "v") == path
    assert is_block_device(path)
    os.unlink(path)
    os.unlink("/dev/mapper/g-v")
    assert door.activate("g", "v") == path
    assert is_block_device(path)


def test_an_open_volume_is_neither_deactivated_nor_removed(group, door):
    """The error says what to do; both work when it is closed."""
    path = door.activate("g", "v")
    with door.open_device(path):
        assert door.report("g").volumes["v"].open
        for call in (door.deactivate, door.remove):
            with pytest.raises(StorageError, match=r"in use\. Close"):
                call("g", "v")
        assert is_block_device(path)
    door.remove("g", "v")
    assert not os.path.lexists(path)
    assert door.report("g").volumes == {}


def test_an_active_volume_is_resized_and_renamed_with_its_device(group, door):
    """The device follows at once. Hyphens in names lead to the right one: device-mapper doubles them."""
    path = door.activate("g", "v")
    with door.open_device(path, writable=True) as handle:
        handle.write_at(0, b"y" * 4096)
    door.resize("g", "v", 3 * EXTENT)
    with DirectBlockHandle(path) as handle:
        assert handle.size == 3 * EXTENT
    door.resize("g", "v", EXTENT)
    door.rename("g", "v", "dwv-a--b")
    with DirectBlockHandle("/dev/g/dwv-a--b") as handle:
        assert handle.size == EXTENT
        assert handle.read_at(0, 4096) == b"y" * 4096
    assert not os.path.lexists(path)
    assert door.activate("g", "dwv-a--b") == "/dev/g/dwv-a--b"
    door.deactivate("g", "dwv-a--b")
    assert not os.path.lexists("/dev/g/dwv-a--b") and not os.path.lexists("/dev/mapper/g-dwv--a----b")


def test_no_volume_is_activated_but_the_one_asked_for(group, door):
    """Neither by making others nor by looking. What is not there is NotFound."""
    door.create("g", "w", EXTENT, [])
    door.activate("g", "v")
    with pytest.raises(NotFound):
        door.activate("g", "x")
    door.report("g")
    assert {name for name in os.listdir("/dev/mapper") if name.startswith("g-")} == {"g-v"}


def test_an_existing_device_costs_one_command_or_none(group, door):
    """One to make it; a report too where there is a device and it is not known whether it is that of the volume; none
    when it lies where the report says."""
    for expected in (["lvchange"], ["fullreport", "lvchange"]):
        before = len(commands(door))
        door.activate("g", "v")
        assert commands(door)[before:] == expected
    door.create("g", "w", EXTENT, [])
    door.resize("g", "v", 3 * EXTENT)
    assert len(door.report("g").volumes["v"].ranges) == 2
    before = len(commands(door))
    with DirectBlockHandle(door.activate("g", "v")) as handle:
        assert handle.size == 3 * EXTENT
    assert commands(door)[before:] == []


def test_zeroing_a_volume_zeroes_that_range_of_its_device(group, door):
    """Through the mapping, and not beyond it."""
    (place,) = door.report("g").volumes["v"].ranges
    with DirectBlockHandle(group, writable=True) as handle:
        handle.write_at(place.start - 4096, b"z" * (place.length + 8192))
    with door.open_device(door.activate("g", "v"), writable=True) as handle:
        handle.zero(0, handle.size)
        assert handle.read_at(0, handle.size) == bytes(handle.size)
    with DirectBlockHandle(group) as handle:
        assert handle.read_at(place.start - 4096, 4096) == b"z" * 4096
        assert handle.read_at(place.start + place.length, 4096) == b"z" * 4096


def test_volumes_on_sectors_of_4096_bytes(another, door):
    """The mapping has the sectors of its device, and reads and writes as any other."""
    another(sector_bytes=4096)
    door.create("h", "v", EXTENT, [])
    path = door.activate("h", "v")
    name = os.path.basename(os.path.realpath(path))
    number = os.stat(path).st_rdev
    queue = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/queue/logical_block_size")
    assert (name, queue.read_text().strip()) == ("h-v", "4096")
    with door.open_device(path, writable=True) as handle:
        handle.write_at(4096, b"s" * 8192)
        handle.zero(8192, 4096)
        assert handle.read_at(0, 12288) == bytes(4096) + b"s" * 4096 + bytes(4096)


def test_an_audit_reads_volumes_and_activates_none(made, group, door):
    """An image in one that is not active, and in one that a program has open, whose device is asked then; a base by
    the name that device-mapper gives it."""
    door.create("g", "top", EXTENT, [])
    device = door.open_device(door.activate("g", "top"), writable=True)
    write_pieces(device, fresh_image(EXTENT, "/dev/mapper/g-v", "raw").pieces)
    for opened in (True, False):
        with contextlib.closing(GroupTree(LvmVolumeGroups("host-b"), "g")) as tree:
            report = audit([tree])
        images = {image.path: image for image in report.images}
        assert images["/dev/g/top"].parent == "/dev/g/v" and images["/dev/g/v"].depth == 1
        rules = {found.rule for found in report.findings}
        assert rules == ({"A-OPEN"} if opened else {"A-UNSEEN"})
        if opened:
            device.close()
            door.deactivate("g", "top")
    assert not any(volume.active for volume in door.report("g").volumes.values())


def test_a_chain_of_volumes_is_adopted(bench, tmp_path):
    """Renamed and not copied, checked by the real tool; another one, of which no record speaks, is given back."""
    engine = Engine(real_doors("host-a", str(tmp_path)), str(tmp_path))
    groups = engine.doors.volume_groups
    engine.create_repository("lvm-1.0", {"volume_group": "h", "devices": [bench.device()]})
    engine.connect_storage_repository("h", "lvm-1.0", {"volume_group": "h"})
    try:
        for name, image in (("base", None), ("top", fresh_image(EXTENT, "/dev/mapper/h-base", "raw")), ("other", None)):
            groups.create("h", name, EXTENT, [])
            with groups.open_device(groups.activate("h", name), writable=True) as device:
                device.zero(0, EXTENT)
                write_pieces(device, image.pieces if image is not None else [(EXTENT - 4096, b"b" * 4096)])
        before = groups.report("h").volumes
        plan = engine.plan_adoption("h", ["/dev/h/top", "/dev/h/base"], "qcow2")
        made = engine.adopt_images("h", plan, {"auto_fix": False})
        fixes = {fix.target: fix for fix in engine.check_storage_repository("h")}
        for path in ("/dev/h/base", "/dev/h/top"):
            engine.run_fix_here("h", fixes[made[path]])
        repository, given = engine.context.repository("h"), VolumeRef("1" * 32, VolumeFormat.RAW, "")
        assert repository.adoption is not None
        repository.adoption.take("/dev/h/other", given)
        volumes = groups.report("h").volumes
        assert {one.uuid: one.ranges for one in volumes.values()}.items() >= {
            one.uuid: one.ranges for one in before.values()
        }.items()
        assert not volumes.keys() & {"base", "top", "other"} and not os.path.lexists("/dev/h/top")
        repository.volumes.remove(given.id, given.format)
        now = groups.report("h").volumes["other"]
        assert (now.uuid, now.tags) == (before["other"].uuid, before["other"].tags)
    finally:
        engine.close()
        lvm(bench.directory, "vgremove", "-ff", "-y", "h", system_id=groups.system_id)


def test_a_flush_of_a_volume_reaches_its_device(group, door):
    """fsync of the mapped device flushes the disk below, and so does ``sync`` of the group; LVM itself does not."""
    disk = group
    flush_device(disk)
    before = flushes(disk)
    door.create("g", "w", EXTENT, [])
    path = door.activate("g", "w")
    with door.open_device(path, writable=True) as handle:
        handle.write_at(0, b"f" * 4096)
        assert flushes(disk) == before
        handle.sync()
        assert flushes(disk) > before
    before = flushes(disk)
    door.sync("g")
    assert flushes(disk) > before


def test_of_a_group_without_one_device_what_lies_on_the_others_is_used(bench, door):
    """A volume that is whole becomes a device, one that is not is refused; as the simulated groups have it."""
    devices = [bench.device(), bench.device()]
    door.create_group("h", devices, OWNER)
    size = door.report("h").size // 2
    door.create("h", "a", size, [])
    door.create("h", "b", size, [])
    (place,) = door.report("h").volumes["a"].ranges
    (other,) = set(devices) - {place.device}
    path = bench.detach(other)
    with door.open_device(door.activate("h", "a")) as handle:
        assert len(handle.read_at(0, 4096)) == 4096
    door.deactivate("h", "a")
    with pytest.raises(StorageError):
        door.activate("h", "b")
    bench.attach(path)
    lvm(bench.directory, "vgremove", "-ff", "-y", "h", system_id=OWNER)
