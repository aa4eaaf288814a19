"""Nothing that an image, a definition or a file of metadata says leads out of the given places, or takes for ever."""

from __future__ import annotations

import os
import struct
from contextlib import closing
from pathlib import Path

import pytest

from engine.audit import rules
from engine.audit.definitions import read_definitions
from engine.audit.names import meant
from engine.audit.places import Places, Where
from engine.doors.images import Layer
from engine.tools.local.trees import RealTree
from engine.tools.qemu.images import QemuImageTool
from engine.tools.qemu.qcow2 import MAX_BACKING_NAME_BYTES
from tests.audit.kit import domain, image, look, raw
from tests.tools.qcow2_kit import make, patch


def name_it(path: Path, backing: str) -> Path:
    """An image with any backing name, which no tool would write."""
    return make(path, 1 << 20, backing, "qcow2")


@pytest.mark.parametrize("backing", [
    "/etc/shadow", "../../../../../../etc/shadow", "json:{\"driver\":\"file\",\"filename\":\"/etc/shadow\"}",
    "file:/etc/shadow", "file:///etc/shadow", "link", "folder/shadow", "up/../etc/shadow",
    "json:{\"file\":{\"driver\":\"file\",\"filename\":\"/etc/shadow\"}}",
])  # fmt: skip
def test_no_name_leads_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backing: str):
    """Whatever a header names outside, by links too, is told as outside, and only what is below the place is opened."""
    place = tmp_path / "place"
    place.mkdir()
    (place / "link").symlink_to("/etc/shadow")
    (place / "folder").symlink_to("/etc")
    (place / "up").symlink_to("..")
    name_it(place / "evil.qcow2", backing)
    opened: list[str] = []
    real = os.open

    def watched(path: str, *rest: int, **more: int) -> int:
        opened.append(os.fsdecode(path))
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", watched)
    found = look([place])
    assert found.rules(rules.A_UNSEEN) == {"evil.qcow2": {rules.A_OUTSIDE}}
    assert set(opened) <= {str(place), "evil.qcow2"}


@pytest.mark.parametrize(
    "name", ["nbd://host/x", "rbd:pool/x", "http://host/x.qcow2", "json:{", "json:[1]", "fat:rw:/x"]
)
def test_what_is_no_file_is_never_looked_for(name: str):
    """Other protocols are told as they are written."""
    assert meant(name).path == ""


def test_links_in_the_way_of_a_tree_are_not_followed(tmp_path: Path):
    """A directory that has become a link since it was listed is refused, and so are devices and pipes."""
    (tmp_path / "root" / "a").mkdir(parents=True)
    raw(tmp_path / "root" / "a" / "file")
    os.mkfifo(tmp_path / "root" / "pipe")
    (tmp_path / "root" / "b").symlink_to("a")
    with closing(RealTree(str(tmp_path / "root"))) as tree:
        assert tree.start("a/file", 16).length == 2 << 20
        for path in ("b/file", "pipe", "a/../../x", "/etc/passwd", "a//file", "b"):
            with pytest.raises(OSError):
                tree.start(path, 16)


class Swapping:
    """qemu-img check, before which a directory is swapped for a link to another one with a file of the same name."""

    def __init__(self, folder: Path, other: Path, replace: bool) -> None:
        self._folder, self._other, self._replace = folder, other, replace

    def swap(self) -> None:
        if self._folder.is_symlink() or (self._folder.parent / "old").exists():
            return
        self._folder.rename(self._folder.parent / "old")
        if self._replace:
            self._folder.mkdir()
            (self._folder / "a.qcow2").write_bytes((self._other / "a.qcow2").read_bytes())
        else:
            self._folder.symlink_to(self._other)


@pytest.mark.parametrize("when", ["at the check", "link before it", "file before it"])
def test_a_deep_audit_checks_the_very_file_that_was_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
):
    """A directory that is swapped for a link when the tool starts leads it nowhere; one that is swapped earlier makes
    the image unknown. Damage of the other file is told in neither case."""
    folder, other = tmp_path / "place" / "sub", tmp_path / "elsewhere"
    for path in (folder, other):
        path.mkdir(parents=True)
        image(path / "a.qcow2")
    patch(other / "a.qcow2", 2 * 65536, b"\0\0")  # used, and not counted
    swapping = Swapping(folder, other, when == "file before it")
    checked: list[str] = []
    real_check, real_hold = QemuImageTool.check, RealTree.hold

    def check(tool: QemuImageTool, layer: Layer):
        swapping.swap()
        checked.append(layer.path)
        return real_check(tool, layer)

    def hold(tree: RealTree, path: str):
        if when != "at the check":
            tree.list("")  # else its last directory is still open
            swapping.swap()
        return real_hold(tree, path)

    monkeypatch.setattr(QemuImageTool, "check", check)
    monkeypatch.setattr(RealTree, "hold", hold)
    found = look([tmp_path / "place"], deep=True).rules(rules.A_UNSEEN)
    assert found == ({} if checked else {"sub/a.qcow2": {rules.A_READ}})
    assert bool(checked) == (when == "at the check")


