"""Parts of a repository that are missing: what can be read is read, the rest is refused by name, a fix makes them
again."""

from __future__ import annotations

import contextlib
import errno

import pytest

from engine.api import Engine
from engine.data.model import Fix, Risk, Status
from engine.doors.files import Entry, FileHandle
from engine.doors.images import Layer
from engine.errors import Damaged, DiskwrightError, ImageBusy, Moved, Refused
from engine.fixes import parts
from engine.formats.base import Repository
from engine.tags import chains, changes
from sim.disk.files import SimFiles
from sim.disk.storage import SimStorage
from sim.explore.cases.case import before_uses
from sim.hosts.trees import remove_tree
from sim.hosts.world import REPOSITORIES, World

A = f"{REPOSITORIES}/a"
SIZE = 65536


def world_with_a_disk(format: str = "localfs-1.0") -> tuple[World, str]:
    world = World(format=format)
    world.create("a")
    return world, world.host("one").create_virtual_disk("a", SIZE)


def fixes(engine: Engine) -> list[Fix]:
    return engine.check_storage_repository("a")


@pytest.mark.parametrize("part", ["progress", "digests", "tmp", "lost"])
def test_a_directory_that_is_missing_is_named_by_whoever_needs_it_and_made_again(part: str):
    """Images are listed and read as before; the fix comes before all others. Found so: everything ended as damaged."""
    world, disk = world_with_a_disk()
    engine = world.host("one")
    engine.remove_image("a", engine.create_virtual_disk("a", SIZE))
    remove_tree(engine.doors.files, f"{A}/{part}")
    assert next(image for image in engine.list_images("a") if image.id == disk).status is Status.OPTIMIZED
    first, *others = fixes(engine)
    assert first.rule == "B-PART" and part in first.why and others
    assert all(first.id in fix.depends_on for fix in others)
    if part in ("tmp", "progress"):
        with pytest.raises(Refused, match=f"the directory {A}/{part} is missing") as error:
            engine.create_snapshot("a", disk) if part == "tmp" else engine.run_fix_here("a", make_raw(engine, disk))
        assert "B-PART" in error.value.next_step
    engine.run_fix_here("a", first)
    for fix in fixes(engine):
        engine.run_fix_here("a", fix)
    assert engine.create_snapshot("a", disk) and "B-PART" not in [fix.rule for fix in fixes(engine)]


def make_raw(engine: Engine, disk: str) -> Fix:
    engine.set_strategy("a", disk, "performance")
    return next(fix for fix in fixes(engine) if fix.target == disk)


def test_without_the_lock_file_images_are_listed_and_nobody_gets_a_lease():
    """Made again it is another file: this host knows that it is, others are asked. Found so: each command ended as
    damaged, and the advice was to create the repository empty."""
    world, disk = world_with_a_disk()
    engine, other = world.host("one"), world.host("two")
    other.list_images("a")
    engine.doors.files.unlink(f"{A}/locks")
    for each in (engine, other, world.host("one")):
        assert [image.status for image in each.list_images("a")] == [Status.OPTIMIZED]
        assert each.get_image_status("a", disk).status is Status.OPTIMIZED
        with pytest.raises(Refused, match=f"the lock file {A}/locks is missing") as error:
            each.prepare_image("a", disk)
        assert "B-LOCKS" in error.value.next_step
    engine.export_image("a", disk, f"{REPOSITORIES}/out", "raw")
    (fix,) = fixes(engine)
    assert fix.rule == "B-LOCKS"
    engine.run_fix_here("a", fix)
    assert not fixes(engine) and not fixes(world.host("one"))
    engine.prepare_image("a", disk)
    with pytest.raises(Moved, match="locks is another"):
        other.list_images("a")
    with pytest.raises(DiskwrightError):
        world.host("two").prepare_image("a", disk)


