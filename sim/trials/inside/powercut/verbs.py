"""In a guest: every verb and fix, recorded on dm-log-writes, and judged by the engine after every power cut.

After a cut every acknowledged image is usable at once; the engine's own fixes clean up the rest; then contents are
what the model says, of the operation that was cut off either outcome.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from engine.api import Engine
from engine.assembly import real_doors
from engine.errors import DiskwrightError, NotFound
from engine.tools.block.device import DirectBlockHandle
from engine.tools.local.files import RealFileHandle, RealFiles
from engine.tools.lvm.volume_groups import LvmVolumeGroups
from sim.scenario.backends import operations
from sim.scenario.backends.operations import HERE
from sim.scenario.language.patterns import data as pattern_data
from sim.scenario.report.outcome import usable
from sim.trials.inside.logwrites import State
from sim.trials.inside.media import Medium, medium_of
from sim.trials.inside.powercut.request import Asked, Result, chosen
from sim.trials.inside.recorder import Recording, WriteRecorder
from sim.trials.torture.model import Model, Possible

REPOSITORIES = ("a", "b")
_STATE = "/tmp/powercut-state"
_ODD = 300 * 1024 + 512
_EVEN = 256 * 1024
_TURNS = 3
_SYNCS: tuple[tuple[type, str], ...] = (
    (RealFiles, "sync_directory"), (RealFileHandle, "sync"), (DirectBlockHandle, "sync"), (LvmVolumeGroups, "sync"),
)  # fmt: skip

Change = Callable[[Model], None]


class Recorded(NamedTuple):
    """An operation that was recorded."""

    name: str
    mark: int
    """Number of the mark before it; the next one is the acknowledgement."""
    done: Change
    unsure: Change


def compared(asked: Asked) -> Result:
    """Record everything, then judge."""
    medium = medium_of(asked.on)
    recorder = WriteRecorder(medium, asked.log_disk, asked.room_disk)
    with _careless() if asked.careless else contextlib.nullcontext(), _Engine() as engine:
        for repo in REPOSITORIES:
            engine.create_repository(medium.format, medium.parameters(repo))
        _connect(engine, medium)
        os.sync()
        recorder.mark("begin")
        steps = list(_Workload(engine, recorder).steps())
    recorder.mark("end")
    recording = recorder.finish()
    count, repaired, wrong = 0, 0, list[str]()
    try:
        for state in chosen(asked, recording, recording.entry_of_mark(1), len(recording.entries)):
            found, needed = _judge(recording, medium, state, steps)
            wrong += found
            repaired += needed
            count += 1
            if len(wrong) >= asked.most_wrong:
                break
    finally:
        recording.close()
    return Result(count, wrong, repaired)


@contextlib.contextmanager
def _careless() -> Iterator[None]:
    """Doors of this process sync nothing meanwhile."""
    with contextlib.ExitStack() as stack:
        for owner, name in _SYNCS:
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, _no_sync)
        yield


def _no_sync(*arguments: object) -> None:
    """Forgets it."""


class _Engine:
    """An engine of a host that remembers nothing."""

    def __enter__(self) -> Engine:
        shutil.rmtree(_STATE, ignore_errors=True)
        self._engine = Engine(real_doors("host-a"), _STATE)
        return self._engine

    def __exit__(self, *error: object) -> None:
        self._engine.close()


def _connect(engine: Engine, medium: Medium) -> None:
    for repo in REPOSITORIES:
        engine.connect_storage_repository(repo, medium.format, medium.parameters(repo))
        if medium.format.startswith("lvm"):
            engine.take_srm(repo)


# -- what is recorded


class _Workload:
    """Does one thing after the other, and keeps what each means for a model."""

    def __init__(self, engine: Engine, recorder: WriteRecorder) -> None:
        self._engine = engine
        self._recorder = recorder
        self._now = Model()

    def steps(self) -> Iterator[Recorded]:
        """All of them, in order."""
        disk = yield from self._create("a", _ODD, "performance")
        yield self._write("a", disk, "one", 4096, 65536)
        monday = yield from self._snapshot("a", disk)
        yield self._write("a", disk, "two", 32768, 65536)
        thin = yield from self._create("a", _EVEN, "space")
        yield self._write("a", thin, "thin", 0, 20480)
        yield from self._clone("a", monday)
        yield from self._copy("a", monday, "b")
        yield from self._copy("a", disk, "b")
        yield self._user_data("a", disk, {"name": "web", "text": "x" * 2000})
        tuesday = yield from self._snapshot("a", disk)
        yield self._write("a", disk, "three", 0, 8192)
        yield self._remove("a", tuesday)
        yield self._fix("a")
        yield self._remove("a", thin)
        yield self._restore("a", thin)
        yield self._remove("b", monday)
        yield self._fix("b")
        yield self._strategy("a", thin, "performance")
        yield self._fix("a")

    def _step(
        self, name: str, operation: Callable[[], Any], done: Callable[[Any], Change], unsure: Change | None
    ) -> Recorded:
        """Do it between two marks. ``done`` makes the change of its result; ``unsure`` defaults to none at all."""
        self._recorder.mark(name)
        mark = len(self._recorder.marks)
        change = done(operation())
        self._recorder.mark(f"{name} acknowledged")
        change(self._now)
        return Recorded(name, mark, change, unsure or (lambda model: None))

    def _do(self, verb: str, **arguments: Any) -> Callable[[], Any]:
        return lambda: operations.do(self._engine, verb, arguments, lambda: False)

    def _maker(self, name: str, operation: Callable[[], Any], made: Possible) -> tuple[Recorded, str]:
        ids: list[str] = []

        def done(result: Any) -> Change:
            ids.append(str(result))
            return lambda model: model.add(made.repo, ids[0], made.mutable, made.data, made.user_data)

        step = self._step(name, operation, done, lambda model: model.possible.append(made))
        return step, ids[0]

    def _create(self, repo: str, size: int, strategy: str) -> Any:
        operation = self._do(
            "create_disk", repo=repo, size=size, base=None, user_data={}, options={"strategy": strategy}, work=HERE
        )
        step, made = self._maker(f"create a {strategy} disk", operation, Possible(repo, True, bytes(size), "", {}))
        yield step
        return made

    def _clone(self, repo: str, base: str) -> Any:
        data = self._data(repo, base)
        operation = self._do("create_disk", repo=repo, size=len(data), base=base, user_data={}, options={}, work=HERE)
        step, made = self._maker("create a disk from a snapshot", operation, Possible(repo, True, data, "", {}))
        yield step
        return made

    def _snapshot(self, repo: str, disk: str) -> Any:
        operation = self._do("create_snapshot", repo=repo, disk=disk, user_data={}, options={})
        step, made = self._maker("snapshot", operation, Possible(repo, False, self._data(repo, disk), "", {}))
        yield step
        return made

    def _copy(self, repo: str, image: str, target: str) -> Any:
        known = self._now.images[repo, image]
        options = {"image_hints": {image: repo}}
        operation = self._do("copy", repo=target, image=image, base=None, user_data={}, options=options, work=HERE)
        id = "" if known.mutable else image
        step, made = self._maker("copy", operation, Possible(target, known.mutable, known.data, id, {}))
        yield step
        return made

    def _write(self, repo: str, disk: str, pattern: str, at: int, length: int) -> Recorded:
        new = bytearray(self._data(repo, disk))
        new[at : at + length] = pattern_data(pattern, at, length)

        def change(model: Model) -> None:
            model.images[repo, disk].data = bytes(new)

        def unsure(model: Model) -> None:
            model.images[repo, disk].maybe = bytes(new)

        operation = self._do("write", repo=repo, disk=disk, pieces=[[pattern, at, length, 0, 1]])
        return self._step(f"write {pattern}", operation, lambda result: change, unsure)

    def _user_data(self, repo: str, image: str, value: Any) -> Recorded:
        def change(model: Model) -> None:
            model.images[repo, image].user_data = model.images[repo, image].user_data_maybe = value

        def unsure(model: Model) -> None:
            model.images[repo, image].user_data_maybe = value

        operation = self._do("set_user_data", repo=repo, image=image, data=value)
        return self._step("user data", operation, lambda result: change, unsure)

    def _remove(self, repo: str, image: str) -> Recorded:
        return self._removal("remove", repo, image, True)

    def _restore(self, repo: str, image: str) -> Recorded:
        return self._removal("restore", repo, image, False)

    def _removal(self, verb: str, repo: str, image: str, removed: bool) -> Recorded:
        def change(model: Model) -> None:
            model.images[repo, image].removed = removed

        def unsure(model: Model) -> None:
            model.images[repo, image].unsure = True

        return self._step(verb, self._do(verb, repo=repo, image=image), lambda result: change, unsure)

    def _strategy(self, repo: str, image: str, strategy: str) -> Recorded:
        operation = self._do("set_strategy", repo=repo, image=image, strategy=strategy)
        return self._step("strategy", operation, lambda result: lambda model: None, None)

    def _fix(self, repo: str) -> Recorded:
        return self._step(f"fix all of {repo}", lambda: _fix_all(self._engine, repo), lambda result: _nothing, None)

    def _data(self, repo: str, image: str) -> bytes:
        return self._now.images[repo, image].data


def _nothing(model: Model) -> None:
    """A fix changes no content."""


def _fix_all(engine: Engine, repo: str) -> None:
    arguments: dict[str, Any] = {
        "repo": repo, "kind": "", "image": "", "lose_data": False, "deep": False, "given": None, "nth": 0,
    }  # fmt: skip
    operations.do(engine, "fix", arguments, lambda: False)


# -- what is judged


def _model_at(steps: list[Recorded], marks: int) -> tuple[Model, str]:
    """What must be so when so many marks were set, and what was being done."""
    model = Model()
    for step in steps:
        if marks > step.mark:
            step.done(model)
        elif marks == step.mark:
            step.unsure(model)
            return model, f"in the middle of: {step.name}"
        else:
            return model, f"before: {step.name}"
    return model, "at the end"


def _judge(recording: Recording, medium: Medium, state: State, steps: list[Recorded]) -> tuple[list[str], bool]:
    """What is wrong, and whether an operator had to repair something first."""
    model, moment = _model_at(steps, state.marks)
    repaired = False
    try:
        with recording.found(state):
            try:
                wrong = _problems(medium, model, state)
            except NotFound:
                repaired = medium.repair()
                if not repaired:
                    raise
                wrong = _problems(medium, model, state)
    except DiskwrightError as error:
        wrong = [f"{error.code}: {error}"]
    except OSError as error:
        wrong = [f"the file system: {error}"]
    return [f"{moment} (entry {state.position}: {state.about}): {text}" for text in wrong], repaired


def _problems(medium: Medium, model: Model, state: State) -> list[str]:
    with _Engine() as engine:
        _connect(engine, medium)
        wrong = [text for repo in REPOSITORIES for text in _at_once(engine, repo, model)]
        for repo in REPOSITORIES:
            _fix_all(engine, repo)
        return wrong + [text for repo in REPOSITORIES for text in _afterwards(engine, repo, model, state.position)]


def _at_once(engine: Engine, repo: str, model: Model) -> list[str]:
    """What was acknowledged can be used without any fix."""
    reports = {report.id: report for report in engine.inspect_repository(repo).images}
    wrong = []
    for image in model.there(repo):
        report = reports.get(image.id)
        if not image.unsure and (report is None or not usable(report)):
            state = f"{report.status}: {report.reason}" if report else "gone"
            wrong.append(f"image {image.id[:8]} was acknowledged and is {state}")
    return wrong


def _afterwards(engine: Engine, repo: str, model: Model, turn: int) -> list[str]:
    """After all fixes contents are right, and nothing is left to do. Contents that nothing was happening to are read
    by turns: opening an image takes longer than all the rest."""
    report = engine.inspect_repository(repo)
    names = sorted(image.id for image in model.there(repo))

    def read(image: str) -> bytes:
        known = model.images.get((repo, image))
        if known is None or known.maybe is not None or (names.index(image) + turn) % _TURNS == 0:
            return operations.read(engine, repo, image)
        return known.data

    wrong = model.settle(repo, report.images, read, lambda image: engine.get_user_data(repo, image))
    wrong += [f"after all fixes there is {fix.rule}: {fix.why}" for fix in report.fixes]
    wrong += [f"{one.subject}: {one.text}" for one in report.findings if one.kind == "unknown"]
    return wrong
