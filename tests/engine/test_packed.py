"""Compressed raw images: taken in by their content, resumed from the start, never sealed when they are not whole."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from engine.data.model import Status, VolumeFormat, WaitKind
from engine.doors.images import Layer
from engine.errors import BadRequest, DiskwrightError, Refused
from engine.fixes import fill
from engine.tools.packed.session import UnpackSession
from tests.crash.kit import MiB, content
from tests.engine.kit import NO_FIX, run, state_of

PROGRAMS = {"xz": ("xz", "-1", "-T1"), "gz": ("gzip", "-1"), "zst": ("zstd", "-q", "-1")}
EVERY = pytest.mark.parametrize("packing", PROGRAMS)
DATA = os.urandom(MiB) + bytes(5 * MiB) + b"\7" * MiB + b"odd end"


def pack(path: Path, packing: str, data: bytes = DATA) -> Path:
    path.write_bytes(subprocess.run([*PROGRAMS[packing], "-c"], input=data, check=True, capture_output=True).stdout)
    return path


@EVERY
def test_a_compressed_image_is_imported(engine, tmp_path, packing):
    """To its last byte, also when that is no whole sector, and when the file is two that were joined."""
    path = pack(tmp_path / "in", packing)
    with open(path, "ab") as stream:
        stream.write(pack(tmp_path / "more", packing, b"more").read_bytes())
    image = engine.import_image("a", str(path), f"raw.{packing}", options=NO_FIX)
    run(engine, "a", "B-IMPORT")
    assert content(engine, "a", image, tmp_path) == DATA + b"more"


@EVERY
@pytest.mark.parametrize("lost", [1, 1000])
def test_a_compressed_image_that_is_not_whole_is_refused(engine, tmp_path, packing, lost):
    """Cut off by a byte or by more, or with one bit that is another: by the program's own checksums."""
    path = pack(tmp_path / "cut", packing)
    whole = path.read_bytes()
    path.write_bytes(whole[:-lost])
    with pytest.raises(Refused, match="cut"):
        engine.import_image("a", str(path), f"raw.{packing}", options=NO_FIX)
    path.write_bytes(whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :])
    if packing != "zst":  # which has a checksum of its content only where it was asked for
        with pytest.raises(Refused, match="cut"):
            engine.import_image("a", str(path), f"raw.{packing}", options=NO_FIX)
    assert engine.list_images("a") == []


@EVERY
def test_an_interrupted_import_goes_on_and_ends_right(engine, tmp_path, packing, monkeypatch):
    """What is below the cursor is unpacked again and thrown away; the result is the same."""
    data = os.urandom(1 << 16) * 384
    path = pack(tmp_path / "in", packing, data)
    image = engine.import_image("a", str(path), f"raw.{packing}", options=NO_FIX)
    real = UnpackSession._next
    taken = 0

    def failing(session: UnpackSession, length: int, whole: bool = True) -> bytes:
        nonlocal taken
        taken += length
        if taken > 20 * MiB:
            raise Refused("enough")
        return real(session, length, whole)

    with monkeypatch.context() as patched:
        patched.setattr(UnpackSession, "_next", failing)
        with pytest.raises(DiskwrightError, match="enough"):
            run(engine, "a", "B-IMPORT")
    assert state_of(engine, "a", image) == Status.BROKEN
    run(engine, "a", "B-IMPORT")
    assert content(engine, "a", image, tmp_path) == data


def test_what_cannot_be_read_in_order_or_is_something_else_is_refused(engine, tmp_path):
    """A qcow2 within, a file that is not compressed in that way, an empty one; a name that begins like an option."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "q", "1M"], check=True)
    inner = pack(tmp_path / "-q.xz", "xz", (tmp_path / "q").read_bytes())
    with pytest.raises(Refused, match="holds a qcow2 image"):
        engine.import_image("a", str(inner), "raw.xz", options=NO_FIX)
    for packing in PROGRAMS:
        for name, data in (("other", b"x" * 5000), ("empty", b"")):
            (tmp_path / name).write_bytes(data)
            with pytest.raises((Refused, BadRequest)):
                engine.import_image("a", str(tmp_path / name), f"raw.{packing}", options=NO_FIX)
    assert engine.list_images("a") == []


def test_no_more_is_unpacked_than_the_repository_can_hold(engine, tmp_path, monkeypatch):
    """A few bytes may unpack to any length: what is over the limit of one image is refused as soon as it is there."""
    path = pack(tmp_path / "bomb", "gz", bytes(64 * MiB))
    repository = type(engine.context.repository("a"))
    limited = engine.context.repository("a").constraints()._replace(max_image_bytes=2 * MiB)
    monkeypatch.setattr(repository, "constraints", lambda self: limited)
    unpacked = []
    real = UnpackSession._next

    def counted(session: UnpackSession, length: int, whole: bool = True) -> bytes:
        unpacked.append(length)
        return real(session, length, whole)

    monkeypatch.setattr(UnpackSession, "_next", counted)
    with pytest.raises(Refused, match=r"holds more than 2097152 bytes \(2.0 MiB\)"):
        engine.import_image("a", str(path), "raw.gz", options=NO_FIX)
    assert sum(unpacked) == 3 * MiB
    assert engine.list_images("a") == []


def test_a_compressed_image_that_has_no_room_waits_for_it(engine, tmp_path, monkeypatch):
    """Room for what is no zeros, which was counted; of what can never have room no more is unpacked than shows that."""
    data = b"\7" * (12 * MiB)
    path, zeros = pack(tmp_path / "in", "gz", data), pack(tmp_path / "zeros", "gz", bytes(48 * MiB))
    room = [32 * MiB, 10 * MiB]
    monkeypatch.setattr(type(engine.context.repository("a")), "space", lambda self: tuple(room))
    image = engine.import_image("a", str(zeros), "raw.gz", options=NO_FIX)
    run(engine, "a", "B-IMPORT", image)
    assert state_of(engine, "a", image) == Status.OPTIMIZED
    room[0] = 8 * MiB
    with pytest.raises(Refused, match="more data than there is room for at all"):
        engine.import_image("a", str(path), "raw.gz", options=NO_FIX)
    assert len(engine.list_images("a")) == 1
    room[0] = 32 * MiB
    image = engine.import_image("a", str(path), "raw.gz", options=NO_FIX)
    (fix,) = engine.check_storage_repository("a")
    assert fix.wait is not None and fix.wait.kind is WaitKind.ROOM and "of free space" in fix.waits_for
    with pytest.raises(Refused, match="free space"):
        engine.run_fix_here("a", fix)
    assert state_of(engine, "a", image) == Status.BROKEN


def test_no_program_is_left_and_a_reflink_never_takes_the_compressed_bytes(tmp_path, monkeypatch):
    """A session that is closed in the middle ends its program; what is cloned is only what is not compressed."""
    path = pack(tmp_path / "in", "gz")
    layer = Layer(str(path), VolumeFormat.RAW, length=len(DATA), packing="gz")
    session = UnpackSession(layer)
    assert session.read(0, 10) == DATA[:10] and session.read(MiB, 3) == bytes(3) and session.read(5, 5) == DATA[5:10]
    process = session._process
    session.close()
    assert process is not None and process.returncode is not None
    reading = fill.Reading([layer], len(DATA), direct=False, ours=False)
    assert not fill._reflink(None, reading, Layer("target", VolumeFormat.RAW))  # type: ignore[arg-type]
