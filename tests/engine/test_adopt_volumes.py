"""Adoption of logical volumes: they are renamed into the repository of their group, and are their owner's until they
are images."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import pytest

from engine.api import Engine
from engine.data import decoding
from engine.data.model import Status, VolumeFormat
from engine.data.records import VolumeRef
from engine.doors.volume_groups import VolumeGroup
from engine.errors import Conflict, Damaged, DiskwrightError, ImageBusy, NotUnderstood, Refused
from engine.formats.lvm.metadata import layout
from engine.formats.lvm.volumes.adoption import Adoption
from engine.gate import gate
from engine.tools.qemu.qcow2 import fresh_image
from sim.disk.files import Fault
from sim.explore.cases.driver import Driver
from sim.explore.cases.fixtures import lvm
from sim.explore.cases.fixtures.lvm import BASE, TOP
from sim.hosts.crash import Crashed
from sim.hosts.processes import SimProcess
from sim.hosts.world import LVM, SHARED, World
from sim.lvm.volume_groups import SimVolumeGroups, make_device
from tests.crash.kit import MiB
from tests.engine.kit import NO_FIX, fixes, record, run, shown, state_of

STRANGE = "0f" * 16


@pytest.fixture
def driver() -> Driver:
    world = World(format=LVM)
    world.create("a")
    driver = Driver(world)
    lvm.a_chain_of_volumes(driver)
    return driver


@pytest.fixture
def engine(driver: Driver) -> Engine:
    return driver.engine()


def volumes(engine: Engine) -> dict[str, Any]:
    return engine.doors.volume_groups.report("a").volumes


def name_of(engine: Engine, image: str) -> str:
    now = record(engine, "a", image)
    volume = now.operation.attempt if now.operation is not None else now.volume
    assert volume is not None
    return layout.volume_name(volume.id)


def image(engine: Engine, name: str, backing: str = "", stated: str = "raw", size: int = 4 * MiB) -> str:
    groups = engine.doors.volume_groups
    groups.create("a", name, 4 * MiB, [])
    with groups.open_device(groups.activate("a", name), writable=True) as device:
        device.zero(0, 4 * MiB)
        for offset, piece in fresh_image(size, backing or None, stated if backing else None).pieces:
            device.write_at(offset, piece + bytes(-len(piece) % 4096))
    groups.deactivate("a", name)
    return f"/dev/a/{name}"


def refusals(engine: Engine, *paths: str, format: str = "qcow2") -> dict[str, str]:
    return dict(engine.plan_adoption("a", list(paths), format).refused)


def one(driver: Driver, name: str = "base") -> str:
    """Commit the adoption of a raw volume that nothing stands on."""
    driver.engine().doors.volume_groups.remove("a", "top")
    plan = driver.engine().plan_adoption("a", [f"/dev/a/{name}"], "raw")
    return driver.engine().adopt_images("a", plan, NO_FIX)[f"/dev/a/{name}"]


def test_a_chain_becomes_images_without_a_copy(driver: Driver, engine: Engine):
    """LVM's ids and places are the same, the old names are gone, nothing tells of them; both show what they did."""
    before = volumes(engine)
    lvm.adopt_them(driver)
    ids = [driver.named["base"], driver.named["top"]]
    for id in ids:
        run(engine, "a", "B-ADOPT", id)
    after = volumes(engine)
    for id, name in zip(ids, ("base", "top"), strict=True):
        now = after[name_of(engine, id)]
        assert (now.uuid, now.ranges) == (before[name].uuid, before[name].ranges) and name not in after
        assert layout.parse_former(now.tags) is None and layout.parse_tags(now.tags) is not None
        assert shown(driver, id)
    engine.prepare_image("a", ids[1])
    engine.teardown_image("a", ids[1])
    assert not fixes(engine, "a", "C-LITTER")


