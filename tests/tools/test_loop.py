"""Loop devices of this machine."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest

from engine.errors import BadRequest, Conflict, NotFound, StorageError
from engine.tools.block import loop
from engine.tools.block.device import DirectBlockHandle
from engine.tools.block.loop import LoopDevices

MiB = 1 << 20

pytestmark = pytest.mark.usefixtures("root_user")


@pytest.fixture
def loops(tmp_path):
    made = LoopDevices()
    yield made
    for path in tmp_path.rglob("*.img"):
        with contextlib.suppress(StorageError):  # somebody's LVM looks at it: the kernel takes it away afterwards
            made.detach(str(path))


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "a.img")


def has_direct_io(path):
    try:
        os.close(os.open(path, os.O_RDWR | os.O_DIRECT))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("sector", [512, 4096])
def test_a_file_becomes_a_device_with_the_sectors_asked_for(loops, path, sector):
    """Size, sector size and the way past the page cache are what was asked for."""
    loops.create_file(path, 4 * MiB)
    assert os.stat(path).st_blocks == 0
    made = loops.attach(path, sector)
    assert made.sector_bytes == sector
    if sector == 4096 and has_direct_io(path):  # it needs sectors not smaller than those of the disk below
        assert made.direct
    with DirectBlockHandle(made.device) as handle:
        assert handle.size == 4 * MiB


def test_attaching_and_detaching_twice_changes_nothing(loops, path):
    """The second attachment is the first one; what is not attached is detached without complaint."""
    loops.create_file(path, MiB)
    first = loops.attach(path)
    assert loops.attach(path) == first
    assert loops.find(path) == [first]
    loops.detach(path)
    assert loops.find(path) == []
    loops.detach(path)


def test_other_sectors_than_those_there_are_a_conflict(loops, path):
    """A group made for one sector size is not shown with another."""
    loops.create_file(path, MiB)
    first = loops.attach(path, 4096)
    with pytest.raises(Conflict, match=f"{first.device} with sectors of 4096"):
        loops.attach(path, 512)


def test_two_files_have_two_devices(loops, tmp_path):
    """A file is told by what it is, not by a name that begins alike."""
    for name in ("b.img", "b.img.img"):
        loops.create_file(str(tmp_path / name), MiB)
        loops.attach(str(tmp_path / name))
    found = [loops.find(str(tmp_path / name)) for name in ("b.img", "b.img.img")]
    assert [len(devices) for devices in found] == [1, 1]
    assert found[0] != found[1]


def test_a_device_that_is_open_stays_until_it_is_closed(loops, path, monkeypatch):
    """Detaching says so, and the kernel finishes it."""
    monkeypatch.setattr(loop, "_GOING_S", 0.0)
    loops.create_file(path, MiB)
    device = loops.attach(path).device
    with DirectBlockHandle(device), pytest.raises(StorageError, match=f"{device} over .* is in use"):
        loops.detach(path)
    deadline = time.monotonic() + 60
    while loops.find(path):  # whoever looks at new devices of this machine may have it open for a moment longer
        assert time.monotonic() < deadline


def test_a_file_is_made_once(loops, path):
    """An existing file is never cut or grown."""
    Path(path).write_bytes(b"x" * 4096)
    with pytest.raises(Conflict, match="is there already"):
        loops.create_file(path, MiB)
    assert Path(path).read_bytes() == b"x" * 4096


@pytest.mark.parametrize("name", ["relative", "/a/../b", "/a\0b", "--help"])
def test_names_that_are_no_plain_paths_are_refused(loops, name):
    """Nothing that looks like an option or leads elsewhere reaches a program."""
    for call in (loops.find, loops.attach, loops.detach, lambda path: loops.create_file(path, MiB)):
        with pytest.raises(BadRequest):
            call(name)


def test_what_cannot_be_is_refused(loops, path, tmp_path):
    """Sizes and sectors that no device has, and files that are not there."""
    for size in (0, -4096, 1000):
        with pytest.raises(BadRequest):
            loops.create_file(path, size)
    assert not os.path.exists(path)
    with pytest.raises(BadRequest):
        loops.attach(path, 1024)
    for call in (loops.find, loops.attach, loops.detach):
        with pytest.raises(NotFound):
            call(path)
    with pytest.raises(StorageError):
        loops.create_file(str(tmp_path / "no" / "file"), MiB)
