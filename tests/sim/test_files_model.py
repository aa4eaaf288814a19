"""The simulated file door against the real one, and against pyfakefs where that can be trusted."""

from __future__ import annotations

import errno
import os
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.doors.files import FileHandle, Files, Kind
from engine.tools.local.files import RealFiles
from sim.disk.files import SimFiles
from sim.disk.storage import SimStorage

NAMES = ["a", "b", "c", "d"]
PATHS = st.one_of(
    st.sampled_from(NAMES),
    st.sampled_from([f"{x}/{y}" for x in NAMES for y in NAMES]),
    st.sampled_from(["a/b/c", "b/a/d", "a/../b", "a/./b", "..", "a//b"]),
)
SLOTS = st.integers(0, 2)
OFFSETS = st.sampled_from([0, 1, 5, 100, 4095, 4096, 10_000])
TARGETS = st.sampled_from(["a", "b", "../a", "c/d", "nowhere", "d"])

NAME_OPS = st.one_of(
    st.tuples(st.sampled_from(["list", "stat", "unlink", "mkdir", "rmdir", "sync_directory"]), PATHS),
    st.tuples(st.sampled_from(["link", "rename"]), PATHS, PATHS),
    st.tuples(st.just("symlink"), TARGETS, PATHS),
    st.tuples(st.just("read_file"), PATHS, st.sampled_from([0, 3, 100_000])),
)
DATA_OPS = st.one_of(
    st.tuples(st.just("create"), PATHS, SLOTS),
    st.tuples(st.just("open"), PATHS, SLOTS, st.booleans()),
    st.tuples(st.just("write"), SLOTS, OFFSETS, st.sampled_from([b"", b"x", b"hello", b"\0" * 5000, b"ab" * 3000])),
    st.tuples(st.just("read"), SLOTS, OFFSETS, st.sampled_from([0, 1, 4096, 50_000])),
    st.tuples(st.just("truncate"), SLOTS, OFFSETS),
    st.tuples(st.sampled_from(["sync", "fstat", "close"]), SLOTS),
)
# Made first, so that what follows finds something.
BEGINNING = [("mkdir", "a"), ("mkdir", "b"), ("create", "a/a", 0), ("write", 0, 0, b"hello"), ("symlink", "a", "d")]


class Leg:
    """One implementation of the door, below one directory."""

    def __init__(self, files: Files, root: str) -> None:
        self.files = files
        self.root = root
        self.handles: dict[int, FileHandle] = {}

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def run(self, op: tuple) -> tuple[str, Any]:
        try:
            return "done", getattr(self, f"do_{op[0]}")(*op[1:])
        except OSError as error:
            return "failed", errno.errorcode.get(error.errno or 0)

    def close(self) -> None:
        for handle in self.handles.values():
            handle.close()

    def do_list(self, name: str) -> Any:
        return sorted((entry.name, entry.kind) for entry in self.files.list_directory(self.path(name)))

    def do_stat(self, name: str) -> Any:
        return shown(self.files.stat(self.path(name)))

    def do_read_file(self, name: str, limit: int) -> Any:
        return self.files.read_file(self.path(name), limit)

    def do_unlink(self, name: str) -> Any:
        self.files.unlink(self.path(name))

    def do_mkdir(self, name: str) -> Any:
        self.files.make_directory(self.path(name))

    def do_rmdir(self, name: str) -> Any:
        self.files.remove_directory(self.path(name))

    def do_sync_directory(self, name: str) -> Any:
        self.files.sync_directory(self.path(name))

    def do_link(self, source: str, target: str) -> Any:
        self.files.link(self.path(source), self.path(target))

    def do_rename(self, source: str, target: str) -> Any:
        self.files.rename(self.path(source), self.path(target))

    def do_symlink(self, target: str, name: str) -> Any:
        self.files.symlink(target, self.path(name))

    def do_create(self, name: str, slot: int) -> Any:
        self._keep(slot, self.files.create(self.path(name)))

    def do_open(self, name: str, slot: int, writable: bool) -> Any:
        self._keep(slot, self.files.open(self.path(name), writable))

    def _keep(self, slot: int, handle: FileHandle) -> None:
        self.do_close(slot)
        self.handles[slot] = handle

    def do_close(self, slot: int) -> Any:
        if slot in self.handles:
            self.handles.pop(slot).close()

    def do_write(self, slot: int, offset: int, data: bytes) -> Any:
        return self.handles[slot].write_at(offset, data) if slot in self.handles else None

    def do_read(self, slot: int, offset: int, length: int) -> Any:
        return self.handles[slot].read_at(offset, length) if slot in self.handles else None

    def do_truncate(self, slot: int, size: int) -> Any:
        return self.handles[slot].truncate(size) if slot in self.handles else None

    def do_sync(self, slot: int) -> Any:
        return self.handles[slot].sync() if slot in self.handles else None

    def do_fstat(self, slot: int) -> Any:
        return shown(self.handles[slot].stat()) if slot in self.handles else None


