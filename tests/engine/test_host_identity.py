"""Two machines that have one name are two hosts: nothing is decided by a name."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.api import Engine
from engine.errors import Refused
from engine.tools.local import clock
from engine.tools.local.clock import RealIds
from engine.tools.lvm.names import MAX_SYSTEM_ID_BYTES, check_system_id, system_id_of
from sim.hosts.world import LVM, SHARED, World

SIZE = 65536


def twins(format: str) -> tuple[World, Engine, Engine]:
    """Two machines that call themselves localhost, with one repository; the first has made it."""
    world = World(format=format)
    world.only_host = ""
    for key in ("setup", "left", "right"):
        world.machine(key).called = "localhost"
    world.create("a")
    if format == LVM:
        world.host("setup").release_srm("a")
    left = world.host("left")
    left.take_srm("a")
    return world, left, world.host("right")


def test_one_name_does_not_make_two_managers():
    """The second is refused by LVM's mark and told why; when the first is dead for certain it takes over, and then the
    first one is refused. Found so: both prepared one disk for writing."""
    _, left, right = twins(LVM)
    disk = left.create_virtual_disk("a", SIZE)
    for act in (lambda: right.create_virtual_disk("a", SIZE), lambda: right.prepare_image("a", disk)):
        with pytest.raises(Refused, match="managed by host"):
            act()
    with pytest.raises(Refused, match="another host that is called localhost too, manages the repository") as error:
        right.take_srm("a")
    right.take_srm("a", error.value.next_step.rpartition(" ")[2])
    right.prepare_image("a", disk)
    with pytest.raises(Refused, match="managed by host"):
        left.prepare_image("a", disk)


def test_a_group_that_an_older_program_marked_is_one_hosts_from_then_on():
    """Its mark and header have the name alone. The first host of that name that opens it has it; the next has not."""
    world, left, right = twins(LVM)
    disk = left.create_virtual_disk("a", SIZE)
    group = left.doors.volume_groups
    left.close()
    right.close()
    _as_an_older_program(left)
    again = world.host("left")
    again.set_user_data("a", disk, {"n": 1})
    assert group.report("a").system_id == group.system_id != group.former_system_id
    with pytest.raises(Refused, match="managed by host"):
        world.host("right").set_user_data("a", disk, {"n": 2})
    assert again.get_user_data("a", disk) == {"n": 1}


def _as_an_older_program(engine: Engine) -> None:
    from engine.formats.lvm import setup

    attached = setup.attach(engine.doors, setup.parse({"volume_group": "a"}))
    attached.meta.write_header(attached.header._replace(nonce="", term=attached.header.term + 1))
    attached.meta.close()
    setup.deactivate_meta(attached.group)
    groups = engine.doors.volume_groups
    groups.set_system_id("a", groups.former_system_id, groups.system_id)


def test_a_header_of_an_older_program_names_no_machine():
    """It keeps our field when it takes the group over, so the field says for which term it holds."""
    from engine.formats.lvm.metadata.layout import _nonce

    nonce = "0" * 32
    assert _nonce([nonce, 3], 3) == nonce
    assert _nonce([nonce, 3], 4) == _nonce(None, 3) == _nonce(["x", 3], 3) == _nonce([3], 3) == ""


def test_hosts_of_one_name_share_a_group_with_numbers_of_their_own():
    """Neither gets the number or the role of the other, and what one prepares is busy for the other."""
    world, left, right = twins(SHARED)
    disk = left.create_virtual_disk("a", SIZE)
    numbers = {world.shared.since(area, host) for area in world.shared.areas for host in ("left", "right")}
    assert None not in numbers
    with pytest.raises(Refused, match="host localhost manages the repository"):
        right.take_srm("a")
    left.prepare_image("a", disk)
    with pytest.raises(Refused, match="managed by host"):
        right.create_virtual_disk("a", SIZE)
    left.create_virtual_disk("a", SIZE)


def test_a_host_is_its_notes_on_its_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The same after each start; another with other notes, or when the notes are copied to another machine."""
    one, same = (RealIds("localhost", str(tmp_path / "one")).host_nonce for _ in range(2))
    other = RealIds("localhost", str(tmp_path / "other")).host_nonce
    monkeypatch.setattr(clock, "_machine", lambda: "another machine")
    copied = RealIds("localhost", str(tmp_path / "one")).host_nonce
    assert one == same and len({one, other, copied}) == 3
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["host"]


@pytest.mark.parametrize("host", ["localhost", "a" * 64, "é" * 32])
def test_lvms_mark_tells_hosts_of_one_name_apart(host: str):
    """It fits, can be read, and without a nonce is the one that older programs made."""
    first, second, former = system_id_of(host, "1" * 32), system_id_of(host, "2" * 32), system_id_of(host)
    assert len({first, second, former}) == 3
    for mark in (first, second, former):
        assert check_system_id(mark) == mark and len(mark) <= MAX_SYSTEM_ID_BYTES
