"""Names that reach LVM, and names that never do."""

from __future__ import annotations

import pytest

from engine.errors import (
    BadRequest,
)
from engine.tools.lvm.names import check_system_id, system_id_of, unmapped
from tests.tools.lvm_kit import EXTENT, commands

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


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("g-v", ("g", "v")),
        ("a--b-c", ("a-b", "c")),
        ("a---b", ("a-", "b")),
        ("g-a--b--", ("g", "a-b-")),
        ("x", ("x", "")),
    ],
)
def test_a_name_of_device_mapper_means_one_volume(name, meant):
    """Wherever hyphens are: no name of a volume begins with one."""
    assert unmapped(name) == meant
