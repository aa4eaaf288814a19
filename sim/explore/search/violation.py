"""One violation again: what was lost and kept, which lines of the engine had done it, and less of it.

What is printed is JSON: {"case", "profile", "path": [[run, effect, state], …]}. Runs are deterministic, so this is
all that is needed; states are the numbers that ``sim.explore.search.cuts`` gives them.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, NamedTuple

from engine.errors import DiskwrightError
from sim.disk.storage import SimStorage
from sim.explore.cases.catalog import EXPLORED
from sim.explore.oracle.reference import Model
from sim.explore.search.canonical import key_and_boring
from sim.explore.search.cuts import Cut, cuts
from sim.explore.search.explorer import ENDED, KILLED, Explorer, Moment, PathStep, Violation

_MOST_FIXES = 60
_ENGINE = f"{os.sep}engine{os.sep}"


class Loss(NamedTuple):
    """Something that did not survive."""

    what: str
    line: str
    """Where the engine had done it, "" when an earlier run had."""


class Ending(NamedTuple):
    """How one run of a path ended."""

    run: str
    effect: int
    effects: int
    """Of the whole run."""
    next: str
    """The effect that it came to."""
    line: str
    how: str
    lost: tuple[Loss, ...]
    kept: tuple[str, ...]


class Account(NamedTuple):
    """A violation told in full."""

    endings: tuple[Ending, ...]
    problems: tuple[str, ...]


def to_text(violation: Violation) -> str:
    """Return a violation as JSON on one line."""
    path = [[step.run, step.effect, step.state] for step in violation.path]
    return json.dumps({"case": violation.case, "profile": violation.profile, "path": path})


def from_text(text: str) -> Violation:
    """Return the violation that was printed so; ValueError when it is none."""
    try:
        data = json.loads(text)
        path = tuple(PathStep(str(run), int(effect), int(state)) for run, effect, state in data["path"])
        case, profile = data["case"], data["profile"]
        if case not in EXPLORED:
            raise ValueError(f"there is no case {case!r:.60}")
    except (KeyError, TypeError) as error:
        raise ValueError(f"this is no violation of an exploration ({error})") from None
    return Violation(case, profile, path, ())


class Replay:
    """Follows the path of a violation."""

    def __init__(self, violation: Violation) -> None:
        self.explorer = Explorer(EXPLORED[violation.case], violation.profile)
        self.violation = violation
        self._lines: list[str] = []
        self._done: list[tuple[int, int, str]] = []
        """(first, last operation of the storage, the line that did them), of all runs."""

    def account(self) -> Account:
        """Follow the path to its end, then fix everything without a crash; tell all that is seen."""
        storage, models = self.explorer.driver.world.storage, self.explorer.driver.models
        endings: list[Ending] = []
        for depth, step in enumerate(self.violation.path):
            try:
                points = self._run(step, storage, models, depth)
            except (DiskwrightError, AssertionError) as error:
                return Account(tuple(endings), (f"{step.run} fails: {error!r}",))
            point = points[min(step.effect, len(points)) - 1]
            endings.append(self._ending(step, point, points, depth))
            models = point.models
            storage = point.storage if step.state in (KILLED, ENDED) else self._cut(point, step, depth).build()
        return Account(tuple(endings), tuple(self.problems(storage, models, len(self.violation.path))))

    def problems(self, storage: SimStorage, models: tuple[Model, ...], depth: int) -> list[str]:
        """What is wrong with a state, or becomes wrong when it is fixed with no further crash."""
        rank = None
        for _ in range(_MOST_FIXES):
            _, _, found = self.explorer.look(storage, models, depth)
            problems = list(found.problems)
            if rank is not None and not problems and found.rank >= rank:
                problems.append(f"I10 the fix brought nothing nearer to its end: rank {rank} then {found.rank}")
            if problems or not found.fixes:
                return problems
            rank = found.rank
            try:
                points = self.explorer.points_of(found.fixes[0][1].rule, storage, models, depth)
            except (DiskwrightError, AssertionError) as error:
                return [f"I10 the fix {found.fixes[0][1].rule} fails: {error!r}"]
            storage, models, depth = points[-1].storage, points[-1].models, depth + 1
        return ["I10 there is no end of fixes"]

    def shrunk(self) -> Violation:
        """The same with the fewest operations lost in the last power cut that still gives a violation."""
        where = [index for index, step in enumerate(self.violation.path) if step.state >= 0]
        if not where or any(step.state != ENDED for step in self.violation.path[where[-1] + 1 :]):
            return self.violation
        last = where[-1]
        storage, models = self.explorer.driver.world.storage, self.explorer.driver.models
        for depth, step in enumerate(self.violation.path[: last + 1]):
            points = self.explorer.points_of(step.run, storage, models, depth)
            point = points[step.effect - 1]
            models = point.models
            if depth == last:
                return self._least(point, depth, models)
            storage = point.storage if step.state in (KILLED, ENDED) else self._cut(point, step, depth).build()
        return self.violation

    def _least(self, point: Moment, depth: int, models: tuple[Model, ...]) -> Violation:
        path = self.violation.path[:depth]
        found = sorted(enumerate(self._cuts(point, depth)), key=lambda item: len(item[1].lost()))
        for number, cut in found[:200]:
            problems = self.problems(cut.build(), models, depth + 1)
            if problems:
                step = PathStep(self.violation.path[depth].run, point.number, number, cut.lost)
                return self.violation._replace(path=(*path, step), problems=tuple(problems))
        return self.violation

    # -- inside

    def _run(self, step: PathStep, storage: SimStorage, models: tuple[Model, ...], depth: int) -> list[Moment]:
        self._lines = []
        self.explorer.recorder.watch = lambda process, call, what: self._lines.append(_engine_line())
        try:
            points = self.explorer.points_of(step.run, storage, models, depth)
        finally:
            self.explorer.recorder.watch = None
        for index, line in enumerate(self._lines):
            self._done.append((points[index].storage.sequence, points[index + 1].storage.sequence, line))
        return points

    def _cuts(self, point: Moment, depth: int) -> list[Cut]:
        boring = key_and_boring(point.storage, exact=False)[1] if depth else []
        return list(cuts(point.storage, self.explorer.profile, boring))

    def _cut(self, point: Moment, step: PathStep, depth: int) -> Cut:
        return self._cuts(point, depth)[step.state]

    def _ending(self, step: PathStep, point: Moment, points: list[Moment], depth: int) -> Ending:
        line = self._lines[point.number - 1] if point.number <= len(self._lines) else ""
        how = {KILLED: "process killed", ENDED: "ended"}.get(step.state, "power cut")
        lost = self._cut(point, step, depth).lost() if step.state >= 0 else ()
        pending = point.storage.pending() if step.state >= 0 else []
        kept = tuple(text for text in pending if not any(text.startswith(one.partition(":")[0]) for one in lost))
        return Ending(
            step.run, point.number, len(points) - 1, f"{point.call} {point.what}".strip(), line, how,
            tuple(Loss(text, self._site(text, point.storage)) for text in lost), kept,
        )  # fmt: skip

    def _site(self, text: str, storage: SimStorage) -> str:
        named = [op.sequence for op in storage.log if op.text == text]
        if named:
            return self._line_of(named[-1])
        for path, inode, _ in storage.walk():
            if inode in storage.dirty and text.startswith(f"data of {path}:"):
                node: Any = storage.nodes[inode]
                lines = dict.fromkeys(self._line_of(op.sequence) for op in node.pending)
                return "; ".join(line for line in lines if line)
        return ""

    def _line_of(self, sequence: int) -> str:
        return next((line for first, last, line in reversed(self._done) if first < sequence <= last), "")


def _engine_line() -> str:
    """The innermost line of the engine on the stack, and who called it."""
    found: list[str] = []
    frame = sys._getframe(1)
    while frame is not None and len(found) < 3:
        name = frame.f_code.co_filename
        if _ENGINE in name and "<" not in frame.f_code.co_name:
            short = name[name.rindex(_ENGINE) + 1 :]
            found.append(f"{short}:{frame.f_lineno} ({frame.f_code.co_name})")
        frame = frame.f_back  # type: ignore[assignment]
    return " < ".join(found)
