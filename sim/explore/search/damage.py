"""Any one object of a repository is damaged, at the end of a case: what is not damaged stays readable, and every order
of the offered fixes leads to an end.

An object is a file or a directory; on LVM a volume, its tags, or a page of metadata (``sim.explore.decay``). It has a
bit flipped, is cut in half, empty or gone; or an operator puts back what was there before the case. In each state on
the way every image that does not need the object reads as before. At each end nothing waits for something that nobody
can bring; and when all images are removed there, the fixes that may lose data leave nothing behind. Orders are tried
until no new state appears or the bound is reached. And whatever is offered harms nothing when what was missing is put
back before it runs.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from engine.api import Engine
from engine.data.model import Fix, ImageReport, RepositoryReport, Risk, Status, WaitKind
from engine.data.records import Record
from engine.errors import Conflict, Damaged, DiskwrightError, NotFound
from engine.triage import rules
from sim.disk.storage import SimStorage
from sim.explore.cases.case import RESCUERS, Case, prepared
from sim.explore.cases.driver import Driver, layers, read
from sim.explore.cases.generated import Generated
from sim.explore.decay import files, lvm
from sim.explore.decay.objects import REPOSITORY, Damage, Objects
from sim.explore.decay.older import EVERYTHING, Older, OlderMeta
from sim.explore.oracle.invariants import name_files
from sim.explore.oracle.reference import USABLE, Image, Key, Model
from sim.hosts.world import FORMAT, World

NOTHING = Damage("", "nothing")
_MOST_FIXES = 60
_RESCUER = "rescuer"
HOST = "one"
"""The host of the case."""
_DEAD = re.compile("--dead ([^ ]+)")
_MISSING = ("gone", "tree", "empty", "older")
"""Damages that somebody makes good who puts back what was there."""


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


def of(format: str) -> Objects:
    """Return the objects of repositories of a format."""
    return files if format == FORMAT else lvm


def explore(case: Case, bound: int, sample: int = 0, seed: int = 0, seconds: float = 1e9) -> Tally:
    """Try the damages of a case, ``sample`` of them or all; at most ``bound`` states for each, and so many seconds."""
    ends = time.monotonic() + seconds
    driver = prepared(case)
    before = driver.world.storage.clone()
    earlier = safe(driver.world, driver.models[0], of(case.format), NOTHING)
    case.operation(driver)
    driver.close()
    if driver.world.sharing:
        _leave(driver.world)
    older = Older(before) if case.format == FORMAT else OlderMeta(before)
    sampled = _Sampled(bound, sample, seed, ends)
    return _damaged(case.name, driver, [of(case.format), older], earlier, sampled)


def explore_story(story: Generated, bound: int, sample: int = 0, seed: int = 0) -> Tally:
    """The same at the end of a generated case; nothing older is put back."""
    return _damaged(str(story), story.driver, [of(story.driver.world.format)], {}, _Sampled(bound, sample, seed))


class _Sampled(NamedTuple):
    """How much is tried."""

    bound: int
    sample: int
    seed: int
    ends: float = float("inf")


def _damaged(
    name: str, driver: Driver, kinds: Sequence[Objects], earlier: dict[Key, Image], sampled: _Sampled
) -> Tally:
    """``earlier``: the images of what an operator may put back as a whole."""
    world, model = driver.world, driver.model
    todo = [(objects, damage) for objects in kinds for damage in objects.damages(world.storage)]
    if sampled.sample and sampled.sample < len(todo):
        todo = random.Random(f"{name} {sampled.seed}").sample(todo, sampled.sample)
    whole = safe(world, model, kinds[0], NOTHING)
    searches: list[Search] = []
    harmful: list[HarmfulDamage] = []
    for objects, damage in todo:
        if time.monotonic() > sampled.ends:
            break
        if damage in objects.ESSENTIAL:
            _require_told(world, objects, damage)
            continue
        contents = earlier if damage == EVERYTHING else safe(world, model, objects, damage)
        search = Search(world, objects, damage, contents, sampled.bound)
        if damage.kind in _MISSING and damage != EVERYTHING:
            search.put_back(world.storage, whole)
        harmful += [HarmfulDamage(name, damage, *found) for found in search.run()]
        searches.append(search)
    return tally(searches, harmful)


def tally(searches: Sequence[Search], harmful: Sequence[HarmfulDamage]) -> Tally:
    """Count what was tried."""
    states = sum(len(one.seen) for one in searches)
    return Tally(len(searches), states, sum(one.closed for one in searches), tuple(harmful))


class Search:
    """All orders of the fixes after one damage."""

    def __init__(self, world: World, objects: Objects, damage: Damage, contents: dict[Key, Image], bound: int) -> None:
        """``contents``: the images that are not damaged."""
        self.damage, self.closed = damage, True
        self.seen: set[bytes] = set()
        self._contents, self._bound = contents, bound
        self._world = _forked(world)
        objects.inflict(self._world, damage)
        self._world.storage.settle()
        self._late: list[tuple[tuple[str, ...], str]] = []

    def put_back(self, storage: SimStorage, contents: dict[Key, Image]) -> None:
        """Start each fix that is offered; ``storage`` is there again before its process does anything."""
        try:
            offered = _rescuer(_forked(self._world)).inspect_repository(REPOSITORY).fixes
        except DiskwrightError:  # that is said of the damage itself
            return
        for fix in _ready(offered):
            world = _forked(self._world)
            engine = _rescuer(world)
            try:
                task = engine.fix_storage_repository(REPOSITORY, fix, {"irreversible": True})
            except DiskwrightError as error:
                if _is_later(fix, offered):
                    continue
                self._late.append(((fix.rule,), f"the fix {fix.rule} of {fix.target} cannot be started: {error}"))
                return
            world.storage.become(storage)
            engine.wait_for_task(task)
            world.storage.settle()
            try:
                _require_readable(_rescuer(_forked(world)), contents)
            except _WrongError as wrong:
                self._late.append((("put back", fix.rule), str(wrong)))

    def run(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield (path, problem) of what is wrong, the first for each damage."""
        if self._late:
            yield self._late[0]
            return
        todo: list[tuple[World, tuple[str, ...]]] = [(self._world, ())]
        while todo:
            world, path = todo.pop()
            key = world.storage.fingerprint()
            if key in self.seen:
                continue
            if len(self.seen) >= self._bound:
                self.closed = False
                return
            self.seen.add(key)
            try:
                todo += [(after, (*path, rule)) for after, rule in self._after(world)]
            except (_WrongError, DiskwrightError) as wrong:
                yield path, str(wrong)
                return

    def _after(self, world: World) -> list[tuple[World, str]]:
        engine = _rescuer(_forked(world))
        offered = self._look(engine)
        found = []
        for fix in _ready(offered):
            try:
                found.append((_ran(world, fix), fix.rule))
            except _WrongError:
                if not _is_later(fix, offered):
                    raise
        if not found:
            self._end(engine)
        return found

    def walk(self, chance: random.Random) -> Iterator[tuple[tuple[str, ...], str]]:
        """Go in one order of fixes, by chance, and remove nothing at its end. Yield as ``run`` does."""
        world, path = self._world, tuple[str, ...]()
        try:
            for _ in range(_MOST_FIXES):
                self.seen.add(world.storage.fingerprint())
                engine = _rescuer(_forked(world))
                offered = self._look(engine)
                ready = [fix for fix in _ready(offered) if not _is_later(fix, offered)]
                if not ready:
                    _run_all(engine)
                    self._look(engine)
                    return
                fix = chance.choice(ready)
                world, path = _ran(world, fix), (*path, fix.rule)
            raise _WrongError("the fixes come to no end")
        except (_WrongError, DiskwrightError) as wrong:
            yield path, str(wrong)

    def _look(self, engine: Engine, besides: Collection[str] = ()) -> tuple[Fix, ...]:
        return _require_readable(engine, {key: one for key, one in self._contents.items() if key[1] not in besides})

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
        report = _run_all(engine)
        left = [image for image in report.images if image.status is not Status.UNKNOWN]
        if left:
            raise _WrongError(f"image {left[0].id} can never be freed: {left[0].reason}")
        scan = engine.context.repository(REPOSITORY).scan()
        kept = [*scan.volumes, *(item.name for item in scan.litter if item.kind != "foreign")]
        if kept:
            raise _WrongError(f"{kept[0]} can never be freed")


