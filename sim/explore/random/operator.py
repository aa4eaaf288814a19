"""An operator in a random run, who works with other tools between two rounds: some of it lasts, some for one round.

What is put in the place of a repository is not to be touched until the operator says that it is the one: that is
looked at byte by byte.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from engine.api import Engine
from engine.data.model import VolumeFormat
from engine.errors import DiskwrightError
from sim.disk.files import SimFiles
from sim.disk.nfs_view import NAMES_S
from sim.disk.nodes import DirectoryNode, FileNode
from sim.disk.storage import DEFAULT_CAPACITY
from sim.explore.cases.driver import layers
from sim.explore.oracle.reference import Image, Key, Model
from sim.explore.random import newer
from sim.hosts.trees import copy_tree, remove_tree
from sim.hosts.world import REPOSITORIES, World, on_server
from sim.qemu.images import SimImageTool, UnsafeImageTool

_BLOCK = 4096
_SHELF = "/shelf"
"""Where backups lie."""


class Meanwhile(NamedTuple):
    """What an operator has done, until the end of the round."""

    told: str
    after: Callable[[], list[str]] = list
    """Ends it, and says what is wrong."""
    at_once: Callable[[tuple[Model, ...]], tuple[Model, ...]] = tuple
    """What is true as soon as it is done."""
    in_the_end: Callable[[tuple[Model, ...]], tuple[Model, ...]] = tuple
    """What is true when it has ended."""
    judge: Callable[[str, Exception | None], str] = lambda name, error: ""
    """Of an operation that was done meanwhile, and of its error while no call failed: what is wrong with that."""


class Operator:
    """Who works with other tools than the engine."""

    def __init__(self, world: World, hosts: Sequence[str]) -> None:
        self._world = world
        self._hosts = tuple(hosts)
        self._files = SimFiles(world.storage)
        self._kept: dict[str, Model] = {}
        """What was true of each repository when its backup was made."""
        world.storage.make_directory(_SHELF)
        world.storage.settle()

    # -- for ever

    def grow(self, model: Model, repo: str, disk: str, flushed: bool) -> Meanwhile:
        """Make the volume of a disk longer, if nobody uses it."""
        size = model.images[repo, disk].size
        longer = -(-size // _BLOCK) * _BLOCK + 2 * _BLOCK
        try:
            with self._engine() as engine:
                volume = layers(engine, repo, disk)[0]
                if volume.device and volume.format is VolumeFormat.RAW:
                    return Meanwhile(f"{repo}/{disk[:6]} has room for more than it says")
                flushed = flushed or volume.format is not VolumeFormat.RAW
                tool = SimImageTool if flushed else UnsafeImageTool
                files = self._world.process_of(engine).files
                tool(files, self._world.image_locks).resize(volume, longer)
        except (DiskwrightError, OSError) as error:
            return Meanwhile(f"{repo}/{disk[:6]} cannot be made longer: {error!s:.80}")

        def grown(models: tuple[Model, ...]) -> tuple[Model, ...]:
            after = (one.changed(repo, disk, grown=one.images[repo, disk].content.truncate(longer)) for one in models)
            return (*after,) if flushed else (*models, *after)

        return Meanwhile(f"{repo}/{disk[:6]} is made {longer} bytes long by another tool", at_once=grown)

    def may_be_cut(self, model: Model) -> list[Key]:
        """Images whose own volumes can be made shorter."""
        return known_disks(model)

    def cut_short(self, model: Model, repo: str, disk: str, quarters: int) -> Meanwhile | None:
        """Leave so many quarters of the file of a disk, whoever uses it: the disk is lost. None: it has no file of its
        own."""
        try:
            with self._engine() as engine:
                path = on_server(layers(engine, repo, disk)[0].path)
                others = {path for key in model.images if key != (repo, disk) for path in _paths(engine, *key)}
        except DiskwrightError:
            return None
        if path in others:
            return None
        with self._files.open(path, writable=True) as handle:
            length = handle.stat().size * quarters // 4
            handle.truncate(length)
            handle.sync()

        def hurt(models: tuple[Model, ...]) -> tuple[Model, ...]:
            lost = ((0, model.images[repo, disk].size),)
            return tuple(one.changed(repo, disk, hurt=lost) for one in models)

        return Meanwhile(f"the file of {repo}/{disk[:6]} is cut to {length} bytes", at_once=hurt)

    def back_up(self, model: Model, repo: str) -> Meanwhile:
        """Copy a repository, in which nothing happens."""
        if repo in self._kept:
            remove_tree(self._files, f"{_SHELF}/{repo}")
        copy_tree(self._files, f"{REPOSITORIES}/{repo}", f"{_SHELF}/{repo}")
        self._kept[repo] = model
        return Meanwhile(f"{repo} is backed up")

    def rename_host(self, host: str, name: str) -> Meanwhile:
        """Call a host as another one is called."""
        self._world.machine(host).called = name
        return Meanwhile(f"{host} is called {name}")

    def boot(self, host: str) -> Meanwhile:
        """Switch a host off and on."""
        self._world.machine(host).lose_power()
        return Meanwhile(f"{host} boots")

    def lose_leases(self, host: str) -> Meanwhile:
        """Have the server take a host for dead: what its processes have locked there is free, and fails for them."""
        for process in list(self._world.machine(host).processes.values()):
            process.lose_locks()
        return Meanwhile(f"the server takes {host} for dead")

    # -- for a round

    def fill(self, room: int) -> Meanwhile:
        """Leave so many bytes on the storage."""
        storage = self._world.storage
        space = storage.space("/")
        storage.capacity = space.total_bytes - space.free_bytes + room

        def empty() -> list[str]:
            storage.capacity = DEFAULT_CAPACITY
            return []

        return Meanwhile(f"{room} bytes are left", empty)

    def take_rights(self, repo: str, number: int, readable: bool) -> Meanwhile:
        """Take all rights to one object of a repository from everybody; ``readable``, of a directory: those to change
        its names."""
        root = f"{REPOSITORIES}/{repo}"
        objects = [(path, node) for path, _, node in self._world.storage.walk() if f"{path}/".startswith(f"{root}/")]
        path, node = objects[number % len(objects)]
        readable = readable and isinstance(node, DirectoryNode)
        self._world.modes.take(path, readable)

        def back() -> list[str]:
            self._world.modes.give_back(path)
            return []

        return Meanwhile(f"{path} may {'only be read' if readable else 'be used by nobody'}", back)

    def take_away(self, repo: str) -> Meanwhile:
        """Have the storage of a repository elsewhere."""
        self._move(f"{REPOSITORIES}/{repo}", f"{_SHELF}/{repo}.away")

        def back() -> list[str]:
            self._move(f"{_SHELF}/{repo}.away", f"{REPOSITORIES}/{repo}")
            return []

        return Meanwhile(f"{repo} is away", back)

    def clone_over(self, repo: str, other: str) -> Meanwhile:
        """Have a clone of another repository stand where one was."""
        root = f"{REPOSITORIES}/{repo}"
        self._move(root, f"{_SHELF}/{repo}.away")
        copy_tree(self._files, f"{REPOSITORIES}/{other}", root)
        before = self._seen(repo)

        def back() -> list[str]:
            touched = self._seen(repo) != before
            remove_tree(self._files, root)
            self._move(f"{_SHELF}/{repo}.away", root)
            return [f"a clone of {other} in the place of {repo} was changed"] if touched else []

        return Meanwhile(f"a clone of {other} stands in the place of {repo}", back)

    def upgrade(self, repo: str) -> Meanwhile:
        """Have a newer program make a repository of its own format out of one; undone at the end of the round."""
        self._world.storage.settle()
        identity = newer.upgrade(self._files, f"{REPOSITORIES}/{repo}")
        self._notice()
        before = self._seen(repo)

        def back() -> list[str]:
            touched = self._seen(repo) != before
            newer.downgrade(self._files, f"{REPOSITORIES}/{repo}", identity)
            self._notice()
            return [f"the repository {repo} of a newer program was changed"] if touched else []

        return Meanwhile(f"{repo} is upgraded by a newer program", back)

    def record_of_a_newer_program(self, repo: str, image: str) -> Meanwhile | None:
        """Have a newer program write the record of an image; undone at the end of the round. None: there is no
        image."""
        self._world.storage.settle()
        found = newer.Written.over(self._files, f"{REPOSITORIES}/{repo}", image)
        if found is None:
            return None

        def back() -> list[str]:
            problems = [f"{repo}/{image[:6]}, which a newer program wrote: {text}" for text in found.harm()]
            found.undo()
            self._notice()
            return problems

        return Meanwhile(f"{repo}/{image[:6]} is written by a newer program", back)

    def restore(self, repo: str) -> Meanwhile | None:
        """Put the backup in the place of a repository; say so on each host at the end of the round. None: there is
        none."""
        kept = self._kept.get(repo)
        if kept is None:
            return None
        root = f"{REPOSITORIES}/{repo}"
        remove_tree(self._files, root)
        copy_tree(self._files, f"{_SHELF}/{repo}", root)
        self._notice()
        before = self._seen(repo)

        def accept() -> list[str]:
            touched = self._seen(repo) != before
            for host in self._hosts:
                engine = self._world.host(host)
                parameters = self._world.parameters(repo)
                engine.connect_storage_repository(repo, self._world.format, parameters, accept_moved=True)
                self._world.bury(host)
            return [f"the backup of {repo} was changed before anybody had accepted it"] if touched else []

        def models(known: tuple[Model, ...]) -> tuple[Model, ...]:
            images = {key: image for key, image in kept.images.items() if key[0] == repo}
            return tuple(with_images(model, repo, images) for model in known)

        return Meanwhile(f"{repo} is what it was at its backup", accept, in_the_end=models)

    def put_metadata_back(self, repo: str) -> Meanwhile | None:
        """None: files have no metadata beside their directories."""
        return None

    # -- tools

    @contextlib.contextmanager
    def _engine(self) -> Iterator[Engine]:
        """To find out where an image lies. Its process ends."""
        engine = self._world.host(self._hosts[-1])
        try:
            yield engine
        finally:
            self._world.process_of(engine).end()

    def _move(self, source: str, target: str) -> None:
        self._files.rename(source, target)
        for path in (source, target):
            self._files.sync_directory(path.rpartition("/")[0])
        self._notice()

    def _notice(self) -> None:
        """Let so much time pass that no host believes of names what was true before."""
        if self._world.profile.remote:
            self._world.advance(NAMES_S + 1)

    def _seen(self, repo: str) -> list[tuple[str, bytes]]:
        root = f"{REPOSITORIES}/{repo}/"
        return [
            (path, node.content.digest if isinstance(node, FileNode) else b"")
            for path, _, node in self._world.storage.walk()
            if path.startswith(root)
        ]


def known_disks(model: Model) -> list[Key]:
    """The disks of which all is known."""
    return sorted(
        key for key, image in model.images.items()
        if image.mutable and not image.removed and image.grown is None and not image.hurt
    )  # fmt: skip


def _paths(engine: Engine, repo: str, image: str) -> Iterator[str]:
    """The files of an image, on the server; none where it is gone."""
    with contextlib.suppress(DiskwrightError):
        yield from [on_server(layer.path) for layer in layers(engine, repo, image)]


def with_images(model: Model, repo: str, images: Mapping[Key, Image]) -> Model:
    """The model with the images of one repository as they once were."""
    others = {key: image for key, image in model.images.items() if key[0] != repo}
    unnamed = tuple(one for one in model.unnamed if one[0] != repo)
    return model._replace(images={**others, **images}, unnamed=unnamed)
