"""The format ``lvm``: logical volumes of one volume group, with their records in one of them.

``exclusive`` mode: LVM's system ID says which host may use the group. That host is the manager; every
other one can look at the repository and do nothing in it until it takes the group over. ``shared``
mode: every host that takes part may change records and use volumes; the manager alone changes LVM's
metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from engine.data.model import ALIGNMENT_BYTES, MAX_IMAGE_BYTES, Constraints, VolumeFormat, require_id
from engine.data.records import Record, VolumeRef
from engine.doors import Doors
from engine.doors.images import Layer
from engine.doors.leases import Lease
from engine.doors.volume_groups import VolumeGroup
from engine.errors import DiskwrightError
from engine.formats.base import Litter, Scan, TagEntry, VolumeFacts, unverified
from engine.formats.lvm import setup
from engine.formats.lvm.digests import HostDigests
from engine.formats.lvm.group import Group
from engine.formats.lvm.guard import ExclusiveGuard
from engine.formats.lvm.litter import LitterBox
from engine.formats.lvm.metadata import layout
from engine.formats.lvm.metadata.area import Meta
from engine.formats.lvm.metadata.progress import ProgressLogs
from engine.formats.lvm.metadata.records import Records
from engine.formats.lvm.shared.guard import SharedGuard
from engine.formats.lvm.volumes import Volumes
from engine.tools.local.threads import collector_off
from engine.tools.qemu.qcow2 import MAX_FRESH_SIZE

VERSION = (layout.MAJOR, layout.MINOR)


class LvmRepository:
    """An open repository on a volume group. Any number may be open at once."""

    managed = True
    read_errors_count = True

    def __init__(
        self, group: Group, meta: Meta, header: layout.MetaHeader, guard: ExclusiveGuard | SharedGuard
    ) -> None:
        self._group = group
        self._meta = meta
        self._header = header
        self._guard = guard
        self._records = Records(meta, guard)
        if isinstance(guard, SharedGuard):
            guard.places = self._records
        self._logs = ProgressLogs(meta, self._guard)
        self._volumes = Volumes(group, self._guard)
        self._digests = HostDigests(group)
        self._litter = LitterBox(group, self._guard, self._records, self._logs, self._volumes, self._digests)

    @property
    def format(self) -> str:
        """Type and the version that is on disk."""
        return f"lvm-{self._header.version}"

    @property
    def identity(self) -> str:
        """From the header of ``dw-meta``."""
        return self._header.identity

    @property
    def place(self) -> str:
        """The volume group."""
        return f"volume group {self._group.name}"

    def constraints(self) -> Constraints:
        """Nothing needs to be tried out."""
        return Constraints(
            needs_srm=True,
            alignment_bytes=ALIGNMENT_BYTES,
            max_image_bytes=min(MAX_IMAGE_BYTES, MAX_FRESH_SIZE),
            direct_io=True,
            reflink=False,
            hole_punching=False,
            discard=False,
            write_zeroes=True,
            shared=bool(self._header.hosts),
            fencing=self._guard.fencing,
        )

    def space(self) -> tuple[int, int]:
        """Of the volume group."""
        report = self._group.report()
        return report.size, report.free

    # -- tags

    def scan(self) -> Scan:
        """Volumes first, then tags, then progress: one LVM command, and the first pages of ``dw-meta`` in order."""
        report = self._group.report()
        with collector_off():
            tags = self._records.scan()
        return Scan(_volumes(report), tags, self._litter.find(report, tags), listing=report)

    def scan_tags(self) -> dict[str, TagEntry]:
        """As ``scan``, without the rest. A record that cannot be read is in it, as such."""
        with collector_off():
            return self._records.scan()

    def read_tag(self, tag: str) -> TagEntry | None:
        """One read where the tag's place is known, else one of all heads."""
        return self._records.read(require_id(tag, "image"))

    def publish(self, record: Record, expected: int) -> int:
        """One sync, under the lock of the records."""
        require_id(record.id, "image")
        return self._records.publish(record, expected)

    def settle(self, tag: str) -> None:
        """One sync: it is all on one device."""
        require_id(tag, "tag")
        self._records.settle()

    def settle_all(self) -> None:
        """The same."""
        self._records.settle()

    def purge_tag(self, tag: str, expected: int) -> None:
        """As ``publish``, of a tombstone."""
        self._records.purge(require_id(tag, "image"), expected)

    # -- volumes

    def listing(self) -> object:
        """A report of the group."""
        return self._group.report()

    def volume_facts(self, volume: str, format: VolumeFormat, listing: object = None) -> VolumeFacts:
        """From LVM's report; the header of a qcow2 from where its first extent lies."""
        require_id(volume, "volume")
        try:
            report = listing if isinstance(listing, VolumeGroup) else self._group.report()
            return self._volumes.facts(volume, format, report)
        except DiskwrightError as error:
            return VolumeFacts(volume, format, True, problem=error.message, unreadable=True)

    def make_volume(
        self,
        volume: VolumeRef,
        size: int,
        backing_format: VolumeFormat | None,
        verify: Callable[[], None] = unverified,
        filled: bool = False,
    ) -> None:
        """Born with its tags, synced, then zeroed as far as needed, synced."""
        require_id(volume.id, "volume")
        verify()
        self._volumes.make(volume, size, backing_format, filled)

    def remove_volume(self, volume: str, format: VolumeFormat) -> None:
        """One commit of LVM and a sync of its devices, the latter also when it was gone."""
        self._volumes.remove(require_id(volume, "volume"))

    def quarantine_volume(self, volume: str, format: VolumeFormat) -> None:
        """It gets the name ``dwlost-<volume>``."""
        self._volumes.quarantine(require_id(volume, "volume"))

    def layer(self, volume: VolumeRef) -> Layer:
        """The device, activated and held."""
        require_id(volume.id, "volume")
        return self._volumes.layer(volume)

    def hold(self, volume: VolumeRef) -> Lease | None:
        """A shared lock of this host."""
        return self._volumes.hold(volume)

    def deactivate(self, every: bool = False) -> None:
        """What is still in use stays active."""
        self._volumes.deactivate_unused(every)

    def make_room(self, volume: VolumeRef, size: int) -> None:
        """Extends the logical volume where that is needed."""
        self._volumes.make_room(volume, size)

    def reduce(self, volume: VolumeRef) -> int:
        """Told by the reference counts, in whole extents."""
        return self._volumes.reduce(volume)

    def freeze(self, volume: VolumeRef) -> None:
        """Zeros the rest of the last extent of a raw volume: whoever had it prepared may have written there."""
        self._volumes.freeze(volume)

    # -- progress and digests

    def start_progress(self, tag: str, epoch: int) -> None:
        """A slot that is there already."""
        self._logs.start(require_id(tag, "image"), epoch)

    def write_progress(self, tag: str, epoch: int, sequence: int, line: bytes) -> None:
        """One sector."""
        self._logs.write(require_id(tag, "image"), epoch, sequence, line)

    def read_progress(self, tag: str, epoch: int) -> bytes | None:
        """The line with the highest sequence."""
        return self._logs.read(require_id(tag, "image"), epoch)

    def remove_progress(self, tag: str, epoch: int) -> None:
        """Not durable: if it comes back after a crash, ``check`` reports it."""
        self._logs.remove(require_id(tag, "image"), epoch)

    def write_digests(self, volume: str, data: bytes) -> None:
        """On this host, until it boots."""
        self._digests.write(require_id(volume, "volume"), data)

    def read_digests(self, volume: str) -> bytes | None:
        """None also where another host made them."""
        return self._digests.read(require_id(volume, "volume"))

    def remove_digests(self, volume: str) -> None:
        """On this host."""
        self._digests.remove(require_id(volume, "volume"))

    # -- leases, the manager, litter

    def try_lease(self, tag: str, shared: bool = False) -> Lease | None:
        """As the guard has it."""
        return self._guard.try_lease(require_id(tag, "image"), shared)

    def lease_held(self, tag: str) -> bool:
        """As the guard has it."""
        return self._guard.lease_held(require_id(tag, "image"))

    def adopt_lease(self, tag: str, token: str) -> Lease:
        """As the guard has it."""
        return self._guard.adopt_lease(require_id(tag, "image"), token)

    def late_writer(self, volume: VolumeRef) -> str:
        """As the hosts say themselves what they have active."""
        return self._guard.may_be_written(require_id(volume.id, "volume"))

    def require_able_to_make(self, format: VolumeFormat, size: int) -> None:
        """This host is the manager, and the group has the room and all its devices."""
        self._volumes.require_room(format, size)

    def manager(self) -> str:
        """As the guard has it."""
        return self._guard.manager()

    def take_management(self, dead: str) -> None:
        """As the guard has it."""
        self._guard.take(dead)

    def release_management(self) -> None:
        """Nothing of it stays active here, where the next one is the only host to use it."""
        if self._header.hosts:
            self._guard.release()
            return
        if not self._guard.is_manager():
            raise self._meta.not_managed(self._group.report(), self._guard.manager())
        if self._volumes.deactivate_unused(every=True):
            raise setup.still_in_use(self._group.name)
        self._meta.close()
        setup.deactivate_meta(self._group)
        self._guard.release()
        if any(layout.is_ours(volume.name) and volume.active for volume in self._group.report().volumes.values()):
            # A process of this host was quicker than LVM's mark, after which none can begin to use any.
            self._guard.take("")
            raise setup.still_in_use(self._group.name)

    def remove_litter(self, items: Iterable[Litter]) -> int:
        """Each after a fresh look."""
        return self._litter.remove(items)

    def close(self) -> None:
        """No volume stays active for us; ``dw-meta`` does until the repository is disconnected."""
        try:
            self._volumes.deactivate_unused(every=False)
        except DiskwrightError:
            pass  # the storage is away: nothing of it can be told to go
        finally:
            self._meta.close()
            self._group.close()


def _volumes(report: VolumeGroup) -> dict[str, VolumeFormat]:
    found = {}
    for name, volume in report.volumes.items():
        parsed = layout.parse_tags(volume.tags)
        id = layout.parse_volume(name)
        if id is not None and parsed is not None:
            found[id] = parsed[0]
    return found


def create(doors: Doors, parameters: dict[str, object]) -> None:
    """Make an empty repository in a volume group, which is made too where devices or files are given."""
    setup.create(doors, setup.parse(parameters))


def open(doors: Doors, parameters: dict[str, object], threads: bool) -> LvmRepository:
    """Open the repository in a volume group; an exclusive one read-only where another host manages it. Where hosts
    share it this one takes part from then on, until ``detach``."""
    del threads  # one sequential read needs none
    return LvmRepository(*setup.attach(doors, setup.parse(parameters)))


def detach(doors: Doors, parameters: dict[str, object]) -> None:
    """Deactivate all volumes, take part no more, and take away what the devices stand on."""
    setup.detach(doors, setup.parse(parameters))


def reached(doors: Doors, parameters: dict[str, object]) -> object:
    """Active volumes of the group, and devices over files."""
    parsed = setup.parse(parameters)
    return parsed.volume_group, parsed.files
