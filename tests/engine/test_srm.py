"""What only the manager (SRM) of a shared repository can do: told by each fix, and no more than that."""

from __future__ import annotations

from typing import Any

import pytest

from engine.api import Engine
from engine.data.model import Fix, FixType, Risk, Status
from engine.data.records import Record, VolumeRef
from engine.errors import NoSpace, StorageError
from engine.fixes.merge import merge
from engine.fixes.run import RUNNERS, take_leases, work_of
from engine.survey import survey
from engine.tags import changes
from engine.triage.judge import judge
from sim.disk.files import Fault
from sim.explore.cases.case import prepared
from sim.explore.cases.catalog import ON_LVM
from sim.explore.cases.driver import Driver, MiB, read
from sim.hosts.processes import SimProcess
from sim.hosts.world import LVM, World

CHANGES = frozenset(
    f"volume_groups.{name}" for name in ("create", "remove", "rename", "resize", "change_tags", "set_autoactivation")
)
"""What changes the metadata of LVM."""

RULES = {
    "mend-copy": "B-COPY",
    "mend-copy-windows": "B-COPY",
    "mend-import": "B-IMPORT",
    "mend-replica": "B-REPLICA",
    "mend-salvage": "B-SALVAGE",
    "create-unmade": "B-CREATE",
    "clean-removed": "C-REMOVED",
    "clean-begun": "C-REMOVED",
    "clean-scrap": "C-SCRAP",
    "clean-attempt": "C-ATTEMPT",
    "clean-evidence": "C-EVIDENCE",
    "clean-losses": "C-LOSSES",
    "mend-lost": "B-LOST",
    "mend-record": "B-RECORD",
    "clean-record": "C-RECORD",
    "clean-litter": "C-LITTER",
    "clean-unnamed": "C-UNNAMED",
    "clean-lost": "C-LOST",
    "merge-down": "M-CHAIN",
    "optimize-flat": "O-FLAT",
    "optimize-format": "O-FORMAT",
    "optimize-header": "O-HEADER",
    "optimize-leaks": "O-LEAKS",
    "optimize-reduce": "O-REDUCE",
}


def offered(engine: Engine, repo: str, deep: bool = False) -> list[Fix]:
    """The fixes as they are where several hosts share the repository."""
    view = survey.look(engine.context, engine.context.repository(repo), deep)
    return list(judge(view._replace(shared=True)).fixes)


@pytest.mark.parametrize("name", RULES)
def test_a_fix_needs_the_manager_exactly_when_its_execution_changes_metadata_of_lvm(name: str):
    """For every rule: what a run of it does is compared with what check said of it."""
    case = ON_LVM.get(f"lvm:{name}") or ON_LVM[name]
    driver = prepared(case, "posix")
    if name == "create-unmade":
        driver.create("a", MiB, auto_fix=False)
    engine, calls = driver.engine(), set()

    def hook(process: SimProcess, call: str, what: str) -> Fault:
        calls.add(call)
        return Fault.NONE

    repo = "b" if name.startswith("mend-copy") else "a"
    fix = next(fix for fix in offered(engine, repo, name == "optimize-leaks") if fix.rule == RULES[name])
    driver.world.process_of(engine).hook = hook
    repository = engine.context.repository(repo)
    seen = survey.look(engine.context, repository)
    with take_leases(engine.context, repository, fix):
        RUNNERS[fix.rule](engine.context, repository, work_of(engine.context, repository, fix, seen))
    assert fix.needs_srm is bool(calls & CHANGES), sorted(calls & CHANGES)


def test_every_rule_is_compared():
    """But for those that are other names of one: two degradations cured by the same rebuild, two kinds of weak tags;
    and those which change a record only: a deletion that is taken back, a size or a write that is accepted, a machine
    that gets a holder, an older record. And but for parts of repositories, which are missing on files only, as adoption
    is, and zeros, which take room there alone."""
    others = {
        "B-ADOPT",
        "O-DEPTH",
        "O-OVERSIZE",
        "O-ZEROS",
        "O-DIRTY",
        "C-HIDDEN",
        "B-PURGING",
        "O-GROWN",
        "O-WRITTEN",
        "O-UNHELD",
        "B-OLDER",
        "B-PART",
        "B-LOCKS",
        "O-USES",
    }
    assert set(RUNNERS) - set(RULES.values()) == others


