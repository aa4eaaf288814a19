"""Adoption: files become images as they are, each keeps a name at every moment, and no name is followed that was not
given."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.data.decoding import decode
from engine.data.model import Status, WaitKind
from engine.data.records import encode
from engine.errors import BadRequest, ImageBusy, NotFound, NotUnderstood, Refused, StorageError
from engine.formats.files import volumes
from sim.disk.nfs_view import NfsFiles
from sim.disk.nodes import FileNode
from sim.explore.cases.driver import Driver
from sim.explore.cases.fixtures import images
from sim.hosts.world import NFS
from sim.hosts.world import World as SimWorld
from tests.crash.kit import MiB, content
from tests.engine.kit import NO_FIX, commanded, dies_at_the_end, fixes, record, run, state_of, volume_of
from tests.engine.test_imports import make_qcow2

SIZE = "4M"


def on(base: Path, path: Path, format: str = "qcow2", *commands: str) -> Path:
    """An overlay on a file, with what the commands of qemu-io write."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base.name, "-F", format, path], check=True)
    return commanded(path, *commands)


@pytest.fixture
def chain(tmp_path):
    """A pool of a raw base, a qcow2 file on it, and two on that."""
    pool = tmp_path / "pool"
    pool.mkdir()
    base = pool / "base.img"
    base.write_bytes(b"b" * (4 * MiB))
    middle = on(base, pool / "middle.qcow2", "raw", "write -P 1 1M 1M")
    return (
        pool,
        base,
        middle,
        on(middle, pool / "one.qcow2", "qcow2", "write -P 2 2M 1M"),
        on(middle, pool / "two.qcow2"),
    )


def adopted(engine, *paths: Path, format: str = "qcow2") -> dict[str, str]:
    """The ids by file name of what was committed."""
    plan = engine.plan_adoption("a", [str(path) for path in paths], format)
    assert not plan.refused
    return {Path(path).name: image for path, image in engine.adopt_images("a", plan, NO_FIX).items()}


def refusals(engine, *paths: Path, format: str = "qcow2") -> dict[str, str]:
    plan = engine.plan_adoption("a", [str(path) for path in paths], format)
    return {Path(path).name: why for path, why in plan.refused}


def test_a_chain_becomes_images_without_a_copy_and_is_given_back_no_more(engine, world, chain, tmp_path):
    """Bases become snapshots, the rest disks; inodes are the same, old names are gone."""
    pool = chain[0]
    inodes = {path.name: path.stat().st_ino for path in chain[1:]}
    images = adopted(engine, pool)
    assert list(images) == ["base.img", "middle.qcow2", *list(images)[2:]] and len(images) == 4
    (waiting,) = fixes(engine, "a", "B-ADOPT", images["one.qcow2"])
    assert waiting.wait is not None and waiting.wait.kind is WaitKind.BASE
    for image in images.values():
        run(engine, "a", "B-ADOPT", image)
    assert list(pool.iterdir()) == []
    assert {name: volume_of(world, engine, "a", image).stat().st_ino for name, image in images.items()} == inodes
    assert [record(engine, "a", image).mutable for image in images.values()] == [False, False, True, True]
    expected = b"b" * MiB + b"\1" * MiB + b"\2" * MiB + b"b" * MiB
    assert content(engine, "a", images["one.qcow2"], tmp_path) == expected
    assert record(engine, "a", images["two.qcow2"]).name == "two"
    for image in images.values():
        run(engine, "a", "O-HEADER", image) if image != images["base.img"] else None
        assert state_of(engine, "a", image) == Status.OPTIMIZED
    assert content(engine, "a", images["one.qcow2"], tmp_path) == expected
    assert engine.check_storage_repository("a") == []
    engine.remove_image("a", images["two.qcow2"])
    (fix,) = fixes(engine, "a", "C-REMOVED", images["two.qcow2"])
    assert fix.cost.reclaimed_bytes > 0
    engine.run_fix_here("a", fix)
    assert list(pool.iterdir()) == []


