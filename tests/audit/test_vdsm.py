"""A file domain of oVirt: metadata of both versions, templates by hard link, and what interrupted operations leave."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import UUID

import pytest

from engine.audit import rules
from tests.audit.kit import MIB, Looked, image, look, raw

DOMAIN = str(UUID(int=1))
NONE = str(UUID(int=0))


def uuid(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-{number:012x}"


class Domain:
    """Makes volumes as VDSM does."""

    def __init__(self, top: Path) -> None:
        self.path = top / DOMAIN
        (self.path / "dom_md").mkdir(parents=True)
        (self.path / "images").mkdir()
        for name in ("ids", "leases", "metadata"):
            raw(self.path / "dom_md" / name)

    def folder(self, number: int) -> Path:
        path = self.path / "images" / uuid(number)
        path.mkdir(exist_ok=True)
        return path

    def volume(self, folder: int, number: int, parent: int = 0, **fields: str) -> Path:
        path = self.folder(folder) / uuid(number)
        image(path, uuid(parent) if parent else "")
        self.meta(path, parent, **fields)
        raw(path.with_name(f"{path.name}.lease"), size=MIB)
        return path

    def meta(self, path: Path, parent: int = 0, **fields: str) -> None:
        known = {
            "CAP": str(8 * MIB), "DISKTYPE": "DATA", "DOMAIN": DOMAIN, "FORMAT": "COW", "GEN": "0",
            "IMAGE": path.parent.name, "LEGALITY": "LEGAL", "PUUID": uuid(parent) if parent else NONE,
            "TYPE": "SPARSE", "VOLTYPE": "LEAF",
        } | fields  # fmt: skip
        text = "".join(f"{key}={value}\n" for key, value in known.items() if value) + "EOF\n"
        path.with_name(f"{path.name}.meta").write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("mnt")
    made = Domain(top)
    made.volume(1, 0x11, VOLTYPE="INTERNAL")  # version 5, in order
    made.volume(1, 0x12, 0x11)
    made.volume(2, 0x21, CAP="", SIZE=str(8 * MIB // 512))  # version 4, in order
    template = made.volume(3, 0x31, VOLTYPE="SHARED")
    for end in ("", ".meta", ".lease"):
        os.link(f"{template}{end}", made.folder(4) / f"{uuid(0x31)}{end}")
    made.volume(4, 0x41, 0x31)  # a machine of the template
    made.volume(5, 0x51, LEGALITY="ILLEGAL")
    (made.volume(6, 0x61).with_name(f"{uuid(0x61)}.meta")).unlink()  # VDSM does not see it
    made.volume(7, 0x71, 0x72)  # no parent
    made.volume(8, 0x81, VOLTYPE="INTERNAL")  # says that something stands on it
    made.meta(made.volume(9, 0x91), 0x92)  # the header says that it stands on nothing
    made.volume(10, 0xA1, CAP=str(4 * MIB))
    made.meta(raw(made.folder(11) / uuid(0xB1)), FORMAT="RAW")  # 2 of 8 MiB are there
    made.volume(12, 0xC1).with_name(f"{uuid(0xC1)}.meta").write_text("CAP=8\nFORMAT", encoding="utf-8")
    made.meta(made.folder(13) / uuid(0xD1))  # alone
    gone = made.folder(14)
    raw(gone / uuid(0xE1))
    gone.rename(gone.with_name(f"_remove_me_{gone.name}"))
    made.folder(15)
    made.volume(16, 0xF1, DISKTYPE="OVFS")
    (made.folder(1) / f"{uuid(0x12)}.meta.new").write_text("", encoding="utf-8")
    return top


PLANTED = {
    f"{uuid(5)}/{uuid(0x51)}": {rules.A_ILLEGAL},
    f"{uuid(6)}/{uuid(0x61)}": {rules.A_METADATA},
    f"{uuid(7)}/{uuid(0x71)}": {rules.A_PARENT},
    f"{uuid(8)}/{uuid(0x81)}": {rules.A_DISAGREE},
    f"{uuid(9)}/{uuid(0x91)}": {rules.A_DISAGREE},
    f"{uuid(10)}/{uuid(0xA1)}": {rules.A_DISAGREE},
    f"{uuid(11)}/{uuid(0xB1)}": {rules.A_SHORT},
    f"{uuid(12)}/{uuid(0xC1)}": {rules.A_METADATA},
    f"{uuid(13)}/{uuid(0xD1)}.meta": {rules.A_METADATA},
    f"_remove_me_{uuid(14)}": {rules.A_REMNANT},
    uuid(15): {rules.A_REMNANT},
    f"{uuid(1)}/{uuid(0x12)}.meta.new": {rules.A_REMNANT},
}


def of(domain: Path, *vms: Path) -> Looked:
    return look([domain], vms, top=domain / DOMAIN / "images")


def test_every_planted_defect_is_found_and_nothing_else(domain: Path):
    """Both versions of metadata and a template with its machine are in order; each thing left behind is told."""
    found = of(domain)
    assert found.report.places == ((str(domain), "vdsm"),)
    assert found.rules(rules.A_UNSEEN) == PLANTED
    assert found.image(f"{uuid(3)}/{uuid(0x31)}").names[1].endswith(f"{uuid(4)}/{uuid(0x31)}")


def test_a_hard_link_that_says_less_takes_nothing_away(tmp_path: Path):
    """A template is needed, and an image, whatever its first name says: one without metadata, one being removed."""
    made = Domain(tmp_path)
    template = made.volume(0xB, 0xB1, VOLTYPE="SHARED")
    os.link(template, made.folder(0xA) / uuid(0xB1))
    other = made.volume(0xC0000000, 0xC1, VOLTYPE="SHARED")  # listed after what follows
    removed = made.path / "images" / f"_remove_me_{uuid(0xD)}"
    removed.mkdir()
    os.link(other, removed / uuid(0xC1))
    (tmp_path / "vms").mkdir()
    found = look([made.path], [tmp_path / "vms"], top=made.path / "images")
    assert not found.files(rules.A_ORPHAN) and not found.report.unsure
    assert [image.used_by for image in found.report.images] == [("a template",), ("a template",)]


def test_what_takes_an_orphan_away_takes_nothing_else(tmp_path: Path):
    """A stray volume beside a template of the same image: the command names the volume."""
    made = Domain(tmp_path)
    made.volume(1, 0x11, VOLTYPE="SHARED")
    made.volume(1, 0x12)
    (tmp_path / "vms").mkdir()
    report = look([made.path], [tmp_path / "vms"]).report
    orphan = next(found for found in report.findings if found.rule == rules.A_ORPHAN)
    assert orphan.path.endswith(uuid(0x12))
    assert {"Volume", f"volumeID={uuid(0x12)}", f"imageID={uuid(1)}", "force=false"} <= set(orphan.command)


def test_two_parents_are_told_with_both_names(domain: Path):
    """The evidence has what the header and what the metadata says."""
    evidence = next(one.evidence for one in of(domain).report.findings if one.path.endswith(uuid(0x91)))
    assert evidence == (("in the header", "nothing"), (f"in {uuid(0x91)}.meta", uuid(0x92)))


def test_only_disks_that_no_machine_names_are_orphans(domain: Path, tmp_path: Path):
    """OVFs name disks by image; templates and the store of definitions are needed by themselves; the domain's own
    damage makes no orphan."""
    named = "".join(f"<Item><HostResource>{uuid(n)}/{uuid(n * 16 + 1)}</HostResource></Item>" for n in (1, 4, 9))
    (tmp_path / "machine.ovf").write_text(f"<Envelope><Name>vm</Name>{named}</Envelope>", encoding="utf-8")
    found = of(domain, tmp_path)
    assert found.files(rules.A_ORPHAN) == {f"{uuid(n)}/{uuid(n * 16 + 1)}" for n in (2, 5, 6, 7, 8, 10, 11, 12)}
    assert not of(domain).files(rules.A_ORPHAN)
