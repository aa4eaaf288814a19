"""The image door: what qemu's tools do for us, as an interface.

A chain is always given explicitly, layer by layer from the top, with its formats: nothing is
probed and no name inside an image file is ever followed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from engine.data.model import FileFormat, VolumeFormat


class Layer(NamedTuple):
    """One volume as a tool opens it."""

    path: str
    format: VolumeFormat | FileFormat
    device: bool = False
    """A block device, not a file."""
    length: int = 0
    """Bytes of a raw device that are the image, where the device is longer; 0: all of it."""
    part: tuple[int, int] | None = None
    """(offset, length) of the file that are the image, where that is not all of it."""
    compressed: bool = False
    """What is written to it is compressed."""
    packing: str = ""
    """How a raw file is compressed as a whole ("xz"); it is read in ascending order. ``length`` is that of the image
    then (``ImageTool.unpacked`` finds it out)."""
    held: str = ""
    """A path of the very file, which is held open (``FileHandle.held_path``), where ``path`` is a user's and may mean
    another file by now; "" where it cannot."""


Chain = Sequence[Layer]
"""Top first; each further layer is the backing of the one before."""


class Extent(NamedTuple):
    """A range of an image, as ``qemu-img map`` sees it."""

    start: int
    length: int
    present: bool
    """Allocated in this layer (also when it reads as zeros): it hides what is below."""
    zero: bool
    data: bool
    """Must be read to know its content; it may still be zeros."""
    offset: int | None = None
    """Where in the layer's file the data starts."""


class CheckReport(NamedTuple):
    """What ``qemu-img check`` found in one qcow2 layer."""

    corruptions: int
    leaked_clusters: int
    allocated_clusters: int
    end_offset: int
    """Bytes of the file that are in use."""
    detail: str
    """The tool's own words, shortened."""


class Unpacked(NamedTuple):
    """What a compressed raw image holds."""

    size: int
    """Bytes of the image."""
    data_bytes: int
    """Bytes of its blocks that hold anything but zeros."""


Data = bytes | memoryview
"""What is read or written. A view that a session gives stays as it is as long as anybody refers to it; nobody writes
into it."""


class Session(Protocol):
    """One open of a chain by one process: one descriptor, one image lock, so that a writer that
    lost its lock cannot write through a fresh open. Errors of queued work surface at the next call."""

    @property
    def size(self) -> int:
        """Virtual size in bytes."""

    def stream(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, Data]]:
        """Read ``(start, length)`` ranges in order, reading ahead. Yields ``(start, data)``."""

    def read(self, start: int, length: int) -> bytes:
        """Read one range."""

    def write(self, start: int, data: Data) -> None:
        """Queue a write; complete and durable only after ``flush``."""

    def zero(self, start: int, length: int) -> None:
        """Queue writing zeros over whatever the range holds or shows from below (may unmap)."""

    def flush(self) -> None:
        """Wait until all queued work is complete and durable."""

    def close(self) -> None:
        """Flush nothing, wait for nothing queued, end the process. Idempotent, never raises."""


class ImageTool(Protocol):
    """qemu's image tools. Raises ToolFailed, ToolMissing or NoSpace."""

    def map_layer(self, layer: Layer, written: bool = False) -> list[Extent]:
        """Return the extents of one layer alone, covering its whole virtual size in order. ``written``: a machine
        writes to it; what its file tells is returned, which may be less than what the machine has written."""

    def extents(self, layer: Layer) -> Generator[Extent, None, None]:
        """Yield what ``map_layer`` returns, as it is found. A stranger's file may have any number of extents: who asks
        keeps few of them, and closes this when he has enough."""

    def map_chain(self, chain: Chain) -> list[Extent]:
        """Return the extents of the image that the chain shows."""

    def open_session(self, chain: Chain, writable: bool, direct: bool, later: bool = False) -> Session:
        """Open the chain in a process of its own that ends when we do. ``direct``: bypass the page
        cache. A writable session locks the top layer against every other qemu. ``later``, of one that only reads: it
        may still be opening on return, beside another one, and what goes wrong then is raised by its first use."""

    def unpacked(self, layer: Layer, most: int, most_data: int) -> Unpacked:
        """Read all of a compressed file, and keep nothing of it. Refused: it is cut off or damaged, or, as soon as that
        shows, its image has more than ``most`` bytes or needs room for more than ``most_data`` of them."""

    def check(self, layer: Layer) -> CheckReport:
        """Check the consistency of one qcow2 layer; write nothing."""

    def repair_leaks(self, layer: Layer) -> None:
        """Give leaked clusters back; touches nothing else. The result is durable."""

    def repair_all(self, layer: Layer) -> None:
        """Rebuild what can be rebuilt, losing what cannot. Only ever called on a copy."""

    def lay_out(self, layer: Layer, size: int) -> None:
        """Make an empty file, which is there, an image of ``size`` virtual bytes in the format of the layer, with
        nothing below it. Not durable. BadRequest where the format cannot have that size."""

    def set_backing(self, layer: Layer, name: str | None, format: VolumeFormat | None) -> None:
        """Rewrite the backing name in a qcow2 header, content untouched. Durable on return."""

    def resize(self, layer: Layer, size: int) -> None:
        """Grow the virtual size; what is gained reads as zeros, given that nothing below the layer is
        longer than it is now. Durable on return."""

    def required_bytes(self, chain: Chain, format: VolumeFormat) -> int:
        """Return the bytes that a flat copy of the chain needs in ``format`` (``qemu-img measure``)."""
