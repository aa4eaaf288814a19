"""What a running step persists, seen from beside it: for the bar, the log and the rate."""

from __future__ import annotations

from typing import Any

from engine.api import Engine
from engine.errors import DiskwrightError
from tui.text.amounts import compact
from tui.view import live
from tui.view.snapshot import HostOperation
from tui.work.run_notes import RunNote, StepNote

_LOOK_S = 0.25
_MOST_SAMPLES = 200


class Watch:
    """Looks at the image of one step while its task runs."""

    def __init__(self, engine: Engine, run: RunNote, step: StepNote, done_before: int = 0) -> None:
        """``done_before``: bytes that were done before the step began, by an attempt that it goes on with."""
        self._engine = engine
        self._run = run
        self._step = step
        self._next = 0.0
        self._first: tuple[float, int] | None = None
        self._last: HostOperation | None = None
        self._begun_with = (step.started, done_before)
        self.samples: list[tuple[float, int]] = []
        """What was done at which time, from the beginning of the step on; thinned out when there are many."""
        self.rate = 0.0
        """Bytes per second in this stage, 0: not known."""
        self.fresh: list[str] = []
        """What is news since the last look, for the log."""

    @property
    def begun(self) -> bool:
        """Whether anything of this step was persisted."""
        return self._last is not None

    def look(self) -> bool:
        """Whether there is something to note. Looks four times a second at most, whoever asks how often."""
        self.fresh = []
        now = self._engine.doors.clock.monotonic()
        if now < self._next or not self._step.fix.images:
            return False
        self._next = now + _LOOK_S
        try:
            found = live.operation(self._engine, self._run.repo_id, self._step.fix.images[0])
        except DiskwrightError:
            return False  # the step itself will say what is wrong
        if found is None or found.when < self._step.started - 1:
            return False  # what is recorded is an earlier operation
        self._see(found, now)
        return True

    def _see(self, found: HostOperation, now: float) -> None:
        done = _done(found)
        if self._first is None or self._last is None or self._last.stage_name != found.stage_name:
            self._first = (now, done)
            self.fresh.append(f"stage {found.stage}/{found.stages} {found.stage_name}")
        elif found.percent != self._last.percent:
            started, begun = self._first
            self.rate = (done - begun) / (now - started) if now > started else 0.0
            self.fresh.append(f"saved at {found.percent} %, {compact(done)} of {compact(found.size_bytes)}")
        self._last = found
        if found.percent < 0:
            return
        if not self.samples:
            self.samples.append(self._begun_with)
        if self.samples[-1][1] != done:
            self.samples.append((self._engine.doors.clock.wall(), done))
            if len(self.samples) > _MOST_SAMPLES:
                self.samples = self.samples[:-1:2] + self.samples[-1:]

    def note(self) -> dict[str, Any]:
        """What was seen last, as the note that consoles read."""
        assert self._last is not None
        found = self._last
        return {
            "step": self._step.number, "stage": found.stage, "stages": found.stages, "stage_name": found.stage_name,
            "percent": found.percent, "when": found.when, "size_bytes": found.size_bytes, "rate": self.rate,
            "samples": self.samples,
        }  # fmt: skip


def found_done(engine: Engine, repo_id: str, step: StepNote) -> int:
    """Return how many bytes of the work of a step are done before it begins; 0 where that cannot be read."""
    try:
        found = live.operation(engine, repo_id, step.fix.images[0]) if step.fix.images else None
    except DiskwrightError:
        return 0  # the step itself will say what is wrong
    return _done(found) if found is not None and not found.finished else 0


def _done(found: HostOperation) -> int:
    return found.size_bytes * max(0, found.percent) // 100
