"""Damages of a large repository, by chance: many images that stand on each other, and after each damage one order of
the fixes. Otherwise as ``sim.explore.search.damage``.

The same seed does the same.
"""

from __future__ import annotations

import contextlib
import random

from engine.data.model import Risk
from engine.errors import DiskwrightError
from sim.explore.cases.driver import FILES, REFUSALS, Driver, KiB
from sim.explore.cases.fixtures.images import BLOCK, SIZE, data
from sim.explore.decay import files
from sim.explore.decay.older import EVERYTHING, Older
from sim.explore.oracle.reference import Key
from sim.explore.search.damage import NOTHING, HarmfulDamage, Search, Tally, safe, tally
from sim.hosts.world import World

_REMOVED = 0.15
_SNAPSHOTS = 0.3
_OLDER = 0.1
"""Of the damages, so many are something older that is put back."""
_UNFINISHED = 6
"""So many fixes are offered when the damage comes."""
_LATEST = 10
"""Verbs after the backup that is put back."""


def explore(images: int, damages: int, seed: int) -> Tally:
    """Try so many damages of a repository with about so many images."""
    chance = random.Random(seed)
    driver = Driver(World(least_ids=True))
    driver.world.storage.make_directory(FILES)
    driver.world.create("a")
    for _ in range(images):
        _grow(driver, chance)
    _settle(driver)
    driver.close()
    before = driver.world.storage.clone()
    earlier = safe(driver.world, driver.model, files, NOTHING)
    for _ in range(_LATEST):
        _grow(driver, chance)
    driver.close()
    older = Older(before)
    found, put_back = files.damages(driver.world.storage), older.damages(driver.world.storage)
    found = [damage for damage in found if damage not in files.ESSENTIAL]
    searches, harmful = [], []
    for _ in range(damages):
        objects, todo = (older, put_back) if put_back and chance.random() < _OLDER else (files, found)
        damage = chance.choice(todo)
        contents = earlier if damage == EVERYTHING else safe(driver.world, driver.model, objects, damage)
        search = Search(driver.world, objects, damage, contents, 0)
        harmful += [HarmfulDamage(f"large, seed {seed}", damage, *one) for one in search.walk(chance)]
        searches.append(search)
    return tally(searches, harmful)


def _grow(driver: Driver, chance: random.Random) -> None:
    """Do one verb, or several with one disk; one that is refused does nothing."""
    there = sorted(key for key, image in driver.model.images.items() if not image.removed)
    disks, snapshots = ([key for key in there if driver.image(*key).mutable is mutable] for mutable in (True, False))
    draw = chance.random()
    with contextlib.suppress(*REFUSALS):
        if disks and draw < _REMOVED:
            driver.remove(*chance.choice(there))
        elif disks and draw < _REMOVED + _SNAPSHOTS:
            chosen = chance.choice(disks)
            driver.snapshot(*chosen)
            _write(driver, chosen, chance)
        else:
            base = chance.choice(snapshots) if snapshots and chance.random() < 0.5 else None
            made = driver.create("a", SIZE, base, strategy=chance.choice(("space", "performance")), auto_fix=False)
            _write(driver, ("a", made), chance)


def _write(driver: Driver, disk: Key, chance: random.Random) -> None:
    offset = chance.randrange(SIZE // (4 * KiB)) * 4 * KiB
    with contextlib.suppress(DiskwrightError):  # its data is not made yet
        driver.write(*disk, offset, data(chance.randrange(200), BLOCK))


def _settle(driver: Driver) -> None:
    """Run fixes until few are left."""
    while True:
        fixes = driver.engine().check_storage_repository("a")
        ready = [fix for fix in fixes if fix.wait is None and fix.risk is not Risk.LOSES_DATA]
        if len(ready) <= _UNFINISHED:
            return
        for fix in ready[_UNFINISHED:]:
            with contextlib.suppress(DiskwrightError):  # another one made it needless
                driver.engine().run_fix_here("a", fix)