def test_names_are_followed_as_the_kernel_does(tmp_path: Path):
    """Links inside of the places, parents of links, a place given by a link, circles of links."""
    place = tmp_path / "place"
    (place / "a" / "b").mkdir(parents=True)
    raw(place / "a" / "file")
    (place / "short").symlink_to("a/b")
    (place / "round").symlink_to("round")
    (tmp_path / "alias").symlink_to("place")
    with closing(RealTree(str(tmp_path / "alias"))) as tree:
        places = Places([tree])
        leads = {name: places.lead(name, str(place)).where for name in (
            "short/../file", f"{tmp_path}/alias/a/file", "a/file/x", "a/none", "round", "/", "../x", "a/file",
        )}  # fmt: skip
    assert leads == {
        "short/../file": Where.FOUND, f"{tmp_path}/alias/a/file": Where.FOUND, "a/file": Where.FOUND,
        "a/file/x": Where.MISSING, "a/none": Where.MISSING, "round": Where.CIRCLE, "/": Where.OUTSIDE,
        "../x": Where.OUTSIDE,
    }  # fmt: skip


def test_lying_headers_are_findings(tmp_path: Path):
    """Sizes of 2^62, tables elsewhere, lists of bitmaps without an end: each is one finding; others are read."""
    lies = {"size": (24, struct.pack(">Q", 1 << 62)), "l1": (40, b"\x7f" * 8), "refcounts": (48, b"\x7f" * 8),
            "version": (4, b"\0\0\0\x09"), "clusters": (20, b"\xff" * 4), "snapshots": (60, b"\xff" * 12)}  # fmt: skip
    for name, (at, what) in lies.items():
        patch(image(tmp_path / f"{name}.qcow2"), at, what)
    patch(image(tmp_path / "feature.qcow2"), 72, b"\x80" + bytes(7))
    name_it(tmp_path / "long.qcow2", "x" * MAX_BACKING_NAME_BYTES)
    (tmp_path / "empty.qcow2").touch()
    (tmp_path / "tiny.qcow2").write_bytes(b"QFI\xfb")
    found = look([tmp_path]).rules(rules.A_UNSEEN)
    damaged = {f"{name}.qcow2": {rules.A_DAMAGED} for name in (*lies, "tiny")}
    others = {"feature.qcow2": {rules.A_FEATURE}, "long.qcow2": {rules.A_PARENT}, "empty.qcow2": {rules.A_DISAGREE}}
    assert found == damaged | others


def test_bad_definitions_are_problems_and_never_errors(tmp_path: Path):
    """Bombs, external entities, other encodings, deep nesting, links out, too long: each is told, all at once."""
    bomb = "".join(f"<!ENTITY e{n + 1} '{f'&e{n};' * 10}'>" for n in range(9))
    texts = {
        "bomb": f"<!DOCTYPE a [<!ENTITY e0 'x'>{bomb}]><a>&e9;</a>",
        "outside": "<!DOCTYPE a [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><a>&e;</a>",
        "encoding": "<?xml version='1.0' encoding='no-such'?><a/>",
        "open": "<a><b>",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.xml").write_text(text, encoding="utf-8")
    (tmp_path / "deep.xml").write_text("<a>" * 20000 + "</a>" * 20000, encoding="utf-8")
    (tmp_path / "link.xml").symlink_to("/etc/passwd")
    os.truncate(domain(tmp_path / "long.xml", "x", ""), 5 << 20)
    with closing(RealTree(str(tmp_path))) as tree:
        found = {Path(one.path).stem: one.problem for one in read_definitions(Places([tree]))}
    assert not found.pop("deep")
    assert all(found.values()) and set(found) == {*texts, "link", "long"}


def test_what_cannot_be_listed_is_unknown_and_makes_no_orphan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An image whose base may be in a directory that cannot be read is unknown, not broken."""
    (tmp_path / "place" / "closed").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    image(tmp_path / "place" / "a.qcow2", "closed/base.qcow2")
    domain(tmp_path / "etc" / "x.xml", "x", "")
    real = RealTree.list

    def refuse(tree: RealTree, path: str):
        if path == "closed":
            raise PermissionError(13, "Permission denied")
        return real(tree, path)

    monkeypatch.setattr(RealTree, "list", refuse)
    found = look([tmp_path / "place"], [tmp_path / "etc"])
    assert found.rules(rules.A_UNSURE) == {"a.qcow2": {rules.A_READ, rules.A_UNSEEN}, "closed": {rules.A_READ}}
