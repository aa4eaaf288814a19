"""Owner, group and mode of images are a property of the repository: machines run as other users."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.api import Engine
from engine.assembly import real_doors
from engine.data.model import Status
from engine.doors.files import Access
from engine.errors import BadRequest, Damaged, NoSpace, Refused, StorageError
from sim.disk.files import SimFiles, SimHandle
from sim.hosts.world import LVM, SHARED, World
from sim.lvm.volume_groups import SimDevice
from tests.engine.kit import dies_at_the_end

MEBI = 1 << 20
OTHER = 65534
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user can reach."""
    folder = Path(tempfile.mkdtemp(prefix="diskwright-access-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def engine(place: Path, tmp_path: Path) -> Iterator[Engine]:
    """With a repository whose images are another user's."""
    engine = Engine(real_doors("host-a"), str(tmp_path / "state"))
    made = {"path": str(place / "r"), "owner": str(OTHER), "group": str(OTHER), "mode": "600"}
    engine.create_repository("localfs-1.0", made)
    engine.connect_storage_repository("a", "localfs-1.0", {"path": made["path"]})
    yield engine
    engine.close()


def as_other(path: str, *commands: str) -> subprocess.CompletedProcess[str]:
    """A machine of the other user opens what was prepared."""
    words = ["qemu-io", "-f", "qcow2", *(word for command in commands for word in ("-c", command)), path]
    return subprocess.run(
        words, user=OTHER, group=OTHER, extra_groups=[], capture_output=True, text=True, check=False, cwd="/"
    )


def owned(place: Path) -> set[tuple[int, int, int]]:
    """Owner, group and mode of all volumes."""
    found = [path.stat() for path in (place / "r" / "volumes").glob("*/*")]
    return {(one.st_uid, one.st_gid, one.st_mode & 0o777) for one in found}


@AS_ROOT
def test_a_machine_of_another_user_can_use_what_is_prepared(engine: Engine, place: Path):
    """The disk for writing and the layer below for reading, and not the records; every volume that is made later is
    his too: an overlay, a flat copy, a merge."""
    disk = engine.create_virtual_disk("a", MEBI)
    engine.create_snapshot("a", disk)
    path = engine.prepare_image("a", disk).path
    done = as_other(path, "write -P 7 0 64k", "read -P 7 0 64k")
    assert done.returncode == 0 and "verification failed" not in done.stdout, done.stderr
    assert owned(place) == {(OTHER, OTHER, 0o600)}
    tags = subprocess.run(
        ["ls", str(place / "r" / "tags")], user=OTHER, group=OTHER, extra_groups=[], capture_output=True, check=False
    )
    assert tags.returncode != 0
    engine.teardown_image("a", disk)
    engine.set_strategy("a", disk, "performance")
    for fix in engine.check_storage_repository("a"):
        engine.run_fix_here("a", fix)
    assert engine.get_image_status("a", disk).status is Status.OPTIMIZED
    assert owned(place) == {(OTHER, OTHER, 0o600)}


@AS_ROOT
def test_whose_volumes_are_can_be_changed(place: Path, tmp_path: Path):
    """Connected or not, those that are there are given away too, and those that come; the identity and its inode stay,
    so no host takes it for another repository."""
    engine, parameters = Engine(real_doors("host-a"), str(tmp_path / "state")), {"path": str(place / "r")}
    engine.create_repository("localfs-1.0", parameters)
    engine.connect_storage_repository("a", "localfs-1.0", parameters)
    disk = engine.create_virtual_disk("a", MEBI)
    assert OTHER not in {owner for owner, _, _ in owned(place)}
    other = Engine(real_doors("host-b"), str(tmp_path / "state-b"))
    other.connect_storage_repository("b", "localfs-1.0", {**parameters, "owner": str(OTHER), "mode": "640"})
    assert {(owner, mode) for owner, _, mode in owned(place)} == {(OTHER, 0o640)}
    engine.connect_storage_repository("a", "localfs-1.0", {**parameters, "group": str(OTHER), "mode": "600"})
    engine.create_snapshot("a", disk)
    assert {(group, mode) for _, group, mode in owned(place)} == {(OTHER, 0o600)}
    assert engine.list_repositories()["a"].parameters == parameters
    assert not engine.inspect_repository("a").findings


@AS_ROOT
def test_an_adopted_file_that_is_given_back_is_whose_it_was(engine: Engine, place: Path, monkeypatch):
    """It is the repository's from when its name goes; whose it is may change without it being another file."""
    path = place / "in.raw"
    path.write_bytes(bytes(MEBI))
    os.chown(path, 1234, 4321)
    path.chmod(0o640)
    options = {"auto_fix": False}
    plan = engine.plan_adoption("a", [str(path)], "raw")
    made = engine.adopt_images("a", plan, options)
    path.chmod(0o604)
    assert engine.adopt_images("a", engine.plan_adoption("a", [str(path)], "raw"), options) == made
    with monkeypatch.context() as patch:
        dies_at_the_end(patch)
        with pytest.raises(Refused, match="killed"):
            engine.run_fix_here("a", engine.check_storage_repository("a")[0])
    assert not path.exists() and owned(place) == {(OTHER, OTHER, 0o600)}
    engine.remove_image("a", made[str(path)])
    engine.run_fix_here("a", engine.check_storage_repository("a")[0])
    found = path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (1234, 4321, 0o640)


@AS_ROOT
def test_a_user_that_nobody_knows_changes_nothing(place: Path, tmp_path: Path):
    """The error names it; what was connected for that is not connected, and what was is."""
    engine, parameters = Engine(real_doors("host-a"), str(tmp_path / "state")), {"path": str(place / "r")}
    engine.create_repository("localfs-1.0", parameters)
    wrong = {**parameters, "owner": "nobody-of-that-name"}
    with pytest.raises(StorageError, match="no user nobody-of-that-name"):
        engine.connect_storage_repository("a", "localfs-1.0", wrong)
    assert not engine.list_repositories()
    engine.connect_storage_repository("a", "localfs-1.0", parameters)
    with pytest.raises(StorageError, match="no user nobody-of-that-name"):
        engine.connect_storage_repository("a", "localfs-1.0", wrong)
    assert engine.list_repositories() and not (place / "r" / "access.json").exists()


def test_a_statement_of_later_that_is_damaged_is_told(place: Path, tmp_path: Path):
    """Images are read and made all the same, as those of whom the creation says; check names it, and stating it anew
    mends it."""
    engine, parameters = Engine(real_doors("host-a"), str(tmp_path / "state")), {"path": str(place / "r")}
    engine.create_repository("localfs-1.0", parameters)
    for damaged in (b"{", b"[]", b'{"mode":"9"}', b""):
        (place / "r" / "access.json").write_bytes(damaged)
        engine.close()
        if "a" not in engine.list_repositories():
            engine.connect_storage_repository("a", "localfs-1.0", parameters)
        engine.create_virtual_disk("a", MEBI)
        (finding,) = engine.inspect_repository("a").findings
        assert (finding.kind, finding.subject) == ("unknown", "access.json") and "whose new volumes" in finding.text
        engine.connect_storage_repository("a", "localfs-1.0", {**parameters, "mode": "640"})
        assert not engine.inspect_repository("a").findings
        assert {mode for _, _, mode in owned(place)} == {0o640}


@pytest.mark.parametrize("format", [LVM, SHARED])
def test_on_lvm_a_device_is_given_when_it_is_handed_out(format: str, monkeypatch: pytest.MonkeyPatch):
    """Whose it is stands in the header, which any host reads. A device is given on the host where its image is
    prepared."""
    given: list[tuple[str, Access]] = []
    monkeypatch.setattr(SimDevice, "give", lambda device, access: given.append((device.path, access)))
    world = World(format=format)
    world.create("a")
    engine = world.host("one")
    engine.take_srm("a")
    disk = engine.create_virtual_disk("a", MEBI)
    engine.prepare_image("a", disk)
    engine.teardown_image("a", disk)
    assert not given
    engine.connect_storage_repository("a", LVM, {"volume_group": "a", "owner": "libvirt-qemu", "mode": "600"})
    engine.create_snapshot("a", disk)
    engine.close()
    engine = world.host("two" if format == SHARED else "one")
    engine.prepare_image("a", disk)
    assert {access for _, access in given} == {Access("libvirt-qemu", "", 0o600)}
    assert len({path for path, _ in given}) == 2  # the disk, and the layer below


def test_why_it_cannot_be_stated_on_lvm_is_told(monkeypatch: pytest.MonkeyPatch):
    """Where this host has no room to try it, that is said."""

    def no_room(files: SimFiles, path: str) -> SimHandle:
        raise OSError(errno.ENOSPC, "No space left on device", path)

    world = World(format=LVM)
    world.create("a")
    engine = world.host("one")
    engine.take_srm("a")
    with monkeypatch.context() as patch, pytest.raises(NoSpace):
        patch.setattr(SimFiles, "create", no_room)
        engine.connect_storage_repository("a", LVM, {"volume_group": "a", "mode": "600"})


@AS_ROOT
def test_without_a_statement_nobody_else_can(place: Path, tmp_path: Path):
    """As it was: what nobody stated is root's."""
    engine = Engine(real_doors("host-a"), str(tmp_path / "state"))
    engine.create_repository("localfs-1.0", {"path": str(place / "r")})
    engine.connect_storage_repository("a", "localfs-1.0", {"path": str(place / "r")})
    disk = engine.create_virtual_disk("a", MEBI)
    path = engine.prepare_image("a", disk).path
    assert "Permission denied" in as_other(path, "read 0 4k").stderr
    engine.teardown_image("a", disk)
    said = json.loads((place / "r" / "repository.json").read_text())
    assert set(said) == {"format", "id", "needs"}


@pytest.mark.parametrize("given", [{"mode": "8"}, {"mode": "4755"}, {"owner": "a b"}, {"group": ""}])
def test_what_is_no_access_is_refused(place: Path, tmp_path: Path, given: dict[str, str]):
    """Nothing is made then."""
    engine = Engine(real_doors("host-a"), str(tmp_path / "state"))
    with pytest.raises(BadRequest):
        engine.create_repository("localfs-1.0", {"path": str(place / "r"), **given})
    assert not (place / "r").exists()


@AS_ROOT
def test_a_user_that_this_host_does_not_know_is_named(place: Path, tmp_path: Path):
    """By its name, or by a number that no user can have. There is no repository afterwards, and it can be made."""
    engine = Engine(real_doors("host-a"), str(tmp_path / "state"))
    path = str(place / "r")
    for owner in ("nobody-of-that-name", str((1 << 32) - 1), "9" * 20):
        with pytest.raises(StorageError, match=f"this host has no user {owner}"):
            engine.create_repository("localfs-1.0", {"path": path, "owner": owner})
    engine.create_repository("localfs-1.0", {"path": path, "owner": str(OTHER)})


@AS_ROOT
def test_a_damaged_statement_is_damage(engine: Engine, place: Path):
    """Nobody guesses whose images are."""
    path = place / "r" / "repository.json"
    path.write_text(path.read_text().replace('"mode":"600"', '"mode":"xyz"'))
    (place / "r" / "repository.copy").unlink()
    engine.close()
    with pytest.raises(Damaged, match="no valid access"):
        engine.list_images("a")
