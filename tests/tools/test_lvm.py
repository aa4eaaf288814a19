"""The door to LVM with LVM's own commands, on loop devices."""

from __future__ import annotations

import itertools
import pathlib

import pytest

from engine.doors.volume_groups import PhysicalRange
from engine.errors import (
    Ambiguous,
    BadRequest,
    Conflict,
    NoSpace,
    NotFound,
    Refused,
)
from engine.tools.block.loop import LoopDevices
from engine.tools.lvm.cached import CachedReport
from engine.tools.lvm.volume_groups import LvmVolumeGroups
from tests.tools.lvm_kit import EXTENT, MiB, commands, lvm

# -- groups


def test_a_new_group_has_room_for_metadata_and_is_not_activated_by_others(bench, door):
    """Two areas of 16 MiB on each device, autoactivation off, and it is this host's."""
    devices = [bench.device(), bench.device(sector_bytes=512)]
    door.create_group("g", devices, door.system_id)
    report = door.report("g")
    assert (report.name, report.system_id, report.partial) == ("g", door.system_id, False)
    assert sorted(report.devices) == sorted(devices)
    assert report.extent_bytes == EXTENT
    assert report.free == report.size > 900 * MiB
    assert report.metadata_free > 7 * MiB  # half of an area: LVM keeps the old text beside the new one
    assert report.volumes == {}
    columns = "pv_mda_count,pv_mda_size,vg_autoactivation"
    own = ("--foreign", "--noheadings", "--units", "m", "--nosuffix", "--binary", "-o", columns)
    assert lvm(bench.directory, "pvs", *own).split() == ["2", "16.00", "0"] * 2


def test_sectors_of_4096_bytes_are_as_good(bench, door):
    """A group on a device with such sectors works as any other."""
    device = bench.device(sector_bytes=4096)
    door.create_group("g", [device], "")
    door.create("g", "v", EXTENT, ["t"])
    (place,) = door.report("g").volumes["v"].ranges
    with door.open_device(place.device, writable=True) as handle:
        handle.write_at(place.start, b"x" * 4096)
        handle.sync()
        assert handle.read_at(place.start, 8192) == b"x" * 4096 + bytes(4096)
    door.sync("g")


def test_a_device_in_use_is_never_taken(bench, door):
    """A file system, another group, or a physical volume that LVM keeps are conflicts, and stay."""
    import subprocess

    used, taken, unused = bench.device(), bench.device(), bench.device()
    subprocess.run(["mkfs.ext4", "-q", used], check=True)
    lvm(bench.directory, "vgcreate", "theirs", taken)
    lvm(bench.directory, "pvcreate", unused)
    for device, words in ((used, "ext4"), (taken, "group theirs"), (unused, "physical volume of LVM")):
        with pytest.raises(Conflict, match=words):
            door.create_group("g", [device], "")
    with pytest.raises(NotFound):
        door.report("g")
    subprocess.run(["dumpe2fs", "-h", used], check=True, capture_output=True)


def test_who_makes_a_volume_active_is_told_and_changed(bench, door, group):
    """LVM's own volumes are made active by hosts themselves, ours are not; either may be said twice."""
    door.create("g", "ours", EXTENT, [])
    lvm(bench.directory, "lvcreate", "-an", "-Zn", "-Wn", "-l1", "-n", "theirs", "g", system_id=door.system_id)
    assert {name: one.autoactivated for name, one in door.report("g").volumes.items()} == {
        "ours": False,
        "theirs": True,
    }
    for wanted in (False, False, True, True):
        door.set_autoactivation("g", "theirs", wanted)
        assert door.report("g").volumes["theirs"].autoactivated is wanted


def test_a_name_that_is_taken_is_a_conflict(bench, door, group):
    """Also when it is taken on other devices, which LVM itself would not see."""
    with pytest.raises(Conflict, match="there is a volume group g already"):
        LvmVolumeGroups("host-b").create_group("g", [bench.device()], "")


def test_what_is_no_device_makes_no_group(bench, door, tmp_path):
    """A device that is not there, a plain file, or the same device twice."""
    device = bench.device()
    with pytest.raises(NotFound, match="/dev/nothing"):
        door.create_group("g", [device, "/dev/nothing"], "")
    for devices in ([], [device, device], [str(tmp_path / "file")], ["/dev/a,/dev/b"], ["/dev/../etc/passwd"]):
        with pytest.raises(BadRequest):
            door.create_group("g", devices, "")
    assert commands(door) == []


