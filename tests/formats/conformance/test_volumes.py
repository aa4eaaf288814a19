"""What every repository format must do: ``engine.formats.base.Volumes``."""

from __future__ import annotations

import json
import os
import stat
import subprocess

import pytest

from engine.data.model import VolumeFormat
from engine.errors import StorageError, Superseded
from engine.formats.base import backing_name
from tests.formats.kit import SIMULATED, SIZE, STORAGES, T1, T2, V1, V2, Storage, qcow2, raw

on_this_machine = pytest.mark.parametrize("storage", sorted(set(STORAGES) - SIMULATED), indirect=True)
"""For what is looked at with other means than the doors."""


@on_this_machine
def test_a_raw_volume_is_made_empty_and_aligned(storage: Storage):
    """make_volume: present, listed, size rounded up to the alignment, reads as zeros."""
    repository = storage.open()
    repository.volumes.make(raw(), SIZE - 100, None)
    facts = repository.volumes.facts(V1, VolumeFormat.RAW)
    assert facts.present and not facts.problem and facts.header is None
    assert facts.length == SIZE
    assert repository.scan().volumes == {V1: VolumeFormat.RAW}
    with open(repository.volumes.layer(raw()).path, "rb") as file:
        assert file.read(SIZE) == bytes(SIZE)


@on_this_machine
def test_a_qcow2_volume_is_what_qemu_understands(storage: Storage):
    """A qcow2 has the aligned virtual size, passes qemu-img check, and names its parent's tag only."""
    repository = storage.open()
    repository.volumes.make(qcow2(parent=T2), SIZE - 5, VolumeFormat.RAW)
    facts = repository.volumes.facts(V1, VolumeFormat.QCOW2)
    assert facts.present and not facts.problem and facts.header is not None
    assert (facts.header.size, facts.backing_name) == (SIZE, backing_name(T2))
    assert facts.header.backing_format == "raw"
    path = repository.volumes.layer(qcow2()).path
    info = json.loads(_qemu_img("info", "--output=json", path))
    assert (info["virtual-size"], info["backing-filename"]) == (SIZE, backing_name(T2))
    assert info["backing-filename-format"] == "raw"
    driver = "host_device" if stat.S_ISBLK(os.stat(path).st_mode) else "file"
    alone = {"driver": "qcow2", "backing": None, "file": {"driver": driver, "filename": path}}
    _qemu_img("check", f"json:{json.dumps(alone)}")


@pytest.mark.no_kernel
@on_this_machine
def test_a_qcow2_without_parent_has_no_backing(storage: Storage):
    """No parent, no backing name, whatever backing format is given."""
    repository = storage.open()
    repository.volumes.make(qcow2(), SIZE, VolumeFormat.QCOW2)
    facts = repository.volumes.facts(V1, VolumeFormat.QCOW2)
    assert facts.header is not None and facts.backing_name is None
    _qemu_img("check", "-f", "qcow2", repository.volumes.layer(qcow2()).path)


@on_this_machine
def test_an_unfinished_volume_is_replaced(storage: Storage):
    """make_volume of a name that is there makes it empty again."""
    repository = storage.open()
    repository.volumes.make(raw(), SIZE, None)
    with open(repository.volumes.layer(raw()).path, "r+b", buffering=0) as old:
        old.write(b"half a copy")
    repository.volumes.make(raw(), 2 * SIZE, None)
    with open(repository.volumes.layer(raw()).path, "rb") as new:
        assert new.read(11) == bytes(11)
    assert repository.volumes.facts(V1, VolumeFormat.RAW).length == 2 * SIZE


@pytest.mark.no_kernel
def test_an_absent_volume_is_known_to_be_absent(storage: Storage):
    """volume_facts says present=False, not unreadable; layer refuses."""
    repository = storage.open()
    facts = repository.volumes.facts(V1, VolumeFormat.QCOW2)
    assert (facts.present, facts.unreadable, facts.problem) == (False, False, "")
    with pytest.raises(StorageError, match=V1):
        repository.volumes.layer(qcow2())


@on_this_machine
def test_a_qcow2_that_is_none_has_a_problem(storage: Storage):
    """Bytes that are no qcow2 header are a problem and not a reading error."""
    repository = storage.open()
    repository.volumes.make(qcow2(), SIZE, None)
    with open(repository.volumes.layer(qcow2()).path, "r+b") as file:
        file.write(b"garbage")
    facts = repository.volumes.facts(V1, VolumeFormat.QCOW2)
    assert facts.present and facts.problem and facts.header is None and not facts.unreadable


def test_removing_a_volume_can_be_repeated(storage: Storage):
    """remove_volume frees it; again, and of one that never was, is a success."""
    repository = storage.open()
    repository.volumes.make(raw(), SIZE, None)
    for volume in (V1, V1, V2):
        repository.volumes.remove(volume, VolumeFormat.RAW)
    assert repository.scan().volumes == {}
    assert not repository.volumes.facts(V1, VolumeFormat.RAW).present


@on_this_machine
def test_a_quarantined_volume_is_litter_with_its_data(storage: Storage):
    """quarantine_volume takes it out of the volumes; it is "lost" litter until that is removed."""
    repository = storage.open()
    repository.volumes.make(raw(), SIZE, None)
    with open(repository.volumes.layer(raw()).path, "r+b") as file:
        file.write(b"x" * 65536)
    for _ in range(2):
        repository.volumes.quarantine(V1, VolumeFormat.RAW)
    scan = repository.scan()
    assert scan.volumes == {}
    assert [(item.kind, item.busy) for item in scan.litter] == [("lost", False)]
    assert repository.litter.remove(scan.litter) >= 65536
    assert repository.scan().litter == []


def test_a_listing_tells_what_a_look_tells(storage: Storage):
    """For several volumes one listing is enough, and none of it is invented."""
    repository = storage.open()
    repository.volumes.make(raw(), SIZE, None)
    repository.volumes.make(qcow2(V2), SIZE, None)
    listing = repository.volumes.listing()
    for volume, format in ((V1, VolumeFormat.RAW), (V2, VolumeFormat.QCOW2), (T1, VolumeFormat.RAW)):
        facts = repository.volumes.facts(volume, format, listing)
        assert facts == repository.volumes.facts(volume, format)
        assert facts.present == (volume != T1)


@pytest.mark.no_kernel
def test_a_volume_that_is_not_the_callers_any_more_is_left(storage: Storage):
    """What ``verify`` raises comes through, and nothing was overwritten."""
    repository = storage.open()
    repository.volumes.make(raw(), SIZE, None)

    def superseded() -> None:
        raise Superseded("made up: another attempt has it")

    with pytest.raises(Superseded, match="made up"):
        repository.volumes.make(raw(), 2 * SIZE, None, superseded)
    facts = repository.volumes.facts(V1, VolumeFormat.RAW)
    assert (facts.present, facts.length) == (True, SIZE)


@pytest.mark.no_kernel
def test_nobody_else_may_write_to_a_new_volume(storage: Storage):
    """No host is said to be late with a volume that this one made."""
    repository = storage.open()
    repository.volumes.make(raw(), SIZE, None)
    assert storage.open().volumes.late_writer(raw()) == ""


def _qemu_img(*arguments: str) -> str:
    return subprocess.run(["qemu-img", *arguments], capture_output=True, text=True, check=True).stdout