def test_what_cannot_be_treated_as_a_volume_is_refused(driver: Driver, engine: Engine, monkeypatch: pytest.MonkeyPatch):
    """Snapshots and their origins, other kinds than linear, what lies on a missing device, what is of the repository or
    elsewhere, chains that leave what was given, and all that stands on one of these."""
    for name in ("flat", "snap", "origin", "thin", "raid"):
        image(engine, name)
    image(engine, "far", "/dev/b/base")
    image(engine, "template")
    image(engine, "on-thin", "/dev/mapper/a-thin", "qcow2")
    says: dict[str, dict[str, Any]] = {
        "snap": {"origin": "origin", "ranges": ()},
        "thin": {"kind": "thin", "ranges": ()},
        "raid": {"kind": "raid1"},
        "template": {"read_only": True},
    }
    real = SimVolumeGroups.report

    def report(groups: SimVolumeGroups, group: str) -> VolumeGroup:
        found = real(groups, group)
        changed = {name: one._replace(**says.get(name, {})) for name, one in found.volumes.items()}
        return found._replace(volumes=changed)

    monkeypatch.setattr(SimVolumeGroups, "report", report)
    told = refusals(engine, "/dev/a")
    for name, why in {
        "snap": "is a snapshot of origin", "origin": "has the snapshot snap", "thin": "is not linear (thin)",
        "raid": "is not linear (raid1)", "far": "not among the files given", "on-thin": "is not adopted",
        "template": "is read-only",
    }.items():  # fmt: skip
        assert why in told[f"/dev/a/{name}"], name
    assert "/dev/a/top" not in told
    assert "stands on it, and was not given" in refusals(engine, BASE, format="raw")[BASE]
    assert "belongs to the repository" in refusals(engine, "/dev/a/dw-meta", format="raw")["/dev/a/dw-meta"]
    for path in ("/dev/b/x", "/files/x.raw", "/dev/a/../b/x", "/dev/mapper/b-x"):
        assert "no logical volume of the volume group a" in next(iter(refusals(engine, path, format="raw").values()))


def test_what_is_open_is_not_taken_over(driver: Driver, engine: Engine):
    """Neither planned, nor taken over when it is opened after that; it goes on when it is closed."""
    groups = driver.world.machine("one").process("qemu").groups
    handle = groups.open_device(groups.activate("a", "base"))
    assert "in use by" in refusals(engine, TOP, BASE)[BASE]
    handle.close()
    disk = one(driver)
    handle = groups.open_device("/dev/a/base", writable=True)
    with pytest.raises(ImageBusy, match="qemu"):
        run(engine, "a", "B-ADOPT")
    assert "base" in volumes(engine)
    handle.close()
    run(engine, "a", "B-ADOPT")
    assert state_of(engine, "a", disk) == Status.OPTIMIZED


def test_a_volume_that_another_was_renamed_to_is_not_taken(driver: Driver, engine: Engine):
    """It is known by LVM's id and by what it begins with; an image that was rebased meanwhile is another one too."""
    disk = one(driver)
    groups = engine.doors.volume_groups
    groups.rename("a", "base", "mine")
    groups.create("a", "base", 4 * MiB, [])
    with pytest.raises(Refused, match="not the one that the adoption began with"):
        run(engine, "a", "B-ADOPT")
    groups.remove("a", "base")
    groups.rename("a", "mine", "base")
    with groups.open_device(groups.activate("a", "base"), writable=True) as device:
        device.write_at(0, b"\1" * 4096)
    with pytest.raises(Refused, match="was written to since"):
        run(engine, "a", "B-ADOPT")
    engine.remove_image("a", disk)
    run(engine, "a", "C-REMOVED")
    assert "base" in volumes(engine)


@pytest.mark.parametrize("got", ["committed", "tagged", "renamed"])
def test_a_volume_is_given_back_until_it_is_an_image(driver: Driver, engine: Engine, got: str):
    """It has its name, and no tag of ours, wherever the adoption had got; others stay."""
    disk = one(driver)
    groups, (attempt,) = engine.doors.volume_groups, [record(engine, "a", disk).operation.attempt]  # type: ignore[union-attr]
    before = volumes(engine)["base"]
    groups.change_tags("a", "base", ["theirs"], [])
    if got == "tagged":
        groups.change_tags("a", "base", [*layout.volume_tags(VolumeFormat.RAW, 4096), layout.former_tag("base")], [])
    if got == "renamed":
        repository = engine.context.repository("a")
        assert attempt is not None and repository.adoption is not None
        repository.adoption.take(BASE, attempt)
        assert "base" not in volumes(engine)
    engine.remove_image("a", disk)
    run(engine, "a", "C-REMOVED")
    assert volumes(engine)["base"] == before._replace(tags=frozenset({"theirs"}))
    assert not fixes(engine, "a")


