"""Images of strangers, and files that change while they are read."""

from __future__ import annotations

import os
import subprocess

import pytest

from engine.data.model import Status
from engine.errors import BadRequest, Refused, StorageError
from tests.crash.kit import SIZE, MiB
from tests.engine.fixes.kit import status, wait
from tests.engine.kit import NO_FIX


@pytest.mark.parametrize("kind", ["backing", "data-file", "json", "encrypted", "text", "directory", "fifo", "link"])
def test_hostile_image_files_are_refused_and_nothing_they_name_is_opened(engine, tmp_path, kind):
    """Import states the format, follows nothing that the file names, and says what is wrong."""
    path = tmp_path / "evil"
    secret = tmp_path / "secret"
    os.mkfifo(secret)  # opening it would hang
    create = ["qemu-img", "create", "-q", "-f", "qcow2"]
    if kind == "backing":
        subprocess.run([*create, "-u", "-b", secret, "-F", "raw", path, "1M"], check=True)
    elif kind == "json":
        name = 'json:{"driver":"file","filename":"/etc/passwd"}'
        subprocess.run([*create, "-u", "-b", name, "-F", "raw", path, "1M"], check=True)
    elif kind == "data-file":
        (tmp_path / "data").write_bytes(b"")
        subprocess.run([*create, "-o", f"data_file={tmp_path / 'data'}", path, "1M"], check=True)
    elif kind == "encrypted":
        secret_option = ["--object", "secret,id=s,data=x"]
        options = ["-o", "encrypt.format=aes,encrypt.key-secret=s"]
        subprocess.run([*create, *secret_option, *options, path, "1M"], check=True)
    elif kind == "text":
        path.write_text("just text\n" * 100)
    elif kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/etc/passwd")
    with pytest.raises((BadRequest, Refused, StorageError), match=r"evil|passwd"):
        engine.import_image("a", str(path), "qcow2")
    assert engine.list_images("a") == []


def test_an_imported_file_that_changes_meanwhile_is_not_sealed(engine, tmp_path):
    """Size, time and inode are pinned when the import is committed."""
    source = tmp_path / "in.raw"
    source.write_bytes(b"1" * MiB)
    image = engine.import_image("a", str(source), "raw", options=NO_FIX)
    source.write_bytes(b"2" * MiB)
    os.utime(source, ns=(1, 1))
    (fix,) = engine.check_storage_repository("a")
    with pytest.raises(Refused, match="not the one"):
        engine.run_fix_here("a", fix)
    assert status(engine, "a", image) == Status.BROKEN


def test_bitmaps_of_another_program_are_reported_and_a_copy_drops_them(engine, world):
    """Persistent dirty bitmaps in a volume, also inconsistent ones, are said and never used; internal snapshots too."""
    disk = engine.create_virtual_disk("a", SIZE)
    prepared = engine.prepare_image("a", disk)
    subprocess.run(["qemu-img", "bitmap", "--add", "-f", "qcow2", prepared.path, "backup"], check=True)
    engine.teardown_image("a", disk)
    report = engine.inspect_repository("a")
    assert [(f.kind, f.subject) for f in report.findings] == [("note", disk)] and "bitmaps" in report.findings[0].text
    assert status(engine, "a", disk) == Status.OPTIMIZED
    prepared = engine.prepare_image("a", disk)
    subprocess.run(["qemu-img", "snapshot", "-c", "before", prepared.path], check=True)
    engine.teardown_image("a", disk)
    (finding,) = engine.inspect_repository("a").findings
    assert "dirty bitmaps and 1 internal snapshots of another program" in finding.text
    engine.copy_image("b", disk)
    wait(engine)
    assert engine.inspect_repository("b").findings == ()
