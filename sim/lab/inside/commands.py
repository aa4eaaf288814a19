"""Commands in a guest: programs, and Python functions in a fork of the agent (which has its modules already).

A START frame carries ``argv`` (a program), or ``call`` ("module:function") with ``arguments`` (words that the
function gets as one list; its result is the exit code) and ``preload`` (modules to have before), or ``source``
(Python text, run with ``arguments`` in ``sys.argv[1:]``); and ``cwd``, ``environment`` (added to the guest's),
``input`` (whether bytes will come).
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import io
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any


class Command:
    """One that runs: its process group and our ends of its pipes."""

    def __init__(self, stream: int, pid: int, out: int, err: int, feed: int | None) -> None:
        self.stream = stream
        self.pid = pid
        self.out = out
        self.err = err
        self.feed = feed
        self.waiting: deque[bytes] = deque()
        """For its standard input; an empty one is the end of file."""

    def signal(self, number: int) -> None:
        """To it and all it has started in its process group."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return


def start(stream: int, spec: dict[str, Any]) -> Command:
    """Start what the spec says. OSError, ImportError, AttributeError, SyntaxError when that is impossible."""
    work = _work(spec)
    feed_end, feed = os.pipe() if spec["input"] else (os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), None)
    (out, out_end), (err, err_end) = os.pipe(), os.pipe()
    try:
        ends = (feed_end, out_end, err_end)
        pid = _program(spec, ends) if work is None else _fork(spec, ends, work)
    except OSError:
        for descriptor in (out, err, feed):
            if descriptor is not None:
                os.close(descriptor)
        raise
    finally:
        for descriptor in (feed_end, out_end, err_end):
            os.close(descriptor)
    for descriptor in (out, err, feed):
        if descriptor is not None:
            os.set_blocking(descriptor, False)
    return Command(stream, pid, out, err, feed)


def _program(spec: dict[str, Any], ends: tuple[int, int, int]) -> int:
    process = subprocess.Popen(
        spec["argv"],
        stdin=ends[0],
        stdout=ends[1],
        stderr=ends[2],
        cwd=spec["cwd"],
        env={**os.environ, **spec["environment"]},
        start_new_session=True,
    )
    process.returncode = 0  # the agent reaps every child itself, so this object must not try
    return process.pid


def _work(spec: dict[str, Any]) -> Callable[[], Any] | None:
    """What a fork has to do, imported here once for all of them; None: it is a program."""
    if "call" in spec:
        for name in spec["preload"]:
            importlib.import_module(name)
        module, _, name = spec["call"].partition(":")
        function = getattr(importlib.import_module(module), name)
        return lambda: function(spec["arguments"])
    if "source" in spec:
        code = compile(spec["source"], "<lab>", "exec")
        return lambda: exec(code, {"__name__": "__main__", "__builtins__": __builtins__})
    return None


def _fork(spec: dict[str, Any], ends: tuple[int, int, int], work: Callable[[], Any]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    for target, end in enumerate(ends):
        os.dup2(end, target)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    sys.stdin, sys.stdout, sys.stderr = _text(0, "rb"), _text(1, "wb"), _text(2, "wb")
    os.chdir(spec["cwd"])
    os.environ.update(spec["environment"])
    sys.argv = [spec.get("call", "-c"), *spec["arguments"]]
    os._exit(_exit_code(work))


def _text(number: int, mode: str) -> io.TextIOWrapper:
    raw = os.fdopen(number, mode, closefd=False)
    return io.TextIOWrapper(raw, "utf-8", "surrogateescape", line_buffering=number != 0)


def _exit_code(work: Callable[[], Any]) -> int:
    """Do it as a program would, to the end of its threads and exit handlers."""
    code = 0
    try:
        result = work()
        code = result if isinstance(result, int) else 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - the end of a process: told on its standard error
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined] # as multiprocessing ends its children
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    return code & 0xFF
