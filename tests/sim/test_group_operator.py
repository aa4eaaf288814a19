"""An operator with LVM's tools beside an engine, in random runs: what he leaves is judged, and an engine that does not
see it is found. Here what comes up rarely by chance is done for certain, by the same acts and judged by the same
oracle."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable

import pytest

from engine.data.model import Status, VolumeFormat
from engine.errors import Refused, StorageError
from engine.formats.lvm.metadata.layout import volume_name
from engine.formats.lvm.volumes import extents
from engine.tags import anchors, changes, sources
from engine.tags.context import Context
from engine.triage import judge
from engine.verbs import remove
from sim.disk.content import Content
from sim.disk.files import Fault
from sim.explore.cases import operations
from sim.explore.cases.driver import Driver, KiB, MiB, layers, read
from sim.explore.cases.operations import Operation, outcomes
from sim.explore.random.fuzz import fuzz
from sim.explore.random.group_operator import OperatedGroupRun
from sim.explore.random.operator import Meanwhile
from sim.hosts.crash import Crashed
from sim.hosts.processes import SimProcess
from sim.hosts.tape import Tape
from sim.lvm.group_model import EXTENT_BYTES
from tests.sim.mutants_kit import hit, patched, without_if

VOLUMES = "engine.formats.lvm.volumes.volumes"


def test_random_runs_beside_an_operator_of_lvm_end_well():
    """He takes extents, cuts volumes, has them read only, rolls the array back, and imports a clone in their place."""
    assert not [problem for seed in range(1, 5) for problem in fuzz(seed, world="lvm-operated").problems]


def begun(make: Callable[[Driver], object] = lambda driver: None) -> OperatedGroupRun:
    """A run that has begun with what is made."""
    run = OperatedGroupRun(Tape())
    driver = Driver(run.world, run.models)
    make(driver)
    driver.close()
    run.models = driver.models
    return run


def harm(run: OperatedGroupRun, act: str, *doing: Operation) -> list[str]:
    """What is wrong after an act of the operator, and what hosts do meanwhile."""
    return judged(run, run.operator.do(act, "a", run.models), *doing)


def judged(run: OperatedGroupRun, done: Meanwhile | None, *doing: Operation) -> list[str]:
    assert done is not None
    run.models = done.at_once(run.models)
    jobs = run._start(list(doing))
    run.world.run(run.world.pct(1, run.pace), None)
    found = [done.judge(one.name, job.error) for one, job in zip(doing, jobs, strict=True)]
    run.models = outcomes(run.models, doing, jobs)
    for host in list(run.world.hosts):
        run.world.bury(host)
    found += done.after()
    run.models = done.in_the_end(run.models)
    return [*filter(None, found), *(run.look() if run.models else ["nothing explains what was acknowledged"])]


# -- extents that are taken away


def full_disk(driver: Driver, strategy: str, snapshot: bool = False) -> str:
    """A disk with something in its last extent, below another one if it is a snapshot."""
    size = OperatedGroupRun.sizes[-1]
    disk = driver.create("a", size, strategy=strategy)
    driver.write("a", disk, 0, bytes(range(1, 256)) * (size // 255) + bytes(size % 255))
    if snapshot:
        driver.snapshot("a", disk)
        driver.write("a", disk, 0, b"above" * 100)
    return disk


def cut(strategy: str, snapshot: bool) -> tuple[OperatedGroupRun, list[str]]:
    """What is wrong after the volume of such a disk, or of its snapshot, lost an extent, and somebody wanted to seal
    it."""
    run = begun(lambda driver: full_disk(driver, strategy, snapshot))
    images = {image.mutable: key[1] for key, image in run.models[0].images.items()}
    done = run.operator.tools.cut_short(run.models[0], "a", images[not snapshot], 0)
    return run, judged(run, done, operations.snapshot("a", images[True]))


KINDS = [("performance", False), ("space", False), ("performance", True), ("space", True)]


@pytest.mark.parametrize(("strategy", "snapshot"), KINDS)
def test_what_an_extent_was_taken_from_is_broken_and_the_rest_of_it_saved(strategy: str, snapshot: bool):
    """Whatever stands on it too. It is not sealed; a salvage shows what is there, and names what is lost."""
    run, problems = cut(strategy, snapshot)
    assert not problems
    assert any(image.cut and image.hurt and not image.destroyed for image in run.models[0].images.values())
    reports = run.world.host("one").list_images("a")
    assert {report.status for report in reports} == {Status.BROKEN}
    assert any("shorter" in report.reason or "of 4259840 bytes" in report.reason for report in reports)
    run.world.bury("one")
    assert not run.salvage()
    reports = run.world.host("one").list_images("a")
    assert any(report.lost for report in reports) and {report.status for report in reports} == {Status.DEGRADED}


def believed(node: ast.stmt) -> list[ast.stmt] | None:
    """The length that the tags of a volume tell, however long it is."""
    text = ast.unparse(node)
    if isinstance(node, ast.Return) and "min(parsed[1], found.size)" in text:
        return [hit(), ast.parse(text.replace("min(parsed[1], found.size)", "parsed[1]")).body[0]]
    return None


@pytest.mark.parametrize(("strategy", "snapshot"), KINDS)
def test_a_record_that_is_believed_more_than_the_volume_is_found(strategy: str, snapshot: bool):
    """What it has no more would read as zeros, or not at all, and be said to be sound."""
    change = believed if strategy == "performance" else without_if("in_use > found.size")
    with patched(VOLUMES, "Volumes._look", change) as hits:
        assert cut(strategy, snapshot)[1]
    assert hits


# -- a group that is another one


def test_a_clone_that_is_taken_for_the_group_itself_is_found(monkeypatch: pytest.MonkeyPatch):
    """It has another UUID, and all else is as it was."""

    def used() -> list[str]:
        run = begun(lambda driver: driver.create("a", 64 * KiB))
        harm(run, "back up")
        ((_, image),) = run.models[0].images
        return harm(run, "clone", operations.user_data("a", image, {"n": 1}))

    assert not used()
    monkeypatch.setattr(anchors, "differences", lambda known, now: [])
    assert any("a clone of a in the place of a was changed" in problem for problem in used())


BIG = 48 * MiB
OLD, NEW = b"o" * 4096, b"n" * 4096


def filled(content: bytes) -> Content:
    whole = Content(BIG, ())
    for offset in range(0, BIG, MiB):
        whole = whole.write(offset, content)
    return whole


def copied(run: OperatedGroupRun, after: int) -> Content:
    """What a copy of a disk shows that is interrupted after so many writes, and goes on when the array of its source
    was rolled back to the moment when the disk was in the middle of its use."""
    world = run.world
    ((_, disk),) = run.models[0].images
    engine = world.host("one")
    engine.prepare_image("a", disk)
    session = engine.doors.images.open_session(layers(engine, "a", disk), True, False)
    for content in (OLD, NEW):
        for offset in range(0, BIG, MiB):
            session.write(offset, content)
        session.flush()
        if content == OLD:
            run.operator.tools.back_up(run.models[0], "a")
    session.close()
    engine.teardown_image("a", disk)
    engine.copy_image("b", disk, None, None, {"image_hints": {disk: "a"}, "auto_fix": False, "strategy": "performance"})
    writes = itertools.count(1)

    def dies(process: SimProcess, call: str, what: str) -> Fault:
        if call == "handle.write_at" and what.startswith("/dev/b/dwv-") and next(writes) == after:
            process.kill()
        return Fault.NONE

    world.process_of(engine).hook = dies
    with pytest.raises(Crashed):
        for fix in engine.check_storage_repository("b"):
            engine.run_fix_here("b", fix)
    world.bury("one")
    run.operator.tools.restore("a")
    engine = world.host("one")
    (begun,) = engine.list_images("b")
    assert begun.operation is not None and begun.operation.percent > 0, "nothing of it was kept"
    for fix in engine.check_storage_repository("b"):
        engine.run_fix_here("b", fix)
    return read(engine, "b", begun.id, BIG)


def test_a_copy_that_goes_on_with_a_source_that_was_rolled_back_is_found(monkeypatch: pytest.MonkeyPatch):
    """Nothing of the group tells that, and the write epoch is what it was; half of one content and half of another was
    never on the disk."""

    def one_disk(driver: Driver) -> None:
        driver.create("a", BIG, strategy="performance")

    assert copied(begun(one_disk), 40).same(filled(OLD))
    monkeypatch.setattr(sources, "_rewritten", lambda record, operation: "")
    mixture = copied(begun(one_disk), 40)
    assert not mixture.same(filled(OLD)) and not mixture.same(filled(NEW))


# -- a full group


def full(run: OperatedGroupRun) -> list[str]:
    disks = [key[1] for key in sorted(run.models[0].images)]
    return harm(run, "fill", operations.create("a", 64 * KiB), operations.remove("a", disks[0]),
                operations.user_data("a", disks[1], {"n": 1}))  # fmt: skip


def two_disks(driver: Driver) -> None:
    driver.create("a", 64 * KiB)
    driver.create("a", 64 * KiB)


def test_a_full_group_is_said_to_be_full_and_what_frees_room_needs_none(monkeypatch: pytest.MonkeyPatch):
    """An engine that calls that a failure, or needs room to remove something, is found."""
    assert not full(begun(two_disks))
    there = begun(two_disks)

    def fails(*arguments: object) -> None:
        raise StorageError("something is wrong")

    with monkeypatch.context() as patch:
        patch.setattr(extents, "require_free", fails)
        assert any("fails otherwise" in problem for problem in full(there))
    removed = remove.remove

    def needing_room(context: Context, repo_id: str, image: str) -> None:
        extents_of = context.repository(repo_id).extents
        assert extents_of is not None
        extents_of.require_room(VolumeFormat.QCOW2, 64 * KiB)
        removed(context, repo_id, image)

    monkeypatch.setattr(remove, "remove", needing_room)
    assert any("needs room in a full group" in problem for problem in full(begun(two_disks)))


# -- LVM's metadata of before


def kept_over_older_metadata(*made: Callable[[Driver], object]) -> list[str]:
    """What is wrong after LVM's metadata are put back to before the last things were made, somebody has worked on, and
    the newest are put back."""
    run = begun(made[0])
    harm(run, "back up")
    driver = Driver(run.world, run.models)
    for make in made[1:]:
        make(driver)
    driver.close()
    run.models = driver.models
    return harm(run, "older metadata") + run.look()


def test_what_lvm_does_not_know_any_more_is_not_written_over():
    """It is broken and named meanwhile; nothing is made in its place, neither by a verb nor by a fix that was offered,
    and when LVM's metadata are there again all is as it was."""
    assert not kept_over_older_metadata(one_flat, filled_overlay)
    with patched("engine.formats.lvm.volumes.extents", "Extents._require_all_there", without_if("_lacks")) as hits:
        assert any("something was made in a" in one for one in kept_over_older_metadata(one_flat, filled_overlay))
    assert hits


