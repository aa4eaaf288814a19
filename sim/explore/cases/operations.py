"""Verbs as things that several hosts do at once: what is run, and what it does to the model.

When hosts act together nobody knows in which order it counted, and of those that died or met an
error of the storage nobody knows whether it did. ``outcomes`` gives every model that may be found.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from itertools import permutations, product
from typing import Any, NamedTuple

from engine.api import Engine
from engine.data.model import Fix, Strategy
from engine.errors import DiskwrightError, OutcomeUnknown, Overtaken
from engine.triage import rules
from sim.disk.content import Content
from sim.explore.cases.driver import REFUSALS, layers
from sim.explore.oracle.reference import BELOW, OWN, Image, Model
from sim.hosts.world import Job

Effect = Callable[[Model, Any], Model | None]
"""The model after the operation; its result when it was acknowledged, else None. None: it cannot have been done now."""


class Operation(NamedTuple):
    """One verb of one host."""

    name: str
    run: Callable[[Engine], Any]
    effect: Effect = lambda model, result: model
    halfway: tuple[Effect, ...] = ()
    """What may count instead when it did not come to its end."""
    witnessed: bool = False
    """The effect tells what was done however it ended: somebody looked on."""
    host: str = ""
    """Where it has to be done; "": anywhere."""


def outcomes(models: Sequence[Model], operations: Sequence[Operation], jobs: Sequence[Job]) -> tuple[Model, ...]:
    """All that may be true after ``jobs``, which did ``operations``, have ended or died. An acknowledged operation
    counts."""
    choices = [_may_count(operation, job) for operation, job in zip(operations, jobs, strict=True)]
    found: dict[bytes, Model] = {}
    for model in models:
        for counted in product(*choices):
            chosen = [(effect, job) for effect, job in zip(counted, jobs, strict=True) if effect is not None]
            for order in permutations(chosen):
                after = _after(model, order)
                if after is not None:
                    found.setdefault(after.key(), after)
    return tuple(found.values())


def _after(model: Model, order: Sequence[tuple[Effect, Job]]) -> Model | None:
    current: Model | None = model
    for effect, job in order:
        if current is not None:
            current = effect(current, job.result if job.done and job.error is None else None)
    return current


def _may_count(operation: Operation, job: Job) -> tuple[Effect | None, ...]:
    if operation.witnessed or (job.done and job.error is None):
        return (operation.effect,)
    error = job.error
    if isinstance(error, REFUSALS) or (isinstance(error, Overtaken) and not isinstance(error, OutcomeUnknown)):
        return (None,)
    return (operation.effect, *operation.halfway, None)


# -- the verbs


def create(repo: str, size: int, base: tuple[str, str] | None = None, **options: Any) -> Operation:
    """create_virtual_disk."""

    def effect(model: Model, result: Any) -> Model | None:
        made = Image(size, Content(size, ()), True, {})
        if base is not None:
            below = model.images.get(base)
            if below is None:
                return None
            lost = ((0, size),) if below.hurt == ((0, below.size),) else below.hurt
            made = made._replace(
                content=below.content.truncate(size), torn=below.torn, hurt=lost, cut=below.cut and BELOW
            )
        return model.made(repo, result, made)

    return Operation(
        f"create {repo}{f' on {base[1][:6]}' if base else ''}",
        lambda engine: engine.create_virtual_disk(repo, size, base[1] if base else None, None, options),
        effect,
    )


def snapshot(repo: str, disk: str) -> Operation:
    """create_snapshot."""

    def effect(model: Model, result: Any) -> Model | None:
        source = _visible(model, repo, disk)
        if source is None or (source.cut == OWN and source.hurt):  # what was cut is nothing to seal
            return None
        return model.made(repo, result, source._replace(mutable=False, user_data={}))

    return Operation(f"snapshot {repo}/{disk[:6]}", lambda engine: engine.create_snapshot(repo, disk), effect)


def snapshots(repo: str, disks: Sequence[str]) -> Operation:
    """create_snapshot_group: all of them or none."""

    def effect(model: Model, result: Any) -> Model | None:
        after: Model | None = model
        for disk in disks:
            source = _visible(model, repo, disk)
            made = source._replace(mutable=False, user_data={}) if source else None
            after = after.made(repo, result[disk] if result else None, made) if after and made else None
        return after

    names = " ".join(disk[:6] for disk in disks)
    return Operation(f"snapshots {repo}/{names}", lambda engine: engine.create_snapshot_group(repo, disks), effect)


def revert(repo: str, disk: str, snapshot: str) -> Operation:
    """revert_disk. Not come to its end, what the disk contained may be a snapshot that nobody has removed, whether the
    disk was reverted or not."""

    def kept(model: Model, result: Any) -> Model | None:
        source = _visible(model, repo, disk)
        if source is None:
            return None
        return model.made(repo, result, source._replace(mutable=False, user_data={}, removed=result is not None))

    def returned(model: Model, result: Any) -> Model | None:
        to = _visible(model, repo, snapshot)
        if to is None or _visible(model, repo, disk) is None:
            return None
        return model.changed(repo, disk, content=to.content, size=to.size)

    def effect(model: Model, result: Any) -> Model | None:
        after = kept(model, result)
        return returned(after, result) if after else None

    return Operation(
        f"revert {repo}/{disk[:6]} to {snapshot[:6]}",
        lambda engine: engine.revert_disk(repo, disk, snapshot),
        effect,
        (kept, returned),
    )


def resize(repo: str, disk: str, size: int) -> Operation:
    """resize_disk. Not come to its end, the volume may be longer, which a fix adopts."""

    def grown(model: Model, result: Any) -> Model | None:
        image = _visible(model, repo, disk)
        if image is None or size < image.size:
            return None
        return model.changed(repo, disk, grown=(image.grown or image.content).truncate(size))

    def effect(model: Model, result: Any) -> Model | None:
        after = grown(model, result)
        return (
            after.changed(repo, disk, size=size, content=after.images[repo, disk].grown, grown=None) if after else None
        )

    return Operation(
        f"resize {repo}/{disk[:6]} to {size}", lambda engine: engine.resize_disk(repo, disk, size), effect, (grown,)
    )


def copy(source: str, image: str, target: str, **options: Any) -> Operation:
    """copy_image of a snapshot."""

    def effect(model: Model, result: Any) -> Model | None:
        original = model.images.get((source, image))
        there = model.images.get((target, image))
        if there is not None:
            return model.made(target, image, there._replace(removed=False))
        return model.made(target, image, original._replace(user_data={}, removed=False)) if original else None

    hints = {**options, "image_hints": {image: source}}
    return Operation(
        f"copy {source}/{image[:6]} to {target}",
        lambda engine: engine.copy_image(target, image, None, None, hints),
        effect,
    )


def remove(repo: str, image: str) -> Operation:
    """remove_image."""
    return Operation(
        f"remove {repo}/{image[:6]}",
        lambda engine: engine.remove_image(repo, image),
        lambda model, result: _changed(model, repo, image, removed=True),
    )


def restore(repo: str, image: str) -> Operation:
    """restore_image."""
    return Operation(
        f"restore {repo}/{image[:6]}",
        lambda engine: engine.restore_image(repo, image),
        lambda model, result: _changed(model, repo, image, removed=False),
    )


def user_data(repo: str, image: str, value: Any) -> Operation:
    """set_user_data."""
    return Operation(
        f"user data {repo}/{image[:6]}",
        lambda engine: engine.set_user_data(repo, image, value),
        lambda model, result: _changed(model, repo, image, user_data=value) if _visible(model, repo, image) else None,
    )


def strategy(repo: str, image: str, value: str) -> Operation:
    """set_strategy."""
    return Operation(f"strategy {repo}/{image[:6]} {value}", lambda engine: engine.set_strategy(repo, image, value))


def write(repo: str, disk: str, offset: int, data: bytes) -> Operation:
    """Prepare a disk, write and flush one block, tear it down. Where it does not come to its end, as when the flush
    fails, the disk may show what was there, what was written, or some of both."""

    def run(engine: Engine) -> None:
        engine.prepare_image(repo, disk)
        session = engine.doors.images.open_session(layers(engine, repo, disk), True, False)
        try:
            session.write(offset, data)
            session.flush()
        finally:
            session.close()
        with contextlib.suppress(DiskwrightError):  # what was flushed is written
            engine.teardown_image(repo, disk)

    def effect(model: Model, result: Any) -> Model | None:
        image = _visible(model, repo, disk)
        if image is None or offset + len(data) > image.size:
            return None
        torn = tuple(part for part in image.torn if part != (offset, len(data)))
        return model.made(repo, disk, image.written(offset, data)._replace(torn=torn))

    def halfway(model: Model, result: Any) -> Model | None:
        after = effect(model, result)
        if after is None:
            return None
        return after.changed(repo, disk, torn=(*after.images[repo, disk].torn, (offset, len(data))))

    return Operation(f"write {repo}/{disk[:6]} at {offset}", run, effect, (halfway,))


def fix(repo: str, number: int) -> Operation:
    """Run one of the fixes that check offers and that lose nothing."""

    def run(engine: Engine) -> str:
        offered = [
            fix for fix in engine.check_storage_repository(repo) if not fix.waits_for and fix.risk != "loses data"
        ]
        if not offered:
            return ""
        engine.run_fix_here(repo, offered[number % len(offered)])
        return offered[number % len(offered)].rule

    return Operation(f"fix {repo} {number}", run)


def want_otherwise(engine: Engine, repo: str, image: str) -> None:
    """Want the other strategy for an image."""
    now = engine.get_image_status(repo, image).strategy
    other = Strategy.SPACE if now == Strategy.PERFORMANCE else Strategy.PERFORMANCE
    engine.set_strategy(repo, image, other)


def rebuilds(engine: Engine, repo: str, image: str) -> list[Fix]:
    """The rebuilds that are offered for an image."""
    offered = engine.check_storage_repository(repo)
    return [fix for fix in offered if fix.rule in rules.REBUILDS and fix.target == image and not fix.waits_for]


def offered_before(repo: str, offered: Fix) -> Operation:
    """Run a fix that was offered some time ago."""
    return Operation(
        f"fix {repo} {offered.rule} of {offered.target[:6]} as it was offered",
        lambda engine: engine.run_fix_here(repo, offered),
    )


def rule(repo: str, name: str, target: str = "") -> Operation:
    """Run the first fix of a rule, of that image or of any, if it is offered."""

    def run(engine: Engine) -> None:
        for offered in engine.check_storage_repository(repo):
            if offered.rule == name and target in ("", offered.target):
                engine.run_fix_here(repo, offered)
                return

    return Operation(f"fix {repo} {name}{f' of {target[:6]}' if target else ''}", run)


def both(first: Operation, second: Operation) -> Operation:
    """Return the operation that does two, one after the other; the second may be refused."""

    def run(engine: Engine) -> tuple[Any, ...]:
        made = first.run(engine)
        try:
            return made, second.run(engine)
        except REFUSALS:
            return (made,)

    def effect(model: Model, result: Any) -> Model | None:
        after = first.effect(model, result[0] if result else None)
        if after is None or (result and len(result) == 1):
            return after
        return second.effect(after, result[1] if result else None)

    return Operation(f"{first.name}, {second.name}", run, effect, (first.effect,))


def _visible(model: Model, repo: str, image: str) -> Image | None:
    found = model.images.get((repo, image))
    return found if found is not None and not found.removed else None


def _changed(model: Model, repo: str, image: str, **fields: Any) -> Model | None:
    return model.changed(repo, image, **fields) if (repo, image) in model.images else None


def summaries(operations: Sequence[Operation], jobs: Sequence[Job]) -> Iterator[str]:
    """Return what came of each operation, a line for each."""
    for operation, job in zip(operations, jobs, strict=True):
        if not job.done:
            yield f"{operation.name}: died"
        elif isinstance(job.error, DiskwrightError):
            yield f"{operation.name}: {job.error.code}: {job.error.message:.100}"
        else:
            yield f"{operation.name}: done"
