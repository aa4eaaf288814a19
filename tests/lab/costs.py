"""What tests of the lab cost: ``python -m pytest -p tests.lab.costs tests/lab`` tells at its end, by test, the seconds
of processors that guests took, and those of this process.

The processes of a guest are children of nobody here for long, so no ``times(2)`` has them: they are looked at in
``/proc``, at the end of each test and before a guest is killed (not when a lab in the background kills one).
A guest that works beside the tests, as scenarios are played in threads, counts for whichever test runs at that moment:
leave test_scenarios.py out, or run it alone."""

from __future__ import annotations

import contextlib
import os
import resource
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from sim.lab import sessions

_SHOWN = 40
_PARENT, _SESSION, _OWN, _WAITED_FOR = 1, 3, slice(11, 13), slice(13, 15)
"""Fields of /proc/PID/stat after the name."""
_TICKS = os.sysconf("SC_CLK_TCK")
_PROPERTY = "lab costs"
_BEFORE = pytest.StashKey[tuple[float, float]]()


_seconds: dict[int, float] = {}
"""What each guest took that was ever seen, by session: of this process, or a lab that it has in the background."""
_lock = threading.Lock()


def _guests() -> float:
    """Seconds until now."""
    with _lock:
        now: dict[int, float] = {}
        for pid, fields in _processes():
            session = int(fields[_SESSION])
            if pid == session and session not in _seconds and _is_guest(pid) and _is_ours(int(fields[_PARENT])):
                _seconds[session] = 0.0
            more = fields[_WAITED_FOR] if pid == session else []
            now[session] = now.get(session, 0.0) + sum(map(int, [*fields[_OWN], *more])) / _TICKS
        for session in _seconds.keys() & now.keys():
            _seconds[session] = max(_seconds[session], now[session])
        return sum(_seconds.values())


def _processes() -> Iterator[tuple[int, list[str]]]:
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            yield int(name), Path(f"/proc/{name}/stat").read_text("latin-1").rpartition(")")[2].split()


def _is_guest(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"\0umid=" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _is_ours(pid: int) -> bool:
    """Whether it is this process, or was started by it: ``tests/conftest.py`` marks those."""
    with contextlib.suppress(OSError):
        mark = os.environ.get("DISKWRIGHT_TESTED_BY", "not a test").encode()
        return pid == os.getpid() or mark in Path(f"/proc/{pid}/environ").read_bytes()
    return False


def pytest_configure() -> None:
    """A guest that dies is looked at once more."""
    end = sessions.end

    def looked_at(session: int) -> bool:
        _guests()
        return end(session)

    sessions.end = looked_at


def _here() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)  # guests that are gone are among our children
    return used.ru_utime + used.ru_stime


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[Any]:
    """What a test took, with the fixtures that it is the first to ask for."""
    item.stash[_BEFORE] = _guests(), _here()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """The report of the last phase tells it, to another process too."""
    report = yield
    if call.when == "teardown":
        guests, here = item.stash[_BEFORE]
        report.user_properties.append((_PROPERTY, [_guests() - guests, _here() - here]))
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The dearest first."""
    rows = [
        (*costs, report.nodeid)
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "teardown"
        for name, costs in report.user_properties
        if name == _PROPERTY
    ]
    rows.sort(key=lambda row: -row[0] - row[1])
    terminalreporter.section("seconds of processors: guests, here")
    for guests, here, name in [*rows[:_SHOWN], (sum(row[0] for row in rows), sum(row[1] for row in rows), "all")]:
        terminalreporter.write_line(f"{guests:8.1f} {here:8.1f}  {name}")
