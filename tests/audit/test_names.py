"""What may name an image, however it is written: none of these makes an orphan."""

from __future__ import annotations

import json
import os
import random
import struct
from pathlib import Path
from typing import Any

import pytest

from engine.audit import orphans, rules
from engine.audit.names import meant
from engine.audit.readings import readings
from engine.doors.trees import Start
from tests.audit.kit import Looked, domain, look, raw
from tests.tools.qcow2_kit import make, patch

MIB = 1 << 20


def world(tmp_path: Path, backing: str) -> Looked:
    """An image that a machine uses and that names ``backing``, and another one that nobody else names."""
    pool, vms = tmp_path / "pool", tmp_path / "etc"
    for path in (pool, vms):
        path.mkdir()
    make(pool / "top.qcow2", MIB, backing, "qcow2")
    make(pool / "base.qcow2", MIB)
    domain(vms / "x.xml", "x", f"<arg value='{pool}/top.qcow2'/>")
    return look([pool], [vms])


FILE = {"driver": "file", "filename": "base.qcow2"}


@pytest.mark.parametrize("named", [
    {"driver": "qcow2", "a": "x" * 300, "file": {"driver": "blkdebug", "image": FILE, "config": "/etc/x"}},
    {"driver": "quorum", "children": [{"driver": "qcow2", "file": FILE}, {"driver": "raw", "file": "elsewhere"}]},
    {"driver": "qcow2", "file": {**FILE, "filename": "top.qcow2"}, "backing": {"driver": "raw", "file": FILE}},
    {"driver": "nbd", "server": {"type": "unix", "path": "/run/x.sock"}}, {"driver": [], "file": {"driver": "nbd"}},
    {"driver": [], "filename": "x"}, {"driver": {}, "file.filename": "x"}, "node", ["a"], {},
])  # fmt: skip
def test_a_json_name_that_may_mean_any_file_makes_no_orphan(tmp_path: Path, named: Any):
    """Long ones, several files, lists, a backing of its own, drivers that are none: doubts, or found in the text."""
    assert not world(tmp_path, f"json:{json.dumps(named)}").files(rules.A_ORPHAN)


@pytest.mark.parametrize(
    "backing", ["nbd:unix:/run/x.sock", "nbd://localhost/x", "fat:rw:/x", "blkdebug:/etc/x:y", "json:{", "fd:3"]
)
def test_a_protocol_that_may_serve_a_file_of_this_host_makes_no_orphan(tmp_path: Path, backing: str):
    """Only what is purely of the network leaves no doubt."""
    found = world(tmp_path, backing)
    assert not found.files(rules.A_ORPHAN) and any("may mean any file" in why for why in found.report.unsure)


@pytest.mark.parametrize("backing", [
    "nbd://far/x", "rbd:pool/x", 'json:{"driver":"raw","file":{"driver":"rbd","pool":"a","image":"b"}}',
    'json:{"driver":"qcow2","file.driver":"https","file.url":"https://far/x"}',
])  # fmt: skip
def test_a_name_of_the_network_leaves_no_doubt(tmp_path: Path, backing: str):
    """It names no file of this host; what nobody refers to is an orphan then."""
    assert world(tmp_path, backing).files(rules.A_ORPHAN) == {"base.qcow2"}


def test_a_long_name_is_kept_whole_and_told_cut(tmp_path: Path):
    """A name is cut only where it is told."""
    name = f"nbd://{'x' * 500}"
    assert meant(name).words == name
    found = world(tmp_path, name)
    assert any("x" * 190 in reason and "x" * 300 not in reason for reason in found.reasons("top.qcow2"))


def test_an_offset_that_no_file_can_have_is_a_damaged_header(tmp_path: Path):
    """A first-level table without an entry at the end of all offsets, where the tables must be looked at."""
    path = make(tmp_path / "a.qcow2", MIB)
    patch(path, 24, struct.pack(">Q", 0))  # size
    patch(path, 36, struct.pack(">IQ", 0, 0xFFFF_FFFF_FFFF_0000))  # entries and place of the table
    patch(path, 1 << 16, struct.pack(">Q", 0x7F00_0000_0000))
    make(tmp_path / "b.qcow2", MIB)
    assert look([tmp_path]).rules(rules.A_UNSEEN) == {"a.qcow2": {rules.A_DAMAGED}}


