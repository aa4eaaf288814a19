"""How LVM is run: how often, on which devices, and what becomes of a command that fails."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys

import pytest

from engine.errors import (
    Conflict,
    DiskwrightError,
    NotFound,
    StorageError,
    ToolFailed,
    ToolMissing,
)
from engine.tools.block.device import DirectBlockHandle
from engine.tools.lvm import commands as lvm_commands
from engine.tools.lvm.volume_groups import LvmVolumeGroups
from sim.trials.inside import lvm_repair
from tests.tools.lvm_kit import EXTENT, MiB, commands, fill, lvm


def test_a_report_is_one_command_whatever_the_group_holds(bench, door, group):
    """Finding the devices costs one more, once."""
    fresh = LvmVolumeGroups("host-a")
    fresh.report("g")
    assert commands(fresh) == ["vgs", "fullreport"]
    for number in range(5):
        door.create("g", f"v{number}", EXTENT, ["t"])
    assert len(fresh.report("g").volumes) == 5
    assert commands(fresh) == ["vgs", "fullreport", "fullreport"]


def test_nothing_is_asked_twice_while_nobody_commits(bench, door, group):
    """Two sectors of each device tell whether anybody has; every kind of change is seen at once."""
    other = LvmVolumeGroups("host-a")
    assert door.report("g") == door.report("g")
    before = len(commands(door))
    assert door.report("g").volumes == {}
    assert commands(door)[before:] == []
    for change in (
        lambda: other.create("g", "v", EXTENT, ["t"]),
        lambda: other.change_tags("g", "v", ["u"], []),
        lambda: other.resize("g", "v", 2 * EXTENT),
        lambda: other.rename("g", "v", "w"),
        lambda: other.remove("g", "w"),
        lambda: lvm(bench.directory, "vgextend", "g", bench.device(), system_id=door.system_id),
        lambda: other.set_system_id("g", "somebody", door.system_id),
    ):
        change()
        assert door.report("g") == LvmVolumeGroups("host-a").report("g")
    assert door.report("g").system_id == "somebody"


def test_a_command_dies_with_the_process_that_started_it(monkeypatch, tmp_path):
    """However that one ends: nobody may change a group on behalf of who is gone."""
    os.mkfifo(tmp_path / "pid")
    fake_lvm(tmp_path, monkeypatch, f"echo $$ >{tmp_path}/pid; exec sleep 600")
    source = "from engine.tools.lvm.volume_groups import LvmVolumeGroups; LvmVolumeGroups('h').report('g')"
    process = subprocess.Popen([sys.executable, "-c", source])
    command = os.pidfd_open(int((tmp_path / "pid").read_text()))
    try:
        process.kill()
        process.wait()
        assert select.select([command], [], [], 60)[0], "it still runs"
    finally:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(command, signal.SIGKILL)
        os.close(command)


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
    last = list(door.recent_commands)[-2:]
    assert [command.arguments[command.arguments.index("--devices") + 1] for command in last] == [group, group]


def test_a_device_that_was_added_is_found_by_the_next_command(bench, door, group):
    """An operator extends the group while we run: no command fails for it."""
    second = bench.device()
    lvm(bench.directory, "vgextend", "g", second, system_id=door.system_id)
    door.create("g", "v", EXTENT, [])
    assert set(door.report("g").devices) == {group, second}
    assert not door.report("g").partial


def test_a_missing_device_is_told_and_nothing_is_changed(bench, door):
    """The report is partial and names the physical volume, volumes on what is missing have no ranges, changes are
    errors that say so."""
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
    (uuid,) = report.missing
    assert len(uuid.split("-")) == 7 and uuid in report.say_missing()
    assert report.volumes["a"].ranges == (place,)
    assert report.volumes["b"].ranges == ()
    for call in (lambda: door.remove("g", "a"), lambda: door.rename("g", "a", "c"), lambda: door.sync("g")):
        with pytest.raises(StorageError, match="missing"):
            call()
    bench.attach(path)
    assert not door.report("g").partial and not door.report("g").missing
    door.remove("g", "a")
    door.sync("g")


def test_a_device_under_another_name_is_found(bench, door):
    """Names of devices change with each start of a host and each new path to the storage. No other group of this name
    is on this machine: a test beside this one may get the old name of the device."""
    name = f"g{os.getpid()}"
    first = bench.device()
    door.create_group(name, [first], door.system_id)
    door.create(name, "v", EXTENT, [])
    assert door.report(name).devices == (first,)
    path = bench.detach(first)
    bench.device(64 * MiB)  # may take the old name
    device = bench.attach(path)
    (place,) = door.report(name).volumes["v"].ranges
    assert place.device == device
    assert door.report(name).devices == (device,)
    door.sync(name)


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


def test_a_group_that_a_power_cut_has_torn_is_told_and_can_be_put_back(bench, door, group):
    """LVM's last change is text in two areas and headers that refer to it; here the headers survived and the text did
    not. The group counts as missing, the device is not given away, and LVM's own tools put back what was before."""
    door.create("g", "before", EXTENT, ["t"])
    before = door.report("g")
    door.create("g", "after", EXTENT, [])
    for line in lvm(bench.directory, "pvck", "--dump", "headers", group).splitlines():
        if line.strip().startswith("metadata text at"):
            at = int(line.split()[3])
            with DirectBlockHandle(group, writable=True) as device:
                page = device.read_at(at // 4096 * 4096, 8192)
                device.write_at(at // 4096 * 4096, page[: at % 4096] + bytes(512) + page[at % 4096 + 512 :])
    fresh = LvmVolumeGroups("host-a")
    with pytest.raises(NotFound, match=f"cannot read what it has written on {group}.* pvck --dump metadata_search"):
        fresh.report("g")
    with pytest.raises(Conflict, match=r"cannot read.*, and what was before is still there"):
        fresh.create_group("g", [group], fresh.system_id)
    assert lvm_repair.unreadable(group, "g") and lvm_repair.repair(group, "g")
    assert not lvm_repair.unreadable(group, "g")
    assert LvmVolumeGroups("host-a").report("g")._replace(metadata_free=0) == before._replace(metadata_free=0)
    door.create("g", "after", EXTENT, [])


def test_a_command_ended_by_a_signal_says_so(door, monkeypatch, tmp_path):
    """It may be done or not."""
    fake_lvm(tmp_path, monkeypatch, "kill -9 $$")
    with pytest.raises(ToolFailed, match="ended by signal 9"):
        door.report("g")
