"""The hypervisor door of a simulated process: the machines of its host, by their monitors.

Each call is a point at which the process may die before it; the machine does what it is told at once. A job of it gets
on with each question after jobs.
"""

from __future__ import annotations

from engine.doors.hypervisor import Job, Node
from engine.doors.images import Layer
from engine.errors import BadRequest, ToolFailed
from sim.hosts.processes import SimProcess, Spoken

CHANGES = frozenset(
    f"hypervisors.{name}"
    for name in (
        "add_overlay",
        "close_node",
        "switch",
        "grow",
        "jobs",
        "pull",
        "finish",
        "write_back",
        "cancel",
        "forget",
    )
)
"""Calls that change a machine."""


class SimHypervisors:
    """The machines of one host, as one process speaks to them."""

    def __init__(self, process: SimProcess) -> None:
        self._process = process

    def connect(self, monitor: str) -> SimMonitor:
        self._process.enter("hypervisors.connect", monitor)
        if not monitor.startswith("qmp:/"):
            raise BadRequest(f"{monitor!r:.200} is no monitor")
        return SimMonitor(self._process, monitor)


class SimMonitor:
    """One connection."""

    def __init__(self, process: SimProcess, monitor: str) -> None:
        self._process, self._monitor = process, monitor
        self._first = self._machine()
        self._first.listen()

    def _machine(self) -> Spoken:
        machine = self._process.host.monitors.get(self._monitor)
        if machine is None or not machine.running:
            raise ToolFailed(f"the machine at {self._monitor} does not answer")
        return machine

    def _same(self, call: str, what: str) -> Spoken:
        """The machine that was connected to: its successor has another monitor of the same name."""
        self._process.enter(f"hypervisors.{call}", what)
        if self._machine() is not self._first:
            raise ToolFailed(f"the machine at {self._monitor} is gone")
        return self._first

    def nodes(self) -> list[Node]:
        return self._same("nodes", self._monitor).nodes()

    def jobs(self) -> dict[str, Job]:
        return self._same("jobs", self._monitor).jobs()

    def depth(self, node: str) -> int:
        return self._same("depth", node).depth(node)

    def pull(self, job: str, node: str, backing: str) -> None:
        self._same("pull", job).pull(job, node, backing)

    def finish(self, job: str) -> None:
        self._same("finish", job).finish(job)

    def write_back(self, node: str) -> None:
        self._same("write_back", node).write_back(node)

    def cancel(self, job: str) -> None:
        self._same("cancel", job).cancel(job)

    def forget(self, job: str) -> None:
        self._same("forget", job).forget(job)

    def add_overlay(self, name: str, layer: Layer, like: str) -> None:
        self._same("add_overlay", name).add_overlay(name, layer)

    def close_node(self, name: str) -> None:
        self._same("close_node", name).close_node(name)

    def job_name(self, job: str, node: str) -> str:
        del node
        return job

    def switch(self, node: str, overlay: str, known_as: str) -> None:
        del known_as
        self._same("switch", overlay).switch(node, overlay)

    def grow(self, node: str, size: int) -> None:
        self._same("grow", f"{node} to {size}").grow(node, size)

    def close(self) -> None:
        """Nobody else waits for it."""