def test_hosts_make_a_volume_active_by_themselves_only_as_long_as_it_is_its_owners(driver: Driver, engine: Engine):
    """None of a repository is; one that is given back is as it was, wherever the adoption was killed."""
    groups, disk = engine.doors.volume_groups, ""
    groups.remove("a", "top")
    for at in itertools.count(1):
        (disk,) = engine.adopt_images("a", engine.plan_adoption("a", [BASE], "raw"), NO_FIX).values()
        working = driver.world.host("one")
        killed_before(driver.world.process_of(working), at)
        with contextlib.suppress(Crashed):
            run(working, "a", "B-ADOPT", disk)
            break
        engine.remove_image("a", disk)
        run(engine, "a", "C-REMOVED", disk)
        assert volumes(engine)["base"].autoactivated and not volumes(engine)["base"].tags, at
        assert at < 20
    assert at > 4
    assert not any(found.autoactivated for found in volumes(engine).values())
    assert not layout.tags_of_adoption(volumes(engine)[name_of(engine, disk)].tags)


def killed_before(process: SimProcess, at: int) -> None:
    """Have a process be killed before one of its changes of the group; ``at`` counts them from 1."""
    calls = itertools.count(1)

    def hook(process: SimProcess, call: str, what: str) -> Fault:
        if call.rpartition(".")[2] in ("change_tags", "set_autoactivation", "rename", "sync") and next(calls) == at:
            process.kill()
        return Fault.NONE

    process.hook = hook


def test_a_name_that_another_has_by_now_is_left_to_it(driver: Driver, engine: Engine):
    """Nothing is deleted; it goes on when that one has moved away."""
    disk = one(driver)
    repository, attempt = engine.context.repository("a"), record(engine, "a", disk).operation.attempt  # type: ignore[union-attr]
    assert attempt is not None and repository.adoption is not None
    repository.adoption.take(BASE, attempt)
    uuid = volumes(engine)[layout.volume_name(attempt.id)].uuid
    engine.doors.volume_groups.create("a", "base", 4 * MiB, [])
    engine.remove_image("a", disk)
    with pytest.raises(Refused, match="is another one's by now"):
        run(engine, "a", "C-REMOVED")
    engine.doors.volume_groups.rename("a", "base", "other")
    run(engine, "a", "C-REMOVED")
    assert volumes(engine)["base"].uuid == uuid


def test_nothing_deletes_a_volume_that_is_not_an_image_yet(driver: Driver, engine: Engine):
    """Whoever wakes up when no record speaks of it has renamed it: put away and cleaned away it has its name again; as
    long as that is another one's it stays, and nobody is told that it is gone."""
    groups = engine.doors.volume_groups
    uuid = volumes(engine)["base"].uuid
    tags = [*layout.volume_tags(VolumeFormat.RAW, 4 * MiB), layout.former_tag("base")]
    groups.change_tags("a", "base", tags, [])
    groups.rename("a", "base", layout.volume_name(STRANGE))
    run(engine, "a", "C-UNNAMED")
    groups.create("a", "base", 4 * MiB, [])
    with pytest.raises(Refused, match="is another one's by now"):
        run(engine, "a", "C-LOST")
    assert layout.lost_name(STRANGE) in volumes(engine)
    groups.rename("a", "base", "mine")
    run(engine, "a", "C-LOST")
    assert volumes(engine)["base"].uuid == uuid and not layout.tags_of_ours(volumes(engine)["base"].tags)


def test_a_program_that_adopts_files_alone_leaves_a_volume_that_is_its_owners(
    driver: Driver, engine: Engine, monkeypatch: pytest.MonkeyPatch
):
    """It does not know the tag that says so, and would delete the volume with the image: it understands no record of
    one, and does nothing to it. One that knows goes on."""
    disk = one(driver)
    repository, attempt = engine.context.repository("a"), record(engine, "a", disk).operation.attempt  # type: ignore[union-attr]
    assert attempt is not None and repository.adoption is not None
    repository.adoption.take(BASE, attempt)
    before = volumes(engine)
    with monkeypatch.context() as older:
        older.setattr(decoding, "ADOPTED_VOLUME", "what it does not know")
        with pytest.raises(NotUnderstood):
            engine.remove_image("a", disk)
        for fix in fixes(engine, "a"):
            with contextlib.suppress(DiskwrightError):
                engine.run_fix_here("a", fix)
    assert {name: one for name, one in volumes(engine).items() if name.startswith("dwv-")} == {
        name: one for name, one in before.items() if name.startswith("dwv-")
    }
    run(engine, "a", "B-ADOPT", disk)
    assert layout.parse_former(volumes(engine)[name_of(engine, disk)].tags) is None


