"""The format for volume groups under power cuts that tear writes, and the model of LVM that this is explored with."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from engine.errors import Conflict, NoSpace, NotFound, Refused, StorageError, ToolFailed
from engine.formats.lvm import group as lvm_group
from engine.formats.lvm.metadata import area, layout
from engine.formats.lvm.metadata import records as lvm_records
from sim.disk.profiles import POSIX, crash_states
from sim.explore.cases.catalog import ON_LVM
from sim.explore.search.explorer import Explorer
from sim.explore.search.faulty import failures
from sim.hosts.world import DEVICE, LVM, REPOSITORIES, World
from sim.lvm import group_model, volume_groups
from tests.sim.sampled_kit import sampled

EXTENT = group_model.EXTENT_BYTES
QUICK = ["user-data", "remove", "restore", "create-unmade", "clean-removed", "clean-scrap", "optimize-reduce"]


def explored(case: str, profile: str = "posix", **bounds: Any):
    return Explorer(ON_LVM[f"lvm:{case}"], profile, **bounds).run()


@pytest.mark.parametrize("profile", ["posix", "process"])
@pytest.mark.parametrize("case", QUICK)
def test_short_cases_survive_everything_until_no_new_state_appears(case, profile):
    """Any sectors of what was not synced are lost, any process is killed, recovery too: nothing is found."""
    tally = explored(case, profile)
    assert tally.closed and not tally.violations and tally.states > 1


def test_a_raw_copy_that_is_killed_anywhere_goes_on_and_shows_no_old_bytes():
    """It has windows and holes."""
    tally = explored("mend-copy-raw-windows", "process", recover=False)
    assert tally.closed and not tally.violations and tally.states > 30


@pytest.mark.slow
@pytest.mark.parametrize("case", ON_LVM)
def test_every_verb_and_every_fix_survives_power_cuts_from_its_beginning_to_its_end(case):
    """Some of its effects and of the states that they leave. All of them, and of recovery: ``diskwright sim explore
    --case`` with its name; ``make explore`` has none on volume groups but generated and damaged ones."""
    tally = sampled(ON_LVM[case])
    assert tally.states and not tally.violations


@pytest.mark.parametrize("case", ["copy-committed", "user-data", "remove", "clean-removed", "optimize-reduce"])
def test_whatever_fails_what_was_acknowledged_is_there(case):
    """EIO, no room, short writes and failed syncs at each effect: a verb that does not know its outcome says so."""
    assert list(failures(ON_LVM[f"lvm:{case}"])) == []


def _unsynced(real):
    def write(records, header, slot, change):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(area.Meta, "sync", lambda meta: None)
            return real(records, header, slot, change)

    return write


MUTANTS = {
    "a record is not synced": ("user-data", lvm_records.Records, "_write", _unsynced(lvm_records.Records._write)),
    "LVM's metadata is not synced": ("create-space", lvm_group.Group, "sync", lambda group: None),
    "what was only seen is not settled": ("remove", lvm_records.Records, "settle", lambda records, tag: None),
    "every change goes to one copy": ("user-data", layout, "copy_of", lambda version, sequence: 2),
    "devices are not synced": ("create-performance", volume_groups.SimDevice, "sync", lambda device: None),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_found(name, monkeypatch):
    """A harness that finds nothing is not believed."""
    case, where, what, instead = MUTANTS[name]
    monkeypatch.setattr(where, what, instead)
    assert explored(case, max_violations=1).violations


# -- the model


@pytest.fixture
def world() -> World:
    """A group ``a`` with a repository in it, on a device full of garbage."""
    world = World(format=LVM)
    world.create("a")
    return world


@pytest.fixture
def groups(world):
    return world.host("one").doors.volume_groups


def filled(groups, name: str, size: int, byte: bytes) -> None:
    groups.create("a", name, size, [])
    with groups.open_device(groups.activate("a", name), writable=True) as device:
        device.write_at(0, byte * size)
        device.sync()
    groups.deactivate("a", name)
    groups.sync("a")


def test_a_new_volume_shows_what_was_there(groups):
    """Garbage at first, then the bytes of a volume that was removed."""
    groups.create("a", "first", EXTENT, [])
    with groups.open_device(groups.activate("a", "first")) as device:
        assert device.read_at(0, 4096) == b"\xa5" * 4096
    groups.remove("a", "first")
    filled(groups, "second", 2 * EXTENT, b"x")
    groups.remove("a", "second")
    groups.create("a", "third", EXTENT, [])
    with groups.open_device(groups.activate("a", "third")) as device:
        assert device.read_at(EXTENT - 4096, 4096) == b"x" * 4096


def test_a_command_is_whole_or_not_at_all_and_durable_after_sync_only(world, groups):
    """Each state of a power cut shows the group before or after a command."""
    groups.create("a", "v", EXTENT, ["t"])
    found = {frozenset(names(state.storage)) for state in crash_states(world.storage, POSIX)}
    assert found == {frozenset({"dw-meta"}), frozenset({"dw-meta", "v"})}
    groups.sync("a")
    groups.rename("a", "v", "w")
    found = {frozenset(names(state.storage)) for state in crash_states(world.storage, POSIX)}
    assert found == {frozenset({"dw-meta", "v"}), frozenset({"dw-meta", "w"})}


def test_of_several_changes_without_a_sync_the_first_ones_survive(world, groups):
    """As many as the power cut likes: real LVM left the first one of three (``sim.trials.sequences.volume_groups``)."""
    for name in ("u", "v", "w"):
        groups.create("a", name, EXTENT, [])
    found = {"".join(sorted(names(state.storage) - {"dw-meta"})) for state in crash_states(world.storage, POSIX)}
    assert found == {"", "u", "uv", "uvw"}


def names(storage) -> set[str]:
    (group,) = volume_groups.groups_of(storage).values()
    return set(group.volumes)


def test_a_write_is_torn_between_sectors_and_one_of_two_may_be_lost(world, groups):
    """Beginning or end of either, either without the other, all, nothing."""
    filled(groups, "v", EXTENT, b"o")
    (place,) = groups.report("a").volumes["v"].ranges
    with groups.open_device(groups.activate("a", "v"), writable=True) as device:
        device.write_at(0, b"1" * 4096)
        device.write_at(8192, b"2" * 4096)
        seen = set()
        for state in crash_states(world.storage, POSIX):
            content = state.storage.file(f"{REPOSITORIES}/a/{DEVICE}")[1].content.read(place.start, 12288)
            assert content[4096:8192] == b"o" * 4096
            seen.add((content[:4096], content[8192:]))
    old, first, second = b"o" * 4096, b"1" * 4096, b"2" * 4096
    assert {(old, old), (first, second), (first, old), (old, second)} < seen
    assert {(first[:512] + old[512:], old), (old[:512] + first[512:], second)} < seen


def test_what_is_active_and_open_is_the_hosts_until_it_boots(world, groups):
    """Open volumes are neither deactivated nor removed, follow a renaming, and are closed by the end of a process."""
    groups.create("a", "v", EXTENT, [])
    with pytest.raises(FileNotFoundError):
        groups.open_device("/dev/a/v")
    path = groups.activate("a", "v")
    device = groups.open_device(path, writable=True)
    for call in (groups.deactivate, groups.remove):
        with pytest.raises(StorageError, match="open"):
            call("a", "v")
    groups.rename("a", "v", "w")
    device.write_at(0, b"w" * 4096)
    report = groups.report("a").volumes["w"]
    assert (report.active, report.open) == (True, True)
    world.bury("one")
    assert not world.host("one").doors.volume_groups.report("a").volumes["w"].active


def test_errors_are_those_of_the_door(world, groups):
    """Names that are taken or missing, no room, no extent, the end of a volume, a group of another host."""
    for change in (lambda: groups.create("a", "none", 0, []), lambda: groups.create("a", "less", -EXTENT, [])):
        with pytest.raises(ToolFailed, match="no extents"):
            change()
    groups.create("a", "v", EXTENT, [])
    with pytest.raises(Conflict):
        groups.create("a", "v", EXTENT, [])
    with pytest.raises(NotFound):
        groups.resize("a", "w", EXTENT)
    with pytest.raises(NotFound):
        groups.report("b")
    with pytest.raises(NoSpace):
        groups.create("a", "w", 1 << 40, [])
    with (
        groups.open_device(groups.activate("a", "v"), writable=True) as device,
        pytest.raises(OSError, match=r"\[Errno 28\]") as caught,
    ):
        device.write_at(EXTENT, bytes(4096))
    assert caught.value.errno == errno.ENOSPC
    groups.set_system_id("a", "another", groups.system_id)
    groups.deactivate("a", "v")  # whoever owns the group: nobody else could
    for call in (groups.activate, groups.remove):
        with pytest.raises(Refused, match="another"):
            call("a", "v")
    assert groups.report("a").system_id == "another"
