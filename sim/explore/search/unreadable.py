"""Any one file or directory of a repository, or volume of a group, cannot be read for a while, at the end of a case:
nothing is concluded from that, and whatever is run meanwhile, all is as before when it can be read again.

Each read, listing or opening of the object, and of what is in it, fails with EIO. Images that do not need it read as
before, those that do are not called broken. Then each fix that is offered runs, may fail, and harms nothing.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from engine.api import Engine
from engine.data.model import Risk, Status
from engine.errors import DiskwrightError
from sim.disk.files import Fault
from sim.disk.nodes import fail
from sim.disk.storage import SimStorage
from sim.explore.cases.case import Case, prepared
from sim.explore.cases.driver import Driver, read
from sim.explore.decay.objects import REPOSITORY, ROOT, Damage, Objects
from sim.explore.oracle.reference import USABLE, Image, Key
from sim.explore.search.damage import of, safe
from sim.hosts.processes import SimProcess
from sim.hosts.world import World
from sim.lvm.volume_groups import DEVICE_ROOT

_NOTHING = Damage("", "unreadable")
_READS = ("files.list_directory", "files.read_file", "files.open")


def explore(case: Case) -> Iterator[tuple[str, str]]:
    """Yield (object, problem) of what is wrong after a case."""
    driver = prepared(case)
    case.operation(driver)
    driver.close()
    objects = of(case.format)
    names = {damage.name for damage in objects.damages(driver.world.storage) if " " not in damage.name}
    for name in sorted(names - {one.name for one in objects.ESSENTIAL}):
        yield from ((name, problem) for problem in _problems(driver, objects, name))


def _problems(driver: Driver, objects: Objects, name: str) -> Iterator[str]:
    everything = safe(driver.world, driver.model, objects, _NOTHING)
    spared = safe(driver.world, driver.model, objects, Damage(name, "unreadable"))
    engine = _blind(driver.world, driver.world.storage.clone(), name)
    try:
        report = engine.inspect_repository(REPOSITORY)
    except DiskwrightError as error:
        yield f"the repository cannot be checked: {error}"
        return
    status = {image.id: image.status for image in report.images}
    for _, image in everything:
        if status.get(image) is Status.BROKEN:
            yield f"image {image} is called broken"
    yield from _wrong(engine, spared)
    for fix in report.fixes:
        if fix.risk is Risk.LOSES_DATA:
            continue
        world = driver.world.fork(driver.world.storage.clone())
        with contextlib.suppress(DiskwrightError):  # it is told what cannot be read
            _blind(world, world.storage, name).run_fix_here(REPOSITORY, fix)
        world.storage.settle()
        after = driver.world.fork(world.storage).host("rescuer")
        yield from (f"after {fix.rule} of {fix.target}: {problem}" for problem in _wrong(after, everything))


def _blind(world: World, storage: SimStorage, name: str) -> Engine:
    """An engine to whom the object cannot be read."""

    def hook(process: SimProcess, call: str, what: str) -> Fault:
        path = what.partition(" ")[0]
        if call == "volume_groups.open_device" and path == f"{DEVICE_ROOT}{REPOSITORY}/{name}":
            raise fail(errno.EIO, path)
        if ((call in _READS or call.startswith("leases.")) and path == ROOT + name) or path.startswith(
            f"{ROOT}{name}/"
        ):
            raise fail(errno.EIO, path)
        return Fault.NONE

    return world.fork(storage, hook).host("rescuer")


def _wrong(engine: Engine, contents: dict[Key, Image]) -> Iterator[str]:
    status = {image.id: image.status for image in engine.list_images(REPOSITORY)}
    for (repo, image), wanted in contents.items():
        if status.get(image) not in USABLE:
            yield f"image {image} is {status.get(image, 'gone')}"
        elif not read(engine, repo, image, wanted.size).same(wanted.content):
            yield f"image {image} reads otherwise"
