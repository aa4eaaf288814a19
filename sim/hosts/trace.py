"""What happened, one line per door call, and a digest that tells two runs apart."""

from __future__ import annotations

from hashlib import blake2b

from sim.hosts.processes import SimProcess


class Trace:
    """The lines of one run."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def step(self, now: float, process: SimProcess, call: str, what: str, note: str = "") -> None:
        """A door call of a process; ``note``: the fault that it met."""
        line = f"{len(self.lines) + 1:05d} {now:10.3f} {process.host.name}:{process.identity.pid} {call} {what}"
        self.lines.append(f"{line} !{note}" if note else line)

    def event(self, text: str) -> None:
        """Something that happened to the world."""
        self.lines.append(f"{len(self.lines) + 1:05d} {text}")

    @property
    def digest(self) -> str:
        """Equal for equal runs."""
        found = blake2b(digest_size=16)
        for line in self.lines:
            found.update(line.encode(errors="surrogateescape") + b"\n")
        return found.hexdigest()
