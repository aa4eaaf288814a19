"""A newer program and an older one on one repository: what the newer one has left undone the older one leaves alone.

A case is done by a host with the newer program (``sim.hosts.versions``), to its end or killed before an effect. Then a
host with the older one tries every fix that it is offered, and verbs on each image. It is judged

* that no record which the older program does not understand is changed, nor any volume that such a record names,
* that no verb is done to such an image,
* that what the older program changes keeps the field that it does not know,
* that a third host, with the newer program again, brings everything to the end that the case promises.

A group of logical volumes that one host alone may change is that host's each time, with the other program installed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from engine.api import Engine
from engine.data.decoding import decode
from engine.data.records import VolumeRef
from engine.errors import DiskwrightError, NotUnderstood
from engine.formats.files import layout
from sim.disk.files import Fault
from sim.disk.storage import SimStorage
from sim.explore.cases.case import Case, prepared
from sim.explore.cases.taking import offered, run_each_once
from sim.explore.oracle.newest import newest
from sim.explore.oracle.recovery import recover
from sim.explore.search.explorer import EFFECTS
from sim.hosts.crash import Crashed
from sim.hosts.processes import SimProcess
from sim.hosts.versions import FIELD, NewerWords, in_our_words
from sim.hosts.world import NFS, World
from sim.lvm.lvm_view import as_files

NEWER, OLDER, LAST = "one", "two", "three"
"""The hosts; the first and the last have the newer program."""
_MOST_FIXES = 24


class Mixed(NamedTuple):
    """What came of one run."""

    dies: int
    """The effect before which the newer program was killed, 0: it was not."""
    unknown: int
    """How many images the older program did not understand."""
    problems: tuple[str, ...]


class Unfinished(NamedTuple):
    """A record that only the newer program understands."""

    root: str
    tag: str
    path: str
    content: bytes
    volumes: dict[str, bytes]
    """By path, what is in those that it alone names."""


def mixed(case: Case, every: int = 1) -> Iterator[Mixed]:
    """Run a case by the newer program, to its end and killed before every so manieth effect."""
    whole = _Run(case)
    yield whole.judged()
    for dies in range(1, whole.effects + 1, every):
        yield _Run(case, dies).judged()


def unfinished(storage: SimStorage) -> Iterator[Unfinished]:
    """Yield the newest records of all tags of all repositories that an older program does not understand. Not theirs is
    a volume that another tag names, too: until that has left it, it decides (a snapshot that was only begun). What is
    on logical volumes has the paths that it would have on files."""
    storage = _by_path(storage)
    newest, unknown, named = _newest(storage), list[tuple[str, str]](), set[str]()
    for (root, tag), (_, content) in newest.items():
        try:
            named.update(volume.id for volume in decode(content, tag).volumes())
        except NotUnderstood:
            unknown.append((root, tag))
        except DiskwrightError:
            continue
    for root, tag in unknown:
        path, content = newest[root, tag]
        needed = [one for one in _understood(content, tag) if one.id not in named]
        paths = [f"{root}/{layout.volume_path(volume.id, volume.format)}" for volume in needed]
        yield Unfinished(root, tag, path, content, {path: _content(storage, path) for path in paths})


def _understood(content: bytes, tag: str) -> tuple[VolumeRef, ...]:
    """What volumes a newer program names."""
    try:
        return decode(in_our_words(content), tag).volumes()
    except DiskwrightError:
        return ()  # nobody here knows what it says


def harm(storage: SimStorage, one: Unfinished) -> Iterator[str]:
    """Tell what has been done to a record or a volume of the newer program."""
    storage = _by_path(storage)
    path, content = _newest(storage).get((one.root, one.tag), ("", b""))
    if (path, content) != (one.path, one.content):
        yield f"the record of {one.tag}, which only the newer program understands, is {path or 'gone'}"
    for volume, before in one.volumes.items():
        if _content(storage, volume) != before:
            yield f"{volume}, which only the newer program may change, was changed"


def _by_path(storage: SimStorage) -> SimStorage:
    return as_files(storage) if storage.devices else storage


def _newest(storage: SimStorage) -> dict[tuple[str, str], tuple[str, bytes]]:
    """The newest generation of each tag: its path, and what it says."""
    return {key: (path, node.content.read(0, node.content.size)) for key, (path, node) in newest(storage).items()}


def _content(storage: SimStorage, path: str) -> bytes:
    try:
        return storage.file(path)[1].content.digest
    except OSError:
        return b""


class _Run:
    """One of them."""

    def __init__(self, case: Case, dies: int = 0) -> None:
        self._case, self._dies = case, dies
        self._driver = prepared(case, "nfs" if case.format == NFS else "posix")
        self._world: World = self._driver.world
        self._world.machine(NEWER).words = NewerWords()
        self.effects = 0
        self._world.hook = self
        with contextlib.suppress(DiskwrightError, AssertionError, Crashed):
            case.operation(self._driver.on(NEWER))
        self._world.hook = None
        self._driver.close()

    def __call__(self, process: SimProcess, call: str, what: str) -> Fault:
        """As a hook: count effects on the shared storage, and die."""
        if call in EFFECTS and process.files.storage_of(what.partition(" ")[0]) is self._world.storage:
            self.effects += 1
            if self.effects == self._dies:
                process.kill()
        return Fault.NONE

    def judged(self) -> Mixed:
        """Let the older program, then the newer one come, and say what went wrong."""
        storage = self._world.storage
        left = list(unfinished(storage))
        marked = {key for key, (_, content) in _newest(_by_path(storage)).items() if _is_marked(content)}
        if storage.devices:
            self._world.bury(NEWER)  # it is the same host, or has to be proven dead
        self._world.machine(OLDER).words = None
        problems = list(self._tried(self._manager(OLDER), left))
        self._world.bury(OLDER)
        self._world.machine(LAST).words = NewerWords()
        if self._world.sharing:
            self._come_back(NEWER, OLDER)
        storage.settle()
        problems += [problem for one in left for problem in harm(storage, one)]
        problems += [
            f"the record of {key[1]} has lost what the newer program said in it"
            for key, (_, content) in _newest(_by_path(storage)).items()
            if key in marked and content and not _is_marked(content)
        ]
        problems += recover(self._world, self._driver.models, LAST, self._case.strangers)
        return Mixed(self._dies, len(left), tuple(dict.fromkeys(problems)))

    def _come_back(self, *hosts: str) -> None:
        """Have hosts look what is left on them of what they did: until then it is theirs."""
        for host in hosts:
            engine = self._world.host(host)
            for repo in engine.list_repositories():
                engine.check_storage_repository(repo)
            self._world.bury(host)

    def _manager(self, host: str) -> Engine:
        if self._world.sharing:
            self._world.manage(host)
        return self._world.host(host)

    def _tried(self, engine: Engine, left: list[Unfinished]) -> Iterator[str]:
        for one in left:
            yield from _verbs(engine, one.root.rpartition("/")[2], one.tag)
        run_each_once(engine, lambda: offered(engine, losing=False), _MOST_FIXES)


def _verbs(engine: Engine, repo: str, image: str) -> Iterator[str]:
    verbs: dict[str, Callable[[], object]] = {
        "removed": lambda: engine.remove_image(repo, image),
        "given user data": lambda: engine.set_user_data(repo, image, {"n": 1}),
        "given a strategy": lambda: engine.set_strategy(repo, image, "performance"),
        "prepared": lambda: engine.prepare_image(repo, image),
        "snapshot": lambda: engine.create_snapshot(repo, image),
        "a base": lambda: engine.create_virtual_disk(repo, 1 << 20, image),
    }
    for done, verb in verbs.items():
        with contextlib.suppress(DiskwrightError):
            verb()
            yield f"image {image}, which only the newer program understands, could be {done}"


def _is_marked(content: bytes) -> bool:
    return f'"{FIELD}":'.encode() in content
