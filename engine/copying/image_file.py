"""An image file of a user's that is to be imported or adopted: whether it can be, how long it is, what of it an import
leaves out.

It is not trusted: nothing that it names is followed, and what it holds is an image only when it is found to be sound.
Its data is not moved here (``engine.fixes.import_image``, ``adopt``).
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import struct
from collections.abc import Mapping
from typing import NamedTuple

from engine.copying import magic, ova, ranges
from engine.data.amounts import human
from engine.data.model import ALIGNMENT_BYTES, MAX_IMAGE_BYTES, OVA, FileFormat, VolumeFormat, packing_of
from engine.doors.files import Access, FileHandle, Files, Kind, Stat
from engine.doors.images import ImageTool, Layer
from engine.errors import BadRequest, Damaged, NotFound, Refused, StorageError, from_os_error
from engine.formats.adoption import Source
from engine.tools.qemu.foreign import require_own_data
from engine.tools.qemu.qcow2 import Header, parse_header

_HEAD_BYTES = 65536
_SHOWN_DISKS = 8
MOST_EXTENTS = 1 << 18
"""Of an image, that are kept in memory: some 50 MiB. One with more is read as if it had no holes."""
_UNCHECKED = (FileFormat.VHD,)
"""qemu-img check knows nothing of these."""
_OFFSET_BITS = (1 << 56) - 512
"""Of an entry of a table of qcow2: where what it refers to lies in the file."""


class ImageFile(NamedTuple):
    """What was seen of a file to import."""

    path: str
    format: VolumeFormat | FileFormat
    facts: Stat
    header: Header | None
    """Of qcow2; None for other formats."""
    remarks: tuple[str, ...]
    """Sentences for people: what an import of it leaves out, and what it looks like where that is not what was
    stated."""
    ends_early: bool
    """The last clusters in use lie behind the end of the file. Rarely that is harmless: ``require_sound`` tells."""
    size: int
    """Exact logical size of the image in bytes."""
    part: tuple[int, int] | None = None
    """(offset, length) of an image in an archive."""
    packing: str = ""
    """How a raw image is compressed."""
    data_bytes: int = 0
    """Of one that is compressed and was unpacked: bytes of the blocks that are not all zeros; else 0."""
    held: str = ""
    """A path of the very file, as long as the handle that was looked at is open; tools are given no other."""

    @property
    def identity(self) -> tuple[int, int, int]:
        """(size, mtime in ns, inode) of the file: another one, or one that was written since, has another."""
        return identity_of(self.facts)

    @property
    def layer(self) -> Layer:
        """The file as a tool opens it."""
        length = self.size if self.packing else 0
        return Layer(
            self.path, self.format, device=self.is_device, length=length, part=self.part, packing=self.packing,
            held=self.held,
        )  # fmt: skip

    @property
    def is_device(self) -> bool:
        """A block device: nothing tells whether it was written to since, so no attempt goes on where another ended."""
        return self.facts.kind is Kind.DEVICE

    @property
    def length(self) -> int:
        """Bytes of the file that are the image."""
        return self.part[1] if self.part else self.facts.size


def identity_of(facts: Stat) -> tuple[int, int, int]:
    """Return what tells a file from another one and from itself before a write."""
    return facts.size, facts.mtime_ns, facts.inode


def inode_of(identity: tuple[int, ...]) -> int:
    """Return the inode in what ``identity_of`` returned once."""
    return identity[2] if len(identity) >= 3 else 0


def known_by(facts: tuple[int, ...]) -> tuple[int, ...]:
    """Return that part of the facts which is equal for one file that was not written since, whosever it is by now."""
    return facts[:3]


def facts_of(facts: Stat) -> tuple[int, ...]:
    """Return what an adoption notes of a file: what tells it from another one, and whose it is."""
    return (*identity_of(facts), facts.owner, facts.group, facts.mode)


def access_in(facts: tuple[int, ...]) -> Access | None:
    """Return whose the file was of which ``facts_of`` returned that; None of an adoption from before. No bit but those
    of permissions: the record that has them may come from a stranger."""
    if len(facts) != 6:
        return None
    owner, group, mode = facts[3:]
    return Access(str(owner), str(group), mode & 0o777)


def open_file(files: Files, path: str) -> FileHandle:
    """Open a file or a block device to import. NotFound, StorageError; Refused for a device that is in use, BadRequest
    for what is neither."""
    try:
        return files.open_source(path)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path!r:.200} to import", "Give the right path, or put it back") from None
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise Refused(
                f"the device {path!r:.200} is in use on this host: it is mounted, or another device stands on it",
                "Unmount it, or deactivate what stands on it, then import it",
            ) from error
        if error.errno in (errno.EINVAL, errno.EISDIR, errno.ENXIO):
            raise BadRequest(
                f"{path!r:.200} is neither a file nor a block device", "Give the image file, or the device"
            ) from error
        raise from_os_error(error, f"open the file to import {path!r:.200}") from error


def inspect(
    images: ImageTool,
    handle: FileHandle,
    path: str,
    format: str,
    size: int = 0,
    most: int = MAX_IMAGE_BYTES,
    most_data: int = MAX_IMAGE_BYTES,
) -> ImageFile:
    """Return what the file system and the start of a file to import say of it; a few reads, however long it is. Only
    what is compressed is unpacked whole, to learn its ``size`` where that is not known: 0.

    What is found, and every tool that is given it, is of the file that ``handle`` has open, as long as that is.
    BadRequest when it is not of the stated format; Refused when it needs more than itself, or is an image of more than
    ``most`` bytes, or a compressed one with more than ``most_data`` bytes of data: no tool opens one, and no more of it
    is unpacked."""
    try:
        facts, held = handle.stat(), handle.held_path()
        head = handle.read_at(0, _HEAD_BYTES)
        if (packing := packing_of(format)) is not None:
            layer = Layer(path, VolumeFormat.RAW, length=size, packing=packing, held=held)
            return _packed(images, layer, facts, most, most_data)
        if format == VolumeFormat.RAW:
            remarks = magic.remarks(head, facts.size)
            return ImageFile(path, VolumeFormat.RAW, facts, None, remarks, False, facts.size, held=held)
        if format == VolumeFormat.QCOW2:
            header = _header(head, facts.size, path)
            early, left_out = _ends_early(handle, header, facts), _left_out(header)
            return ImageFile(path, VolumeFormat.QCOW2, facts, header, left_out, early, header.size, held=held)
        part = _part(handle, path, facts.size, format)
        kind = FileFormat.VMDK if part is not None else FileFormat(format)
        _require_no_more(_size_of(handle, path, kind, part or (0, facts.size)), most, path)
    except OSError as error:
        raise from_os_error(error, f"read the file to import {path!r:.200}") from error
    found = ImageFile(path, kind, facts, None, (), False, 0, part, held=held)
    session = images.open_session([found.layer], False, False)
    try:
        return found._replace(size=session.size)
    finally:
        session.close()


def as_volume(handle: Source, path: str, format: VolumeFormat) -> ImageFile:
    """Return what the file system and the start of a file say that is to become a volume as it is; a few reads. The
    file may stand on another one, which the header names and nobody follows.

    BadRequest when it is not of the stated format; Refused when it has what no volume may have. OSError."""
    facts = handle.stat()
    head = handle.read_at(0, _HEAD_BYTES)
    header, size, early = None, facts.size, False
    if format is VolumeFormat.QCOW2:
        header = _parsed(head, facts.size, path)
        size, early = header.size, _ends_early(handle, header, facts)
        _refuse(path, header, "", "Import it, which copies its data", {
            "has internal snapshots": bool(header.internal_snapshots),
            "has dirty bitmaps": bool(header.bitmaps),
            "was not closed cleanly": header.dirty,
        })  # fmt: skip
    elif found := magic.name_of(head):
        raise BadRequest(f"{path!r:.200} is stated to be raw, and looks like {found}", "State the right format")
    if not size or size % ALIGNMENT_BYTES:
        raise Refused(
            f"the image in {path!r:.200} has {size} bytes, and a volume a multiple of {ALIGNMENT_BYTES}",
            "Import it, which copies its data; or make it longer: qemu-img resize",
        )
    return ImageFile(path, format, facts, header, (), early, size, held=handle.held_path())


def _size_of(handle: FileHandle, path: str, format: FileFormat, part: tuple[int, int]) -> int:
    """Return the logical size that the header of another program's image has."""
    first, length = part
    return require_own_data(
        format, lambda at, count: handle.read_at(first + at, max(0, min(count, length - at))), length, path
    )


