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
    DiskwrightError,
    NoSpace,
    NotFound,
    Refused,
    StorageError,
    ToolFailed,
    ToolMissing,
)
from engine.tools import lvm_commands
from engine.tools.lvm import LvmVolumeGroups
from engine.tools.lvm_names import check_system_id, system_id_of
from tests.tools.lvm_kit import EXTENT, MiB, commands, fill, lvm


@pytest.fixture
def door():
    return LvmVolumeGroups("host-a")


@pytest.fixture
def group(bench, door):
    """A group "g" of one device of 512 MiB that belongs to host-a."""
    device = bench.device()
    door.create_group("g", [device], door.system_id)
    return device


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


# -- hostile names


BAD_NAMES = ["", "-n", "--config", "a/b", "..", ".", "a b", "a;b", 'a"b', "a\nb", "ä", "a\0b", "x" * 64, "-" * 40, "@t"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_lvm_would_not_take_never_reach_it(door, name):
    """Groups, volumes, and a new name."""
    for call in (
        lambda: door.report(name),
        lambda: door.create_group(name, ["/dev/null"], ""),
        lambda: door.create("g", name, EXTENT, []),
        lambda: door.create(name, "v", EXTENT, []),
        lambda: door.resize("g", name, EXTENT),
        lambda: door.change_tags("g", name, ["t"], []),
        lambda: door.rename("g", "v", name),
        lambda: door.remove("g", name),
        lambda: door.activate("g", name),
        lambda: door.deactivate("g", name),
    ):
        with pytest.raises(BadRequest):
            call()
    assert commands(door) == []


@pytest.mark.parametrize("name", ["snapshot1", "pvmove0", "a_tmeta", "x_rimage_0"])
def test_names_that_lvm_keeps_for_itself_are_refused(door, name):
    """They would be parts of other volumes."""
    with pytest.raises(BadRequest):
        door.create("g", name, EXTENT, [])


@pytest.mark.parametrize("tag", ["", "-x", "a,b", "a b", 'a"b', "a{b", "@a", "ä", "x" * 1025])
def test_tags_that_lvm_would_not_take_never_reach_it(door, tag):
    """A comma would be two tags in a report."""
    for call in (
        lambda: door.create("g", "v", EXTENT, [tag]),
        lambda: door.change_tags("g", "v", [tag], []),
        lambda: door.change_tags("g", "v", [], [tag]),
    ):
        with pytest.raises(BadRequest):
            call()
    assert commands(door) == []


@pytest.mark.parametrize("system_id", ['a" }', "-a", "a b", "localhost", "x" * 129, "ä"])
def test_marks_of_hosts_are_checked(door, system_id):
    """They stand in LVM's configuration."""
    for call in (
        lambda: door.create_group("g", ["/dev/null"], system_id),
        lambda: door.set_system_id("g", system_id, ""),
        lambda: door.set_system_id("g", "", system_id),
    ):
        with pytest.raises(BadRequest):
            call()


def test_every_host_has_a_mark_of_its_own():
    """Whatever its name: LVM takes the mark, and no two names share one."""
    names = ["a", "A", "a b", "a+20b", "ä", "localhost", "x" * 64, "é" * 32, "é" * 31 + "è", '"}', "a/b", "."]
    marks = [check_system_id(system_id_of(name)) for name in names]
    assert len(set(marks)) == len(names)
    assert system_id_of("host-1.example") == "diskwright.host-1.example"


def test_sizes_must_be_positive(door):
    """Zero and less are mistakes."""
    for size in (0, -1):
        with pytest.raises(BadRequest):
            door.create("g", "v", size, [])
        with pytest.raises(BadRequest):
            door.resize("g", "v", size)


# -- commands


def test_a_report_is_one_command_whatever_the_group_holds(bench, door, group):
    """Finding the devices costs one more, once."""
    fresh = LvmVolumeGroups("host-a")
    fresh.report("g")
    assert commands(fresh) == ["vgs", "fullreport"]
    for number in range(5):
        door.create("g", f"v{number}", EXTENT, ["t"])
    assert len(fresh.report("g").volumes) == 5
    assert commands(fresh) == ["vgs", "fullreport", "fullreport"]


def test_a_large_group_is_reported_whole_by_the_same_command(bench, door):
    """500 volumes: nothing is asked about each of them, and there is room for many more."""
    door.create_group("g", [bench.device(2 << 30)], door.system_id)
    fill(bench.directory, "g", 500, door.system_id)
    before = len(commands(door))
    report = door.report("g")
    assert commands(door)[before:] == ["fullreport"]
    assert len(report.volumes) == 500
    assert report.volumes["v499"].tags == {f"dw.p={499:032x}"}
    assert report.volumes["v499"].ranges[0].start == 17 * MiB + 499 * EXTENT
    assert report.metadata_free > 7 * MiB
    door.create("g", "w", EXTENT, ["t"])
    assert len(door.report("g").volumes) == 501


def test_a_command_killed_at_any_moment_leaves_the_old_or_the_new_group(door, group, monkeypatch):
    """Never anything between, nothing in the way of the next command, and no volume without its tags."""
    expected: set[str] = set()
    killed = 0
    for number in range(24):
        name = f"v{number}"
        with monkeypatch.context() as impatient:
            impatient.setattr(lvm_commands, "PATIENCE_S", 0.003 * number)
            try:
                door.create("g", name, EXTENT, ["a", "b"])
            except ToolFailed:
                killed += 1
        found = door.report("g").volumes
        assert set(found) in (expected, expected | {name})
        expected = set(found)
    assert killed > 0
    assert all(volume.tags == {"a", "b"} for volume in door.report("g").volumes.values())
    door.create("g", "last", EXTENT, [])
    assert set(door.report("g").volumes) == expected | {"last"}


def test_one_damaged_copy_of_the_metadata_does_no_harm(bench, door, group):
    """A torn write in one area: LVM reads the other one, and changes go on."""
    for name in "abc":
        door.create("g", name, EXTENT, [name])
    with open(bench.devices[group], "r+b") as file:
        found = file.read(MiB).rindex(b"seqno = 4")
        file.seek(found)
        file.write(b"seqno = 9")
    lvm(bench.directory, "pvs", "--foreign", group)
    assert set(LvmVolumeGroups("host-a").report("g").volumes) == set("abc")
    door.create("g", "d", EXTENT, [])
    assert set(door.report("g").volumes) == set("abcd")


def test_commands_see_the_devices_of_their_group_only(bench, door, group):
    """Once they are known, no command has a look at others."""
    bench.device()
    door.create("g", "v", EXTENT, [])
    door.report("g")
    for command in door.recent_commands[-2:]:
        assert command.arguments[command.arguments.index("--devices") + 1] == group


def test_a_device_that_was_added_is_found_by_the_next_command(bench, door, group):
    """An operator extends the group while we run: no command fails for it."""
    second = bench.device()
    lvm(bench.directory, "vgextend", "g", second, system_id=door.system_id)
    door.create("g", "v", EXTENT, [])
    assert set(door.report("g").devices) == {group, second}
    assert not door.report("g").partial


def test_a_missing_device_is_told_and_nothing_is_changed(bench, door):
    """The report is partial, volumes on what is missing have no ranges, changes are errors that say so."""
    devices = [bench.device(), bench.device()]
    door.create_group("g", devices, "")
    size = door.report("g").size // 2
    door.create("g", "a", size, [])
    door.create("g", "b", size, [])
    (place,) = door.report("g").volumes["a"].ranges
    (other,) = set(devices) - {place.device}
    path = bench.detach(other)
    report = door.report("g")
    assert (report.partial, report.devices) == (True, (place.device,))
    assert report.volumes["a"].ranges == (place,)
    assert report.volumes["b"].ranges == ()
    for call in (lambda: door.remove("g", "a"), lambda: door.rename("g", "a", "c"), lambda: door.sync("g")):
        with pytest.raises(StorageError, match="missing"):
            call()
    bench.attach(path)
    assert not door.report("g").partial
    door.remove("g", "a")
    door.sync("g")


def test_a_device_under_another_name_is_found(bench, door, group):
    """Names of devices change with each start of a host and each new path to the storage."""
    door.create("g", "v", EXTENT, [])
    path = bench.detach(group)
    bench.device(64 * MiB)  # may take the old name
    device = bench.attach(path)
    (place,) = door.report("g").volumes["v"].ranges
    assert place.device == device
    assert door.report("g").devices == (device,)
    door.sync("g")


def test_without_lvm_the_error_names_the_package(door, monkeypatch, tmp_path):
    """Nothing else is guessed."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match="Install the package lvm2"):
        door.report("g")


def fake_lvm(tmp_path, monkeypatch, script):
    program = tmp_path / "bin" / "lvm"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


def test_a_command_that_hangs_is_given_up(door, monkeypatch, tmp_path):
    """Storage that never answers ends as an error."""
    fake_lvm(tmp_path, monkeypatch, "exec sleep 60")
    monkeypatch.setattr(lvm_commands, "PATIENCE_S", 0.2)
    with pytest.raises(ToolFailed, match="lvm vgs did not answer"):
        door.report("g")


@pytest.mark.parametrize(
    "output",
    [
        "",
        "[]",
        "{}",
        '{"report": 5}',
        '{"report": [{"vg": [{}]}]}',
        '{"report": [{"vg": [{"vg_name": "h"}]}]}',
        "[" * 99999,
    ],
)
def test_a_report_that_is_none_is_an_error_and_no_traceback(door, monkeypatch, tmp_path, output):
    """LVM of another version, or something else of that name."""
    (tmp_path / "out").write_text(output)
    fake_lvm(tmp_path, monkeypatch, f"cat {tmp_path}/out")
    with pytest.raises(ToolFailed):
        door.report("g")


def test_what_lvm_says_is_one_printable_sentence(door, monkeypatch, tmp_path):
    """Errors before warnings, and nothing that a terminal would obey."""
    said = r"  WARNING: not this.\n  Bad \033[31mthing.\n  Bad \033[31mthing.\n  Run `lvm` for help.\n"
    fake_lvm(tmp_path, monkeypatch, f"printf '{said}' >&2; exit 5")
    with pytest.raises(DiskwrightError) as raised:
        door.report("g")
    assert raised.value.message == "LVM's vgs of g failed: Bad ?[31mthing"


def test_a_command_ended_by_a_signal_says_so(door, monkeypatch, tmp_path):
    """It may be done or not."""
    fake_lvm(tmp_path, monkeypatch, "kill -9 $$")
    with pytest.raises(ToolFailed, match="ended by signal 9"):
        door.report("g")


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
    for device in devices:
        with pytest.raises(OSError):
            door.open_device(device).read_at(0, 4096)


def test_files_that_are_not_there_are_not_made_unasked(door, root_user, tmp_path):
    """A repository whose file is missing is not replaced by an empty one."""
    path = tmp_path / "a.img"
    with pytest.raises(NotFound):
        door.attach_files([str(path)], 512)
    assert not path.exists()
