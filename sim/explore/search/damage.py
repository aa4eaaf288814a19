"""Any one object of a repository is damaged, at the end of a case: what is not damaged stays readable, and every order
of the offered fixes leads to an end.

An object is a file or a directory; on LVM a volume, its tags, or a page of metadata (``sim.explore.decay``). It has a
bit flipped, is cut in half, empty or gone. In each state on the way every image that does not need the object reads as
before. At each end nothing waits for something that nobody can bring; and when all images are removed there, the fixes
that may lose data leave nothing behind. Orders are tried until no new state appears or the bound is reached.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from typing import NamedTuple

from engine.api import Engine
from engine.data.model import Fix, ImageReport, Risk, Status, WaitKind
from engine.data.records import Record
from engine.errors import Damaged, DiskwrightError, NotFound
from engine.triage import rules
from sim.disk.storage import SimStorage
from sim.explore.cases.case import Case, prepared
from sim.explore.cases.driver import Driver, layers, read
from sim.explore.decay import files, lvm
from sim.explore.decay.objects import REPOSITORY, Damage, Objects
from sim.explore.oracle.reference import USABLE, Image, Key, Model
from sim.hosts.world import LVM, World

_MOST_FIXES = 60


class HarmfulDamage(NamedTuple):
    """A damage after which something was wrong."""

    case: str
    damage: Damage
    path: tuple[str, ...]
    """Rules of the fixes that were run."""
    problem: str


class Tally(NamedTuple):
    """What was tried of one case."""

    damages: int
    states: int
    closed: int
    """Damages of which every order was tried."""
    harmful: tuple[HarmfulDamage, ...]


def of(case: Case) -> Objects:
    """Return the objects of the repositories of a case."""
    return lvm if case.format == LVM else files


def explore(case: Case, bound: int, sample: int = 0, seed: int = 0) -> Tally:
    """Try the damages of a case, ``sample`` of them or all; at most ``bound`` states for each."""
    driver = prepared(case)
    case.operation(driver)
    driver.close()
    objects = of(case)
    todo = objects.damages(driver.world.storage)
    if sample and sample < len(todo):
        todo = random.Random(f"{case.name} {seed}").sample(todo, sample)
    if objects.RECORDS in todo:
        todo.remove(objects.RECORDS)
        _require_told(driver.world, objects)
    searches = [_Search(driver, objects, damage, bound) for damage in todo]
    harmful = [HarmfulDamage(case.name, one.damage, *found) for one in searches for found in one.run()]
    return Tally(len(todo), sum(len(one.seen) for one in searches), sum(one.closed for one in searches), tuple(harmful))


class _Search:
    """All orders of the fixes after one damage."""

    def __init__(self, driver: Driver, objects: Objects, damage: Damage, bound: int) -> None:
        self.damage, self.closed = damage, True
        self.seen: set[bytes] = set()
        self._world, self._bound = driver.world, bound
        self._storage = driver.world.storage.clone()
        self._contents = safe(driver.world, driver.model, objects, damage)
        world = self._world.fork(self._storage)
        objects.inflict(world, damage)
        world.storage.settle()

    def run(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield (path, problem) of what is wrong, the first for each damage."""
        todo: list[tuple[SimStorage, tuple[str, ...]]] = [(self._storage, ())]
        while todo:
            storage, path = todo.pop()
            key = storage.fingerprint()
            if key in self.seen:
                continue
            if len(self.seen) >= self._bound:
                self.closed = False
                return
            self.seen.add(key)
            try:
                todo += [(after, (*path, rule)) for after, rule in self._after(storage)]
            except _WrongError as wrong:
                yield path, str(wrong)
                return

    def _after(self, storage: SimStorage) -> list[tuple[SimStorage, str]]:
        world = self._world.fork(storage.clone())
        engine = world.host("rescuer")
        offered = self._look(engine)
        found = []
        parts = {fix.id for fix in offered if not fix.target and fix.rule in (rules.B_PART, rules.B_LOCKS)}
        for fix in offered:
            if fix.wait is None and fix.risk is not Risk.LOSES_DATA and not parts & set(fix.depends_on):
                other = self._world.fork(storage.clone())
                _run(other.host("rescuer"), fix)
                other.storage.settle()
                found.append((other.storage, fix.rule))
        if not found:
            self._end(engine)
        return found

    def _look(self, engine: Engine, besides: Collection[str] = ()) -> tuple[Fix, ...]:
        try:
            report = engine.inspect_repository(REPOSITORY)
        except DiskwrightError as error:
            raise _WrongError(f"the repository cannot be checked: {error}") from error
        status = {image.id: image.status for image in report.images}
        for (repo, image), wanted in self._contents.items():
            if image in besides:
                continue
            if status.get(image) not in USABLE:
                raise _WrongError(f"image {image} is not damaged, and is {status.get(image, 'gone')}")
            if not read(engine, repo, image, wanted.size).same(wanted.content):
                raise _WrongError(f"image {image} is not damaged, and reads otherwise")
        return report.fixes

    def _end(self, engine: Engine) -> None:
        """Machines write into the disks, which changes no other image. Then all images are removed, and whatever is
        offered is run: nothing stays."""
        written = {image.id for image in engine.list_images(REPOSITORY) if _written(engine, image)}
        self._look(engine, written)
        for image in engine.list_images(REPOSITORY):
            if not image.removed and not image.hidden:
                try:
                    engine.remove_image(REPOSITORY, image.id)
                except (NotFound, Damaged):  # gone; or its record is the damaged one, and a fix settles that
                    continue
                except DiskwrightError as error:
                    raise _WrongError(f"image {image.id} cannot be removed: {error}") from error
        for _ in range(_MOST_FIXES):
            fixes = engine.inspect_repository(REPOSITORY).fixes
            ready = next((fix for fix in fixes if fix.wait is None), None)
            if ready is None:
                break
            _run(engine, ready)
        report = engine.inspect_repository(REPOSITORY)
        waiting = [fix for fix in report.fixes if fix.wait is None or fix.wait.kind is WaitKind.RECORD]
        if waiting:
            raise _WrongError(f"{waiting[0].rule} of {waiting[0].target} waits for {waiting[0].waits_for or 'nothing'}")
        left = [image for image in report.images if image.status is not Status.UNKNOWN]
        if left:
            raise _WrongError(f"image {left[0].id} can never be freed: {left[0].reason}")
        scan = engine.context.repository(REPOSITORY).scan()
        kept = [*scan.volumes, *(item.name for item in scan.litter if item.kind != "foreign")]
        if kept:
            raise _WrongError(f"{kept[0]} can never be freed")


