"""qemu's image tools as the image door: a method per task, qemu-img or qemu-nbd behind each.

Layers are always described in full (``layers.describe``), so no name in any header is followed
and no format is probed. What a tool prints is checked before it is believed.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

from engine.data.model import FileFormat, VolumeFormat
from engine.doors.images import Chain, CheckReport, Extent, Layer, Session, Unpacked
from engine.errors import BadRequest, ToolFailed, ToolMissing, from_os_error
from engine.tools.local.command import Command, CommandRunner, Result, failure
from engine.tools.local.limits import of_readers
from engine.tools.qemu.foreign import DRIVERS
from engine.tools.qemu.layers import PART_LAYERS, checked_path, describe
from engine.tools.qemu.qcow2 import MAX_BACKING_NAME_BYTES

PACKAGE = "qemu-utils"
MINIMUM_VERSION = (6, 1)
"""The first whose ``map`` tells what is allocated in a layer (``present``)."""

_CHECK_CLEAN = 0
_CHECK_CORRUPT = 2
_CHECK_LEAKS = 3
_CHECK_UNSUPPORTED = 63
_COMMAND_NOT_FOUND = 127


class QemuImageTool:
    """The real ``ImageTool``. ``inherit`` lists the descriptors (leases) that every process started to write gets
    a copy of, so that the lease lives as long as the writer does even when we are killed; the owner of the
    leases keeps the list up to date. Processes that only read get none."""

    def __init__(self, inherit: list[int] | None = None) -> None:
        self.inherit: list[int] = inherit if inherit is not None else []
        self._commands = CommandRunner(PACKAGE)
        self._version_known = False

    @property
    def recent_commands(self) -> list[Command]:
        """The last commands run, oldest first, for diagnosis."""
        return self._commands.recent

    # -- reading

    def map_layer(self, layer: Layer, written: bool = False) -> list[Extent]:
        """Run ``qemu-img map`` on the layer with nothing below it."""
        return list(self._extents([layer], written))

    def map_chain(self, chain: Chain) -> list[Extent]:
        """Run ``qemu-img map``, for a deep chain several times; what is compressed as a whole has to be read to be
        known."""
        if len(chain) > PART_LAYERS:
            from engine.tools.qemu.deep import extents, parts  # for few

            return extents([(part, list(self._extents(part.chain))) for part in parts(chain)])
        return list(self._extents(chain))

    def extents(self, layer: Layer) -> Generator[Extent, None, None]:
        """Run ``qemu-img map``, which prints one a line and holds none; ended by ``close``."""
        return self._extents([layer])

    def _extents(self, chain: Chain, written: bool = False) -> Generator[Extent, None, None]:
        if chain[0].packing:
            yield Extent(0, chain[0].length, True, False, True)
            return
        self._require_version()
        arguments = ["qemu-img", "map", *(["-U"] if written else []), "--output=json", describe(chain)]
        with contextlib.closing(self._commands.lines(arguments, chain[0].path, of_readers())) as lines:
            yield from _extents(lines)

    def required_bytes(self, chain: Chain, format: VolumeFormat) -> int:
        """Run ``qemu-img measure``: the length of the file or device to be made."""
        result = self._run("measure", chain, ["--output=json", "-O", format.value, describe(chain)])
        report = _json(result, "qemu-img measure")
        return _count(report, "required", "qemu-img measure")

    def unpacked(self, layer: Layer, most: int, most_data: int) -> Unpacked:
        """Run the program that unpacks it."""
        from engine.tools.packed.session import UnpackSession

        with contextlib.closing(UnpackSession(layer)) as session:
            return session.measured(most, most_data)

    def check(self, layer: Layer) -> CheckReport:
        """Run ``qemu-img check``; ToolFailed when the check itself could not be done (a raw layer, a read error)."""
        name = describe([layer])
        allowed = (_CHECK_CLEAN, _CHECK_CORRUPT, _CHECK_LEAKS)
        result = self._run("check", [layer], ["--output=json", name], allowed)
        report = _json(result, "qemu-img check")
        if _count(report, "check-errors", "qemu-img check"):
            raise failure("qemu-img check", layer.path, result)
        return CheckReport(
            corruptions=_count(report, "corruptions", "qemu-img check", 0),
            leaked_clusters=_count(report, "leaks", "qemu-img check", 0),
            allocated_clusters=_count(report, "allocated-clusters", "qemu-img check", 0),
            end_offset=_count(report, "image-end-offset", "qemu-img check", 0),
            detail=result.words,
        )

    def open_session(self, chain: Chain, writable: bool, direct: bool, later: bool = False) -> Session:
        """Start a qemu-nbd for the chain and shake hands with it; a raw device alone needs none and is always direct,
        and a deep chain that is only read has several.

        With ``direct`` false a writable session uses the page cache; ``flush`` syncs in both cases. ToolFailed also
        when the storage cannot do direct I/O or another process has the image locked.
        """
        if len(chain) == 1 and chain[0].device and chain[0].format is VolumeFormat.RAW:
            from engine.tools.block.session import BlockSession

            return BlockSession(chain[0], writable)
        if chain[0].packing:
            from engine.tools.packed.session import UnpackSession

            return UnpackSession(chain[0])
        if not writable and len(chain) > PART_LAYERS:
            from engine.tools.qemu.deep import open_parts

            return open_parts(chain, self.map_chain, lambda part: self.open_session(part, False, direct))
        from engine.tools.qemu.nbd import NbdSession  # with sockets; not for a command that only looks
        from engine.tools.qemu.server import QemuNbd

        self._require_version()
        arguments = ["qemu-nbd", *([] if writable else ["-r"]), describe(chain, writable, direct)]
        self._commands.remember(arguments, None, "")
        server = QemuNbd(arguments, self.inherit if writable else ())
        try:
            return NbdSession(server.connection, server, chain[0].path, later and not writable)
        except ToolFailed:
            if server.exit_code == _COMMAND_NOT_FOUND:
                raise self._commands.missing("qemu-nbd") from None
            raise

    # -- changing

    def repair_leaks(self, layer: Layer) -> None:
        """Run ``qemu-img check -r leaks``; ToolFailed when leaks or corruptions are left, in the tool's words."""
        self._run("check", [layer], ["-r", "leaks", describe([layer], writable=True)], writer=True)
        _sync(layer)

    def repair_all(self, layer: Layer) -> None:
        """Run ``qemu-img check -r all``; ToolFailed when corruptions are left. Leaks may be left."""
        allowed = (_CHECK_CLEAN, _CHECK_LEAKS)
        self._run("check", [layer], ["-r", "all", describe([layer], writable=True)], allowed, writer=True)
        _sync(layer)

    def lay_out(self, layer: Layer, size: int) -> None:
        """Run ``qemu-img create`` on the file, which truncates it and takes no other."""
        driver = DRIVERS[layer.format] if isinstance(layer.format, FileFormat) else layer.format.value
        if not layer.path.startswith("/"):  # a colon in the name could make it a protocol
            raise BadRequest(f"path {layer.path!r:.200} is not absolute")
        options = ["-o", "compression_type=zstd"] if layer.compressed else []
        if layer.format is FileFormat.VHD:
            options = ["-o", "force_size=on"]  # else it has the size that its geometry can say
        self._run(
            "create",
            [layer],
            ["-q", "-f", driver, *options, layer.held or checked_path(layer.path), str(size)],
            writer=True,
        )

    def set_backing(self, layer: Layer, name: str | None, format: VolumeFormat | None) -> None:
        """Run ``qemu-img rebase -u``, which opens neither the old nor the new backing. One header write, so atomic
        where a sector is."""
        if layer.format is not VolumeFormat.QCOW2:
            raise BadRequest(f"raw layer {layer.path!r:.200} cannot have a backing name")
        if name is not None and (not name or len(checked_path(name).encode()) > MAX_BACKING_NAME_BYTES):
            raise BadRequest(f"backing name {name!r:.80} must have 1 to {MAX_BACKING_NAME_BYTES} bytes")
        if (name is None) != (format is None):
            raise BadRequest(f"backing name {name!r:.80} with format {format}: both are needed or none")
        options = [] if format is None else ["-F", format.value]
        self._run("rebase", [layer], ["-u", "-b", name or "", *options, describe([layer], writable=True)], writer=True)
        _sync(layer)

    def resize(self, layer: Layer, size: int) -> None:
        """Run ``qemu-img resize``. Nothing below may be longer than the layer is now: growing would uncover it. (qemu
        can zero such a range in the same command, but not atomically: the size was seen durable before the zeros.)"""
        self._run("resize", [layer], [describe([layer], writable=True), str(size)], writer=True)
        _sync(layer)

    # -- the one way to run qemu-img

    def _run(
        self,
        verb: str,
        chain: Chain,
        arguments: Sequence[str],
        allowed: Iterable[int] = (0,),
        inherit: Sequence[int] = (),
        writer: bool = False,
    ) -> Result:
        """Run ``qemu-img verb arguments``; an exit code that is not ``allowed`` becomes an error about ``chain[0]``."""
        self._require_version()
        passed = [*inherit, *(self.inherit if writer else ())]
        limits = None if writer else of_readers()
        result = self._commands.run(["qemu-img", verb, *arguments], passed, limits=limits)
        if result.exit_code not in allowed:
            path = chain[0].path
            if verb == "check" and result.exit_code == _CHECK_UNSUPPORTED:
                raise ToolFailed(f"{path} has a format that cannot be checked")
            raise failure(f"qemu-img {verb}", path, result, limits)
        return result

    def _require_version(self) -> None:
        """Raise ToolMissing when qemu-img is not there or too old; ask once."""
        if self._version_known:
            return
        result = self._commands.run(["qemu-img", "--version"])
        if _version(result.output) < MINIMUM_VERSION:
            found = result.output[:60].decode("ascii", "backslashreplace").split("\n")[0]
            wanted = ".".join(str(number) for number in MINIMUM_VERSION)
            raise ToolMissing(f"qemu-img is too old ({found})", f"Install {PACKAGE} {wanted} or newer")
        self._version_known = True


