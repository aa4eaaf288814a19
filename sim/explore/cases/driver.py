"""Verbs that are done twice: by an engine of the simulated world, and by the reference model.

Before a verb begins, ``models`` becomes the list of what may be found if it is interrupted; when
it returns, only what it promised is left. Who watches the run (an exploration, a fuzzer) reads
``models`` at each effect.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from engine.api import Engine
from engine.data.model import Fix, aligned
from engine.doors.images import Layer
from engine.errors import BadRequest, Conflict, NotFound, Refused
from engine.tags import chains, changes
from engine.triage import rules
from sim.disk.content import Content
from sim.explore.oracle.reference import Image, Model
from sim.hosts.machine import UNSAFE, SimMachine
from sim.hosts.world import World
from sim.qemu.images import UnsafeImageTool

KiB = 1 << 10
MiB = 1 << 20
REFUSALS = (BadRequest, NotFound, Conflict, Refused)
"""Errors after which a verb has certainly not been done."""

FILES = "/files"
"""A directory beside the repositories, for what is imported and exported."""


class Driver:
    """A world, what must be true of it, and one host that acts."""

    def __init__(self, world: World, models: tuple[Model, ...] = (Model(),), host: str = "one") -> None:
        self.world = world
        self.models = models
        self.named: dict[str, str] = {}
        """Images that a case remembers, by its own names for them."""
        self._engines: dict[str, Engine] = {}
        self._host = host

    def fork(self, world: World) -> Driver:
        """The same on another world."""
        other = Driver(world, self.models, self._host)
        other.named = dict(self.named)
        return other

    def engine(self, host: str = "") -> Engine:
        """The engine of a host, all repositories connected."""
        host = host or self._host
        if host not in self._engines:
            self._engines[host] = self.world.host(host)
        return self._engines[host]

    def on(self, host: str) -> Driver:
        """Have another host act from here on."""
        self._host = host
        return self

    @property
    def model(self) -> Model:
        """What is known; AssertionError while an outcome is open."""
        (model,) = self.models
        return model

    def image(self, repo: str, image: str) -> Image:
        """What is known of an image."""
        return self.model.images[repo, image]

    @contextlib.contextmanager
    def promising(self, *outcomes: Model) -> Iterator[Callable[[Model], None]]:
        """A verb that leads from here to one of ``outcomes`` or, refused, nowhere; interrupted, or stopped by an error
        of the storage, either. The body calls what it is given with the model that the answer promises."""
        before = self.models
        self.models = (*before, *outcomes)
        done: list[Model] = []
        try:
            yield done.append
        except REFUSALS:
            self.models = before
            raise
        assert done, "a verb that returned promises something"
        self.models = (done[-1],)

    # -- the verbs of the RFC

    def create(
        self, repo: str, size: int, base: tuple[str, str] | None = None, user_data: Any = None, **options: Any
    ) -> str:
        """create_virtual_disk; ``base`` is (repository, image)."""
        content = Content(size, ())
        if base is not None:
            content = self.image(*base).content.truncate(size)
        made = Image(size, content, True, {} if user_data is None else user_data)
        model = self.model
        with self.promising(model.made(repo, None, made)) as done:
            image = self.engine().create_virtual_disk(repo, size, base[1] if base else None, user_data, options)
            done(model.made(repo, image, made))
        return image

    def snapshot(self, repo: str, disk: str, user_data: Any = None, **options: Any) -> str:
        """create_snapshot."""
        model = self.model
        source = model.images[repo, disk]
        made = source._replace(mutable=False, user_data={} if user_data is None else user_data)
        with self.promising(model.made(repo, None, made)) as done:
            image = self.engine().create_snapshot(repo, disk, user_data, options)
            done(model.made(repo, image, made))
        return image

    def snapshots(self, repo: str, disks: Sequence[str], user_data: Any = None, **options: Any) -> dict[str, str]:
        """create_snapshot_group: all of them or none."""
        model = promised = self.model
        made = {disk: model.images[repo, disk]._replace(mutable=False, user_data=user_data) for disk in disks}
        for image in made.values():
            promised = promised.made(repo, None, image)
        with self.promising(promised) as done:
            found = self.engine().create_snapshot_group(repo, disks, user_data, options)
            for disk, image in made.items():
                model = model.made(repo, found[disk], image)
            done(model)
        return found

    def copy(self, source: tuple[str, str], target: str, base: str | None = None, **options: Any) -> str:
        """copy_image from (repository, image)."""
        model = self.model
        original = model.images[source]
        made = original._replace(user_data={})
        known = None if original.mutable else source[1]
        there = model.images.get((target, source[1]))
        if there is not None and known:
            made = there._replace(removed=False)
        with self.promising(model.made(target, known, made)) as done:
            image = self.engine().copy_image(target, source[1], base, None, options)
            done(model.made(target, image, made))
        return image

    def remove(self, repo: str, image: str) -> None:
        """remove_image."""
        after = self.model.changed(repo, image, removed=True)
        with self.promising(after) as done:
            self.engine().remove_image(repo, image)
            done(after)

    def restore(self, repo: str, image: str) -> None:
        """restore_image."""
        after = self.model.changed(repo, image, removed=False)
        with self.promising(after) as done:
            self.engine().restore_image(repo, image)
            done(after)

    def set_user_data(self, repo: str, image: str, user_data: Any) -> None:
        """set_user_data."""
        after = self.model.changed(repo, image, user_data=user_data)
        with self.promising(after) as done:
            self.engine().set_user_data(repo, image, user_data)
            done(after)

    def resize(self, repo: str, disk: str, size: int) -> None:
        """resize_disk. Interrupted, its volume may be longer and its size the old one: a fix goes on from there."""
        before, longer = self.model, self.image(repo, disk).content.truncate(size)
        after = before.changed(repo, disk, size=size, content=longer)
        with self.promising(before.changed(repo, disk, grown=longer), after) as done:
            self.engine().resize_disk(repo, disk, size)
            done(after)

    def revert(self, repo: str, disk: str, snapshot: str) -> str:
        """revert_disk. Interrupted, what the disk contained may be a snapshot that nobody has removed yet."""
        model, to = self.model, self.image(repo, snapshot)
        kept = self.image(repo, disk)._replace(mutable=False, user_data={})
        returned = model.changed(repo, disk, content=to.content, size=to.size)
        with self.promising(model.made(repo, None, kept), returned.made(repo, None, kept), returned) as done:
            image = self.engine().revert_disk(repo, disk, snapshot)
            done(returned.made(repo, image, kept._replace(removed=True)))
        return image

    def set_strategy(self, repo: str, image: str, strategy: str) -> None:
        """set_strategy: nothing that a model knows."""
        self.engine().set_strategy(repo, image, strategy)

    def record_digest(self, repo: str, image: str) -> None:
        """record_digest: nothing that a model knows."""
        self.engine().record_digest(repo, image)

    # -- files

    def give_file(self, path: str, content: bytes) -> None:
        """A file of a user's, durable, to be imported."""
        with self.engine().doors.files.create(path) as handle:
            handle.write_at(0, content)
            handle.sync()
        self.engine().doors.files.sync_directory(FILES)

    def import_raw(self, repo: str, path: str, **options: Any) -> str:
        """import_image of a raw file."""
        content = self.world.storage.file(path)[1].content
        made = Image(content.size, content, True, {})
        model = self.model
        with self.promising(model.made(repo, None, made)) as done:
            image = self.engine().import_image(repo, path, "raw", None, options)
            done(model.made(repo, image, made))
        return image

    def adopt(self, repo: str, shows: Mapping[str, Image], format: str = "qcow2", **options: Any) -> list[str]:
        """adopt_images of a chain; ``shows``: what each file shows, from the top down. Interrupted, the upper ones may
        be committed and the others not."""
        models = [self.model]
        for image in shows.values():
            models.append(models[-1].made(repo, None, image))
        with self.promising(*models[1:]) as done:
            engine, model = self.engine(), models[0]
            made = engine.adopt_images(repo, engine.plan_adoption(repo, list(shows), format), options)
            for path, image in shows.items():
                model = model.made(repo, made[path], image)
            done(model)
        return [made[path] for path in shows]

    def export_raw(self, repo: str, image: str, path: str) -> None:
        """export_image: the file is there, whole, or it is not."""
        content = self.image(repo, image).content
        after = self.model.exported(path, content)
        with self.promising(after) as done:
            self.engine().export_image(repo, image, path, "raw")
            done(after)

    # -- machines

    def write(self, repo: str, disk: str, offset: int, data: bytes, host: str = "") -> None:
        """Prepare a disk, write into it as its machine would, flush, tear it down.

        What it wrote may be lost up to the flush; ``data`` should be no more than one block."""
        engine = self.engine(host)
        engine.prepare_image(repo, disk)
        session = engine.doors.images.open_session(layers(engine, repo, disk), True, False)
        after = self.model.changed(repo, disk, content=self.image(repo, disk).content.write(offset, data))
        try:
            with self.promising(after) as done:
                session.write(offset, data)
                session.flush()
                done(after)
        finally:
            session.close()
        engine.teardown_image(repo, disk)

    def write_unsafe(self, repo: str, disk: str, offset: int, data: bytes) -> None:
        """Have a machine whose flushes reach no storage write, and kill it: what it wrote is seen, and not durable.

        Until the disk is torn down it is open what it will show; ``data`` should be no more than one sector."""
        engine = self.engine()
        entry = engine.prepare_image(repo, disk)
        machine = SimMachine(self.world.process_of(engine).host, entry.path, entry.format, UNSAFE)
        content = self.image(repo, disk).content.write(offset, data)
        self.models = (*self.models, self.model.changed(repo, disk, content=content))
        machine.write(offset, data)
        machine.flush()
        machine.kill()
        engine.teardown_image(repo, disk)
        self.models = self.models[-1:]

    def snapshot_of_what_is_seen(self, repo: str, disk: str) -> str:
        """create_snapshot after ``write_unsafe``: what it shows when it is acknowledged, it shows for ever."""
        made = [model.images[repo, disk]._replace(mutable=False, user_data={}) for model in self.models]
        before = self.models
        with self.promising(*(model.made(repo, None, one) for model, one in zip(before, made, strict=True))) as done:
            image = self.engine().create_snapshot(repo, disk)
            done(before[-1].made(repo, image, made[-1]))
        return image

    def grow_unsafe(self, repo: str, disk: str, size: int) -> None:
        """Have another tool, which flushes nothing, make the volume of a disk longer: that is seen, and not durable."""
        engine, before = self.engine(), self.model
        process = self.world.process_of(engine).host.process("qemu-img")
        grown = self.image(repo, disk).content.truncate(size)
        self.models = (before, before.changed(repo, disk, grown=grown))
        try:
            UnsafeImageTool(process.files, self.world.image_locks).resize(layers(engine, repo, disk)[0], size)
        finally:
            process.end()

    def adopt_what_is_seen(self, repo: str, disk: str) -> None:
        """Run the fix O-GROWN after ``grow_unsafe``: the size that it has adopted when it returns is there for good."""
        grown = self.models[-1].images[repo, disk].grown
        assert grown is not None
        after = self.models[-1].changed(repo, disk, size=grown.size, content=grown, grown=None)
        (fix,) = (fix for fix in self.engine().check_storage_repository(repo) if fix.rule == rules.O_GROWN)
        with self.promising(after) as done:
            self.engine().run_fix_here(repo, fix)
            done(after)

    def write_as_a_stranger(self, repo: str, disk: str, offset: int, data: bytes) -> None:
        """Have another tool, which flushes nothing, write to a volume that nobody has prepared; ``data`` should be no
        more than one sector."""
        engine, before = self.engine(), self.model
        process = self.world.process_of(engine).host.process("qemu-io")
        after = before.changed(repo, disk, content=self.image(repo, disk).content.write(offset, data))
        self.models = (before, after)
        try:
            tool = UnsafeImageTool(process.files, self.world.image_locks)
            session = tool.open_session(layers(engine, repo, disk), True, False)
            session.write(offset, data)
            session.close()
        finally:
            process.end()

    def accept_what_was_written(self, repo: str, disk: str) -> None:
        """Run the fix O-WRITTEN after ``write_as_a_stranger``: what it showed then is the content for good."""
        after = self.models[-1]
        (fix,) = (fix for fix in self.engine().check_storage_repository(repo) if fix.rule == rules.O_WRITTEN)
        with self.promising(after) as done:
            self.engine().run_fix_here(repo, fix)
            done(after)

    # -- fixes

    def fix(self, repo: str, rule: str, target: str = "", deep: bool = False) -> Fix:
        """Run the first fix of that rule that check offers, here and to its end."""
        offered = self.engine().check_storage_repository(repo, {"deep": True} if deep else None)
        found = [fix for fix in offered if fix.rule == rule and target in ("", fix.target)]
        assert found, f"check offers no {rule} in {repo} but {[fix.rule for fix in offered]}"
        after = self.model
        if rule == rules.C_LOST:
            after = after.stray(re.findall("[0-9a-f]{32}", str(found[0].plan["name"]))[0], None)
        if rule == rules.O_GROWN:
            grown = self.image(repo, found[0].target).grown
            assert grown is not None
            after = after.changed(repo, found[0].target, size=grown.size, content=grown, grown=None)
        with self.promising(after) as done:
            self.engine().run_fix_here(repo, found[0])
            done(after)
        return found[0]

    def wait(self) -> None:
        """Let the tasks of the host run to their end."""
        for task in self.engine().list_tasks():
            self.engine().wait_for_task(task)

    def close(self) -> None:
        """Everything of all hosts ends; what they wrote is made durable."""
        self.named_hosts_end()
        self.world.storage.settle()

    def named_hosts_end(self) -> None:
        """Every process of every host is gone."""
        self._engines.clear()
        for name in list(self.world.hosts):
            self.world.bury(name)


def layers(engine: Engine, repo: str, image: str) -> list[Layer]:
    """The chain of an image as tools open it."""
    repository = engine.context.repository(repo)
    return chains.layers(repository, chains.load(repository, changes.read(repository, image).record))


def read(engine: Engine, repo: str, image: str, size: int) -> Content:
    """The content of an image as a session shows it."""
    session = engine.doors.images.open_session(layers(engine, repo, image), False, False)
    try:
        content = Content(0, ())
        for start, data in session.stream([(0, min(aligned(size), session.size))]):
            content = content.write(start, bytes(data))
    finally:
        session.close()
    return content.truncate(size)
