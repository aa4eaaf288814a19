"""Playing a scenario: step after step on a backend, up to the first thing that is not as expected."""

from __future__ import annotations

import itertools
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from typing import Any

from engine.api import Engine
from engine.errors import DiskwrightError
from engine.formats.base import TagEntry
from sim.scenario.backends.backend import ActiveFault, Backend, Ended, Failure
from sim.scenario.backends.operations import is_by_runner
from sim.scenario.backends.simulated import SimBackend
from sim.scenario.language.model import Interruption, Point, Scenario, Step
from sim.scenario.language.source import ScenarioError
from sim.scenario.play import damage, expectations
from sim.scenario.play.arguments import arguments_of
from sim.scenario.play.events import EVENTS, happen
from sim.scenario.play.names import NamedImage, Names
from sim.scenario.play.operator import OF_OPERATORS
from sim.scenario.report import outcome, recording
from sim.scenario.report.outcome import PASSED, SKIPPED, VIOLATED, WRONG, ExpectationViolated, Verdict
from sim.scenario.report.recording import StateRecorder

Tell = Callable[[dict[str, Any]], None]
_TRY_AGAIN_S = 4.0


def play(
    scenario: Scenario,
    backend: str,
    seed: int = 0,
    tell: Tell = lambda event: None,
    *,
    called: dict[str, str] | None = None,
    compare: bool = False,
    record: bool = False,
) -> Verdict:
    """Play it and say how it ended. ``tell`` gets each event as it happens; ``called`` is filled with what images are
    called, by their ids, meanwhile. ``compare``: also say what became of everything, for comparing backends.
    ``record``: the events also tell how the repositories were (``sim.scenario.report.recording``).

    An error that is none of the engine's own is a violation too. DiskwrightError: this machine
    lacks something."""
    verdict = Verdict(scenario.path, scenario.title, backend, SKIPPED)
    if backend not in scenario.backends:
        needed = " or ".join(scenario.backends)
        return verdict._replace(line=1, message=f"not played: it needs {needed}, this is {backend}")
    started = time.monotonic()
    last = None
    for variant in _variants(scenario):
        called = called if called is not None else {}
        played, ended_before = _played(verdict, variant, seed, tell, called, compare=compare, record=record)
        if ended_before and last is not None:
            break
        last = played
        if played.result != PASSED:
            break
    assert last is not None, "a scenario is played at least once"
    return last._replace(seconds=time.monotonic() - started)


def _variants(scenario: Scenario) -> Iterator[Scenario]:
    """The scenario itself; where a step crashes at each effect, with a crash at the first, the second, and so on."""
    for number, step in enumerate(scenario.steps):
        if step.interruption is not None and step.interruption.point.each:
            for effect in itertools.count(1):
                crash = step._replace(interruption=step.interruption._replace(point=Point(effect=effect)))
                yield scenario._replace(steps=(*scenario.steps[:number], crash, *scenario.steps[number + 1 :]))
    yield scenario


def _played(
    verdict: Verdict, scenario: Scenario, seed: int, tell: Tell, called: dict[str, str], *, compare: bool, record: bool
) -> tuple[Verdict, bool]:
    """Play it once; return how it ended, and whether that is for a point that was not reached."""
    backend = verdict.backend
    run = _Run(scenario, _backend(scenario, backend, seed), seed, tell, called)
    try:
        if record:
            run.record(backend)
        run.all()
        result, line, message = PASSED, 0, ""
        found = run.outcome() if compare else None
    except ExpectationViolated as error:
        result, line, message, found = VIOLATED, error.line, error.message, None
    except ScenarioError as error:
        result, line, message, found = WRONG, error.line, error.message, None
    except Exception as error:  # noqa: BLE001 - whatever the engine lets through is a finding about the engine
        text = "".join(traceback.format_exception(error))
        run.event(trouble=text)
        result, line, found = VIOLATED, run.line, None
        message = f"expected an error of the engine or none, found {type(error).__name__}: {error!s:.300}"
    finally:
        run.backend.close()
    ended = verdict._replace(result=result, line=line, message=message, events=tuple(run.events), outcome=found)
    return ended, run.ended_before


