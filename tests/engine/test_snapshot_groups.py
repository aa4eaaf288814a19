"""create_snapshot_group: all of the snapshots or none, and what a group that somebody died over is."""

from __future__ import annotations

from errno import EIO

import pytest

from engine.data import decoding, model
from engine.data.model import GROUP
from engine.data.records import Record
from engine.errors import BadRequest, DiskwrightError, ImageBusy, NotFound, Refused
from engine.formats.files.layout import parse_tag_name
from engine.tags import changes
from engine.triage.rules import M_CHAIN, U_VERSION
from engine.verbs import group
from sim.disk.files import Fault
from sim.explore.cases.driver import Driver, read
from sim.explore.cases.fixtures import images
from sim.explore.cases.taking import offered, run_each_once
from sim.hosts.crash import Crashed
from sim.hosts.processes import SimProcess
from sim.hosts.world import World


@pytest.fixture
def driver() -> Driver:
    world = World()
    world.create("a", "b")
    made = Driver(world)
    images.two_disks(made)
    return made


def shown(driver: Driver) -> list[str]:
    """The snapshots that a host sees which has read nothing before, but the one that is there from the start."""
    engine = driver.world.host("two")
    found = [image.id for image in engine.list_images("a") if not image.mutable and not image.removed]
    return sorted(image for image in found if image != driver.named["snapshot"])


def newest(driver: Driver, tag: str) -> str:
    """The file of the newest record of a tag."""
    files = driver.engine().doors.files
    folder = f"{driver.engine().context.repository('a').place}/tags/{tag[:2]}"
    names = [entry.name for entry in files.list_directory(folder) if entry.name.startswith(tag)]
    return f"{folder}/{max(name for name in names if (parsed := parse_tag_name(name, tag[:2])) and not parsed[2])}"


def as_written(driver: Driver, tag: str) -> Record:
    """The newest record of a tag, as its bytes say."""
    return decoding.decode(driver.engine().doors.files.read_file(newest(driver, tag), 1 << 20), tag)


def damage(driver: Driver, tag: str) -> None:
    """Of the newest record of a tag."""
    with driver.engine().doors.files.open(newest(driver, tag), True) as handle:
        handle.write_at(60, b"?")
        handle.sync()


def fix_all(driver: Driver) -> None:
    engine = driver.world.host("two")
    run_each_once(engine, lambda: offered(engine, "a"), 12)


def killed(driver: Driver, links: int, call: str) -> list[str]:
    """Have the verb die before the first such call after so many records were linked; return the tags that it has
    made."""
    engine = driver.world.host("one")
    tags = engine.context.repository("a").tags
    before, count = tags.scan().keys(), [0]

    def hook(process: SimProcess, now: str, what: str) -> Fault:
        if count[0] >= links and now == call:
            process.kill()
        if now == "files.link":
            driver.world.storage.settle()  # of what is not durable there is little to choose from
        count[0] += now == "files.link"
        return Fault.NONE

    driver.world.process_of(engine).hook = hook
    with pytest.raises(Crashed):
        engine.create_snapshot_group("a", images.both(driver), {"name": "x"})
    return sorted(driver.world.host("two").context.repository("a").tags.scan().keys() - before)


MOVED_ONE, SWITCHED = (3, "files.link"), (4, "files.link")
SEAL_SEEN, SEALED = (5, "files.sync_directory"), (5, "files.link")
OWN_SEEN = (6, "files.sync_directory")
"""Five records are linked until the group counts: of two snapshots, of two disks, the seal; then that of the other
one by itself."""


def test_each_is_a_snapshot_like_any_other_then(driver: Driver):
    """What the disks contained, under the ids of the disks they are of; nothing on disk tells of a group."""
    engine, disks = driver.engine(), images.both(driver)
    made = engine.create_snapshot_group("a", disks, {"name": "monday"}, {"strategy": "performance"})
    assert list(made) == disks and sorted(made.values()) == shown(driver)
    for disk, snapshot in made.items():
        content = driver.image("a", disk).content
        assert read(engine, "a", snapshot, content.size).same(content)
        record = as_written(driver, snapshot)
        assert (record.strong, record.operation, record.user_data) == (True, None, {"name": "monday"})
        assert record.strategy == "performance" and record.seen is not None
    assert engine.create_snapshot_group("a", disks[:1]).keys() == set(disks[:1])


