"""Creating, reaching and leaving a repository on LVM.

Creating: the group where it is not there yet; a volume ``dw-new``, zeroed, with a header, durable;
and its renaming to ``dw-meta``, which is the commit. What was there on the devices before (an older
repository even) can thus never be taken for this one. Where hosts share it, ``dw-leases`` is made
first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from engine.data.amounts import human
from engine.data.model import require_path
from engine.doors import Doors
from engine.doors.files import Access
from engine.doors.shared_leases import LeaseArea
from engine.doors.volume_groups import VolumeGroup
from engine.errors import (
    BadRequest,
    Conflict,
    DiskwrightError,
    NoSpace,
    NotFound,
    Refused,
    StorageError,
    from_os_errors,
)
from engine.formats.lvm.digests import HostDigests
from engine.formats.lvm.group import Group
from engine.formats.lvm.guard import ExclusiveGuard
from engine.formats.lvm.metadata import layout
from engine.formats.lvm.metadata.area import Meta, sealed_header
from engine.formats.lvm.metadata.pages import PAGE_BYTES
from engine.formats.lvm.shared import lease_volume
from engine.formats.lvm.shared.guard import SharedGuard
from engine.formats.lvm.shared.roster import Roster
from engine.formats.lvm.volumes.activation import Activation

_KNOWN = ("volume_group", "devices", "files", "file_bytes", "sector_bytes", "exclusive", "shared", "hosts")
"""Some are needed for creating only; connecting takes the same ones."""
_SECTORS = (512, 4096)
_UNFINISHED = (layout.META_UNFINISHED, layout.LEASES)
"""Of a creation that was interrupted; what is in them is made anew."""
_HOSTS = 8


class Parameters(NamedTuple):
    """Connection parameters, checked."""

    volume_group: str
    devices: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    file_bytes: int = 0
    sector_bytes: int = 512
    hosts: int = 0
    """Most hosts that may share a new repository, 0: one at a time."""

    @property
    def geometry(self) -> layout.Geometry:
        """Return the geometry of a new repository."""
        return layout.Geometry(self.hosts)


def parse(given: dict[str, object]) -> Parameters:
    """Check the connection parameters that an operator gave, or raise BadRequest."""
    for name in given:
        if name not in _KNOWN:
            raise BadRequest(f"an lvm repository takes no parameter {name!r:.60}", f"It knows {', '.join(_KNOWN)}")
    group = given.get("volume_group")
    if not isinstance(group, str) or not group:
        raise BadRequest("an lvm repository needs the parameter volume_group", "Give the name of a volume group")
    devices, files = _paths(given, "devices"), _paths(given, "files")
    if devices and files:
        raise BadRequest("devices and files cannot be given together", "Give one of them")
    sectors = _sectors(_number(given, "sector_bytes", 512))
    return Parameters(group, devices, files, _number(given, "file_bytes", 0), sectors, _hosts(given))


def _hosts(given: dict[str, object]) -> int:
    shared = _flag(given, "shared", False)
    if shared == _flag(given, "exclusive", not shared):
        raise BadRequest("a repository is either shared or exclusive", "Give one of the two")
    if not shared:
        if "hosts" in given:
            raise BadRequest("hosts is for repositories that hosts share", "Give shared=true too, or leave it out")
        return 0
    hosts = _number(given, "hosts", _HOSTS)
    if not layout.MIN_HOSTS <= hosts <= layout.MAX_HOSTS:
        raise BadRequest(f"hosts {hosts} is not in {layout.MIN_HOSTS} to {layout.MAX_HOSTS}")
    return hosts


def _paths(given: dict[str, object], name: str) -> tuple[str, ...]:
    value = given.get(name, ())
    items = [item for item in value.split(",") if item] if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise BadRequest(f"{name} must be a list of paths, or paths with commas between them")
    return tuple(require_path(item) for item in items)


def _number(given: dict[str, object], name: str, default: int) -> int:
    value = given.get(name, default)
    if isinstance(value, str) and value.isdecimal() and value.isascii() and len(value) < 20:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BadRequest(f"{name} {value!r:.60} is not a number of bytes")
    return value


def _flag(given: dict[str, object], name: str, default: bool) -> bool:
    value = given.get(name, default)
    flag = {"true": True, "yes": True, "false": False, "no": False}.get(value) if isinstance(value, str) else value
    if not isinstance(flag, bool):
        raise BadRequest(f"{name} {value!r:.60} is neither true nor false")
    return flag


def _sectors(value: int) -> int:
    if value not in _SECTORS:
        raise BadRequest(f"sector_bytes {value} is neither 512 nor 4096")
    return value


# -- creating


def create(doors: Doors, parameters: Parameters, access: Access | None = None) -> None:
    """Make an empty repository, durable on return; ``access``: of its volumes. Until the last step there is none; what
    was attached and activated is taken away again. Conflict when there is one."""
    groups = doors.volume_groups
    devices = list(parameters.devices)
    with contextlib.suppress(NotFound):  # before anything is attached: who has it connected would lose it afterwards
        _require_no_repository(groups.report(parameters.volume_group))
    with contextlib.ExitStack() as undo:
        if parameters.files:
            undo.callback(groups.detach_files, parameters.files)
            devices = groups.attach_files(parameters.files, parameters.sector_bytes, parameters.file_bytes)
        report = _group(doors, parameters, devices)
        group = Group(doors, report.name, report.uuid)
        _make_meta(group, report, parameters.geometry, access)


def _group(doors: Doors, parameters: Parameters, devices: list[str]) -> VolumeGroup:
    """Return a report of the group, made of ``devices`` when it is not there, with LVM's mark as it is to be."""
    groups, name = doors.volume_groups, parameters.volume_group
    mark = "" if parameters.hosts else groups.system_id
    try:
        report = groups.report(name)
    except NotFound:
        if not devices:
            raise NotFound(
                f"there is no volume group {name!r:.80}", "Give devices or files to make it of, or the right name"
            ) from None
        groups.create_group(name, devices, mark)
        groups.sync(name)
        return groups.report(name)
    _require_no_repository(report)
    if report.system_id not in ("", groups.system_id):
        raise Refused(f"the volume group {name} belongs to host {report.system_id}", "Do it there, or use another")
    if report.system_id == "" and mark:
        strangers = sorted(volume for volume in report.volumes if not layout.is_ours(volume))
        if strangers:
            raise Refused(
                f"the volume group {name} has volumes of others ({strangers[0]!r:.60}) and belongs to no host",
                "Use a group of its own; or give it to this host alone, as a repository is, and with it those volumes: "
                f"vgchange --yes --systemid {groups.system_id} {name}",
            )
    if report.system_id != mark:
        groups.set_system_id(name, mark, report.system_id)
        groups.sync(name)
    return groups.report(name)