def attempt_of(engine: Engine, repo: str, image: str) -> VolumeRef:
    """The volume that an unfinished operation is to fill."""
    operation = changes.read(engine.context.repository(repo), image).record.operation
    assert operation is not None and operation.attempt is not None
    return operation.attempt


def volume_of(engine: Engine, repo: str, image: str) -> VolumeRef:
    """The volume of an image."""
    volume = changes.read(engine.context.repository(repo), image).record.volume
    assert volume is not None
    return volume


@pytest.fixture
def driver() -> Driver:
    world = World(format=LVM)
    world.create("a", "b")
    return Driver(world)


def test_a_copy_that_nobody_fills_yet_has_its_volume_made_by_the_verb(driver):
    """So that any host can fill it: the fix needs no manager, makes no volume, and what it fills is the one there."""
    disk = driver.create("a", 6 * MiB)
    driver.write("a", disk, MiB, b"x" * 4096)
    snapshot = driver.snapshot("a", disk)
    engine = driver.engine()
    for strategy in ("space", "performance"):
        driver.copy(("a", snapshot), "b", strategy=strategy, auto_fix=False)
        attempt = attempt_of(engine, "b", snapshot)
        (fix,) = offered(engine, "b")
        assert (fix.rule, fix.needs_srm) == ("B-COPY", False)
        engine.run_fix_here("b", fix)
        assert changes.read(engine.context.repository("b"), snapshot).record.volume == attempt
        assert engine.get_image_status("b", snapshot, {"deep": True}).status is Status.OPTIMIZED
        driver.remove("b", snapshot)
        driver.fix("b", "C-REMOVED")


def test_a_copy_of_which_the_volume_is_gone_needs_the_manager_again(driver):
    """What the record says was made is looked at."""
    snapshot = driver.snapshot("a", driver.create("a", 6 * MiB))
    driver.copy(("a", snapshot), "b", auto_fix=False)
    engine = driver.engine()
    engine.doors.volume_groups.remove("b", f"dwv-{attempt_of(engine, 'b', snapshot).id}")
    (fix,) = offered(engine, "b")
    assert fix.needs_srm
    engine.run_fix_here("b", fix)
    assert engine.get_image_status("b", snapshot, {"deep": True}).status is Status.OPTIMIZED


def test_where_a_volume_does_not_fit_the_intent_of_a_copy_stays(driver):
    """The verb has committed it; the fix says what is missing."""
    engine = driver.engine()
    snapshot = driver.snapshot("a", driver.create("a", 6 * MiB))
    repository = engine.context.repository("b")
    made = repository.volumes.make

    def failing(*arguments: object, **named: object) -> None:
        raise NoSpace("there is no room any more")

    repository.volumes.make = failing
    driver.copy(("a", snapshot), "b", auto_fix=False)
    repository.volumes.make = made
    (fix,) = offered(engine, "b")
    assert (fix.type, fix.needs_srm) == (FixType.MEND, True)


def test_what_another_host_may_still_write_to_is_left_and_made_anew(driver, monkeypatch):
    """From 0, and the image says so; the fix needs the manager, and the old volume goes."""
    snapshot = driver.snapshot("a", driver.create("a", 6 * MiB))
    driver.copy(("a", snapshot), "b", auto_fix=False)
    engine = driver.engine()
    repository = engine.context.repository("b")
    before = attempt_of(engine, "b", snapshot)
    monkeypatch.setattr(repository.volumes, "late_writer", lambda volume: "host-x" * (volume == before))
    view = survey.look(engine.context, repository)
    fix = next(fix for fix in judge(view._replace(shared=True, late_writers={before.id: "host-x"})).fixes)
    assert fix.needs_srm
    said: list[Record] = []
    publish = repository.tags.publish

    def listening(record: Record, expected: int) -> Any:
        said.append(record)
        return publish(record, expected)

    monkeypatch.setattr(repository.tags, "publish", listening)
    engine.run_fix_here("b", fix)
    assert changes.read(repository, snapshot).record.volume not in (None, before)
    assert not repository.volumes.facts(before.id, before.format).present
    assert any("may still write" in record.last.last_error for record in said if record.last)
    assert engine.get_image_status("b", snapshot, {"deep": True}).status is Status.OPTIMIZED