def test_a_file_that_cannot_be_judged_is_one_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whatever the reading of one header raises, that file is unknown and makes doubt, and the others are judged."""
    from engine.audit import headers

    real = headers.image_of

    def spoil(names: tuple[Any, ...], start: Start | str, kind: str) -> Any:
        if names[0].path.endswith("/bad.qcow2") and not isinstance(start, str):
            raise OverflowError("too large")
        return real(names, start, kind)

    monkeypatch.setattr(headers, "image_of", spoil)
    (tmp_path / "pool").mkdir()
    make(tmp_path / "pool" / "bad.qcow2", MIB)
    make(tmp_path / "pool" / "lost.qcow2", MIB, "gone", "raw")
    found = look([tmp_path / "pool"])
    assert found.rules(rules.A_UNSEEN, rules.A_UNSURE) == {
        "bad.qcow2": {rules.A_READ}, "lost.qcow2": {rules.A_PARENT},
    }  # fmt: skip
    assert any("bad.qcow2" in why for why in found.report.unsure)


def test_fields_at_the_edges_end_no_report(tmp_path: Path):
    """Fields of headers at the edges of their ranges, alone and two at once."""
    rng = random.Random(1)
    fields = [(8, 8), (16, 4), (20, 4), (24, 8), (36, 4), (40, 8), (48, 8), (56, 4), (60, 4), (64, 8), (72, 8), (88, 8),
              (96, 4), (100, 4), (112, 4), (116, 4), (1 << 16, 8), (2 << 16, 8), (3 << 16, 8)]  # fmt: skip
    for number in range(120):
        path = make(tmp_path / f"{number}.qcow2", rng.choice((512, MIB)), rng.choice((None, "json:{}", "x")), "raw")
        for at, length in rng.sample(fields, rng.choice((1, 2, 3))):
            value = rng.choice(
                (0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - (1 << 16), (1 << 64) - 1, 0x7F << 40, 1 << 16)
            )
            patch(path, at, (value % (1 << 8 * length)).to_bytes(length, "big"))
    assert len(look([tmp_path]).report.images) == 120
    os.truncate(raw(tmp_path / "short.vmdk", b"KDMV"), 4)
    assert len(look([tmp_path]).report.images) == 121


ODD = "bär\U0001f4bf o'ne & two.qcow2"


@pytest.mark.parametrize("text", [
    json.dumps({"disks": [f"/x/{ODD}"]}), json.dumps([json.dumps({"a": ODD})]), f"x: {json.dumps(ODD)}\n",
    "path: /x/b%C3%A4r%F0%9F%92%BF%20o%27ne%20%26%20two.qcow2\n",
    "disk = /x/b&#228;r&#x1F4BF; o&apos;ne &amp; two.qcow2\n",
    "disk: \"/x/b\\xe4r\\U0001f4bf o'ne & two.qcow2\"\n", "disk: '/x/bär\U0001f4bf o''ne & two.qcow2'\n",
    "qemu -hda /x/bär\U0001f4bf\\ o\\'ne\\ \\&\\ two.qcow2\n", "qemu -hda '/x/bär\U0001f4bf o'\\''ne & two.qcow2'\n",
    "qemu -hda $'/x/b\\303\\244r\\360\\237\\222\\277 o\\'ne & two.qcow2'\n",
    "at x/b\\303\\244r\U0001f4bf\\040o'ne\\040&\\040two.qcow2\n",
    'disk: "/x/bär\U0001f4bf o\\\n    \'ne & two.qcow2"\n', "disk: >-\n  /x/bär\U0001f4bf o'ne\n  & two.qcow2\n",
    'fileName = "bär\U0001f4bf o|27ne |26 two.qcow2"\n', 'fileName = "b\xe4r\U0001f4bf o|27ne |26 two.qcow2"\n',
])  # fmt: skip
def test_a_name_is_found_in_whatever_way_it_is_written(tmp_path: Path, text: str):
    """JSON with escapes, also in JSON; URLs; entities; YAML; words of shells; octal bytes; VMX."""
    for folder in ("pool", "etc"):
        (tmp_path / folder).mkdir()
    make(tmp_path / "pool" / ODD, MIB)
    make(tmp_path / "pool" / "other.qcow2", MIB)
    (tmp_path / "etc" / "vm.json").write_text(text, encoding="utf-8")
    found = look([tmp_path / "pool"], [tmp_path / "etc"])
    assert found.files(rules.A_ORPHAN) == {"other.qcow2"} and found.image(ODD).used_by == ("vm.json",)


def test_a_directory_that_json_gives_has_what_is_below_it(tmp_path: Path):
    """Its escapes are taken away first."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "pöol").mkdir()
    make(tmp_path / "pöol" / "a.qcow2", MIB)
    (tmp_path / "etc" / "vm.json").write_text(json.dumps({"shared": str(tmp_path / "pöol")}), encoding="ascii")
    assert not look([tmp_path / "pöol"], [tmp_path / "etc"]).files(rules.A_ORPHAN)


