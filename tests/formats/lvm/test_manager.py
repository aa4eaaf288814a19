"""One host manages a group: LVM's system ID decides, the others may look, and nothing is written but by that host."""

from __future__ import annotations

from typing import cast

import pytest

from engine.data.model import VolumeFormat
from engine.errors import BadRequest, Conflict, Damaged, NotFound, Refused, StorageError
from engine.formats.lvm.group import NOBODY
from engine.formats.lvm.metadata import layout
from engine.formats.lvm.metadata.area import sealed_header
from engine.formats.lvm.repository import LvmRepository
from engine.formats.registry import create_repository, detach_repository, open_repository
from sim.lvm import group_model
from tests.formats.kit import SIZE, T1, T2, V1, LvmStorage, qcow2, raw, record
from tests.formats.lvm.kit import FileGroups

FORMAT = "lvm-1.0"


@pytest.fixture
def lvm(tmp_path) -> LvmStorage:
    """A repository on a group of files, made and managed by host-1."""
    return LvmStorage(tmp_path)


def on(lvm: LvmStorage, host: str) -> LvmRepository:
    return cast(LvmRepository, lvm.open(host=host))


def meta_content(lvm: LvmStorage) -> bytes:
    group = lvm.state.named("dwtest")
    with open(lvm.state.path(group.volumes[layout.META].uuid), "rb") as file:
        return file.read()


def write_meta(lvm: LvmStorage, offset: int, data: bytes) -> None:
    group = lvm.state.named("dwtest")
    with open(lvm.state.path(group.volumes[layout.META].uuid), "r+b") as file:
        file.seek(offset)
        file.write(data)


# -- the manager


def test_another_host_sees_everything_and_changes_nothing(lvm):
    """It reads records and headers where they lie; every change is refused naming the manager, and nothing written."""
    manager = on(lvm, "host-1")
    generation = manager.tags.publish(record(volume=qcow2()), 0)
    manager.volumes.make(qcow2(), SIZE, None)
    manager.activation.deactivate()
    other = on(lvm, "host-2")
    assert other.scan().tags == manager.scan().tags
    assert other.volumes.facts(V1, VolumeFormat.QCOW2).header is not None
    assert (other.manager.host(), other.space()) == ("host-1", manager.space())
    before, group = meta_content(lvm), lvm.state.group
    changes = [
        lambda: other.tags.publish(record(epoch=2), generation),
        lambda: other.tags.purge(T1, generation),
        lambda: other.volumes.make(raw(), SIZE, None),
        lambda: other.volumes.remove(V1, VolumeFormat.QCOW2),
        lambda: other.volumes.quarantine(V1, VolumeFormat.QCOW2),
        lambda: other.extents.make_room(qcow2(), 2 * SIZE),
        lambda: other.extents.reduce(qcow2()),
        lambda: other.volumes.layer(qcow2()),
        lambda: other.progress.start(T1, 1),
        lambda: other.extents.require_room(VolumeFormat.RAW, SIZE),
        other.manager.release,
    ]
    for change in changes:
        with pytest.raises(Refused, match="managed by host host-1"):
            change()
    assert (meta_content(lvm), lvm.state.group) == (before, group)


def test_taking_over_needs_the_assertion_that_the_manager_is_dead(lvm):
    """Without it, or with another name, it is refused naming the manager."""
    other = on(lvm, "host-2")
    for dead in ("", "host-3"):
        with pytest.raises(Refused, match=r"host host-1 manages.*--dead host-1"):
            other.manager.take(dead)
    other.manager.take("host-1")
    assert (other.manager.host(), on(lvm, "host-1").manager.host()) == ("host-2", "host-2")
    other.tags.publish(record(), 0)
    with pytest.raises(Refused, match="host-2"):
        on(lvm, "host-1").tags.publish(record(T2), 0)


def test_the_manager_before_finds_out_at_its_next_change(lvm):
    """Also one whose devices were open: the header tells it."""
    manager = on(lvm, "host-1")
    generation = manager.tags.publish(record(), 0)
    on(lvm, "host-2").manager.take("host-1")
    with pytest.raises(Refused, match="host-2"):
        manager.tags.publish(record(epoch=2), generation)


def test_a_take_over_that_was_interrupted_is_finished_by_the_next_change(lvm):
    """LVM's mark is the seal; the header follows."""
    on(lvm, "host-1").tags.publish(record(), 0)
    FileGroups(lvm.state, "host-2").set_system_id("dwtest", "dw-host-2", "dw-host-1")
    other = on(lvm, "host-2")
    assert other.manager.host() == "host-2"
    other.tags.publish(record(T2), 0)
    assert layout.newest_header(meta_content(lvm), "").manager == "host-2"  # type: ignore[union-attr]


def test_taking_what_one_has_is_a_success(lvm):
    """And changes nothing."""
    manager = on(lvm, "host-1")
    before = meta_content(lvm)
    manager.manager.take("")
    assert meta_content(lvm) == before