def _leave(world: World) -> None:
    """The hosts that take no part in the case give their numbers back."""
    for name in RESCUERS:
        engine = world.host(name)
        for repo in list(engine.list_repositories()):
            engine.disconnect_storage_repository(repo)
    world.storage.settle()


def _require_told(world: World, objects: Objects, damage: Damage) -> None:
    """Nothing can be done without it; the error names it."""
    other = _forked(world)
    objects.inflict(other, damage)
    try:
        other.host(_RESCUER).inspect_repository(REPOSITORY)
    except DiskwrightError as error:
        assert damage.name in error.message, error
        return
    raise AssertionError(f"nothing is said of {damage.name}, which is gone")


def _forked(world: World) -> World:
    return world.fork(world.storage.clone())


def _ran(world: World, fix: Fix) -> World:
    other = _forked(world)
    _run(_rescuer(other), fix)
    other.storage.settle()
    return other


def _rescuer(world: World) -> Engine:
    """A host that took no part in the case, and may change the repository."""
    if world.sharing:
        world.manage(_RESCUER)
        world.host(HOST)  # it is back, so what it was writing is over
    return world.host(_RESCUER)


def _require_readable(engine: Engine, contents: dict[Key, Image]) -> tuple[Fix, ...]:
    """Return what a check offers, if all these images can be used and read as they should."""
    try:
        report = engine.inspect_repository(REPOSITORY)
    except DiskwrightError as error:
        raise _WrongError(f"the repository cannot be checked: {error}") from error
    status = {image.id: image.status for image in report.images}
    for (repo, image), wanted in contents.items():
        if status.get(image) not in USABLE:
            raise _WrongError(f"image {image} is not damaged, and is {status.get(image, 'gone')}")
        if not read(engine, repo, image, wanted.size).same(wanted.content):
            raise _WrongError(f"image {image} is not damaged, and reads otherwise")
    return report.fixes