@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize("format", ["localfs-1.0", "nfs-1.0"])
def test_the_lock_file_is_not_made_again_while_somebody_uses_the_data(format: str, writable: bool):
    """His lease is of the file that is gone: with another file two would have the disk. The data tells. What nobody has
    for writing can be read."""
    world, disk = world_with_a_disk(format)
    holder, engine = world.host("one"), world.host("two")
    if not writable:
        disk = holder.create_snapshot("a", disk)
    holder.prepare_image("a", disk, writable)
    world.storage.unlink(f"{A}/locks")
    with (
        pytest.raises(ImageBusy, match="is prepared for writing by somebody") if writable else contextlib.nullcontext()
    ):
        engine.export_image("a", disk, f"{REPOSITORIES}/out", "raw")
    with pytest.raises(ImageBusy, match="is in use by"):
        engine.run_fix_here("a", fixes(engine)[0])
    assert not any(entry.name == "locks" for entry in world.storage.list_directory(A))
    holder.teardown_image("a", disk)
    engine.run_fix_here("a", fixes(engine)[0])
    assert engine.prepare_image("a", disk, writable)


@pytest.mark.parametrize("where", ["shard", "moved", "empty"])
def test_the_lock_file_is_not_made_again_while_data_cannot_be_seen(monkeypatch: pytest.MonkeyPatch, where: str):
    """Who uses it cannot be asked. Found so: with one directory that could not be listed, or all of them away, the fix
    ran, and two hosts had the lease of a disk."""
    world, disk = world_with_a_disk("nfs-1.0")
    world.host("one").prepare_image("a", disk, True)
    engine = world.host("two")
    engine.list_images("a")
    world.storage.unlink(f"{A}/locks")
    listed = SimStorage.list_directory

    def failing(self: SimStorage, path: str) -> list[Entry]:
        if "/volumes/" in path:
            raise OSError(errno.EIO, "Input/output error", path)
        return listed(self, path)

    with monkeypatch.context() as patch:
        if where == "shard":
            patch.setattr(SimStorage, "list_directory", failing)
        else:
            world.storage.rename(f"{A}/volumes", f"{A}/elsewhere")
        if where == "empty":
            world.storage.make_directory(f"{A}/volumes")
        fix = next(fix for fix in fixes(engine) if fix.rule == "B-LOCKS")
        assert fix.wait is not None and fix.wait.subject.startswith("volumes")
        with pytest.raises(DiskwrightError, match="cannot be seen"):
            parts.make_locks(engine.context, engine.context.repository("a"), "locks")
    assert not any(entry.name == "locks" for entry in world.storage.list_directory(A))
    if where == "empty":
        world.storage.remove_directory(f"{A}/volumes")
    if where != "shard":
        world.storage.rename(f"{A}/elsewhere", f"{A}/volumes")
    with pytest.raises(ImageBusy, match="is in use by"):
        parts.make_locks(engine.context, engine.context.repository("a"), "locks")


def test_a_volume_that_cannot_be_opened_is_named_with_what_is_left_to_do(monkeypatch: pytest.MonkeyPatch):
    """All others are asked. Found so: it alone was told, as an error of the storage, and nothing but a fix that failed
    was offered for good."""
    world, disk = world_with_a_disk()
    engine = world.host("one")
    volume = changes.read(engine.context.repository("a"), disk).record.volume
    assert volume is not None
    other = engine.create_virtual_disk("a", SIZE)
    engine.prepare_image("a", other, True)
    world.storage.unlink(f"{A}/locks")
    opened = SimFiles.open

    def failing(self: SimFiles, path: str, writable: bool = False) -> FileHandle:
        if writable and volume.id in path:
            raise OSError(errno.EIO, "Input/output error", path)
        return opened(self, path, writable)

    monkeypatch.setattr(SimFiles, "open", failing)
    with pytest.raises(ImageBusy, match="is in use by"):
        engine.run_fix_here("a", fixes(engine)[0])
    engine.teardown_image("a", other)
    with pytest.raises(Refused, match=f"1 of the 2 volumes cannot be asked.*{volume.id}") as error:
        engine.run_fix_here("a", fixes(engine)[0])
    assert "make an empty file locks in /srv/a" in error.value.next_step
    engine.doors.files.create(f"{A}/locks").close()
    engine.connect_storage_repository("a", "localfs-1.0", {"path": A}, accept_moved=True)
    assert engine.prepare_image("a", other, True)


