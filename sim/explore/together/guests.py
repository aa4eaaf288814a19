"""A running machine that has several disks."""

from __future__ import annotations

from collections.abc import Sequence

from engine.doors.hypervisor import Job, Move, Node
from engine.doors.images import Layer
from engine.errors import ToolFailed
from sim.hosts.machine import SimMachine
from sim.hosts.processes import SimHost


class SimGuest:
    """A machine with several disks, each a ``SimMachine`` without a monitor: they live and die together."""

    def __init__(self, host: SimHost, disks: Sequence[SimMachine], monitor: str) -> None:
        """Their nodes must have other names."""
        self.disks = disks
        self.monitor = monitor
        self._layers: dict[str, Layer] = {}
        host.monitors[monitor] = self

    @property
    def running(self) -> bool:
        """Whether it is neither dead nor frozen."""
        return all(disk.running for disk in self.disks)

    @property
    def has_agent(self) -> bool:
        """Whether the agent in its guest answers."""
        return self.disks[0].has_agent

    @property
    def guest_frozen(self) -> bool:
        """Whether its guest writes nothing."""
        return self.disks[0].guest_frozen

    def freeze_guest(self) -> int:
        """Write out what the guest has, and write no more."""
        return sum(disk.freeze_guest() for disk in self.disks)

    def thaw_guest(self) -> int:
        """Go on."""
        return sum(disk.thaw_guest() for disk in self.disks)

    def kill(self) -> None:
        """Kill it: nothing is written back."""
        for disk in self.disks:
            disk.kill()

    def stop(self) -> None:
        """Shut it down."""
        for disk in self.disks:
            disk.stop()

    def listen(self) -> None:
        """Another one speaks to it."""
        for disk in self.disks:
            disk.listen()

    def nodes(self) -> list[Node]:
        """Those of all disks."""
        return [node for disk in self.disks for node in disk.nodes()]

    def _with(self, node: str) -> SimMachine:
        for disk in self.disks:
            if node in [found.name for found in disk.nodes()]:
                return disk
        raise ToolFailed(f"there is no node {node}")

    def add_overlay(self, name: str, layer: Layer) -> None:
        """Open a layer that nobody uses yet."""
        if name in self._layers:
            raise ToolFailed(f"duplicate nodes with the name {name}")
        self.disks[0].add_overlay(name, layer)
        self._layers[name] = layer

    def close_node(self, name: str) -> None:
        """Close it."""
        self._with(name).close_node(name)
        self._layers.pop(name, None)

    def switch(self, moves: Sequence[Move]) -> None:
        """Go on with all of them, or with none."""
        disks = [self._with(move.node) for move in moves]
        for disk, move in zip(disks, moves, strict=True):
            if move.overlay not in self._layers:
                raise ToolFailed(f"there is no node {move.overlay}")
            if (has := self._with(move.overlay)) is not disk:
                has.close_node(move.overlay)
                disk.add_overlay(move.overlay, self._layers[move.overlay])
            disk.require_able(move.node, move.overlay)
        for disk, move in zip(disks, moves, strict=True):
            disk.switch([move])

    def grow(self, node: str, size: int) -> None:
        """Make one disk longer."""
        self._with(node).grow(node, size)

    def jobs(self) -> dict[str, Job]:
        """Get on with each, and tell of them."""
        return {name: job for disk in self.disks for name, job in disk.jobs().items()}

    def _doing(self, job: str) -> SimMachine:
        return next((disk for disk in self.disks if job in disk.rates()), self.disks[0])

    def depth(self, node: str) -> int:
        """How many layers are below one."""
        return self._with(node).depth(node)

    def pull(self, job: str, node: str, backing: str) -> None:
        """Begin."""
        self._with(node).pull(job, node, backing)

    def mirror(self, job: str, node: str, target: str) -> None:
        """Begin."""
        self._with(node).mirror(job, node, target)

    def complete(self, job: str) -> None:
        """Have its guest wait."""
        self._doing(job).complete(job)

    def limit(self, job: str, rate: int) -> None:
        """Note it."""
        self._doing(job).limit(job, rate)

    def finish(self, job: str) -> None:
        """Stand on what is below the next layer."""
        self._doing(job).finish(job)

    def write_back(self, node: str) -> None:
        """Flush."""
        self._with(node).write_back(node)

    def cancel(self, job: str) -> None:
        """End it where it is."""
        self._doing(job).cancel(job)

    def forget(self, job: str) -> None:
        """Drop one that has ended."""
        self._doing(job).forget(job)
