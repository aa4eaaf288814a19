"""An operator in a random run, who works with other tools between two rounds: some of it lasts, some for one round.

What is put in the place of a repository is not to be touched until the operator says that it is the one: that is
looked at byte by byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from engine.data.model import VolumeFormat
from engine.errors import DiskwrightError
from sim.disk.files import SimFiles
from sim.disk.nodes import FileNode
from sim.disk.storage import DEFAULT_CAPACITY
from sim.explore.cases.driver import layers
from sim.explore.oracle.reference import Image, Key, Model
from sim.hosts.trees import copy_tree, remove_tree
from sim.hosts.world import REPOSITORIES, World
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


class Operator:
    """Who works with other tools than the engine."""

    def __init__(self, world: World, hosts: Sequence[str]) -> None:
        self._world = world
        self._hosts = tuple(hosts)
        self._kept: dict[str, Model] = {}
        """What was true of each repository when its backup was made."""
        world.storage.make_directory(_SHELF)
        world.storage.settle()

    # -- for ever

    def grow(self, model: Model, repo: str, disk: str, flushed: bool) -> Meanwhile:
        """Make the volume of a disk longer, if nobody uses it."""
        engine = self._world.host(self._hosts[-1])
        size = model.images[repo, disk].size
        longer = -(-size // _BLOCK) * _BLOCK + 2 * _BLOCK
        process = self._world.process_of(engine).host.process("qemu-img")
        try:
            volume = layers(engine, repo, disk)[0]
            flushed = flushed or volume.format is not VolumeFormat.RAW
            tool = SimImageTool if flushed else UnsafeImageTool
            tool(process.files, self._world.image_locks).resize(volume, longer)
        except (DiskwrightError, OSError) as error:
            return Meanwhile(f"{repo}/{disk[:6]} cannot be made longer: {error!s:.80}")
        finally:
            process.end()
            self._world.process_of(engine).end()

        def grown(models: tuple[Model, ...]) -> tuple[Model, ...]:
            after = (one.changed(repo, disk, grown=one.images[repo, disk].content.truncate(longer)) for one in models)
            return (*after,) if flushed else (*models, *after)

        return Meanwhile(f"{repo}/{disk[:6]} is made {longer} bytes long by another tool", at_once=grown)

    def back_up(self, model: Model, repo: str) -> Meanwhile:
        """Copy a repository, in which nothing happens."""
        files = self._files()
        if repo in self._kept:
            remove_tree(files, f"{_SHELF}/{repo}")
        copy_tree(files, f"{REPOSITORIES}/{repo}", f"{_SHELF}/{repo}")
        self._kept[repo] = model
        return Meanwhile(f"{repo} is backed up")

    def rename_host(self, host: str, name: str) -> Meanwhile:
        """Call a host as another one is called."""
        self._world.machine(host).called = name
        return Meanwhile(f"{host} is called {name}")

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
        copy_tree(self._files(), f"{REPOSITORIES}/{other}", root)
        before = self._seen(repo)

        def back() -> list[str]:
            touched = self._seen(repo) != before
            remove_tree(self._files(), root)
            self._move(f"{_SHELF}/{repo}.away", root)
            return [f"a clone of {other} in the place of {repo} was changed"] if touched else []

        return Meanwhile(f"a clone of {other} stands in the place of {repo}", back)

    def restore(self, repo: str) -> Meanwhile | None:
        """Put the backup in the place of a repository; say so on each host at the end of the round. None: there is
        none."""
        kept = self._kept.get(repo)
        if kept is None:
            return None
        root = f"{REPOSITORIES}/{repo}"
        remove_tree(self._files(), root)
        copy_tree(self._files(), f"{_SHELF}/{repo}", root)
        before = self._seen(repo)

        def accept() -> list[str]:
            touched = self._seen(repo) != before
            for host in self._hosts:
                engine = self._world.host(host)
                engine.connect_storage_repository(repo, self._world.format, {"path": root}, accept_moved=True)
                self._world.bury(host)
            return [f"the backup of {repo} was changed before anybody had accepted it"] if touched else []

        def models(known: tuple[Model, ...]) -> tuple[Model, ...]:
            images = {key: image for key, image in kept.images.items() if key[0] == repo}
            return tuple(_with(model, repo, images) for model in known)

        return Meanwhile(f"{repo} is what it was at its backup", accept, in_the_end=models)

    # -- tools

    def _files(self) -> SimFiles:
        return self._world.machine("somebody").process("shell").files

    def _move(self, source: str, target: str) -> None:
        files = self._files()
        files.rename(source, target)
        for path in (source, target):
            files.sync_directory(path.rpartition("/")[0])

    def _seen(self, repo: str) -> list[tuple[str, bytes]]:
        root = f"{REPOSITORIES}/{repo}/"
        return [
            (path, node.content.digest if isinstance(node, FileNode) else b"")
            for path, _, node in self._world.storage.walk()
            if path.startswith(root)
        ]


def _with(model: Model, repo: str, images: Mapping[Key, Image]) -> Model:
    """The model with the images of one repository as they once were."""
    others = {key: image for key, image in model.images.items() if key[0] != repo}
    unnamed = tuple(one for one in model.unnamed if one[0] != repo)
    return model._replace(images={**others, **images}, unnamed=unnamed)
