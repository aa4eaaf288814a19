"""A process of a host in a scenario on this machine: it does one operation and is interrupted by a signal.

``python -m sim.scenario.backends.real.worker SPEC`` reads a JSON file, does the operation on real doors and, just
before the chosen effect, notes where it is and sends itself SIGKILL (crash), SIGSTOP (freeze) or SIGTERM (stop: as
``engine.host.runner`` it goes on to its next step and keeps everything). When it lives to the end it prints one JSON
object: {"result", "failure", "effects", "runner"}.

An operation whose work is done by a runner is not interrupted itself: the engine's ``engine.host.runner TASK`` is
started as ``sim.scenario.backends.real.worker SPEC TASK``, which is the same on doors that are watched. ``runner``
then says how it ended.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from engine.api import Engine
from engine.doors.leases import Lease
from engine.doors.processes import ProcessIdentity
from engine.errors import DiskwrightError
from engine.host import runner
from engine.tools.local.processes import RealProcesses
from sim.hosts.victim import die, die_with_parent
from sim.scenario.backends.operations import RUNNER, do, is_by_runner
from sim.scenario.backends.real.doors import real_doors_of
from sim.scenario.backends.watch import Reached, Watch, watching
from sim.scenario.language.model import Point

MODULE = "sim.scenario.backends.real.worker"
"""Not ``__name__``, which is another one in the process itself."""

SIGNALS: dict[str, Callable[[], None]] = {
    "crash": die,
    "freeze": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "stop": lambda: os.kill(os.getpid(), signal.SIGTERM),
}


def _watch(spec: dict[str, Any]) -> Watch:
    def act(reached: Reached) -> None:
        with open(spec["note"], "w", encoding="utf-8") as stream:
            json.dump(reached, stream)
        SIGNALS[spec["how"]]()

    return Watch(Point(**spec["point"]) if spec["point"] else None, act)


def _requests() -> list[int]:
    """Grows when the process is asked to stop."""
    requests: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: requests.append(number))
    return requests


class _Starting(RealProcesses):
    """Starts runners as watched ones."""

    def __init__(self, spec: str) -> None:
        super().__init__()
        self._spec = spec

    def spawn(self, module: str, arguments: list[str], leases: list[Lease], log: str) -> ProcessIdentity:
        if module == RUNNER:
            module, arguments = MODULE, [self._spec, *arguments]
        return super().spawn(module, arguments, leases, log)


def work(path: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Do what the spec says."""
    requests = _requests()
    doors = real_doors_of(spec["host"], spec["top"], spec["seed"])
    watch = Watch()
    if is_by_runner(spec["arguments"]):
        doors = doors._replace(processes=_Starting(path))
    else:
        watch = _watch(spec)
        doors = watching(doors, watch)
    engine = Engine(doors, spec["state"])
    result, failure = None, None
    try:
        result = do(engine, spec["verb"], spec["arguments"], lambda: bool(requests))
    except DiskwrightError as error:
        failure = (error.code, str(error))
    finally:
        engine.close()
    effects, ended = watch.names, ""
    if is_by_runner(spec["arguments"]):
        ended = "killed" if os.path.exists(spec["note"]) else "done"
        effects = _effects(spec)
    return {"result": result, "failure": failure, "effects": effects, "runner": ended}


def run_task(spec: dict[str, Any], task: str) -> None:
    """What ``python -m engine.host.runner TASK`` does, watched."""
    requests = _requests()
    doors = real_doors_of(spec["host"], spec["top"], spec["seed"])
    watch = _watch(spec)
    runner.run(watching(doors, watch), runner.read_spec(doors, task), _print, lambda: bool(requests))
    with open(_effects_file(spec), "w", encoding="utf-8") as stream:
        json.dump(watch.names, stream)


def _effects_file(spec: dict[str, Any]) -> str:
    return f"{spec['note']}.effects"


def _effects(spec: dict[str, Any]) -> list[str]:
    """Of the runner; of one that was killed, or never started, none."""
    try:
        with open(_effects_file(spec), encoding="utf-8") as stream:
            return list(json.load(stream))
    except FileNotFoundError:
        return []


def _print(event: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def main(path: str, task: str = "") -> None:
    """Entry point of the process."""
    with open(path, encoding="utf-8") as stream:
        spec = json.load(stream)
    if task:
        run_task(spec, task)
        return
    die_with_parent()
    _print(work(path, spec))


def work_in_guest(words: list[str]) -> int:
    """Be the process of an operation in a guest, forked from one that has imported this module."""
    main(*words)
    return 0


def make_engine(host: str, top: str, seed: int) -> Engine:
    """Make an engine of a host, in the guest that is this host."""
    return Engine(real_doors_of(host, top, seed), f"{top}/state/{host}")


if __name__ == "__main__":
    main(*sys.argv[1:])
