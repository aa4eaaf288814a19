"""Volumes on logical volumes: no stale byte shows, no room is missing, nothing stays active."""

from __future__ import annotations

import json
import subprocess
from typing import cast

import pytest

from engine.data.amounts import human
from engine.data.model import VolumeFormat, aligned
from engine.data.records import VolumeRef
from engine.doors.images import Layer
from engine.errors import Conflict, NoSpace, StorageError
from engine.formats.lvm.metadata import layout
from engine.formats.lvm.repository import LvmRepository
from engine.tools.qemu.images import QemuImageTool
from sim.lvm import group_model
from tests.formats.kit import SIZE, T2, V1, V2, LvmStorage, qcow2, raw
from tests.formats.lvm.kit import GARBAGE

MiB = 1 << 20
EXTENT = group_model.EXTENT_BYTES


@pytest.fixture
def lvm(tmp_path) -> LvmStorage:
    """A repository on a group of files, which are full of garbage."""
    return LvmStorage(tmp_path)


@pytest.fixture
def repository(lvm) -> LvmRepository:
    return cast(LvmRepository, lvm.open())


def report(lvm: LvmStorage):
    return lvm.doors().volume_groups.report("dwtest")


def volume(lvm: LvmStorage, ref: VolumeRef):
    return report(lvm).volumes[layout.volume_name(ref.id)]


