"""What is done with one image reads as many records, and makes as many syncs, however many images there are.

Counted at the doors of a simulated host, so nothing can be noisy. The many are in the repository as records only: what
looked at their data would find them broken.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from engine.api import Engine
from engine.data.model import Fix, Strategy, VolumeFormat
from engine.data.records import Record, VolumeRef
from engine.formats.files.repository import FileStore
from engine.triage.offers.merging import RUN_LAYERS
from sim.disk.files import SimFiles, SimHandle
from sim.explore.cases.case import before_uses
from sim.hosts.world import NFS, World
from tui.view.gather import about

MiB = 1 << 20
FEW, MANY = 64, 200


class Counts:
    """What was done since it was cleared."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.records = self.syncs = 0
        read, directory, handle = SimFiles.read_file, SimFiles.sync_directory, SimHandle.sync

        def counted_read(files: SimFiles, path: str, limit: int) -> bytes:
            self.records += "/tags/" in path
            return read(files, path, limit)

        def counted_directory(files: SimFiles, path: str) -> None:
            self.syncs += not path.endswith(("/tags", "/volumes"))  # once a process and directory: chance
            directory(files, path)

        def counted_handle(opened: SimHandle) -> None:
            self.syncs += 1
            handle(opened)

        monkeypatch.setattr(SimFiles, "read_file", counted_read)
        monkeypatch.setattr(SimFiles, "sync_directory", counted_directory)
        monkeypatch.setattr(SimHandle, "sync", counted_handle)

    def of(self, work: Callable[[], Any]) -> tuple[int, int]:
        """(records read, syncs made)"""
        self.records = self.syncs = 0
        work()
        return self.records, self.syncs


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    return Counts(monkeypatch)


class Family:
    """A template with a disk on it, which has a removed snapshot, among ``others`` that nobody asks about."""

    def __init__(self, others: int, format: str, old: bool = False) -> None:
        self.world = world = World(format=format)
        world.create("a", "b")
        if old:
            before_uses(world, "ab")
        self.engine = engine = world.host("one")
        self.template = engine.create_snapshot("a", engine.create_virtual_disk("a", MiB))
        self.disk = engine.create_virtual_disk("a", MiB, self.template)
        self.snapshot = engine.create_snapshot("a", self.disk)
        self.unwanted = engine.create_virtual_disk("a", MiB, self.template)
        engine.remove_image("a", self.unwanted)
        tags, ids = engine.context.repository("a").tags, engine.doors.ids
        for _ in range(others):
            volume = VolumeRef(ids.new_id(), VolumeFormat.QCOW2, "")
            tags.publish(Record(ids.new_id(), True, True, MiB, True, volume, Strategy.SPACE), 0)
        self.engine = world.host("one")

    def again(self) -> Family:
        """The same in a world of its own, for a process that has just started."""
        copied = copy.copy(self)
        copied.world = self.world.fork(self.world.storage.clone())
        copied.engine = copied.world.host("one")
        return copied

    def fix(self, rule: str, target: str) -> None:
        """Run the fix of that rule, found by what a look at its target alone sees."""
        from engine.survey import survey
        from engine.triage.judge import judge

        context = self.engine.context
        fixes = judge(survey.look(context, context.repository("a"), only=target)).fixes
        self.engine.run_fix_here("a", next(fix for fix in fixes if (fix.rule, fix.target) == (rule, target)))

    def merge(self) -> None:
        self.engine.remove_image("a", self.snapshot)
        self.fix("M-CHAIN", self.snapshot)

    def merge_run(self) -> None:
        for _ in range(RUN_LAYERS - 1):
            self.engine.remove_image("a", self.engine.create_snapshot("a", self.disk))
        top = self.engine.create_snapshot("a", self.disk)
        for image in (self.snapshot, top):
            self.engine.remove_image("a", image)
        self.fix("M-CHAIN", top)

    def mend(self) -> None:
        self.fix("B-COPY", self.engine.copy_image("a", self.disk, options={"auto_fix": False}))

    def flatten(self) -> None:
        self.engine.set_strategy("a", self.disk, "performance")
        self.fix("O-FLAT", self.disk)

    def restore(self) -> None:
        self.engine.restore_image("a", self.unwanted)


WORK: dict[str, Callable[[Family], Any]] = {
    "status": lambda f: f.engine.get_image_status("a", f.disk),
    "status of a template": lambda f: f.engine.get_image_status("a", f.template),
    "why": lambda f: about(f.engine, "a", f.disk),
    "why of a template": lambda f: about(f.engine, "a", f.template),
    "create": lambda f: f.engine.create_virtual_disk("a", MiB),
    "create on a base": lambda f: f.engine.create_virtual_disk("a", MiB, f.template),
    "snapshot": lambda f: f.engine.create_snapshot("a", f.disk),
    "copy": lambda f: f.engine.copy_image("a", f.disk, options={"auto_fix": False}),
    "copy onto a base": lambda f: f.engine.copy_image("a", f.disk, f.template, options={"auto_fix": False}),
    "remove": lambda f: f.engine.remove_image("a", f.disk),
    "restore": Family.restore,
    "user data": lambda f: f.engine.set_user_data("a", f.disk, {"a": 1}),
    "clean": lambda f: f.fix("C-REMOVED", f.unwanted),
    "merge": Family.merge,
    "merge of a run": Family.merge_run,
    "mend": Family.mend,
    "revert": lambda f: f.engine.revert_disk("a", f.disk, f.snapshot),
    "resize": lambda f: f.engine.resize_disk("a", f.disk, 2 * MiB),
    "strategy": lambda f: f.engine.set_strategy("a", f.disk, "performance"),
    "optimize": Family.flatten,
}