def _require_no_more(size: int, most: int, path: str) -> None:
    if size > most:
        raise Refused(
            f"the image in {path!r:.200} has {size} bytes, and there can be at most {most} ({human(most)}) in one",
            "Import it into a repository that can hold it",
        )


def _packed(images: ImageTool, layer: Layer, facts: Stat, most: int, most_data: int) -> ImageFile:
    """Look at a raw image that is compressed, all of it where its length is not known. Refused: it is cut off, holds
    more than that, or a qcow2, which is not read in order."""
    path, data = layer.path, 0
    if not layer.length:
        length, data = images.unpacked(layer, most, most_data)
        layer = layer._replace(length=length)
    session = images.open_session([layer], False, False)
    try:
        length = session.size
        head = session.read(0, min(length, _HEAD_BYTES))
    finally:
        session.close()
    if magic.name_of(head) == magic.QCOW2:
        step = f"Unpack it first, and import what comes out with --format {VolumeFormat.QCOW2}"
        raise Refused(f"the compressed file {path!r:.200} holds a qcow2 image, which cannot be read in order", step)
    remarks = magic.remarks(head, length)
    return ImageFile(
        path, VolumeFormat.RAW, facts, None, remarks, False, length, packing=layer.packing, data_bytes=data,
        held=layer.held,
    )  # fmt: skip


