"""The real process door: what the docstrings of ``engine.doors.processes.Processes`` promise."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import engine
from engine.doors.processes import ProcessIdentity, ProcessState
from engine.tools.local import processes as module
from engine.tools.local.leases import OfdLeases
from engine.tools.local.processes import RealProcesses
from tests.doors.children import Pipe, wait_ended
from tests.doors.conftest import Start

PROCESSES = RealProcesses()


def test_a_child_has_a_small_world_of_its_own(start: Start, told: Pipe, monkeypatch: pytest.MonkeyPatch):
    """Its own session, / as directory, empty input, a named environment and nothing else, no stray descriptors;
    ``engine`` is this one, and nothing in / can take the place of a module."""
    monkeypatch.setenv("DISKWRIGHT_TEST", "yes")
    monkeypatch.setenv("SECRET_TOKEN", "no")
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    identity = start("environment", "a b", "--c=$HOME")
    world = json.loads(told.line())
    names = set(world["environment"])
    assert {"PATH", "LC_ALL", "PYTHONPATH", "DISKWRIGHT_TEST"} <= names
    allowed = {"PATH", "HOME", "LC_ALL", "PYTHONPATH"}
    assert all(name in allowed or name.startswith(("DISKWRIGHT_", "XDG_")) for name in names)
    assert world["environment"]["LC_ALL"] == "C.UTF-8"
    assert world["arguments"] == ["environment", "a b", "--c=$HOME"]
    assert (world["cwd"], world["input"], world["engine"]) == ("/", "", engine.__file__)
    assert world["pid"] == world["session"] == identity.pid
    assert "/" not in world["path"] and "" not in world["path"]
    assert len(world["descriptors"]) == 4  # three and the one that lists them


def test_output_is_appended_to_the_log(start: Start, told: Pipe, tmp_path: Path):
    """Both outputs go to the log, after what is there; only the owner may read a new one."""
    for _ in range(2):
        identity = start("wait")
        assert int(told.line()) == identity.pid
        PROCESSES.terminate(identity)
        wait_ended(identity.pid)
    log = tmp_path / "log"
    # What is printed to a file is buffered; the child that is ended by a signal loses it, the error output it has not.
    assert log.read_text().count("err") == 2
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_log_that_is_a_link_is_refused(start: Start, tmp_path: Path):
    """Nobody can have a log written elsewhere."""
    (tmp_path / "log").symlink_to("victim")
    with pytest.raises(OSError, match="symbolic"):
        start("end")
    assert not (tmp_path / "victim").exists()


def test_an_identity_names_one_process(start: Start, told: Pipe):
    """The same for ever; another start time or another boot is another process, which is gone."""
    own = PROCESSES.own()
    assert own.pid == os.getpid() and own == RealProcesses().own()
    assert PROCESSES.state(own) is ProcessState.RUNNING
    assert PROCESSES.state(own._replace(started=own.started + 1)) is ProcessState.GONE
    assert PROCESSES.state(own._replace(boot_id="another boot")) is ProcessState.GONE
    identity = start("wait")
    told.line()
    assert identity.boot_id == own.boot_id and identity.started >= own.started
    assert PROCESSES.state(identity) is ProcessState.RUNNING


@pytest.mark.parametrize("pid", [0, -1, -5, 1 << 22, 1 << 31, 1 << 64])
def test_a_wild_identity_is_gone_and_gets_no_signal(pid: int, monkeypatch: pytest.MonkeyPatch):
    """Identities come from records: numbers that are no pid are gone, and signalling them does nothing."""
    monkeypatch.setattr(os, "kill", None)
    monkeypatch.setattr(signal, "pidfd_send_signal", None)
    identity = PROCESSES.own()._replace(pid=pid, started=5)
    assert PROCESSES.state(identity) is ProcessState.GONE
    PROCESSES.terminate(identity)
    PROCESSES.kill(identity)


def test_a_stopped_process_is_told_and_hears_terminate(start: Start, told: Pipe):
    """STOPPED after SIGSTOP; terminate wakes it so that it hears the request."""
    identity = start("stubborn")
    told.line()
    os.kill(identity.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, identity.pid, os.WSTOPPED | os.WNOWAIT)
    assert PROCESSES.state(identity) is ProcessState.STOPPED
    PROCESSES.terminate(identity)
    assert told.line() == "heard"
    wait_ended(identity.pid)
    assert PROCESSES.state(identity) is ProcessState.GONE


def test_a_zombie_is_gone_and_does_not_stay(start: Start, told: Pipe):
    """A killed child is gone at once, and asking for its state waits for it."""
    identity = start("wait")
    told.line()
    PROCESSES.kill(identity)
    wait_ended(identity.pid)
    assert PROCESSES.state(identity) is ProcessState.GONE
    assert not os.path.exists(f"/proc/{identity.pid}")
    PROCESSES.kill(identity)
    PROCESSES.terminate(identity)


def test_a_zombie_of_somebody_else_is_gone(told: Pipe):
    """Nobody but its parent can make it go away, but it holds nothing and does nothing."""
    with subprocess.Popen([sys.executable, "-c", "pass"]) as child:
        wait_ended(child.pid)
        state, started = module._stat_fields(child.pid) or ("", 0)
        assert state == "Z"
        identity = ProcessIdentity(PROCESSES.own().boot_id, child.pid, started)
        assert PROCESSES.state(identity) is ProcessState.GONE


def test_ended_children_are_waited_for_when_the_next_one_starts(start: Start, told: Pipe):
    """No zombies pile up in a long session."""
    first = start("end")
    wait_ended(first.pid)
    start("wait")
    told.line()
    assert not os.path.exists(f"/proc/{first.pid}")


def test_signals_work_without_pidfd(start: Start, told: Pipe, monkeypatch: pytest.MonkeyPatch):
    """Where a sandbox forbids pidfd_open the process is still ended."""

    def forbidden(pid: int) -> int:
        raise PermissionError(1, "not permitted")

    identity = start("wait")
    told.line()
    with monkeypatch.context() as patch:
        patch.setattr(os, "pidfd_open", forbidden)
        PROCESSES.kill(identity)
    wait_ended(identity.pid)
    assert PROCESSES.state(identity) is ProcessState.GONE


@pytest.mark.parametrize("name", ["plain", ") R 1 2 3", "a b) S (c"])
def test_a_strange_name_does_not_confuse(tmp_path: Path, name: str):
    """A program may call itself anything; state and start time are read behind the last parenthesis."""
    code = "import sys; open('/proc/self/comm', 'w').write(sys.argv[1]); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        found = module._stat_fields(child.pid)
        assert found is not None and found[0] in "SRD"
        assert found[1] >= PROCESSES.own().started
        child.communicate(b"")


def test_a_spawned_module_that_does_not_exist_ends(tmp_path: Path):
    """The reason is in the log."""
    identity = PROCESSES.spawn("no_such_module", [], [], str(tmp_path / "log"))
    wait_ended(identity.pid)
    assert PROCESSES.state(identity) is ProcessState.GONE
    assert "No module named no_such_module" in (tmp_path / "log").read_text()


def test_a_child_adopts_the_lease_it_was_given(start: Start, told: Pipe, tmp_path: Path):
    """The token is valid there, the lease lives as long as the child, and goes no further unasked."""
    path = str(tmp_path / "locks")
    Path(path).touch()
    leases = OfdLeases()
    lease = leases.try_acquire(path, 5, shared=False)
    assert lease is not None
    identity = start("adopt", lease.token, leases=(lease,))
    assert told.line() == f"{identity.pid} False"
    lease.release()
    assert leases.held(path, 5) and leases.try_acquire(path, 5, shared=True) is None
    PROCESSES.kill(identity)
    wait_ended(identity.pid)
    assert not leases.held(path, 5)
