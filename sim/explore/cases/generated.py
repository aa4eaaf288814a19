"""Cases that nobody wrote: all sequences of a few verbs over small chains.

A start is a disk on up to two snapshots, its upper layers small (they are merged down) or large (up), in a repository
of files, on NFS or on LVM. From there every
verb that is not refused leads to a case; a case that leaves what another one has left already is not told twice.
What is done with them is in ``sim.explore.search.convergence``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from engine.errors import DiskwrightError
from sim.explore.cases.case import RESCUERS, look_around
from sim.explore.cases.driver import FILES, REFUSALS, Driver, KiB
from sim.explore.cases.fixtures.images import SIZE, data
from sim.explore.oracle.reference import Image
from sim.explore.search.canonical import canonical_key
from sim.hosts.world import FORMAT, LVM, NFS, World

CLUSTER = 64 * KiB
HOME, AWAY = "a", "b"
WEB = "web"
"""The disk that there is from the start; snapshots are s1, s2, …, disks on them d1, d2, …"""
_OF = " of "
"""In the name of a copy of a disk, before that of the disk."""


_LIGHT, _HEAVY = ((0, 1, 2), (1, 2), (3,)), ((0,), (0, 1), (1, 2, 3))
"""The clusters that each layer holds, the lowest layer first."""


class Start(NamedTuple):
    """What there is before the first verb."""

    layers: int
    heavy: bool
    """Each layer holds more than the one below it."""
    on: str = "files"
    """What the repositories are on: a word of ``ON``."""

    def __str__(self) -> str:
        where = f" on {self.on}" if self.on != "files" else ""
        return f"{self.layers} {'heavy' if self.heavy else 'light'} layers{where}"


ON = {"files": FORMAT, "nfs": NFS, "lvm": LVM}
STARTS = tuple(
    Start(layers, heavy, on)
    for on in ON
    for layers, heavy in ((3, False), (3, True), (2, False), (2, True), (1, False))
)


class Verb(NamedTuple):
    """One verb with its images, by the names of the case."""

    word: str
    subject: str
    base: str = ""

    def __str__(self) -> str:
        return f"{self.word} {self.subject}{f' on {self.base}' if self.base else ''}"


class Generated(NamedTuple):
    """A case: how it came about, and the world that it leaves, everything durable, no process alive."""

    start: Start
    verbs: tuple[Verb, ...]
    driver: Driver
    before: Driver | None = None
    """The world before the last verb."""

    def __str__(self) -> str:
        return ", ".join([str(self.start), *map(str, self.verbs)])


def generated(start: Start, most: int) -> Iterator[Generated]:
    """Return all cases of ``start`` with up to ``most`` verbs, the shorter ones first."""
    seen: set[bytes] = set()
    latest = [Generated(start, (), begin(start))]
    yield latest[0]
    for _ in range(most):
        longer: list[Generated] = []
        for case in latest:
            for verb in _moves(case.driver):
                found = _after(case, verb)
                if found is not None and (key := _key(found.driver)) not in seen:
                    seen.add(key)
                    longer.append(found)
                    yield found
        latest = longer


def from_text(text: str) -> Generated:
    """Return the case of that name (``str`` of it). ValueError when it names none, or one of its verbs is refused."""
    first, *rest = text.split(", ")
    start = next((start for start in STARTS if str(start) == first), None)
    if start is None:
        raise ValueError(f"{first!r:.60} is no start; those are: {'; '.join(map(str, STARTS))}")
    case = Generated(start, (), begin(start))
    for wanted in rest:
        verb = next((verb for verb in _moves(case.driver) if str(verb) == wanted), None)
        after = _after(case, verb) if verb is not None else None
        if after is None:
            raise ValueError(f"{wanted!r:.60} cannot be done after {case}")
        case = after
    return case


def begin(start: Start) -> Driver:
    """Return the world of a start."""
    world = World(profile="nfs" if start.on == "nfs" else "process", least_ids=True, format=ON[start.on])
    world.storage.make_directory(FILES)
    world.create(HOME, AWAY)
    driver = Driver(world)
    for host in ("one", *RESCUERS):
        world.host(host)
    driver.named[WEB] = driver.create(HOME, SIZE, user_data={"name": WEB})
    for layer in range(start.layers):
        if layer:
            _snapshot(driver, WEB)
        for cluster in (_HEAVY if start.heavy else _LIGHT)[layer]:
            driver.write(HOME, driver.named[WEB], cluster * CLUSTER, data(layer + 1, CLUSTER))
    driver.close()
    look_around(world)
    return driver.on("one")


def _moves(driver: Driver) -> Iterator[Verb]:
    for name, image in sorted(_known(driver, HOME).items()):
        if image.removed:
            yield Verb("restore", name)
            continue
        yield Verb("remove", name)
        yield Verb("strategy", name)
        yield Verb("copy", name)
        if image.mutable:
            yield Verb("write", name)
            yield Verb("snapshot", name)
        else:
            yield Verb("create", name)
        for base, other in sorted(_known(driver, HOME).items()):
            if image.mutable and not other.mutable and not other.removed:
                yield Verb("copy", name, base)
    for name, image in sorted(_known(driver, AWAY).items()):
        if not image.removed:
            yield Verb("remove away", name)


def _known(driver: Driver, repo: str) -> dict[str, Image]:
    images = driver.model.images
    return {name: images[repo, image] for name, image in driver.named.items() if (repo, image) in images}


def _after(case: Generated, verb: Verb) -> Generated | None:
    """The case with one verb more; None when it is refused."""
    driver = case.driver.fork(case.driver.world.fork(case.driver.world.storage.clone()))
    try:
        do(driver, verb)
    except REFUSALS:
        return None
    except DiskwrightError as error:
        raise AssertionError(f"{case}, {verb}: fails: {error}") from error
    driver.close()
    look_around(driver.world)
    return Generated(case.start, (*case.verbs, verb), driver, case.driver)


def do(driver: Driver, verb: Verb) -> None:
    """Do one verb."""
    _WORDS[verb.word](driver, verb)


def _key(driver: Driver) -> bytes:
    return canonical_key(driver.world.storage, exact=False) + driver.model.key()


# -- what the words do


def _snapshot(driver: Driver, name: str) -> None:
    made = driver.snapshot(HOME, driver.named[name])
    driver.named[_fresh(driver, "s")] = made


def _fresh(driver: Driver, letter: str) -> str:
    return f"{letter}{1 + sum(name.startswith(letter) for name in driver.named)}"


def _create(driver: Driver, verb: Verb) -> None:
    made = driver.create(HOME, SIZE, (HOME, driver.named[verb.subject]), auto_fix=False)
    driver.named[_fresh(driver, "d")] = made


def _copy(driver: Driver, verb: Verb) -> None:
    image = driver.named[verb.subject]
    target, base = (HOME, driver.named[verb.base]) if verb.base else (AWAY, None)
    made = driver.copy((HOME, image), target, base, auto_fix=False, image_hints={image: HOME})
    if made != image:
        driver.named[f"{_fresh(driver, 'copy')}{_OF}{verb.subject}"] = made


def _write(driver: Driver, verb: Verb) -> None:
    disk = driver.named[verb.subject]
    driver.write(HOME, disk, 0, data(9 + len(driver.named)))
    model = driver.model
    content = model.images[HOME, disk].content
    for repo, image in model.images:  # a copy follows its source until it is whole
        if any(name.endswith(_OF + verb.subject) and image == copy for name, copy in driver.named.items()):
            model = model.changed(repo, image, content=content)
    driver.models = (model,)


_WORDS: dict[str, Callable[[Driver, Verb], object]] = {
    "write": _write,
    "snapshot": lambda driver, verb: _snapshot(driver, verb.subject),
    "create": _create,
    "copy": _copy,
    "remove": lambda driver, verb: driver.remove(HOME, driver.named[verb.subject]),
    "remove away": lambda driver, verb: driver.remove(AWAY, driver.named[verb.subject]),
    "restore": lambda driver, verb: driver.restore(HOME, driver.named[verb.subject]),
    "strategy": lambda driver, verb: driver.set_strategy(HOME, driver.named[verb.subject], "performance"),
}
