"""The volume ``dw-meta`` as bytes: its header, its length, and how this host reaches it.

The host that manages the group reads and writes it as an active device. Another host reads it
where it lies, without activation, and writes nothing.
"""

from __future__ import annotations

from engine.doors.volume_groups import BlockHandle, LogicalVolume, VolumeGroup
from engine.errors import Damaged, NoSpace, NotFound, Refused, StorageError
from engine.formats import lvm_layout as layout
from engine.formats.files_tree import doing
from engine.formats.lvm_group import NOBODY, Group
from engine.formats.lvm_layout import MetaHeader
from engine.formats.lvm_pages import PAGE_BYTES, Stamp, seal


class Meta:
    """``dw-meta`` of one group, opened when it is first needed."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self._handle: BlockHandle | None = None
        self._elsewhere: LogicalVolume | None = None
        """Where it lies, while another host manages the group."""

    # -- bytes

    def read(self, offset: int, length: int) -> bytes:
        """Exactly so many bytes. Plain OSError, StorageError when the volume is not there."""
        if self._elsewhere is None:
            handle = self._handle or self._open_ours()
            if handle is not None:
                return handle.read_at(offset, length)
        assert self._elsewhere is not None
        data = self.group.read(self._elsewhere, offset, length)
        if len(data) != length:
            raise Damaged(f"{layout.META} of {self.group.name} is shorter than it says")
        return data

    def write(self, offset: int, data: bytes) -> None:
        """Not durable before ``sync``. Plain OSError; Refused when this host does not manage the group."""
        self._ours().write_at(offset, data)

    def zero(self, offset: int, length: int) -> None:
        """As ``write``, of zeros."""
        self._ours().zero(offset, length)

    def sync(self) -> None:
        """Make what was written durable. Plain OSError."""
        self._ours().sync()

    def _ours(self) -> BlockHandle:
        self._elsewhere = None
        handle = self._handle or self._open_ours()
        if handle is None:
            raise self.not_managed(self.group.report())
        return handle

    def _open_ours(self) -> BlockHandle | None:
        return self.reach(self.group.report())

    def reach(self, report: VolumeGroup) -> BlockHandle | None:
        """Open the device, or note where it lies when another host manages the group. NotFound, StorageError."""
        volume = self.volume(report)
        if not volume.ranges:
            raise StorageError(
                f"{layout.META} of {self.group.name} is not linear, or lies on a missing device", "Bring it back"
            )
        if not self.group.is_ours(report):
            self._elsewhere = volume
            return None
        groups = self.group.doors.volume_groups
        path = groups.activate(self.group.name, layout.META)
        with doing(f"open {layout.META} of {self.group.name}"):
            self._handle = groups.open_device(path, writable=True)
        return self._handle

    def volume(self, report: VolumeGroup) -> LogicalVolume:
        """The volume in a report, or NotFound."""
        found = report.volumes.get(layout.META)
        if found is None:
            begun = layout.META_UNFINISHED in report.volumes
            raise NotFound(
                f"the volume group {report.name} holds no repository",
                "Its creation was interrupted: create it again" if begun else "Create one, or name the right group",
            )
        return found

    def close(self) -> None:
        """Close the device; it stays active. Idempotent."""
        self._elsewhere = None
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    # -- the header

    def header(self, reached: bool = False) -> MetaHeader:
        """As it is now. ``reached``: it was looked for just now. Damaged, Refused (newer major), StorageError."""
        if not reached:
            self._elsewhere = None  # it may have been moved, and may be ours by now
        with doing(f"read the records in {self.group.name}"):
            raw = self.read(0, 2 * PAGE_BYTES)
        found = layout.newest_header(raw, self.group.name)
        if found is None:
            raise Damaged(f"{layout.META} of {self.group.name} is empty", "Put back what was there")
        if layout.meta_bytes(found.chunks) > self._length():
            self.close()  # another process may have made it longer
            self.read(0, PAGE_BYTES)
            if layout.meta_bytes(found.chunks) > self._length():
                raise Damaged(f"{layout.META} of {self.group.name} is shorter than it says", "Put back what was there")
        return found

    def _length(self) -> int:
        reached = self._handle or self._elsewhere
        return reached.size if reached is not None else 0

    def write_header(self, header: MetaHeader) -> MetaHeader:
        """The next one, durable on return; the one before is kept until then. It is in both places in the end: where
        only one knew of the last chunk, damage to that one would hide its records and have them written over."""
        with doing(f"write the header of the repository in {self.group.name}"):
            for _ in range(2):
                header = header._replace(sequence=header.sequence + 1)
                self.write(header.sequence % 2 * PAGE_BYTES, sealed_header(header))
                self.sync()
        return header

    def extend(self, header: MetaHeader) -> MetaHeader:
        """Room for one chunk more, zeroed, durable on return. NoSpace. The caller holds the lock of the records."""
        groups, name = self.group.doors.volume_groups, self.group.name
        if header.chunks >= layout.MAX_CHUNKS:
            raise NoSpace(f"there is no room for more records in {name}", "Remove images, and clean")
        start = layout.chunk_start(header.chunks)
        report = self.group.report()
        if self.volume(report).size < start + layout.CHUNK_BYTES:
            if report.free < layout.CHUNK_BYTES:
                raise NoSpace(
                    f"{name} has {report.free} free bytes, {layout.CHUNK_BYTES} more are needed for records",
                    "Make room (check lists what can be cleaned), or add a device to the group",
                )
            groups.resize(name, layout.META, start + layout.CHUNK_BYTES)
            self.group.sync()
            self.close()  # the device is opened again with its new size
        with doing(f"make room for records in {name}"):
            self.zero(start, layout.CHUNK_BYTES)
            self.sync()
        return self.write_header(header._replace(chunks=header.chunks + 1))

    def not_managed(self, report: VolumeGroup, manager: str = "") -> Refused:
        """The error for what only the manager may do."""
        if report.system_id == NOBODY:
            return Refused(
                f"nobody manages the repository in {report.name}, so nothing in it can be changed",
                "diskwright srm take REPO makes this host the manager",
            )
        who = manager or report.system_id or "unknown"
        return Refused(
            f"the repository in {report.name} is managed by host {who}, and only that host may do this",
            "Do it there; or, when that host is certainly dead, diskwright srm take REPO --dead HOST",
        )


def sealed_header(header: MetaHeader) -> bytes:
    """One header page."""
    payload = layout.encode_header(header)
    return seal(Stamp(header.term, header.sequence, bytes(8)), payload)
