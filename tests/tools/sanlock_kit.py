"""Hosts that share leases, on one machine: a daemon of sanlock each, and processes that talk to it.

libsanlock finds its daemon by the environment of the process once and for all, so whoever acts on a
host is a process of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engine.doors.shared_leases import LeaseArea
from tests.contracts.source import ROOT

WORKER = """
import json, os, signal, subprocess, sys
from engine.doors.shared_leases import LeaseArea
from engine.errors import DiskwrightError
from engine.tools.sanlock.shared_leases import SanlockLeases

leases, held = SanlockLeases(io_timeout_s=1), {}
ADOPT = "import sys; sys.path.insert(0, sys.argv[2]); exec(sys.argv[3])"
CHILD = '''
import json, os, signal, sys
from engine.errors import DiskwrightError
from engine.tools.sanlock.shared_leases import SanlockLeases
leases = SanlockLeases()
signal.alarm(120)
print("up", flush=True)
if not sys.stdin.readline():
    signal.pause()
try:
    lease = leases.adopt(sys.argv[1])
    print(json.dumps([os.getpid(), lease.version]), flush=True)
except DiskwrightError as error:
    print(json.dumps([error.code, error.message]), flush=True)
    sys.exit(1)
sys.stdin.readline()
'''

def acquire(area, key, shared, name):
    lease = leases.try_acquire(area, key, shared)
    if lease is None:
        return None
    held[name] = lease
    return lease.version

def release(area, name):
    held.pop(name).release()

def drop(area, name):
    state = leases._library.inquire(held[name].descriptor)
    slot = int(state.split(":")[1].removeprefix("slot"))
    leases._library.release(held[name].descriptor, leases._resource(area, slot))

def spawn(area, name):
    token = held[name].token
    arguments = [sys.executable, "-c", ADOPT, token, sys.argv[1], CHILD]
    inherited = [int(token.rpartition(":")[2])]
    child = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=inherited)
    assert child.stdout.readline() == "up\\n"
    held["child"] = child
    return child.pid

def go(area):
    child = held["child"]
    child.stdin.write("go\\n")
    child.stdin.flush()
    return json.loads(child.stdout.readline())

def end_child(area):
    child = held.pop("child")
    child.kill()
    child.stdin.close()
    child.stdout.close()
    return child.wait()

def holders(area, key):
    return [[host.number, host.state] for host in leases.holders(area, key)]

def hosts(area):
    return {number: [host.generation, host.state, host.gone] for number, host in leases.hosts(area).items()}

def host(area, number):
    return list(leases.host(area, number))

OTHERS = {call.__name__: call for call in (acquire, release, drop, spawn, go, end_child, holders, hosts, host)}
for line in sys.stdin:
    verb, area, arguments = json.loads(line)
    area = LeaseArea(*area)
    try:
        if verb in OTHERS:
            answer = OTHERS[verb](area, *arguments)
        elif verb == "warnings":
            answer = leases.warnings()
        else:
            answer = getattr(leases, verb)(area, *arguments)
    except DiskwrightError as error:
        answer = {"error": error.code, "message": str(error)}
    print(json.dumps(answer), flush=True)
"""


class Actor:
    """A process on a host. ``Failed`` carries what it raised."""

    def __init__(self, area: LeaseArea, directory: Path, program: Sequence[str] = ("-c", WORKER, str(ROOT))) -> None:
        self.area = area
        surroundings = os.environ | {"SANLOCK_RUN_DIR": str(directory), "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=surroundings,
        )

    def __call__(self, verb: str, *arguments: Any, area: LeaseArea | None = None) -> Any:
        self.begin(verb, *arguments, area=area)
        return self.answer()

    def begin(self, verb: str, *arguments: Any, area: LeaseArea | None = None) -> None:
        """Ask and do not wait."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([verb, area or self.area, arguments]) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        """What it says."""
        assert self.process.stdout is not None
        answer = json.loads(self.process.stdout.readline())
        if isinstance(answer, dict) and "error" in answer:
            raise Failed(answer["error"], answer["message"])
        return answer

    def end(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


class Failed(Exception):
    """An error of the engine: its code and what it says."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class SharingHost:
    """A daemon with a directory of its own, and actors on it."""

    def __init__(self, name: str, directory: Path, area: LeaseArea) -> None:
        self.name = name
        self.directory = directory
        self.area = area
        self.actors: list[Actor] = []
        directory.mkdir()
        self.start()

    def start(self) -> None:
        """Start the daemon."""
        surroundings = os.environ | {"SANLOCK_RUN_DIR": str(self.directory), "SANLOCK_PRIVILEGED": "0"}
        words = ["sanlock", "daemon", "-w", "0", "-h", "0", "-l", "0", "-U", "root", "-G", "root", "-e", self.name]
        subprocess.run(words, env=surroundings, check=True, stdin=subprocess.DEVNULL)
        wait_until((self.directory / "sanlock.sock").exists)

    @property
    def pid(self) -> int:
        """Of the daemon."""
        return int((self.directory / "sanlock.pid").read_text())

    def signal(self, number: signal.Signals) -> None:
        """Send one to the daemon."""
        os.kill(self.pid, number)

    def until(self, condition: Callable[[], object], timeout_s: float = 60.0) -> None:
        """See ``wait_until``."""
        wait_until(condition, timeout_s)

    def kill(self, pid: int) -> None:
        """Kill a process of this host."""
        os.kill(pid, signal.SIGKILL)

    def actor(self, *program: str) -> Actor:
        """A new process on this host; another program than ``WORKER`` where one is given."""
        made = Actor(self.area, self.directory, program) if program else Actor(self.area, self.directory)
        self.actors.append(made)
        return made

    def end_actors(self) -> None:
        """Kill the processes; their leases go."""
        for actor in self.actors:
            actor.end()
        self.actors.clear()

    def end(self) -> None:
        """Kill everything."""
        self.end_actors()
        self.signal(signal.SIGKILL)


def wait_until(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    """Look until it is so; AssertionError when that takes too long."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
