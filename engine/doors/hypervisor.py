"""The hypervisor door: asking a running machine what it has open, and telling it to use something else.

A machine is reached by its *monitor*, which is written ``qmp:PATH`` or ``libvirt:URI/DOMAIN``, and the agent in its
guest by what that tells of it (``engine.data.monitors``). Whether it is the right
one is told by what it has open, and not by who it is: a machine may have been restarted or migrated by its manager.

A layer that a machine has open is a *node*. It is known by its name there, and by the path by which it was opened,
which may be a link that leads elsewhere by now.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from engine.doors.images import Layer

OURS = "dw-"
"""What the names begin with of nodes and jobs that a machine has because of us."""


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
    flushes: bool = True
    """What its guest flushes is (not so with cache=unsafe)."""


class Move(NamedTuple):
    """What a guest is to do with one of its disks."""

    node: str
    """What it writes to, and nothing stands on."""
    overlay: str
    """The added node above that, to which it writes then."""
    known_as: str
    """A manager that starts the machine anew, and knows the disk by the path of ``node``, knows it by this before it
    goes on, whatever follows."""


class Job(NamedTuple):
    """Work on its disks that a machine does by itself. How one of ours ended is told to whoever speaks to the machine
    at that moment, until it is forgotten; nobody else finds it."""

    kind: str
    status: str
    """As the machine calls it; "pending" when it waits to be finished, "concluded" when it has ended."""
    done: int = 0
    total: int = 0
    """How far it is, in units of its own; both may grow."""
    error: str = ""
    """Why it has failed."""

    @property
    def ended(self) -> bool:
        """Whether it does nothing any more."""
        return self.status == "concluded"


class Monitor(Protocol):
    """One machine, as long as it can be asked. One client at a time: it must be closed soon.

    Raises ToolFailed when the machine is gone, does not answer, or says that it cannot; then what was asked for may
    have been done all the same. ToolMissing when it is too old for that."""

    def nodes(self) -> list[Node]:
        """Return what the machine has open now."""

    def jobs(self) -> dict[str, Job]:
        """Return the jobs on block devices that the machine has under way, or keeps, by name."""

    def add_overlay(self, name: str, layer: Layer, like: str) -> None:
        """Have the machine open an empty overlay as a node of that name, with the caching of the node ``like``, or have
        it do so when it switches. Nothing is written, and nobody uses it yet. What has nothing below in its header is
        opened the same way, as what a mirror is to fill; of a device no more than is the image."""

    def close_node(self, name: str) -> None:
        """Have the machine close a node that was added, by us or by its manager, and that nobody uses."""

    def switch(self, moves: Sequence[Move]) -> None:
        """Let the guest go on in these overlays, of each disk at the same moment, and on error of none. What it has
        written before is flushed; nothing is written into what it has left any more once this returns."""

    def grow(self, node: str, size: int) -> None:
        """Make what a writable node writes to ``size`` bytes long; its guest is told, and may use it before this
        returns. Success when it is that long, ToolFailed when it is longer. Not durable on return."""

    def depth(self, node: str) -> int:
        """Return how many layers are below a node."""

    def job_name(self, job: str, node: str) -> str:
        """Return the name by which ``jobs`` tells of a job on a node that was started as ``job``. A manager has names
        of its own, which tell nothing of who has started it; Refused when it has none for a layer further down."""

    def pull(self, job: str, node: str, backing: str) -> None:
        """Start the job that brings into a node whatever shows through it of the layer directly below. The guest goes
        on, and sees the same throughout. The job is "pending" then, until it is finished; a manager finishes it
        itself, and forgets it. ToolFailed when that layer does not stand on one whose name in its header is
        ``backing``; "": on none."""

    def mirror(self, job: str, node: str, target: str) -> None:
        """Start the job that fills the added node ``target``, as long as ``node`` is, with all that a guest sees in
        ``node``, the top layer of its disk. The guest goes on; each of its writes goes into both from here on, and
        waits for both. The job is "ready" when all is there, and stays so until it is completed. It is kept when it
        has ended, also for whoever comes later. Refused by a manager that would end it by itself."""

    def complete(self, job: str) -> None:
        """Have a mirror that is ready come to "pending" soon: the guest waits then, both nodes read the same, and the
        target is durable. Finished, the guest goes on in the target, and cancelled in what it had."""

    def limit(self, job: str, rate: int) -> None:
        """Have a running job move so many bytes per second at most, 0: as fast as it goes."""

    def finish(self, job: str) -> None:
        """Have a node into which all was pulled, and which is durable, stand on what is below that layer, in its header
        too; or the guest of a pending mirror go on in its target. The job ends soon."""

    def write_back(self, node: str) -> None:
        """Have what the machine keeps in its own caches of a node written, if it can be told to. Else it is when its
        guest flushes next."""

    def cancel(self, job: str) -> None:
        """Have a job end soon; what it has brought stays. Success when it has ended."""

    def forget(self, job: str) -> None:
        """Tell no longer of a job that has ended."""

    def close(self) -> None:
        """Let others speak to the machine. Idempotent, never raises."""


class Hypervisors(Protocol):
    """The machines of this host."""

    def connect(self, monitor: str) -> Monitor:
        """Speak to a machine. BadRequest for what is no monitor, ToolFailed when it does not answer (also while
        somebody else speaks to it), ToolMissing when a library is not installed."""

    def frozen(self, monitor: str) -> bool:
        """Ask the agent in a guest whether its file systems are frozen. ToolFailed when there is none or it does not
        answer, ToolMissing."""

    def freeze(self, monitor: str) -> int:
        """Have the agent in a guest write out its file systems and hold up all that is written to them, until
        ``thaw``; return how many. Nobody is spoken to when this returns.

        ToolFailed when it does not, or not soon: they may be frozen all the same. ToolMissing."""

    def thaw(self, monitor: str) -> int:
        """Have a guest go on; return how many of its file systems were frozen until now. 0: none was, or there is no
        such machine. ToolFailed when it does not answer: they may be frozen. ToolMissing."""
