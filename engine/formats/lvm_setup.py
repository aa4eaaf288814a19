"""Creating, reaching and leaving a repository on LVM.

Creating: the group where it is not there yet; a volume ``dw-new``, zeroed, with a header, durable;
and its renaming to ``dw-meta``, which is the commit. What was there on the devices before (an older
repository even) can thus never be taken for this one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from engine.doors import Doors
from engine.doors.volume_groups import VolumeGroup
from engine.errors import BadRequest, Conflict, NoSpace, NotFound, Refused, StorageError
from engine.formats import lvm_layout as layout
from engine.formats.files_tree import doing
from engine.formats.lvm_digests import HostDigests
from engine.formats.lvm_group import Group
from engine.formats.lvm_guard import ExclusiveGuard
from engine.formats.lvm_meta import Meta, sealed_header
from engine.formats.lvm_volumes import Volumes
from engine.model import require_path

_KNOWN = ("volume_group", "devices", "files", "file_bytes", "sector_bytes", "exclusive")
"""Some are needed for creating only; connecting takes the same ones."""
_SECTORS = (512, 4096)


class Parameters(NamedTuple):
    """Connection parameters, checked."""

    volume_group: str
    devices: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    file_bytes: int = 0
    sector_bytes: int = 512


def parse(given: dict[str, object]) -> Parameters:
    """What an operator gave, or BadRequest."""
    for name in given:
        if name not in _KNOWN:
            raise BadRequest(f"an lvm repository takes no parameter {name!r:.60}", f"It knows {', '.join(_KNOWN)}")
    group = given.get("volume_group")
    if not isinstance(group, str) or not group:
        raise BadRequest("an lvm repository needs the parameter volume_group", "Give the name of a volume group")
    if _flag(given.get("exclusive", True)) is not True:
        raise BadRequest("this program knows lvm repositories of one host at a time only", "Leave exclusive out")
    devices, files = _paths(given, "devices"), _paths(given, "files")
    if devices and files:
        raise BadRequest("devices and files cannot be given together", "Give one of them")
    return Parameters(
        group, devices, files, _number(given, "file_bytes", 0), _sectors(_number(given, "sector_bytes", 512))
    )


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


def _flag(value: object) -> object:
    return (
        {"true": True, "yes": True, "false": False, "no": False}.get(value, value) if isinstance(value, str) else value
    )


def _sectors(value: int) -> int:
    if value not in _SECTORS:
        raise BadRequest(f"sector_bytes {value} is neither 512 nor 4096")
    return value


# -- creating


def create(doors: Doors, parameters: Parameters) -> None:
    """Make an empty repository, durable on return. Until the last step there is none; what was attached and activated
    is taken away again. Conflict when there is one."""
    groups = doors.volume_groups
    devices = list(parameters.devices)
    with contextlib.suppress(NotFound):  # before anything is attached: who has it connected would lose it afterwards
        _require_no_repository(groups.report(parameters.volume_group))
    with contextlib.ExitStack() as undo:
        if parameters.files:
            undo.callback(groups.detach_files, parameters.files)
            devices = groups.attach_files(parameters.files, parameters.sector_bytes, parameters.file_bytes)
        report = _group(doors, parameters.volume_group, devices)
        group = Group(doors, report.name, report.uuid)
        _make_meta(group, report)


def _group(doors: Doors, name: str, devices: list[str]) -> VolumeGroup:
    """The group, made of ``devices`` when it is not there, and this host's alone."""
    groups = doors.volume_groups
    try:
        report = groups.report(name)
    except NotFound:
        if not devices:
            raise NotFound(
                f"there is no volume group {name!r:.80}", "Give devices or files to make it of, or the right name"
            ) from None
        groups.create_group(name, devices, groups.system_id)
        groups.sync(name)
        return groups.report(name)
    _require_no_repository(report)
    if report.system_id not in ("", groups.system_id):
        raise Refused(f"the volume group {name} belongs to host {report.system_id}", "Do it there, or use another")
    if report.system_id == "":
        strangers = sorted(volume for volume in report.volumes if not layout.is_ours(volume))
        if strangers:
            raise Refused(
                f"the volume group {name} has volumes of others ({strangers[0]!r:.60}) and belongs to no host",
                "Use a group of its own: as a repository only one host could use those volumes",
            )
        groups.set_system_id(name, groups.system_id, "")
        groups.sync(name)
    return groups.report(name)