@pytest.mark.parametrize("format", ["localfs-1.0", "nfs-1.0"])
def test_the_lock_file_is_not_made_again_under_an_export(monkeypatch: pytest.MonkeyPatch, format: str):
    """It began without a lease, as there was none, and has nothing open for a moment. Found so: the lock file
    was made again then, the snapshot removed and merged, and the export was acknowledged with newer data. Others may
    read the data too; one of two exports was refused for the other."""
    world, disk = world_with_a_disk(format)
    one, two = world.host("one"), world.host("two")
    snapshot = one.create_snapshot("a", disk)
    two.list_images("a")
    world.storage.unlink(f"{A}/locks")
    layers = chains.layers

    def paused(repository: Repository, links: list[chains.Link]) -> list[Layer]:
        with monkeypatch.context() as others:
            others.setattr(chains, "layers", layers)
            two.export_image("a", snapshot, f"{REPOSITORIES}/other", "raw")
        with pytest.raises(ImageBusy, match="is in use by"):
            two.run_fix_here("a", fixes(two)[0])
        return layers(repository, links)

    with monkeypatch.context() as patch:
        patch.setattr(chains, "layers", paused)
        one.export_image("a", snapshot, f"{REPOSITORIES}/out", "raw")
    two.run_fix_here("a", fixes(two)[0])
    assert not fixes(two)


@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_who_the_repository_is_is_known_from_either_copy(how: str):
    """The file is written again by a fix; until then everything works. Found so: the host that had done that took its
    own repository for another one, whose file of the same name was made later."""
    world, disk = world_with_a_disk()
    engine = world.host("one")
    if how == "missing":
        engine.doors.files.unlink(f"{A}/repository.json")
    else:
        with engine.doors.files.open(f"{A}/repository.json", writable=True) as handle:
            handle.write_at(0, b"?")
    assert engine.create_snapshot("a", disk) and world.host("one").create_snapshot("a", disk)
    (fix,) = fixes(engine)
    assert fix.rule == "B-PART" and "repository.json" in fix.why
    engine.run_fix_here("a", fix)
    assert not fixes(world.host("one")) and engine.create_snapshot("a", disk)


@pytest.mark.parametrize("format", ["localfs-1.0", "nfs-1.0"])
def test_who_a_repository_is_that_was_given_uses_is_written_again_any_number_of_times(format: str):
    """By whichever host. Found so: one that had made it again before, or had connected it later, called it replaced."""
    world = World(format=format)
    world.create("a")
    before_uses(world, "a")
    for host in ("one", "one", "later"):
        engine = world.host(host)
        for fix in fixes(engine):
            engine.run_fix_here("a", fix)
        engine.doors.files.unlink(f"{A}/repository.json")
        (fix,) = fixes(engine)
        engine.run_fix_here("a", fix)
        assert not fixes(world.host(host)) and engine.create_virtual_disk("a", SIZE)


def test_without_the_directory_of_the_data_nothing_is_concluded():
    """Images are unknown and not broken, and nothing is cleaned. Making it again is a loss that is asked for by name:
    images can be removed then."""
    world, disk = world_with_a_disk()
    engine = world.host("one")
    engine.remove_image("a", engine.create_virtual_disk("a", SIZE))
    remove_tree(engine.doors.files, f"{A}/volumes")
    assert {image.status for image in engine.list_images("a")} == {Status.UNKNOWN}
    (fix,) = fixes(engine)
    assert (fix.rule, fix.risk) == ("B-PART", Risk.LOSES_DATA)
    engine.run_fix_here("a", fix)
    assert engine.get_image_status("a", disk).rule == "B-GONE"
    engine.remove_image("a", disk)
    while todo := fixes(engine):
        engine.run_fix_here("a", todo[0])
    assert not engine.list_images("a") and engine.create_virtual_disk("a", SIZE)


def test_the_directory_of_the_records_is_never_made_again():
    """It is named, with what was in it."""
    world, _ = world_with_a_disk()
    remove_tree(world.host("one").doors.files, f"{A}/tags")
    with pytest.raises(Damaged, match=f"{A}/tags of the repository is missing"):
        world.host("one").list_images("a")