def test_what_is_given_up_keeps_its_name_or_gets_it_again(engine, chain, monkeypatch):
    """Before its file was touched, and when it had lost its old name already."""
    pool, base, *_ = chain
    images = adopted(engine, pool)
    dies_at_the_end(monkeypatch)
    with pytest.raises(Refused, match="killed"):
        run(engine, "a", "B-ADOPT", images["base.img"])
    assert not base.exists()
    for image in reversed(images.values()):
        engine.remove_image("a", image)
        (fix,) = fixes(engine, "a", "C-REMOVED", image)
        assert fix.cost.reclaimed_bytes == 0 and "gets it again" in fix.why
        engine.run_fix_here("a", fix)
    assert base.read_bytes() == b"b" * (4 * MiB) and len(list(pool.iterdir())) == 4
    assert subprocess.run(["qemu-img", "check", "-q", pool / "one.qcow2"], check=False).returncode == 0
    assert engine.list_images("a") == []


def test_another_file_that_has_the_old_name_by_now_is_not_replaced(engine, world, tmp_path, monkeypatch):
    """Neither by giving the file back nor by going on."""
    path = make_qcow2(tmp_path / "disk.qcow2", "write -P 1 0 1M", size=SIZE)
    (image,) = adopted(engine, path).values()
    with monkeypatch.context() as patch:
        dies_at_the_end(patch)
        with pytest.raises(Refused, match="killed"):
            run(engine, "a", "B-ADOPT", image)
    path.write_bytes(b"another")
    engine.remove_image("a", image)
    with pytest.raises(Refused, match="is another file's by now"):
        run(engine, "a", "C-REMOVED", image)
    other = world.engine("host-b")  # what is left needs no path
    with pytest.raises(Refused, match="is being deleted"):
        other.restore_image("a", image)
    path.rename(tmp_path / "moved")
    run(engine, "a", "C-REMOVED", image)
    assert path.stat().st_size > MiB and (tmp_path / "moved").read_bytes() == b"another"


def test_another_host_goes_on(engine, world, tmp_path):
    """With the path named there, if it is the very file; without, when the file has only the name of the volume."""
    path, copy = make_qcow2(tmp_path / "disk.qcow2", size=SIZE), tmp_path / "copy.qcow2"
    copy.write_bytes(path.read_bytes())
    (image,) = adopted(engine, path).values()
    other = world.engine("host-b")
    (fix,) = fixes(other, "a", "B-ADOPT", image)
    assert fix.wait is not None and fix.wait.kind is WaitKind.PATH
    with pytest.raises(Refused, match="is not the file that the adoption began with"):
        other.name_import_file("a", image, str(copy))
    other.name_import_file("a", image, str(path))
    run(other, "a", "B-ADOPT", image)
    assert not path.exists() and state_of(other, "a", image) == Status.OPTIMIZED


def test_the_same_command_again_commits_nothing_twice(engine, chain):
    """Interrupted between two records, it goes on where it was."""
    pool = chain[0]
    first = adopted(engine, pool)
    assert adopted(engine, pool) == first
    assert len(engine.list_images("a")) == 4


def test_a_file_that_has_both_names_is_told_to_be_on_its_way(engine, chain):
    """As when it was killed between its new name and the end of its old one: to remove one of the two by hand, as is
    advised of other files, would be no help."""
    images = adopted(engine, *chain[1:])
    os.link(chain[1], chain[0].parent / "as-a-volume")
    assert f"is being adopted already, as image {images['base.img']}" in refusals(engine, *chain[1:])["base.img"]


def cut_short(path: Path) -> None:
    """As an incomplete copy is."""
    commanded(path, "write 0 2M")
    os.truncate(path, path.stat().st_size - MiB)


@pytest.mark.parametrize(
    "change, why",
    [
        (lambda path: os.link(path, path.with_name("second")), "it has 2 names"),
        (lambda path: subprocess.run(["qemu-img", "snapshot", "-c", "s", path], check=True), "has internal snapshots"),
        (lambda path: subprocess.run(["qemu-img", "bitmap", "--add", path, "b"], check=True), "has dirty bitmaps"),
        (lambda path: path.write_bytes(bytes(MiB)), "is no qcow2 image"),
        (cut_short, "is cut off, or damaged"),
        (lambda path: on(path, path.with_name("above.qcow2")), "stands on it, and was not given"),
        (lambda path: subprocess.run(["qemu-img", "resize", "-q", path, "+512"], check=True), "a multiple of 4096"),
    ],
)
def test_what_cannot_be_a_volume_as_it_is_stays_with_the_reason(engine, tmp_path, change, why):
    """Nothing is committed."""
    path = make_qcow2(tmp_path / "disk.qcow2", size=SIZE)
    change(path)
    assert why in refusals(engine, path)["disk.qcow2"]
    with pytest.raises(Refused, match=r"nothing can be adopted: .*disk\.qcow2"):
        engine.adopt_images("a", engine.plan_adoption("a", [str(path)], "qcow2"))


