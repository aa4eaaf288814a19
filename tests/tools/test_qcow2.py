"""qcow2 headers: what is read agrees with qemu, what is made is clean, and hostile bytes raise only Damaged."""

from __future__ import annotations

import struct
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import BadRequest, Damaged
from engine.tools.qemu.layers import describe
from engine.tools.qemu.qcow2 import (
    CLUSTER_BYTES,
    MAX_FRESH_SIZE,
    MAX_L1_BYTES,
    FreshImage,
    Header,
    fresh_image,
    parse_alike,
    parse_header,
)
from tests.tools.qcow2_kit import header_of, info, make, patch, qcow2, qemu_img

GIB = 1 << 30
TIB = 1 << 40

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=200)


def start_of(image: FreshImage) -> bytes:
    return image.pieces[0][1].ljust(CLUSTER_BYTES, b"\0")


def assert_clean(path: Path) -> None:
    done = qemu_img("check", "-f", "qcow2", path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("size", [512, 4096, 4096 * 333, GIB, 512 * (1 << 20) + 4096, 8 * TIB, MAX_FRESH_SIZE])
def test_fresh_images_are_clean_and_leak_nothing(tmp_path: Path, size: int) -> None:
    """qemu-img check finds neither errors nor leaks in a fresh image of any size, up to the largest."""
    path = make(tmp_path / "image", size)
    assert_clean(path)
    assert info(path)["virtual-size"] == size
    assert header_of(path).size == size


@settings(max_examples=25)
@given(pages=st.integers(1, 1 << 33), backing=st.none() | names, backing_format=st.sampled_from([None, "raw", "qcow2"]))
def test_qemu_reads_what_was_asked_for(
    tmp_path_factory: pytest.TempPathFactory, pages: int, backing: str | None, backing_format: str | None
) -> None:
    """Size, backing name and backing format of a fresh image are read back alike by qemu-img and by us."""
    size = pages * 4096
    path = make(tmp_path_factory.mktemp("fresh") / "image", size, backing, backing_format)
    report = info(path)
    assert (report["virtual-size"], report.get("backing-filename")) == (size, backing)
    assert report.get("backing-filename-format") == (backing_format if backing else None)
    header = header_of(path)
    assert (header.size, header.backing_name, header.backing_format) == (size, backing, backing_format)
    pseudo = describe([qcow2(path)])
    assert qemu_img("check", pseudo).returncode == 0


def test_fresh_images_hold_data(tmp_path: Path) -> None:
    """What qemu writes at both ends of a fresh image and in the middle is read back, and the image stays clean."""
    path = make(tmp_path / "image", TIB + 4096)
    places = [(0xA1, 0), (0xA2, 512 * (1 << 20) - 4096), (0xA3, TIB)]
    for verb in ("write", "read"):
        commands = [word for pattern, at in places for word in ("-c", f"{verb} -P {pattern} {at} 4096")]
        done = subprocess.run(["qemu-io", "-f", "qcow2", *commands, path], check=True, capture_output=True, text=True)
        assert "failed" not in done.stdout
    assert_clean(path)


def test_a_fresh_image_is_described_in_few_bytes() -> None:
    """Even the largest image takes only a few pieces, in ascending order and inside its length."""
    image = fresh_image(MAX_FRESH_SIZE, "t-" + "a" * 32, "qcow2")
    assert sum(len(data) for _, data in image.pieces) < 4096
    ends = [(offset, offset + len(data)) for offset, data in image.pieces]
    assert all(first[1] <= second[0] for first, second in pairwise(ends))
    assert ends[-1][1] <= image.length == 3 * CLUSTER_BYTES + MAX_L1_BYTES


@pytest.mark.parametrize("size", [MAX_FRESH_SIZE + 512, 1 << 53])
def test_a_size_over_the_limit_of_the_l1_table_is_refused_by_name(size: int) -> None:
    """The refusal names the limit in bytes."""
    with pytest.raises(BadRequest, match=f"{MAX_FRESH_SIZE}.*{MAX_L1_BYTES}"):
        fresh_image(size, None, None)


@pytest.mark.parametrize("size", [0, -4096, 511, 4097])
def test_a_size_that_qemu_would_round_is_refused(size: int) -> None:
    """Only positive multiples of a sector are sizes."""
    with pytest.raises(BadRequest):
        fresh_image(size, None, None)


@pytest.mark.parametrize("name", ["", "x" * 1024, "ü" * 512, "nul\0", "\udcff"])
def test_a_backing_name_that_cannot_be_stored_is_refused(name: str) -> None:
    """Empty, longer than 1023 bytes, with a NUL, or not UTF-8."""
    with pytest.raises(BadRequest):
        fresh_image(4096, name, "raw")


CREATED: dict[str, dict[str, object]] = {
    "compat=0.10": {"version": 2},
    "compat=0.10,cluster_size=512": {"version": 2, "cluster_bits": 9},
    "compat=1.1": {"version": 3, "refcount_bits": 16, "backing_name": None, "bitmaps": 0},
    "cluster_size=512": {"cluster_bits": 9},
    "cluster_size=2M": {"cluster_bits": 21},
    "extended_l2=on": {"extended_l2": True},
    "extended_l2=on,cluster_size=16k": {"extended_l2": True, "cluster_bits": 14},
    "lazy_refcounts=on": {"dirty": False},
    "refcount_bits=1": {"refcount_bits": 1},
    "refcount_bits=64": {"refcount_bits": 64},
    "compression_type=zstd": {"compression": True},
    "preallocation=metadata": {"has_data_file": False},
    "backing_file=/etc/hostname,backing_fmt=raw": {"backing_name": "/etc/hostname", "backing_format": "raw"},
    "backing_file=none such,backing_fmt=qcow2,compat=0.10": {"backing_name": "none such", "backing_format": "qcow2"},
    "data_file=data": {"has_data_file": True},
}


@pytest.mark.parametrize("options", CREATED)
def test_headers_made_by_qemu_are_read_as_made(tmp_path: Path, options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever options qemu-img create is given, its header passes and shows them."""
    monkeypatch.chdir(tmp_path)
    done = qemu_img("create", "-q", "-u", "-f", "qcow2", "-o", options, "image", "48M")
    assert done.returncode == 0, done.stderr
    header = header_of(tmp_path / "image")
    expected = CREATED[options]
    assert header.size == 48 << 20
    assert not (header.corrupt or header.encrypted or header.unknown_incompatible or header.internal_snapshots)
    assert {name: getattr(header, name) for name in expected} == expected


def test_encryption_snapshots_and_bitmaps_are_seen(tmp_path: Path) -> None:
    """An encrypted image, one with an internal snapshot and one with a persistent bitmap each tell so."""
    secret = ["--object", "secret,id=s,data=abc", "-o", "encrypt.format=aes,encrypt.key-secret=s"]
    assert qemu_img("create", "-q", "-f", "qcow2", *secret, tmp_path / "aes", "1M").returncode == 0
    assert header_of(tmp_path / "aes").encrypted
    path = make(tmp_path / "image", 1 << 20)
    assert qemu_img("snapshot", "-c", "one", path).returncode == 0
    assert header_of(path).internal_snapshots == 1
    assert header_of(path).bitmaps == 0
    assert qemu_img("bitmap", "-f", "qcow2", "--add", path, "b").returncode == 0
    assert header_of(path).bitmaps == 1


@pytest.mark.parametrize(
    ("bit", "field"), [(0, "dirty"), (1, "corrupt"), (2, "has_data_file"), (4, "extended_l2"), (63, "")]
)
def test_feature_bits_become_facts(bit: int, field: str) -> None:
    """Each incompatible bit is told by its field, one that is not known by the mask."""
    image = fresh_image(4096, None, None)
    start = bytearray(start_of(image))
    start[72:80] = struct.pack(">Q", 1 << bit)
    header = parse_header(bytes(start), image.length)
    assert header.unknown_incompatible == (0 if field else 1 << bit)
    flags = ("dirty", "corrupt", "has_data_file", "extended_l2", "compression")
    assert [name for name in flags if getattr(header, name)] == ([field] if field else [])


def test_a_data_file_is_told_by_its_name_alone() -> None:
    """The header extension with a data file's name counts even when the feature bit was cleared."""
    image = fresh_image(4096, None, None)
    start = bytearray(start_of(image))
    start[112:128] = struct.pack(">II8s", 0x44415441, 6, b"secret")
    assert parse_header(bytes(start), image.length).has_data_file


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (0, b"QFI\xfa", "magic"),
        (4, b"\0\0\0\4", "version 4"),
        (4, b"\0\0\0\1", "version 1"),
        (8, b"\0\0\0\0\xff\0\0\0", "backing name"),
        (20, b"\0\0\0\10", "cluster size"),
        (20, b"\0\0\0\26", "cluster size"),
        (24, b"\x7f" + b"\xff" * 7, "too small"),
        (32, b"\0\0\0\3", "encryption"),
        (36, b"\0\0\0\0", "too small"),
        (36, b"\xff\0\0\0", "L1 table of"),
        (40, b"\0\0\0\0\0\3\2\0", "L1 table at"),
        (40, b"\x7f\xff\xff\xff\xff\xff\0\0", "truncated: its L1"),
        (48, b"\0\0\0\0\0\0\0\0", "reference count table at"),
        (48, b"\0\0\0\1\0\0\0\0", "truncated: its reference"),
        (56, b"\0\0\0\0", "reference count table of"),
        (60, b"\0\1\0\1", "snapshots"),
        (60, b"\0\0\0\1", "snapshot table"),
        (64, b"\0\0\0\0\0\0\1\0", "snapshot table"),
        (64, b"\x80\0\0\0\0\0\0\0", "snapshot table"),
        (96, b"\0\0\0\7", "reference counts"),
        (100, b"\0\0\0\1", "header length"),
        (104, b"\1", "compression"),
        (112, struct.pack(">II", 0xE2792ACA, 16), "backing format"),
        (112, struct.pack(">II", 0x12345678, 0xFFFFFFFF), "extension"),
    ],
)
def test_damage_is_told_precisely(at: int, value: bytes, words: str, tmp_path: Path) -> None:
    """Each broken field is refused with words about that field; qemu refuses or doubts the same image."""
    image = fresh_image(1 << 20, None, None)
    start = bytearray(start_of(image))
    start[at : at + len(value)] = value
    with pytest.raises(Damaged, match=words):
        parse_header(bytes(start), image.length)
    path = make(tmp_path / "image", 1 << 20)
    patch(path, at, value)
    assert qemu_img("check", "-f", "qcow2", path).returncode != 0


