"""The real file door under pyfakefs: the calls that it fakes, and a guard against those that it does not."""

from __future__ import annotations

import errno

import pytest
from pyfakefs.fake_filesystem import FakeFilesystem

from engine.doors.files import Kind
from engine.tools.local.files import RealFiles
from tests.unfaked import Unfaked


@pytest.fixture
def fake(fs: FakeFilesystem) -> FakeFilesystem:
    """A file system in memory with one directory; nothing gets past it (``tests.conftest``)."""
    fs.create_dir("/r")
    return fs


def fails_with(number: int, call) -> None:
    with pytest.raises(OSError) as caught:
        call()
    assert caught.value.errno == number


def test_the_guard_stops_what_is_not_faked(fake: FakeFilesystem):
    """Reading and writing at an offset, cloning and asking for space raise instead of reaching a real file."""
    files = RealFiles()
    with files.create("/r/a") as handle, files.create("/r/b") as other:
        for call in (
            lambda: handle.write_at(0, b"x"),
            lambda: handle.read_at(0, 1),
            lambda: files.clone(handle, other),
            lambda: files.space("/r"),
        ):
            with pytest.raises(Unfaked):
                call()


def test_files_are_read_whole(fake: FakeFilesystem):
    """Content up to the limit, EFBIG above, ENOENT for nothing, ELOOP for a link."""
    files = RealFiles()
    fake.create_file("/r/a", contents=b"content")
    assert files.read_file("/r/a", 7) == b"content"
    fails_with(errno.EFBIG, lambda: _limited(files))
    fails_with(errno.ENOENT, lambda: files.read_file("/r/none", 7))
    files.symlink("a", "/r/link")
    fails_with(errno.ELOOP, lambda: files.read_file("/r/link", 7))


def _limited(files: RealFiles) -> bytes:
    return files.read_file("/r/a", 6)


def test_creating_is_exclusive(fake: FakeFilesystem):
    """A second create of a name is EEXIST."""
    files = RealFiles()
    with files.create("/r/a") as handle:
        handle.sync()
        assert handle.stat().kind is Kind.FILE
    fails_with(errno.EEXIST, lambda: files.create("/r/a"))


def test_names_behave_as_on_disk(fake: FakeFilesystem):
    """link refuses a taken name and shares the inode; rename replaces; unlink takes one name."""
    files = RealFiles()
    fake.create_file("/r/a", contents=b"a")
    fake.create_file("/r/b", contents=b"b")
    fails_with(errno.EEXIST, lambda: files.link("/r/a", "/r/b"))
    files.link("/r/a", "/r/c")
    assert files.stat("/r/a").inode == files.stat("/r/c").inode
    assert files.stat("/r/c").links == 2
    files.rename("/r/a", "/r/b")
    assert files.read_file("/r/b", 5) == b"a"
    files.unlink("/r/c")
    fails_with(errno.ENOENT, lambda: files.unlink("/r/c"))
    assert files.stat("/r/b").links == 1


def test_directories_are_listed_with_kinds(fake: FakeFilesystem):
    """Files, directories and links by name, kind and inode."""
    files = RealFiles()
    fake.create_file("/r/a")
    files.make_directory("/r/d")
    fails_with(errno.EEXIST, lambda: files.make_directory("/r/d"))
    files.symlink("a", "/r/l")
    listed = {entry.name: entry.kind for entry in files.list_directory("/r")}
    assert listed == {"a": Kind.FILE, "d": Kind.DIRECTORY, "l": Kind.SYMLINK}
    files.sync_directory("/r")
    files.remove_directory("/r/d")
    fails_with(errno.ENOENT, lambda: files.list_directory("/r/d"))
