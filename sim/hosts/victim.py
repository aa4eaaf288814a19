"""A host that is really killed: one verb of the engine in a process of its own, ended by SIGKILL.

``python -m sim.hosts.victim SPEC`` reads a JSON file, performs one verb on real doors, and dies just
before one chosen effect, so every run with the same repository dies at the same place. When it
survives it prints one JSON object: {"result", "effects"}, or {"error", "code"} with the exit code
of the error.

Spec::

    {"host": NAME, "state": DIRECTORY,      the host's own notes: what is connected
     "verb": ONE OF VERBS, "arguments": {…},
     "kill": {"before": N}                  before effect number N (from 1)
           | {"before": NAME, "nth": N}     before the Nth effect of that name (default 1)
           | {"before_call": N}}            before the Nth call of any door, reads included

Names of effects are those of ``sim.hosts.crash``, for example ``images.open_session.flush``.
"""

from __future__ import annotations

import inspect
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from engine.api import Engine
from engine.assembly import real_doors
from engine.errors import BadRequest, DiskwrightError, NotFound, StorageError, from_os_error
from sim.hosts.crash import Effects, crashing

_SPEC_LIMIT_BYTES = 1 << 20
_PATIENCE_S = 30.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Kill(Effects):
    """Effects of a host that ends before the one that ``kill`` names; never when it is None."""

    def __init__(self, kill: Mapping[str, Any] | None, end: Callable[[], None] | None = None) -> None:
        known = {"before", "nth", "before_call"}
        wanted = dict(kill or {})
        if not wanted.keys() <= known:
            raise BadRequest(f"kill knows {', '.join(sorted(known))}, not {', '.join(wanted.keys() - known)}")
        before = wanted.get("before", 0)
        super().__init__(before if isinstance(before, int) else 0, end)
        self._name = before if isinstance(before, str) else ""
        self._nth = int(wanted.get("nth", 1))
        self._call = int(wanted.get("before_call", 0))
        self.calls = 0

    def alive(self) -> None:
        """Every call of a door comes through here."""
        super().alive()
        self.calls += 1
        if self.calls == self._call:
            self.crash()

    def step(self, name: str) -> None:
        """Take note that an effect is about to happen. (It counts as a call twice: once as such, once as an effect.)"""
        if name == self._name and self.names.count(name) + 1 == self._nth:
            self.crash()
        super().step(name)


def _run_fix(engine: Engine, repo_id: str, rule: str, image: str = "", deep: bool = False) -> str:
    """Find the fix of that rule (on that image, when one is given) and run it to its end."""
    options = {"deep": True} if deep else None
    for fix in engine.check_storage_repository(repo_id, options):
        if fix.rule == rule and image in ("", fix.target):
            engine.run_fix_here(repo_id, fix)
            return fix.id
    raise NotFound(f"check offers no fix {rule} for image {image or '(any)'} in {repo_id}")


def _check(engine: Engine, repo_id: str, deep: bool = False) -> list[str]:
    """Check and say which rules it would apply."""
    return [fix.rule for fix in engine.check_storage_repository(repo_id, {"deep": True} if deep else None)]


VERBS: dict[str, Callable[..., Any]] = {
    "create_virtual_disk": Engine.create_virtual_disk,
    "create_snapshot": Engine.create_snapshot,
    "create_snapshot_group": Engine.create_snapshot_group,
    "copy_image": Engine.copy_image,
    "import_image": Engine.import_image,
    "export_image": Engine.export_image,
    "remove_image": Engine.remove_image,
    "restore_image": Engine.restore_image,
    "set_user_data": Engine.set_user_data,
    "resize_disk": Engine.resize_disk,
    "revert_disk": Engine.revert_disk,
    "set_strategy": Engine.set_strategy,
    "record_digest": Engine.record_digest,
    "check": _check,
    "run_fix": _run_fix,
}
"""Verbs that do all their work in this process. Give ``auto_fix: false`` to those that would start another."""


