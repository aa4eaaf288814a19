"""Imports: what is not whole is refused, what is left out is told, and what changes meanwhile is not sealed."""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
import struct
import subprocess
from pathlib import Path

import pytest

from engine.copying import image_file, magic
from engine.data.model import Status, WaitKind
from engine.data.records import Record
from engine.errors import BadRequest, Refused, StorageError
from engine.fixes import fill, import_image
from engine.tags import changes, leasing
from engine.tools.local.files import RealFileHandle
from tests.crash.kit import MiB, content
from tests.engine.kit import NO_FIX, commanded, fixes, last_error, record, run, state_of
from tests.engine.regressions.test_hostile import rewrite


def make_qcow2(path: Path, *commands: str, size: str = "8M") -> Path:
    """An image with what the commands of qemu-io write."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, size], check=True)
    return commanded(path, *commands)


@pytest.mark.parametrize("missing", [64 * 1024 + 1, 64 * 1024, 3 * MiB])
def test_a_qcow2_without_its_end_is_refused_before_anything_is_promised(engine, tmp_path, missing):
    """An incomplete download: the header says nothing of it, the reference counts do."""
    path = make_qcow2(tmp_path / "half.qcow2", "write -P 1 0 4M")
    os.truncate(path, path.stat().st_size - missing)
    with pytest.raises(Refused, match=r"half.qcow2.* is cut off, or damaged"):
        engine.import_image("a", str(path), "qcow2", options=NO_FIX)
    assert engine.list_images("a") == []


@pytest.mark.parametrize(("code", "imported"), [(errno.EINVAL, True), (errno.EROFS, True), (errno.EIO, False)])
def test_a_file_on_what_can_only_be_read_is_imported(engine, tmp_path, monkeypatch, code, imported):
    """Found so with squashfs: fsync(2) is not known there, and there is nothing to flush. One that fails is told."""
    path = make_qcow2(tmp_path / "in.qcow2")
    sync = RealFileHandle.sync

    def told(handle: RealFileHandle) -> None:
        if handle.path == str(path):
            raise OSError(code, os.strerror(code))
        sync(handle)

    monkeypatch.setattr(RealFileHandle, "sync", told)
    with contextlib.nullcontext() if imported else pytest.raises(StorageError, match="cannot flush the file to import"):
        engine.import_image("a", str(path), "qcow2", options=NO_FIX)
    assert len(engine.list_images("a")) == imported


@pytest.mark.parametrize(
    ("driver", "format", "error", "words"),
    [
        ("vmdk", "vmdk", Refused, "is cut off: it refers to data up to byte"),
        ("vdi", "vdi", Refused, "is cut off: it refers to data up to byte"),
        ("vpc", "vhd", BadRequest, "is no whole vhd image: it does not have the mark of VHD at its end"),
    ],
)
def test_no_format_without_its_end_is_promised_to_be_an_image(engine, tmp_path, driver, format, error, words):
    """Found so: a VMDK was committed, could never be read, and the only fix that was offered failed each time."""
    (tmp_path / "whole.raw").write_bytes(os.urandom(4 * MiB))
    path = tmp_path / "half"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", driver, tmp_path / "whole.raw", path], check=True)
    os.truncate(path, path.stat().st_size * 6 // 10)
    with pytest.raises(error, match=words):
        engine.import_image("a", str(path), format, options=NO_FIX)
    assert engine.list_images("a") == []


def test_a_qcow2_without_its_last_byte_is_never_an_image(engine, tmp_path):
    """The cluster of which a part is there is found when the whole file is checked, before the seal."""
    path = make_qcow2(tmp_path / "half.qcow2", "write -P 1 0 4M")
    os.truncate(path, path.stat().st_size - 1)
    image = engine.import_image("a", str(path), "qcow2", options=NO_FIX)
    with pytest.raises(Refused, match="is cut off: it refers to data up to byte"):
        run(engine, "a", "B-IMPORT")
    assert state_of(engine, "a", image) == Status.BROKEN
    assert "cut off" in last_error(engine, "a", image)


def test_a_qcow2_with_wrong_reference_counts_is_never_an_image(engine, tmp_path):
    """Also where its end is there: all of its tables are read before the seal."""
    path = make_qcow2(tmp_path / "odd.qcow2", "write -P 1 0 4M")
    with open(path, "r+b") as stream:
        stream.seek(2 * 65536)  # the first block of reference counts
        stream.write(b"\0\0" * 4)
    image = engine.import_image("a", str(path), "qcow2", options=NO_FIX)
    with pytest.raises(Refused, match=r"is damaged: \d+ errors in its tables"):
        run(engine, "a", "B-IMPORT")
    assert state_of(engine, "a", image) == Status.BROKEN


def test_what_is_allocated_behind_the_end_and_not_referred_to_does_no_harm(engine, tmp_path):
    """A machine that was killed leaves leaks; the content is whole."""
    path = make_qcow2(tmp_path / "leaks.qcow2", "write -P 1 0 1M")
    with open(path, "r+b") as stream:
        stream.seek(2 * 65536 + 2 * 1000)
        stream.write(b"\0\1")
    image = engine.import_image("a", str(path), "qcow2", options=NO_FIX)
    run(engine, "a", "B-IMPORT")
    assert content(engine, "a", image, tmp_path) == b"\1" * MiB + bytes(7 * MiB)


def test_compressed_clusters_are_imported(engine, tmp_path):
    """They are content like any other, also when the last of them ends in mid-cluster."""
    source, path = tmp_path / "in.raw", tmp_path / "in.qcow2"
    source.write_bytes(bytes(range(256)) * 8192)
    subprocess.run(["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", source, path], check=True)
    image = engine.import_image("a", str(path), "qcow2", options=NO_FIX)
    run(engine, "a", "B-IMPORT")
    assert content(engine, "a", image, tmp_path) == source.read_bytes()


def test_an_image_of_very_many_ranges_is_read_as_if_it_had_no_holes(engine, tmp_path, monkeypatch):
    """A short file can say of any number of clusters that they are data: they are neither counted nor kept."""
    path = make_qcow2(tmp_path / "in.qcow2", *(f"write -P 1 {2 * at}M 64k" for at in range(4)))
    monkeypatch.setattr(image_file, "MOST_EXTENTS", 6)
    image = engine.import_image("a", str(path), "qcow2", options=NO_FIX)
    operation = record(engine, "a", image).operation
    assert operation is not None and operation.data_bytes == 0
    run(engine, "a", "B-IMPORT")
    assert content(engine, "a", image, tmp_path) == (b"\1" * 65536).ljust(2 * MiB, b"\0") * 4


def test_what_an_import_leaves_out_is_in_the_record(engine, tmp_path):
    """Internal snapshots and bitmaps: told as soon as it is promised, and for ever."""
    path = make_qcow2(tmp_path / "in.qcow2", "write -P 1 0 1M")
    subprocess.run(["qemu-img", "snapshot", "-c", "before", path], check=True)
    subprocess.run(["qemu-img", "bitmap", "--add", "-f", "qcow2", path, "dirty"], check=True)
    image = engine.import_image("a", str(path), "qcow2", options=NO_FIX)
    for _ in range(2):
        snapshots, bitmaps = engine.get_image_status("a", image).remarks
        assert "1 internal snapshot, left out" in snapshots
        assert "dirty bitmaps, left out" in bitmaps
        if not record(engine, "a", image).whole:
            run(engine, "a", "B-IMPORT")


@pytest.mark.parametrize(
    "start, name", [(b"\xfd7zXZ\0", "xz"), (b"\x1f\x8b\x08", "gzip"), (b"QFI\xfb\0\0\0\3", "qcow2"), (b"KDMV", "vmdk")]
)
def test_a_raw_file_that_looks_like_something_else_is_told(engine, tmp_path, start, name):
    """The stated format counts, because a raw disk may hold anything."""
    path = tmp_path / "in.raw"
    path.write_bytes(start.ljust(MiB, b"\1"))
    image = engine.import_image("a", str(path), "raw", options=NO_FIX)
    (remark,) = engine.get_image_status("a", image).remarks
    assert f"looks like {name}" in remark or f"compressed by {name}" in remark or f"a {name} image" in remark


def test_a_raw_file_that_is_shorter_than_its_partitions_is_told():
    """By either kind of partition table; a whole one says nothing."""
    gpt = bytes(512) + b"EFI PART" + bytes(24) + struct.pack("<Q", 2047) + bytes(1000)
    mbr = bytes(446) + struct.pack("<B3xB3xII", 0x80, 0x83, 2048, 4096) + bytes(48) + b"\x55\xaa"
    assert magic.remarks(gpt, MiB) == magic.remarks(mbr, 3 * MiB) == ()
    assert "is for 1048576 bytes" in magic.remarks(gpt, MiB - 512)[0]
    assert "is for 3145728 bytes" in magic.remarks(mbr, MiB)[0]
    assert "no multiple of 512" in magic.remarks(b"", 1000)[0]


def test_a_file_that_changes_while_it_is_read_is_not_sealed(engine, tmp_path, monkeypatch):
    """Written, or replaced by another one of the same size and time: both are looked at again at the end."""
    copy_all = fill.copy_all
    path = tmp_path / "in.raw"

    def then_replaced(*arguments):
        found = copy_all(*arguments)
        facts = path.stat()
        (tmp_path / "other").write_bytes(b"2" * MiB)
        os.utime(tmp_path / "other", ns=(facts.st_atime_ns, facts.st_mtime_ns))
        os.rename(tmp_path / "other", path)
        return found

    def then_written(*arguments):
        found = copy_all(*arguments)
        path.write_bytes(b"3" * MiB)
        os.utime(path, ns=(1, 1))
        return found

    for meanwhile in (then_replaced, then_written):
        path.write_bytes(b"1" * MiB)
        image = engine.import_image("a", str(path), "raw", options=NO_FIX)
        monkeypatch.setattr(fill, "copy_all", meanwhile)
        with pytest.raises(Refused, match="not the one that the import began with"):
            run(engine, "a", "B-IMPORT", image)
        monkeypatch.undo()
        assert state_of(engine, "a", image) == Status.BROKEN
        assert "goes on at" not in fixes(engine, "a", "B-IMPORT", image)[0].why


def test_a_file_whose_time_was_set_back_is_not_sealed(engine, tmp_path, monkeypatch):
    """Written while it was read, with the old time given to it again: the time of that is not to be set."""
    copy_all = fill.copy_all
    path = tmp_path / "in.raw"
    path.write_bytes(b"1" * MiB)
    image = engine.import_image("a", str(path), "raw", options=NO_FIX)

    def then_written(*arguments):
        found = copy_all(*arguments)
        facts = path.stat()
        path.write_bytes(b"3" * MiB)
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        return found

    monkeypatch.setattr(fill, "copy_all", then_written)
    with pytest.raises(Refused, match="was changed while it was read"):
        run(engine, "a", "B-IMPORT", image)
    monkeypatch.undo()
    run(engine, "a", "B-IMPORT", image)
    assert content(engine, "a", image, tmp_path) == b"3" * MiB


@pytest.mark.parametrize("format", ["raw", "qcow2", "vdi", "raw.gz"])
def test_a_directory_that_is_swapped_leads_no_tool_to_another_file(engine, tmp_path, monkeypatch, format):
    """Who owns a directory of the path can make it a link to any other, and put it back: what is read is the file that
    was looked at."""
    theirs, secret = tmp_path / "theirs", tmp_path / "secret"
    for place, byte in ((theirs, b"1"), (secret, b"2")):
        place.mkdir()
        source = tmp_path / "source"
        source.write_bytes(byte * MiB)
        if format == "raw.gz":
            (place / "in").write_bytes(gzip.compress(source.read_bytes()))
        else:
            command = ["qemu-img", "convert", "-f", "raw", "-O", format, source, place / "in"]
            subprocess.run(command, check=True)

    def swapped(real):
        def call(*arguments, **named):
            os.rename(theirs, tmp_path / "away")
            os.symlink(secret, theirs)
            try:
                return real(*arguments, **named)
            finally:
                os.unlink(theirs)
                os.rename(tmp_path / "away", theirs)

        return call

    monkeypatch.setattr(image_file, "inspect", swapped(image_file.inspect))
    monkeypatch.setattr(image_file, "data_bytes", swapped(image_file.data_bytes))
    monkeypatch.setattr(image_file, "require_sound", swapped(image_file.require_sound))
    monkeypatch.setattr(fill, "copy_all", swapped(fill.copy_all))
    image = engine.import_image("a", str(theirs / "in"), format, options=NO_FIX)
    run(engine, "a", "B-IMPORT", image)
    assert content(engine, "a", image, tmp_path) == b"1" * MiB


def test_scattered_data_needs_the_clusters_that_it_touches(engine, tmp_path):
    """A block of 4 KiB in every MiB of a raw file takes 64 KiB of a qcow2 each: the plan promises no less than that."""
    path = tmp_path / "thin.raw"
    with open(path, "wb") as stream:
        for at in range(32):
            stream.seek(at * MiB)
            stream.write(b"\1" * 4096)
        stream.truncate(32 * MiB)
    image = engine.import_image("a", str(path), "raw", options=NO_FIX)
    (fix,) = engine.check_storage_repository("a")
    run(engine, "a", "B-IMPORT")
    used = engine.get_image_status("a", image).used_bytes
    assert 32 * 65536 <= used <= fix.cost.peak_extra_bytes + (1 << 19), "tables are not counted"


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_an_import_needs_what_the_file_holds_and_not_what_it_could_hold(engine, tmp_path, format):
    """1 MiB in a thin file of 4 TiB is told as about 1 MiB, and fits. An import that an older program began does not
    say how much it is: then it is the whole size, as before."""
    path = tmp_path / f"thin.{format}"
    subprocess.run(["qemu-img", "create", "-q", "-f", format, path, "4T"], check=True)
    subprocess.run(["qemu-io", "-f", format, "-c", "write -P 7 2T 1M", path], check=True, capture_output=True)
    image = engine.import_image("a", str(path), format, options=NO_FIX)
    (fix,) = engine.check_storage_repository("a")
    digests = (4 << 40) // (2 << 20) * 32
    assert fix.cost.fits and 1 << 20 <= fix.cost.peak_extra_bytes <= (2 << 20) + digests
    repository = engine.context.repository("a")

    def as_older(record: Record) -> Record:
        assert record.operation is not None
        return record._replace(operation=record.operation._replace(data_bytes=0))

    changes.change(repository, image, as_older)
    (fix,) = engine.check_storage_repository("a")
    assert fix.cost.read_bytes == 4 << 40


# -- whose file


def stat_facts(path: Path) -> list[int]:
    facts = path.stat()
    return [facts.st_size, facts.st_mtime_ns, facts.st_ino]


def test_a_record_makes_no_host_read_one_of_its_files(engine, world, tmp_path):
    """Not this one, which began another import under that id, and not any other. The fix waits."""
    mine, secret = tmp_path / "mine.raw", tmp_path / "secret"
    mine.write_bytes(bytes(MiB))
    secret.write_bytes(b"secret".ljust(MiB, b"!"))
    image = engine.import_image("a", str(mine), "raw", options=NO_FIX)
    rewrite(world, image, lambda data: data["operation"].update(path=str(secret), path_facts=stat_facts(secret)))
    for host in (engine, world.engine("host-b")):
        (fix,) = fixes(host, "a", "B-IMPORT")
        assert fix.wait is not None and fix.wait.kind is WaitKind.PATH
        assert "give its path: diskwright fix REPO FIX --path FILE" in fix.waits_for
        with pytest.raises(Refused, match="waits for an operator to name its file"):
            host.run_fix_here("a", fix)
    volumes = [path for path in (world.root / "a" / "volumes").rglob("*") if path.is_file()]
    assert not any(b"secret" in path.read_bytes() for path in volumes)


def test_the_work_itself_reads_only_what_was_named(engine, world, tmp_path):
    """Also where nobody looked before: what was verified may be long ago."""
    mine, secret = tmp_path / "mine.raw", tmp_path / "secret"
    for path in (mine, secret):
        path.write_bytes(bytes(MiB))
    image = engine.import_image("a", str(mine), "raw", options=NO_FIX)
    rewrite(world, image, lambda data: data["operation"].update(path=str(secret), path_facts=stat_facts(secret)))
    context = engine.context
    repository = context.repository("a")
    with leasing.take(context.doors, repository, [image]), pytest.raises(Refused, match="nobody named that file here"):
        import_image.resume(context, repository, image)


def test_an_operator_names_the_file_on_another_host(engine, world, tmp_path):
    """The same file goes on where it was; a copy of it starts again; one of another size is refused."""
    path, copy, longer = tmp_path / "in.raw", tmp_path / "copy.raw", tmp_path / "longer.raw"
    path.write_bytes(b"1" * MiB)
    copy.write_bytes(b"2" * MiB)
    longer.write_bytes(bytes(2 * MiB))
    other = world.engine("host-b")
    for named, expected in ((path, b"1" * MiB), (copy, b"2" * MiB)):
        image = engine.import_image("a", str(path), "raw", options=NO_FIX)
        with pytest.raises(Refused, match="has 2097152 bytes, and the import began with one of 1048576"):
            other.name_import_file("a", image, str(longer))
        other.name_import_file("a", image, str(named))
        run(other, "a", "B-IMPORT", image)
        assert content(other, "a", image, tmp_path) == expected
        with pytest.raises(Refused, match="is no unfinished import"):
            other.name_import_file("a", image, str(named))


@pytest.mark.parametrize("format, shared", [("raw", True), ("qcow2", False)])
def test_blocks_are_shared_only_with_a_raw_file(engine, tmp_path, monkeypatch, format, shared):
    """A qcow2 of a stranger would bring its reference counts along, right or wrong."""
    path = tmp_path / f"in.{format}"
    subprocess.run(["qemu-img", "create", "-q", "-f", format, path, "1M"], check=True)
    repository = engine.context.repository("a")
    able = repository.constraints()._replace(reflink=True)
    monkeypatch.setattr(repository, "constraints", lambda: able)
    asked: list[object] = []

    def clone(files: object, source: object, target: object) -> bool:
        asked.append(source)
        return False

    monkeypatch.setattr(type(engine.doors.files), "clone", clone)
    strategy = {"raw": "performance", "qcow2": "space"}[format]
    image = engine.import_image("a", str(path), format, options={**NO_FIX, "strategy": strategy})
    run(engine, "a", "B-IMPORT", image)
    assert bool(asked) is shared
    assert state_of(engine, "a", image) == Status.OPTIMIZED