def shown(stat: Any) -> Any:
    """What all file systems agree on."""
    return (stat.kind, stat.size, stat.links) if stat.kind is Kind.FILE else stat.kind


def model(root: str) -> Leg:
    storage = SimStorage()
    for depth in range(2, root.count("/") + 2):
        storage.make_directory("/".join(root.split("/")[:depth]))
    storage.settle()
    return Leg(SimFiles(storage), root)


def compare(real: Leg, ops: list[tuple]) -> None:
    simulated = model(real.root)
    for number, op in enumerate([*BEGINNING, *ops]):
        expected, found = real.run(op), simulated.run(op)
        assert found == expected, f"operation {number}: {op}"
    for leg in (real, simulated):
        leg.close()
    seen, known = tree(simulated), tree(real)
    assert seen == known


def tree(leg: Leg, name: str = ".") -> Any:
    found = {}
    for entry in leg.files.list_directory(leg.path(name)):
        path = f"{name}/{entry.name}"
        if entry.kind is Kind.DIRECTORY:
            found[entry.name] = tree(leg, path)
        elif entry.kind is Kind.FILE:
            found[entry.name] = leg.files.read_file(leg.path(path), 1 << 20)
        else:
            found[entry.name] = entry.kind
    return found


_numbers = count()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(NAME_OPS, DATA_OPS), max_size=25))
def test_the_model_answers_as_the_kernel(tmp_path: Path, ops):
    """Any operations have the same results, errno, listings and contents on the model and on a real file system."""
    root = tmp_path / f"run-{next(_numbers)}" / "r"
    root.mkdir(parents=True)
    compare(Leg(RealFiles(), str(root)), ops)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(NAME_OPS.filter(lambda op: "." not in "".join(map(str, op[1:]))), max_size=15))
def test_the_model_agrees_with_pyfakefs_about_names(fs, ops):
    """What succeeds, listings and kinds are the same on the model and on pyfakefs; its errno are often wrong."""
    root = f"/run-{next(_numbers)}"
    fs.create_dir(root)
    fake, simulated = Leg(RealFiles(), root), model(root)
    for op in [("mkdir", "a"), ("mkdir", "b"), ("create", "a/a", 0), *ops]:
        expected, found = fake.run(op), simulated.run(op)
        assert found[0] == expected[0], f"{op}: {found} and not {expected}"
        if found[0] == "done":
            assert found == expected, op
    for leg in (fake, simulated):
        leg.close()


