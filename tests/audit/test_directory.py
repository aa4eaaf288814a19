"""A pool of libvirt, made with the real tools: every planted defect is found, and no image in use is an orphan."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from engine.api import Engine
from engine.assembly import real_doors
from engine.audit import rules
from engine.data.model import Status
from engine.tools.local import openers
from tests.audit.kit import MIB, Looked, disk, domain, image, look, raw, tool
from tests.tools.qcow2_kit import patch

NEWLINE = "two\nlines.qcow2"


class Pool(NamedTuple):
    top: Path
    pool: Path
    bases: Path
    vms: Path


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    top = tmp_path_factory.mktemp("libvirt")
    found = Pool(top, top / "pool", top / "bases", top / "etc")
    for path in (found.pool, found.bases, found.vms, found.pool / "nvram", top / "elsewhere"):
        path.mkdir()
    _defects(found)
    _traps(found)
    return found


def _defects(pool: Pool) -> None:
    here = pool.pool
    image(here / "base.qcow2")
    image(here / "web.qcow2", "base.qcow2")
    image(here / "lost.qcow2", "gone.qcow2")
    image(here / "on-lost.qcow2", "lost.qcow2")
    image(here / "loop-a.qcow2", "loop-b.qcow2")
    image(here / "loop-b.qcow2", "loop-a.qcow2")
    image(here / "away.qcow2", f"{pool.top}/elsewhere/base.qcow2")
    image(here / "wrong-format.qcow2", "base.qcow2", stated="raw")
    image(here / "cut.qcow2")
    subprocess.run(["qemu-io", "-c", "write 0 4M", here / "cut.qcow2"], check=True, capture_output=True)
    os.truncate(here / "cut.qcow2", 2 * MIB)
    image(here / "snapshots.qcow2")
    tool("snapshot", "-c", "before", here / "snapshots.qcow2")
    image(here / "bitmap.qcow2")
    tool("bitmap", "--add", here / "bitmap.qcow2", "backup")
    raw_bytes = (here / "bitmap.qcow2").read_bytes()
    patch(here / "bitmap.qcow2", raw_bytes.rindex(b"backup") - 12, b"\0\0\0\1")  # the flag that it is in use
    image(here / "secret.qcow2")
    patch(here / "secret.qcow2", 32, b"\0\0\0\1")
    image(here / "damaged.qcow2")
    patch(here / "damaged.qcow2", 40, b"\xff" * 8)
    raw(here / "not-one.qcow2")
    raw(here / "web.img.partial")
    image(here / "orphan.qcow2", "orphan-base.qcow2")
    image(here / "orphan-base.qcow2")
    previous = ""
    for number in range(18):
        image(here / f"deep-{number}.qcow2", previous)
        previous = f"deep-{number}.qcow2"
    domain(pool.vms / "broken.xml", "broken", "".join(disk(here / f"{name}.qcow2") for name in (
        "web", "on-lost", "loop-a", "loop-b", "wrong-format", "cut", "snapshots", "bitmap", "secret", "not-one",
        "deep-17", "never-made",
    )))  # fmt: skip


def _traps(pool: Pool) -> None:
    here = pool.pool
    tool(
        "create", "-q", "-f", "qcow2", "-o", f"data_file={here}/split.bin,data_file_raw=on", here / "split.qcow2", "8M"
    )
    raw(here / "nvram" / "web.fd", b"\0" * 0x28 + b"_FVH")
    raw(here / "web_VARS.fd")
    raw(here / "tpm2-00.permall")
    raw(here / "setup.iso", b"\0" * 0x8001 + b"CD001")
    image(here / "on-iso.qcow2", "setup.iso", stated="raw")
    image(pool.bases / "golden.qcow2")
    image(here / "from-golden.qcow2", f"{pool.bases}/golden.qcow2")
    image(here / NEWLINE)
    image(here / "on-newline.qcow2", NEWLINE)
    image(here / "by-argument.img")
    image(here / "by-volume.qcow2")
    image(here / "by-snapshot.qcow2")
    image(here / "by-link.qcow2")
    (pool.bases / "link").symlink_to("../pool/by-link.qcow2")
    image(here / "hard.qcow2")
    os.link(here / "hard.qcow2", pool.top / "elsewhere" / "hard.qcow2")
    (here / "notes.txt").write_text("not an image", encoding="utf-8")
    domain(pool.vms / "traps.xml", "traps", "".join((
        disk(here / "split.qcow2"), disk(here / "on-iso.qcow2"), disk(here / "from-golden.qcow2"),
        disk(here / "on-newline.qcow2"), disk(pool.bases / "link"),
        "<disk type='volume' device='disk'><source pool='default' volume='by-volume.qcow2'/></disk>",
        f"<arg value='file={here}/by-argument.img,if=virtio,format=raw'/>",
    )))  # fmt: skip
    (pool.vms / "snapshot.xml").write_text(
        f"<domainsnapshot><name>s</name><inactiveDomain>{disk(here / 'by-snapshot.qcow2')}</inactiveDomain>"
        "</domainsnapshot>",
        encoding="utf-8",
    )


PLANTED = {
    "lost.qcow2": {rules.A_PARENT},
    "on-lost.qcow2": {rules.A_BASE},
    "loop-a.qcow2": {rules.A_LOOP},
    "loop-b.qcow2": {rules.A_LOOP},
    "away.qcow2": {rules.A_OUTSIDE},
    "wrong-format.qcow2": {rules.A_FORMAT},
    "cut.qcow2": {rules.A_SHORT},
    "snapshots.qcow2": {rules.A_SNAPSHOTS},
    "bitmap.qcow2": {rules.A_BITMAPS},
    "secret.qcow2": {rules.A_ENCRYPTED},
    "damaged.qcow2": {rules.A_DAMAGED},
    "not-one.qcow2": {rules.A_DISAGREE},
    "web.img.partial": {rules.A_REMNANT},
    "deep-16.qcow2": {rules.A_DEPTH},
    "deep-17.qcow2": {rules.A_DEPTH},
    "split.qcow2": {rules.A_EXTERNAL},
    "from-golden.qcow2": {rules.A_ABSOLUTE},
    "../etc/broken.xml": {rules.A_MISSING},
}
UNREFERENCED = {"away.qcow2", "damaged.qcow2", "hard.qcow2", "lost.qcow2", "orphan.qcow2"}


def all_of(pool: Pool, complete: bool = True) -> Looked:
    return look([pool.pool, pool.bases], [pool.vms], complete)


def test_every_planted_defect_is_found_and_nothing_else(pool: Pool):
    """Each defect is told by its rule, and images that have none are told nothing."""
    found = all_of(pool).rules(rules.A_UNSEEN, rules.A_UNSURE)
    told = {path.replace(f"{pool.top}/etc", "../etc"): codes for path, codes in found.items()}
    assert told == PLANTED


def test_doubt_makes_no_orphan(pool: Pool):
    """One image that leads out, and one that is damaged, may refer to any other: then nothing is called an orphan."""
    found = all_of(pool)
    assert not found.files(rules.A_ORPHAN)
    assert found.files(rules.A_UNSEEN) == UNREFERENCED - {"lost.qcow2"}
    assert any("elsewhere/base.qcow2" in why for why in found.report.unsure)
    assert any("damaged.qcow2" in why for why in found.report.unsure)


def test_only_orphans_are_called_orphans(pool: Pool, tmp_path: Path):
    """With the doubtful ones in the given places too, exactly the planted orphans are told, chain and all; an image
    that has another name elsewhere, and each trap, is none."""
    held = [pool.pool / "damaged.qcow2", pool.pool / "away.qcow2"]
    for path in held:
        path.rename(tmp_path / path.name)
    try:
        found = all_of(pool)
        assert found.files(rules.A_ORPHAN) == {"orphan.qcow2", "orphan-base.qcow2"}
        assert found.files(rules.A_UNSEEN) == {"hard.qcow2"}
        orphan = next(one for one in found.report.findings if one.rule == rules.A_ORPHAN)
        assert orphan.size_bytes > 0 and orphan.command[:2] == ("rm", "--")
        assert not all_of(pool, complete=False).files(rules.A_ORPHAN)
    finally:
        for path in held:
            (tmp_path / path.name).rename(path)


@pytest.mark.parametrize("spoilt", ["<domain><name>x</name", "\0binary", "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"])
def test_a_definition_that_is_not_understood_makes_no_orphan(tmp_path: Path, spoilt: str):
    """What cannot be read may refer to anything."""
    (tmp_path / "pool").mkdir()
    (tmp_path / "etc").mkdir()
    image(tmp_path / "pool" / "a.qcow2")
    domain(tmp_path / "etc" / "good.xml", "good", "")
    assert look([tmp_path / "pool"], [tmp_path / "etc"]).files(rules.A_ORPHAN) == {"a.qcow2"}
    (tmp_path / "etc" / "bad.xml").write_text(spoilt, encoding="utf-8")
    found = look([tmp_path / "pool"], [tmp_path / "etc"])
    assert not found.files(rules.A_ORPHAN) and found.files(rules.A_UNSURE) == {f"{tmp_path}/etc/bad.xml"}


def test_files_that_are_no_images_are_counted_by_what_they_are(pool: Pool):
    """NVRAM, TPM state and media are named as such; an ISO that an image stands on is an image too, in order."""
    found = all_of(pool)
    assert found.report.others == {"metadata": 1, "nvram": 2, "remnant": 1, "tpm": 1}
    assert found.image("setup.iso").status is Status.OPTIMIZED
    assert found.image("web.qcow2").parent == f"{pool.pool}/base.qcow2"
    assert found.image("web.qcow2").used_by == ("broken",)


def test_a_deep_audit_finds_leaks_and_corruptions(tmp_path: Path):
    """qemu-img check tells what the tables alone do: leaked clusters with their bytes, corrupt entries."""
    leaked, corrupt = image(tmp_path / "leaked.qcow2"), image(tmp_path / "corrupt.qcow2")
    subprocess.run(["qemu-io", "-c", "write 0 64k", leaked], check=True, capture_output=True)
    subprocess.run(["qemu-io", "-c", "write 0 64k", corrupt], check=True, capture_output=True)
    length = leaked.stat().st_size
    os.truncate(leaked, length + 65536)
    patch(leaked, 2 * 65536 + 2 * (length // 65536), b"\0\1")  # counted, and used by nothing
    patch(corrupt, 2 * 65536 + 2 * 5, b"\0\0")  # used, and not counted
    assert look([tmp_path]).rules(rules.A_UNSEEN) == {}
    found = look([tmp_path], deep=True)
    assert found.rules(rules.A_UNSEEN) == {"leaked.qcow2": {rules.A_LEAKS}, "corrupt.qcow2": {rules.A_CORRUPT}}


def test_who_has_an_image_open_is_told_and_it_is_no_orphan(tmp_path: Path):
    """An image that a program has open is in use, whatever the definitions say; it is not checked meanwhile."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "pool").mkdir()
    domain(tmp_path / "etc" / "good.xml", "good", "")
    path = image(tmp_path / "pool" / "a.qcow2")
    with subprocess.Popen(
        ["qemu-io", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as program:
        assert program.stdin is not None and program.stdout is not None
        program.stdin.write(b"write 0 64k\n")
        program.stdin.flush()
        program.stdout.readline()
        found = look([tmp_path / "pool"], [tmp_path / "etc"], deep=True)
        program.stdin.close()
    assert found.rules() == {"a.qcow2": {rules.A_OPEN}}
    assert "qemu-io" in found.reasons("a.qcow2")[0]


@pytest.mark.parametrize("shared", ["{pool}/sub", "{pool}/", "{top}", "{alias}/sub"])
def test_what_is_in_a_directory_that_a_machine_is_given_is_no_orphan(tmp_path: Path, shared: str):
    """A file system that is shared with a machine has images whose names no definition says; other images are not in
    it."""
    for path in ("pool/sub", "etc"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "alias").symlink_to("pool")
    image(tmp_path / "pool" / "sub" / "a.qcow2")
    image(tmp_path / "pool" / "b.qcow2")
    given = shared.format(pool=tmp_path / "pool", top=tmp_path, alias=tmp_path / "alias")
    domain(tmp_path / "etc" / "x.xml", "x", f"<filesystem type='mount'><source dir='{given}'/></filesystem>")
    found = look([tmp_path / "alias"], [tmp_path / "etc"], top=tmp_path / "pool")
    assert found.files(rules.A_ORPHAN) == ({"b.qcow2"} if "sub" in shared else set())


def test_an_image_behind_a_loop_device_is_no_orphan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The kernel has it open without a lock; the device is named."""
    for path in ("pool", "etc", "sys/loop7/loop"):
        (tmp_path / path).mkdir(parents=True)
    behind = raw(tmp_path / "pool" / "a.img")
    domain(tmp_path / "etc" / "x.xml", "x", "")
    (tmp_path / "sys/loop7/ro").write_text("0\n", encoding="ascii")
    (tmp_path / "sys/loop7/loop/backing_file").write_text(f"{behind}\n", encoding="utf-8")
    monkeypatch.setattr(openers, "_BLOCK", str(tmp_path / "sys"))
    found = look([tmp_path / "pool"], [tmp_path / "etc"])
    assert found.rules() == {"a.img": {rules.A_OPEN}}
    assert found.reasons("a.img") == ["it is open: the loop device /dev/loop7"]


def test_a_look_changes_no_time_of_access(tmp_path: Path):
    """Of the place itself, a directory in it, and an image: whoever owns them, or is root, leaves no trace."""
    (tmp_path / "place" / "sub").mkdir(parents=True)
    paths = [tmp_path / "place", tmp_path / "place" / "sub", raw(tmp_path / "place" / "sub" / "a.img")]
    for path in paths:
        os.utime(path, (1, 1))  # one that is older than the last change is always set anew
    assert len(look([paths[0]]).report.images) == 1
    assert [path.stat().st_atime for path in paths] == [1, 1, 1]


def test_an_image_costs_a_few_calls_and_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The speed of an audit: three opens an image at most, however many there are, and nothing is started."""
    for number in range(20):
        image(tmp_path / f"{number}.qcow2", f"{number - 1}.qcow2" if number % 5 else "")
    opened = 0
    real = os.open

    def counted(*words: object, **more: object) -> int:
        nonlocal opened
        opened += 1
        return real(*words, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", counted)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    assert len(look([tmp_path]).report.images) == 20
    assert opened <= 3 * 20 + 2


def test_no_part_of_a_repository_is_an_orphan(tmp_path: Path):
    """Found so: its volumes were, with the command that deletes them, and their chains were broken. Whatever part of it
    is given; what lies beside its parts is judged as ever, and an unfinished adoption has a name in both."""
    pool, etc = tmp_path / "pool", tmp_path / "etc"
    place = pool / "repository"
    for path in (pool, place, etc):
        path.mkdir()
    engine = Engine(real_doors("host-a"), str(tmp_path / "state"))
    engine.create_repository("localfs-1.0", {"path": str(place)})
    engine.connect_storage_repository("a", "localfs-1.0", {"path": str(place)})
    made = engine.create_virtual_disk("a", 8 * MIB)
    (volume,) = (place / "volumes").glob("*/*.qcow2")
    os.link(volume, pool / "being-adopted.qcow2")
    image(place / "lost" / f"{'0f' * 16}.qcow2")
    engine.create_snapshot("a", made)
    engine.close()
    domain(etc / "web.xml", "web", disk(image(pool / "web.qcow2")))
    image(place / "forgotten.qcow2")
    found = look([pool], [etc])
    assert found.rules() == {"repository/forgotten.qcow2": {rules.A_ORPHAN}}
    assert found.report.others["repository"] > 5
    for part in (place, place / "volumes", volume.parent, place / "lost"):
        left = look([part], [etc], top=tmp_path).rules(rules.A_UNSURE)
        assert not [path for path in left if {"volumes", "lost", "ballast"} & set(path.split("/"))], left
