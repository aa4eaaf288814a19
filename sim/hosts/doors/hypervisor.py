"""The hypervisor door of a simulated process: the machines of its host, by their monitors.

Each call is a point at which the process may die before it; the machine does what it is told at once. Jobs of machines
are not modelled.
"""

from __future__ import annotations

from engine.doors.hypervisor import Node
from engine.doors.images import Layer
from engine.errors import BadRequest, ToolFailed
from sim.hosts.processes import SimProcess, Spoken

CHANGES = frozenset(f"hypervisors.{name}" for name in ("add_overlay", "remove_overlay", "switch", "grow"))
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

    def jobs(self) -> list[str]:
        self._same("jobs", self._monitor)
        return []

    def add_overlay(self, name: str, layer: Layer, like: str) -> None:
        self._same("add_overlay", name).add_overlay(name, layer)

    def remove_overlay(self, name: str) -> None:
        self._same("remove_overlay", name).remove_overlay(name)

    def switch(self, node: str, overlay: str) -> None:
        self._same("switch", overlay).switch(node, overlay)

    def grow(self, node: str, size: int) -> None:
        self._same("grow", f"{node} to {size}").grow(node, size)

    def close(self) -> None:
        """Nobody else waits for it."""
