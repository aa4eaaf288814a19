"""What every test shares: a host of its own, reproducible examples, and the rule about skips."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}

_LONGEST = "tests/adversary/test_adversary.py::test_the_adversary_finds_nothing"
_LAB = "tests/lab/"
_WAITING = (
    "tests/lab/test_torture.py",
    "tests/lab/test_powercut_lvm.py",
    "tests/lab/test_command.py",
    "tests/browser/",
    "tests/console/test_terminal.py",
    "tests/formats/lvm/test_sanlock.py",
    "tests/tools/test_sanlock.py",
)
_TOGETHER = ("tests/cli/test_demo.py",)
"""What they share takes seconds to make."""

if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has its background jobs ignore Ctrl-C, and what they start inherits that: nothing could be interrupted.
    signal.signal(signal.SIGINT, signal.default_int_handler)

_OF_THE_USER = (
    "COLORTERM",
    "COLUMNS",
    "DISKWRIGHT_DEBUG",
    "DISKWRIGHT_HOST",
    "FORCE_COLOR",
    "LANG",
    "LANGUAGE",
    "LINES",
    "NO_COLOR",
    "PYTHONIOENCODING",
    "SUDO_USER",
    "TMUX",
)

_MARK = "DISKWRIGHT_TESTED_BY"
_GONE_WITHIN_S = 60.0

# A run in CI tries the same examples each time, so a failure belongs to the change and not to chance.
settings.register_profile("ci", derandomize=True, deadline=None, database=None, print_blob=True)
# On a developer's machine each run looks somewhere else. No deadline: two cores, and a disk that others use.
settings.register_profile("dev", deadline=None, print_blob=True)
settings.load_profile("ci" if IN_CI else "dev")


@pytest.fixture(autouse=True)
def own_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test is a host that remembers nothing: its state is under ``tmp_path``, where nothing is made before. What
    whoever started us has set for terminals and languages changes nothing."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg-config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg-data"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg-state"))
    monkeypatch.setenv("DISKWRIGHT_STATE", str(tmp_path / "host-state"))
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    for name in _OF_THE_USER:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def nothing_past_pyfakefs(request: pytest.FixtureRequest, own_host: None) -> Iterator[None]:
    """Where a test uses pyfakefs, calls that it does not fake raise instead of reaching the real system."""
    if "fs" not in request.fixturenames:
        yield
        return
    from tests.unfaked import refuse_all

    request.getfixturevalue("fs")
    with pytest.MonkeyPatch.context() as patch:
        refuse_all(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """When all tests of this process have run, none of the processes that they started is there any more."""
    with pytest.MonkeyPatch.context() as patch:
        mark = f"run-{os.getpid()}-{time.time_ns()}"
        patch.setenv(_MARK, mark)
        yield
    # Of multiprocessing, one for a process: it ends with this one, when its pipe is closed.
    tracker = getattr(resource_tracker, "_resource_tracker")._pid  # noqa: B009 # mypy knows only what is public
    deadline = time.monotonic() + _GONE_WITHIN_S
    while left := _marked(mark, but=tracker):
        assert time.monotonic() < deadline, f"processes that a test left behind: {left}"
        time.sleep(0.05)


def _marked(mark: str, but: int | None) -> list[str]:
    """The command lines of processes whose first environment has the mark: ours was made before it."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            if int(pid) == but or f"{_MARK}={mark}".encode() not in environment.split(b"\0"):
                continue
            found.append(f"{pid} " + Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # it has gone, or is somebody else's
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """What a test that failed has left open is closed when it ends: a warning of that would be the error of whichever
    test runs when it is found."""
    before = item.session.testsfailed
    result = yield
    if item.session.testsfailed != before:
        _collect_quietly()
    return result


def _collect_quietly() -> None:
    for name in ("last_exc", "last_type", "last_value", "last_traceback"):
        with contextlib.suppress(AttributeError):
            delattr(sys, name)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(sys, "unraisablehook", lambda _: None)
        warnings.simplefilter("ignore")
        gc.collect()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests come first, so that what breaks often is told early; of the slow ones the longest, and those that one
    worker has to run one after the other: all else then runs beside them."""

    def place(item: pytest.Item) -> int:
        slow = item.get_closest_marker("slow") is not None
        return slow and (1 if item.nodeid.startswith((_LONGEST, _LAB, *_WAITING)) else 2)

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """What is there by now stays: nobody looks through it for garbage again and again, a tenth of the simulator's
    time."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


@pytest.hookimpl(optionalhook=True)  # without xdist there is no such hook
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One worker gets the tests that share the lab, and one those that boot guests of their own, have a browser or a
    terminal, or let leases run out, as both mostly wait; all others go where there is time."""
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-not-found,import-untyped,unused-ignore]

    class TwoLabs(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            if nodeid.startswith(_WAITING):
                return "what mostly waits"
            if nodeid.startswith(_TOGETHER):
                return nodeid.partition("::")[0]
            return "the lab" if nodeid.startswith(_LAB) else nodeid

    return TwoLabs(config, log)


def _skipped(config: pytest.Config) -> int:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return len(reporter.stats.get("skipped", [])) if reporter else 0


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """In CI a skipped test fails the run: what the machine lacks is to be installed, not passed over."""
    if IN_CI and exitstatus == pytest.ExitCode.OK and not _is_worker(session.config) and _skipped(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    _remove_dangling_runs()


def _remove_dangling_runs() -> None:
    """What tests prepared and did not tear down has its links in this machine's own run directory: those go that
    point to nothing any more."""
    with contextlib.suppress(FileNotFoundError):  # another run tidies up at the same moment
        for disk in Path("/run/diskwright/run").glob("**/disk*"):
            if disk.is_symlink() and not disk.exists():
                shutil.rmtree(disk.parent, ignore_errors=True)
                with contextlib.suppress(OSError):
                    for above in list(disk.parents)[1:4]:
                        above.rmdir()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Tell the number of skips, also when it is none."""
    skipped = _skipped(config)
    verdict = ": this fails the run, because CI is set" if IN_CI and skipped else ""
    terminalreporter.write_line(f"tests skipped: {skipped}{verdict}")
