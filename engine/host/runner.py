"""The runner: a process of its own that executes fixes and may be killed at any moment.

``python -m engine.host.runner SPEC`` reads what to do from the file SPEC (JSON) and writes events as
JSON lines to its output. Leases it was started with are adopted, so nobody else can slip in
between the verb that started it and the work, and what that verb has verified is not scanned for again.
SIGTERM means: stop at the next step and keep everything.

Spec: {"host", "state", "repo_id", "task", "rate", "fixes": [work, ...], "leases": {tag: token}}
"""

from __future__ import annotations

import contextlib
import functools
import json
import signal
import sys
from collections.abc import Callable
from typing import Any

from engine.assembly import real_doors
from engine.copying import pace
from engine.data.model import Fix, OperationStatus
from engine.doors import Doors
from engine.errors import BadRequest, DiskwrightError, StaleFix, Stopped, from_os_error
from engine.fixes import run as fixes
from engine.fixes.work import Work
from engine.formats.base import Repository
from engine.host import merging, preparing
from engine.host.state import HostState
from engine.tags import leasing
from engine.tags.attempt import ended
from engine.tags.context import Context

Narrate = Callable[[dict[str, Any]], None]
_SPEC_LIMIT = 64 * 1024 * 1024
_TRACE_DEPTH = -5  # the innermost calls


def run(doors: Doors, spec: dict[str, Any], narrate: Narrate, stopping: Callable[[], bool]) -> int:
    """Execute the fixes of ``spec`` in order; a failed one does not stop the rest.

    Returns 0 when all were done (or had become unnecessary), else the exit code of the last error.
    """
    state = HostState(doors, spec["state"])
    context = Context(doors, state.connections(), state, functools.partial(preparing.take_over, state), stopping)
    task = str(spec.get("task", ""))
    context.rate = pace.noted(doors.clock, lambda: state.rate(task), int(spec.get("rate", 0)))
    code = 0
    tokens: dict[str, str] = spec["leases"]
    try:
        for data in spec["fixes"]:
            work = Work.from_json(data)
            if stopping():
                code = _never_begun(work, narrate)
                continue
            code = _one(context, state, spec["repo_id"], work, tokens, narrate) or code
            tokens = {}
    finally:
        context.close()
    narrate({"event": "end", "code": code})
    return code


def _about(fix: Fix) -> dict[str, Any]:
    return {"fix": fix.id, "type": fix.type, "rule": fix.rule, "image": fix.target, "images": fix.images}


def _never_begun(work: Work, narrate: Narrate) -> int:
    """Say of work whose turn did not come that it was not done."""
    error = Stopped(
        f"fix {work.fix.id} was not begun: the fixes were stopped before its turn", "Check and run it again"
    )
    narrate({"event": "failed", **_about(work.fix), "error": str(error), "code": error.code})
    return error.exit_code


def _one(context: Context, state: HostState, repo_id: str, work: Work, tokens: dict[str, str], narrate: Narrate) -> int:
    fix = work.fix
    about = _about(fix)
    narrate({"event": "start", **about})
    kept = None
    try:
        repository = context.repository(repo_id)
        entry = merging.entry_of(context, state, repository, fix) if not tokens else None
        if entry is not None:
            merging.run(context, state, repo_id, entry, fix)
        else:
            with contextlib.suppress(DiskwrightError):
                kept = merging.kept_for(context, repository, fix)
            with leasing.adopt(repository, tokens) if tokens else fixes.take_leases(context, repository, fix):
                _execute(context, repository, work)
    except StaleFix as error:
        narrate({"event": "stale", **about, "error": str(error), "code": error.code})
        return 0
    except DiskwrightError as error:
        narrate({"event": "failed", **about, "error": str(error), "code": error.code})
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - a fault of ours ends this fix and must be heard of, not the rest
        fault = {"error": _fault(error), "code": DiskwrightError.code, "trace": _trace()}
        narrate({"event": "failed", **about, **fault})
        return DiskwrightError.exit_code
    narrate({"event": "done", **about})
    if kept is not None and not context.stopping():
        _after_copy(context, state, kept, narrate)
    return 0


def _after_copy(context: Context, state: HostState, kept: tuple[str, str], narrate: Narrate) -> None:
    """Do what is left to do after a copy, as far as that works: what was asked for is done, and check offers the
    rest."""
    try:
        merging.after_copy(context, state, *kept)
    except DiskwrightError:
        return
    except Exception as error:  # noqa: BLE001 - as in _one
        narrate({"event": "output", "error": _fault(error), "trace": _trace()})


def _execute(context: Context, repository: Repository, work: Work) -> None:
    """Run a fix. What no executor expects becomes the last error of its image here, while its lease is held."""
    try:
        fixes.execute(context, repository, work)
    except DiskwrightError:
        raise
    except Exception as error:
        fix = work.fix
        if fix.images:
            host, now = context.doors.ids.host_id, context.doors.clock.wall()
            status = OperationStatus(str(fix.type), host, 0, 0, -1, _fault(error)[:200], now, fix.rule)
            ended(repository, fix.images[0], status)
        raise


def _fault(error: Exception) -> str:
    return f"a fault of this program: {type(error).__name__} {error}".strip()


def _trace() -> str:
    import traceback

    return traceback.format_exc(limit=_TRACE_DEPTH)


def read_spec(doors: Doors, path: str) -> dict[str, Any]:
    """Return the spec, checked for shape only: it comes from this host's own state directory."""
    try:
        spec = json.loads(doors.files.read_file(path, _SPEC_LIMIT))
        if not {"host", "state", "repo_id", "fixes", "leases"} <= spec.keys():
            raise ValueError("fields are missing")
    except OSError as error:
        raise from_os_error(error, "read what to run") from error
    except (ValueError, AttributeError) as error:
        raise BadRequest(f"{path} is no task of diskwright ({error})") from None
    return dict(spec)


def _print(event: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # where the log has no room the work counts all the same
        log = getattr(sys.stdout.buffer, "raw", sys.stdout.buffer)  # a buffer would fail again at the end
        log.write(f"{json.dumps(event)}\n".encode())


def main(arguments: list[str]) -> int:
    """Run the fixes of a spec: the entry point of the process."""
    requests: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: requests.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C in the terminal is for its follower
    try:
        spec = read_spec(real_doors(""), arguments[0])
        return run(real_doors(spec["host"], spec["state"]), spec, _print, lambda: bool(requests))
    except DiskwrightError as error:
        _print({"event": "failed", "error": str(error), "code": error.code})
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