def test_what_cannot_be_a_group_is_refused_with_nothing_done(driver: Driver):
    """None, one twice, one of another repository, one that is none, a snapshot, one in use."""
    engine, (disk, other) = driver.engine(), images.both(driver)
    elsewhere = engine.create_virtual_disk("b", 1 << 20)
    before = engine.context.repository("a").tags.scan().keys()
    refused: list[tuple[list[str], type[DiskwrightError], str]] = [
        ([], BadRequest, "1 to 256"),
        ([disk, disk], BadRequest, "twice"),
        ([disk, elsewhere], Refused, "in b, not in a"),
        ([disk, "f" * 32], NotFound, "no image"),
        ([disk, driver.named["snapshot"]], Refused, "snapshot already"),
    ]
    for disks, kind, words in refused:
        with pytest.raises(kind, match=words):
            engine.create_snapshot_group("a", disks)
    engine.prepare_image("a", other)
    with pytest.raises(ImageBusy, match="in use") as error:
        engine.create_snapshot_group("a", [disk, other])
    assert "attach" in error.value.next_step
    assert engine.context.repository("a").tags.scan().keys() == before


def test_a_sealed_group_counts_before_its_records_say_so_one_by_one(driver: Driver):
    """Whichever of them is touched first, and however: both are there, and in the end each has a record of its own."""
    first, second = killed(driver, *SEALED)
    assert all(as_written(driver, tag).in_group for tag in (first, second))
    assert shown(driver) == [first, second]
    engine = driver.world.host("two")
    sealed = first if as_written(driver, first).strong else second
    engine.remove_image("a", sealed)  # which takes the record away that says of both that they count
    other = as_written(driver, second if sealed == first else first)
    assert other.strong and other.operation is None and shown(driver) == [other.id]
    engine.restore_image("a", sealed)
    assert shown(driver) == [first, second]


@pytest.mark.parametrize("sealing", [True, False])
@pytest.mark.parametrize("verb", ["change", "base"])
def test_a_seal_that_was_only_seen_is_made_durable_before_one_is_used(driver: Driver, sealing: bool, verb: str):
    """Who sealed has died before that was durable; wherever the power goes then, both are there or none, and both once
    somebody was told so."""
    world = driver.world
    made = killed(driver, *SEAL_SEEN)
    (sealed,) = [tag for tag in made if as_written(driver, tag).strong]
    (other,) = {*made} - {sealed}
    engine, tag = world.host("two"), sealed if sealing else other
    engine.list_images("a")

    def states() -> set[int]:
        return {len(shown(driver.fork(world.fork(state.storage)))) for state in world.crash_states()}

    seen = states()
    assert seen == {0, 2}

    def hook(process: SimProcess, call: str, what: str) -> Fault:
        if call in ("files.link", "files.sync_directory"):
            seen.update(states())
        return Fault.NONE

    world.process_of(engine).hook = hook
    if verb == "change":
        engine.set_user_data("a", tag, {"changed": True})
    else:
        engine.create_virtual_disk("a", 1 << 20, tag, options={"auto_fix": False})
    assert seen == {0, 2} and states() == {2}


def test_a_record_of_its_own_that_was_only_seen_is_made_durable_before_the_seal_goes(driver: Driver):
    """Who gave it to the other one has died before that was durable; then the one with the seal is changed."""
    world = driver.world
    made = killed(driver, *OWN_SEEN)
    (sealed,) = [tag for tag in made if as_written(driver, tag).in_group]
    world.host("two").set_user_data("a", sealed, {"changed": True})
    assert {len(shown(driver.fork(world.fork(state.storage)))) for state in world.crash_states()} == {2}


