"""The real mount door, with a list of mounts and a mount.nfs of our own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.errors import BadRequest, Conflict, DiskwrightError, NotFound, Refused, StorageError, ToolMissing
from engine.tools.nfs import mounts as nfs_mount
from engine.tools.nfs.mounts import NfsMounts, parse_line

ROOT = "20 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw"
NFS = (
    r"30 20 0:40 /sub /mnt/my\040nas\134x rw,nosuid shared:2 master:3 - nfs4 nas:/srv/\303\274\054 "
    r"rw,vers=4.2,local_lock=none,addr=192.0.2.1"
)
ABOVE = "31 20 0:41 / /mnt/over rw - ext4 /dev/sdb rw\n32 31 0:42 / /mnt/over rw - nfs4 nas:/over rw,vers=4.1"


class Machine:
    """A host with a list of mounts and a mount.nfs that says and returns what it is told."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self.list = directory / "mountinfo"
        self.list.write_text(f"{ROOT}\n{NFS}\n{ABOVE}\n")
        self.folder = directory / "bin"
        self.folder.mkdir()
        self.point = str(directory / "run" / "point")
        self.called = directory / "called"
        patch.setattr(nfs_mount, "_MOUNTINFO", str(self.list))
        patch.setattr(nfs_mount, "_PLACES", ())
        patch.setattr(os, "geteuid", lambda: 0)
        patch.setenv("PATH", f"{self.folder}:/usr/bin:/bin")

    def program(self, says: str, code: int) -> None:
        program = self.folder / "mount.nfs"
        program.write_text(
            f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {self.called}\necho 'mount.nfs: {says}' >&2\nexit {code}\n"
        )
        program.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_a_line_of_the_kernels_list_is_understood():
    """Escaped characters, optional fields, options of the mount and of the file system."""
    mount = parse_line(NFS.encode())
    assert mount is not None
    assert (mount.source, mount.path, mount.type) == ("nas:/srv/ü,", "/mnt/my nas\\x", "nfs4")
    assert {"nosuid", "vers=4.2", "local_lock=none"} <= set(mount.options)


@pytest.mark.parametrize("line", [b"", b"20 1 8:1 / / rw", b"20 1 8:1 / / rw - ext4", b"- - - - - - -"])
def test_other_lines_are_left_out(line: bytes):
    """A line that is none stops nothing."""
    assert parse_line(line) is None


def test_the_mount_that_holds_a_path_is_found(machine: Machine):
    """The longest mount point on a border of names; of two on one point the upper one. Nobody goes there."""
    mounts = NfsMounts(())
    found = {path: getattr(mounts.holding(path), "source", None) for path in (
        "/", "/mnt/my nas\\x", "/mnt/my nas\\x/a/b", "/mnt/my nas\\xy", "/mnt/over/x",
    )}  # fmt: skip
    assert list(found.values()) == ["/dev/sda1", "nas:/srv/ü,", "nas:/srv/ü,", "/dev/sda1", "nas:/over"]
    assert mounts.at("/mnt/over/x") is None
    assert getattr(mounts.at("/mnt/over"), "source", None) == "nas:/over"


def test_mount_nfs_gets_source_and_options_as_they_are(machine: Machine):
    """One argument each, whatever is in them; the mount point is made."""
    machine.program("", 0)
    NfsMounts(()).mount_nfs("[2001:db8::1]:/my disks; -o ro", machine.point, "vers=4,softerr")
    assert machine.called.read_text().splitlines() == [
        "[2001:db8::1]:/my disks; -o ro", machine.point, "-n", "-o", "vers=4,softerr",
    ]  # fmt: skip
    assert os.path.isdir(machine.point)


def test_leases_go_along_until_the_mounting_ends(machine: Machine):
    """mount.nfs inherits the descriptors it is told to: killing us does not unlock the mount point under it."""
    read_end, write_end = os.pipe()
    program = machine.folder / "mount.nfs"
    program.write_text(f"#!/bin/sh\necho there > /proc/self/fd/{write_end}\n")
    program.chmod(0o755)
    with os.fdopen(read_end, "rb") as reader:
        NfsMounts((write_end,)).mount_nfs("nas:/x", machine.point, "vers=4")
        os.close(write_end)
        assert reader.read() == b"there\n"


@pytest.mark.parametrize(
    ("says", "code", "error", "next_step"),
    [
        ("access denied by server while mounting nas:/x", 32, StorageError, "exports"),
        ("mounting nas:/x failed, reason given by server: No such file or directory", 32, NotFound, "exports it"),
        ("Protocol not supported", 32, BadRequest, "4.0 or newer"),
        ("requested NFS version or transport protocol is not supported for /x", 32, BadRequest, "4.0 or newer"),
        ("Connection timed out", 32, StorageError, "network"),
        ("Connection refused", 32, StorageError, "network"),
        ("No route to host", 32, StorageError, "network"),
        ("Resource temporarily unavailable", 32, StorageError, "network"),
        ("Failed to resolve server nas: Name or service not known", 32, StorageError, "network"),
        ("an incorrect mount option was specified for /x", 32, BadRequest, "options"),
        ("/x is busy or already mounted", 32, Conflict, "mounted there"),
        ("unknown filesystem type", 32, StorageError, "NFS client"),
        ("something never heard of", 1, StorageError, "Check the server"),
    ],
)
def test_what_mount_nfs_says_becomes_an_error_that_helps(
    machine: Machine, says: str, code: int, error: type[DiskwrightError], next_step: str
):
    """Its words, what is mounted, and what to do; the mount point is taken away again."""
    machine.program(says, code)
    with pytest.raises(error) as caught:
        NfsMounts(()).mount_nfs("nas:/x", machine.point, "vers=4")
    assert type(caught.value) is error
    assert says in caught.value.message and "nas:/x" in caught.value.message and next_step in caught.value.next_step
    assert not os.path.exists(machine.point)


def test_a_missing_program_names_its_package(machine: Machine):
    """ToolMissing, nfs-common."""
    with pytest.raises(ToolMissing) as caught:
        NfsMounts(()).mount_nfs("nas:/x", machine.point, "vers=4")
    assert "nfs-common" in caught.value.next_step


def test_only_root_mounts(machine: Machine, monkeypatch: pytest.MonkeyPatch):
    """Said before anything is made or run."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    machine.program("", 0)
    with pytest.raises(Refused, match="root"):
        NfsMounts(()).mount_nfs("nas:/x", machine.point, "vers=4")
    assert not machine.called.exists() and not os.path.exists(machine.point)


def test_what_is_mounted_already_is_left_alone(machine: Machine):
    """Success for the same source, Conflict for another; mount.nfs is not run."""
    machine.program("", 0)
    NfsMounts(()).mount_nfs("nas:/over", "/mnt/over", "vers=4")
    with pytest.raises(Conflict, match="nas:/over"):
        NfsMounts(()).mount_nfs("nas:/other", "/mnt/over", "vers=4")
    assert not machine.called.exists()


def test_unmounting_what_is_not_mounted_takes_the_directory_away(machine: Machine):
    """Success, twice."""
    os.makedirs(machine.point)
    for _ in range(2):
        NfsMounts(()).unmount(machine.point)
        assert not os.path.exists(machine.point)
