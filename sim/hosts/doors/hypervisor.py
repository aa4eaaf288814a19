"""The hypervisor door of a simulated process: the machines of its host, by their monitors.

Each call is a point at which the process may die before it; the machine does what it is told at once. A job of it gets
on with each question after jobs.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.data import monitors
from engine.data.model import VolumeFormat
from engine.doors.hypervisor import Job, Move, Node
from engine.doors.images import Layer
from engine.errors import Refused, ToolFailed
from sim.hosts.processes import SimProcess, Spoken

CHANGES = frozenset(
    f"hypervisors.{name}"
    for name in (
        "add_overlay",
        "close_node",
        "define",
        "switch",
        "grow",
        "jobs",
        "pull",
        "mirror",
        "complete",
        "limit",
        "finish",
        "write_back",
        "cancel",
        "forget",
        "freeze",
        "thaw",
    )
)
"""Calls that change a machine."""


class SimHypervisors:
    """The machines of one host, as one process speaks to them."""

    def __init__(self, process: SimProcess) -> None:
        self._process = process

    def connect(self, monitor: str) -> SimMonitor:
        self._process.enter("hypervisors.connect", monitor)
        kind = SimDomain if isinstance(monitors.parse(monitor), monitors.Libvirt) else SimMonitor
        return kind(self._process, monitor)

    def frozen(self, monitor: str) -> bool:
        self._process.enter("hypervisors.frozen", monitor)
        return self._guest(monitor).guest_frozen

    def freeze(self, monitor: str) -> int:
        self._process.enter("hypervisors.freeze", monitor)
        return self._guest(monitor).freeze_guest()

    def thaw(self, monitor: str) -> int:
        self._process.enter("hypervisors.thaw", monitor)
        there = _machine_at(self._process, monitor) is not None
        return self._guest(monitor).thaw_guest() if there else 0

    def _guest(self, monitor: str) -> Spoken:
        machine = _machine_at(self._process, monitor)
        if machine is None or not machine.has_agent:
            raise ToolFailed(f"the guest agent at {monitor} does not answer")
        return machine


class SimMonitor:
    """One connection."""

    def __init__(self, process: SimProcess, monitor: str) -> None:
        self._process, self._monitor = process, monitor
        self._first = self._machine()
        self._first.listen()

    def _machine(self) -> Spoken:
        machine = _machine_at(self._process, self._monitor)
        if machine is None:
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

    def mirror(self, job: str, node: str, target: str) -> None:
        self._same("mirror", job).mirror(job, node, target)

    def complete(self, job: str) -> None:
        self._same("complete", job).complete(job)

    def limit(self, job: str, rate: int) -> None:
        self._same("limit", f"{job} to {rate}").limit(job, rate)

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

    def switch(self, moves: Sequence[Move]) -> None:
        self._same("switch", " ".join(move.overlay for move in moves)).switch(moves)

    def grow(self, node: str, size: int) -> None:
        self._same("grow", f"{node} to {size}").grow(node, size)

    def close(self) -> None:
        """Nobody else waits for it."""


class SimDomain(SimMonitor):
    """A machine behind libvirt, which opens an overlay as it switches, ends a merge by itself as soon as all is moved,
    has names of its own for jobs, and starts the machine anew as ``SimHost.definitions`` says."""

    def __init__(self, process: SimProcess, monitor: str) -> None:
        super().__init__(process, monitor)
        self._overlays: dict[str, Layer] = {}

    def add_overlay(self, name: str, layer: Layer, like: str) -> None:
        self._overlays[name] = layer

    def close_node(self, name: str) -> None:
        self._overlays.pop(name, None)

    def switch(self, moves: Sequence[Move]) -> None:
        """The definition first, if it has the name by which a disk is open; then the snapshot."""
        for move in moves:
            self._define(move)
        machine = self._same("switch", " ".join(move.overlay for move in moves))
        for move in moves:
            machine.add_overlay(move.overlay, self._overlays.pop(move.overlay))
        machine.switch(moves)

    def _define(self, move: Move) -> None:
        opened = next(found.path for found in self.nodes() if found.name == move.node)
        definitions = self._process.host.definitions
        if definitions.get(self._monitor, ("", ""))[0] == _name(opened):
            self._same("define", move.known_as)
            definitions[self._monitor] = _name(move.known_as), str(VolumeFormat.QCOW2)

    def jobs(self) -> dict[str, Job]:
        """Whatever has moved all is finished, and what has ended is forgotten."""
        machine = self._same("jobs", self._monitor)
        found = machine.jobs()
        for name, job in found.items():
            if job.status == "pending":
                machine.finish(name)
            if job.status == "pending" or job.ended:
                machine.forget(name)
        return {name: job for name, job in found.items() if job.status != "pending" and not job.ended}

    def job_name(self, job: str, node: str) -> str:
        del job
        if node != self.nodes()[0].name:
            raise Refused("libvirt moves what is below into the top layer alone")
        return f"pull-{node}"

    def pull(self, job: str, node: str, backing: str) -> None:
        super().pull(self.job_name(job, node), node, backing)

    def mirror(self, job: str, node: str, target: str) -> None:
        """It would not wait."""
        raise Refused("libvirt has no moment at which the record could change safely")

    def finish(self, job: str) -> None:
        """There is none that waits."""

    def forget(self, job: str) -> None:
        """It is forgotten."""


def _machine_at(process: SimProcess, monitor: str) -> Spoken | None:
    """The machine of its host that is spoken to so, if it runs."""
    there = process.host.monitors.items()
    return next((machine for told, machine in there if machine.running and monitors.same(told, monitor)), None)


def _name(path: str) -> str:
    return path.rpartition("/")[2]
