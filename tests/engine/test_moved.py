"""A repository that is not what was connected: it is refused by name in every process that has it open, until the
operator says which one is meant."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.api import Engine
from engine.errors import Conflict, DiskwrightError, Moved, Refused, StorageError
from engine.tags.anchors import differences
from sim.disk.files import SimFiles
from sim.hosts.trees import copy_file, copy_tree, remove_tree
from sim.hosts.world import REPOSITORIES, World

A, B = f"{REPOSITORIES}/a", f"{REPOSITORIES}/b"
SIZE = 65536


def restored(engine: Engine) -> None:
    copy_tree(engine.doors.files, A, B)
    remove_tree(engine.doors.files, A)
    copy_tree(engine.doors.files, B, A)


def restored_into_the_same_inodes(engine: Engine) -> None:
    """As "rm -rf" and "cp -a" do on a quiet ext4."""
    paths = [A, f"{A}/repository.json", f"{A}/locks"]
    numbers = [engine.doors.files.stat(path).inode for path in paths]
    restored(engine)
    assert isinstance(engine.doors.files, SimFiles)
    for path, number in zip(paths, numbers, strict=True):
        engine.doors.files.storage_of(path).give_number(path, number)
    assert [engine.doors.files.stat(path).inode for path in paths] == numbers


def lock_file_restored(engine: Engine) -> None:
    copy_file(engine.doors.files, f"{A}/locks", f"{REPOSITORIES}/locks")
    engine.doors.files.unlink(f"{A}/locks")
    copy_file(engine.doors.files, f"{REPOSITORIES}/locks", f"{A}/locks")


def mounted_over(engine: Engine) -> None:
    engine.doors.files.rename(A, B)
    copy_tree(engine.doors.files, B, A)


def world_with_a_disk() -> tuple[World, str]:
    world = World()
    world.create("a")
    return world, world.host("one").create_virtual_disk("a", SIZE)


def accept(engine: Engine, path: str = A) -> list[str]:
    return engine.connect_storage_repository("a", "localfs-1.0", {"path": path}, accept_moved=True)


@pytest.mark.parametrize("happens", [restored, restored_into_the_same_inodes, lock_file_restored, mounted_over])
def test_what_was_replaced_is_refused_until_it_is_accepted(happens: Callable[[Engine], None]):
    """By a process that has it open and by one that comes, with the command that accepts it; both work on then. Found
    so: the locks of a host were on another file than those of the next one, and two had one disk for writing."""
    world, disk = world_with_a_disk()
    opened = world.host("one")
    opened.list_images("a")
    happens(opened)
    for engine in (opened, world.host("one")):
        with pytest.raises(Moved, match="the repository connected as a is not what stands at /srv/a now") as error:
            engine.list_images("a")
        assert error.value.next_step.endswith("diskwright connect a localfs-1.0 path=/srv/a --accept-moved")
        with pytest.raises(Moved):
            engine.prepare_image("a", disk)
    assert any("is another" in text for text in accept(world.host("one")))
    for engine in (opened, world.host("one")):
        assert [image.id for image in engine.list_images("a")] == [disk]


def test_a_repository_that_was_moved_is_connected_where_it_is_now():
    """Under its old name, which open engines follow; nothing is made where it was. Another name is refused, for it may
    as well be a copy."""
    world, disk = world_with_a_disk()
    opened = world.host("one")
    opened.list_images("a")
    opened.doors.files.rename(A, B)
    with pytest.raises(StorageError, match="there is no repository at /srv/a any more"):
        opened.create_snapshot("a", disk)
    with pytest.raises(Conflict, match="connected as a \\(or a copy of it\\)") as error:
        opened.connect_storage_repository("other", "localfs-1.0", {"path": B})
    assert "diskwright connect a localfs-1.0 path=/srv/b --accept-moved" in error.value.next_step
    assert accept(world.host("one"), B) == ["it was connected with path=/srv/a"]
    assert [image.id for image in opened.list_images("a")] == [disk]


def test_an_empty_mount_point_is_no_repository():
    """It is said that the storage is away, and nothing is made there. Found so: the advice was to create it."""
    world, disk = world_with_a_disk()
    opened = world.host("one")
    opened.list_images("a")
    opened.doors.files.rename(A, B)
    opened.doors.files.make_directory(A)
    for engine in (opened, world.host("one")):
        with pytest.raises(StorageError) as error:
            engine.create_snapshot("a", disk)
        assert "create" not in error.value.next_step.lower()
    assert not opened.doors.files.list_directory(A)
    opened.doors.files.remove_directory(A)
    opened.doors.files.rename(B, A)
    assert opened.list_images("a")


def test_a_copy_of_what_was_connected_before_is_refused_too():
    """A host remembers what it has disconnected; a copy elsewhere is not taken for it unless that is said."""
    world, _ = world_with_a_disk()
    engine = world.host("one")
    copy_tree(engine.doors.files, A, B)
    engine.disconnect_storage_repository("a")
    with pytest.raises(Moved, match="connected as a before is not what stands at /srv/b now"):
        engine.connect_storage_repository("copy", "localfs-1.0", {"path": B})
    engine.connect_storage_repository("a", "localfs-1.0", {"path": A})
    engine.disconnect_storage_repository("a")
    assert engine.connect_storage_repository("copy", "localfs-1.0", {"path": B}, accept_moved=True)


def test_nothing_is_accepted_while_something_uses_what_was_there():
    """A holder has locks of the old file: it ends first, which touches nothing of what stands there now."""
    world, disk = world_with_a_disk()
    engine = world.host("one")
    engine.prepare_image("a", disk)
    lock_file_restored(engine)
    with pytest.raises(Refused, match="is prepared here"):
        accept(engine)
    with pytest.raises(Moved, match=f"image {disk} is not prepared on this host any more"):
        engine.teardown_image("a", disk)
    assert not engine.list_prepared()
    assert accept(engine)
    engine.prepare_image("a", disk)


def test_another_repository_does_not_take_the_name():
    """Accepting means the same repository elsewhere."""
    world, _ = world_with_a_disk()
    world.host("one").create_repository("localfs-1.0", {"path": B})
    with pytest.raises(Conflict, match="another repository than the one that is connected as a"):
        accept(world.host("one"), B)


def test_work_that_runs_finds_out_at_its_next_step():
    """A copy whose target is replaced under it writes nothing into what stands there now."""
    world, disk = world_with_a_disk()
    engine = world.host("one")
    engine.disconnect_storage_repository("a")
    world.create("c")
    engine.connect_storage_repository("a", "localfs-1.0", {"path": A})
    engine.connect_storage_repository("c", "localfs-1.0", {"path": f"{REPOSITORIES}/c"})
    copy = engine.copy_image("c", disk, options={"auto_fix": False})
    (fix,) = engine.check_storage_repository("c")
    stopping = engine.context.stopping
    looked: list[str] = []

    def replaced() -> bool:
        if not looked:
            looked.append(copy)
            engine.doors.files.rename(f"{REPOSITORIES}/c", f"{REPOSITORIES}/c-old")
            copy_tree(engine.doors.files, f"{REPOSITORIES}/c-old", f"{REPOSITORIES}/c")
        return stopping()

    engine.context.stopping = replaced
    with pytest.raises(Moved):
        engine.run_fix_here("c", fix)


def test_an_older_note_learns_what_is_there():
    """A connection of an older program knows nothing; what is there when it is first used is what it means."""
    world, _ = world_with_a_disk()
    state = world.host("one").state
    state.save_connections({"a": state.connections()["a"]._replace(anchors={})})
    assert world.host("one").list_images("a")
    assert world.host("one").list_repositories()["a"].anchors
    lock_file_restored(world.host("one"))
    with pytest.raises(DiskwrightError):
        world.host("one").list_images("a")


def test_a_device_may_have_another_number_after_a_boot():
    """Within one boot another number is another device; inodes are always compared."""
    known = {"boot": "one", "device": 5, "locks": 7}
    assert differences(known, {**known, "device": 6}) == ["it is on another device (6, it was 5)"]
    assert not differences(known, {**known, "device": 6, "boot": "two"})
    assert differences(known, {**known, "locks": 8, "boot": "two"}) == ["locks is another (8, it was 7)"]
    assert not differences({}, known)
