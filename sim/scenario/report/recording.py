"""What a trace keeps so that a run can be looked at afterwards: the repositories as check sees them, step by step.

States are taken after each step, and on the simulator also in the middle of one: each time a process has made
a record or a line of its progress durable, for that is what the next host will find. Looking changes nothing,
so the run is the same with and without a recorder.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from engine.api import Engine
from engine.data.model import RepositoryReport
from engine.errors import DiskwrightError
from engine.survey import survey
from engine.triage.judge import judge
from engine.triage.view import Graph
from sim.disk.files import Fault
from sim.hosts.processes import SimProcess
from sim.hosts.world import World
from sim.scenario.backends.backend import Backend
from sim.scenario.language.model import Scenario

VERSION = 1
MAX_MOMENTS = 2000
MAX_SOURCE_CHARACTERS = 1 << 20
_TAG = re.compile(r"/tags/[0-9a-f]{2}/([0-9a-f]{32})\.[0-9a-f]{16}")
_PROGRESS = re.compile(r"/progress/([0-9a-f]{32})\.")

State = dict[str, Any]


class StateRecorder:
    """Takes the states of one run."""

    def __init__(self, scenario: Scenario, backend: Backend, tell: Callable[[dict[str, Any]], None]) -> None:
        """``tell`` is called with the facts of each moment in the middle of a step."""
        self._scenario = scenario
        self._backend = backend
        self._tell = tell
        self._known: dict[str, bytes] = {}
        self._inside = False
        self._tag = ""
        self._pending: dict[str, Any] | None = None
        self._moments = 0
        self._world: World | None = None
        self._started = time.monotonic()

    def watch(self, world: World) -> None:
        """Take moments too: be called before each door call of the processes of a simulated world."""
        self._world = world
        world.hook = self

    def __call__(self, process: SimProcess, call: str, what: str) -> Fault:
        """As ``sim.hosts.processes.Hook``: what was noted at the call before is durable now."""
        if not self._inside:
            self.flush()
            self._note(process, call, what)
        return Fault.NONE

    def _note(self, process: SimProcess, call: str, what: str) -> None:
        facts = {"host": process.host.name, "pid": process.identity.pid}
        if call == "files.link" and (found := _TAG.search(what)):
            self._tag = found[1]
        elif call == "files.sync_directory" and "/tags/" in what and self._tag:
            self._pending, self._tag = {"moment": "recorded", "image": self._tag, **facts}, ""
        elif call == "handle.sync" and (found := _PROGRESS.search(what)):
            self._pending = {"moment": "saved", "image": found[1], **facts}

    def flush(self) -> None:
        """Tell the moment that is due, if one is."""
        pending, self._pending = self._pending, None
        if pending is not None and self._moments < MAX_MOMENTS:
            self._moments += 1
            self._tell(pending)

    def now(self) -> float:
        """Seconds since the beginning: virtual ones on the simulator."""
        return self._world.now if self._world is not None else time.monotonic() - self._started

    def state(self) -> State:
        """The repositories that have changed since the last call, as check sees them."""
        self._inside = True
        try:
            with self._backend.engine(self._scenario.hosts[0]) as engine:
                found = {plan.name: of_repository(engine, plan.name) for plan in self._scenario.repositories}
        finally:
            self._inside = False
        changed: State = {}
        for name, state in found.items():
            digest = blake2b(json.dumps(state, sort_keys=True).encode()).digest()
            if self._known.get(name) != digest:
                self._known[name] = digest
                changed[name] = state
        return changed


def header(scenario: Scenario, backend: str, seed: int) -> dict[str, Any]:
    """The first line of the trace of a scenario."""
    repositories = [{"name": plan.name, "format": plan.format} for plan in scenario.repositories]
    return {
        "trace": VERSION, "title": scenario.title, "story": scenario.story, "backend": backend, "seed": seed,
        "hosts": list(scenario.hosts), "repositories": repositories, "source": _source(scenario.path),
    }  # fmt: skip


def _source(path: str) -> str:
    """The scenario itself, so that it can be played again from the trace alone; "" when it is not there any more."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(MAX_SOURCE_CHARACTERS)
    except OSError:
        return ""


def of_repository(engine: Engine, repo: str) -> State:
    """A repository as data: the report of a check, with names and dependants; or why it cannot be read."""
    try:
        context = engine.context
        repository = context.repository(repo)
        seen = survey.look(context, repository)
        report = survey.without_busy(context, repository, judge(seen), seen.monitored)
    except DiskwrightError as error:
        return {"error": {"code": error.code, "message": error.message, "next_step": error.next_step}}
    graph = Graph(seen)
    return {
        "identity": repository.identity,
        "format": repository.format,
        "place": repository.place,
        "report": report_json(report),
        "dependants": {tag: len(above) for tag, above in graph.dependants.items()},
    }


def report_json(report: RepositoryReport) -> State:
    """A report as JSON data, whole."""
    return {
        "images": [
            {**image._asdict(), "operation": image.operation._asdict() if image.operation else None}
            for image in report.images
        ],
        "fixes": [fix.to_json() for fix in report.fixes],
        "findings": [list(finding) for finding in report.findings],
        "total_bytes": report.total_bytes,
        "free_bytes": report.free_bytes,
    }
