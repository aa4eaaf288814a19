"""Verbs beside a machine whose disk lies in a volume group: the volume that it goes on in is there, active and long
enough before it has it, and what it has left is shut, and goes when nobody uses it."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import ImageBusy, Refused
from engine.formats.lvm.metadata import layout
from engine.formats.lvm.volumes.activation import Activation
from engine.formats.lvm.volumes.extents import Extents
from engine.tags import changes
from engine.triage import rules
from sim.explore.cases.driver import Driver, MiB
from sim.explore.cases.fixtures import images
from sim.explore.together.live import COPY, DEATHS, MACHINE, MERGE, RESIZE, SNAPSHOT, VERB
from sim.explore.together.rebuilds import rebuilt
from sim.hosts.world import LVM, SHARED, World
from sim.lvm.group_model import EXTENT_BYTES
from sim.lvm.volume_groups import groups_of
from tests.sim.live_kit import a_merge, is_found, start, wrong


@pytest.fixture
def on_lvm() -> Driver:
    world = World(format=LVM)
    world.create("a")
    return Driver(world)


def length_of(driver: Driver, volume: str) -> int:
    (group,) = groups_of(driver.world.storage).values()
    return len(group.volumes[layout.volume_name(volume)].extents) * EXTENT_BYTES


def top_of(driver: Driver, image: str) -> str:
    volume = changes.read(driver.engine().context.repository("a"), image).record.volume
    assert volume is not None
    return volume.id


@pytest.mark.parametrize(
    ("verb", "prepare", "deaths", "every", "first"),
    [
        (SNAPSHOT, images.a_disk, (VERB,), 61, 26),
        (RESIZE, images.a_disk, (VERB, MACHINE), 31, 15),
        (MERGE, images.a_removed_middle, (VERB,), 17, 9),
    ],
)
def test_nothing_is_missed_whoever_dies(verb: str, prepare: Any, deaths: Any, every: int, first: int):
    """Some of the steps."""
    assert not wrong(verb, prepare, LVM, deaths, every, first)


def test_a_disk_that_gets_another_volume_misses_nothing_whoever_dies():
    """Some of the steps of the switch, also that its machine is started anew before the watchdog does anything."""
    played = list(rebuilt(images.a_flat_disk_that_wants_the_other_format, LVM, (VERB,), every=40, first=247))
    assert len(played) > 1 and not any(played)


def test_a_machine_keeps_the_length_that_it_has_of_a_disk(on_lvm: Driver):
    """Of a device it has all, which is made the disk first; and no more of another device than is the disk."""
    engine = on_lvm.engine()
    disk = engine.create_virtual_disk("a", EXTENT_BYTES + 4096, options={"strategy": "performance"})
    engine.set_strategy("a", disk, "space")
    machine = start(on_lvm, disk)
    with pytest.raises(Refused, match=f"resize, {2 * EXTENT_BYTES} bytes"):
        engine.run_fix_here("a", next(fix for fix in engine.check_storage_repository("a") if fix.rule in rules.BESIDE))
    assert len(machine.nodes()) == 1 and not machine.jobs()
    engine.resize_disk("a", disk, 2 * EXTENT_BYTES)
    engine.run_fix_here("a", next(fix for fix in engine.check_storage_repository("a") if fix.rule in rules.BESIDE))
    assert [(node.format, node.size) for node in machine.nodes()] == [("qcow2", 2 * EXTENT_BYTES)]
    other = engine.create_virtual_disk("a", EXTENT_BYTES + 4096, options={"strategy": "space"})
    engine.set_strategy("a", other, "performance")
    machine = start(on_lvm, other, "qmp:/run/other")
    engine.run_fix_here("a", next(fix for fix in engine.check_storage_repository("a") if fix.target == other))
    assert [(node.format, node.size) for node in machine.nodes()] == [("raw", EXTENT_BYTES + 4096)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "prepare", "every"),
    [
        (SNAPSHOT, images.a_raw_disk, 31),
        (MERGE, images.a_removed_one_further_down, 23),
        (COPY, images.a_chain, 53),
    ],
)
def test_nothing_is_missed_at_any_step(verb: str, prepare: Any, every: int):
    """More of them, also of a raw disk, which is a device."""
    assert not wrong(verb, prepare, LVM, DEATHS, every, 3)


def test_a_raw_disk_that_its_machine_has_longer_is_made_so_first(on_lvm: Driver):
    """Its guest may use the whole device, and an overlay is as long as the record says."""
    disk = on_lvm.create("a", MiB, strategy="performance")
    engine = on_lvm.engine()
    machine = start(on_lvm, disk)
    machine.write(3 * MiB, images.data(1))
    machine.flush()
    with pytest.raises(Refused, match=f"{EXTENT_BYTES} bytes") as refused:
        engine.create_snapshot("a", disk)
    assert str(EXTENT_BYTES) in refused.value.next_step
    engine.resize_disk("a", disk, EXTENT_BYTES)
    snapshot = engine.create_snapshot("a", disk)
    assert machine.size == EXTENT_BYTES and machine.read()[3 * MiB :][: images.BLOCK] == images.data(1)
    assert {engine.get_image_status("a", image).size_bytes for image in (disk, snapshot)} == {EXTENT_BYTES}


def test_a_raw_disk_is_made_longer_than_its_device_as_qcow2(on_lvm: Driver):
    """A machine that is started anew sees a whole device, also what is not cleared yet. Up to its end it has all."""
    disk, engine = on_lvm.create("a", MiB, strategy="performance"), on_lvm.engine()
    machine = start(on_lvm, disk)
    for size in (2 * MiB, EXTENT_BYTES):
        engine.resize_disk("a", disk, size)
    machine.write(EXTENT_BYTES - images.BLOCK, images.data(2))
    machine.flush()
    with pytest.raises(Refused, match="raw") as refused:
        engine.resize_disk("a", disk, 2 * EXTENT_BYTES)
    assert "snapshot" in refused.value.next_step
    engine.create_snapshot("a", disk)
    engine.resize_disk("a", disk, 2 * EXTENT_BYTES)
    shown = machine.read()
    assert len(shown) == 2 * EXTENT_BYTES and not any(shown[EXTENT_BYTES:])
    assert shown[EXTENT_BYTES - images.BLOCK : EXTENT_BYTES] == images.data(2)


def test_a_snapshot_that_was_reduced_has_room_again_before_its_machine_writes_to_it(on_lvm: Driver):
    """A merge further down, into a volume of one extent."""
    size = 3 * EXTENT_BYTES
    disk, engine = on_lvm.create("a", size, strategy="space"), on_lvm.engine()
    on_lvm.write("a", disk, 0, b"l" * (EXTENT_BYTES + MiB))
    lower = engine.create_snapshot("a", disk)
    on_lvm.write("a", disk, 2 * EXTENT_BYTES, images.data(1))
    upper = engine.create_snapshot("a", disk)
    for fix in engine.check_storage_repository("a"):
        if fix.rule == rules.O_REDUCE:
            engine.run_fix_here("a", fix)
    assert length_of(on_lvm, top_of(on_lvm, upper)) == EXTENT_BYTES
    machine = start(on_lvm, disk)
    before = machine.read()
    engine.remove_image("a", lower)
    engine.run_fix_here("a", a_merge(on_lvm))
    assert length_of(on_lvm, top_of(on_lvm, upper)) >= layout.qcow2_bytes(size)
    assert machine.read() == before and len(machine.nodes()) == 2


def test_a_snapshot_is_given_back_while_the_holder_keeps_its_volume_shut(on_lvm: Driver):
    """The holder has the device open, and uses nothing."""
    disk, engine = on_lvm.create("a", MiB, strategy="space"), on_lvm.engine()
    machine = start(on_lvm, disk)
    snapshot = engine.create_snapshot("a", disk)
    machine.stop()
    engine.prepare_image("a", snapshot, writable=False)
    engine.teardown_image("a", snapshot)
    engine.teardown_image("a", disk)
    assert not engine.list_prepared()


def planted_no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Activation, "shut", lambda activation, volume: activation.keep(volume))


def planted_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Extents, "make_room", lambda extents, volume, size, kept=0: None)


@pytest.mark.parametrize(
    ("plant", "verb", "found"),
    [
        (planted_no_lock, SNAPSHOT, "lacks something"),
        (planted_no_room, RESIZE, "the volume that the machine writes to has"),
    ],
)
def test_planted_bugs_are_found(plant: Any, verb: str, found: str, monkeypatch: pytest.MonkeyPatch):
    """A machine that may open what it has left, and a longer disk without room."""
    plant(monkeypatch)
    assert is_found(found, verb, images.a_disk, LVM, (VERB,), first=26)


# -- groups that hosts share


@pytest.fixture
def shared() -> Driver:
    world = World(format=SHARED)
    world.create("a")
    world.manage("one")
    return Driver(world)


def test_a_disk_is_longer_where_hosts_share(shared: Driver):
    """All else waits for its machine to stop: a lease is of one process alone there, once that holds it."""
    disk, engine = shared.create("a", MiB, strategy="space"), shared.engine()
    machine = start(shared, disk)
    engine.resize_disk("a", disk, EXTENT_BYTES + MiB)
    assert machine.size == EXTENT_BYTES + MiB
    assert length_of(shared, top_of(shared, disk)) >= layout.qcow2_bytes(machine.size)
    machine.write(machine.size - images.BLOCK, images.data(1))
    machine.flush()
    with pytest.raises(Refused, match="share"):
        engine.create_snapshot("a", disk)
    with pytest.raises(ImageBusy):
        shared.world.host("two").prepare_image("a", disk)
    machine.stop()
    engine.teardown_image("a", disk)
    engine.create_snapshot("a", disk)