def test_a_chain_is_not_taken_apart(engine, chain):
    """A base that is not given refuses what stands on it; a file that is refused, all of its chain."""
    pool, base, middle, one, two = chain
    assert "is not among the files given" in refusals(engine, middle, one, two)["middle.qcow2"]
    os.link(two, pool / "second")
    assert len(refusals(engine, base, middle, one, two)) == 4


def test_no_name_in_what_a_guest_wrote_is_followed(engine, tmp_path):
    """The header in a raw disk means nothing, neither where the disk is a base nor where it is stated to be raw."""
    secret = make_qcow2(tmp_path / "secret.qcow2", size=SIZE)
    guest = on(secret, tmp_path / "guest.raw")
    with open(guest, "r+b") as stream:
        stream.truncate(4 * MiB)
    top = on(guest, tmp_path / "top.qcow2", "raw")
    plan = engine.plan_adoption("a", [str(top), str(guest), str(secret)], "qcow2")
    assert {Path(item.path).name: item.base for item in plan.images} == {"secret.qcow2": ""}
    assert "looks like qcow2" in dict(plan.refused)[str(guest)]
    with pytest.raises(BadRequest, match="nothing tells a raw image"):
        engine.plan_adoption("a", [str(tmp_path)], "raw")


def test_a_file_that_is_open_is_not_taken(engine, tmp_path):
    """Also by who locks nothing; found out in the plan, and when the file has just lost its old name."""
    path = tmp_path / "disk.raw"
    path.write_bytes(bytes(MiB))
    (image,) = adopted(engine, path, format="raw").values()
    with path.open("r+b") as stream, subprocess.Popen(["sleep", "60"], stdin=stream) as process:
        stream.close()
        try:
            assert "is in use by process" in refusals(engine, path, format="raw")["disk.raw"]
            with pytest.raises(ImageBusy, match=f"is in use by process {process.pid}"):
                run(engine, "a", "B-ADOPT", image)
        finally:
            process.kill()
    assert path.stat().st_nlink == 2
    run(engine, "a", "B-ADOPT", image)
    assert not path.exists() and state_of(engine, "a", image) == Status.OPTIMIZED


def test_a_file_that_was_written_to_or_is_damaged_is_no_image(engine, tmp_path):
    """What was planned is another file then; and all tables are read before the seal."""
    path = make_qcow2(tmp_path / "disk.qcow2", "write -P 1 0 4M", size=SIZE)
    (image,) = adopted(engine, path).values()
    os.utime(path, ns=(1, 1))
    with pytest.raises(Refused, match="is not the one that the adoption began with"):
        run(engine, "a", "B-ADOPT", image)
    engine.remove_image("a", image)
    run(engine, "a", "C-REMOVED", image)
    with path.open("r+b") as stream:
        stream.seek(2 * 65536)  # the first block of reference counts
        stream.write(b"\0\0" * 4)
    (image,) = adopted(engine, path).values()
    with pytest.raises(Refused, match=r"is damaged: \d+ errors in its tables"):
        run(engine, "a", "B-ADOPT", image)
    assert path.exists()


def swaps(patch: pytest.MonkeyPatch, also: Callable[[], None] = lambda: None) -> None:
    """Somebody has given another file the name, and done ``also``, when the file that has it is renamed."""
    require_moved = volumes.Adoption._require_moved

    def swapped(adoption: Any, name: str, lost: str, ours: Any) -> None:
        os.unlink(lost)
        Path(lost).write_bytes(b"another")
        also()
        require_moved(adoption, name, lost, ours)

    patch.setattr(volumes.Adoption, "_require_moved", swapped)


def test_a_file_that_was_swapped_at_the_last_moment_gets_its_name_again(engine, tmp_path, monkeypatch):
    """Whoever owns the directory can do that between any two calls."""
    path = make_qcow2(tmp_path / "disk.qcow2", size=SIZE)
    (image,) = adopted(engine, path).values()
    swaps(monkeypatch)
    with pytest.raises(Refused, match="another file has got the name"):
        run(engine, "a", "B-ADOPT", image)
    assert path.read_bytes() == b"another"


