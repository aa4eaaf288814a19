"""A repository on LVM in hostile surroundings: bad sectors, names of strangers, races for the role of manager."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, cast

import pytest

from engine.data.records import is_tombstone
from engine.errors import Conflict, Damaged, DiskwrightError, Refused, StorageError
from engine.formats.base import Litter
from engine.formats.lvm.group import NOBODY
from engine.formats.lvm.metadata import layout
from engine.formats.lvm.metadata.area import sealed_header
from engine.formats.lvm.metadata.pages import PAGE_BYTES
from engine.formats.lvm.metadata.records import Records
from engine.formats.lvm.repository import LvmRepository
from engine.formats.registry import create_repository, open_repository
from engine.tags import changes
from sim.explore.cases.driver import Driver, MiB
from sim.hosts.world import LVM, World
from sim.lvm import group_model
from tests.formats.kit import SIZE, T1, T2, V1, LvmStorage, qcow2, raw, record
from tests.formats.lvm.kit import FileGroups, FileHandle

FORMAT = "lvm-1.0"


@pytest.fixture
def lvm(tmp_path) -> LvmStorage:
    """A repository on a group of files, made and managed by host-1."""
    return LvmStorage(tmp_path)


def on(lvm: LvmStorage, host: str = "host-1") -> LvmRepository:
    return cast(LvmRepository, lvm.open(host=host))


def meta_path(lvm: LvmStorage) -> str:
    return lvm.state.path(lvm.state.named("dwtest").volumes[layout.META].uuid)


def meta_content(lvm: LvmStorage) -> bytes:
    with open(meta_path(lvm), "rb") as file:
        return file.read()


def write_meta(lvm: LvmStorage, offset: int, data: bytes) -> None:
    with open(meta_path(lvm), "r+b") as file:
        file.seek(offset)
        file.write(data)


def header_of(lvm: LvmStorage) -> layout.MetaHeader:
    found = layout.newest_header(meta_content(lvm)[: 2 * PAGE_BYTES], "")
    assert found is not None
    return found


# -- bad sectors


@pytest.mark.parametrize("page", [0, 1])
def test_a_bad_header_page_hides_no_records(lvm, page):
    """Both pages say how long dw-meta is: else the last 64 records were gone, and the next ones written over them."""
    repository = on(lvm)
    tags = [f"{number:02x}" * 16 for number in range(1, layout.SLOTS + 3)]
    for tag in tags:
        repository.tags.publish(record(tag), 0)
    repository.close()
    write_meta(lvm, page * PAGE_BYTES, b"?" * 512)
    repository = on(lvm)
    assert set(repository.tags.scan()) == set(tags)
    repository.tags.publish(record("f" * 32), 0)
    assert set(repository.tags.scan()) == {*tags, "f" * 32}


def test_a_sector_of_the_progress_that_cannot_be_read_stops_nothing(lvm, monkeypatch):
    """A scan goes on, and so do attempts: they use another slot. What was in it is not taken for free room."""
    repository = on(lvm)
    repository.tags.publish(record(T1), 0)
    repository.progress.start(T1, 1)
    repository.progress.write(T1, 1, 1, b"one")
    bad = layout.EXCLUSIVE_GEOMETRY.line_offset(0, 0)
    real = FileHandle.read_at

    def read_at(handle: FileHandle, offset: int, length: int) -> bytes:
        if offset < bad + PAGE_BYTES and bad < offset + length and handle.size > SIZE:
            raise OSError(errno.EIO, "bad sector")
        return real(handle, offset, length)

    monkeypatch.setattr(FileHandle, "read_at", read_at)
    repository = on(lvm)
    assert set(repository.scan().tags) == {T1}
    repository.progress.start(T2, 1)
    repository.progress.write(T2, 1, 1, b"two")
    assert repository.progress.read(T2, 1) == b"two"
    assert repository.progress.read(T1, 1) is None


def test_giving_up_a_damaged_record_is_finished_after_a_crash(lvm, monkeypatch):
    """The tombstone stands beside the damaged copy then: the same fix takes that away, not nothing for ever."""
    repository = on(lvm)
    generation = repository.tags.publish(record(), repository.tags.publish(record(), 0))
    raw_meta = meta_content(lvm)
    slot = next(
        number
        for number in range(layout.SLOTS)
        if bytes.fromhex(T1)
        in raw_meta[
            layout.EXCLUSIVE_GEOMETRY.head_offset(number, 0) : layout.EXCLUSIVE_GEOMETRY.head_offset(number + 1, 0)
        ]
    )
    for copy in range(layout.EXCLUSIVE_GEOMETRY.copies):
        at = layout.EXCLUSIVE_GEOMETRY.head_offset(slot, copy)
        if raw_meta[at : at + PAGE_BYTES] != bytes(PAGE_BYTES):
            write_meta(lvm, at + 40, b"?")
    damaged = on(lvm)
    (entry,) = damaged.tags.scan().values()
    assert entry.problem and generation

    class Died(Exception):
        """The crash."""

    def die(*_: object) -> None:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(Records, "_blank_others", die)
        with pytest.raises(Died):
            damaged.tags.purge(entry.id, entry.generation)
    again = on(lvm)
    left = again.tags.read(entry.id)
    assert left is not None and is_tombstone(left.generation)
    again.tags.purge(entry.id, left.generation)
    assert all(entry.tombstone for entry in on(lvm).tags.scan().values())


# -- names


def test_an_unfinished_volume_of_records_beside_finished_ones_is_cleaned(lvm):
    """Two commands may create at once; what the second left is litter that goes like any other."""
    repository = on(lvm)
    lvm.doors().volume_groups.create("dwtest", layout.META_UNFINISHED, group_model.EXTENT_BYTES, [])
    (litter,) = repository.scan().litter
    assert (litter.kind, litter.name) == ("temporary", layout.META_UNFINISHED)
    assert repository.litter.remove([litter]) == litter.size
    assert repository.scan().litter == []


@pytest.mark.parametrize("name", ["dwold-", "dwold", "dw-meta", "dwlost-x", "", "dwv-" + V1, "../dw-new"])
def test_names_of_litter_that_are_none_are_passed_over(lvm, name):
    """They may come in a fix from another host."""
    repository = on(lvm)
    repository.volumes.make(raw(), SIZE, None)
    for kind in ("temporary", "lost", "foreign", "progress", "digest"):
        assert repository.litter.remove([Litter(kind, name, 1)]) == 0
    assert set(lvm.state.named("dwtest").volumes) == {layout.META, layout.volume_name(V1)}


def test_no_repository_is_made_over_the_data_of_one_that_lost_its_records(lvm):
    """To the new one all of that data would be garbage."""
    repository = on(lvm)
    repository.volumes.make(raw(), SIZE, None)
    repository.close()
    groups = lvm.doors().volume_groups
    groups.deactivate("dwtest", layout.META)
    groups.rename("dwtest", layout.META, "kept")
    with pytest.raises(Conflict, match=f"{layout.volume_name(V1)}.*dw-meta"):
        create_repository(FORMAT, lvm.parameters, lvm.doors())
    assert set(groups.report("dwtest").volumes) == {"kept", layout.volume_name(V1)}


# -- who manages


@pytest.mark.parametrize(("manager", "system_id"), [("", "dw-host-1"), ("host-1", ""), ("host-1", "dw-host-1")])
def test_nobody_takes_over_from_a_host_without_saying_that_it_is_dead(lvm, system_id, manager):
    """Also when the header names no manager, or when somebody took LVM's mark away."""
    write_meta(lvm, 0, sealed_header(header_of(lvm)._replace(manager=manager, sequence=8)))
    lvm.state.group = lvm.state.named("dwtest")._replace(system_id=system_id)
    other = on(lvm, "host-2")
    with pytest.raises(Refused, match="--dead"):
        other.manager.take("")
    assert lvm.state.named("dwtest").system_id == system_id
    other.manager.take(manager or system_id)
    assert lvm.state.named("dwtest").system_id == "dw-host-2"