def _part(handle: FileHandle, path: str, length: int, format: str) -> tuple[int, int] | None:
    """Return where in an archive the disk lies that the format names; None for what is no archive."""
    kind, _, number = format.partition(":")
    if kind != OVA:
        return None
    found = ova.disks(handle.read_at, length, path)
    if not number and len(found) != 1:
        names = ", ".join(
            f"{OVA}:{place} ({disk.name!r:.60})" for place, disk in enumerate(found[:_SHOWN_DISKS], start=1)
        )
        raise BadRequest(f"{path!r:.200} has {len(found)} disks", f"Say which one: {names or 'another file'}")
    place = int(number or 1)
    if not 1 <= place <= len(found):
        raise NotFound(f"{path!r:.200} has {len(found)} disks (.vmdk), and disk {place} was asked for", "Name another")
    return found[place - 1].offset, found[place - 1].length


def require_sound(images: ImageTool, file: ImageFile) -> None:
    """Return if the whole image that the tables of the file describe is in the file, by reading all of them.

    Refused naming what is wrong: it ends too early, refers to what is not there, or counts references wrongly."""
    if file.format is VolumeFormat.RAW:
        return
    if isinstance(file.format, FileFormat):
        require_all_data(images, file)
        if file.format in _UNCHECKED:
            return
    report = images.check(file.layer)
    if report.corruptions:
        what = "is cut off, or damaged" if file.ends_early else "is damaged"
        raise Refused(
            f"the image file {file.path!r:.200} {what}: {report.corruptions} errors in its tables",
            "Get it again whole; or, where it is the only one, repair a copy of it with qemu-img check -r all",
        )
    if file.format is VolumeFormat.QCOW2 and report.end_offset > file.length:
        require_all_data(images, file)


def require_all_data(images: ImageTool, file: ImageFile) -> None:
    """Return if all data that the tables refer to is in the file, as far as they say where it is. Refused."""
    length = file.length
    with contextlib.closing(images.extents(file.layer)) as extents:
        for extent in extents:
            if extent.data and extent.offset is not None and extent.offset + extent.length > length:
                raise Refused(
                    f"the image file {file.path!r:.200} is cut off: it refers to data up to byte "
                    f"{extent.offset + extent.length} and ends at {length}",
                    "Get it again whole",
                )


