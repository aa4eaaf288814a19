"""Volume groups of anybody: each logical volume an image, read where it lies; nothing is activated or written."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.audit import rules
from engine.data.model import Status, VolumeFormat
from engine.doors.images import CheckReport, Layer
from engine.formats.lvm.metadata.layout import volume_tags
from tests.audit.groups_kit import EXTENT, Lvm
from tests.audit.kit import MIB, disk, domain, image, raw

EXT4 = bytes(0x438) + b"\x53\xef"


@pytest.fixture
def lvm() -> Lvm:
    return Lvm()


@pytest.fixture
def vms(tmp_path: Path) -> Path:
    (tmp_path / "vms").mkdir()
    return tmp_path / "vms"


def test_every_planted_defect_is_found_and_nothing_else(lvm: Lvm):
    """Chains by each name that a device of a volume has, in order; each defect with the volume that has it."""
    lvm.raw("base")
    lvm.image("mid", "/dev/vg/base", stated="raw")
    lvm.image("my-top", "/dev/mapper/vg-mid")
    lvm.image("over", "my-top")
    lvm.image("far", "/dev/mapper/vg-my--top")
    lvm.image("gone", "/dev/vg/none")
    lvm.image("away", "/dev/other/base")
    lvm.image("loop-a", "/dev/vg/loop-b")
    lvm.image("loop-b", "/dev/vg/loop-a")
    lvm.raw("bad", b"QFI\xfb\0\0\0\3" + b"\xff" * 200)
    lvm.image("wrong", "/dev/vg/mid", stated="raw")
    lvm.image("roomy", size=2 * MIB, extents=20)
    before = lvm.report("vg")
    found = lvm.look()
    assert found.rules(rules.A_UNSEEN) == {
        "gone": {rules.A_PARENT}, "away": {rules.A_OUTSIDE}, "loop-a": {rules.A_LOOP}, "loop-b": {rules.A_LOOP},
        "bad": {rules.A_DAMAGED}, "wrong": {rules.A_FORMAT}, "roomy": {rules.A_OVERSIZE},
    }  # fmt: skip
    assert found.report.places == (("/dev/vg", "lvm"),)
    assert found.image("over").depth == 4 and found.image("far").parent == "/dev/vg/my-top"
    assert lvm.report("vg") == before
    assert not lvm.calls and set(lvm.opened) == {"/srv/vg/device"} and not lvm.process.host.active


def test_a_chain_leads_from_one_group_to_another():
    """By either name of a device; a name is read with its hyphens doubled."""
    lvm = Lvm(200, "vg", "vg-2")
    lvm.raw("base", group="vg-2")
    lvm.image("top", "/dev/mapper/vg--2-base", stated="raw")
    lvm.image("over", "/dev/vg/top", group="vg-2")
    lvm.image("lost", "/dev/mapper/vg-2-base", stated="raw")
    found = lvm.look(groups=("vg", "vg-2"))
    assert found.rules(rules.A_UNSEEN, rules.A_ABSOLUTE) == {"lost": {rules.A_PARENT}}
    assert [image.depth for image in found.report.images if image.path == "/dev/vg-2/over"] == [3]


def test_an_image_that_ends_before_its_data_is_told(lvm: Lvm):
    """As a volume that was reduced, or not extended in time."""
    lvm.image("whole")
    lvm.image("cut")
    lvm.write("cut", 192 << 10, (64 * MIB).to_bytes(8, "big"))  # the first table of data lies behind the end
    lvm.write("cut", 128 << 10, b"\0\1" * 32768)
    assert lvm.look().rules(rules.A_UNSEEN) == {"cut": {rules.A_SHORT}}


def test_only_what_nobody_can_need_is_an_orphan(lvm: Lvm, vms: Path, tmp_path: Path):
    """Named by either name of its device, by pool and volume, in a text, below something named, as a base of a file,
    an origin of a snapshot: needed. Pools have no content of their own, file systems are a host's."""
    for name in ("by-path", "by-mapper", "by-pool", "in-text", "in--text", "base", "stray", "file-base", "origin"):
        lvm.raw(name)
    lvm.image("top", "/dev/vg/base", stated="raw")
    lvm.image("stray-top", "/dev/vg/stray", stated="raw")
    lvm.raw("root", EXT4)
    lvm.raw("swap", bytes(4086) + b"SWAPSPACE2")
    lvm.raw("crypt", b"LUKS\xba\xbe")
    lvm.raw("pool")
    lvm.raw("snap")
    lvm.says = {"pool": {"kind": "thin-pool", "ranges": ()}, "snap": {"origin": "origin"}}
    names = ("/dev/vg/by-path", "/dev/mapper/vg-by--mapper", "/dev/vg/top", "/dev/vg/snap")
    disks = "".join(disk(name, "qcow2" if name.endswith("top") else "raw") for name in names)
    domain(vms / "vm.xml", "vm", f"{disks}<disk><source pool='p' volume='by-pool'/></disk>")
    (vms / "notes").write_text("vg-in--text, vg-in----text", encoding="utf-8")
    (vms / "p.xml").write_text("<pool><name>p</name><target><path>/dev/vg</path></target></pool>", encoding="utf-8")
    files = tmp_path / "files"
    files.mkdir()
    image(files / "vm-2.qcow2", "/dev/vg/file-base", stated="raw")
    (vms / "2.conf").write_text(f"scsi0: {files}/vm-2.qcow2\n", encoding="utf-8")
    found = lvm.look(vms, places=[files])
    assert found.files(rules.A_ORPHAN) == {"stray", "stray-top"} and not found.report.unsure
    assert found.report.others == {"file system": 3, "other": 1}
    commands = {one.command for one in found.report.findings if one.rule == rules.A_ORPHAN}
    assert commands == {("lvremove", "vg/stray"), ("lvremove", "vg/stray-top")}