def test_the_manager_gets_a_mark_back_that_somebody_took_away(lvm):
    """It asserts nothing: it is the one that the header names."""
    lvm.state.group = lvm.state.named("dwtest")._replace(system_id="")
    on(lvm, "host-1").manager.take("")
    assert lvm.state.named("dwtest").system_id == "dw-host-1"


def test_of_two_hosts_that_take_at_once_one_is_told_that_it_lost(lvm, monkeypatch):
    """LVM has no lock between hosts: both commands may succeed."""
    on(lvm).manager.release()
    first = on(lvm, "host-1")
    real = FileGroups.set_system_id

    def overtaken(groups: FileGroups, group: str, system_id: str, present: str) -> None:
        real(groups, group, system_id, present)
        lvm.state.group = lvm.state.named(group)._replace(system_id="dw-host-2")

    monkeypatch.setattr(FileGroups, "set_system_id", overtaken)
    with pytest.raises(Conflict, match="moment"):
        first.manager.take("")


def test_the_role_is_kept_when_a_process_began_to_use_a_volume_meanwhile(lvm, monkeypatch):
    """Between the last look and LVM's mark: that process would go on writing under the next manager."""
    manager = on(lvm)
    manager.volumes.make(raw(), SIZE, None)
    manager.activation.deactivate()
    busy = on(lvm)
    real = FileGroups.set_system_id

    def late(groups: FileGroups, group: str, system_id: str, present: str) -> None:
        if system_id == NOBODY:
            busy.volumes.layer(raw())
        real(groups, group, system_id, present)

    monkeypatch.setattr(FileGroups, "set_system_id", late)
    with pytest.raises(StorageError, match="in use"):
        manager.manager.release()
    assert lvm.state.named("dwtest").system_id == "dw-host-1"
    busy.close()