@pytest.fixture(scope="module")
def measured() -> dict[tuple[str, str, int], tuple[int, int]]:
    """By work, format and number of images."""
    with pytest.MonkeyPatch.context() as patch:
        counts = Counts(patch)
        found = {}
        for format in ("localfs-1.0", NFS):
            for others in (FEW, MANY):
                family = Family(others, format)
                for name, work in WORK.items():
                    found[name, format, others] = counts.of(partial(work, family.again()))
        return found


@pytest.mark.parametrize("format", ["localfs-1.0", NFS])
@pytest.mark.parametrize("work", WORK)
def test_what_is_asked_about_one_image_does_not_read_the_others(
    measured: dict[tuple[str, str, int], tuple[int, int]], work: str, format: str
):
    """Records read and syncs made are the same among few images and among many."""
    assert measured[work, format, FEW] == measured[work, format, MANY]
    assert measured[work, format, FEW][0] < (FEW if work != "merge of a run" else FEW * RUN_LAYERS)


def test_why_reads_what_a_status_reads(measured: dict[tuple[str, str, int], tuple[int, int]]):
    """Of an image that is in order, and of one on which others stand."""
    for work in ("", " of a template"):
        assert measured[f"why{work}", NFS, MANY] == measured[f"status{work}", NFS, MANY]


def removed(family: Family) -> str:
    image = family.engine.create_virtual_disk("a", MiB)
    family.engine.remove_image("a", image)
    return image


def removed_below(family: Family) -> str:
    image = family.engine.create_snapshot("a", family.engine.create_virtual_disk("a", MiB, family.template))
    family.engine.remove_image("a", image)
    return image


def to_be_flat(family: Family) -> str:
    image = family.engine.create_virtual_disk("a", MiB, family.template)
    family.engine.set_strategy("a", image, "performance")
    return image


def promised(family: Family) -> str:
    return family.engine.copy_image("a", family.engine.create_virtual_disk("b", MiB), options={"auto_fix": False})


@pytest.mark.parametrize("one", [removed, removed_below, to_be_flat, promised])
def test_a_plan_of_many_fixes_costs_as_many_times_one(
    counts: Counts, one: Callable[[Family], str], monkeypatch: pytest.MonkeyPatch
):
    """Records read, syncs and listings, with all that runs it; none of the fixes looks at everything."""
    listings: list[str] = []
    scans: list[str] = []
    noting(monkeypatch, SimFiles, "list_directory", listings)
    noting(monkeypatch, FileStore, "scan", scans)
    spent = []
    for many in (2, 6, 22):
        family = Family(8, "localfs-1.0")
        targets = {one(family) for _ in range(many)}
        family.engine = family.world.host("one")
        fixes = [fix for fix in family.engine.check_storage_repository("a") if fix.target in targets]
        assert len(fixes) == many
        listings.clear()
        scans.clear()
        spent.append((*counts.of(partial(run_all, family.engine, fixes)), len(listings)))
        assert not scans
    least, few, more = spent
    assert more[0] - least[0] == 5 * (few[0] - least[0]) > 0
    # Those whose directories are the same have less to make and to list.
    assert all(c - a <= 5 * (b - a) for a, b, c in zip(least, few, more, strict=True))


def noting(monkeypatch: pytest.MonkeyPatch, part: type, method: str, calls: list[str]) -> None:
    original = getattr(part, method)

    def noted(*given: Any) -> Any:
        calls.append(method)
        return original(*given)

    monkeypatch.setattr(part, method, noted)


def run_all(engine: Engine, fixes: list[Fix]) -> None:
    task = engine.run_fixes("a", fixes, {"irreversible": True})
    engine.wait_for_task(task)
    assert [event["event"] for event in engine.task_events(task)].count("done") == len(fixes)


@pytest.mark.parametrize(("on_a_template", "more"), [(False, 0), (True, 1)])
def test_a_snapshot_makes_hardly_more_syncs_than_before_there_were_uses(counts: Counts, on_a_template: bool, more: int):
    """Whose volume it takes over, and who is about to stand on it, is entered beside its own record; what the disk
    stood on is in another directory."""
    syncs = []
    for old in (False, True):
        world = World()
        world.create("a")
        if old:
            before_uses(world, "a")
        engine = world.host("one")
        template = engine.create_snapshot("a", engine.create_virtual_disk("a", MiB))
        disk = engine.create_virtual_disk("a", MiB, template if on_a_template else None)
        syncs.append(counts.of(partial(engine.create_snapshot, "a", disk))[1])
    assert syncs[0] == syncs[1] + more and syncs[1] == 9


def test_a_repository_from_before_there_were_uses_is_read_whole(counts: Counts):
    """Everything works there as it did, by looking at all records."""
    few, many = (Family(others, "localfs-1.0", old=True) for others in (FEW, MANY))
    assert counts.of(partial(WORK["status"], many))[0] - counts.of(partial(WORK["status"], few))[0] == MANY - FEW
    for family in (few, many):
        family.fix("C-REMOVED", family.unwanted)
        family.merge()
        assert not any("use." in path for path, _, _ in family.world.storage.walk())
