"""A compressed raw image as the image door's ``Session``, for reading in ascending order.

A program of its own unpacks the file, through a descriptor of ours and with bounded memory; it knows no name, and ends
when nobody reads it. What is below the first range is unpacked and thrown away, so a copy that goes on at a cursor
reads all of the file again. Who reads up to the end of the image also learns whether the file is whole: the program's
own checksums must be right, and nothing may follow.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING

from engine.data.amounts import human
from engine.data.digests import data_runs
from engine.data.model import Packing
from engine.doors.images import Data, Layer, Unpacked
from engine.errors import BadRequest, Refused, ToolFailed, ToolMissing
from engine.tools.local.command import shortened
from engine.tools.local.environment import of_a_tool
from engine.tools.local.limits import of_unpackers
from engine.tools.qemu.layers import opened

if TYPE_CHECKING:
    import subprocess

_PROGRAMS = {
    Packing.XZ: ("xz", "--decompress", "--stdout", "--memlimit-decompress=1GiB"),
    Packing.GZ: ("gzip", "--decompress", "--stdout"),
    Packing.ZST: ("zstd", "--decompress", "--stdout", "--quiet", "--memory=1024MiB"),
}
_PACKAGES = {Packing.XZ: "xz-utils", Packing.GZ: "gzip", Packing.ZST: "zstd"}
_PIECE_BYTES = 1 << 20
_WORDS_BYTES = 4096
_LAST_BREATH_S = 5.0


class UnpackSession:
    """A ``Session`` for reading. Refused, when the file is read to its end: it is cut off, damaged, or of another
    length than the layer says."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self._process: subprocess.Popen[bytes] | None = None
        self._at = 0
        self._size = layer.length

    @property
    def size(self) -> int:
        """Virtual size in bytes."""
        return self._size

    def stream(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, Data]]:
        """Read ranges in ascending order. Yields ``(start, data)``."""
        for start, length in ranges:
            assert start + length <= self._size, "behind the end of the image"
            if self._process is None or start < self._at:
                self._start()
            while self._at < start:
                self._next(min(_PIECE_BYTES, start - self._at))
            while self._at < start + length:
                at = self._at
                yield at, self._next(min(_PIECE_BYTES, start + length - at))
            if self._at == self._size:
                self._require_end()

    def read(self, start: int, length: int) -> bytes:
        """Read one range."""
        return b"".join([bytes(data) for _, data in self.stream([(start, length)])])

    def write(self, start: int, data: Data) -> None:
        """Refuse: nothing is written into a compressed file."""
        raise BadRequest(
            f"{self._layer.path!r:.200} is compressed: nothing is written at {start}, of {len(data)} bytes"
        )

    def zero(self, start: int, length: int) -> None:
        """Refuse, as ``write``."""
        raise BadRequest(f"{self._layer.path!r:.200} is compressed: nothing is zeroed at {start}, of {length} bytes")

    def flush(self) -> None:
        """Do nothing: nothing was written."""

    def close(self) -> None:
        """End the program."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        process.wait(_LAST_BREATH_S)

    def measured(self, most: int, most_data: int) -> Unpacked:
        """Unpack the whole file to learn what is in it; see ``ImageTool.unpacked``."""
        found = 0
        self._start()
        while data := self._next(_PIECE_BYTES, whole=False):
            found += sum(length for _, length, _ in data_runs(data))
            what = ""
            if self._at > most:
                what = f"more than {most} bytes ({human(most)}), the limit of one image"
            elif found > most_data:
                what = f"more data than there is room for at all ({human(most_data)})"
            if what:
                raise Refused(
                    f"{self._layer.path!r:.200} holds {what}",
                    "Import it into a repository that can hold it; what is unpacked into a file first, TMPDIR has to",
                )
        length = self._at
        self._require_end()
        return Unpacked(length, found)

    def _start(self) -> None:
        import subprocess

        self.close()
        program = _PROGRAMS[Packing(self._layer.packing)]
        with opened(self._layer) as descriptor:
            try:
                self._process = subprocess.Popen(
                    program, stdin=descriptor, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=of_a_tool(),
                    process_group=0,
                )  # fmt: skip
                of_unpackers().confine(self._process)
            except FileNotFoundError:
                package = _PACKAGES[Packing(self._layer.packing)]
                raise ToolMissing(f"{program[0]} is not installed", f"Install the package {package}") from None
            except OSError as error:
                raise ToolFailed(f"cannot run {program[0]}: {error.strerror}") from None
        self._at = 0

    def _next(self, length: int, whole: bool = True) -> bytes:
        """Take bytes of the program's output; fewer only at its end, which with ``whole`` is an error."""
        data = self._output().read(length)
        self._at += len(data)
        if whole and len(data) < length:
            raise self._damaged(f"it ends at {self._at} of {self._size} bytes")
        return data

    def _require_end(self) -> None:
        """Return if the program has nothing more, and nothing to complain about."""
        if self._output().read(1):
            raise self._damaged(f"it goes on behind the {self._size} bytes that it should have")
        assert self._process is not None
        words = self._process.stderr.read(_WORDS_BYTES) if self._process.stderr is not None else b""
        if self._process.wait():
            raise self._damaged(shortened(words) or "its checksums are wrong")

    def _output(self) -> IO[bytes]:
        assert self._process is not None and self._process.stdout is not None
        return self._process.stdout

    def _damaged(self, what: str) -> Refused:
        self.close()
        name = os.path.basename(self._layer.path)
        return Refused(f"the compressed file {name!r:.200} is cut off or damaged: {what}", "Get it again whole")
