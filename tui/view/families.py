"""Families: which images stand on which, and what that saves. A picture for people, not something to build on: which
image is physically based on which may change with every fix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from engine.api import Engine
from engine.data.model import ImageReport
from engine.survey import survey
from engine.triage.judge import judge
from engine.triage.view import Graph
from tui.text.printable import printable
from tui.text.statuses import State


class Member(NamedTuple):
    """An image, or data that is not shown as one, in its family. Texts are printable."""

    id: str
    name: str
    """"" when it has none."""
    state: State
    """HIDDEN for data that something else still needs."""
    kind: str
    """disk or snapshot."""
    size_bytes: int
    own_bytes: int
    """What its own layer occupies; at most, where files share blocks."""
    below_bytes: int
    """What the layers below it occupy, which it reads through; others may too."""
    parent: str
    """Id of the member it stands on, "" for the one that stands on nothing."""
    last: tuple[bool, ...]
    """For each level above it and its own, whether nothing comes after on that level; empty for the first."""

    @property
    def label(self) -> str:
        """What to call it."""
        return self.name or self.id[:8]

    def branch(self, unicode: bool = True) -> str:
        """The lines of the tree before its name."""
        if not self.last:
            return ""
        past, here = (("   ", "│  "), ("└─ ", "├─ ")) if unicode else (("   ", "|  "), ("`- ", "|- "))
        return "".join(past[0] if last else past[1] for last in self.last[:-1]) + here[0 if self.last[-1] else 1]


Family = tuple[Member, ...]
"""From the member that stands on nothing on, each before those that stand on it."""


def families(engine: Engine, repo_id: str) -> tuple[Family, ...]:
    """The families of a repository, the largest first. One read-only look; raises the engine's errors."""
    context = engine.context
    seen = survey.look(context, context.repository(repo_id))
    graph = Graph(seen)
    reports = {report.id: report for report in judge(seen).images}
    parents = {id: _parent(graph, id, reports) for id in reports}
    children: dict[str, list[str]] = {}
    for id in sorted(reports, key=lambda id: (not reports[id].name, reports[id].name, id)):
        children.setdefault(parents[id], []).append(id)
    found, known = [], set[str]()
    for root in (*children.get("", ()), *reports):  # whoever is in a circle is under no root
        if root not in known:
            family = tuple(_members(root, reports, parents, children, known))
            found.append(family)
    return tuple(sorted(found, key=lambda family: (-len(family), -sum(member.own_bytes for member in family))))


def _parent(graph: Graph, id: str, reports: Mapping[str, ImageReport]) -> str:
    record = graph.record(id)
    volume = record.volume if record is not None else None
    return volume.parent if volume is not None and volume.parent in reports and volume.parent != id else ""


def _members(
    root: str,
    reports: Mapping[str, ImageReport],
    parents: Mapping[str, str],
    children: Mapping[str, list[str]],
    known: set[str],
) -> Iterator[Member]:
    """The root and all that stand on it, each before its children; no recursion: a chain may be long."""
    todo: list[tuple[str, int, tuple[bool, ...]]] = [(root, 0, ())]
    while todo:
        id, below, last = todo.pop()
        if id in known:
            continue
        known.add(id)
        report = reports[id]
        yield Member(
            id, printable(report.name), _state(report), "disk" if report.mutable else "snapshot", report.size_bytes,
            report.used_bytes, below, parents[id] if last else "", last,
        )  # fmt: skip
        above = children.get(id, [])
        todo += [
            (child, below + report.used_bytes, (*last, number == len(above) - 1))
            for number, child in reversed(list(enumerate(above)))
        ]


def _state(report: ImageReport) -> State:
    if report.hidden:
        return State.HIDDEN
    return State.REMOVED if report.removed else State(report.status)
