"""What may name an image, however it is written: none of these makes an orphan."""

from __future__ import annotations

import json
import os
import random
import struct
from pathlib import Path
from typing import Any

import pytest

from engine.audit import rules
from engine.audit.names import meant
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
