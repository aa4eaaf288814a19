"""LVM's commands as the door to volume groups: a method per task, one command behind each.

A change is one command and so one commit of LVM's metadata: a command that dies in the middle leaves
the old or the new group. Nothing is flushed before ``sync``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence

from engine.doors.users import User
from engine.doors.volume_groups import BlockHandle, PhysicalRange, VolumeGroup
from engine.errors import BadRequest, Conflict, NotFound, Refused, StorageError, ToolFailed, from_os_error
from engine.tools.block.device import DirectBlockHandle, flush_device, is_block_device
from engine.tools.block.loop import LoopDevices
from engine.tools.local.command import Command, Result
from engine.tools.local.openers import openers
from engine.tools.lvm.cached import CachedReport
from engine.tools.lvm.commands import LvmCommands, failure, no_such_volume, recovery, says, torn_device
from engine.tools.lvm.device_mapper import Mapped, devices_of, remove, tidy, uuid_of
from engine.tools.lvm.label import commit_mark
from engine.tools.lvm.names import check_device, check_group, check_system_id, check_tag, check_volume, system_id_of
from engine.tools.lvm.report import Report, parse, report_arguments, rows

METADATA_AREA = "16m"
"""Of 500 volumes with the tags of ours about 0.3 MiB are used; LVM's default of 1 MiB holds the text twice."""

_FILE_SYSTEM_AWARE = (2, 3, 17)
"""The first version whose lvresize looks for a file system, unless told not to."""