def test_damage_of_the_seal_takes_no_snapshot_away(driver: Driver):
    """Whether the others count is not known then, and nothing is done to them; all disks have left their volumes to
    them, so all count once the record is mended."""
    made = killed(driver, *SEALED)
    begun = {tag: as_written(driver, tag) for tag in made}
    (sealed,) = [tag for tag, record in begun.items() if record.strong]
    damage(driver, sealed)
    engine = driver.world.host("two")
    others = [(repo, fix) for repo, fix in offered(engine, "a") if fix.rule == M_CHAIN]
    assert others and not run_each_once(engine, lambda: others, 12)
    fix_all(driver)
    assert shown(driver) == made
    for snapshot, record in begun.items():
        assert record.operation is not None
        content = driver.image("a", record.operation.other).content
        assert read(engine, "a", snapshot, content.size).same(content)


def test_what_is_known_to_be_sealed_is_mended_whatever_its_disks_are(driver: Driver):
    """The generation before the damaged one says so; it does not matter then that the record of a disk cannot be
    read."""
    disks = images.both(driver)
    made = driver.engine().create_snapshot_group("a", disks)
    driver.world.storage.settle()
    first = made[disks[0]]
    damage(driver, first)
    engine = driver.world.host("two")
    unread = newest(driver, disks[0])

    def hook(process: SimProcess, call: str, what: str) -> Fault:
        if call == "files.read_file" and what.startswith(unread):
            raise OSError(EIO, "read error")
        return Fault.NONE

    driver.world.process_of(engine).hook = hook
    (mend,) = [fix for fix in engine.check_storage_repository("a") if fix.target == first]
    engine.run_fix_here("a", mend)
    assert shown(driver) == sorted(made.values())


def test_a_group_of_which_a_disk_has_not_moved_was_never_sealed(driver: Driver):
    """Somebody has changed the record that would have had the seal, and that is damaged: the others do not count."""
    made = killed(driver, *MOVED_ONE)
    operation = as_written(driver, made[0]).operation
    assert operation is not None
    first, other = operation.pinned
    changes.change(driver.engine().context.repository("a"), first, lambda now: now._replace(epoch=now.epoch + 1))
    damage(driver, first)
    fix_all(driver)
    assert other not in shown(driver)
    engine = driver.world.host("two")
    for disk in images.both(driver):
        content = driver.image("a", disk).content
        assert read(engine, "a", disk, content.size).same(content)


def test_a_group_that_was_never_sealed_is_taken_back_whole(driver: Driver):
    """All of it is hidden data, which the fixes that are offered merge; the disks read as they did."""
    made = killed(driver, *SWITCHED)
    assert len(made) == 2 and not shown(driver)
    engine = driver.world.host("two")
    fix_all(driver)
    assert not [image for image in engine.inspect_repository("a").images if image.hidden]
    for disk in images.both(driver):
        content = driver.image("a", disk).content
        assert read(engine, "a", disk, content.size).same(content)


def test_who_seals_late_finds_out_that_one_was_touched(driver: Driver, monkeypatch: pytest.MonkeyPatch):
    """Another host has lost its patience with one of them: none counts, whichever it was."""
    for which in (0, 1):

        def meanwhile(steps: group.Steps, which: int = which) -> None:
            repository = driver.world.host("two").context.repository("a")
            begun = [one for one, entry in repository.tags.scan().items() if entry.record and entry.record.operation]
            operation = as_written(driver, begun[0]).operation
            assert operation is not None
            changes.change(repository, operation.pinned[which], lambda now: now._replace(epoch=now.epoch + 1))

        monkeypatch.setattr(group.Steps, "switch", meanwhile)
        engine = driver.engine()
        with pytest.raises(Refused, match="changed at the same moment"):
            engine.create_snapshot_group("a", images.both(driver))
        assert not shown(driver)
        fix_all(driver)


def test_an_older_program_leaves_a_group_alone(driver: Driver, monkeypatch: pytest.MonkeyPatch):
    """It understands neither of the records, and offers nothing for them, sealed or not."""
    made = killed(driver, *SEALED)
    monkeypatch.setattr(decoding, "VERBS", model.VERBS - {GROUP})
    report = driver.world.host("three").inspect_repository("a")
    assert {image.id for image in report.images if image.rule == U_VERSION} >= set(made)
    assert not [fix for fix in report.fixes if {*fix.images} & {*made}]
