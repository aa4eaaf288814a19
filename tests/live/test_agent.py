"""The client of the guest agent, against one that is a few lines here and says what it is told to; and the process that
thaws a guest for whoever is dead."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.assembly import real_doors
from engine.errors import ToolFailed
from engine.host import machines
from engine.host.live import switches
from engine.host.state import HostState
from engine.tools.hypervisor import agent
from tests.doors.children import wait_ended

Answering = Callable[[str, Any], bytes]
_PATIENCE_S = 60.0


def line(answer: Any) -> bytes:
    return json.dumps(answer).encode() + b"\n"


class Guest:
    """An agent behind a socket that takes one client at a time, as that of a machine does."""

    def __init__(self, folder: Path) -> None:
        self.path, self.frozen, self.heard = str(folder / "agent"), False, list[str]()
        self.thawed = threading.Event()
        self.says: Answering = self.answer
        self.first = b""
        """What it had still to say to somebody else."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(self.path)
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def answer(self, command: str, arguments: Any) -> bytes:
        """What qemu-ga says."""
        if command == "guest-sync-delimited":
            return b"\xff" + line({"return": arguments["id"]})
        if command == "guest-fsfreeze-status":
            return line({"return": "frozen" if self.frozen else "thawed"})
        before, self.frozen = self.frozen, command == "guest-fsfreeze-freeze"
        if not self.frozen:
            self.thawed.set()
        return line({"return": 2 if before != self.frozen else 0})

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with contextlib.suppress(ConnectionError), client, client.makefile("rb") as stream:
                client.sendall(self.first)
                for read in stream:
                    told = json.loads(read.removeprefix(b"\xff"))
                    self.heard.append(told["execute"])
                    client.sendall(self.says(told["execute"], told.get("arguments")))

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    made = Guest(tmp_path)
    yield made
    made.close()


def test_a_guest_is_frozen_and_thawed(guest: Guest):
    """Each in a connection of its own; of a guest that is not frozen none is thawed. What the agent had still to say
    to somebody else, in the middle of a line too, is for nobody."""
    guest.first = b'"}\xff{"return": 5}\n{"return": "frozen"}\n\xff\xff\n{"retu'
    assert not agent.frozen(guest.path)
    assert agent.freeze(guest.path) == 2
    assert agent.frozen(guest.path)
    assert agent.thaw(guest.path) == 2
    assert agent.thaw(guest.path) == 0
    assert guest.heard[-1] == "guest-fsfreeze-thaw"


def test_where_no_machine_is_nothing_is_frozen(tmp_path: Path):
    """No socket, and one that nobody listens to; asked whether it answers that is told."""
    path = str(tmp_path / "agent")
    assert agent.thaw(path) == 0
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    assert agent.thaw(path) == 0
    with pytest.raises(ToolFailed, match="not there"):
        agent.frozen(path)


@pytest.mark.parametrize("nonsense", [
    b"", b"what?\n", b"[]\n", b"{}\n", b'{"return": true}\n', b'{"return": -1}\n', b'{"return": "two"}\n',
    b'{"return": 1e400}\n', b'{"return": ' + b"9" * 5000 + b"}\n", b"[" * 60000 + b"\n", b"x" * 200_000,
    b'{"error": {"class": "GenericError", "desc": "guest-fsfreeze-freeze has been disabled"}}\n', b'{"error": 7}\n',
    b"\xff\xff\xff\xff\n",
], ids=range(14))  # fmt: skip
def test_nonsense_is_told_and_soon(guest: Guest, nonsense: bytes, monkeypatch: pytest.MonkeyPatch):
    """Silence, what is no JSON or no number, what never ends, and an error."""
    monkeypatch.setattr(agent, "_FREEZES_S", 0.2)
    guest.says = lambda command, given: nonsense if command == "guest-fsfreeze-freeze" else guest.answer(command, given)
    with pytest.raises(ToolFailed) as told:
        agent.freeze(guest.path)
    assert guest.path in str(told.value) and len(str(told.value)) < 500


@pytest.mark.parametrize(
    "says", [b"", b'\xff{"return": 1}\n' * 9000, b"\xff\n" * 90000, b"\n" * 90000, b"\xff" * 90000]
)
def test_one_that_never_agrees_is_left(guest: Guest, says: bytes, monkeypatch: pytest.MonkeyPatch):
    """It does not answer, or answers something that nobody has asked: without an end, and it is told nothing more."""
    monkeypatch.setattr(agent, "_ANSWERS_S", 0.5)
    guest.says = lambda command, given: says
    with pytest.raises(ToolFailed):
        agent.freeze(guest.path)
    assert "guest-fsfreeze-freeze" not in guest.heard


def freezer(state: str, guest: Guest) -> tuple[int, int]:
    """A process that freezes a guest with a watchdog beside it, as a snapshot does, and is in the middle of that; and
    the watchdog."""
    end, told = os.pipe()
    child = os.fork()
    if not child:
        try:
            doors = real_doors("host-a", state)
            notes, monitor = HostState(doors, state), f"qmp:/nowhere,agent={guest.path}"
            notes.note_frozen(monitor)
            arguments = [machines.GUEST, "host-a", state, monitor, *map(str, doors.processes.own())]
            started = doors.processes.spawn(switches.WATCHDOG, arguments, [], notes.task_log("watchdog"))
            doors.hypervisors.freeze(monitor)
            os.write(told, str(started.pid).encode())
            signal.pause()
        finally:
            os._exit(1)
    os.close(told)
    watchdog = int(os.read(end, 100))
    os.close(end)
    return child, watchdog


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_guest_goes_on_when_who_has_frozen_it_is_dead_or_stands_still(guest: Guest, tmp_path: Path, how: int):
    """Within seconds, by the watchdog, which ends, and no note is left; who stands still is not killed."""
    state = str(tmp_path / "state")
    child, watchdog = freezer(state, guest)
    try:
        assert guest.frozen
        os.kill(child, how)
        if how == signal.SIGKILL:
            os.waitpid(child, 0)
            child = 0
        assert guest.thawed.wait(_PATIENCE_S)
        wait_ended(watchdog)
        assert not HostState(real_doors("host-a", state), state).frozen()
        assert not guest.frozen
    finally:
        if child:
            os.kill(child, signal.SIGTERM)
            os.kill(child, signal.SIGCONT)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != -signal.SIGKILL


def test_where_the_watchdog_was_killed_too_the_next_look_thaws(guest: Guest, tmp_path: Path):
    """Not while the one that has frozen it lives."""
    state = str(tmp_path / "state")
    child, watchdog = freezer(state, guest)
    doors = real_doors("host-a", state)
    notes = HostState(doors, state)
    os.kill(watchdog, signal.SIGKILL)
    wait_ended(watchdog)
    machines.let_go(doors, notes)
    assert guest.frozen
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    machines.let_go(doors, notes)
    assert not guest.frozen and not notes.frozen()
