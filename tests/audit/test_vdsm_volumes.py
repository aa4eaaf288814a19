"""A block domain of oVirt: tags, slots of metadata of both versions, and what interrupted operations leave."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.audit import rules
from engine.data.model import Status
from tests.audit.groups_kit import EXTENT, Lvm
from tests.audit.kit import MIB
from tests.audit.test_vdsm import NONE, uuid

DOMAIN = "vg"
SPECIAL = ("ids", "leases", "inbox", "outbox", "xleases", "master")


class Domain(Lvm):
    """Makes volumes as VDSM does."""

    def __init__(self, version: int = 5, tagged: bool = True) -> None:
        super().__init__(400)
        self.version = version
        pool = f"MDT_POOL_UUID={uuid(0x900)}"
        self.tags = frozenset({"RHAT_storage_domain", f"MDT_VERSION={version}", pool}) if tagged else frozenset()
        self.slots = bytearray(4 * EXTENT)
        self.raw("metadata", extents=4)
        for name in SPECIAL:
            self.raw(name, extents=1)
        self.next = 4

    def meta(self, slot: int, image: int, parent: int, **fields: str) -> None:
        sizes = {"CAP": str(8 * MIB)} if self.version == 5 else {"SIZE": str(8 * MIB // 512)}
        known = sizes | {
            "DISKTYPE": "DATA", "DOMAIN": DOMAIN, "FORMAT": "COW", "GEN": "0", "IMAGE": uuid(image),
            "LEGALITY": "LEGAL", "PUUID": uuid(parent) if parent else NONE, "TYPE": "SPARSE", "VOLTYPE": "LEAF",
        } | fields  # fmt: skip
        self.put(slot, ("".join(f"{key}={value}\n" for key, value in known.items() if value) + "EOF\n").encode())

    def put(self, slot: int, text: bytes) -> None:
        at, length = (MIB + slot * 8192, 8192) if self.version == 5 else (slot * 512, 512)
        self.slots[at : at + length] = text.ljust(length, b"\0")
        self.write("metadata", 0, bytes(self.slots))

    def volume(self, image: int, number: int, parent: int = 0, backing: str | None = None, **fields: str) -> str:
        """A qcow2 volume with its tags and slot; ``fields`` may also have TAGS, instead of these."""
        slot, self.next = self.next, self.next + 1
        tags = fields.pop("TAGS", f"IU_{uuid(image)} PU_{uuid(parent) if parent else NONE} MD_{slot}").split()
        self.meta(slot, image, parent, **fields)
        named = uuid(parent) if parent and backing is None else backing or ""
        return self.image(uuid(number), named, tags=tags, extents=3)


def planted(domain: Domain) -> dict[str, set[str]]:
    domain.volume(1, 0x11, VOLTYPE="INTERNAL")  # in order
    domain.volume(1, 0x12, 0x11)
    domain.volume(2, 0x21, VOLTYPE="SHARED")  # a template and its machine, by a relative name as older ones have
    domain.volume(3, 0x31, 0x21, f"../{uuid(3)}/{uuid(0x21)}")
    domain.volume(4, 0x41, VOLTYPE="INTERNAL")
    domain.volume(4, 0x42, 0x41, f"/rhev/data-center/{uuid(0x900)}/{DOMAIN}/images/{uuid(4)}/{uuid(0x41)}")
    domain.volume(5, 0x51, LEGALITY="ILLEGAL")
    domain.volume(6, 0x61, TAGS=f"IU_{uuid(6)}")  # VDSM ignores it
    domain.volume(7, 0x71, 0x72)  # no parent
    domain.volume(8, 0x81, VOLTYPE="INTERNAL")  # says that something stands on it
    domain.volume(9, 0x91, 0x11, "")  # the header says that it stands on nothing
    size = {"CAP" if domain.version == 5 else "SIZE": "4096"}
    domain.volume(10, 0xA1, 0, None, **size)
    domain.volume(11, 0xB1, TAGS=f"IU_{uuid(11)} PU_{uuid(0x11)} MD_{domain.next}")  # tag and slot disagree
    domain.volume(12, 0xC1)
    domain.put(domain.next - 1, b"NONE=" + b"#" * 502 + b"\nEOF\n")
    domain.volume(13, 0xD1)
    domain.put(domain.next - 1, b"\xff" * 100)
    domain.volume(14, 0xE1, TAGS=f"IU__remove_me_{uuid(14)} PU_{NONE} MD_{domain.next}")
    domain.volume(15, 0xF1, TAGS=f"IU__remove_me_ZERO_{uuid(15)} PU_{NONE} MD_{domain.next}")
    domain.volume(16, 0x101, DISKTYPE="OVFS")
    domain.volume(17, 0x111, TAGS=f"IU_{uuid(17)} PU_{NONE} MD_{domain.next} OVIRT_VOL_INITIALIZING")
    domain.volume(18, 0x121, TAGS=f"IU_{uuid(18)} PU_{NONE} MD_4")  # the slot of another
    domain.volume(19, 0x131, TAGS=f"IU_{uuid(19)} PU_{NONE} MD_99999999")
    domain.meta(domain.next, 20, 0, FORMAT="RAW", CAP=str(16 * MIB), SIZE=str(16 * MIB // 512))
    domain.raw(uuid(0x141), extents=2, tags=[f"IU_{uuid(20)}", f"PU_{NONE}", f"MD_{domain.next}"])
    domain.raw("stranger")
    return {
        uuid(0x51): {rules.A_ILLEGAL}, uuid(0x61): {rules.A_METADATA}, uuid(0x71): {rules.A_PARENT},
        uuid(0x81): {rules.A_DISAGREE}, uuid(0x91): {rules.A_DISAGREE}, uuid(0xA1): {rules.A_DISAGREE},
        uuid(0xB1): {rules.A_DISAGREE}, uuid(0xC1): {rules.A_METADATA}, uuid(0xD1): {rules.A_METADATA},
        uuid(0xE1): {rules.A_REMNANT}, uuid(0xF1): {rules.A_REMNANT}, uuid(0x111): {rules.A_REMNANT},
        uuid(0x121): {rules.A_DISAGREE}, uuid(0x11): {rules.A_DISAGREE}, uuid(0x131): {rules.A_METADATA},
        uuid(0x141): {rules.A_SHORT}, uuid(0x12): {rules.A_OUTSIDE},
    }  # fmt: skip


@pytest.mark.parametrize(("version", "tagged"), [(5, True), (4, False)])
def test_every_planted_defect_is_found_and_nothing_else(version: int, tagged: bool):
    """Of both versions, told or not by the tags of the group; chains by each name that VDSM gives a volume."""
    domain = Domain(version, tagged)
    expected = planted(domain)
    if not tagged:  # nobody knows the pool then
        expected[uuid(0x42)] = {rules.A_OUTSIDE}
    found = domain.look()
    assert found.report.places == (("/dev/vg", "vdsm"),)
    assert found.rules(rules.A_UNSEEN) == expected
    assert found.image(uuid(0x31)).parent == f"/dev/vg/{uuid(0x21)}"
    assert found.report.others == {"metadata": 7, "remnant": 3}
    assert not domain.calls and not domain.process.host.active


def test_only_disks_that_no_machine_names_are_orphans(tmp_path: Path):
    """OVFs name disks by image; templates and the store of definitions are needed by themselves; a volume that cannot
    be read leaves no orphan."""
    domain = Domain()
    for number in (1, 2, 4):
        domain.volume(number, number * 16 + 1)
    domain.volume(3, 0x31, VOLTYPE="SHARED")
    domain.volume(5, 0x51, DISKTYPE="OVFS")
    domain.volume(4, 0x42, 0x41)
    (tmp_path / "vm.ovf").write_text(f"<Envelope><HostResource>{uuid(1)}/{uuid(0x11)}</HostResource></Envelope>")
    found = domain.look(tmp_path)
    assert found.files(rules.A_ORPHAN) == {uuid(0x21), uuid(0x41), uuid(0x42)}
    commands = [set(one.command) for one in found.report.findings if one.rule == rules.A_ORPHAN]
    assert all({"vdsm-client", "force=false", "storagedomainID=vg"} <= words for words in commands)
    assert not domain.look().files(rules.A_ORPHAN)
    domain.says = {uuid(0x51): {"ranges": ()}}
    assert not domain.look(tmp_path).files(rules.A_ORPHAN)


def test_a_removal_that_something_stands_on_is_told_as_a_contradiction():
    """By its tag, and by a header alone: no command that removes it is advised."""
    domain = Domain()
    domain.volume(1, 0x11, TAGS=f"IU__remove_me_{uuid(1)} PU_{NONE} MD_4")
    domain.volume(2, 0x21, 0x11)
    domain.volume(3, 0x31, TAGS=f"IU__remove_me_{uuid(3)} PU_{NONE} MD_6")
    domain.volume(4, 0x41, 0, uuid(0x31))
    found = domain.look()
    assert rules.A_DISAGREE in found.rules()[uuid(0x11)]
    assert rules.A_REMNANT in found.rules()[uuid(0x31)]
    about = [one for one in found.report.findings if one.path.endswith((uuid(0x11), uuid(0x31)))]
    assert len(about) == 2 and not any("lvremove" in one.command for one in about)


@pytest.mark.parametrize("slot", ["-1", "x", "1" * 400, "", "٣", "4 MD_5", "0x4"])
def test_a_tag_of_a_stranger_reads_no_more_than_its_slot(slot: str):
    """Whatever the tag says: the volume is unknown."""
    domain = Domain()
    domain.volume(1, 0x11, TAGS=f"IU_{uuid(1)} PU_{NONE} MD_{slot}")
    found = domain.look()
    assert found.rules(rules.A_UNSEEN) == {uuid(0x11): {rules.A_METADATA}}
    assert found.image(uuid(0x11)).status is Status.UNKNOWN


def test_garbage_in_slots_raises_nothing():
    """Each slot of a domain is what anybody wrote there."""
    domain = Domain()
    domain.volume(1, 0x11)
    for _ in range(8):
        domain.put(4, os.urandom(300).replace(b"\0", b"\n") + b"\nEOF\n")
        assert domain.look().image(uuid(0x11)).status is Status.UNKNOWN
