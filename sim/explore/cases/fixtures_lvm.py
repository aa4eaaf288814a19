"""Scenes that look different where volumes are logical ones: damage and leftovers made by hand."""

from __future__ import annotations

from collections.abc import Callable

from engine.data.model import VolumeFormat
from engine.doors.volume_groups import BlockHandle
from engine.formats.lvm.metadata import layout
from engine.tags import changes
from sim.disk.content import Content
from sim.explore.cases import fixtures
from sim.explore.cases.driver import KiB, MiB, Stage
from sim.explore.cases.fixtures import ODD, SIZE, data, disk, hurt

_STRANGE = "0f" * 16


def a_large_snapshot(stage: Stage) -> None:
    """A snapshot of a disk whose volume had room for much more than is in it."""
    stage.named["disk"] = stage.create("a", 16 * MiB, user_data={"name": "disk"})
    stage.write("a", disk(stage), 0, data(1))
    stage.write("a", disk(stage), 5 * MiB, data(2))
    stage.named["snapshot"] = stage.snapshot("a", disk(stage), {"of": "disk"})


def a_reduced_snapshot_with_a_larger_one(stage: Stage) -> None:
    """Reduced, and then removed, with the disk on it: the merge goes down and needs room again."""
    a_large_snapshot(stage)
    stage.fix("a", "O-REDUCE")
    stage.write("a", disk(stage), 9 * MiB, data(3))
    stage.remove("a", stage.named["snapshot"])


def a_raw_copy_with_windows(stage: Stage) -> None:
    """A raw copy that takes several checkpoints, of an image with holes of less and of more than a chunk."""
    stage.named["disk"] = stage.create("a", 6 * MiB)
    for number, offset in enumerate((128 * KiB, MiB, 4 * MiB)):
        stage.write("a", disk(stage), offset, data(4 + number))
    stage.named["snapshot"] = stage.snapshot("a", disk(stage))
    stage.copy(("a", stage.named["snapshot"]), "b", strategy="performance", auto_fix=False)


def a_shortened_disk(stage: Stage) -> None:
    """The end of a raw disk is gone: somebody has reduced its volume."""
    stage.named["disk"] = stage.create("a", 6 * MiB, strategy="performance")
    stage.write("a", disk(stage), 0, data(1))
    stage.write("a", disk(stage), 5 * MiB, data(2))
    stage.engine().doors.volume_groups.resize("a", layout.volume_name(_volume(stage)), 4 * MiB)
    stage.engine().doors.volume_groups.sync("a")
    hurt(stage, "a", disk(stage), 4 * MiB, 2 * MiB)


def a_salvaged_disk(stage: Stage) -> None:
    """The same after salvage."""
    a_shortened_disk(stage)
    stage.fix("a", "B-SALVAGE")


def a_strange_volume(stage: Stage) -> None:
    """A volume that no record names."""
    fixtures.a_disk(stage)
    groups = stage.engine().doors.volume_groups
    name = layout.volume_name(_STRANGE)
    groups.create("a", name, 4 * KiB, layout.volume_tags(VolumeFormat.RAW, 4 * KiB))
    path = groups.activate("a", name)
    with groups.open_device(path, writable=True) as device:
        device.zero(0, 4 * MiB)
        device.write_at(0, data(1))
        device.sync()
    groups.deactivate("a", name)
    groups.sync("a")
    stage.models = (stage.model.stray(_STRANGE, Content(0, ()).write(0, data(1))),)


def a_volume_in_quarantine(stage: Stage) -> None:
    """The same, moved to where it waits for a decision."""
    a_strange_volume(stage)
    stage.fix("a", "C-UNNAMED")


def a_damaged_record(stage: Stage) -> None:
    """The newest copy of the record of a disk is damaged; nothing depends on it."""
    fixtures.a_disk(stage)
    stage.named["second"] = stage.create("a", SIZE)
    with _meta(stage) as device:
        for slot in range(layout.SLOTS):
            heads = device.read_at(layout.EXCLUSIVE_GEOMETRY.head_offset(slot, 0), layout.EXCLUSIVE_GEOMETRY.slot_bytes)
            if bytes.fromhex(disk(stage)) in heads:
                for copy in range(layout.EXCLUSIVE_GEOMETRY.copies):
                    offset = layout.EXCLUSIVE_GEOMETRY.head_offset(slot, copy)
                    page = bytearray(device.read_at(offset, 4 * KiB))
                    if any(page):
                        page[600] ^= 0xFF  # not in the sector that tells whose it is
                        device.write_at(offset, bytes(page))
        device.sync()
    hurt(stage, "a", disk(stage), 0, ODD)


def leftovers_of_all_kinds(stage: Stage) -> None:
    """Progress and digests of nobody, and a volume that was replaced while it was open."""
    fixtures.a_disk(stage)
    repository = stage.engine().context.repository("a")
    repository.start_progress(disk(stage), 99)
    repository.write_digests("cd" * 16, b"left")
    groups = stage.engine().doors.volume_groups
    groups.create("a", layout.old_name(_STRANGE, "0" * 8), 4 * KiB, layout.volume_tags(VolumeFormat.RAW, 4 * KiB))
    groups.sync("a")


def leaked_clusters(stage: Stage) -> None:
    """A cluster of the disk's volume has a reference count and nobody refers to it."""
    fixtures.a_disk(stage)
    with fixtures.volume_file(stage, "a", disk(stage)) as handle:
        table = int.from_bytes(handle.read_at(int.from_bytes(handle.read_at(48, 8), "big"), 8), "big")
        counts = handle.read_at(table, 64 * KiB)
        used = -(-len(counts.rstrip(b"\0")) // 2)
        handle.write_at(table + 2 * used, b"\0\1")
        handle.sync()


def _volume(stage: Stage) -> str:
    volume = changes.read(stage.engine().context.repository("a"), disk(stage)).record.volume
    assert volume is not None
    return volume.id


def _meta(stage: Stage) -> BlockHandle:
    groups = stage.engine().doors.volume_groups
    return groups.open_device(groups.activate("a", layout.META), writable=True)


INSTEAD: dict[Callable[[Stage], object], Callable[[Stage], object]] = {
    fixtures.a_shortened_disk: a_shortened_disk,
    fixtures.a_salvaged_disk: a_salvaged_disk,
    fixtures.a_strange_volume: a_strange_volume,
    fixtures.a_volume_in_quarantine: a_volume_in_quarantine,
    fixtures.a_damaged_record: a_damaged_record,
    fixtures.litter_of_all_kinds: leftovers_of_all_kinds,
    fixtures.leaked_clusters: leaked_clusters,
}
"""What to prepare on logical volumes instead."""