def test_two_groups_of_one_name_are_told_apart_by_their_uuids(bench, door):
    """Nothing is done with either."""
    devices = [bench.device(), bench.device()]
    uuids = []
    for device in devices:
        bench.show([device])
        lvm(bench.directory, "vgcreate", "g", device)
        uuids.append(lvm(bench.directory, "vgs", "--noheadings", "-o", "vg_uuid", "g").strip())
    bench.show(devices)
    for call in (lambda: door.report("g"), lambda: door.create("g", "v", EXTENT, []), lambda: door.sync("g")):
        with pytest.raises(Ambiguous) as raised:
            call()
        assert all(uuid in raised.value.message for uuid in uuids)


def test_a_group_that_is_not_there(door, bench):
    """Every verb says so by name."""
    bench.device()
    for call in (
        lambda: door.report("g"),
        lambda: door.create("g", "v", EXTENT, []),
        lambda: door.remove("g", "v"),
        lambda: door.deactivate("g", "v"),
        lambda: door.sync("g"),
        lambda: door.set_system_id("g", "", "x"),
    ):
        with pytest.raises(NotFound, match='"g" not found'):
            call()


# -- whose group it is


def test_a_mark_of_a_name_becomes_that_of_one_host(bench, door, group):
    """As a host that knows more of itself than an older program did: the mark changes, and then LVM
    refuses whoever has the name alone, or another nonce."""
    door.create("g", "v", EXTENT, [])
    own = LvmVolumeGroups("host-a", lambda: "1" * 32)
    assert own.former_system_id == door.system_id != own.system_id
    own.set_system_id("g", own.system_id, own.former_system_id)
    for other in (door, LvmVolumeGroups("host-a", lambda: "2" * 32)):
        with pytest.raises(Refused, match="belongs to host"):
            other.create("g", "w", EXTENT, [])
    own.create("g", "w", EXTENT, [])
    own.remove("g", "w")
    own.remove("g", "v")
    own.set_system_id("g", door.system_id, own.system_id)


def test_a_group_of_another_host_can_be_looked_at_and_not_changed(bench, door, group):
    """The refusal names the owner."""
    door.create("g", "v", EXTENT, ["t"])
    other = LvmVolumeGroups("host-b")
    assert other.report("g").system_id == door.system_id
    for call in (
        lambda: other.create("g", "w", EXTENT, []),
        lambda: other.resize("g", "v", 2 * EXTENT),
        lambda: other.change_tags("g", "v", ["u"], ["t"]),
        lambda: other.rename("g", "v", "w"),
        lambda: other.remove("g", "v"),
        lambda: other.activate("g", "v"),
    ):
        with pytest.raises(Refused, match=f"belongs to host {door.system_id}"):
            call()
    assert other.report("g").volumes == door.report("g").volumes
    assert door.report("g").volumes["v"].tags == {"t"}


def test_the_owner_changes_only_from_the_one_that_is_present(bench, door, group):
    """From one host to another, to none and back; not when somebody else was faster."""
    other = LvmVolumeGroups("host-b")
    with pytest.raises(Conflict, match=f"belongs to host {door.system_id} by now"):
        other.set_system_id("g", other.system_id, "")
    with pytest.raises(Conflict, match="belongs to host"):
        other.set_system_id("g", other.system_id, "somebody")
    other.set_system_id("g", other.system_id, door.system_id)
    assert door.report("g").system_id == other.system_id
    with pytest.raises(Refused):
        door.create("g", "v", EXTENT, [])
    other.create("g", "v", EXTENT, [])
    other.set_system_id("g", "", other.system_id)
    door.create("g", "w", EXTENT, [])
    door.set_system_id("g", "", "")
    with pytest.raises(Conflict, match="no single host"):
        door.set_system_id("g", other.system_id, door.system_id)
    door.set_system_id("g", door.system_id, "")
    assert other.report("g").system_id == door.system_id
    assert set(other.report("g").volumes) == {"v", "w"}


# -- volumes