def perform(spec: Mapping[str, Any], end: Callable[[], None]) -> dict[str, Any]:
    """Do what the spec says; ``end`` is called where the host has to die. Raises the engine's errors."""
    verb = VERBS.get(spec.get("verb", ""))
    if verb is None:
        raise BadRequest(f"the verb {spec.get('verb')!r:.40} is unknown", f"Known: {', '.join(VERBS)}")
    effects = Kill(spec.get("kill"), end)
    engine = Engine(crashing(real_doors(spec["host"], spec["state"]), effects), spec["state"])
    try:
        bound = inspect.signature(verb).bind(engine, **spec["arguments"])
    except TypeError as error:
        raise BadRequest(f"the arguments do not fit {spec['verb']}: {error}") from error
    try:
        result = verb(*bound.args, **bound.kwargs)
    finally:
        engine.close()
    return {"result": result, "effects": effects.names, "calls": effects.calls}


def die() -> None:
    """SIGKILL, sent by the process to itself: nothing is flushed, closed or said."""
    os.kill(os.getpid(), signal.SIGKILL)


# -- for whoever starts one


class Outcome(NamedTuple):
    """How a victim ended."""

    killed: bool
    result: Any
    """What the verb returned; None when it was killed."""
    effects: list[str]
    """Names of all effects, in order; empty when it was killed."""
    calls: int


def sacrifice(
    host: str, state: str, verb: str, arguments: Mapping[str, Any], kill: Mapping[str, Any] | None = None
) -> Outcome:
    """Run a victim to its end, whichever it is, and wait until no lease of it is left.

    ``state`` must be a state directory that has connections; the victim works as ``host`` with
    them. StorageError when the victim failed by itself instead of being killed or succeeding."""
    import subprocess

    spec = {"host": host, "state": state, "verb": verb, "arguments": dict(arguments), "kill": kill}
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "sim.hosts.victim", "/dev/stdin"],
            input=json.dumps(spec),
            env={**os.environ, "PYTHONPATH": path},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise from_os_error(error, "start a process that is to be killed") from error
    _wait_for_leases(state)
    if done.returncode == -signal.SIGKILL:
        return Outcome(True, None, [], 0)
    if done.returncode:
        raise StorageError(f"the process that was to be killed failed: {(done.stdout + done.stderr)[-600:]}")
    said = json.loads(done.stdout)
    return Outcome(False, said["result"], said["effects"], said["calls"])


def _wait_for_leases(state: str) -> None:
    """The programs that a dead process had started carry its leases on until they end themselves,
    which takes them some milliseconds. Whoever goes on at once would be told that an image is busy."""
    engine = Engine(real_doors(""), state)
    clock = engine.doors.clock
    deadline = clock.monotonic() + _PATIENCE_S
    try:
        for repo_id in engine.list_repositories():
            repository = engine.context.repository(repo_id)
            for tag in repository.tags.scan():
                while repository.leases.held(tag):
                    if clock.monotonic() > deadline:
                        raise StorageError(f"the lease of image {tag} in {repo_id} is still held", "See who has it")
                    clock.sleep(0.002)
    finally:
        engine.close()


def die_with_parent() -> None:
    """Whoever starts a victim waits for it; when that process is killed, nobody is to go on in its place."""
    import ctypes

    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        die()


def read_spec(path: str) -> dict[str, Any]:
    """The spec in a file; BadRequest when it is none."""
    try:
        with open(path, encoding="utf-8") as stream:
            spec = json.loads(stream.read(_SPEC_LIMIT_BYTES))
        missing = {"host", "state", "verb", "arguments"} - spec.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise BadRequest(f"{path} is no spec of a victim: {error}") from error
    if missing:
        raise BadRequest(f"the spec lacks {', '.join(sorted(missing))}")
    return dict(spec)


def main(arguments: list[str]) -> int:
    """Entry point of the process."""
    die_with_parent()
    answer: dict[str, Any]
    try:
        if len(arguments) != 1:
            raise BadRequest("the one argument is the file with the spec")
        answer, code = perform(read_spec(arguments[0]), die), 0
    except DiskwrightError as error:
        answer, code = {"error": str(error), "code": error.code}, error.exit_code
    sys.stdout.write(json.dumps(answer) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