def _version(output: bytes) -> tuple[int, ...]:
    """Return the version in "qemu-img version 7.2.22 (…)", (0,) when there is none."""
    words = output.split(None, 3)
    numbers = words[2].split(b".")[:2] if len(words) > 2 and words[1] == b"version" else []
    return tuple(int(number) for number in numbers if number.isdigit()) or (0,)


def _json(result: Result, name: str) -> Any:
    try:
        return json.loads(result.output)
    except (ValueError, RecursionError):
        raise ToolFailed(f"{name} printed no JSON: {result.output[:100]!r}") from None


def _count(report: Any, key: str, name: str, default: int | None = None) -> int:
    """Return a number that is 0 or more, or ``default`` when the key is missing."""
    value = report.get(key, default) if isinstance(report, dict) else None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ToolFailed(f"{name} printed {value!r:.60} as {key}")
    return value


def _extents(lines: Iterable[bytes]) -> Iterator[Extent]:
    """The extents of a list, one a line, checked: gapless from 0, flags are booleans; the list has an end."""
    position = 0
    before, after = "[", ""
    try:
        for line in lines:
            text = line.decode("ascii").strip()  # json looks a long time for the encoding of bytes
            if after or not text.startswith(before):
                raise ValueError("no list")
            text, before = text.removeprefix(before), ""
            after = "]" if text.endswith("]") else ""
            if text := text.removesuffix(after or ","):
                extent = _extent(json.loads(text), position)
                position += extent.length
                yield extent
        if not after:
            raise ValueError("a list without an end")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ToolFailed(f"qemu-img map printed something unexpected at {position}: {error!s:.60}") from None


def _extent(item: Any, position: int) -> Extent:
    extent = Extent(item["start"], item["length"], item["present"], item["zero"], item["data"], item.get("offset"))
    if type(extent.length) is not int or extent.start != position or extent.length <= 0:
        raise ValueError("a gap or an overlap")
    if not (type(extent.present) is type(extent.zero) is type(extent.data) is bool):
        raise ValueError("a flag that is none")
    return extent


def _sync(layer: Layer) -> None:
    """Make what a tool wrote durable: an fsync of the file by any process covers all of it."""
    try:
        descriptor = os.open(layer.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise from_os_error(error, f"make {layer.path!r:.200} durable") from None
