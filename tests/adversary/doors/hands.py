"""Hands: everything that is done on one machine, be it this one or a guest of a lab. All of it takes and returns JSON.

`far` has the hands that reach into a guest; what they do there is what is here.
"""

import contextlib
import os
import re
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.adversary.doors import damage, processes
from tests.adversary.doors.kills import Kill, Killer
from tests.adversary.doors.machines import MachineError, Running, start
from tests.adversary.doors.quick import Quick, Started
from tests.adversary.oracle.findings import CannotTry

PATIENCE_S = 300.0


class Gone(Exception):
    """The machine has died: what it was doing is done or not."""


class Hands:
    """The hands on this machine. A world is the directory of one; its processes are found by it.

    `slow` is how many times longer a command takes here than on an ordinary machine: moments of kills are that late.
    """

    def __init__(
        self, command: str, runtime: Path | None = None, slow: float = 1.0, quick: Quick | None = None
    ) -> None:
        self._command, self._runtime, self._slow, self._quick = command, runtime, slow, quick
        self._machines: dict[int, Running] = {}

    def run(
        self, world: str, options: list[str], argv: list[str], kill: dict[str, Any] | None, watch: str | None
    ) -> Any:
        """Run a command of diskwright to its end, or to the kill; `watch` is the directory whose changes a kill counts.
        Return exit code, output, errors, and whether the kill struck."""
        process = self._start([self._command, *options, *argv], self._environment(world))
        watched = Path(watch) if watch else None
        killer = Killer(Kill(**kill), process, world, watched, self._slow) if kill else None
        try:
            out, err = process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            err += b"\nadversary: it did not end in time"
        struck = killer.finish() if killer else False
        return [process.returncode, out.decode(errors="replace"), err.decode(errors="replace"), struck]

    def shell(self, script: str, *arguments: str) -> str:
        """Run a script of the shell; return what it says. CannotTry when it fails."""
        done = subprocess.run(["/bin/sh", "-ec", script, "sh", *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotTry(f"{script.strip().splitlines()[-1]}: {done.stderr.strip() or done.returncode}")
        return done.stdout

    # -- processes

    def working(self, world: str) -> list[int]:
        """Return the processes of a world, but for machines."""
        return [pid for pid in processes.marked(world) if pid not in self._machines]

    def kill(self, pid: int) -> None:
        """Kill a process and wait until it is over."""
        processes.kill(pid)

    def wait_gone(self, pid: int, seconds: float) -> bool:
        """Wait until a process has ended; return whether it has."""
        return processes.wait_gone(pid, seconds)

    def kill_runners(self, world: str, ms: int) -> None:
        """Kill every process that works on its own, after some milliseconds."""
        processes.pause(ms * self._slow / 1000)
        for pid in processes.runners(world):
            processes.kill(pid)

    def end_world(self, world: str) -> None:
        """Kill everything of a world."""
        for pid in list(self._machines):
            self.machine_end(pid, kill=True)
        for pid in processes.marked(world):
            processes.kill(pid)

    # -- machines

    def machine_start(self, world: str, path: str, image_format: str) -> int:
        """Start a machine on a prepared path; return its number. MachineError when qemu refuses it."""
        with tempfile.TemporaryDirectory() as directory:  # only until it is connected
            running = start(path, image_format, self._environment(world), Path(directory) / "machine.sock")
        self._machines[running.process.pid] = running
        return running.process.pid

    def machine_write(self, number: int, write: int, first: int, count: int) -> None:
        """Write numbered blocks, durable when this returns. MachineError: nobody knows whether they are there."""
        if number not in self._machines:
            raise MachineError("the machine was ended beside this")
        self._machines[number].write(write, first, count)

    def machine_running(self, number: int) -> bool:
        """Say whether it runs."""
        return number in self._machines and self._machines[number].process.poll() is None

    def machine_end(self, number: int, kill: bool) -> None:
        """Shut it down, or kill it."""
        if machine := self._machines.pop(number, None):
            machine.end(kill=kill)

    def unlinked(self, number: int, below: list[str]) -> list[str]:
        """Return the files below some directories that a machine has open and that have no name any more."""
        return processes.unlinked_files(number, below)

    # -- files of a repository

    def damage(self, what: str, root: str, image: str, at: int) -> list[str]:
        """Damage an object of a repository; return the names of the files that are gone with it."""
        volumes = [path for path in (Path(root) / "volumes").rglob("*") if path.is_file()]
        damage.DAMAGES[what][1](Path(root), image, at)
        return [path.name for path in volumes if not path.exists()]

    def record_away(self, root: str, image: str, kept: str, whole: bool) -> str:
        """Take the newest generation of the record of an image, or all that there is of it (`whole`), to a directory
        `kept`; return where it was."""
        record = damage.record_of(Path(root), image)
        prefix = record.parent / f"{image}." if whole else record
        self.shell('mkdir "$2"; mv "$1"* "$2"', str(prefix), kept)
        return str(record.parent)

    def left_over(self, root: str) -> list[str]:
        """Return the files of a repository that an empty one has not."""
        found = []
        for directory in ("volumes", "lost", "tmp", "progress", "digests"):
            for parent, _, files in os.walk(Path(root) / directory):
                found += [os.path.relpath(f"{parent}/{name}", root) for name in files]
        return found

    def fill(self, directory: str) -> None:
        """Write files of ever smaller pieces until nothing fits any more."""
        for piece in (1 << 20, 1 << 10, 1):
            descriptor, _ = tempfile.mkstemp(prefix="filling-", dir=directory)
            with contextlib.suppress(OSError), open(descriptor, "wb", 0) as file:
                while True:
                    file.write(bytes(piece))

    def _start(self, argv: list[str], environment: dict[str, str]) -> "Started | subprocess.Popen[bytes]":
        if self._quick:
            return self._quick.start(argv, environment)
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )

    def _environment(self, world: str) -> dict[str, str]:
        keep = {key: value for key, value in os.environ.items() if not key.startswith(("DISKWRIGHT", "XDG"))}
        runtime = (self._runtime or Path(world)) / "run"
        if not runtime.exists():
            runtime.mkdir(parents=True, exist_ok=True, mode=0o700)
        own = {"NO_COLOR": "1", "HOME": f"{world}/home", "XDG_RUNTIME_DIR": str(runtime)}
        return {**keep, **own, processes.MARK: world, "PATH": f"{Path(self._command).parent}:{keep['PATH']}"}


def document_of(out: str) -> str:
    """Return the JSON document in the output of a command; one of `prepare --` may have written before it."""
    start = re.search(r"^\{", out, re.MULTILINE)
    return out[start.start() :] if start else "{}"
