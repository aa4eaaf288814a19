"""A virtual machine of the simulator: it opens what was prepared, as given, and writes to it as long as it lives.

It is a process of its host, no child of the engine and without any of its leases: whoever prepared the image may be
killed meanwhile, and the machine goes on. Its death loses what it had not flushed out of qemu's caches; a power cut
loses besides what was not durable, as for all that is written.
"""

from __future__ import annotations

from engine.data.model import VolumeFormat
from engine.doors.images import Data, Layer
from engine.errors import from_os_error
from engine.tools.qemu.qcow2 import parse_header
from sim.disk.nodes import LinkNode
from sim.hosts.processes import SimHost, SimProcess
from sim.lvm.volume_groups import DEVICE_ROOT
from sim.qemu.images import SimImageTool, SimSession, UnsafeImageTool

PROGRAM = "qemu-io"
WRITEBACK, UNSAFE = "writeback", "unsafe"
CACHES = (WRITEBACK, UNSAFE)
"""How it handles flushes: they reach the storage, or they end in qemu."""

_HEADER_BYTES = 65536


class SimMachine:
    """A running machine with one disk."""

    def __init__(self, host: SimHost, path: str, format: str, cache: str = WRITEBACK) -> None:
        """Start it on the path that ``prepare`` gave. StorageError: qemu cannot open that."""
        self.process = host.process(PROGRAM)
        try:
            tool = UnsafeImageTool if cache == UNSAFE else SimImageTool
            images = tool(self.process.files, host.world.image_locks, self.process.files.owner)
            self.process.at_death(images.abandon)
            self._session: SimSession = images.open_session(block_graph(self.process, path, format), True, False)
        except BaseException:
            self.process.end()
            raise

    @property
    def running(self) -> bool:
        """Whether it is neither dead nor frozen."""
        return not self.process.dead and not self.process.frozen

    def write(self, start: int, data: Data) -> None:
        """Write into the disk; nothing is flushed."""
        self._session.write(start, data)

    def flush(self) -> None:
        """Flush, as far as the cache mode passes that on."""
        self._session.flush()

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
        self._session.close()
        self.process.end()


def block_graph(process: SimProcess, path: str, format: str) -> list[Layer]:
    """Return the chain of layers that qemu opens for a path, top first: a backing file is looked for beside the path
    by which the layer above it was opened, through symbolic links."""
    found: list[Layer] = []
    folder = path.rpartition("/")[0]
    while True:
        target = _target(process, path)
        layer = Layer(target, VolumeFormat(format), target.startswith(DEVICE_ROOT))
        found.append(layer)
        if layer.format is VolumeFormat.RAW:
            return found
        try:
            opener = process.files.open_block if layer.device else process.files.open
            with opener(target, False) as handle:
                header = parse_header(handle.read_at(0, _HEADER_BYTES), handle.stat().size)
        except OSError as error:
            raise from_os_error(error, f"open the image {path}") from error
        if header.backing_name is None:
            return found
        path, format = f"{folder}/{header.backing_name}", header.backing_format or format


def _target(process: SimProcess, path: str) -> str:
    """Where a symbolic link leads to; another path is itself."""
    storage, inside = process.files.locate(path)
    for name, _, node in storage.walk():
        if name == inside and isinstance(node, LinkNode):
            return node.target
    return path
