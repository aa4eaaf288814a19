"""The real file door: what the docstrings of ``engine.doors.files.Files`` promise."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from engine.doors.files import Kind
from engine.tools.local.files import RealFileHandle, RealFiles

FILES = RealFiles()


def put(path: Path, content: bytes = b"") -> str:
    path.write_bytes(content)
    return str(path)


def fails_with(number: int, call: Callable[[], object]) -> None:
    with pytest.raises(OSError) as caught:
        call()
    assert caught.value.errno == number


def test_what_is_written_is_read_back(tmp_path: Path):
    """write_at writes all of it anywhere, read_at is short only at the end, holes read as zeros."""
    path = str(tmp_path / "f")
    with FILES.create(path) as handle:
        handle.write_at(5, b"hello")
        handle.write_at(0, b"")
        handle.truncate(20)
        handle.sync()
        assert handle.read_at(0, 100) == bytes(5) + b"hello" + bytes(10)
        assert handle.read_at(20, 5) == b""
        assert handle.stat().size == 20
    assert FILES.read_file(path, 20) == bytes(5) + b"hello" + bytes(10)
    with FILES.open(path, writable=True) as handle:
        handle.write_at(0, b"abc")
    with FILES.open(path) as handle:
        assert handle.read_at(0, 4) == b"abc\0"
        fails_with(errno.EBADF, lambda: handle.write_at(0, b"x"))


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also a kernel that takes three bytes at a time gets them all; one that takes none is an error."""
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:3], offset))
    with FILES.create(str(tmp_path / "f")) as handle:
        handle.write_at(1, b"0123456789")
        assert handle.read_at(0, 20) == b"\x000123456789"
        monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: 0)
        fails_with(errno.EIO, lambda: handle.write_at(0, b"x"))