class _WrongError(Exception):
    """Something that must hold does not."""


def _written(engine: Engine, image: ImageReport) -> bool:
    """Let a machine write into a disk that can be used; tell whether it is one."""
    if not image.mutable or image.status not in USABLE or image.removed or image.hidden:
        return False
    try:
        engine.prepare_image(REPOSITORY, image.id)
    except Conflict as error:
        said = _DEAD.search(error.next_step or "")
        if said is None:
            raise
        engine.take_srm(REPOSITORY, said[1])
        engine.prepare_image(REPOSITORY, image.id)
    session = engine.doors.images.open_session(layers(engine, REPOSITORY, image.id), True, False)
    session.write(0, b"written after the damage")
    session.flush()
    session.close()
    engine.teardown_image(REPOSITORY, image.id)
    return True


def _ready(offered: tuple[Fix, ...]) -> list[Fix]:
    """Those that can run now and lose nothing."""
    parts = {fix.id for fix in offered if not fix.target and fix.rule in (rules.B_PART, rules.B_LOCKS)}
    able = [fix for fix in offered if fix.wait is None and fix.risk is not Risk.LOSES_DATA]
    return [fix for fix in able if not parts & set(fix.depends_on)]


def _is_later(fix: Fix, offered: tuple[Fix, ...]) -> bool:
    """Whether it may fail as long as another one has not run, which it says."""
    return bool({one.id for one in offered if one.wait is None} & set(fix.depends_on))


def _run_all(engine: Engine) -> RepositoryReport:
    """Run whatever is offered, also what loses data, and name the files that are waited for; return what is seen when
    nothing can be run any more. Nothing waits for a record then."""
    report = engine.inspect_repository(REPOSITORY)
    for _ in range(_MOST_FIXES):
        ready = next((fix for fix in report.fixes if fix.wait is None), None)
        if ready is not None:
            _run(engine, ready)
        elif not name_files(engine, [(REPOSITORY, fix) for fix in report.fixes]):
            break
        report = engine.inspect_repository(REPOSITORY)
    waiting = [fix for fix in report.fixes if fix.wait is None or fix.wait.kind is WaitKind.RECORD]
    if waiting:
        raise _WrongError(f"{waiting[0].rule} of {waiting[0].target} waits for {waiting[0].waits_for or 'nothing'}")
    return report


def _run(engine: Engine, fix: Fix) -> None:
    try:
        engine.run_fix_here(REPOSITORY, fix)
    except DiskwrightError as error:
        raise _WrongError(f"the fix {fix.rule} of {fix.target} fails: {error}") from error


def safe(world: World, model: Model, objects: Objects, damage: Damage) -> dict[Key, Image]:
    """The images that can be read now, and need nothing of what is damaged."""
    engine = _forked(world).host("before")
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