@pytest.mark.parametrize("length", [0, 71, 103, 65536, 131071, 196615])
def test_a_truncated_file_is_damaged(tmp_path: Path, length: int) -> None:
    """A file that ends before its header or its tables do is refused, and says where it ends."""
    path = make(tmp_path / "image", 1 << 20)
    with open(path, "r+b") as file:
        file.truncate(length)
    with pytest.raises(Damaged, match=str(length)):
        header_of(path)


def test_the_shortest_file_that_qemu_makes_is_whole(tmp_path: Path) -> None:
    """qemu-img create ends the file behind the last L1 entry, inside of a cluster: not truncated."""
    assert qemu_img("create", "-q", "-f", "qcow2", tmp_path / "image", "1M").returncode == 0
    length = (tmp_path / "image").stat().st_size
    header = header_of(tmp_path / "image")
    assert header.l1_offset + 8 * header.l1_entries <= length < header.l1_offset + CLUSTER_BYTES


mutations = st.lists(st.tuples(st.integers(0, 200), st.binary(min_size=1, max_size=8)), max_size=5)


@settings(max_examples=400)
@given(
    version=st.sampled_from([2, 3]),
    backing=st.none() | names,
    changes=mutations,
    cut=st.none() | st.integers(0, CLUSTER_BYTES),
    length=st.integers(0, 1 << 64),
)
def test_hostile_headers_raise_only_damaged(
    version: int, backing: str | None, changes: list[tuple[int, bytes]], cut: int | None, length: int
) -> None:
    """However a header is changed or cut, the result is a Header whose tables are in the file, or Damaged."""
    start = bytearray(start_of(fresh_image(1 << 30, backing, "raw")))
    start[4:8] = struct.pack(">I", version)
    for at, data in changes:
        start[at : at + len(data)] = data
    data = bytes(start[:cut])
    try:
        header = parse_header(data, max(length, len(data)))
    except Damaged as error:
        assert len(error.message) < 1000
        return
    assert header.l1_offset + 8 * header.l1_entries <= max(length, len(data))
    if header.backing_name is not None:
        header.backing_name.encode("utf-8")


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_noise_raises_only_damaged(data: bytes) -> None:
    """Random bytes, also behind the right magic and version, are Damaged or a sane header."""
    for start in (data, b"QFI\xfb\0\0\0\3" + data, b"QFI\xfb\0\0\0\2" + data):
        try:
            assert isinstance(parse_header(start, len(start)), Header)
        except Damaged:
            continue