def test_a_role_that_was_given_up_can_be_taken_by_anybody(lvm):
    """In between nobody can change anything, and LVM lets no host use the group."""
    manager = on(lvm, "host-1")
    manager.volumes.make(raw(), SIZE, None)
    manager.volumes.layer(raw())
    manager.manager.release()
    assert lvm.state.named("dwtest").system_id == NOBODY and not lvm.state.active
    for host in ("host-1", "host-2"):
        assert on(lvm, host).manager.host() == ""
        with pytest.raises(Refused, match="nobody"):
            on(lvm, host).tags.publish(record(), 0)
    on(lvm, "host-2").manager.take("")
    on(lvm, "host-2").tags.publish(record(), 0)


def test_the_role_is_not_given_up_while_a_volume_is_in_use(lvm):
    """Nothing has changed then."""
    manager = on(lvm, "host-1")
    manager.volumes.make(raw(), SIZE, None)
    hold = manager.activation.hold(raw(), True)
    assert hold is not None
    manager.volumes.layer(raw())
    with pytest.raises(StorageError, match="in use"):
        manager.manager.release()
    hold.release()
    assert manager.manager.host() == "host-1"


# -- creating, opening, leaving


def test_detaching_leaves_nothing_active(lvm):
    """Neither volumes that a dead process left nor dw-meta; again, and without the group, it is a success."""
    repository = on(lvm, "host-1")
    repository.volumes.make(raw(), SIZE, None)
    repository.volumes.layer(raw())
    repository.digests.write(V1, b"x")
    repository.close()
    lvm.doors().volume_groups.activate("dwtest", layout.volume_name(V1))
    for _ in range(2):
        detach_repository(FORMAT, lvm.parameters, lvm.doors())
        assert not lvm.state.active
    lvm.state.group = None
    detach_repository(FORMAT, lvm.parameters, lvm.doors())


def test_a_host_that_lost_the_group_leaves_nothing_active_either(lvm):
    """Declared dead by mistake: nobody but itself can take its devices away."""
    repository = on(lvm, "host-1")
    repository.volumes.make(raw(), SIZE, None)
    repository.volumes.layer(raw())
    on(lvm, "host-2").manager.take("host-1")
    with pytest.raises(StorageError, match="in use on this host"):
        detach_repository(FORMAT, lvm.parameters, lvm.doors())
    repository.close()
    lvm.state.active.add("uuid-dwtest-99")  # of a volume that host-2 removed meanwhile
    detach_repository(FORMAT, lvm.parameters, lvm.doors())
    assert not lvm.state.active


def test_detaching_is_refused_while_a_volume_is_in_use(lvm):
    """As an operating error."""
    repository = on(lvm, "host-1")
    repository.volumes.make(raw(), SIZE, None)
    repository.volumes.layer(raw())
    with pytest.raises(StorageError, match="in use on this host"):
        detach_repository(FORMAT, lvm.parameters, lvm.doors())
    repository.close()
    detach_repository(FORMAT, lvm.parameters, lvm.doors())


def test_a_second_repository_in_a_group_is_a_conflict(lvm):
    """What is there stays."""
    before = meta_content(lvm)
    with pytest.raises(Conflict, match="already"):
        create_repository(FORMAT, lvm.parameters, lvm.doors())
    assert meta_content(lvm) == before


def test_an_interrupted_creation_is_no_repository_and_can_be_completed(lvm):
    """Also when the garbage below it is an older repository: its header never counts."""
    repository = on(lvm, "host-1")
    repository.tags.publish(record(), 0)
    old = repository.identity
    lvm.doors().volume_groups.rename("dwtest", layout.META, layout.META_UNFINISHED)
    with pytest.raises(NotFound, match="create it again"):
        lvm.open()
    create_repository(FORMAT, lvm.parameters, lvm.doors())
    fresh = on(lvm, "host-1")
    assert fresh.identity != old and fresh.scan().tags == {}


def test_a_group_with_volumes_of_others_that_belongs_to_no_host_is_not_taken(tmp_path):
    """Its volumes could not be used by anybody else any more, after a boot not even here."""
    storage = LvmStorage(tmp_path)
    groups = storage.doors().volume_groups
    for name in list(groups.report("dwtest").volumes):
        groups.remove("dwtest", name)
    groups.create("dwtest", "root", group_model.EXTENT_BYTES, [])
    groups.set_system_id("dwtest", "", groups.system_id)
    with pytest.raises(Refused, match="'root'"):
        create_repository(FORMAT, storage.parameters, storage.doors())
    groups.set_system_id("dwtest", "dw-host-9", "")
    with pytest.raises(Refused, match="host-9"):
        create_repository(FORMAT, storage.parameters, storage.doors())
    assert set(groups.report("dwtest").volumes) == {"root"}


