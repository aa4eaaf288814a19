"""Repositories that were written before this version are read, and worked on, as they are (tests/data)."""

from __future__ import annotations

import json
import lzma
import tarfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from engine.api import Engine
from engine.assembly import real_doors
from engine.data.model import ImageReport, Status
from sim.disk.nodes import DataOp
from sim.disk.storage import SimStorage
from sim.hosts.lease_areas import Area, Presence, Slot
from sim.hosts.world import LVM, SHARED, World

DATA = Path(__file__).parent.parent / "data" / "before-rooms"
READABLE = (Status.OPTIMIZED, Status.DEGRADED)
SINCE = {"O-USES"}
"""Rules that there were not then."""
MAX_FIXES = 40

Read = Callable[[ImageReport], bytes]
"""The whole content of an image."""


@pytest.fixture
def local(tmp_path: Path) -> Engine:
    """An engine that has connected the unpacked localfs repository as "a"."""
    with tarfile.open(DATA / "localfs.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    engine = Engine(real_doors("host-new"), str(tmp_path / "state"))
    engine.connect_storage_repository("a", "localfs-1.0", {"path": str(tmp_path / "a")})
    return engine


def exported(engine: Engine, folder: Path) -> Read:
    """Read by exporting to a raw file."""

    def content(image: ImageReport) -> bytes:
        target = folder / "exported"
        engine.export_image("a", image.id, str(target), "raw")
        data = target.read_bytes()
        target.unlink()
        return data

    return content


def simulated(stored: dict[str, Any], format: str) -> World:
    """A world on the storage that was kept: nobody runs, everything is durable."""
    storage = SimStorage()
    storage.make_directory("/srv")
    storage.make_directory("/srv/a")
    for path, file in stored["files"].items():
        inode = storage.create(path)
        storage.change(inode, DataOp(0, "truncate", 0, file["size"], 0), path)
        for start, length, data in file["runs"]:
            op = DataOp(0, "write", start, length, bytes.fromhex(data)) if isinstance(data, str) else None
            storage.change(inode, op or DataOp(0, "fill", start, length, data), path)
        if file["device"]:
            storage.devices = storage.devices | {inode}
    storage.settle()
    world = World(format=format, storage=storage, seed=1)  # another seed: ids that were given are given no more
    for name, kept in stored["areas"].items():
        area = world.shared.areas.setdefault(name, Area())
        for key, version in kept["slots"]:
            area.slots[key] = slot = Slot()
            slot.version = version
        for number, generation, host in kept["presences"]:
            area.presences[number] = presence = Presence(number, generation, host, 0.0)
            presence.over = presence.left = True
    return world


def as_it_was(engine: Engine, said: dict[str, Any], content: Read) -> None:
    """The same images with the same statuses, user data and contents; the same fixes are offered."""
    report = engine.inspect_repository("a")
    names = {identity: name for name, identity in said["names"].items()}
    found: dict[str, Any] = {}
    for image in report.images:
        known = {"id": image.id, "status": image.status, "rule": image.rule, "removed": image.removed}
        found[names[image.id]] = known | {"hidden": image.hidden}
        if not image.removed and not image.hidden:
            found[names[image.id]]["user_data"] = engine.get_user_data("a", image.id)
            if image.status in READABLE:
                found[names[image.id]]["raw_sha256"] = sha256(content(image)).hexdigest()
    assert found == said["images"]
    offered = [fix for fix in report.fixes if fix.rule not in SINCE]
    assert sorted([fix.rule, names.get(fix.target, "")] for fix in offered) == said["fixes"]


def mended(engine: Engine, said: dict[str, Any], content: Read, stays_broken: set[str]) -> None:
    """All fixes that can run are run; every image is in order and deeply checked then, and contains what it did."""
    ran = 0
    while fixes := [fix for fix in engine.check_storage_repository("a", {"deep": True}) if not fix.waits_for]:
        engine.run_fix_here("a", fixes[0])
        ran += 1
        assert ran < MAX_FIXES, "no end of fixes"
    report = engine.inspect_repository("a", {"deep": True})
    names = {identity: name for name, identity in said["names"].items()}
    contents = {names[i.id]: sha256(content(i)).hexdigest() for i in report.images if i.status in READABLE}
    assert {names[image.id] for image in report.images} - set(contents) == stays_broken
    before = {name: image["raw_sha256"] for name, image in said["images"].items() if "raw_sha256" in image}
    assert before.items() <= contents.items()
    assert contents["copy"] == contents["source"]
    assert contents["uncreated"] == contents["first"]
    assert not {"removed", "removed-below", "tombstone"} & set(contents)


def stored_group(kind: str) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(lzma.decompress((DATA / f"lvm-{kind}.json.xz").read_bytes()))
    return stored


def test_an_old_localfs_repository_says_what_it_said(local, tmp_path):
    """Statuses, rules, user data, contents and offered fixes."""
    as_it_was(local, json.loads((DATA / "localfs.json").read_text()), exported(local, tmp_path))


def test_an_old_localfs_repository_that_was_given_uses_says_the_same(local, tmp_path):
    """Nothing but names was added, and that is not offered again."""
    (fix,) = [fix for fix in local.check_storage_repository("a") if fix.rule in SINCE]
    local.run_fix_here("a", fix)
    as_it_was(local, json.loads((DATA / "localfs.json").read_text()), exported(local, tmp_path))
    assert not [fix for fix in local.check_storage_repository("a") if fix.rule in SINCE]


def test_an_old_localfs_repository_is_mended(local, tmp_path):
    """The copy goes on from its cursor, the merge is done, quarantine and evidence go; what is gone stays gone."""
    said = json.loads((DATA / "localfs.json").read_text())
    (copy,) = [fix for fix in local.check_storage_repository("a") if fix.rule == "B-COPY"]
    assert "it goes on at 4.0 MiB" in copy.why
    mended(local, said, exported(local, tmp_path), {"fallen", "lossy"})
    assert not list((tmp_path / "a" / "lost").iterdir())


@pytest.mark.parametrize(("kind", "format"), [("exclusive", LVM), ("shared", SHARED)])
def test_an_old_volume_group_is_read_and_mended(kind, format):
    """Its records, progress and volumes say what they said; every fix runs and the deep check finds nothing."""
    said = stored_group(kind)
    world = simulated(said, format)
    world.storage.make_directory("/files")
    engine = world.host("one")
    if format == SHARED:
        engine.take_srm("a")

    def content(image: ImageReport) -> bytes:
        engine.export_image("a", image.id, "/files/exported", "raw")
        data = world.storage.file("/files/exported")[1].content.read(0, image.size_bytes)
        engine.doors.files.unlink("/files/exported")
        return data

    as_it_was(engine, said, content)
    mended(engine, said, content, set())