ERRORS = {
    "list of a link to a directory": (lambda f, r: f.list_directory(f"{r}/link"), errno.ENOTDIR),
    "list of a file": (lambda f, r: f.list_directory(f"{r}/file"), errno.ENOTDIR),
    "sync of a file as a directory": (lambda f, r: f.sync_directory(f"{r}/file"), errno.ENOTDIR),
    "open of a link": (lambda f, r: f.open(f"{r}/link"), errno.ELOOP),
    "open of a directory": (lambda f, r: f.open(f"{r}/dir"), errno.EINVAL),
    "open of a directory to write": (lambda f, r: f.open(f"{r}/dir", True), errno.EISDIR),
    "open of a FIFO": (lambda f, r: f.open(f"{r}/fifo"), errno.EINVAL),
    "open of a FIFO to write": (lambda f, r: f.open(f"{r}/fifo", True), errno.EINVAL),
    "a loop of links": (lambda f, r: f.stat(f"{r}/loop/x"), errno.ELOOP),
    "space behind a dangling link": (lambda f, r: f.space(f"{r}/dangling"), errno.ENOENT),
    "a long name": (lambda f, r: f.create(f"{r}/{'x' * 256}"), errno.ENAMETOOLONG),
    "a directory into itself": (lambda f, r: f.rename(f"{r}/dir", f"{r}/dir/inner/x"), errno.EINVAL),
    "a file over its own directory": (lambda f, r: f.rename(f"{r}/dir/inner", f"{r}/dir"), errno.ENOTEMPTY),
    "the parent of the target is looked at first": (lambda f, r: f.rename(f"{r}/no", f"{r}/file/x"), errno.ENOTDIR),
    "a link to a directory": (lambda f, r: f.link(f"{r}/dir", f"{r}/new"), errno.EPERM),
    "truncate of what is open to read": (lambda f, r: f.open(f"{r}/file").truncate(1), errno.EINVAL),
    "write to what is open to read": (lambda f, r: f.open(f"{r}/file").write_at(0, b"x"), errno.EBADF),
    "a negative offset": (lambda f, r: f.create(f"{r}/neg").write_at(-1, b"x"), errno.EINVAL),
    "a file that is too long": (lambda f, r: f.create(f"{r}/far").truncate(1 << 62), errno.EFBIG),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_those_of_the_kernel(name: str, tmp_path: Path):
    """The model and the real door fail with the same errno where the kernel's choice is not obvious."""
    call, number = ERRORS[name]
    real = RealFiles()
    simulated = model(str(tmp_path))
    simulated.files.storage.make_special(f"{tmp_path}/fifo")  # type: ignore[attr-defined]
    os.mkfifo(tmp_path / "fifo")
    for files in (real, simulated.files):
        files.create(f"{tmp_path}/file").close()
        files.make_directory(f"{tmp_path}/dir")
        files.make_directory(f"{tmp_path}/dir/inner")
        files.symlink("dir", f"{tmp_path}/link")
        files.symlink("loop", f"{tmp_path}/loop")
        files.symlink("nowhere", f"{tmp_path}/dangling")
        with pytest.raises(OSError) as caught:
            call(files, str(tmp_path))
        assert caught.value.errno == number, files


def test_an_unlinked_file_lives_while_it_is_open():
    """Handles keep meaning their file after its name is gone or another's; its room is given back at the last close."""
    storage = SimStorage(capacity=1 << 20)
    files = SimFiles(storage)
    before = files.space("/").free_bytes
    handle = files.create("/a")
    handle.write_at(0, b"1" * 5000)
    files.create("/b").close()
    files.rename("/b", "/a")
    again = handle.read_at(0, 1)
    assert again == b"1" and handle.stat().links == 0 and files.read_file("/a", 10) == b""
    handle.write_at(0, b"2")
    assert files.space("/").free_bytes == before - 8192
    handle.close()
    handle.close()
    assert files.space("/").free_bytes == before


def test_a_full_storage_refuses_what_needs_room_and_nothing_else():
    """ENOSPC changes nothing; overwriting what is allocated works, and so does removing."""
    storage = SimStorage(capacity=4 * 4096)
    files = SimFiles(storage)
    handle = files.create("/a")
    handle.write_at(0, bytes(3 * 4096))
    with pytest.raises(OSError, match="No space") as caught:
        handle.write_at(3 * 4096 - 1, b"xy")
    assert caught.value.errno == errno.ENOSPC
    assert handle.stat().size == 3 * 4096
    handle.write_at(100, b"here")
    with pytest.raises(OSError, match="No space"):
        files.make_directory("/d")
    handle.truncate(4096)
    files.make_directory("/d")
    assert files.space("/").free_bytes == 4096


def test_mounts_are_file_systems_of_their_own():
    """Names below a mount are in its storage; renaming and linking across is EXDEV."""
    inner = SimStorage(device=2)
    inner.make_directory("/state")
    files = SimFiles(SimStorage(), mounts={"/state": inner})
    files.create("/state/x").close()
    files.create("/statement").close()
    assert [entry.name for entry in files.list_directory("/state")] == ["x"]
    assert files.stat("/state/x").device != files.stat("/statement").device
    for call in (files.link, files.rename):
        with pytest.raises(OSError, match="cross-device") as caught:
            call("/state/x", "/y")
        assert caught.value.errno == errno.EXDEV


def test_listings_can_be_shuffled():
    """With an order other than 0 the listing has the same names in another order, the same each time."""
    storage = SimStorage()
    for number in range(20):
        storage.create(f"/{number:02d}")
    plain = SimFiles(storage).list_directory("/")
    shuffled = SimFiles(storage, order=7).list_directory("/")
    assert [entry.name for entry in plain] == sorted(entry.name for entry in plain)
    assert sorted(shuffled) == sorted(plain) and shuffled != plain
    assert shuffled == SimFiles(storage, order=7).list_directory("/")


def test_cloned_blocks_are_shared_or_refused():
    """Clone answers False where the storage cannot; else the target reads as the source, all or nothing."""
    storage = SimStorage()
    files = SimFiles(storage)
    source, target = files.create("/a"), files.create("/b")
    source.write_at(0, b"source")
    target.write_at(0, b"target that is longer")
    assert not files.clone(source, target)
    storage.reflink = True
    assert files.clone(source, target)
    assert target.read_at(0, 100) == b"source that is longer"
