"""The hypervisor door: asking a running machine what it has open, and telling it to use something else.

A machine is reached by its *monitor*, which is written ``qmp:PATH``. Whether it is the right one is told by what it has
open, and not by who it is: a machine may have been restarted or migrated by its manager.

A layer that a machine has open is a *node*. It is known by its name there, and by the path by which it was opened,
which may be a link that leads elsewhere by now.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from engine.doors.images import Layer


class Node(NamedTuple):
    """A layer that a machine has open, or what is below a layer (the file itself)."""

    name: str
    path: str
    """As it was opened; "" for what is no file."""
    format: str
    """The driver: "qcow2", "raw", or that of a file or device itself."""
    writable: bool
    """The machine may write to it, or has opened it so."""
    backing: str
    """The backing name in its header, "" for none."""
    size: int
    """In bytes, as the machine sees it."""
    has_backing: bool = False
    """Another node is below it."""


class Monitor(Protocol):
    """One machine, as long as it can be asked. One client at a time: it must be closed soon.

    Raises ToolFailed when the machine is gone, does not answer, or says that it cannot; then what was asked for may
    have been done all the same. ToolMissing when it is too old for that."""

    def nodes(self) -> list[Node]:
        """Return what the machine has open now."""

    def jobs(self) -> list[str]:
        """Name the jobs on block devices that the machine has under way, a few words each."""

    def add_overlay(self, name: str, layer: Layer, like: str) -> None:
        """Have the machine open an empty overlay as a node of that name, with the caching of the node ``like``. Nothing
        is written, and nobody uses it yet."""

    def remove_overlay(self, name: str) -> None:
        """Have the machine close a node that was added and that nobody uses."""

    def switch(self, node: str, overlay: str) -> None:
        """Let the guest of ``node``, which nothing stands on, go on in the added node ``overlay`` above it. What it has
        written before is flushed; nothing is written into ``node`` any more once this returns."""

    def grow(self, node: str, size: int) -> None:
        """Make what a writable node writes to ``size`` bytes long; its guest is told, and may use it before this
        returns. Success when it is that long, ToolFailed when it is longer. Not durable on return."""

    def close(self) -> None:
        """Let others speak to the machine. Idempotent, never raises."""


class Hypervisors(Protocol):
    """The machines of this host."""

    def connect(self, monitor: str) -> Monitor:
        """Speak to a machine. BadRequest for what is no monitor, ToolFailed when it does not answer (also while
        somebody else speaks to it), ToolMissing when a library is not installed."""