def test_a_definition_in_another_encoding_makes_no_orphan(tmp_path: Path):
    """Its names may mean anything."""
    for folder in ("pool", "etc"):
        (tmp_path / folder).mkdir()
    make(tmp_path / "pool" / "bär.qcow2", MIB)
    (tmp_path / "etc" / "vm.vmx").write_bytes('.encoding = "windows-1252"\nfileName = "bär.qcow2"\n'.encode("cp1252"))
    found = look([tmp_path / "pool"], [tmp_path / "etc"])
    assert not found.files(rules.A_ORPHAN) and found.files(rules.A_UNSURE) == {f"{tmp_path}/etc/vm.vmx"}


@pytest.mark.parametrize(("hint", "encoding", "sure"), [
    ("bär.vmdk", "UTF-8", True), ("bär.vmdk", "windows-1252", False), ("円.vmdk", "Shift_JIS", False),
    ("base.vmdk", "windows-1252", True),
])  # fmt: skip
def test_what_a_vmdk_stands_on_is_no_orphan(tmp_path: Path, hint: str, encoding: str, sure: bool):
    """Its descriptor has names in UTF-8; those in other encodings leave no orphan at all."""
    for folder in ("pool", "etc"):
        (tmp_path / folder).mkdir()
    text = f'# Disk DescriptorFile\nversion=1\nencoding="{encoding}"\nparentFileNameHint="{hint}"\n'
    (tmp_path / "pool" / "top.vmdk").write_bytes(text.encode(encoding))
    raw(tmp_path / "pool" / hint, b"KDMV")
    make(tmp_path / "pool" / "other.qcow2", MIB)
    domain(tmp_path / "etc" / "x.xml", "x", f"<arg value='{tmp_path}/pool/top.vmdk'/>")
    found = look([tmp_path / "pool"], [tmp_path / "etc"])
    assert found.files(rules.A_ORPHAN) == ({"other.qcow2"} if sure else set())


def test_a_descriptor_that_was_not_read_to_its_end_makes_no_orphan(tmp_path: Path):
    """It may be anywhere in a sparse VMDK."""
    for folder in ("pool", "etc"):
        (tmp_path / folder).mkdir()
    make(tmp_path / "pool" / "other.qcow2", MIB)
    raw(tmp_path / "pool" / "top.vmdk", b"KDMV" + bytes(24) + struct.pack("<QQ", 2048, 20))
    domain(tmp_path / "etc" / "x.xml", "x", f"<arg value='{tmp_path}/pool/top.vmdk'/>")
    assert not look([tmp_path / "pool"], [tmp_path / "etc"]).files(rules.A_ORPHAN)


def test_a_name_that_is_no_text_is_found(tmp_path: Path):
    """A header keeps bytes; one that is no UTF-8 is shown with a backslash, and means the same file."""
    name = os.fsdecode(b"b\xe4r.qcow2")
    for folder in ("pool", "etc"):
        (tmp_path / folder).mkdir()
    make(tmp_path / "pool" / name, MIB)
    top = make(tmp_path / "pool" / "top.qcow2", MIB, "bXr.qcow2", "qcow2")
    patch(top, top.read_bytes().index(b"bXr"), b"b\xe4r")
    domain(tmp_path / "etc" / "x.xml", "x", f"<arg value='{tmp_path}/pool/top.qcow2'/>")
    found = look([tmp_path / "pool"], [tmp_path / "etc"])
    assert not found.files(rules.A_ORPHAN) and not found.files(rules.A_PARENT)


def test_what_may_mean_too_much_is_a_doubt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """All readings of a hostile text are more than can be kept: that is told, and no memory is filled."""
    for folder in ("pool", "etc"):
        (tmp_path / folder).mkdir()
    make(tmp_path / "pool" / "other.qcow2", MIB)
    (tmp_path / "etc" / "vm.conf").write_text("&amp;amp;%25%2525|7c7c" * 400, encoding="utf-8")
    assert look([tmp_path / "pool"], [tmp_path / "etc"]).files(rules.A_ORPHAN)
    monkeypatch.setattr(orphans, "MAX_CHARACTERS", 10000)
    found = look([tmp_path / "pool"], [tmp_path / "etc"])
    assert not found.files(rules.A_ORPHAN) and found.files(rules.A_UNSURE) == {f"{tmp_path}/etc/vm.conf"}


def test_no_text_ends_the_report():
    """Pieces of escapes at random, halves of characters, numbers that are longer than any: each text has readings."""
    rng = random.Random(2)
    pieces = ("\\", "u", "U", "x", "00e4", "%", "c3", "a4", "|", "&", "#", ";", "'", '"', "\n", "{", "}", "\udcff",
              "\ud83d", "&#x110000;", "&#", "9" * 5000, "0" * 5000, "u{ffffffff}", "777", " ")  # fmt: skip
    for _ in range(200):
        text = "".join(rng.choices(pieces, k=12))
        assert text in readings([text])
    assert "\xe4" in readings([f"&#{'0' * 5000}228;"])