def test_no_group_and_no_devices(lvm):
    """NotFound says what to give."""
    with pytest.raises(NotFound, match="devices or files"):
        create_repository(FORMAT, {"volume_group": "other"}, lvm.doors())
    with pytest.raises(NotFound):
        open_repository(FORMAT, {"volume_group": "other"}, lvm.doors())


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({}, "needs the parameter volume_group"),
        ({"volume_group": ""}, "volume_group"),
        ({"volume_group": 7}, "volume_group"),
        ({"volume_group": "g", "path": "/x"}, "no parameter 'path'"),
        ({"volume_group": "g", "devices": "sdb"}, "not absolute"),
        ({"volume_group": "g", "devices": 3}, "list of paths"),
        ({"volume_group": "g", "devices": "/dev/a", "files": "/b"}, "together"),
        ({"volume_group": "g", "file_bytes": "-1"}, "number of bytes"),
        ({"volume_group": "g", "file_bytes": True}, "number of bytes"),
        ({"volume_group": "g", "sector_bytes": "1024"}, "neither 512 nor 4096"),
        ({"volume_group": "g", "exclusive": "false"}, "either shared or exclusive"),
        ({"volume_group": "g", "exclusive": True, "shared": True}, "either shared or exclusive"),
        ({"volume_group": "g", "shared": "maybe"}, "neither true nor false"),
        ({"volume_group": "g", "hosts": 3}, "that hosts share"),
        ({"volume_group": "g", "shared": True, "hosts": "65"}, "2 to 64"),
        ({"volume_group": "g", "shared": True, "hosts": 1}, "2 to 64"),
    ],
)
def test_parameters_that_cannot_be_right(lvm, parameters, words):
    """BadRequest names what is wrong; nothing was touched."""
    for call in (create_repository, open_repository, detach_repository):
        with pytest.raises(BadRequest, match=words):
            call(FORMAT, parameters, lvm.doors())


@pytest.mark.parametrize(("version", "error"), [("1.9", None), ("2.0", Refused), ("0.9", Refused)])
def test_the_version_on_disk_decides(lvm, version, error):
    """A newer minor is accepted, another major is refused untouched."""
    on(lvm, "host-1").close()
    header = layout.newest_header(meta_content(lvm), "")
    assert header is not None
    write_meta(lvm, 0, sealed_header(header._replace(version=version)))
    before = meta_content(lvm)
    if error is None:
        assert lvm.open().format == "lvm-1.9"
    else:
        with pytest.raises(error, match=version):
            lvm.open()
    assert meta_content(lvm) == before


@pytest.mark.parametrize("damage", [b"\0" * 8192, b"\xff" * 8192, b"{" * 8192])
def test_a_header_that_makes_no_sense_is_damage_and_nothing_is_overwritten(lvm, damage):
    """Whatever stands there."""
    on(lvm, "host-1").close()
    write_meta(lvm, 0, damage)
    before = meta_content(lvm)
    with pytest.raises(Damaged):
        lvm.open()
    assert meta_content(lvm) == before


@pytest.mark.parametrize("page", [0, 1])
def test_a_new_repository_has_two_headers(lvm, page):
    """One of them may be damaged before anything was ever changed; clean writes it anew. Found so: it had one, and a
    flipped bit made all records unreadable."""
    on(lvm, "host-1").close()
    write_meta(lvm, page * 4096, b"{" * 600)
    repository = on(lvm, "host-1")
    litter = [item for item in repository.scan().litter if item.kind == "temporary"]
    assert len(litter) == 1
    repository.litter.remove(litter)
    assert repository.scan().litter == []


def test_a_header_that_promises_more_than_there_is_is_damage(lvm):
    """Not a quarter of a million records that cannot be read."""
    header = on(lvm, "host-1")._meta.header()
    write_meta(lvm, 0, sealed_header(header._replace(chunks=layout.MAX_CHUNKS, sequence=9)))
    for host in ("host-1", "host-2"):
        with pytest.raises(Damaged, match="shorter than it says"):
            on(lvm, host)


def test_records_that_another_process_made_room_for_are_seen(lvm):
    """A handle that was open before the volume of the records grew reads the new part."""
    early, late = on(lvm, "host-1"), on(lvm, "host-1")
    tags = [f"{number:02x}" * 16 for number in range(1, layout.SLOTS + 2)]
    for tag in tags:
        late.tags.publish(record(tag), 0)
    assert set(early.tags.scan()) == set(tags)


def test_a_torn_header_leaves_the_one_before(lvm):
    """They are written in turns."""
    repository = on(lvm, "host-1")
    before = meta_content(lvm)
    repository._meta.write_header(repository._meta.header()._replace(chunks=1))
    write_meta(lvm, 4096, before[4096:4608])
    assert lvm.open().identity == repository.identity
    write_meta(lvm, 4096, b"?")
    assert lvm.open().identity == repository.identity


def test_a_group_without_one_of_its_devices_takes_no_changes(lvm, monkeypatch):
    """StorageError, before anything is done."""
    repository = on(lvm, "host-1")
    real = FileGroups.report
    monkeypatch.setattr(FileGroups, "report", lambda groups, name: real(groups, name)._replace(partial=True))
    with pytest.raises(StorageError, match="missing"):
        repository.volumes.make(raw(), SIZE, None)
    assert not repository.volumes.facts(V1, VolumeFormat.RAW).present
