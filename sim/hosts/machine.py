"""A virtual machine of the simulator: it opens what was prepared, as given, and writes to it as long as it lives.

It is a process of its host, no child of the engine and without any of its leases: whoever prepared the image may be
killed meanwhile, and the machine goes on. Its death loses what it had not flushed out of qemu's caches; a power cut
loses besides what was not durable, as for all that is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from engine.data.model import VolumeFormat
from engine.doors.hypervisor import Job, Move, Node
from engine.doors.images import Data, Layer
from engine.errors import StorageError, ToolFailed, from_os_error
from engine.tools.qemu.qcow2 import Header, parse_header
from sim.disk.files import SimHandle
from sim.disk.nodes import FileNode, LinkNode
from sim.hosts.processes import SimHost, SimProcess
from sim.lvm.volume_groups import DEVICE_ROOT, SimDevice
from sim.qemu.images import SimImageTool, SimSession, UnsafeImageTool
from sim.qemu.jobs import Mirror, Pull, Work
from sim.qemu.layers import NoImageLocks

PROGRAM = "qemu-io"
WRITEBACK, UNSAFE = "writeback", "unsafe"
CACHES = (WRITEBACK, UNSAFE)
"""How it handles flushes: they reach the storage, or they end in qemu."""

_HEADER_BYTES = 65536
_PULLED_BYTES = 4096
_MIRRORED_BYTES = 65536


class _Open(NamedTuple):
    """What a machine has open beside what its guest uses: an added node, or the layers that it has left."""

    session: SimSession
    chain: list[Layer]
    nodes: list[Node]


class SimMachine:
    """A running machine with one disk."""

    def __init__(
        self,
        host: SimHost,
        path: str,
        format: str,
        cache: str = WRITEBACK,
        monitor: str = "",
        locking: bool = True,
        nodes: str = "#block",
    ) -> None:
        """Start it on the path that ``prepare`` gave. ``monitor``: where it can be spoken to. Without ``locking`` it
        takes no lock on what it opens. ``nodes``: how it calls them. StorageError: qemu cannot open that path."""
        self.process = host.process(PROGRAM)
        self._path, self._names = path, nodes
        self.monitor = monitor
        """Where it can be spoken to, "" where it cannot."""
        self._added: dict[str, tuple[Layer, Node]] = {}
        """Nodes that nobody uses yet, by name."""
        self._flushes = cache != UNSAFE
        self._locking = locking
        self._pulls: dict[str, Pull] = {}
        self._mirrors: dict[str, Mirror] = {}
        self._beside: dict[str, _Open] = {}
        """By the name of the node on top."""
        self.obeys = True
        """It writes its caches back when it is told to."""
        self.has_agent = True
        """The agent in its guest answers."""
        self.guest_frozen = False
        try:
            tool = UnsafeImageTool if cache == UNSAFE else SimImageTool
            locks = host.world.image_locks if locking else NoImageLocks(host.world.image_locks)
            self._images = tool(self.process.files, locks, self.process.files.owner)
            self.process.at_death(self._images.abandon)
            self._chain = block_graph(self.process, path, format)
            self._session: SimSession = self._images.open_session(self._chain, True, False)
            self._nodes = self._opened()
            if monitor:
                host.monitors[monitor] = self
        except BaseException:
            self.process.end()
            raise

    @property
    def running(self) -> bool:
        """Whether it is neither dead nor frozen."""
        return not self.process.dead and not self.process.frozen

    @property
    def stands_still(self) -> bool:
        """Whether its guest waits: a job is pending, or its file systems are frozen."""
        return self.guest_frozen or any(job.status == "pending" for job in self._mirrors.values())

    def write(self, start: int, data: Data) -> None:
        """Write into the disk; nothing is flushed."""
        assert not self.stands_still, "its guest waits"
        self._session.write(start, data)
        for job in self._mirrors.values():
            if job.mirrors:
                self._beside[job.target].session.write(start, data)

    def read(self) -> bytes:
        """All of the disk, as its guest sees it."""
        return self._session.read(0, self._session.size)

    def flush(self) -> None:
        """Flush, as far as the cache mode passes that on."""
        self._session.flush()

    # -- what the agent in its guest does

    def freeze_guest(self) -> int:
        """Write out what the guest has, and write no more."""
        self._session.flush()
        self.guest_frozen = True
        return 1

    def thaw_guest(self) -> int:
        """Go on; of how many file systems that is true."""
        frozen, self.guest_frozen = self.guest_frozen, False
        return int(frozen)

    # -- what its monitor does (``engine.doors.hypervisor``)

    def listen(self) -> None:
        """Forget how jobs ended: that is told once, to who speaks to it then."""
        self._pulls = {name: job for name, job in self._pulls.items() if job.status != "concluded"}

    def nodes(self) -> list[Node]:
        """What it has open, top first."""
        beside = [node for opened in self._beside.values() for node in opened.nodes]
        return [*self._nodes, *(node for _, node in self._added.values()), *beside]

    def _opened(self) -> list[Node]:
        folder, found, path = self._path.rpartition("/")[0], [], self._path
        for index, layer in enumerate(self._chain):
            header = _header(self.process, layer)
            backing = (header.backing_name if header else None) or ""
            size = header.size if header else self._session.size
            below, flushes = bool(backing), self._flushes
            found.append(
                Node(f"{self._names}{index}", path, str(layer.format), index == 0, backing, size, below, flushes)
            )
            path = f"{folder}/{backing}"
        return found

    def add_overlay(self, name: str, layer: Layer) -> None:
        """Open a layer that nobody uses yet."""
        if name in [node.name for node in self.nodes()]:
            raise ToolFailed(f"duplicate nodes with the name {name}")
        header = _header(self.process, layer)
        if header is None or header.backing_name is None:
            session = self._images.open_session([layer], True, False)
            node = Node(name, layer.path, str(layer.format), True, "", session.size, False, self._flushes)
            self._beside[name] = _Open(session, [layer], [node])
            return
        self._added[name] = layer, Node(name, layer.path, "qcow2", True, header.backing_name or "", header.size)

    def close_node(self, name: str) -> None:
        """Close it."""
        if name in self._beside and not any(job.target == name and not job.error for job in self._mirrors.values()):
            self._beside.pop(name).session.close()
        elif self._added.pop(name, None) is None:
            raise ToolFailed(f"there is no node {name} that nobody uses")

    def switch(self, moves: Sequence[Move]) -> None:
        """Go on in an overlay; all that was written is flushed, and what was the top is opened anew for reading, by the
        name by which it was opened."""
        ((node, overlay, _),) = moves
        self.require_able(node, overlay)
        top = self._chain[0]._replace(path=_target(self.process, self._nodes[0].path))
        layer, added = self._added.pop(overlay)
        self._session.flush()
        self._session.close()
        self._chain = [layer, top, *self._chain[1:]]
        self._session = self._images.open_session(self._chain, True, False)
        added = added._replace(has_backing=True, flushes=self._flushes)
        self._nodes = [added, self._nodes[0]._replace(writable=False), *self._nodes[1:]]

    def require_able(self, node: str, overlay: str) -> None:
        """ToolFailed unless it can go on from the one to the other."""
        self._require_idle(node)
        if node != self._nodes[0].name or overlay not in self._added:
            raise ToolFailed(f"the node {node} is busy, or there is no {overlay}")

    def grow(self, node: str, size: int) -> None:
        """Make the disk longer: what a header says is durable then, the length of a raw file is not."""
        self._require_idle(node)
        if node != self._nodes[0].name or size < self._session.size:
            raise ToolFailed(f"there is no node {node} that can be {size} bytes long")
        self._session.grow(size)
        self._nodes[0] = self._nodes[0]._replace(size=self._session.size)

    def jobs(self) -> dict[str, Job]:
        """Get on with each, and tell of them."""
        for job in self._pulls.values():
            if job.status == "running":
                try:
                    self._get_on(job)
                except StorageError as error:
                    self._end(job, str(error))
        for mirror in self._mirrors.values():
            if mirror.mirrors:
                self._bring(mirror)
        return {name: job.told(self.size) for name, job in self._all().items()}

    def _all(self) -> dict[str, Work]:
        return {**self._pulls, **self._mirrors}

    def _bring(self, job: Mirror) -> None:
        """Get on with a mirror; what was completed is flushed, and its guest waits from here on."""
        target = self._beside[job.target].session
        try:
            if job.completing and job.status == "ready":
                target.flush()
                job.status = "pending"
            elif job.at < self.size:
                length = min(_MIRRORED_BYTES, self.size - job.at)
                target.write(job.at, self._session.read(job.at, length))
                job.at += length
            else:
                target.flush()
                job.status = "ready"
        except StorageError as error:
            job.status, job.error = "concluded", str(error)

    def mirror(self, job: str, node: str, target: str) -> None:
        """Begin; it gets on when it is asked about."""
        self._require_idle(node)
        if job in self._mirrors or node != self._nodes[0].name or target not in self._beside:
            raise ToolFailed(f"the node {node} is busy, or there is no {target}")
        if self._beside[target].session.size != self.size:
            raise ToolFailed(f"the nodes {node} and {target} are of different sizes")
        self._mirrors[job] = Mirror(target)

    def complete(self, job: str) -> None:
        """Have its guest wait when the job is asked about next."""
        found = self._mirrors.get(job)
        if found is None or found.status != "ready":
            raise ToolFailed(f"the job {job} is not ready")
        found.completing = True

    def _go_on_in(self, job: Mirror) -> None:
        """What its guest had is left, and stays open."""
        new = self._beside.pop(job.target)
        self._beside[self._nodes[0].name] = _Open(self._session, self._chain, self._nodes)
        self._session, self._chain, self._nodes = new
        job.status, job.target = "concluded", ""

    def _get_on(self, job: Pull) -> None:
        level = self._level(job.node)
        found = self._session.shown_below(job.at, level)
        if found is None:
            job.status = "pending"
            return
        start, length, zero = found
        length = min(length, _PULLED_BYTES)
        self._session.pull(start, length, zero, level)
        job.at = start + length

    def _end(self, job: Pull, error: str = "") -> None:
        job.status, job.error = "concluded", error
        if level := self._level(job.node):
            self._reopen(level, False)

    def _require_idle(self, *nodes: str) -> None:
        """ToolFailed while a job works on one of them: qemu lets nobody else have what it moves data between."""
        if any(job.status != "concluded" for job in self._mirrors.values()) and self._nodes[0].name in nodes:
            raise ToolFailed(f"the node {self._nodes[0].name} is in use by a mirror")
        for name, job in self._pulls.items():
            if job.status != "concluded":
                at = self._level(job.node)
                if any(node.name in nodes for node in self._nodes[at : at + 2]):
                    raise ToolFailed(f"the node {job.node} or the one below is in use by the job {name}")

    def _level(self, node: str) -> int:
        return [found.name for found in self._nodes].index(node)

    def _reopen(self, level: int, writable: bool) -> None:
        """As qemu does it: by the name by which the layer was opened, wherever that leads by now."""
        layer = self._chain[level]._replace(path=_target(self.process, self._nodes[level].path))
        self._images.reopen(self._session, level, layer, writable)
        self._chain[level] = layer
        self._nodes[level] = self._nodes[level]._replace(writable=writable)

    def depth(self, node: str) -> int:
        """How many layers are below one that is used, or none."""
        names = [found.name for found in self._nodes]
        return len(names) - 1 - names.index(node) if node in names else 0

    def pull(self, job: str, node: str, backing: str) -> None:
        """Begin; it gets on when it is asked about."""
        names = [found.name for found in self._nodes]
        if job in self._pulls or node not in names[:-1]:
            raise ToolFailed(f"the node {node} is busy, or has nothing below")
        level = self._level(node)
        below = self._nodes[level + 1]
        self._require_idle(node, below.name)
        if below.backing != backing or below.has_backing != bool(backing):
            raise ToolFailed(f"what is below stands on {below.backing!r}, and not on {backing!r}")
        if level:
            self._reopen(level, True)
        self._pulls[job] = Pull(node, backing)

    def limit(self, job: str, rate: int) -> None:
        """Note it; a job here gets on with each question, which are made at times."""
        found = self._all().get(job)
        if found is None or found.status != "running":
            raise ToolFailed(f"the job {job} is not running")
        found.rate = rate

    def rates(self) -> dict[str, int]:
        """What each job may move in a second."""
        return {name: job.rate for name, job in self._all().items()}

    def finish(self, job: str) -> None:
        """Stand on what is below the next layer, nothing of which is durable; or go on in the target of a mirror."""
        mirror = self._mirrors.get(job)
        if mirror is not None and mirror.status == "pending":
            self._go_on_in(mirror)
            return
        found = self._pulls.get(job)
        if found is None or found.status != "pending":
            raise ToolFailed(f"the job {job} is not pending")
        at = self._level(found.node)
        self._session.leave_out(found.backing, str(self._chain[at + 2].format) if found.backing else "", at)
        del self._chain[at + 1], self._nodes[at + 1]
        self._nodes[at] = self._nodes[at]._replace(backing=found.backing, has_backing=bool(found.backing))
        self._end(found)

    def write_back(self, node: str) -> None:
        """Flush, where it can be told to."""
        if self.obeys:
            self._session.flush_layer(self._level(node))

    def cancel(self, job: str) -> None:
        """End it where it is."""
        mirror = self._mirrors.get(job)
        if mirror is not None and mirror.status != "concluded":
            mirror.status, mirror.error = "concluded", "Operation canceled"
        found = self._pulls.get(job)
        if found is not None and found.status != "concluded":
            self._end(found, "Operation canceled")

    def forget(self, job: str) -> None:
        """Drop one that has ended."""
        if job in self._mirrors and self._mirrors[job].status == "concluded":
            del self._mirrors[job]
            return
        found = self._pulls.get(job)
        if found is None or found.status != "concluded":
            raise ToolFailed(f"there is no job {job} that has ended")
        del self._pulls[job]

    @property
    def size(self) -> int:
        """How long its guest sees the disk."""
        return self._session.size

    def deleted_files(self) -> list[str]:
        """The files that it has open and that have no name any more, and logical volumes that are no more. What it only
        reads and has not locked does not count: nobody can find it, and it goes on to see that as it was."""
        devices = [handle for handle in list[object](self.process.files.handles) if isinstance(handle, SimDevice)]
        found = [device.path for device in devices if _is_gone(device)]
        for handle in self.process.files.handles:
            node = handle.storage.nodes.get(handle.inode) if isinstance(handle, SimHandle) else None
            if isinstance(node, FileNode) and not node.links and (self._locking or handle.writable):
                found.append(handle.path)
        return sorted(found)

    def written_path(self) -> str:
        """Where it writes to; "" where it has that not open any more: its server took its host for dead."""
        path = self._chain[0].path
        handles = list[Any](self.process.files.handles)  # devices are among them
        return path if any(handle.path == path and handle.writable for handle in handles) else ""

    def freeze(self) -> None:
        """Stop it as by SIGSTOP; it keeps its locks."""
        self.process.frozen_until = float("inf")

    def thaw(self) -> None:
        """Let it go on."""
        self.process.frozen_until = None

    def kill(self) -> None:
        """Kill it: nothing is written back. Idempotent."""
        self.process.end(killed=True)

    def stop(self) -> None:
        """Shut it down: qemu writes its caches back."""
        for opened in self._beside.values():
            opened.session.close()
        self._session.close()
        self.process.end()


def _is_gone(device: SimDevice) -> bool:
    """Whether there is no such volume any more: another host has removed it."""
    try:
        return device.size < 0
    except OSError:
        return True


def block_graph(process: SimProcess, path: str, format: str) -> list[Layer]:
    """Return the chain of layers that qemu opens for a path, top first: a backing file is looked for beside the path
    by which the layer above it was opened, through symbolic links."""
    found: list[Layer] = []
    folder = path.rpartition("/")[0]
    while True:
        target = _target(process, path)
        layer = Layer(target, VolumeFormat(format), target.startswith(DEVICE_ROOT))
        found.append(layer)
        header = _header(process, layer)
        if header is None or header.backing_name is None:
            return found
        path, format = f"{folder}/{header.backing_name}", header.backing_format or format


def _header(process: SimProcess, layer: Layer) -> Header | None:
    """The header of a qcow2 layer."""
    if layer.format is VolumeFormat.RAW:
        return None
    try:
        opener = process.files.open_block if layer.device else process.files.open
        with opener(layer.path, False) as handle:
            return parse_header(handle.read_at(0, _HEADER_BYTES), handle.stat().size)
    except OSError as error:
        raise from_os_error(error, f"open the image {layer.path}") from error


def _target(process: SimProcess, path: str) -> str:
    """Where a symbolic link leads to; another path is itself."""
    storage, inside = process.files.locate(path)
    for name, _, node in storage.walk():
        if name == inside and isinstance(node, LinkNode):
            return node.target
    return path
