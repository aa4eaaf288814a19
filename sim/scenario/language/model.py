"""A scenario after reading: plain data, every reference checked."""

from __future__ import annotations

from typing import Any, NamedTuple


class RepositoryPlan(NamedTuple):
    """A repository that a scenario has."""

    name: str
    directory: str
    """Directory of the repository on disk."""
    format: str
    server: str = ""
    """The name of the server that has it (nfs)."""
    shared: bool = False
    """All hosts work in it at once (lvm)."""


class Point(NamedTuple):
    """Where a process is interrupted: one of the four."""

    before: str = ""
    nth: int = 1
    effect: int = 0
    percent: int = -1
    each: bool = False
    """Before every effect in turn: the scenario is played once for each."""

    def __str__(self) -> str:
        if self.each:
            return "before each effect"
        if self.before:
            return f"before {self.before}" + (f" number {self.nth}" if self.nth > 1 else "")
        return f"before effect {self.effect}" if self.effect else f"at {self.percent} %"


class Interruption(NamedTuple):
    """What happens to the process of a step."""

    how: str
    """crash, freeze or stop."""
    point: Point
    job: str = ""
    """The name of the frozen process."""


class FaultPlan(NamedTuple):
    """A fault that calls of a step meet."""

    error: str
    call: str
    nth: int
    times: int
    """0: all from there on."""
    repository: str
    image: str
    part: str


class ExpectedError(NamedTuple):
    """How a step must fail."""

    codes: tuple[str, ...]
    """Its code is one of these; none: any."""
    says: str


class Step(NamedTuple):
    """One step."""

    verb: str
    line: int
    values: dict[str, Any]
    """By field, in the form that ``parse`` gives them."""
    lines: dict[str, int]
    """Where each field stands."""
    text: str
    """The step in one line, for people."""
    host: str
    interruption: Interruption | None = None
    faults: tuple[FaultPlan, ...] = ()
    error: ExpectedError | None = None
    may_fail: tuple[str, ...] = ()
    within_s: float = 0.0
    """How long a step that fails is tried again."""
    note: str = ""
    process: str = ""
    """The name of the process that does it, which goes on afterwards; "": one of its own."""
    subject: str = ""
    """Of an expectation: image, in, fix or file; "" where it has alternatives."""
    alternatives: tuple[Step, ...] = ()
    """Of an expectation: one of these holds."""


class Scenario(NamedTuple):
    """A whole scenario."""

    path: str
    title: str
    story: str
    backends: tuple[str, ...]
    profile: str
    repositories: tuple[RepositoryPlan, ...]
    hosts: tuple[str, ...]
    steps: tuple[Step, ...]
