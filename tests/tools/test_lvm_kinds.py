"""Volumes that are not linear, as LVM reports them, and an audit of a group that has some."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

from engine.audit.audit import audit
from engine.audit.group_tree import GroupTree
from engine.tools.block.device import DirectBlockHandle
from engine.tools.lvm.volume_groups import LvmVolumeGroups
from engine.tools.qemu.qcow2 import fresh_image
from tests.tools.lvm_kit import lvm, write_pieces

LINEAR = 'type = "striped"\nstripe_count = 1\nstripes = ["pv0", {}]'
THIN = 'type = "thin"\nthin_pool = "pool"\ntransaction_id = 0\ndevice_id = {}'
RAID = 'type = "raid1"\ndevice_count = 2\nregion_size = 64\nraids = ["r_rmeta_0","r_rimage_0","r_rmeta_1","r_rimage_1"]'
POOL = 'type = "thin-pool"\nmetadata = "pool_tmeta"\npool = "pool_tdata"\ntransaction_id = 0\nchunk_size = 128'
VOLUMES = {
    "base": LINEAR.format(0), "snap": LINEAR.format(1), "top": LINEAR.format(2),
    "snapshot0": 'type = "snapshot"\nchunk_size = 8\norigin = "base"\ncow_store = "snap"',
    "pool_tdata": LINEAR.format(3), "pool_tmeta": LINEAR.format(4), "pool": POOL,
    "thin": THIN.format(1), "copy": THIN.format(2) + '\norigin = "thin"',
    **{f"r_{part}": LINEAR.format(at) for at, part in enumerate(("rimage_0", "rimage_1", "rmeta_0", "rmeta_1"), 5)},
    "r": RAID,
}  # fmt: skip


def put(directory: Path, group: str, system_id: str) -> None:
    """Give an empty group these volumes, in one command: without device-mapper LVM makes linear ones alone."""
    backup = directory / "backup"
    lvm(directory, "vgcfgbackup", "-f", str(backup), group, system_id=system_id)
    text = ""
    for number, (name, segment) in enumerate(VOLUMES.items()):
        visible = "" if "_" in name else ', "VISIBLE"'
        writable = "" if name == "base" else ', "WRITE"'
        text += (
            f'{name} {{\nid = "{number:06d}-0000-0000-0000-0000-0000-000000"\nstatus = ["READ"{writable}{visible}]\n'
            f"segment_count = 1\nsegment1 {{\nstart_extent = 0\nextent_count = 1\n{segment}\n}}\n}}\n"
        )
    after_devices = r"(\n\tphysical_volumes \{.*?\n\t\}\n)"
    changed = re.sub(after_devices, rf"\1logical_volumes {{\n{text}}}\n", backup.read_text(), flags=re.DOTALL)
    backup.write_text(changed)
    lvm(directory, "vgcfgrestore", "--force", "-f", str(backup), group, system_id=system_id)


def test_only_what_is_linear_lies_on_the_devices(bench, door, group):
    """A snapshot's segments are linear too, and are not its content: it has no ranges. An audit reads the others where
    they lie, and says of each that it cannot read what that one is."""
    put(bench.directory, "g", door.system_id)
    lvm(bench.directory, "vgchange", "--addtag", "t", "--addtag", "u=1", "g", system_id=door.system_id)
    found = door.report("g")
    assert {name: (one.kind, one.origin, len(one.ranges)) for name, one in found.volumes.items()} == {
        "base": ("linear", "", 1), "snap": ("linear", "base", 0), "top": ("linear", "", 1), "r": ("raid1", "", 0),
        "thin": ("thin", "", 0), "copy": ("thin", "thin", 0), "pool": ("thin-pool", "", 0),
    }  # fmt: skip
    assert found.tags == {"t", "u=1"} and [name for name, one in found.volumes.items() if one.read_only] == ["base"]
    (place,) = found.volumes["top"].ranges
    with closing(DirectBlockHandle(place.device, writable=True)) as device:
        write_pieces(device, fresh_image(1 << 20, "/dev/g/base", "raw").pieces, place.start)
    with closing(GroupTree(LvmVolumeGroups("host-b"), "g")) as tree:
        report = audit([tree])
    assert {image.path: image.parent for image in report.images if not image.rule.startswith("A-READ")} == {
        "/dev/g/base": "", "/dev/g/top": "/dev/g/base",
    }  # fmt: skip
    reasons = {finding.path: finding.reason for finding in report.findings if finding.rule == "A-READ"}
    assert {path.removeprefix("/dev/g/"): reason.rpartition(" active and ")[2] for path, reason in reasons.items()} == {
        "snap": "is a snapshot of base", "copy": "is a snapshot of thin", "thin": "is not linear (thin)",
        "r": "is not linear (raid1)",
    }  # fmt: skip