class LvmVolumeGroups:
    """The real ``VolumeGroups``. ``host`` is the host's name in this program, ``nonce`` returns what no other host
    has; LVM knows it by ``system_id``."""

    def __init__(self, host: str, nonce: Callable[[], str] = lambda: "") -> None:
        self._host = host
        self._commands = LvmCommands(lambda: system_id_of(host, nonce()))
        self._version: tuple[int, ...] = ()
        self._cached: dict[str, CachedReport] = {}

    @property
    def system_id(self) -> str:
        """Made of the host's name and its nonce."""
        return self._commands.system_id

    @property
    def former_system_id(self) -> str:
        """Made of the host's name."""
        return system_id_of(self._host)

    @property
    def recent_commands(self) -> list[Command]:
        """The last commands run, oldest first, for diagnosis."""
        return self._commands.runner.recent

    # -- reading

    def report(self, group: str) -> VolumeGroup:
        """Run one ``fullreport``; the first time a ``vgs`` before it finds the devices. No command is run as long as
        nobody has committed a change to the group since the last one."""
        cached = self._cached.get(check_group(group))
        found = cached.now() if cached is not None else None
        if found is not None:
            return found
        return self._fresh_report(group).group

    def _fresh_report(self, group: str) -> Report:
        """Return what LVM says now."""
        devices = self._commands.devices(group, missing_ok=True)
        mark = commit_mark(devices)  # before LVM looks: what is committed in between is another one
        arguments = ["--foreign", *report_arguments(), group]
        result = self._commands.on_group("fullreport", group, arguments, missing_ok=True)
        if result.exit_code:
            raise failure("fullreport", group, result)
        report = parse(result.output, group)
        self._cached.pop(group, None)
        if mark is not None and not report.group.partial and sorted(report.group.devices) == sorted(devices):
            self._cached[group] = CachedReport(devices, mark, report)
        return report

    # -- groups

    def create_group(self, group: str, devices: Sequence[str], system_id: str) -> None:
        """Run ``vgcreate``, which makes the physical volumes as well. Signatures of another use are a conflict, never
        wiped: LVM would ask, and nobody answers."""
        check_group(group)
        check_system_id(system_id)
        if not devices or len(set(devices)) != len(devices):
            raise BadRequest(f"volume group {group} needs devices, each named once")
        for device in devices:
            if not is_block_device(check_device(device)):
                raise NotFound(f"there is no block device {device}", "Check the name")
        self._require_free(group, devices)
        places = ["--pvmetadatacopies", "2", "--metadatasize", METADATA_AREA, "--setautoactivation", "n"]
        arguments = [*places, "--systemid", system_id, group, *devices]
        result = self._commands.run("vgcreate", arguments, devices)
        if result.exit_code:
            raise failure("vgcreate", group, result)
        self._commands.know(group, devices)

    def _require_free(self, group: str, devices: Sequence[str]) -> None:
        """Raise Conflict when the name is taken, or a device belongs to LVM: its metadata areas may be smaller."""
        try:
            self._commands.find(group)
        except NotFound:
            pass
        else:
            raise Conflict(f"there is a volume group {group} already", "Use another name, or connect it")
        result = self._commands.run("pvs", ["--foreign", "--reportformat", "json", "-o", "pv_name,vg_name"], devices)
        if result.exit_code:
            raise failure("pvs", group, result)
        for device, owner in rows(result.output, "pv", "pv_name", "vg_name"):
            if torn_device(result) == device:
                raise Conflict(f"device {device} has a volume group that LVM cannot read", recovery(device))
            use = f"belongs to volume group {owner}" if owner else "is a physical volume of LVM"
            raise Conflict(f"device {device} {use}", "Use another device, or pvremove it first")

    def set_system_id(self, group: str, system_id: str, present: str) -> None:
        """Run ``vgchange`` as the host that is present, so LVM itself refuses when it is another by now."""
        check_system_id(system_id)
        check_system_id(present)
        found = self.report(group).system_id
        if found == present != system_id:
            arguments = ["--yes", "--systemid", system_id, group]
            devices = self._commands.devices(group)
            result = self._commands.run("vgchange", arguments, devices, system_id=present)
            if result.exit_code:
                raise failure("vgchange", group, result)
        elif found != present:
            owner = f"belongs to host {found}" if found else "belongs to no single host"
            raise Conflict(f"volume group {group} {owner} by now", "Look at it again")

    # -- volumes

    def create(self, group: str, name: str, size: int, tags: Sequence[str]) -> tuple[PhysicalRange, ...]:
        """Run one ``lvcreate``: a volume is never seen without its tags. Where it will lie is said to LVM when the last
        report tells of room in one piece; LVM looks itself whether that is free."""
        kind = ["--type", "linear", "--activate", "n", "--zero", "n", "--wipesignatures", "n"]
        kind += ["--setautoactivation", "n", "--yes"]
        marks = [part for tag in tags for part in ("--addtag", check_tag(tag))]
        arguments = [*kind, *marks, "--size", _bytes(size), "--name", check_volume(name), check_group(group)]
        cached = self._cached.get(group)
        place = cached.place(size) if cached is not None else None
        if place is not None:
            result = self._commands.on_group("lvcreate", group, [*arguments, place.argument])
            if not result.exit_code:
                return (place.range,) if place.still_there() else ()
            error = failure("lvcreate", f"{group}/{name}", result)
            if isinstance(error, Conflict | Refused | NotFound):
                raise error
        self._change("lvcreate", group, name, arguments)  # no such room, or not any more: wherever LVM finds some
        return ()

    def resize(self, group: str, name: str, size: int) -> None:
        """Run one ``lvresize``. Success when the volume has that size already."""
        arguments = ["--force", "--size", _bytes(size), _path(group, name)]
        if self._lvm_version() >= _FILE_SYSTEM_AWARE:
            arguments = ["--fs", "ignore", *arguments]
        result = self._commands.on_group("lvresize", group, arguments)
        if result.exit_code and "matches existing size" not in says(result.errors):
            raise failure("lvresize", f"{group}/{name}", result)

    def change_tags(self, group: str, name: str, add: Sequence[str], remove: Sequence[str]) -> None:
        """Run one ``lvchange``."""
        marks = [part for tag in add for part in ("--addtag", check_tag(tag))]
        marks += [part for tag in remove for part in ("--deltag", check_tag(tag))]
        if marks:
            self._change("lvchange", group, name, [*marks, _path(group, name)])

    def set_autoactivation(self, group: str, name: str, wanted: bool) -> None:
        """Run one ``lvchange``."""
        self._change("lvchange", group, name, ["--setautoactivation", "y" if wanted else "n", _path(group, name)])

    def rename(self, group: str, name: str, new: str) -> None:
        """Run one ``lvrename``."""
        self._change("lvrename", group, name, [_path(group, name), _path(group, new)])

    def remove(self, group: str, name: str) -> None:
        """Run one ``lvremove``, which deactivates. What is gone already is success."""
        result = self._commands.on_group("lvremove", group, ["--force", "--yes", _path(group, name)])
        if result.exit_code and not no_such_volume(result):
            raise failure("lvremove", f"{group}/{name}", result)

    def activate(self, group: str, name: str) -> str:
        """Run ``lvchange`` where the device is not there yet, or not with the place and size that it has by now. A part
        of the group that is missing matters only to volumes that lie there."""
        where = _path(group, name)
        path = f"/dev/{where}"
        cached = self._cached.get(group)
        if cached is not None and is_block_device(path) and cached.is_device(name, path, self.system_id):
            return path
        if is_block_device(path):
            self._remove(group, self._others(group, name))
        if not is_block_device(path):
            self._reach(group, name, ["--ignoreactivationskip", "--activate", "y", where])
        else:
            self._reach(group, name, ["--refresh", where])
        if not is_block_device(path):
            # For a host where names in /dev were lost, or where udev made none.
            made = self._commands.on_group("vgmknodes", group, [group], missing_ok=True)
            if not is_block_device(path):
                words = says(made.errors) or "LVM says nothing"
                message = f"{where} is active and {path} is not its device: {words}"
                raise ToolFailed(message, "Remove what has that name in /dev, and check that udev works")
        return path

    def _reach(self, group: str, name: str, arguments: Sequence[str]) -> None:
        """Run an ``lvchange`` that changes no metadata: LVM refuses it only for a volume of which a part is missing."""
        result = self._commands.on_group("lvchange", group, arguments, missing_ok=True)
        if result.exit_code:
            raise failure("lvchange", f"{group}/{name}", result)

    def _others(self, group: str, name: str) -> list[Mapped]:
        """Return devices of the volume's name that are not it: another host removed what they were of, and made it
        anew. LVM refreshes a volume by its uuid, and says nothing when that is not active."""
        report = self._fresh_report(group)
        uuid = uuid_of(report.group.uuid, report.uuids.get(name, ""))
        wanted = f"{group.replace('-', '--')}-{name.replace('-', '--')}"
        return [device for device in _devices_of("") if device.name == wanted and device.uuid != uuid]

    def deactivate(self, group: str, name: str) -> None:
        """Run one ``lvchange``. A volume that is gone is not active. Of a group that LVM does not let us touch any more
        device-mapper is told."""
        result = self._deactivate(group, [name])
        if result.exit_code and not no_such_volume(result):
            self._deactivate_anyway(group, name, result)

    def deactivate_each(self, group: str, names: Sequence[str]) -> list[str]:
        """Run one ``lvchange``, and one for each where that fails: it does not say which ones stay."""
        if len(names) > 1 and not self._deactivate(group, names).exit_code:
            return []
        stay = []
        for name in names:
            try:
                self.deactivate(group, name)
            except StorageError:
                stay.append(name)
        return stay

    def _deactivate(self, group: str, names: Sequence[str]) -> Result:
        paths = [_path(group, name) for name in names]
        return self._commands.on_group("lvchange", group, ["--activate", "n", *paths], missing_ok=True)

    def _deactivate_anyway(self, group: str, name: str, result: Result) -> None:
        error = failure("lvchange", f"{group}/{name}", result)
        if not isinstance(error, Refused):
            raise error
        report = self._fresh_report(group)
        self._remove(
            group, [device for device in _devices_of(report.group.uuid) if device.volume == report.plain(name)]
        )

    def remove_devices(self, uuid: str) -> list[str]:
        """Have device-mapper remove the devices: LVM knows nothing of a volume that another host removed."""
        busy = []
        for device in _devices_of(uuid):
            try:
                self._remove("", [device])
            except ToolFailed:
                if not device.opened:
                    raise
                busy.append(device.name)
        return busy

    def _remove(self, group: str, devices: Sequence[Mapped]) -> None:
        for device in devices:
            remove(device)
            tidy(f"/dev/{group or device.group}")

    # -- bytes

    def sync(self, group: str) -> None:
        """Call fsync(2) on each device: LVM itself flushes nothing."""
        for device in self._commands.devices(group):
            try:
                flush_device(device)
            except OSError as error:
                failed = from_os_error(error, f"make volume group {group} durable")
                failed.lost_writes = True
                raise failed from error

    def open_device(self, path: str, writable: bool = False) -> BlockHandle:
        """Open the device with O_DIRECT."""
        return DirectBlockHandle(path, writable)

    def users(self, group: str, name: str) -> list[User]:
        """Look in /proc for the number of the device."""
        path = f"/dev/{check_group(group)}/{check_volume(name)}"
        try:
            return openers(path, os.stat(path))
        except FileNotFoundError:
            return []  # it is not active
        except OSError as error:
            raise from_os_error(error, f"ask who uses {path}") from error

    # -- running

    def attach_files(self, files: Sequence[str], sector_bytes: int, file_bytes: int = 0) -> list[str]:
        """Attach loop devices."""
        loops = LoopDevices()
        for path in files if file_bytes else ():
            with contextlib.suppress(Conflict):
                loops.create_file(path, file_bytes)
        return [loops.attach(path, sector_bytes).device for path in files]

    def detach_files(self, files: Sequence[str]) -> None:
        """Detach the loop device of each file."""
        for path in files:
            with contextlib.suppress(NotFound):
                LoopDevices().detach(path)

    def _change(self, verb: str, group: str, name: str, arguments: Sequence[str]) -> None:
        result = self._commands.on_group(verb, group, arguments)
        if result.exit_code:
            raise failure(verb, f"{group}/{name}", result)

    def _lvm_version(self) -> tuple[int, ...]:
        if not self._version:
            result = self._commands.runner.run(["lvm", "version"])
            self._version = _version(result.output)
        return self._version


def _devices_of(uuid: str) -> list[Mapped]:
    try:
        return devices_of(uuid)
    except OSError as error:
        raise from_os_error(error, "ask the kernel for active volumes") from error


def _path(group: str, name: str) -> str:
    return f"{check_group(group)}/{check_volume(name)}"


def _bytes(size: int) -> str:
    """Return a size for LVM, which takes whole sectors and rounds them up to extents."""
    if size <= 0:
        raise BadRequest(f"a volume cannot have {size} bytes", "Use a positive size")
    return f"{-(-size // 512) * 512}b"


def _version(output: bytes) -> tuple[int, ...]:
    """Return (2, 3, 16) of "LVM version: 2.03.16(2) (2022-05-18)", () when there is none."""
    for line in output.decode("ascii", "replace").splitlines():
        label, _, rest = line.partition(":")
        if label.strip() == "LVM version":
            numbers = rest.strip().partition("(")[0].split(".")
            return tuple(int(number) for number in numbers if number.isdecimal())
    return ()