def _require_no_repository(report: VolumeGroup) -> None:
    if layout.META in report.volumes:
        raise Conflict(f"there is a repository in the volume group {report.name} already", "Connect it")
    data = sorted(name for name in report.volumes if layout.is_ours(name) and name not in _UNFINISHED)
    if data:
        raise Conflict(
            f"the volume group {report.name} has data of a repository ({data[0]}) and no {layout.META}",
            f"If it lost its {layout.META}, restore that volume; if the data is not needed, remove it with lvremove",
        )


def _make_meta(group: Group, report: VolumeGroup, geometry: layout.Geometry, access: Access | None) -> None:
    groups, name = group.doors.volume_groups, group.name
    length, leases = geometry.meta_bytes(1), layout.leases_bytes(1) if geometry.hosts else 0
    if report.partial:
        raise StorageError(
            report.say_missing(), "Attach it; pvs -o pv_name,pv_uuid on a host that sees it tells which device that is"
        )
    begun = [report.volumes[volume] for volume in _UNFINISHED if volume in report.volumes]
    free = report.free + sum(volume.size for volume in begun)
    if free < length + leases:
        raise NoSpace(
            f"{name} has {human(free)} free, a repository needs {human(length + leases)} at least", "Add a device to it"
        )
    for volume in begun:
        groups.remove(name, volume.name)
    identity = group.doors.ids.new_id()
    if geometry.hosts:
        _make_leases(group, identity, leases)
    groups.create(name, layout.META_UNFINISHED, length, [])
    with _active(group, layout.META_UNFINISHED) as path:
        header = layout.MetaHeader(
            version=f"{layout.MAJOR}.{layout.MINOR}", identity=identity,
            mode=layout.SHARED if geometry.hosts else layout.EXCLUSIVE,
            chunks=1, manager=group.doors.ids.host_id, term=1, sequence=0, hosts=geometry.hosts,
            nonce="" if geometry.hosts else group.doors.ids.host_nonce,
        )  # fmt: skip
        if access is not None:
            header = header.with_access(access)
        with from_os_errors(f"create a repository in {name}"), groups.open_device(path, writable=True) as device:
            device.zero(0, length)
            device.write_at(0, sealed_header(header))
            device.write_at(PAGE_BYTES, sealed_header(header._replace(sequence=1)))
            device.sync()
    groups.rename(name, layout.META_UNFINISHED, layout.META)
    group.sync()


def _make_leases(group: Group, identity: str, length: int) -> None:
    """Make ``dw-leases``, with the leases of the group, the records and one chunk of records."""
    group.doors.volume_groups.create(group.name, layout.LEASES, length, [])
    group.sync()
    with _active(group, layout.LEASES) as path:
        area = LeaseArea(layout.area_name(identity), path)
        group.doors.shared_leases.make_area(area)
        group.doors.shared_leases.make_slots(area, 0, layout.tag_lease(layout.SLOTS))


