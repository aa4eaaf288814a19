"""Hosts: each runs the real command under its own name and with its own notes, and may be killed while it does."""

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.adversary.doors import processes
from tests.adversary.oracle.model import Said

PATIENCE_S = 300.0
_REFUSALS = (2, 3, 4, 5)


@dataclass(frozen=True)
class Kill:
    """When to kill: `ms` after the start, at the n-th change of `names` in a repository, or at `written` bytes there.

    `whom` is "command" (that process alone), "group" (all that it started in its session) or "runners".
    """

    whom: str
    ms: int = 0
    names: int = 0
    written: int = 0

    @staticmethod
    def of(action: dict[str, Any]) -> "Kill | None":
        """Return the kill that an action of a story asks for, if it does."""
        return Kill(**action["kill"]) if action.get("kill") else None


@dataclass
class Done:
    """A command that ended."""

    argv: list[str]
    host: str
    code: int
    output: Any
    error: str
    began: float
    ended: float
    struck: bool  # a kill hit it, or its runner

    @property
    def said(self) -> Said:
        """Say what is known now. A refusal changes nothing; any other failure is before or after."""
        if self.code == 0:
            return Said.DONE
        return Said.NO if self.code in _REFUSALS else Said.MAYBE

    @property
    def last_words(self) -> str:
        """Return the last line of its narration."""
        return self.error.strip().splitlines()[-1] if self.error.strip() else ""

    def __str__(self) -> str:
        line = " ".join(self.argv)
        end = f"{self.code}{' (struck)' if self.struck else ''} {self.last_words[:200]}"
        return f"{self.began:9.3f} +{self.ended - self.began:6.3f} {self.host} {line} -> {end}"


@dataclass
class Host:
    """One host of a world."""

    name: str
    world: Path
    command: str  # the program diskwright
    log: list[Done] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        """Return the environment of everything that runs in this world."""
        keep = {key: value for key, value in os.environ.items() if not key.startswith(("DISKWRIGHT", "XDG"))}
        own = {"NO_COLOR": "1", "HOME": str(self.world / "home"), "XDG_RUNTIME_DIR": str(self.world / "run")}
        return {**keep, **own, processes.MARK: str(self.world), "PATH": f"{Path(self.command).parent}:{keep['PATH']}"}

    def run(self, *argv: str, kill: Kill | None = None, watch: Path | None = None) -> Done:
        """Run a command to its end, or to the kill; `watch` is the directory whose changes a kill counts."""
        began = time.monotonic()
        options = ["--host", self.name, "--state", str(self.world / "state"), "--json"]
        process = subprocess.Popen(
            [self.command, *options, *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment(),
            start_new_session=True,
        )
        killer = _Killer(kill, process, str(self.world), watch) if kill else None
        try:
            out, err = process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            err += b"\nadversary: it did not end in time"
        struck = killer.finish() if killer else False
        done = Done(
            list(argv),
            self.name,
            process.returncode,
            _document(out),
            err.decode(errors="replace"),
            began,
            time.monotonic(),
            struck,
        )
        self.log.append(done)
        return done

    def prepared(self) -> list[dict[str, Any]]:
        """Return what is prepared on this host, as `tasks` tells it."""
        output = self.run("tasks").output
        return list(output.get("prepared", [])) if isinstance(output, dict) else []


class _Killer:
    """Watches for its moment in a thread of its own, and strikes once."""

    def __init__(self, kill: Kill, process: "subprocess.Popen[bytes]", mark: str, watch: Path | None) -> None:
        self._kill, self._process, self._mark, self._watch = kill, process, mark, watch
        self._struck = False
        self._victims: list[int] = []
        self._over = threading.Event()
        self._before = _names(watch) if watch else frozenset()
        self._used = _used(watch) if watch else 0
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def finish(self) -> bool:
        """Return whether it struck. Work that goes on after the command may still be struck for a second."""
        if self._kill.whom != "runners":
            self._over.set()
        self._thread.join()
        return self._struck

    def _wait(self) -> None:
        deadline = time.monotonic() + 20.0
        began = time.monotonic()
        ended = 0.0
        due = self._due()
        while not self._over.is_set() and time.monotonic() < deadline:
            if self._kill.whom == "runners" and not self._victims:
                self._victims = processes.runners(self._mark)  # known before the moment, lest it is missed
            if due(time.monotonic() - began):
                self._strike()
                return
            if self._process.poll() is not None:
                ended = ended or time.monotonic()
                if time.monotonic() - ended > 1.0:
                    return
            processes.pause(0.0005)

    def _due(self) -> Callable[[float], bool]:
        kill = self._kill
        if self._watch and kill.names:
            return lambda _spent: len(_names(self._watch) ^ self._before) >= kill.names
        if self._watch and kill.written:
            return lambda _spent: _used(self._watch) - self._used >= kill.written
        return lambda spent: spent * 1000 >= kill.ms

    def _strike(self) -> None:
        if self._kill.whom == "runners":
            for pid in [*self._victims, *processes.runners(self._mark)]:
                processes.kill(pid)
                self._struck = True
            return
        if self._process.poll() is None:
            self._struck = True
            if self._kill.whom == "group":
                for pid in _session(self._process.pid, self._mark):
                    processes.kill(pid)
            processes.kill(self._process.pid)


def _session(leader: int, mark: str) -> list[int]:
    found = []
    for pid in processes.marked(mark):
        try:
            if os.getsid(pid) == leader:
                found.append(pid)
        except OSError:
            continue
    return found


def _names(root: Path | None) -> frozenset[str]:
    """Return all names of files of a repository but the volumes'; they change when it commits."""
    found = []
    for directory in ("tags", "progress", "digests"):
        for parent, _, files in os.walk(root / directory if root else directory):
            found += [f"{parent}/{name}" for name in files]
    return frozenset(found)


def _used(root: Path | None) -> int:
    total = 0
    for parent, _, files in os.walk(root / "volumes" if root else "volumes"):
        for name in files:
            try:
                total += os.stat(f"{parent}/{name}").st_blocks * 512
            except OSError:
                continue
    return total


def _document(out: bytes) -> Any:
    text = out.decode(errors="replace")
    start = re.search(r"^\{", text, re.MULTILINE)  # a command of `prepare --` may have written before it
    try:
        return json.loads(text[start.start() :]) if start else {}
    except ValueError:
        return {}
