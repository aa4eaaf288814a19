"""The format ``lvm``: logical volumes of one volume group, with their records in one of them.

``exclusive`` mode: LVM's system ID says which host may use the group. That host is the manager; every
other one can look at the repository and do nothing in it until it takes the group over. ``shared``
mode: every host that takes part may change records and use volumes; the manager alone changes LVM's
metadata.
"""

from __future__ import annotations

import contextlib

from engine.data.model import ALIGNMENT_BYTES, MAX_IMAGE_BYTES, Constraints, VolumeFormat
from engine.doors import Doors
from engine.doors.files import Access, make_directories
from engine.doors.volume_groups import VolumeGroup
from engine.errors import DiskwrightError, from_os_errors
from engine.formats import access
from engine.formats.base import Scan
from engine.formats.groups import Grouped
from engine.formats.lvm import setup
from engine.formats.lvm.digests import HostDigests
from engine.formats.lvm.group import Group
from engine.formats.lvm.guard import ExclusiveGuard
from engine.formats.lvm.leases import HostLeases
from engine.formats.lvm.litter import LitterBox
from engine.formats.lvm.manager import ExclusiveManager
from engine.formats.lvm.metadata import layout
from engine.formats.lvm.metadata.area import Meta
from engine.formats.lvm.metadata.progress import ProgressLogs
from engine.formats.lvm.metadata.records import Records
from engine.formats.lvm.shared.guard import SharedGuard
from engine.formats.lvm.shared.leases import SlotLeases
from engine.formats.lvm.volumes.activation import Activation
from engine.formats.lvm.volumes.adoption import Adoption
from engine.formats.lvm.volumes.extents import Extents
from engine.formats.lvm.volumes.volumes import Volumes
from engine.tools.qemu.qcow2 import MAX_FRESH_SIZE

VERSION = (layout.MAJOR, layout.MINOR)


class LvmRepository:
    """An open repository on a volume group. Any number may be open at once."""

    read_errors_count = True

    def __init__(
        self,
        group: Group,
        meta: Meta,
        header: layout.MetaHeader,
        guard: ExclusiveGuard | SharedGuard,
        files: tuple[str, ...],
    ) -> None:
        self.records = Records(meta, guard)
        self.tags = Grouped(self.records)
        self.progress = ProgressLogs(meta, guard)
        self.digests = HostDigests(group)
        self.activation = Activation(group, guard)
        self.activation.access = header.access(group.name)
        self.volumes = Volumes(group, guard, self.activation)
        self.extents = Extents(group, guard, self.activation, self.volumes, self.tags)
        self.leases: HostLeases | SlotLeases
        self.manager: ExclusiveManager | SharedGuard
        if isinstance(guard, SharedGuard):
            self.leases, self.manager = SlotLeases(group.doors, guard, self.records), guard
        else:
            self.leases, self.manager = HostLeases(group), ExclusiveManager(group, meta, guard, self.activation)
        self.ballast = None
        self.adoption = Adoption(group, guard) if isinstance(guard, ExclusiveGuard) else None
        self.parts = None
        self.litter = LitterBox(group, guard, self.leases, self.records, self.progress, self.volumes, self.digests)
        self._group = group
        self._meta = meta
        self._header = header
        self._guard = guard
        self._files = files

    @property
    def format(self) -> str:
        """Type and the version that is on disk."""
        return f"lvm-{self._header.version}"

    @property
    def identity(self) -> str:
        """The id in the header of ``dw-meta``."""
        return self._header.identity

    @property
    def place(self) -> str:
        """The name of the volume group."""
        return f"volume group {self._group.name}"

    def anchors(self) -> dict[str, int | str]:
        """Return LVM's UUID of the group, which ``vgimportclone`` makes anew; and the inodes of files that its devices
        stand on. The UUIDs of devices are none: they come and go with pvmove. A clone that has the group's UUID too is
        told by nothing; LVM refuses to see it beside the other."""
        found: dict[str, int | str] = {"the volume group": self._group.uuid}
        for path in self._files:
            with from_os_errors(f"look at {path}"):
                found[f"the file {path}"] = self._group.doors.files.stat(path).inode
        return found

    def give(self, access: Access) -> None:
        """Change the header, as who may. Devices are given when they are handed out, on each host by itself. First it
        is tried with a file of this host."""
        files, path = self._group.doors.files, self._group.run_path("access")
        with from_os_errors(f"give the volumes of {self.place} to others"):
            make_directories(files, path.rpartition("/")[0])
            with contextlib.suppress(FileNotFoundError):
                files.unlink(path)
            with files.create(path) as handle:
                try:
                    handle.give(access)
                finally:
                    files.unlink(path)
        self._guard.renew_header(lambda header: header.with_access(access))
        self.activation.access = access

    def warnings(self) -> list[str]:
        """Ask sanlock where hosts share the group."""
        return self._group.doors.shared_leases.warnings() if isinstance(self.manager, SharedGuard) else []

    def constraints(self) -> Constraints:
        """Say what the header tells: nothing needs to be tried out."""
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
        """Ask LVM for the volume group."""
        report = self._group.report()
        return report.size, report.free

    def scan(self) -> Scan:
        """List volumes first, then tags, then progress: one LVM command, and the first pages of ``dw-meta`` in
        order."""
        report = self._group.report()
        tags = self.records.scan()
        return Scan(_volumes(report), self.tags.meant(tags), self.litter.find(report, tags), listing=report)

    def close(self) -> None:
        """Let no volume stay active for this process; ``dw-meta`` does until the repository is disconnected."""
        try:
            self.activation.deactivate()
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
    rest, given = access.take_out(parameters)
    setup.create(doors, setup.parse(rest), given)


def open(doors: Doors, parameters: dict[str, object], threads: bool) -> LvmRepository:
    """Open the repository in a volume group; an exclusive one read-only where another host manages it. Where hosts
    share it this one takes part from then on, until ``detach``."""
    del threads  # one sequential read needs none
    return LvmRepository(*setup.attach(doors, setup.parse(parameters)))


def detach(doors: Doors, parameters: dict[str, object]) -> None:
    """Deactivate all volumes, take part no more, and take away what the devices stand on."""
    setup.detach(doors, setup.parse(parameters))


def reached(doors: Doors, parameters: dict[str, object]) -> object:
    """Return the active volumes of the group, and devices over files."""
    parsed = setup.parse(parameters)
    return parsed.volume_group, parsed.files