def _require_told(world: World, objects: Objects) -> None:
    """Nothing can be done without it; the error names it."""
    other = world.fork(world.storage.clone())
    engine = other.host("rescuer")
    objects.inflict(other, objects.RECORDS)
    try:
        engine.inspect_repository(REPOSITORY)
    except DiskwrightError as error:
        assert objects.RECORDS.name in error.message, error
        return
    raise AssertionError(f"nothing is said of {objects.RECORDS.name}, which is gone")


class _WrongError(Exception):
    """Something that must hold does not."""


def _written(engine: Engine, image: ImageReport) -> bool:
    """Let a machine write into a disk that can be used; tell whether it is one."""
    if not image.mutable or image.status not in USABLE or image.removed or image.hidden:
        return False
    engine.prepare_image(REPOSITORY, image.id)
    session = engine.doors.images.open_session(layers(engine, REPOSITORY, image.id), True, False)
    session.write(0, b"written after the damage")
    session.flush()
    session.close()
    engine.teardown_image(REPOSITORY, image.id)
    return True


def _run(engine: Engine, fix: Fix) -> None:
    try:
        engine.run_fix_here(REPOSITORY, fix)
    except DiskwrightError as error:
        raise _WrongError(f"the fix {fix.rule} of {fix.target} fails: {error}") from error


def safe(world: World, model: Model, objects: Objects, damage: Damage) -> dict[Key, Image]:
    """The images that can be read now, and need nothing of what is damaged."""
    engine = world.fork(world.storage.clone()).host("before")
    scan = engine.context.repository(REPOSITORY).tags.scan()
    records = {tag: entry.record for tag, entry in scan.items() if entry.record is not None}
    status = {image.id: image.status for image in engine.list_images(REPOSITORY)}
    hurt = _needing(records, objects.touched(records, damage))
    return {
        (repo, image): wanted
        for (repo, image), wanted in model.images.items()
        if repo == REPOSITORY and image not in hurt and status.get(image) in USABLE
        and not wanted.removed and not wanted.hurt
    }  # fmt: skip


def _needing(records: dict[str, Record], touched: set[str]) -> set[str]:
    found, size = set(touched), -1
    while len(found) != size:
        size = len(found)
        found |= {tag for tag, record in records.items() if found & set(record.parents())}
    return found