def test_a_file_that_cannot_get_its_name_again_is_not_passed_over(engine, tmp_path, monkeypatch):
    """Another one that was swapped in, and whose directory is gone then, stays in ``lost``; that is told."""
    pool = tmp_path / "pool"
    pool.mkdir()
    path = make_qcow2(pool / "disk.qcow2", size=SIZE)
    (image,) = adopted(engine, path).values()
    swaps(monkeypatch, pool.rmdir)
    with pytest.raises(StorageError, match=r"cannot take over .*/lost/"):
        run(engine, "a", "B-ADOPT", image)


def test_a_program_without_adoption_understands_no_record_of_one(engine, tmp_path, monkeypatch):
    """It would clean the volume away, and with it the only name of a file."""
    (image,) = adopted(engine, make_qcow2(tmp_path / "disk.qcow2", size=SIZE)).values()
    raw = encode(record(engine, "a", image))
    monkeypatch.setattr("engine.data.decoding.ADOPTED", "nothing of the kind")
    with pytest.raises(NotUnderstood):
        decode(raw, image)


def test_on_nfs_another_host_goes_on_by_its_own_path():
    """Each host has its own mount; a file that is not below that is refused."""
    world = SimWorld(format=NFS)
    world.create("a")
    driver = Driver(world)
    images.an_adoption_on_a_server(driver)
    two = driver.engine("two")
    with pytest.raises(NotFound, match="there is no file"):
        two.name_import_file("a", images.disk(driver), images.on_server_of(driver.engine()))
    two.name_import_file("a", images.disk(driver), images.on_server_of(two))
    run(two, "a", "B-ADOPT")
    assert [(image.id, image.status) for image in two.list_images("a")] == [(images.disk(driver), Status.OPTIMIZED)]
    with two.doors.files.create("/elsewhere.raw") as handle:
        handle.truncate(MiB)
    (refused,) = two.plan_adoption("a", ["/elsewhere.raw"], "raw").refused
    assert "is not on the file system of" in refused[1]


def test_a_name_that_a_client_remembers_is_not_where_a_file_is_given_back_to(monkeypatch):
    """Found so: link(2) said that the name is taken, the client remembered the old file there, the volume was deleted,
    and with it the only name of the file."""
    of_memory: list[str] = []
    answered: list[str] = []
    of_server = NfsFiles.link

    def link(files: NfsFiles, source: str, target: str) -> None:
        if target in of_memory:  # so the client goes on believing what it does
            answered.append(target)
            raise FileExistsError(target)
        of_server(files, source, target)

    monkeypatch.setattr(NfsFiles, "link", link)
    world = SimWorld(format=NFS)
    world.create("a")
    driver = Driver(world)
    images.an_adoption_on_a_server(driver)
    one, two = driver.engine(), driver.engine("two")
    here, there = images.on_server_of(one), images.on_server_of(two)
    two.doors.files.stat(there)
    with pytest.MonkeyPatch.context() as patch:
        dies_at_the_end(patch)
        with pytest.raises(Refused, match="killed"):
            run(one, "a", "B-ADOPT")
    with one.doors.files.create(here) as handle:
        handle.write_at(0, b"another")
    two.remove_image("a", images.disk(driver))
    two.name_import_file("a", images.disk(driver), there)
    believed = two.doors.files.stat(there).inode
    of_memory.append(there)
    with pytest.raises(Refused, match="is another file's by now"):
        run(two, "a", "C-REMOVED")
    assert answered and two.doors.files.stat(there).inode == believed != one.doors.files.stat(here).inode
    (kept,) = driver.model.kept.values()
    assert any(isinstance(node, FileNode) and node.content.same(kept) for _, _, node in world.storage.walk())


def test_no_repository_gives_its_volumes_away(engine, world, tmp_path):
    """Neither this one nor another, connected or not; what somebody put beside its parts may go."""
    disk = engine.create_virtual_disk("b", MiB, options={"strategy": "performance"})
    volume, beside = volume_of(world, engine, "b", disk), world.root / "b" / "incoming" / "disk.raw"
    beside.parent.mkdir()
    beside.write_bytes(bytes(MiB))
    for repo in ("a", "b"):
        (refused,) = engine.plan_adoption(repo, [str(volume)], "raw").refused
        assert f"is a part of the repository at '{world.root}/b'" in refused[1]
    assert list(adopted(engine, beside, format="raw")) == ["disk.raw"]
