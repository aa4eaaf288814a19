"""A directory storage of Proxmox VE with linked clones and chains of snapshots: who owns what is understood."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.audit import rules
from tests.audit.kit import Looked, image, look, raw

STORAGES = "dir: local\n\tpath {path}\n\tcontent images,iso\n\nrbd: ceph\n\tpool vms\n"
MACHINE = """\
#a machine
boot: order=scsi0
scsi0: local:100/vm-100-disk-0.qcow2,size=8M
scsi1: ceph:vm-100-disk-9,size=8M
efidisk0: local:100/vm-100-disk-1.raw,size=528K
ide2: local:iso/setup.iso,media=cdrom
unused0: local:100/vm-100-disk-2.qcow2
args: -drive file=/srv/x,if=none

[before]
scsi0: local:100/vm-100-disk-0.qcow2,size=8M
vmstate: local:100/vm-100-state-before.raw
"""
CLONE = "scsi0: local:9000/base-9000-disk-0.qcow2/101/vm-101-disk-0.qcow2,size=8M\n"


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("pve")
    store, etc = top / "vz", top / "pve"
    for path in ("images/100", "images/101", "images/102", "images/9000", "template/iso", "dump"):
        (store / path).mkdir(parents=True)
    (etc / "nodes/a/qemu-server").mkdir(parents=True)
    images = store / "images"
    image(images / "9000/base-9000-disk-0.qcow2")
    image(images / "101/vm-101-disk-0.qcow2", "../9000/base-9000-disk-0.qcow2")
    image(images / "100/snap-before-vm-100-disk-0.qcow2")
    image(images / "100/snap_vm-100-disk-0_later.qcow2", "snap-before-vm-100-disk-0.qcow2")
    image(images / "100/vm-100-disk-0.qcow2", "snap_vm-100-disk-0_later.qcow2")
    raw(images / "100/vm-100-disk-1.raw")
    image(images / "100/vm-100-disk-2.qcow2")
    raw(images / "100/vm-100-state-before.raw")
    image(images / "100/vm-100-disk-3.qcow2")
    image(images / "102/vm-102-disk-0.qcow2", "../9000/base-9001-disk-0.qcow2")
    raw(store / "template/iso/setup.iso")
    raw(store / "dump/vzdump-qemu-100.vma.zst")
    (etc / "storage.cfg").write_text(STORAGES.format(path=store), encoding="utf-8")
    (etc / "nodes/a/qemu-server/100.conf").write_text(MACHINE, encoding="utf-8")
    (etc / "nodes/a/qemu-server/101.conf").write_text(CLONE, encoding="utf-8")
    return top


def of(storage: Path, *vms: Path) -> Looked:
    return look([storage / "vz"], vms, top=storage / "vz" / "images")


def test_every_planted_defect_is_found(storage: Path):
    """A clone without its base is broken; nothing is wrong with chains of snapshots, clones and what is unused."""
    found = of(storage, storage / "pve")
    assert found.report.places == ((f"{storage}/vz", "proxmox"),)
    assert found.rules(rules.A_ORPHAN) == {"102/vm-102-disk-0.qcow2": {rules.A_PARENT}}
    assert found.report.others == {"backup": 1, "medium": 1, "memory": 1}


def test_only_what_no_machine_has_is_an_orphan(storage: Path):
    """The configurations of the cluster name all that is needed; the command is Proxmox's own, by machine."""
    found = of(storage, storage / "pve")
    assert found.files(rules.A_ORPHAN) == {"100/vm-100-disk-3.qcow2", "102/vm-102-disk-0.qcow2"}
    commands = {one.command for one in found.report.findings if one.rule == rules.A_ORPHAN}
    assert ("qm", "disk", "rescan", "--vmid", "100") in commands
    assert not of(storage).files(rules.A_ORPHAN)


def test_a_machine_whose_storage_is_not_defined_is_still_understood(storage: Path):
    """Without storage.cfg a volume is known by its name, on whatever storage."""
    alone = of(storage, storage / "pve" / "nodes")
    assert alone.files(rules.A_ORPHAN) == of(storage, storage / "pve").files(rules.A_ORPHAN)
