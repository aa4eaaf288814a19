"""Fixtures of the door tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.doors.leases import Lease
from engine.doors.processes import ProcessIdentity, ProcessState
from engine.tools.local.processes import RealProcesses
from tests.doors.children import MODULE, Pipe, pipe, wait_ended


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Pipe]:
    """What children tell."""
    with pipe(tmp_path) as made:
        yield made


Start = Callable[..., ProcessIdentity]


@pytest.fixture
def start(tmp_path: Path, told: Pipe, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a child with a job through the real door; whatever still runs at the end is killed."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "diskwright_test_child.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    processes = RealProcesses()
    started = []

    def spawn(job: str, *arguments: str, leases: tuple[Lease, ...] = ()) -> ProcessIdentity:
        log = str(tmp_path / "log")
        identity = processes.spawn("diskwright_test_child", [told.path, job, *arguments], list(leases), log)
        started.append(identity)
        return identity

    yield spawn
    for identity in started:
        if processes.state(identity) is not ProcessState.GONE:
            os.kill(identity.pid, signal.SIGKILL)
            wait_ended(identity.pid)
            processes.state(identity)