def data_bytes(images: ImageTool, file: ImageFile) -> int:
    """Return how many bytes of the image are no hole, at least 1, at most its size; 0 when that cannot be told. Blocks
    of which only a part is data count whole: they take a whole cluster each in what is made of them."""
    if file.packing:
        return max(1, file.data_bytes)
    if file.format is VolumeFormat.RAW and file.facts.allocated >= file.size:
        return max(1, file.size)
    try:
        wanted = data_ranges(images, file.layer)
    except StorageError:
        return 0  # the import itself finds out why
    return 0 if wanted is None else max(1, ranges.total(ranges.merged(wanted, file.size)))


def data_ranges(images: ImageTool, layer: Layer) -> list[ranges.Range] | None:
    """Return what of a stranger's image is no hole; None where that is too many ranges to be kept: a short file can
    say of any number of clusters that they are data."""
    with contextlib.closing(images.extents(layer)) as extents:
        found = ranges.data_ranges(itertools.islice(extents, MOST_EXTENTS))
        return found if next(extents, None) is None else None


def _parsed(head: bytes, length: int, path: str) -> Header:
    try:
        return parse_header(head, length)
    except Damaged as error:
        found = magic.name_of(head)
        looks = f"; it looks like {found}" if found and found != magic.QCOW2 else ""
        raise BadRequest(
            f"{path!r:.200} is no qcow2 image: {error.message}{looks}", "State the right format, or get it again whole"
        ) from None


def _header(head: bytes, length: int, path: str) -> Header:
    header = _parsed(head, length, path)
    step = "Flatten it first with qemu-img convert on a machine where you trust it"
    _refuse(path, header, "; nothing it names is followed", step, {
        "names a backing file": header.backing_name is not None
    })  # fmt: skip
    return header


def _refuse(path: str, header: Header, more: str, step: str, also: Mapping[str, bool]) -> None:
    """Raise Refused for the first thing that applies."""
    reasons = {
        **also,
        "names an external data file": header.has_data_file,
        "has features this version does not know": bool(header.unknown_incompatible),
        "is encrypted": header.encrypted,
        "is marked corrupt": header.corrupt,
    }
    for reason, applies in reasons.items():
        if applies:
            raise Refused(f"the image file {path!r:.200} {reason}{more}", step)


def _left_out(header: Header) -> tuple[str, ...]:
    """What an import does not take along, in sentences."""
    found = []
    if header.internal_snapshots:
        count = header.internal_snapshots
        what = "1 internal snapshot" if count == 1 else f"{count} internal snapshots"
        found.append(f"The imported file has {what}, left out: only its present content is imported")
    if header.bitmaps:
        found.append("The imported file has dirty bitmaps, left out: backups that rely on them have to start anew")
    return tuple(found)


def _ends_early(handle: Source, header: Header, facts: Stat) -> bool:
    """Whether the last cluster that the reference counts of a qcow2 name begins behind the end of the file. Reads one
    table and one block of counts."""
    cluster = 1 << header.cluster_bits
    table = handle.read_at(header.refcount_offset, header.refcount_clusters << header.cluster_bits)
    entries = [at // 8 for at in range(len(table) // 8 * 8 - 8, -1, -8) if table[at : at + 8] != bytes(8)]
    if not entries:
        return False
    (entry,) = struct.unpack_from(">Q", table, entries[0] * 8)
    block_at = entry & _OFFSET_BITS
    if block_at + cluster > facts.size:
        return True
    block = handle.read_at(block_at, cluster).rstrip(b"\0")
    if not block:
        return False
    counts_per_block = cluster * 8 // header.refcount_bits
    last = entries[0] * counts_per_block + (len(block) - 1) * 8 // header.refcount_bits
    return last * cluster >= facts.size