def qemu_img(*arguments: str) -> str:
    return subprocess.run(["qemu-img", *arguments], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("size", [512, 4096, 65536, 1 * MiB, 1 << 30, 5 << 30, 1 << 40, (16 << 40) - 512, 64 << 40])
def test_a_qcow2_never_needs_more_than_its_volume_has(size):
    """At least what qemu-img measure says for a full image, and hardly more."""
    measured = json.loads(qemu_img("measure", "--output=json", "-O", "qcow2", "--size", str(aligned(size))))
    room = layout.qcow2_bytes(aligned(size))
    assert measured["fully-allocated"] <= room
    assert room <= measured["fully-allocated"] * 1.001 + 4 * MiB


def test_a_qcow2_that_is_written_full_fits_its_volume(lvm, repository):
    """Every cluster in another order than on the disk, then once more over it."""
    repository.volumes.make(qcow2(), SIZE, None)
    path = repository.volumes.layer(qcow2()).path
    before = volume(lvm, qcow2()).size
    clusters = range(0, SIZE, 65536)
    orders = [list(reversed(clusters)), list(clusters)[::2] + list(clusters)[1::2]]
    commands = [part for order in orders for at in order for part in ("-c", f"write -P 7 {at} 64k")]
    subprocess.run(["qemu-io", "-f", "qcow2", *commands, path], check=True, capture_output=True)
    import os

    assert os.stat(path).st_size <= before
    qemu_img("check", "-f", "qcow2", path)


def test_a_raw_volume_is_zero_to_the_end_of_its_last_extent(lvm, repository):
    """Also behind the end of the image, which a longer overlay could show."""
    repository.volumes.make(raw(), SIZE + 1, None)
    layer = repository.volumes.layer(raw())
    assert (layer.length, layer.device) == (SIZE + 4096, True)
    with open(layer.path, "rb") as file:
        content = file.read()
    assert content == bytes(volume(lvm, raw()).size)


def test_of_a_volume_that_is_filled_only_the_end_of_its_last_extent_is_zeroed(lvm, repository):
    """The rest is written once, by whoever fills it."""
    repository.volumes.make(raw(), SIZE + 1, None, filled=True)
    layer = repository.volumes.layer(raw())
    with open(layer.path, "rb") as file:
        content = file.read()
    length = SIZE + 4096
    assert content[:length] == GARBAGE * length and content[length:] == bytes(volume(lvm, raw()).size - length)


def test_a_volume_is_looked_at_without_being_activated(lvm, repository):
    """The header of a qcow2 is read where it lies."""
    repository.volumes.make(qcow2(parent=T2), SIZE, VolumeFormat.RAW)
    repository.activation.deactivate()
    lvm.state.active.clear()
    facts = cast(LvmRepository, lvm.open()).volumes.facts(V1, VolumeFormat.QCOW2)
    assert facts.header is not None and facts.header.size == SIZE and facts.thick
    assert not volume(lvm, qcow2()).active


def test_looking_at_many_volumes_asks_lvm_once(lvm, repository):
    """One report for a scan and all volumes of it, however many there are."""
    for number in range(1, 9):
        repository.volumes.make(qcow2(f"{number:02x}" * 16), SIZE, None)
    lvm.state.commands = 0
    scan = repository.scan()
    first = lvm.state.commands
    for id, format in scan.volumes.items():
        assert repository.volumes.facts(id, format, scan.listing).present
    assert len(scan.volumes) == 8 and lvm.state.commands == first == 1


def test_tags_that_contradict_the_record_are_a_problem(lvm, repository):
    """Format and size are stated, never probed; a volume without our tags is somebody else's."""
    repository.volumes.make(raw(), SIZE, None)
    assert "its tags say raw" in repository.volumes.facts(V1, VolumeFormat.QCOW2).problem
    groups = lvm.doors().volume_groups
    groups.change_tags("dwtest", layout.volume_name(V1), ["dw.f=vmdk"], ["dw.f=raw"])
    assert "make no sense" in repository.volumes.facts(V1, VolumeFormat.RAW).problem
    groups.create("dwtest", "root", EXTENT, [])
    scan = repository.scan()
    assert [(item.kind, item.name) for item in scan.litter] == [
        ("foreign", layout.volume_name(V1)),
        ("foreign", "root"),
    ]
    assert scan.volumes == {}
    assert repository.litter.remove(scan.litter) == 0
    assert "root" in report(lvm).volumes


def test_tools_see_a_raw_volume_as_long_as_its_image_is(tmp_path):
    """Whatever is behind it on the device: maps, sessions and copies end where the image does."""
    path = tmp_path / "raw"
    path.write_bytes(b"i" * 8192 + b"?" * 8192)
    tool = QemuImageTool()
    layer = Layer(str(path), VolumeFormat.RAW, length=8192)
    assert sum(extent.length for extent in tool.map_chain([layer])) == 8192
    assert tool.required_bytes([layer], VolumeFormat.RAW) == 8192
    session = tool.open_session([layer], writable=True, direct=False)
    try:
        assert session.size == 8192
        session.write(4096, b"w" * 4096)
        session.flush()
    finally:
        session.close()
    assert path.read_bytes() == b"i" * 4096 + b"w" * 4096 + b"?" * 8192


# -- room


def test_what_does_not_fit_is_refused_before_anything_is_done(lvm, repository):
    """NoSpace tells both numbers; the group is as it was."""
    before = report(lvm).volumes.keys()
    too_much = report(lvm).free + 1
    for call in (
        lambda: repository.extents.require_room(VolumeFormat.RAW, too_much),
        lambda: repository.volumes.make(raw(), too_much, None),
    ):
        with pytest.raises(NoSpace, match=f"{human(report(lvm).free)} are free"):
            call()
    assert report(lvm).volumes.keys() == before


def test_a_metadata_area_that_is_nearly_full_is_told(lvm, repository, monkeypatch):
    """Before LVM would fail in the middle of something."""
    monkeypatch.setattr(group_model, "METADATA_BYTES", 10_000)
    with pytest.raises(NoSpace, match="metadata area"):
        repository.volumes.make(raw(), SIZE, None)


def test_a_snapshots_volume_is_reduced_to_what_is_in_use_and_extended_again(lvm, repository):
    """The data stays, the room comes back, and before it is written again it has all its room."""
    repository.volumes.make(qcow2(), 20 * MiB, None)
    path = repository.volumes.layer(qcow2()).path
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 9 0 1M", path], check=True, capture_output=True)
    repository.activation.deactivate()
    facts = repository.volumes.facts(V1, VolumeFormat.QCOW2)
    assert facts.in_use == EXTENT < facts.length
    freed = repository.extents.reduce(qcow2())
    assert (freed, volume(lvm, qcow2()).size) == (facts.length - EXTENT, EXTENT)
    assert repository.extents.reduce(qcow2()) == 0
    path = repository.volumes.layer(qcow2()).path
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "read -P 9 0 1M", path], check=True, capture_output=True)
    qemu_img("check", "-f", "qcow2", path)
    repository.extents.make_room(qcow2(), 20 * MiB)
    assert volume(lvm, qcow2()).size == facts.length


def test_a_raw_volume_grows_with_zeros(lvm, repository):
    """Its image gets longer only when what is gained reads as zeros."""
    repository.volumes.make(raw(), EXTENT - 4096, None)
    with open(repository.volumes.layer(raw()).path, "r+b") as file:
        file.write(b"x" * EXTENT)
    repository.extents.make_room(raw(), 2 * EXTENT + 4096)
    layer = repository.volumes.layer(raw())
    facts = repository.volumes.facts(V1, VolumeFormat.RAW)
    assert layer.length == facts.length == 2 * EXTENT + 4096
    with open(layer.path, "rb") as file:
        content = file.read()
    assert content == b"x" * (EXTENT - 4096) + bytes(2 * EXTENT + 4096)


