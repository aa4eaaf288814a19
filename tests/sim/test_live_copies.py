"""A disk is copied while its machine runs: whoever dies at whatever step, the copy is of one moment, and any host can
finish it."""

from __future__ import annotations

from typing import Any

import pytest

from engine.data.model import Risk
from engine.errors import ImageBusy, NotFound
from engine.survey import survey
from engine.tags import changes
from engine.triage import rules
from engine.verbs.live import snapshot as live_snapshot
from sim.explore.cases.driver import Driver, MiB, read
from sim.explore.cases.fixtures import images
from sim.explore.together.live import COPY, EXPORT, MACHINE, POWER, VERB
from sim.hosts.world import FORMAT, NFS, World
from tests.sim.live_kit import is_found, start, wrong


def test_a_copy_of_a_running_disk_is_of_one_moment_whoever_dies():
    """Some of the steps: it can be finished by another host, and nothing is left of it below the disk."""
    assert not wrong(COPY, images.a_raw_disk, deaths=(VERB, MACHINE), every=67, first=40)


def test_an_export_of_a_running_disk_is_of_one_moment_whoever_dies():
    """And leaves nothing that is not offered."""
    assert not wrong(EXPORT, images.a_chain, deaths=(VERB,), every=60, first=30)


@pytest.mark.slow
def test_a_copy_of_a_running_disk_is_of_one_moment_at_any_step():
    """More of them, on a server, of a disk that stands on a removed snapshot. All of them: ``make live``."""
    assert not wrong(COPY, images.a_removed_snapshot, NFS, (VERB, POWER), 47, 4)


def nobody_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "keepers", lambda context, scan: {})


def of_the_disk_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def freeze(context: Any, state: Any, entry: Any, repo_id: str, kept: Any, then: Any, quiesce: bool) -> None:
        then(entry.image)

    monkeypatch.setattr(live_snapshot, "freeze", freeze)


@pytest.mark.parametrize(("plant", "found"), [
    (nobody_keeps, "is not finished"),
    (of_the_disk_itself, "a copy shows no moment"),
])  # fmt: skip
def test_planted_bugs_of_a_copy_are_found(plant: Any, found: str, monkeypatch: pytest.MonkeyPatch):
    """What is kept for it is merged away; it is of what the machine goes on writing to."""
    plant(monkeypatch)
    assert is_found(found, COPY, images.a_raw_disk, deaths=(POWER,), every=9, first=90)


@pytest.mark.parametrize("format", [FORMAT, NFS])
def test_a_running_disk_is_copied_and_exported(format: str):
    """Each is what the disk contained then. What was kept for the copy is left alone until that is finished, on any
    host, and becomes one with the disk then."""
    world = World(format=format)
    world.create("a", "b")
    driver = Driver(world)
    disk = images.a_disk(driver)
    engine = driver.engine()
    machine = start(driver, disk)
    at = 4 * images.BLOCK
    machine.write(at, images.data(5))
    copy = engine.copy_image("b", disk, options={"auto_fix": False})
    machine.write(at, images.data(6))
    assert not engine.check_storage_repository("a")
    assert any(f"kept for the copy {copy}" in found.text for found in engine.inspect_repository("a").findings)
    other = driver.world.host("two")
    other.run_fix_here("b", other.check_storage_repository("b")[0])
    assert read(engine, "b", copy, images.ODD).read(at, images.BLOCK) == images.data(5)
    assert engine.get_image_status("b", copy).mutable
    machine.write(at, images.data(7))
    engine.export_image("a", disk, "/srv/out.raw", "raw")
    machine.write(at, images.data(8))
    with engine.doors.files.open("/srv/out.raw", False) as handle:
        assert handle.read_at(at, images.BLOCK) == images.data(7)
    for rule in (rules.M_CHAIN, rules.C_HIDDEN) * 2:
        engine.run_fix_here("a", next(fix for fix in engine.check_storage_repository("a") if fix.rule == rule))
    machine.stop()
    engine.teardown_image("a", disk)
    assert [image.id for image in engine.inspect_repository("a").images] == [disk]
    assert read(engine, "a", disk, images.ODD).read(at, images.BLOCK) == images.data(8)


def test_a_running_disk_is_copied_onto_a_base(driver: Driver):
    """Only the difference is; a base that is none is refused before anything is done."""
    disk = images.a_disk(driver)
    engine = driver.engine()
    base = engine.create_snapshot("a", disk)
    engine.copy_image("b", base, options={"auto_fix": False})
    engine.run_fix_here("b", engine.check_storage_repository("b")[0])
    machine = start(driver, disk)
    with pytest.raises(NotFound, match="base"):
        engine.copy_image("b", disk, "0" * 32)
    assert len(machine.nodes()) == 2
    engine.resize_disk("a", disk, 4 * images.SIZE)
    assert engine.get_image_status("a", disk).busy == "prepare by host one", "it is not being made longer any more"
    other = driver.create("b", MiB)
    held = driver.create("a", MiB)
    engine.prepare_image("a", held)
    with pytest.raises(ImageBusy, match="attach"):
        engine.copy_image("b", held, other)
    assert not engine.check_storage_repository("b"), "nothing was frozen for it"
    machine.write(0, images.data(5))
    copy = engine.copy_image("b", disk, base, options={"auto_fix": False})
    engine.run_fix_here("b", engine.check_storage_repository("b")[0])
    assert read(engine, "b", copy, images.ODD).read(0, images.BLOCK) == images.data(5)
    parent = changes.read(engine.context.repository("b"), copy).record.volume
    assert parent is not None
    assert parent.parent == base


def test_what_is_kept_for_a_copy_that_cannot_be_seen_goes_only_if_that_is_wanted(driver: Driver):
    """Nobody here can tell whether it is finished. One that was given up needs nothing."""
    disk = images.a_disk(driver)
    engine = driver.engine()
    machine = start(driver, disk)
    copy = engine.copy_image("b", disk, options={"auto_fix": False})
    machine.stop()
    engine.teardown_image("a", disk)
    alone = driver.world.host("two")
    alone.disconnect_storage_repository("b")
    (fix,) = alone.check_storage_repository("a")
    assert (fix.rule, fix.risk) == (rules.M_CHAIN, Risk.LOSES_DATA)
    assert any(copy in fact for fact in fix.facts)
    engine.remove_image("b", copy)
    assert not engine.check_storage_repository("a"), "it may be restored"
    engine.run_fix_here("b", engine.check_storage_repository("b")[0])
    (fix,) = engine.check_storage_repository("a")
    assert fix.risk is not Risk.LOSES_DATA


def test_what_was_written_between_two_backups_is_merged_when_the_second_is_done(driver: Driver):
    """By the process that copies, beside the machine. What the disk had before the first is left for an operator."""
    disk = images.a_disk(driver)
    engine = driver.engine()
    machine = start(driver, disk)
    for number in (5, 6):
        machine.write(4 * images.BLOCK, images.data(number))
        machine.flush()
        copy = engine.copy_image("b", disk)
        for task in engine.list_tasks():
            engine.wait_for_task(task)
        assert read(engine, "b", copy, images.ODD).read(4 * images.BLOCK, images.BLOCK) == images.data(number)
        assert len(machine.nodes()) == 2
        assert [fix.rule for fix in engine.check_storage_repository("a")] == [rules.M_CHAIN]
    machine.stop()
    engine.teardown_image("a", disk)
    assert read(engine, "a", disk, images.ODD).read(4 * images.BLOCK, images.BLOCK) == images.data(6)
