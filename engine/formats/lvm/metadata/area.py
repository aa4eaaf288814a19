"""The volume ``dw-meta`` as bytes: its header, its length, and how this host reaches it.

A host that LVM lets use the group reads and writes it as an active device. Another host reads it
where it lies, without activation, and writes nothing.
"""

from __future__ import annotations

from engine.data.amounts import human
from engine.doors.volume_groups import BlockHandle, LogicalVolume, VolumeGroup
from engine.errors import Damaged, NoSpace, NotFound, Refused, StorageError, from_os_errors
from engine.formats.lvm.group import NOBODY, Group
from engine.formats.lvm.metadata import layout
from engine.formats.lvm.metadata.layout import MetaHeader
from engine.formats.lvm.metadata.pages import PAGE_BYTES, Stamp, seal

_UNREADABLE = b"?" * PAGE_BYTES


class Meta:
    """``dw-meta`` of one group, opened when it is first needed."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self._handle: BlockHandle | None = None
        self._elsewhere: LogicalVolume | None = None
        """The volume as LVM reports it, while this host may not use the group: then it is read from where it lies."""
        self.geometry = layout.EXCLUSIVE_GEOMETRY
        """What the header says; before the header was read, what is the same in every repository."""
        self._header_pages = layout.HEADER_PAGES

    # -- bytes

    def read(self, offset: int, length: int) -> bytes:
        """Read exactly ``length`` bytes. Plain OSError, StorageError when the volume is not there."""
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
        """Write ``data``, which is not durable before ``sync``. Plain OSError; Refused when this host does not manage
        the group."""
        self._ours().write_at(offset, data)

    def zero(self, offset: int, length: int) -> None:
        """Write zeros as ``write`` writes data."""
        self._ours().zero(offset, length)

    def sync(self) -> None:
        """Make what was written durable. Plain OSError."""
        self._ours().sync()

    def keep(self, *written: tuple[int, bytes]) -> None:
        """Make durable what was just written, as (offset, data). A flush that failed may have lost it although all can
        see it, so it is written once more then. Plain OSError."""
        try:
            self.sync()
        except OSError:
            for offset, data in written:
                self.write(offset, data)
            self.sync()

    def _ours(self) -> BlockHandle:
        self._elsewhere = None
        handle = self._handle or self._open_ours()
        if handle is None:
            raise self.not_managed(self.group.report())
        return handle

    def _open_ours(self) -> BlockHandle | None:
        return self.reach(self.group.report())

    def reach(self, report: VolumeGroup) -> BlockHandle | None:
        """Open the device, or note where it lies when this host may not use the group. NotFound, StorageError."""
        volume = self.volume(report)
        if not volume.ranges:
            raise StorageError(
                f"the records in {self.group.name} cannot be read: {report.lacks()}",
                "Attach it; pvs -o pv_name,pv_uuid on a host that sees it tells which device that is"
                if report.partial
                else "Put the volume back as it was",
            )
        shared = bool(self.geometry.hosts) and not report.system_id
        if not (shared or self.group.is_ours(report)):
            self._elsewhere = volume
            return None
        groups = self.group.doors.volume_groups
        path = groups.activate(self.group.name, layout.META)
        with from_os_errors(f"open {layout.META} of {self.group.name}"):
            self._handle = groups.open_device(path, writable=True)
        return self._handle

    def volume(self, report: VolumeGroup) -> LogicalVolume:
        """Return the logical volume of the area in a report. NotFound when there is none, Damaged when there must have
        been one."""
        found = report.volumes.get(layout.META)
        if found is None:
            if any(layout.parse_volume(name) or layout.is_lost(name) for name in report.volumes):
                raise Damaged(
                    f"the volume {layout.META} of group {report.name} is missing, which held the records of all images",
                    "Restore the group's metadata (vgcfgrestore): the content is there as long as nothing was put in "
                    "its place",
                )
            begun = layout.META_UNFINISHED in report.volumes
            raise NotFound(
                f"the volume group {report.name} holds no repository: it has no {layout.META}",
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
        """Read the header as it is now. ``reached``: the caller has just called ``reach``. Damaged, Refused (newer
        major), StorageError."""
        if not reached:
            self._elsewhere = None  # it may have been moved, and may be ours by now
        with from_os_errors(f"read the records in {self.group.name}"):
            raw = self._headers()
            try:
                found = layout.newest_header(raw, self.group.name)
            except Damaged:
                if _UNREADABLE in raw:
                    self.read(0, len(raw))  # tells why
                raise
        if found is None:
            raise Damaged(f"{layout.META} of {self.group.name} is empty", "Put back what was there")
        self._know(found.geometry)
        length = found.geometry.meta_bytes(found.chunks)
        if length > self._length():
            self.close()  # another process may have made it longer
            with from_os_errors(f"read the records in {self.group.name}"):
                self.read(0, PAGE_BYTES)
            if length > self._length():
                raise Damaged(f"{layout.META} of {self.group.name} is shorter than it says", "Put back what was there")
        return found

    def _length(self) -> int:
        reached = self._handle or self._elsewhere
        return reached.size if reached is not None else 0

    def _headers(self) -> bytes:
        """Read all header pages. One that cannot be read is as a damaged one, which does no harm while its twin is
        sound."""
        count = self._header_pages
        try:
            return self.read(0, count * PAGE_BYTES)
        except OSError:
            return b"".join(self._page(index) for index in range(count))

    def _page(self, index: int) -> bytes:
        try:
            return self.read(index * PAGE_BYTES, PAGE_BYTES)
        except OSError:
            return _UNREADABLE

    def _know(self, geometry: layout.Geometry) -> None:
        if geometry != self.geometry:
            self._elsewhere = None  # of a shared one this host may use the device
        self.geometry = geometry
        self._header_pages = geometry.header_pages

    def bad_header_pages(self, header: MetaHeader) -> list[int]:
        """Return the numbers of header pages that are damaged or cannot be read."""
        with from_os_errors(f"read the records in {self.group.name}"):
            return layout.bad_header_pages(self._headers(), header)

    def write_header(self, header: MetaHeader, lane: int = 0) -> MetaHeader:
        """Write the next header, durable on return; the header before is kept until then. In the end both pages of
        the lane have the new one: if only one page knew of the last chunk, damage to that page would hide the records
        in the chunk and have them written over."""
        with from_os_errors(f"write the header of the repository in {self.group.name}"):
            for _ in range(2):
                header = header._replace(sequence=header.sequence + 1)
                offset, page = layout.copy_of(lane, header.sequence) * PAGE_BYTES, sealed_header(header)
                self.write(offset, page)
                self.keep((offset, page))
        return header

    def extend(self, header: MetaHeader, lane: int = 0) -> MetaHeader:
        """Add room for one chunk more, zeroed, durable on return. NoSpace. The caller holds the lock of the records,
        and may change the group."""
        name, geometry = self.group.name, header.geometry
        start = geometry.chunk_start(header.chunks)
        self.require_chunk(header)
        if self.volume(self.group.report()).size < start + geometry.chunk_bytes:
            self.group.doors.volume_groups.resize(name, layout.META, start + geometry.chunk_bytes)
            self.group.sync()
            self.close()  # the device is opened again with its new size
        with from_os_errors(f"make room for records in {name}"):
            self.zero(start, geometry.chunk_bytes)
            self.sync()
        return self.write_header(header._replace(chunks=header.chunks + 1), lane)

    def require_chunk(self, header: MetaHeader, beside: int = 0) -> None:
        """Return if the group has room for one chunk more and ``beside`` bytes. NoSpace."""
        if header.chunks >= layout.MAX_CHUNKS:
            raise NoSpace(f"there is no room for more records in {self.group.name}", "Remove images, and clean")
        report = self.group.report()
        wanted = beside
        if self.volume(report).size < header.geometry.meta_bytes(header.chunks + 1):
            wanted += header.geometry.chunk_bytes
        if report.free < wanted:
            raise NoSpace(
                f"{report.name} has {human(report.free)} free, and {human(wanted)} are needed to keep records",
                "Make room (check lists what can be cleaned), or add a device to the group",
            )

    def not_managed(self, report: VolumeGroup, manager: str = "") -> Refused:
        """Return the error for what only the manager may do."""
        if report.system_id == NOBODY or (self.geometry.hosts and not manager):
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
    """Return the bytes of one header page."""
    payload = layout.encode_header(header)
    return seal(Stamp(header.term, header.sequence, bytes(8)), payload)