@settings(max_examples=30)
@given(changes=mutations)
def test_what_passes_is_what_qemu_opens(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, bytes]]
) -> None:
    """A mutated image that we call sane and ordinary has for qemu the size and the names that we saw."""
    path = make(tmp_path_factory.mktemp("mutated") / "image", 1 << 30, "t-0", "raw")
    for at, data in changes:
        patch(path, at, data)
    try:
        header = header_of(path)
    except Damaged:
        return
    strange = header.unknown_incompatible or header.has_data_file or header.encrypted or header.internal_snapshots
    if strange or header.bitmaps or header.size % 512 or "\\" in (header.backing_name or ""):
        return
    report = info(path)
    assert report["virtual-size"] == header.size
    assert (report.get("backing-filename") or "") == (header.backing_name or "").split("\0")[0]


def test_headers_of_many_images_are_what_each_of_them_says():
    """Only the first of those that are alike is parsed: whatever a header has as name, and wherever it stands."""
    fresh = fresh_image(1 << 30, "t-" + "1" * 32, "qcow2").pieces[0][1]
    start = fresh.ljust(1024, b"\0")
    offset, length = int.from_bytes(start[8:16]), int.from_bytes(start[16:20])
    other = start[:offset] + b"t-" + b"2" * 32 + start[offset + length :]
    starts = [start, other, start[:16] + bytes(4) + start[20:], start[:16] + b"\0\0\4\1" + start[20:], start[:100]]
    starts += [
        start[:8] + place.to_bytes(8) + start[16:] for place in (0, 1, 71, 72, 100, 104, 108, 112, 1000, 1 << 62)
    ]
    starts += [start[:100] + long.to_bytes(4) + start[104:] for long in (0, 72, 104, 111, 112, 120, 130, 1 << 31)]
    starts += [start[:at] + bytes([value]) + start[at + 1 :] for at in range(130) for value in (0, 1, 255)]
    for place, long, at in ((72, 8, 79), (104, 1, 104)):  # a name that is a flag of the header, too
        starts.append(start[:8] + place.to_bytes(8) + long.to_bytes(4) + start[20:at] + b"\1" + start[at + 1 :])

    def told(parse, raw):
        try:
            return parse(raw, 1 << 20)
        except Damaged as error:
            return error.message

    def whole(raw, length):
        header, name = parse_alike(raw, length)
        return header._replace(backing_name=name)

    for raw in starts + starts:
        assert told(whole, raw) == told(parse_header, raw)
