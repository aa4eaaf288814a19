"""Hosts: each runs the real command under its own name and with its own notes, on the machine whose hands it has."""

import contextlib
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.adversary.doors.hands import Gone, Hands, document_of
from tests.adversary.doors.kills import Kill
from tests.adversary.doors.machines import MachineError
from tests.adversary.oracle.model import Said

_REFUSALS = (2, 3, 4, 5)
_DIED = [-9, "", "the host has died", True]


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
    hands: Hands
    state: str  # the directory of its notes, in that of the world
    log: list[Done] = field(default_factory=list)

    def run(self, *argv: str, kill: Kill | None = None, watch: Path | None = None) -> Done:
        """Run a command to its end, or to the kill; `watch` is the directory whose changes a kill counts."""
        began = time.monotonic()
        options = ["--host", self.name, "--state", str(self.world / self.state), "--json"]
        striking = asdict(kill) if kill else None
        try:
            told = self.hands.run(str(self.world), options, list(argv), striking, str(watch) if watch else None)
        except Gone:
            told = _DIED
        code, out, error, struck = told
        done = Done(list(argv), self.name, code, _document(out), error, began, time.monotonic(), struck)
        self.log.append(done)
        return done

    def prepared(self) -> list[dict[str, Any]]:
        """Return what is prepared on this host, as `tasks` tells it."""
        output = self.run("tasks").output
        return list(output.get("prepared", [])) if isinstance(output, dict) else []


@dataclass
class Machine:
    """One machine that has one disk open. It lives until it is stopped or killed, whatever its holder does."""

    repository: str
    image: str
    host: str
    holder: int  # the process that `prepare` named
    hands: Hands
    number: int
    torn_down: bool = False

    def write(self, write: int, first: int, count: int) -> None:
        """Write numbered blocks, durable when this returns. MachineError when it is not known."""
        try:
            self.hands.machine_write(self.number, write, first, count)
        except Gone as error:
            raise MachineError(str(error)) from error

    def running(self) -> bool:
        """Say whether it runs."""
        with contextlib.suppress(Gone):
            return self.hands.machine_running(self.number)
        return False

    def end(self, *, kill: bool) -> None:
        """Shut it down, or kill it."""
        with contextlib.suppress(Gone):
            self.hands.machine_end(self.number, kill)


def _document(out: str) -> Any:
    try:
        return json.loads(document_of(out))
    except ValueError:
        return {}