def test_a_volume_is_born_with_its_tags_in_one_command(bench, door, group):
    """Linear, not active, rounded up to extents, where the report says."""
    before = len(commands(door))
    door.create("g", "dwv-1", EXTENT + 1, ["dw.f=qcow2", "a.b"])
    assert commands(door)[before:] == ["lvcreate"]
    volume = door.report("g").volumes["dwv-1"]
    assert volume.size == 2 * EXTENT
    assert volume.tags == {"dw.f=qcow2", "a.b"}
    assert (volume.active, volume.open) == (False, False)
    assert volume.ranges == (PhysicalRange(group, 17 * MiB, 2 * EXTENT),)


def test_a_new_volume_lies_where_it_was_said_to(door, group):
    """Known before LVM is asked again, in one piece of the smallest room; or not known, when there is none."""
    for name, extents in (("a", 3), ("b", 2), ("c", 1)):
        door.create("g", name, extents * EXTENT, [])
    door.remove("g", "b")
    room = door.report("g").volumes["a"].ranges[0]
    before = len(commands(door))
    assert door.create("g", "d", 2 * EXTENT, []) == ((group, room.start + room.length, 2 * EXTENT),)
    assert commands(door)[before:] == ["lvcreate"]
    report = door.report("g")
    assert report.volumes["d"].ranges == ((group, room.start + room.length, 2 * EXTENT),)
    door.remove("g", "a")
    assert door.create("g", "e", door.report("g").free, []) == ()
    assert len(door.report("g").volumes["e"].ranges) == 2


def test_a_place_that_another_took_meanwhile_is_not_taken_twice(door, group, monkeypatch):
    """LVM looks, under its own lock, and the volume lies somewhere else."""
    door.report("g")
    monkeypatch.setattr(CachedReport, "holds", lambda seen: True)
    (first,) = door.create("g", "a", EXTENT, [])
    assert door.create("g", "b", EXTENT, []) == ()
    volumes = door.report("g").volumes
    assert volumes == {}, "the report that pretends to hold"
    monkeypatch.undo()
    volumes = door.report("g").volumes
    assert volumes["a"].ranges == (first,) != volumes["b"].ranges


def test_the_bytes_of_a_new_volume_are_left_as_they_are(bench, door, group):
    """Nothing is zeroed: that is the caller's to do, and a volume made again shows what the device holds."""
    door.create("g", "v", EXTENT, [])
    (place,) = door.report("g").volumes["v"].ranges
    with door.open_device(place.device, writable=True) as handle:
        handle.write_at(place.start, b"old data" * 512)
    door.remove("g", "v")
    door.create("g", "w", EXTENT, [])
    assert door.report("g").volumes["w"].ranges == (place,)
    with door.open_device(place.device) as handle:
        assert handle.read_at(place.start, 4096) == b"old data" * 512


def test_a_volume_over_several_devices_is_told_in_order(bench, door):
    """Its ranges cover it from the beginning to the end, and none of them twice."""
    devices = [bench.device(64 * MiB), bench.device(64 * MiB)]
    door.create_group("g", devices, "")
    door.create("g", "a", EXTENT, [])
    door.create("g", "b", door.report("g").free - EXTENT, [])
    door.resize("g", "a", 2 * EXTENT)
    report = door.report("g")
    assert report.free == 0
    a, b = (report.volumes[name].ranges for name in "ab")
    assert {place.device for place in b} == set(devices)
    assert sum(place.length for place in b) == report.volumes["b"].size
    assert sum(place.length for place in a) == report.volumes["a"].size == 2 * EXTENT
    everything = sorted((*a, *b))
    assert min(place.start for place in everything) == 17 * MiB
    for left, right in itertools.pairwise(everything):
        assert left.device != right.device or left.start + left.length <= right.start


def test_a_volume_that_is_not_linear_has_no_ranges(bench, door):
    """Somebody's striped volume is listed, and its place is not guessed."""
    devices = [bench.device(), bench.device()]
    door.create_group("g", devices, "")
    lvm(bench.directory, "lvcreate", "-an", "-Zn", "-Wn", "--type", "striped", "-i", "2", "-l", "4", "-n", "s", "g")
    volume = door.report("g").volumes["s"]
    assert (volume.size, volume.ranges) == (4 * EXTENT, ())