def _require_no_repository(report: VolumeGroup) -> None:
    if layout.META in report.volumes:
        raise Conflict(f"there is a repository in the volume group {report.name} already", "Connect it")
    data = sorted(name for name in report.volumes if layout.is_ours(name) and name != layout.META_UNFINISHED)
    if data:
        raise Conflict(
            f"the volume group {report.name} has data of a repository ({data[0]}) and no {layout.META}",
            f"If it lost its {layout.META}, restore that volume; if the data is not needed, remove it with lvremove",
        )


def _make_meta(group: Group, report: VolumeGroup) -> None:
    groups, name = group.doors.volume_groups, group.name
    length = layout.meta_bytes(1)
    if report.partial:
        raise StorageError(f"a device of the volume group {name} is missing", "Bring it back")
    begun = report.volumes.get(layout.META_UNFINISHED)
    free = report.free + (begun.size if begun else 0)
    if free < length:
        raise NoSpace(f"{name} has {free} free bytes, a repository needs {length} at least", "Add a device to it")
    if begun is not None:
        groups.remove(name, layout.META_UNFINISHED)
    groups.create(name, layout.META_UNFINISHED, length, [])
    with _active(group, layout.META_UNFINISHED) as path:
        header = layout.MetaHeader(
            version=f"{layout.MAJOR}.{layout.MINOR}", identity=group.doors.ids.new_id(), mode=layout.EXCLUSIVE,
            chunks=1, manager=group.doors.ids.host_id, term=1, sequence=0,
        )  # fmt: skip
        with doing(f"create a repository in {name}"), groups.open_device(path, writable=True) as device:
            device.zero(0, length)
            device.write_at(0, sealed_header(header))
            device.sync()
    groups.rename(name, layout.META_UNFINISHED, layout.META)
    group.sync()


@contextlib.contextmanager
def _active(group: Group, volume: str) -> Iterator[str]:
    groups = group.doors.volume_groups
    try:
        yield groups.activate(group.name, volume)
    finally:
        groups.deactivate(group.name, volume)


# -- reaching and leaving


def attach(doors: Doors, parameters: Parameters) -> tuple[Group, Meta, layout.MetaHeader]:
    """The repository in a group, its devices attached first. NotFound, Damaged, Refused, StorageError."""
    if parameters.files:
        doors.volume_groups.attach_files(parameters.files, parameters.sector_bytes)
    report = doors.volume_groups.report(parameters.volume_group)
    group = Group(doors, report.name, report.uuid)
    meta = Meta(group)
    try:
        meta.reach(report)
        header = meta.header(reached=True)
        if header.mode != layout.EXCLUSIVE:
            raise Refused(
                f"the repository in {report.name} is shared between hosts, which this program does not know",
                "Use a version of diskwright that does",
            )
    except BaseException:
        meta.close()
        group.close()
        raise
    return group, meta, header


def detach(doors: Doors, parameters: Parameters) -> None:
    """Leave nothing active or attached. Success when the group is not there. StorageError while something is in use."""
    try:
        report = doors.volume_groups.report(parameters.volume_group)
    except NotFound:
        report = None
    if report is not None and layout.META in report.volumes:
        group = Group(doors, report.name, report.uuid)
        if group.is_ours(report):
            meta = Meta(group)
            if Volumes(group, ExclusiveGuard(group, meta), meta).deactivate_unused(every=True):
                raise still_in_use(report.name)
            deactivate_meta(group)
        HostDigests(group).forget()
    if parameters.files:
        doors.volume_groups.detach_files(parameters.files)


def deactivate_meta(group: Group) -> None:
    """The last of what is active; another process of this host that needs it activates it again."""
    group.doors.volume_groups.deactivate(group.name, layout.META)


def still_in_use(name: str) -> StorageError:
    """The error for volumes that somebody has open."""
    return StorageError(f"volumes of {name} are in use on this host", "Stop what uses them, and try again")