def _merged_fresh(driver: Driver, tag: str) -> None:
    """The merge of hidden data as it is done where hosts share the repository."""
    engine = driver.engine()
    repository = engine.context.repository("a")
    fix = next(fix for fix in offered(engine, "a") if fix.rule == "M-CHAIN" and fix.target == tag)
    assert (fix.plan["direction"], fix.risk, fix.needs_srm) == ("fresh", Risk.REVERSIBLE, True)
    with take_leases(engine.context, repository, fix):
        merge(engine.context, repository, fix.target, str(fix.plan["above"]), "fresh")


@pytest.mark.parametrize("layers", [2, 3])
def test_where_hosts_share_a_repository_a_merge_rewrites_nothing(driver, layers):
    """A fresh volume takes the place of the upper one; the lower one can be cleaned, and all content is as before."""
    disk = driver.create("a", 2 * MiB)
    kept = []
    for number in range(layers - 1):
        driver.write("a", disk, number * 8192, bytes([65 + number]) * 4096)
        kept.append(driver.snapshot("a", disk))
    driver.write("a", disk, 4096, b"c" * 4096)
    driver.write("a", disk, 0, bytes(4096))  # hides what is below
    driver.remove("a", kept[-1])
    engine = driver.engine()
    content = driver.image("a", disk).content
    volumes = [volume_of(engine, "a", tag) for tag in (disk, kept[-1])]
    before = [_bytes_of(engine, volume) for volume in volumes[1:]]
    _merged_fresh(driver, kept[-1])
    record = changes.read(engine.context.repository("a"), disk).record
    assert record.volume is not None and record.volume not in volumes and not record.scrap
    assert record.volume.parent == (kept[0] if layers == 3 else "")
    assert [_bytes_of(engine, volume) for volume in volumes[1:]] == before
    assert read(engine, "a", disk, 2 * MiB).digest == content.digest
    driver.fix("a", "C-REMOVED")
    assert read(engine, "a", disk, 2 * MiB).digest == content.digest
    assert not engine.check_storage_repository("a")


def _bytes_of(engine: Engine, volume: VolumeRef) -> bytes:
    repository = engine.context.repository("a")
    path = repository.volumes.layer(volume).path
    with engine.doors.volume_groups.open_device(path) as device:
        found = device.read_at(0, device.size)
    engine.context.deactivate()
    return found


def test_an_interrupted_fresh_merge_goes_on_in_its_volume(driver):
    """And is given up as any other attempt when it is not wanted any more."""
    disk = driver.create("a", 2 * MiB)
    driver.write("a", disk, 0, b"a" * 4096)
    snapshot = driver.snapshot("a", disk)
    driver.write("a", disk, 4096, b"b" * 4096)
    driver.remove("a", snapshot)
    engine = driver.engine()
    repository = engine.context.repository("a")
    publish = repository.tags.publish

    def dying(record: Record, expected: int) -> Any:
        if record.operation is None and record.id == disk:
            raise StorageError("the storage is away")
        return publish(record, expected)

    repository.tags.publish = dying
    with pytest.raises(StorageError):
        _merged_fresh(driver, snapshot)
    repository.tags.publish = publish
    attempt = attempt_of(engine, "a", disk)
    assert repository.volumes.facts(attempt.id, attempt.format).present
    _merged_fresh(driver, snapshot)
    assert changes.read(repository, disk).record.volume == attempt
    assert read(engine, "a", disk, 2 * MiB).digest == driver.image("a", disk).content.digest