@contextlib.contextmanager
def _active(group: Group, volume: str) -> Iterator[str]:
    groups = group.doors.volume_groups
    try:
        yield groups.activate(group.name, volume)
    finally:
        groups.deactivate(group.name, volume)


# -- reaching and leaving


class Attached(NamedTuple):
    """What a repository is made of."""

    group: Group
    meta: Meta
    header: layout.MetaHeader
    guard: ExclusiveGuard | SharedGuard
    files: tuple[str, ...]
    """What its devices stand on, where they are over files."""


def attach(doors: Doors, parameters: Parameters) -> Attached:
    """Attach the devices of a repository, take part where hosts share it, and return what it is made of. NotFound,
    Damaged, Refused, Conflict, StorageError."""
    if parameters.files:
        doors.volume_groups.attach_files(parameters.files, parameters.sector_bytes)
    report = doors.volume_groups.report(parameters.volume_group)
    group = Group(doors, report.name, report.uuid)
    meta = Meta(group)
    try:
        meta.reach(report)
        header = meta.header(reached=True)
        if header.mode != layout.SHARED:
            _mark_as_ours(group, meta, report, header)
            return Attached(group, meta, header, ExclusiveGuard(group, meta), parameters.files)
        roster = Roster(meta, lease_volume.activate(group, header, report))
        guard = SharedGuard(group, meta, roster.join(), header.chunks)
        guard.require_as_new(header)
        guard.begin()
        return Attached(group, meta, guard.resume(header), guard, parameters.files)
    except BaseException:
        meta.close()
        group.close()
        raise


def _mark_as_ours(group: Group, meta: Meta, report: VolumeGroup, header: layout.MetaHeader) -> None:
    """Have LVM's mark say which host of its name this is, where an older program marked the group with the name alone.
    While volumes are active here that cannot be: then it is as if another host had it, until they are torn down."""
    former, groups = report.system_id, group.doors.volume_groups
    if former == groups.system_id or not group.managed_by_name(report, header):
        return
    with contextlib.suppress(DiskwrightError):
        meta.close()
        deactivate_meta(group)
        groups.set_system_id(group.name, groups.system_id, former)
        group.sync()
    meta.reach(group.report())


def detach(doors: Doors, parameters: Parameters) -> None:
    """Leave nothing active or attached, and take part no more. Success when the group is not there. StorageError while
    something is in use, Conflict while a process of this host holds a lease: then this host takes part as before."""
    try:
        report = doors.volume_groups.report(parameters.volume_group)
    except NotFound:
        report = None
    if report is not None and layout.META in report.volumes:
        group = Group(doors, report.name, report.uuid)
        meta = Meta(group)
        try:
            _leave(group, meta, report)
        finally:
            meta.close()
        deactivate_meta(group)  # also when the group is another host's by now: nobody else can
        if doors.volume_groups.remove_devices(report.uuid):  # of volumes that another host removed
            raise still_in_use(report.name)
        HostDigests(group).forget()
    if parameters.files:
        doors.volume_groups.detach_files(parameters.files)


def _leave(group: Group, meta: Meta, report: VolumeGroup) -> None:
    """Deactivate everything but ``dw-meta``, and take part no more."""
    leases, header = report.volumes.get(layout.LEASES), None
    if leases is None:  # it may have been lost, and this host take part all the same
        with contextlib.suppress(DiskwrightError):
            header = meta.header()
    elif leases.active:
        header = meta.header()
    if header is None or not header.hosts:  # not shared, or this host takes no part
        if Activation(group, ExclusiveGuard(group, meta)).deactivate(every=True):
            raise still_in_use(report.name)
        return
    area = lease_volume.area(group, header)
    if leases is not None:
        area = area._replace(path=group.doors.volume_groups.activate(group.name, layout.LEASES))
    roster = Roster(meta, area)
    member = roster.member()
    if member is not None:
        guard = SharedGuard(group, meta, member, header.chunks)
        if Activation(group, guard).deactivate(every=True):
            raise still_in_use(report.name)
        meta.close()  # so that who has it open is somebody else
        if group.report().volumes[layout.META].open:
            raise still_in_use(report.name)
        guard.forget_notes()
        roster.leave()
    if leases is not None:
        group.doors.volume_groups.deactivate(group.name, layout.LEASES)


def deactivate_meta(group: Group) -> None:
    """Deactivate ``dw-meta``, the last of what is active; another process of this host that needs it activates it
    again."""
    group.doors.volume_groups.deactivate(group.name, layout.META)


def still_in_use(name: str) -> StorageError:
    """Return the error for volumes that somebody has open."""
    return StorageError(f"volumes of {name} are in use on this host", "Stop what uses them, and try again")
