"""Importing from a block device: its size is asked of the device, nothing else of the host may use it meanwhile."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from engine.api import Engine
from engine.assembly import real_doors
from engine.data.records import Record
from engine.errors import BadRequest, Refused, StorageError
from engine.tags import changes
from engine.tools.block.loop import LoopDevices

MiB = 1 << 20

pytestmark = pytest.mark.usefixtures("root_user")


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    made = Engine(real_doors("host-a"), str(tmp_path / "state"))
    made.create_repository("localfs-1.0", {"path": str(tmp_path / "a")})
    made.connect_storage_repository("a", "localfs-1.0", {"path": str(tmp_path / "a")})
    return made


@pytest.fixture
def device(tmp_path: Path):
    """A device with bytes of its own on it."""
    path, loops = tmp_path / "device.img", LoopDevices()
    path.write_bytes(os.urandom(MiB) + bytes(2 * MiB) + os.urandom(MiB))
    yield loops.attach(str(path), 512).device, path
    with contextlib.suppress(StorageError):
        loops.detach(str(path))


def imported(engine: Engine, path: str, format: str = "raw") -> str:
    disk = engine.import_image("a", path, format, options={"auto_fix": False})
    (fix,) = engine.check_storage_repository("a")
    engine.run_fix_here("a", fix)
    return disk


@pytest.mark.parametrize("linked", [False, True])
def test_a_block_device_is_imported_whole(engine, device, tmp_path, linked):
    """Under its own name, or by a link as /dev/VG/LV and /dev/disk/by-id are."""
    path, file = device
    if linked:
        os.symlink(path, tmp_path / "by-id")
        path = str(tmp_path / "by-id")
    disk = imported(engine, path)
    engine.export_image("a", disk, str(tmp_path / "out.raw"), "raw")
    assert (tmp_path / "out.raw").read_bytes() == file.read_bytes()


def test_a_qcow2_on_a_device_is_one(engine, device, tmp_path):
    """Stated, not guessed: a device is longer than the image on it."""
    path, _ = device
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1M"], check=True)
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 5 0 64k", path], check=True, capture_output=True)
    disk = imported(engine, path, "qcow2")
    engine.export_image("a", disk, str(tmp_path / "out.raw"), "raw")
    data = (tmp_path / "out.raw").read_bytes()
    assert (len(data), data[:1], data[65536:65537]) == (MiB, b"\5", b"\0")


def test_a_device_that_is_in_use_is_refused(engine, device):
    """Mounted, or claimed for another device: what is read then is no one state of it."""
    path, _ = device
    claim = os.open(path, os.O_RDONLY | os.O_EXCL)
    try:
        with pytest.raises(Refused, match="is in use on this host"):
            engine.import_image("a", path, "raw")
    finally:
        os.close(claim)


def test_an_interrupted_import_of_a_device_begins_again(engine, device, tmp_path):
    """Nothing tells whether it was written to since: two contents are never mixed."""
    path, file = device
    disk = engine.import_image("a", path, "raw", options={"auto_fix": False, "digest": False})
    repository = engine.context.repository("a")

    def half_done(now: Record) -> Record:
        assert now.operation is not None
        return now._replace(operation=now.operation._replace(cursor=2 * MiB))

    changes.change(repository, disk, half_done)
    with open(path, "r+b") as stream:
        stream.write(b"later")
        os.fsync(stream.fileno())
    (fix,) = engine.check_storage_repository("a")
    engine.run_fix_here("a", fix)
    engine.export_image("a", disk, str(tmp_path / "out.raw"), "raw")
    assert (tmp_path / "out.raw").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("kind", ["directory", "fifo", "character device"])
def test_what_is_neither_file_nor_device_is_said_to_be_neither(engine, tmp_path, kind):
    """One sentence, and nobody waits for a writer of a FIFO."""
    path = str(tmp_path / "thing")
    if kind == "directory":
        os.mkdir(path)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path = "/dev/null"
    with pytest.raises(BadRequest, match="neither a file nor a block device"):
        engine.import_image("a", path, "raw")