def test_an_interrupted_growth_leaves_the_longer_size_or_the_shorter_one(lvm, repository):
    """Both tags at once mean the longer: it was zeroed before the tag came."""
    repository.volumes.make(raw(), EXTENT, None)
    repository.extents.make_room(raw(), 2 * EXTENT)
    lvm.doors().volume_groups.change_tags("dwtest", layout.volume_name(V1), [layout.size_tag(EXTENT)], [])
    assert repository.volumes.facts(V1, VolumeFormat.RAW).length == 2 * EXTENT


def test_what_a_machine_wrote_behind_the_end_of_its_disk_never_shows(lvm, repository):
    """A device is longer than its image; a base must not show that to a longer disk."""
    repository.volumes.make(raw(), EXTENT + 4096, None)
    with open(repository.volumes.layer(raw()).path, "r+b") as file:
        file.write(b"m" * 2 * EXTENT)
    repository.extents.freeze(raw(), lambda layer: None)
    with open(repository.volumes.layer(raw()).path, "rb") as file:
        assert file.read() == b"m" * (EXTENT + 4096) + bytes(EXTENT - 4096)


def test_a_volume_that_is_not_active_is_sealed_where_it_lies(lvm, repository, monkeypatch):
    """Its devices are flushed, and it stays as it was; one that is active is flushed itself."""
    repository.volumes.make(qcow2(), SIZE, None)
    synced: list[str] = []
    monkeypatch.setattr(type(lvm.doors().volume_groups), "sync", lambda groups, group: synced.append(group))
    settled: list[str] = []
    repository.extents.freeze(qcow2(), lambda layer: settled.append(layer.path))
    assert (synced, settled) == (["dwtest"], [])
    assert not lvm.doors().volume_groups.report("dwtest").volumes[layout.volume_name(V1)].active
    path = repository.volumes.layer(qcow2()).path
    repository.extents.freeze(qcow2(), lambda layer: settled.append(layer.path))
    assert (synced, settled) == (["dwtest"], [path])


# -- in use, or not


def test_nothing_stays_active_that_nobody_uses(lvm, repository):
    """deactivate leaves what another process of the host uses, and takes what dead ones left."""
    for id in (V1, V2):
        repository.volumes.make(raw(id), EXTENT, None)
    other = cast(LvmRepository, lvm.open())
    other.volumes.layer(raw(V2))
    repository.activation.deactivate()
    assert (volume(lvm, raw(V1)).active, volume(lvm, raw(V2)).active) == (False, True)
    other.close()
    assert not volume(lvm, raw(V2)).active
    lvm.doors().volume_groups.activate("dwtest", layout.volume_name(V1))  # by a process that was killed
    repository.activation.deactivate(every=True)
    assert not volume(lvm, raw(V1)).active


def test_a_hold_keeps_a_volume_active(lvm, repository):
    """As the process that keeps a prepared image does; nobody removes or reduces it meanwhile."""
    repository.volumes.make(qcow2(), SIZE, None)
    repository.volumes.layer(qcow2())
    hold = repository.activation.hold(qcow2(), False)
    assert hold is not None
    repository.activation.deactivate()
    assert volume(lvm, qcow2()).active
    with pytest.raises(Conflict, match="in use"):
        repository.volumes.remove(V1, VolumeFormat.QCOW2)
    with pytest.raises(Conflict, match="in use"):
        repository.extents.reduce(qcow2())
    hold.release()
    repository.activation.deactivate(every=True)
    assert not volume(lvm, qcow2()).active


def test_a_volume_that_is_open_is_not_removed_and_a_retry_works(lvm, repository):
    """An operating error, and nothing is half done."""
    repository.volumes.make(raw(), EXTENT, None)
    uuid = lvm.state.named("dwtest").volumes[layout.volume_name(V1)].uuid
    lvm.state.busy.add(uuid)
    with pytest.raises(StorageError, match="open"):
        repository.volumes.remove(V1, VolumeFormat.RAW)
    assert repository.volumes.facts(V1, VolumeFormat.RAW).present
    lvm.state.busy.clear()
    repository.volumes.remove(V1, VolumeFormat.RAW)
    assert not repository.volumes.facts(V1, VolumeFormat.RAW).present


def test_a_volume_that_is_replaced_while_open_goes_when_it_is_closed(lvm, repository):
    """It is out of the way under another name, and litter that is busy as long as somebody has it open."""
    repository.volumes.make(raw(), EXTENT, None)
    lvm.state.busy.add(lvm.state.named("dwtest").volumes[layout.volume_name(V1)].uuid)
    repository.volumes.make(raw(), EXTENT, None)
    (item,) = repository.scan().litter
    assert (item.kind, item.busy) == ("temporary", True) and layout.is_old(item.name)
    assert repository.litter.remove([item]) == 0
    lvm.state.busy.clear()
    assert repository.litter.remove([item]) == EXTENT
    assert repository.scan().litter == []