def test_an_image_with_a_format_is_nothing_else(lvm: Lvm, vms: Path):
    """Whatever else is in it, as data of a guest is where clusters are small: what it stands on is needed."""
    lvm.raw("base")
    lvm.image("top", "/dev/vg/base", stated="raw")
    lvm.write("top", 4096, b"\xfc\x4e\x2b\xa9")  # a part of an array begins so
    lvm.image("other", "/dev/vg/base", stated="raw")
    lvm.write("other", 32768, b"\1CD001")
    domain(vms / "vm.xml", "vm", disk("/dev/vg/top", "qcow2") + disk("/dev/vg/other", "qcow2"))
    found = lvm.look(vms)
    assert {found.image(name).parent for name in ("top", "other")} == {"/dev/vg/base"}
    assert not found.rules() and not found.report.others


def test_a_command_puts_nothing_beside_a_device(lvm: Lvm):
    """A file in /dev would be memory of the host."""
    lvm.image("roomy", size=2 * MIB, extents=20)
    (found,) = [one for one in lvm.look().report.findings if one.rule == rules.A_OVERSIZE]
    assert found.command[-2:] == ("/dev/vg/roomy", "TARGET")


@pytest.mark.parametrize("says", [
    {"kind": "thin", "ranges": ()}, {"kind": "raid1", "ranges": ()}, {"origin": "x", "ranges": ()},
])  # fmt: skip
def test_what_cannot_be_looked_into_is_unknown_and_leaves_no_orphan(lvm: Lvm, vms: Path, says: dict[str, object]):
    """Not linear and not active: nobody knows what it stands on. Active it is read by its device."""
    lvm.raw("stray")
    lvm.image("odd", "/dev/vg/stray", stated="raw")
    lvm.says = {"odd": says}
    found = lvm.look(vms)
    assert found.rules(rules.A_UNSEEN) == {"odd": {rules.A_READ, rules.A_UNSURE}}
    assert found.image("odd").status is Status.UNKNOWN and "not active" in found.image("odd").reason
    lvm.groups.activate("vg", "odd")
    assert lvm.look(vms).files(rules.A_ORPHAN) == {"odd", "stray"}


def test_a_missing_device_leaves_its_volumes_unknown(lvm: Lvm, vms: Path):
    """What lies on others is read."""
    lvm.image("here")
    lvm.raw("lost")
    lvm.says = {"lost": {"ranges": ()}}
    report = lvm.report
    lvm.report = lambda group: report(group)._replace(partial=True, missing=("pv-1",))  # type: ignore[method-assign]
    found = lvm.look(vms)
    assert found.rules(rules.A_UNSEEN) == {"lost": {rules.A_READ, rules.A_UNSURE}}
    assert "pv-1" in found.image("lost").reason