def test_who_finds_his_record_gone_gives_the_volume_back(driver: Driver, engine: Engine):
    """Taken in, and no record names it: it is not left in the repository."""
    repository = engine.context.repository("a")
    facts = gate.adoption(repository).stat(BASE)

    def gone() -> None:
        raise Refused("it was purged")

    with pytest.raises(Refused, match="purged"):
        gate.take_in(repository, "1" * 32, VolumeRef(STRANGE, VolumeFormat.RAW, ""), BASE, facts.inode, gone)
    assert "base" in volumes(engine)


@pytest.mark.parametrize("name", ["dw-meta", "dwv-" + "1" * 32, "", "a/b"])
def test_a_tag_that_makes_no_sense_lets_nothing_be_deleted_or_renamed(driver: Driver, engine: Engine, name: str):
    """Tags may be a stranger's."""
    groups = engine.doors.volume_groups
    disk = engine.create_virtual_disk("a", MiB, options=NO_FIX)
    run(engine, "a", "B-CREATE", disk)
    groups.change_tags("a", name_of(engine, disk), [f"dw.was={name}"], [])
    repository, volume = engine.context.repository("a"), record(engine, "a", disk).volume
    assert volume is not None
    before = volumes(engine)
    with pytest.raises(Damaged, match="makes no sense"):
        repository.volumes.remove(volume.id, volume.format)
    assert volumes(engine) == before
    run(engine, "a", "C-LITTER")  # an image counts: what is left of its adoption goes, whatever it says
    assert layout.parse_former(volumes(engine)[name_of(engine, disk)].tags) is None and not fixes(engine, "a")


def test_what_is_open_stays_in_quarantine_and_that_is_told(driver: Driver, engine: Engine):
    """It ended as done, and nothing had gone."""
    groups = engine.doors.volume_groups
    lost = layout.lost_name(STRANGE)
    groups.create("a", lost, 4 * MiB, layout.volume_tags(VolumeFormat.RAW, 4 * MiB))
    with groups.open_device(groups.activate("a", lost), writable=True):
        with pytest.raises(Conflict, match="stays in quarantine"):
            run(engine, "a", "C-LOST")
        assert lost in volumes(engine)
    run(engine, "a", "C-LOST")
    assert lost not in volumes(engine)


def test_what_a_crash_leaves_of_an_adoption_is_litter(driver: Driver, engine: Engine, monkeypatch: pytest.MonkeyPatch):
    """The image counts, and its volume still says how it was called: that is cleaned, and the image can be deleted."""
    disk = one(driver)
    with monkeypatch.context() as patch:
        patch.setattr(Adoption, "forget", lambda *_: None)
        run(engine, "a", "B-ADOPT")
    name = name_of(engine, disk)
    assert layout.parse_former(volumes(engine)[name].tags) == "base"
    run(engine, "a", "C-LITTER")
    assert layout.parse_former(volumes(engine)[name].tags) is None and not fixes(engine, "a")
    engine.remove_image("a", disk)
    run(engine, "a", "C-REMOVED")
    assert name not in volumes(engine) and "base" not in volumes(engine)


def test_where_hosts_share_a_group_nothing_is_taken_over():
    """Another host may have active what is not of the repository."""
    world = World(format=SHARED)
    world.create("a")
    with pytest.raises(Refused, match="hosts share"):
        world.host("one").plan_adoption("a", ["/dev/a/x"], "raw")


def test_a_group_with_volumes_of_others_becomes_a_repository_when_it_is_given_to_this_host():
    """Else it is refused, and said how that is done."""
    world = World(format=LVM)
    engine = world.host("one", connect=False)
    world.storage.make_directory("/srv/x")
    make_device(world.storage, "/srv/x/device", 100 * 4 * MiB)
    groups = engine.doors.volume_groups
    groups.create_group("x", ["/srv/x/device"], "")
    groups.create("x", "old", 4 * MiB, [])
    with pytest.raises(Refused) as refused:
        engine.create_repository(LVM, {"volume_group": "x"})
    assert f"vgchange --yes --systemid {groups.system_id} x" in (refused.value.next_step or "")
    groups.set_system_id("x", groups.system_id, "")
    engine.create_repository(LVM, {"volume_group": "x"})
    engine.connect_storage_repository("x", LVM, {"volume_group": "x"})
    assert [one.path for one in engine.plan_adoption("x", ["/dev/x/old"], "raw").images] == ["/dev/x/old"]