def test_a_fix_that_makes_something_in_its_place_is_found(monkeypatch: pytest.MonkeyPatch):
    """As a rebuild of another image."""
    monkeypatch.setattr(judge, "_not_in_the_place_of", lambda judged, fixes: fixes)
    assert kept_over_older_metadata(one_flat, filled_overlay)


def one_flat(driver: Driver) -> None:
    """A disk that could be represented better."""
    disk = driver.create("a", 64 * KiB)
    driver.write("a", disk, 0, b"rebuilt" * 9000)
    driver.set_strategy("a", disk, "performance")


def filled_overlay(driver: Driver) -> None:
    """Another one."""
    disk = driver.create("a", 64 * KiB)
    driver.write("a", disk, 0, b"precious" * 8000)


def test_whoever_gives_up_what_is_gone_goes_on():
    """To remove the image and to clean is enough; the refusal says so, and names the image. Till then nothing is made
    there, nor another disk longer."""
    run = begun(two_disks)
    gone, kept = sorted(key[1] for key in run.models[0].images)
    longer = 2 * EXTENT_BYTES
    engine = run.world.host("one")
    groups = engine.doors.volume_groups
    record = changes.read(engine.context.repository("a"), gone).record
    assert record.volume is not None
    groups.remove("a", volume_name(record.volume.id))
    groups.sync("a")
    verbs: list[Callable[[], object]] = [
        lambda: engine.create_snapshot("a", kept),
        lambda: engine.create_virtual_disk("a", 64 * KiB),
        lambda: engine.resize_disk("a", kept, longer),
    ]
    for verb in verbs:
        with pytest.raises(Refused, match=f"the volume of image {gone} is not in the volume group a") as refused:
            verb()
        assert "vgcfgrestore" in refused.value.next_step and "clean" in refused.value.next_step
    engine.remove_image("a", gone)
    for fix in engine.check_storage_repository("a"):
        engine.run_fix_here("a", fix)
    engine.resize_disk("a", kept, longer)
    engine.create_snapshot("a", kept)