def test_what_is_open_is_told_and_needed(lvm: Lvm, vms: Path):
    """By a program, which is named, or by something that is none: a file system that is mounted."""
    lvm.image("used")
    lvm.raw("mounted")
    other = lvm.world.machine("one").process("qemu")
    handle = other.groups.open_device(lvm.groups.activate("vg", "used"), writable=True)
    lvm.says = {"mounted": {"active": True, "open": True}}
    lvm.groups.activate("vg", "mounted")
    found = lvm.look(vms)
    assert found.rules() == {"used": {rules.A_OPEN}, "mounted": {rules.A_OPEN}}
    assert "qemu" in found.image("used").used_by[0] and "mounted" in found.image("mounted").used_by[0]
    handle.close()


def test_a_repository_in_the_group_is_left_to_check(lvm: Lvm, vms: Path):
    """Its volumes are no images of others, by their tags also where its records are gone; without either such names are
    anybody's."""
    lvm.raw("dwv-" + "1" * 32)
    lvm.raw("dwv-" + "2" * 32, tags=volume_tags(VolumeFormat.RAW, EXTENT))
    assert lvm.look(vms).files(rules.A_ORPHAN) == {"dwv-" + "1" * 32}
    lvm.raw("dw-meta")
    lvm.raw("stray")
    found = lvm.look(vms)
    assert found.files(rules.A_ORPHAN) == {"stray"} and found.report.others == {"repository": 3}


class Checker:
    """Notes what it was given."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []

    def check(self, layer: Layer) -> CheckReport:
        self.layers.append(layer)
        return CheckReport(0, 0, 0, 0, "")


def test_a_deep_audit_checks_active_volumes_as_devices(lvm: Lvm):
    """One that is not active is unknown then: nothing is activated for it."""
    lvm.image("on")
    lvm.image("off")
    lvm.groups.activate("vg", "on")
    checker = Checker()
    found = lvm.look(check=checker)
    (layer,) = checker.layers
    assert (layer.path, layer.device, layer.held) == ("/dev/vg/on", True, "/dev/vg/on")
    assert found.rules(rules.A_UNSEEN) == {"off": {rules.A_READ}} and "lvchange -ay vg/off" in found.image("off").reason


@pytest.mark.parametrize("name", ["../../etc/shadow", "/etc/shadow", "a/b", "..", "x\n", "-x"])
def test_a_name_that_lvm_would_not_take_opens_nothing(lvm: Lvm, name: str, monkeypatch: pytest.MonkeyPatch):
    """Metadata on a device is a stranger's: such a volume is unknown where its device would have to be opened."""
    lvm.raw("v")
    real = lvm.report("vg").volumes["v"]
    shown = {name: real._replace(name=name, active=True, open=True, ranges=())}
    monkeypatch.setattr(lvm, "report", lambda group: lvm.groups.report(group)._replace(volumes=shown))
    found = lvm.look()
    assert [image.status for image in found.report.images] == [Status.UNKNOWN]
    assert not lvm.opened


def test_a_volume_that_is_changed_meanwhile_is_read_where_it_is(lvm: Lvm, monkeypatch: pytest.MonkeyPatch):
    """Of many volumes the later ones may have been extended, or removed, since the group was listed."""
    for number in range(55):
        lvm.raw(f"a{number:02}", extents=1)
    lvm.image("z-extended", extents=1)
    lvm.raw("z-removed", extents=1)
    report, reports = lvm.report, []

    def changing(group: str) -> object:
        reports.append(group)
        if len(reports) == 2:
            lvm.groups.resize("vg", "z-extended", 4 * EXTENT)
            lvm.groups.remove("vg", "z-removed")
        return report(group)

    monkeypatch.setattr(lvm, "report", changing)
    found = lvm.look()
    image = next(image for image in found.report.images if image.path.endswith("z-extended"))
    assert image.status is Status.OPTIMIZED
    assert found.rules(rules.A_UNSEEN) == {"z-removed": {rules.A_READ}}


def test_a_guest_leads_nobody_out_of_the_group(lvm: Lvm, tmp_path: Path):
    """Backing names that are files, links of other groups and devices are told, and never opened."""
    secret = raw(tmp_path / "secret")
    for number, name in enumerate((str(secret), "../../etc/shadow", "/dev/sda", "/dev/mapper/other-v", "/dev/dm-3")):
        lvm.image(f"v{number}", name, stated="raw")
    assert lvm.look().rules(rules.A_UNSEEN) == {f"v{number}": {rules.A_OUTSIDE} for number in range(5)}