def test_a_device_that_goes_away_while_it_is_opened_is_an_operating_error(lvm, monkeypatch):
    """Another command may deactivate dw-meta between our two steps."""

    def gone(groups: FileGroups, path: str, writable: bool = False) -> Any:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)

    monkeypatch.setattr(FileGroups, "open_device", gone)
    with pytest.raises(DiskwrightError):
        open_repository(FORMAT, lvm.parameters, lvm.doors())


# -- durability


def test_what_a_volume_says_of_its_data_is_durable_before_its_end_is_cut_off(lvm, monkeypatch):
    """A killed machine's last writes may still be in the device's cache, and be lost while LVM's change is not."""
    repository = on(lvm)
    repository.volumes.make(qcow2(), SIZE, None)
    repository.activation.deactivate()
    seen: list[str] = []
    resize, sync = FileGroups.resize, FileGroups.sync

    def telling(name: str, real: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            seen.append(name)
            real(*arguments)

        return call

    monkeypatch.setattr(FileGroups, "resize", telling("resize", resize))
    monkeypatch.setattr(FileGroups, "sync", telling("sync", sync))
    assert repository.extents.reduce(qcow2())
    assert seen == ["sync", "resize", "sync"]


def test_no_data_is_cut_off_because_a_reference_count_was_lost():
    """One bad sector of counts makes data look unused; qemu-img check sees that, and the volume keeps its length."""
    world = World(format=LVM)
    world.create("a")
    world.host("one")
    driver = Driver(world)
    engine = driver.engine()
    disk = driver.create("a", 16 * MiB)
    driver.write("a", disk, 0, b"c" * (6 * MiB))
    snapshot = driver.snapshot("a", disk)
    repository = engine.context.repository("a")
    volume = changes.read(repository, snapshot).record.volume
    assert volume is not None
    header = repository.volumes.facts(volume.id, volume.format).header
    assert header is not None
    with engine.doors.volume_groups.open_device(repository.volumes.layer(volume).path, writable=True) as device:
        table = device.read_at(header.refcount_offset, PAGE_BYTES)
        device.write_at(int.from_bytes(table[:8], "big"), device.read_at(0, PAGE_BYTES)[:32].ljust(PAGE_BYTES, b"\0"))
    engine.context.deactivate()
    before = repository.volumes.facts(volume.id, volume.format)
    assert before.in_use is not None and before.in_use < 6 * MiB
    (fix,) = (fix for fix in engine.check_storage_repository("a") if fix.rule == "O-REDUCE")
    with pytest.raises(Damaged, match="corruptions"):
        engine.run_fix_here("a", fix)
    assert repository.volumes.facts(volume.id, volume.format).length == before.length


# -- what others have attached


class Attaching(FileGroups):
    """Remembers which files have devices."""

    attached: set[str]

    def attach_files(self, files: Any, sector_bytes: int, file_bytes: int = 0) -> list[str]:
        self.attached |= set(files)
        return list(files)

    def detach_files(self, files: Any) -> None:
        self.attached -= set(files)


def test_creating_where_there_is_a_repository_takes_no_device_from_it(lvm):
    """It is connected, and nobody uses it at this moment: its devices stay."""
    on(lvm)
    groups = Attaching(lvm.state)
    groups.attached = {"/f/one"}
    doors = lvm.doors()._replace(volume_groups=groups)
    with pytest.raises(Conflict, match="already"):
        create_repository(FORMAT, {"volume_group": "dwtest", "files": ["/f/one"]}, doors)
    assert groups.attached == {"/f/one"}
