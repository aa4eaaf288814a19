"""A group that was cloned over the one that was connected is refused by name until the operator says which it is."""

from __future__ import annotations

import pytest

from engine.errors import Moved
from sim.hosts.world import LVM, World
from sim.lvm.volume_groups import SimVolumeGroups


def test_a_clone_in_the_place_of_a_group_is_another_group():
    """vgimportclone gives a clone a UUID of its own; the identity of the repository in it is the same."""
    world = World(format=LVM)
    world.create("a")
    engine = world.host("one")
    disk = engine.create_virtual_disk("a", 1 << 20)
    assert engine.list_repositories()["a"].anchors["the volume group"] == "uuid-a"
    engine.close()
    groups = world.process_of(engine).doors.volume_groups
    assert isinstance(groups, SimVolumeGroups)
    place, found = groups._find("a")
    groups._commit(place, found._replace(uuid="uuid-of-the-clone"))
    later = world.host("one")
    with pytest.raises(Moved, match=r"the volume group is another .*uuid-of-the-clone.*--accept-moved"):
        later.list_images("a")
    (differs,) = later.connect_storage_repository("a", "lvm-1.0", {"volume_group": "a"}, accept_moved=True)
    assert "uuid-of-the-clone" in differs
    assert [image.id for image in later.list_images("a")] == [disk]