def test_short_reads_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A read that is cut short in the middle does not make a file look shorter than it is."""
    path = put(tmp_path / "f", b"0123456789")
    real_read, real_pread = os.read, os.pread
    monkeypatch.setattr(os, "read", lambda fd, length: real_read(fd, min(length, 4)))
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: real_pread(fd, min(length, 3), offset))
    assert FILES.read_file(path, 100) == b"0123456789"
    assert FILES.look(path, 8) == (FILES.stat(path), b"01234567")
    assert FILES.look(path, 100)[1] == b"0123456789"
    with FILES.open(path) as handle:
        assert handle.read_at(1, 8) == b"12345678"


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 200000])
def test_a_file_is_read_whole_up_to_the_limit(tmp_path: Path, size: int):
    """Exactly the limit passes, one byte more is EFBIG."""
    content = os.urandom(size)
    path = put(tmp_path / "f", content)
    assert FILES.read_file(path, size) == content
    if size:
        fails_with(errno.EFBIG, lambda: FILES.read_file(path, size - 1))


def test_only_regular_files_are_opened_and_nothing_blocks(tmp_path: Path):
    """A link is ELOOP, FIFOs and directories are EINVAL (EISDIR for writing), a socket ENXIO, nothing is ENOENT."""
    put(tmp_path / "file")
    os.symlink("file", tmp_path / "link")
    os.mkfifo(tmp_path / "fifo")
    os.mkdir(tmp_path / "dir")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(tmp_path)
        try:
            server.bind("socket")
        finally:
            os.chdir(here)
    for name, numbers in {
        "link": {errno.ELOOP},
        "fifo": {errno.EINVAL},
        "dir": {errno.EINVAL, errno.EISDIR},
        "socket": {errno.ENXIO},
        "none": {errno.ENOENT},
    }.items():
        path = str(tmp_path / name)
        look = partial(FILES.look, length=10)
        for call in (partial(FILES.read_file, limit=10), look, FILES.open, partial(FILES.open, writable=True)):
            with pytest.raises(OSError) as caught:
                call(path)
            assert caught.value.errno in numbers


def test_create_is_exclusive(tmp_path: Path):
    """A name that is taken, also by a dangling link, is EEXIST and stays as it was; nobody else may read a new file."""
    path = put(tmp_path / "f", b"mine")
    os.symlink("nowhere", tmp_path / "link")
    for taken in (path, str(tmp_path / "link")):
        fails_with(errno.EEXIST, partial(FILES.create, taken))
    assert FILES.read_file(path, 10) == b"mine"
    FILES.create(str(tmp_path / "new")).close()
    assert os.stat(tmp_path / "new").st_mode & 0o007 == 0


def test_listing_tells_kinds_without_following(tmp_path: Path):
    """Each entry has name, kind and inode; a link to a directory is neither a directory nor listed through."""
    put(tmp_path / "file")
    os.symlink(".", tmp_path / "link")
    os.mkfifo(tmp_path / "fifo")
    os.mkdir(tmp_path / "dir")
    listed = FILES.list_directory(str(tmp_path))
    assert {e.name: e.kind for e in listed} == {
        "file": Kind.FILE,
        "link": Kind.SYMLINK,
        "fifo": Kind.OTHER,
        "dir": Kind.DIRECTORY,
    }
    assert all(FILES.stat(str(tmp_path / e.name)).inode == e.inode for e in listed)
    with pytest.raises(OSError):
        FILES.list_directory(str(tmp_path / "link"))
    fails_with(errno.ENOTDIR, lambda: FILES.list_directory(str(tmp_path / "file")))
    fails_with(errno.ENOENT, lambda: FILES.list_directory(str(tmp_path / "none")))


def test_stat_looks_at_the_name_itself(tmp_path: Path):
    """Kind, size, links and allocated bytes; a link is a link."""
    path = put(tmp_path / "f", b"x" * 10000)
    os.symlink("f", tmp_path / "link")
    FILES.link(path, str(tmp_path / "g"))
    stat = FILES.stat(path)
    assert (stat.kind, stat.size, stat.links) == (Kind.FILE, 10000, 2)
    assert stat.inode == FILES.stat(str(tmp_path / "g")).inode
    assert FILES.stat(str(tmp_path / "link")).kind is Kind.SYMLINK
    with FILES.create(str(tmp_path / "sparse")) as handle:
        handle.truncate(1 << 30)
        assert handle.stat().size == 1 << 30 and handle.stat().allocated < 1 << 20


def test_names_change_as_told(tmp_path: Path):
    """link refuses a taken name, rename replaces, unlink removes a name; a link is linked itself."""
    one, two, three = (str(tmp_path / name) for name in "123")
    put(tmp_path / "1", b"one")
    put(tmp_path / "2", b"two")
    fails_with(errno.EEXIST, lambda: FILES.link(one, two))
    FILES.link(one, three)
    FILES.rename(one, two)
    assert FILES.read_file(two, 10) == b"one"
    fails_with(errno.ENOENT, lambda: FILES.stat(one))
    FILES.unlink(three)
    fails_with(errno.ENOENT, lambda: FILES.unlink(three))
    FILES.symlink("2", one)
    FILES.link(one, three)
    assert FILES.stat(three).kind is Kind.SYMLINK


def test_directories_are_made_and_removed(tmp_path: Path):
    """make_directory refuses a taken name, remove_directory one that is not empty; syncing refuses a link."""
    path = str(tmp_path / "d")
    FILES.make_directory(path)
    fails_with(errno.EEXIST, lambda: FILES.make_directory(path))
    put(tmp_path / "d" / "f")
    fails_with(errno.ENOTEMPTY, lambda: FILES.remove_directory(path))
    FILES.sync_directory(path)
    FILES.unlink(f"{path}/f")
    FILES.remove_directory(path)
    fails_with(errno.ENOENT, lambda: FILES.sync_directory(path))
    FILES.symlink(".", path)
    with pytest.raises(OSError):
        FILES.sync_directory(path)


def test_space_is_plausible(tmp_path: Path):
    """Free is part of total."""
    space = FILES.space(str(tmp_path))
    assert 0 < space.free_bytes <= space.total_bytes


def test_a_file_of_the_same_inode_number_is_told_from_the_one_before(tmp_path: Path):
    """Where the file system knows: a number that is given again comes with another generation, and stays as it is."""
    path = put(tmp_path / "f")
    lives: dict[int, int] = {}
    for _ in range(20):
        number, generation = FILES.stat(path).inode, FILES.inode_generation(path)
        assert FILES.inode_generation(path) == generation
        assert generation is None or lives.setdefault(number, -1) != generation
        lives[number] = generation if generation is not None else -1
        os.unlink(path)
        put(tmp_path / "f")


def test_closing_twice_is_closing_once(tmp_path: Path):
    """A number that meanwhile belongs to another file is not closed."""
    handle = FILES.create(str(tmp_path / "f"))
    descriptor = handle.descriptor
    handle.close()
    other = os.open(tmp_path / "f", os.O_RDONLY)
    assert other == descriptor
    handle.close()
    os.fstat(other)
    os.close(other)


def test_the_first_error_is_the_one_that_is_reported(tmp_path: Path):
    """An error of the body is not hidden by one of close."""
    handle: RealFileHandle
    with pytest.raises(ZeroDivisionError), FILES.create(str(tmp_path / "f")) as handle:
        os.close(handle.descriptor)
        raise ZeroDivisionError


def test_no_descriptor_is_inherited_by_programs(tmp_path: Path):
    """Only leases are handed over, and on purpose."""
    with FILES.create(str(tmp_path / "f")) as created, FILES.open(str(tmp_path / "f")) as opened:
        assert not os.get_inheritable(created.descriptor)
        assert not os.get_inheritable(opened.descriptor)


def test_failed_opens_leave_no_descriptor(tmp_path: Path):
    """Refusing a FIFO closes it."""
    os.mkfifo(tmp_path / "fifo")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        fails_with(errno.EINVAL, lambda: FILES.open(str(tmp_path / "fifo")))
    assert len(os.listdir("/proc/self/fd")) == before


def test_probing_tells_the_truth_and_leaves_nothing(tmp_path: Path):
    """What the probe says holds for a real file: cloning works exactly when reflink is true, the longest file is the
    longest; the name must be free and is free again."""
    path = str(tmp_path / "p")
    can = FILES.probe(path)
    assert os.listdir(tmp_path) == []
    with FILES.create(path) as handle, FILES.create(str(tmp_path / "q")) as other:
        handle.write_at(0, b"x" * 131072)
        assert FILES.clone(handle, other) is can.reflink
        assert (other.read_at(0, 131072) == handle.read_at(0, 131072)) is can.reflink
        handle.truncate(can.max_file_bytes)
        if can.max_file_bytes + 4096 < 1 << 63:  # xfs takes whatever a call can say
            fails_with(errno.EFBIG, lambda: handle.truncate(can.max_file_bytes + 4096))
    fails_with(errno.EEXIST, lambda: FILES.probe(path))
    assert can.max_file_bytes % 4096 == 0 and FILES.stat(path).size == can.max_file_bytes


def test_a_punched_hole_is_found_by_the_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """hole_punching is true on this file system exactly when fallocate(1) can do it."""
    import subprocess

    with open(tmp_path / "f", "wb") as file:
        file.write(b"x" * 131072)
    done = subprocess.run(["fallocate", "-p", "-l", "65536", tmp_path / "f"], capture_output=True, check=False)
    assert FILES.probe(str(tmp_path / "p")).hole_punching is (done.returncode == 0)