def play_up_to(scenario: Scenario, steps: int, seed: int = 0) -> tuple[SimBackend, dict[str, str]]:
    """The simulated world as it is after the first ``steps`` steps, for going on in it, and the names of images by
    id. What a step finds wrong is raised: ``ExpectationViolated``, ``ScenarioError``, DiskwrightError."""
    called: dict[str, str] = {}
    backend = SimBackend(scenario, seed)
    run = _Run(scenario, backend, seed, lambda event: None, called)
    run.some(steps)
    return backend, called


def _backend(scenario: Scenario, name: str, seed: int) -> Backend:
    if name == "sim":
        return SimBackend(scenario, seed)
    if name == "lab":
        from sim.scenario.backends.real.lab import LabBackend

        return LabBackend(scenario, seed)
    from sim.scenario.backends.real.local import LocalBackend

    return LocalBackend(scenario, seed)


class _Run:
    """One run of a scenario."""

    def __init__(self, scenario: Scenario, backend: Backend, seed: int, tell: Tell, called: dict[str, str]) -> None:
        self.scenario = scenario
        self.backend = backend
        self.names = Names(scenario, backend)
        self.events: list[dict[str, Any]] = []
        self.line = 1
        self.ended_before = False
        """A step has ended before the point at which it was to be interrupted."""
        self._number = 0
        self._beside_machines: set[int] = set()
        """Steps with a machine that can be told to work: how often that is asked how far it is depends on time."""
        self._seed = seed
        self._tell = tell
        self._called = called
        self._recorder: StateRecorder | None = None

    def record(self, backend: str) -> None:
        """Keep states of the repositories in the events from now on."""
        self._recorder = StateRecorder(self.scenario, self.backend, lambda facts: self.event(**facts))
        if self.backend.world is not None:
            self._recorder.watch(self.backend.world)
        self.event(**recording.header(self.scenario, backend, self._seed))

    def all(self) -> None:
        """Play all steps."""
        self.some(len(self.scenario.steps))

    def some(self, count: int) -> None:
        """Play the first ``count`` steps."""
        for number, step in enumerate(self.scenario.steps[:count], 1):
            self._number, self.line = number, step.line
            self._step(step)

    def event(self, **facts: Any) -> None:
        """Something happened."""
        for name, image in self.names.images.items():
            self._called.setdefault(image.id, name)
        if self._recorder is not None:
            self._recorder.flush()
            facts |= {"now": self._recorder.now(), "state": self._recorder.state(), "names": dict(self._called)}
        event = {"step": self._number, "line": self.line, **facts}
        self.events.append(event)
        self._tell(event)

    def outcome(self) -> dict[str, Any]:
        """What became of everything, in terms that hold on every backend."""
        found = {}
        with self.backend.engine(self.scenario.hosts[0]) as engine:
            for plan in self.scenario.repositories:
                found[plan.name] = outcome.of_repository(engine, plan.name, self.names.names_in(plan.name))
        told = ("step", "verb", "host", "how", "error", "number", "effect", "rules", "effects")
        steps = [{key: event[key] for key in told if key in event} for event in self.events if "verb" in event]
        for step in steps:
            if step["verb"] in _ON_THE_HOST:  # they make directories of the host, as many as its path has parts
                step.pop("effects", None)
            if step["step"] in self._beside_machines:
                step.pop("effects", None)
                step.pop("number", None)
        return {"steps": steps, "repositories": found}

    # -- steps

    def _step(self, step: Step) -> None:
        if step.verb in EVENTS:
            self._happening(step)
        elif step.verb in ("expect", "damage", "add_file", "make_file", "save", *OF_OPERATORS):
            self._look(step)
        elif step.verb == "thaw":
            self._thaw(step)
        else:
            self._operation(step)

    def _happening(self, step: Step) -> None:
        found, failure = None, None
        try:
            found = happen(self.backend, self.names, step, self._seed)
        except DiskwrightError as error:
            failure = Failure(error.code, str(error))
        facts = {"lost": found} if found else {}
        facts |= {"error": failure.code, "message": failure.message} if failure else {}
        self.event(verb=step.verb, text=step.text, note=step.note, **facts)
        _judge_failure(step, failure)

    def _look(self, step: Step) -> None:
        if step.faults:
            with self.backend.engine(step.host) as engine:
                faults = self.names.active(step.faults, engine, step.line)
            self.backend.set_faults(faults)
        try:
            with self.backend.engine(step.host) as engine:
                found = self._looked(step, engine)
        except OSError as error:
            if step.verb == "expect":
                raise
            raise self.names.impossible(step.line, f"{step.verb} cannot be done: {error}") from None
        except DiskwrightError as error:
            raise ExpectationViolated(
                step.line, f"expected {step.verb} to be possible, found {error.code}: {error}"
            ) from None
        finally:
            self.backend.set_faults(())
        self.event(verb=step.verb, host=step.host, text=step.text, note=step.note, told=found)

    def _looked(self, step: Step, engine: Any) -> str:
        names = self.names
        if step.verb == "expect":
            return expectations.look(names, engine, step)
        if step.verb == "damage":
            damage.damage(names, engine, step)
        elif step.verb == "add_file":
            damage.add_file(names, step)
        elif step.verb == "make_file":
            damage.make_file(names, engine, step)
        elif step.verb == "save":
            image = names.of_step(step, "image")
            names.contents[step.values["as"]] = names.content_of(engine, image, step.line)
        else:
            OF_OPERATORS[step.verb](names, step)
        return ""

    def _operation(self, step: Step) -> None:
        arguments = arguments_of(self.names, step)
        if is_by_runner(arguments) and step.interruption is not None and step.interruption.how != "crash":
            raise self.names.impossible(step.line, "a process that the engine starts can crash here, nothing else")
        target = str(arguments.get("repo", ""))
        makes = step.values.get("as") if step.verb in _MAKERS else None
        group = step.values["disks"] if step.verb == "create_snapshot_group" else {}
        with self.backend.engine(step.host) as engine:
            faults = self.names.active(step.faults, engine, step.line)
            known = _tags(engine, target) if makes or group else {}
        ended = self._tried(step, arguments, faults)
        if makes:
            self._bind(step, target, makes, ended, known)
        if group:
            self._bind_each(step, target, group, ended, known)
        self._told(step, ended)
        if ended.how == "frozen" and step.interruption is not None:
            self.names.waiting[step.interruption.job] = step
        self._keep(step, ended)
        self._judge(step, ended)

    def _tried(self, step: Step, arguments: dict[str, Any], faults: tuple[ActiveFault, ...]) -> Ended:
        """Once, or while it fails until its time is over."""
        if step.process:
            assert self.backend.lasting is not None, f"processes of {self.backend.name} do one step"
            return self.backend.lasting.go_on(step.host, step.process, step.verb, arguments, faults)
        ended = self.backend.run(step.host, step.verb, arguments, step.interruption, faults)
        waited = 0.0
        while ended.how == "failed" and waited < step.within_s:
            assert self.backend.machines is not None, "time passes where a step may be tried again"
            self.backend.machines.wait(_TRY_AGAIN_S)
            waited += _TRY_AGAIN_S
            ended = self.backend.run(step.host, step.verb, arguments, step.interruption, faults)
        return ended

    def _thaw(self, step: Step) -> None:
        job = step.values["job"]
        frozen = self.names.waiting.pop(job, None)
        if frozen is None:
            raise self.names.impossible(step.line, f"nothing is frozen as {job} now")
        ended = self.backend.thaw(job)
        self._told(step, ended)
        self._keep(frozen, ended)
        if ended.how != "killed":
            self._judge(step, ended)

    def _told(self, step: Step, ended: Ended) -> None:
        facts: dict[str, Any] = {"verb": step.verb, "host": step.host, "text": step.text, "how": ended.how}
        if step.note:
            facts["note"] = step.note
        if ended.failure:
            facts["error"], facts["message"] = ended.failure
        if ended.reached and step.verb != "thaw":
            facts["number"], facts["effect"] = ended.reached
        if isinstance(ended.result, list) and step.verb in ("fix", "check", "thaw"):
            facts["rules"] = [one if isinstance(one, str) else one["rule"] for one in ended.result]
        facts["effects"] = list(ended.effects)
        if any(machine.running and machine.monitor for machine in self.names.machines.values()):
            self._beside_machines.add(self._number)
        self.event(**facts)

    def _bind(self, step: Step, repo: str, name: str, ended: Ended, known: dict[str, bool]) -> None:
        """Give the name to the image that was made, also by a process that did not live to tell its id."""
        if isinstance(ended.result, str):
            self.names.images[name] = NamedImage(repo, ended.result)
            return
        with self.backend.engine(self.scenario.hosts[0]) as engine:
            now = _tags(engine, repo)
        fresh = [tag for tag, strong in now.items() if strong and not known.get(tag)]
        fresh = fresh or [tag for tag in now if tag not in known]
        if len(fresh) == 1:
            self.names.images[name] = NamedImage(repo, fresh[0])
        else:
            self.names.unmade[name] = step.line

    def _bind_each(self, step: Step, repo: str, group: dict[str, str], ended: Ended, known: dict[str, bool]) -> None:
        """The same of snapshots of several disks: which disk each is of, records tell."""
        made = ended.result
        if not isinstance(made, dict):
            with self.backend.engine(self.scenario.hosts[0]) as engine:
                made = _snapshots_since(engine, repo, known)
        for disk, name in group.items():
            snapshot = made.get(self.names.images[disk].id)
            if snapshot:
                self.names.images[name] = NamedImage(repo, snapshot)
            else:
                self.names.unmade[name] = step.line

    def _keep(self, step: Step, ended: Ended) -> None:
        name = step.values.get("as")
        if ended.how == "done" and step.verb == "check" and name:
            self.names.fixes[name] = ended.result
        if ended.how == "done" and step.verb == "export":
            self.names.files.add(step.values["as"])

    def _judge(self, step: Step, ended: Ended) -> None:
        interruption = step.interruption
        if interruption is not None and step.verb != "thaw":
            if ended.reached is None:
                self.ended_before = True
                raise self.names.impossible(step.line, _never(interruption, ended))
            if interruption.how != "stop":
                return
            if not step.error and (ended.failure is None or ended.failure.code != "stopped"):
                raise ExpectationViolated(step.line, f"expected it to stop when asked to, found {_how(ended.failure)}")
            if not step.error:
                return
        _judge_failure(step, ended.failure)


