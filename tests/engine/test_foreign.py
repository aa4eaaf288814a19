"""Image files of other programs: each goes in and out and compares equal, and none makes a tool open another file."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.copying import ova
from engine.data.model import Status
from engine.errors import BadRequest, DiskwrightError, NotFound, Refused
from engine.tools.qemu import foreign
from tests.crash.kit import MiB, content
from tests.engine.kit import NO_FIX, run, state_of

DRIVERS = {"vmdk": "vmdk", "vhdx": "vhdx", "vhd": "vpc", "vdi": "vdi"}
OPTIONS = {"vhd": ("-o", "force_size=on")}
STREAM = ("-o", "subformat=streamOptimized")
PATTERN = b"\1" * MiB + bytes(5 * MiB) + bytes(range(256)) * 4096 + bytes(MiB)


def tool(*words: str | Path) -> None:
    subprocess.run(["qemu-img", *words], check=True, capture_output=True)


def make(path: Path, format: str, *options: str, data: bytes = PATTERN) -> Path:
    source = path.with_suffix(".source")
    source.write_bytes(data)
    tool("convert", "-f", "raw", "-O", DRIVERS[format], *OPTIONS.get(format, ()), *options, source, path)
    return path


def archive(path: Path, *members: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def import_now(engine, path: Path, format: str) -> str:
    image: str = engine.import_image("a", str(path), format, options=NO_FIX)
    run(engine, "a", "B-IMPORT")
    return image


@pytest.mark.parametrize("format", DRIVERS)
def test_every_format_goes_in_and_out_and_compares_equal(engine, tmp_path, format):
    """What was imported reads as it was, and what is exported again is the same to qemu-img compare."""
    path = make(tmp_path / f"in.{format}", format)
    image = import_now(engine, path, format)
    assert content(engine, "a", image, tmp_path) == PATTERN
    engine.export_image("a", image, str(tmp_path / "out"), format)
    tool("compare", "-f", DRIVERS[format], "-F", "raw", tmp_path / "out", path.with_suffix(".source"))
    assert not list(tmp_path.glob("*.partial"))


def test_compressed_images_go_in_and_out(engine, tmp_path):
    """A stream-optimised VMDK is imported; a qcow2 with zstd is written, is smaller, and compares equal."""
    path = make(tmp_path / "in.vmdk", "vmdk", *STREAM)
    image = import_now(engine, path, "vmdk")
    assert content(engine, "a", image, tmp_path) == PATTERN
    engine.export_image("a", image, str(tmp_path / "out"), "qcow2-zstd")
    tool("compare", "-f", "qcow2", "-F", "raw", tmp_path / "out", path.with_suffix(".source"))
    assert (tmp_path / "out").stat().st_size < MiB
    said = subprocess.run(["qemu-img", "info", tmp_path / "out"], check=True, capture_output=True, text=True).stdout
    assert "compression type: zstd" in said


def test_each_disk_of_an_archive_is_imported_where_it_lies(engine, tmp_path):
    """By its number; without one an archive of several disks is refused with their names."""
    one = make(tmp_path / "one.vmdk", "vmdk", *STREAM).read_bytes()
    two = make(tmp_path / "two.vmdk", "vmdk", *STREAM, data=b"\2" * MiB).read_bytes()
    long = f"{'n' * 150}.vmdk"
    path = archive(tmp_path / "x.ova", ("x.ovf", b"<Envelope/>"), ("../../one.vmdk", one), (long, two))
    assert content(engine, "a", import_now(engine, path, "ova:1"), tmp_path) == PATTERN
    assert content(engine, "a", import_now(engine, path, "ova:2"), tmp_path) == b"\2" * MiB
    with pytest.raises(BadRequest, match=r"has 2 disks.*ova:1 \('../../one.vmdk'\)"):
        engine.import_image("a", str(path), "ova", options=NO_FIX)
    with pytest.raises(NotFound, match="disk 3 was asked for"):
        engine.import_image("a", str(path), "ova:3", options=NO_FIX)
    assert {path.name for path in tmp_path.iterdir()} & {"one.vmdk", "one"} == {"one.vmdk"}


DESCRIPTOR = """\
# Disk DescriptorFile
version=1
CID=1
parentCID=ffffffff
createType="{kind}"
RW 16384 {extent} "/etc/shadow"
"""


def sparse(path: Path, old: str, new: str) -> Path:
    """A VMDK whose embedded descriptor says something else."""
    at = make(path, "vmdk").read_bytes().index(old.encode())
    return with_word(path, at, new.ljust(len(old)).encode())


def with_word(path: Path, at: int, word: bytes) -> Path:
    with open(path, "r+b") as stream:
        stream.seek(at)
        stream.write(word)
    return path


def text_alone(tmp_path: Path) -> Path:
    path = tmp_path / "text.vmdk"
    path.write_text(DESCRIPTOR.format(kind="monolithicFlat", extent="FLAT"), encoding="utf-8")
    return path


def differencing_vhdx(tmp_path: Path) -> Path:
    path = make(tmp_path / "d.vhdx", "vhdx")
    return with_word(path, path.read_bytes().index(b"metadata") + (64 << 10) + 4, b"\2")


HOSTILE: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "descriptor": ("vmdk", text_alone),
    "kind": ("vmdk", lambda top: sparse(top / "k", "monolithicSparse", "monolithicFlat")),
    "parent": ("vmdk", lambda top: sparse(top / "p", "parentCID=ffffffff", "parentCID=12345678")),
    "extent": ("vmdk", lambda top: sparse(top / "e", " SPARSE ", " FLAT   ")),
    "no capacity": ("vmdk", lambda top: with_word(make(top / "c", "vmdk"), 12, bytes(8))),
    "differencing vhd": ("vhd", lambda top: with_word(make(top / "d", "vhd"), 60, struct.pack(">I", 4))),
    "differencing vdi": ("vdi", lambda top: with_word(make(top / "d", "vdi"), 76, struct.pack("<I", 4))),
    "differencing vhdx": ("vhdx", differencing_vhdx),
}


@pytest.mark.parametrize("way", HOSTILE)
def test_a_file_that_needs_others_is_refused_before_a_tool_opens_it(engine, tmp_path, monkeypatch, way):
    """Extents and parents of VMDK, differencing VHD, VHDX and VDI: one sentence, no process, nothing left."""
    format, made = HOSTILE[way]
    path = made(tmp_path)
    monkeypatch.setattr(engine.context.doors.images, "_version_known", True)  # else it is asked for
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("a tool was started"))
    with pytest.raises(Refused, match="nothing it names is followed"):
        engine.import_image("a", str(path), format, options=NO_FIX)
    assert engine.list_images("a") == []


def with_size(path: Path, format: str, size: int) -> Path:
    """The same image with another size in its header."""
    data = path.read_bytes()
    in_vhdx = data.find(b"metadata") + (64 << 10) + 8
    at = {"vmdk": 12, "vhd": 48, "vdi": 368, "vhdx": in_vhdx}[format]
    return with_word(path, at, struct.pack(">Q" if format == "vhd" else "<Q", size // (512 if format == "vmdk" else 1)))


@pytest.mark.parametrize("format", DRIVERS)
def test_the_size_is_held_against_the_limit_before_a_tool_opens_the_file(engine, tmp_path, monkeypatch, format):
    """A tool makes tables for the size that the header has, however short the file is."""
    constraints = engine.context.repository("a").constraints()
    path = with_size(make(tmp_path / f"big.{format}", format), format, constraints.max_image_bytes + 512)
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("a tool was started"))
    with pytest.raises(Refused, match=f"has {constraints.max_image_bytes + 512} bytes, and there can be at most"):
        engine.import_image("a", str(path), format, options=NO_FIX)
    assert engine.list_images("a") == []


@pytest.mark.parametrize(("format", "at", "form"), [("vdi", 384, "<I"), ("vhd", 512 + 28, ">I")])
def test_a_table_of_blocks_that_is_not_in_the_file_is_never_read(engine, tmp_path, monkeypatch, format, at, form):
    """A tool holds it whole in memory: a file of 2 MiB made it take half a GiB."""
    path = with_word(make(tmp_path / f"big.{format}", format), at, struct.pack(form, 0x8000000))
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("a tool was started"))
    with pytest.raises(BadRequest, match="its table of blocks has 536870912 bytes at"):
        engine.import_image("a", str(path), format, options=NO_FIX)


def test_a_hostile_descriptor_is_understood_in_linear_time():
    """Thousands of empty lines: each is looked at once."""
    begun = time.process_time()
    assert foreign._EXTENT.findall("\n" * 65536 + "RW 1 SPARSE") == ["SPARSE"]
    assert foreign._EXTENT.findall("\n\n RW\t16 FLAT\r\nRW\n1 SPARSE\n") == ["FLAT"]
    assert time.process_time() - begun < 1


@pytest.mark.parametrize("format", [*DRIVERS, "ova"])
def test_what_is_not_of_the_format_is_refused(engine, tmp_path, format):
    """Empty files, zeros, random bytes, and files of another format: told by the name of the file."""
    for name, data in {"empty": b"", "zeros": bytes(MiB), "random": os.urandom(MiB), "mark": b"KDMVvhdxfile"}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises((BadRequest, Refused), match=name):
            engine.import_image("a", str(tmp_path / name), format, options=NO_FIX)
    assert engine.list_images("a") == []


@pytest.mark.parametrize(
    ("format", "options"), [("vmdk", ()), ("vmdk", STREAM), ("vhdx", ()), ("vhd", ()), ("vdi", ())]
)
def test_a_file_that_was_cut_off_is_never_an_image(engine, tmp_path, format, options):
    """Refused when it is named, or before the seal; what is behind its end never reads as zeros."""
    path = make(tmp_path / f"cut.{format}", format, *options, data=bytes(MiB) + os.urandom(7 * MiB))
    os.truncate(path, path.stat().st_size - MiB // 2)
    try:
        image = engine.import_image("a", str(path), format, options=NO_FIX)
    except DiskwrightError:
        assert engine.list_images("a") == []
        return
    with pytest.raises(DiskwrightError):
        run(engine, "a", "B-IMPORT")
    assert state_of(engine, "a", image) == Status.BROKEN


def test_an_archive_that_lies_is_refused(engine, tmp_path):
    """Lengths beyond the end, in octal and in binary, headers without a mark, thousands of members."""
    good = archive(tmp_path / "x.ova", ("a.vmdk", b"x" * 1024)).read_bytes()
    lies = {
        "octal": good[:124] + b"77777777777\0" + good[136:],
        "binary": good[:124] + b"\xff" * 12 + good[136:],
        "text": good[:124] + b"one thousand" + good[136:],
        "mark": good[:257] + b"xxxxx" + good[262:],
        "many": good[:1536] * 1001,
    }
    for name, data in lies.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BadRequest, match=f"{name}.* is no OVA"):
            engine.import_image("a", str(tmp_path / name), "ova:1", options=NO_FIX)


def test_a_member_of_more_than_8_gib_is_found_where_it_lies():
    """Its length is in a header before it, as pax has it, or in binary, as GNU has it; the next one comes after it."""
    size = (8 << 30) + 512
    for format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        info = tarfile.TarInfo(f"{'n' * 150}.vmdk")
        info.size = size
        first = info.tobuf(format)
        after = tarfile.TarInfo("b.vmdk").tobuf(format) + bytes(1024)

        def read(offset: int, count: int, first: bytes = first, after: bytes = after) -> bytes:
            if offset < len(first):
                return first[offset : offset + count]
            at = offset - len(first) - size
            assert at >= 0, "the bytes of the disk are no header"
            return after[at : at + count]

        found = ova.disks(read, len(first) + size + len(after), "x.ova")
        assert [(disk.offset, disk.length) for disk in found] == [(len(first), size), (len(first) + size + 512, 0)]
        assert found[0].name == info.name


def test_an_image_is_streamed_with_its_exact_length(engine, tmp_path):
    """In order, raw, to whatever takes bytes."""
    (tmp_path / "odd.raw").write_bytes(PATTERN + b"end")
    image = import_now(engine, tmp_path / "odd.raw", "raw")
    taken = io.BytesIO()
    engine.stream_image("a", image, taken.write)
    assert taken.getvalue() == PATTERN + b"end"