def test_resizing_up_and_down_and_not_at_all(door, group):
    """Rounded up to extents; the size it has already is success."""
    door.create("g", "v", EXTENT, [])
    for size, extents in ((3 * EXTENT, 3), (3 * EXTENT, 3), (EXTENT + 1, 2), (1, 1)):
        door.resize("g", "v", size)
        assert door.report("g").volumes["v"].size == extents * EXTENT


def test_tags_change_in_one_command(door, group):
    """What is there is not added twice, what is not there is not missed."""
    door.create("g", "v", EXTENT, ["a", "b"])
    before = len(commands(door))
    door.change_tags("g", "v", ["b", "c"], ["a", "z"])
    assert commands(door)[before:] == ["lvchange"]
    assert door.report("g").volumes["v"].tags == {"b", "c"}
    before = len(commands(door))
    door.change_tags("g", "v", [], [])
    assert commands(door)[before:] == []


def test_renaming(door, group):
    """A name that is taken is a conflict and changes nothing."""
    door.create("g", "v", EXTENT, ["t"])
    door.create("g", "w", EXTENT, [])
    with pytest.raises(Conflict, match="already exists"):
        door.rename("g", "v", "w")
    door.rename("g", "v", "x")
    assert door.report("g").volumes["x"].tags == {"t"}
    with pytest.raises(NotFound, match="g/v"):
        door.rename("g", "v", "y")


def test_removing_twice_is_success(door, group):
    """As is taking the device of a volume away that is gone."""
    door.create("g", "v", EXTENT, [])
    door.remove("g", "v")
    door.remove("g", "v")
    door.deactivate("g", "v")
    assert door.report("g").volumes == {}


def test_names_that_are_taken_and_names_that_are_not_there(door, group):
    """Conflict and NotFound, told from other failures."""
    door.create("g", "v", EXTENT, [])
    with pytest.raises(Conflict, match='"v" already exists'):
        door.create("g", "v", EXTENT, [])
    for call in (lambda: door.resize("g", "w", EXTENT), lambda: door.change_tags("g", "w", ["t"], [])):
        with pytest.raises(NotFound, match="w"):
            call()


def test_no_room_is_told_as_such(door, group):
    """Neither making nor growing takes what is not there, and nothing is half done."""
    door.create("g", "v", EXTENT, [])
    before = door.report("g")
    for call in (lambda: door.create("g", "w", 1 << 40, []), lambda: door.resize("g", "v", 1 << 40)):
        with pytest.raises(NoSpace, match=r"free space|extents"):
            call()
    assert door.report("g") == before


def test_a_full_metadata_area_is_no_room_either(bench, door):
    """The group stays as it was before the change that did not fit."""
    device = bench.device()
    lvm(bench.directory, "vgcreate", "--metadatasize", "1m", "g", device)
    before = door.report("g")
    with pytest.raises(NoSpace, match="etadata"):
        for number in range(20):
            before = door.report("g")
            door.create("g", f"v{number}", EXTENT, [f"{part}".ljust(1000, "x") for part in range(100)])
    assert door.report("g") == before
    assert 3 <= len(before.volumes) < 20


# -- files as devices


def test_files_become_devices_in_their_order(door, root_user, tmp_path):
    """Missing files are made, what is attached stays, and each device is the file of its place."""
    files = [str(tmp_path / f"{name}.img") for name in "ba"]
    try:
        devices = door.attach_files(files, 4096, 4 * MiB)
        assert len(set(devices)) == 2
        for device, path in zip(devices, files, strict=True):
            with door.open_device(device, writable=True) as handle:
                assert handle.size == 4 * MiB
                handle.write_at(0, path.encode().ljust(4096))
        assert door.attach_files(files, 4096) == door.attach_files(files, 4096, 8 * MiB) == devices
        for path in files:
            assert pathlib.Path(path).read_bytes()[:4096].rstrip().decode() == path
    finally:
        door.detach_files(files)
    door.detach_files([*files, str(tmp_path / "never-there.img")])
    assert LoopDevices().find(files[0]) == LoopDevices().find(files[1]) == []


def test_files_that_are_not_there_are_not_made_unasked(door, root_user, tmp_path):
    """A repository whose file is missing is not replaced by an empty one."""
    path = tmp_path / "a.img"
    with pytest.raises(NotFound):
        door.attach_files([str(path)], 512)
    assert not path.exists()