def _never(interruption: Interruption, ended: Ended) -> str:
    """That a point was not reached, and what there was instead."""
    point = interruption.point
    found = f"{len(ended.effects)} effects"
    if point.before:
        found += f", {ended.effects.count(point.before)} of that name"
    failed = f" with {ended.failure.code}: {ended.failure.message}" if ended.failure else ""
    return (
        f"expected {interruption.how} {point}, found that the step has ended before that{failed}:"
        f" it has {found} (-v shows them)"
    )


def _judge_failure(step: Step, failure: Failure | None) -> None:
    if step.error is None:
        if failure is not None and failure.code not in step.may_fail:
            raise ExpectationViolated(step.line, f"expected {step.verb} to succeed, found {_how(failure)}")
        return
    wanted = " ".join(filter(None, (" or ".join(step.error.codes), step.error.says and f"saying {step.error.says!r}")))
    if failure is None:
        raise ExpectationViolated(step.line, f"expected {step.verb} to fail with {wanted}, found that it succeeded")
    named = not step.error.codes or failure.code in step.error.codes
    if not named or step.error.says.lower() not in failure.message.lower():
        raise ExpectationViolated(step.line, f"expected {step.verb} to fail with {wanted}, found {_how(failure)}")


def _how(failure: Failure | None) -> str:
    return f"{failure.code}: {failure.message}" if failure else "that it succeeded"


def _tags(engine: Engine, repo: str) -> dict[str, bool]:
    """(whether it is strong) by tag; what cannot be listed is nothing."""
    return {entry.id: bool(entry.record and entry.record.strong) for entry in _entries(engine, repo)}


def _snapshots_since(engine: Engine, repo: str, known: Collection[str]) -> dict[str, str]:
    """Snapshots that were begun or made since, by disk: the record of one that was begun names the disk, and a disk
    stands on one that was made."""
    found = {}
    for entry in _entries(engine, repo):
        if entry.record is not None and entry.record.operation is not None and entry.id not in known:
            found[entry.record.operation.other] = entry.id
    for entry in _entries(engine, repo):
        parent = entry.record.volume.parent if entry.record is not None and entry.record.volume is not None else ""
        if parent and parent not in known:
            found[entry.id] = parent
    return found


def _entries(engine: Engine, repo: str) -> list[TagEntry]:
    try:
        return [entry for entry in engine.context.repository(repo).tags.scan().values() if not entry.tombstone]
    except DiskwrightError:
        return []


_ON_THE_HOST = ("prepare", "teardown", "write", "connect", "disconnect")
_MAKERS = ("create_disk", "create_snapshot", "copy", "import")
