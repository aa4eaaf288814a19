"""Running LVM: one configuration for every command, the devices of a group, failures in one sentence.

A command sees the devices of its group and no others (``--devices``), so neither the rest of the
host's storage nor what a guest has on its disk can disturb it. Which devices these are is looked up
once, among all that the host's ``lvm.conf`` lets LVM see; a command that misses one looks again.
The host's ``lvm.conf`` counts for whatever is not set here.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Sequence

from engine.errors import Ambiguous, Conflict, DiskwrightError, NoSpace, NotFound, Refused, ToolFailed
from engine.tools.local.command import CommandRunner, Result
from engine.tools.lvm.names import check_group, check_system_id
from engine.tools.lvm.report import MISSING_DEVICE, rows

PACKAGE = "lvm2"
SYSTEM_DIRECTORY = "LVM_SYSTEM_DIR"
"""The variable that names the directory of ``lvm.conf``: LVM's own, passed on."""

PATIENCE_S = 600.0
"""After that the storage or the holder of LVM's lock will not come back. What was to be done is done or not."""

_UDEV = "/run/udev/control"
_MAX_WORDS = 300

_COMMON = """
activation { monitoring=0 }
backup { backup=0 archive=0 }
devices { hints="none" use_devicesfile=0 }
global { notify_dbus=0 use_lvmpolld=0 }
log { command_names=0 prefix="" report_command_log=0 silent=1 verbose=0 }
report { list_item_separator="," }
""".replace("\n", " ")
# Silent: the answer to whatever LVM asks is no.
# Copies of metadata on a host are old as soon as another host changes the group; the group has several itself.

_WITHOUT_UDEV = (
    "activation { retry_deactivation=0 udev_rules=0 udev_sync=0 } "
    'devices { external_device_info_source="none" obtain_device_list_from_udev=0 } '
)
# With udev_sync and nobody who answers, a command waits for ever; and nobody opens a device for a moment only.

_FOREIGN = r"Cannot access VG \S+ with system ID (\S+)"
_SEVERAL = r"VG name \S+ is used by VGs|Multiple VGs found"
_MISSES_DEVICE = (
    r"Volume group \S+ not found|Couldn't find device|[Mm]issing PV|PVs are missing|Cannot process volume group"
)
_UNREADABLE = r"bad metadata text on (\S+) in mda"
_NO_GROUP = r"Volume group \S+ not found"
_NO_VOLUME = r"[Ff]ailed to find logical volume|[Ll]ogical [Vv]olume \S+ not found"
_MEANINGS: tuple[tuple[str, type[DiskwrightError], str], ...] = (
    (_NO_VOLUME, NotFound, "It may have been removed or renamed by another host"),
    (
        _NO_GROUP,
        NotFound,
        "Check the name, and that its devices are attached to this host",
    ),
    (r"already exists|called \S+ already|name already in use", Conflict, "Use another name"),
    (
        r"metadata too large|exceeds maximum metadata size|[Ii]nsufficient .*metadata",
        NoSpace,
        "Its metadata area is full: remove images and clean; where LVM refuses that too, add a device with a larger "
        "one (pvcreate --metadatasize 64m, vgextend) and have the others ignored (pvchange --metadataignore y)",
    ),
    (
        r"[Ii]nsufficient (suitable |free )?(allocatable|space|extents)|insufficient free space",
        NoSpace,
        "Add a device to the group, or make room (check lists what can be cleaned)",
    ),
    (
        r"signature|is partitioned|already in volume group|exclusively|Mounted filesystem|is a mounted",
        Conflict,
        "Use a device that nothing else uses; wipefs removes what an old use left on it",
    ),
    (r"in use|device is busy", ToolFailed, "Close what has it open on this host and try again"),
    (r"(?i)missing|partial", ToolFailed, "Attach the missing device to this host and try again"),
    (
        r"device-mapper driver|/dev/mapper/control|target\(s\) not detected",
        ToolFailed,
        "Load the kernel's device-mapper (modprobe dm-mod)",
    ),
    (r"ermission denied|non-root", ToolFailed, "Run it as root"),
)


class LvmCommands:
    """Commands of LVM as this host, which is marked ``system_id`` there."""

    def __init__(self, system_id: Callable[[], str]) -> None:
        """``system_id`` is asked for when it is first needed."""
        self._ask = system_id
        self.runner = CommandRunner(PACKAGE, [SYSTEM_DIRECTORY], die_with_us=True)
        self._devices: dict[str, tuple[str, ...]] = {}

    @functools.cached_property
    def system_id(self) -> str:
        """The mark of this host."""
        return check_system_id(self._ask())

    # -- the devices of groups

    def devices(self, group: str, missing_ok: bool = False) -> tuple[str, ...]:
        """Return the devices of the group that this host sees. NotFound, Ambiguous; StorageError when one is
        missing."""
        known = self._devices.get(group)
        return known if known is not None else self.find(group, missing_ok)

    def find(self, group: str, missing_ok: bool = True) -> tuple[str, ...]:
        """Return the devices of the group as ``devices`` does, looked up afresh among all devices of the host."""
        self._devices.pop(group, None)
        columns = ["--reportformat", "json", "-o", "vg_uuid,pv_name"]
        result = self.run("vgs", ["--foreign", *columns, check_group(group)])
        if re.search(_SEVERAL, _text(result)):
            raise self._ambiguous(group)
        if result.exit_code:
            raise failure("vgs", group, result)
        names = [name for (name,) in rows(result.output, "vg", "pv_name")]
        found = tuple(sorted({name for name in names if name != MISSING_DEVICE}))
        if len(found) == len(names):
            self._devices[group] = found
        elif not missing_ok:
            raise ToolFailed(f"a device of volume group {group} is missing", "Attach it to this host and try again")
        return found

    def know(self, group: str, devices: Sequence[str]) -> None:
        """Remember the devices of a group that was just made."""
        self._devices[group] = tuple(sorted(devices))

    def _ambiguous(self, group: str) -> DiskwrightError:
        selection = ["--foreign", "--reportformat", "json", "-o", "vg_uuid,vg_name", "-S", f'vg_name="{group}"']
        result = self.run("vgs", selection)
        found = sorted(set(rows(result.output, "vg", "vg_uuid"))) if not result.exit_code else []
        names = " and ".join(uuid for (uuid,) in found) or "of different uuids"
        return Ambiguous(
            f"several volume groups are called {group}: {names}", "Rename one of them (vgrename UUID NAME)"
        )

    # -- running

    def on_group(self, verb: str, group: str, arguments: Sequence[str], missing_ok: bool = False) -> Result:
        """Run a command on the devices of a group. When it misses one, they are looked up again, and it is
        run again if they are others now: a command that misses a device has done nothing."""
        known = group in self._devices
        devices = self.devices(group, missing_ok)
        result = self.run(verb, arguments, devices)
        if known and re.search(_MISSES_DEVICE, _text(result)):
            again = self.find(group)
            if again != devices:
                return self.run(verb, arguments, again)
        return result

    def run(
        self, verb: str, arguments: Sequence[str], devices: Sequence[str] = (), system_id: str | None = None
    ) -> Result:
        """Run a command with our configuration, as the host marked ``system_id`` ("" for none, default: this one),
        on these devices, or on all that the host's own configuration allows."""
        options = ["--config", self._configuration(self.system_id if system_id is None else system_id)]
        if devices:
            options += ["--devices", ",".join(devices)]
        return self.runner.run(["lvm", verb, *options, *arguments], patience_s=PATIENCE_S)

    def _configuration(self, system_id: str) -> str:
        udev = "" if os.path.exists(_UDEV) else _WITHOUT_UDEV
        if not system_id:
            return _COMMON + udev + 'global { system_id_source="none" }'
        return _COMMON + udev + f'global {{ system_id_source="lvmlocal" }} local {{ system_id="{system_id}" }}'


def failure(verb: str, subject: str, result: Result) -> DiskwrightError:
    """Return the error for a command that failed: ``subject`` such as "group/volume"."""
    words = says(result.errors)
    text = _text(result)
    group = subject.partition("/")[0]
    foreign = re.search(_FOREIGN, text)
    if foreign:
        owner = foreign[1].rstrip(".")
        return Refused(
            f"volume group {group} belongs to host {owner:.{_MAX_WORDS}}", "Use it there, or hand it over from there"
        )
    if result.exit_code < 0:
        return ToolFailed(f"LVM's {verb} of {subject} was ended by signal {-result.exit_code}", "Look what it has done")
    message = f"LVM's {verb} of {subject} failed: {words or f'it said nothing, exit code {result.exit_code}'}"
    torn = torn_device(result)
    if torn and re.search(_NO_GROUP, words):
        return NotFound(f"{message}; LVM cannot read what it has written on {torn}", recovery(torn))
    for pattern, kind, next_step in _MEANINGS:
        if re.search(pattern, words):
            return kind(message, next_step)
    return ToolFailed(message, "Look at what LVM says, and try again")


def torn_device(result: Result) -> str:
    """Return a device of which LVM says that it cannot read the metadata there, "" when there is none.

    LVM writes the text of a change and the headers that refer to it without a flush in between, so a power cut may keep
    the headers alone."""
    found = re.search(_UNREADABLE, _text(result))
    return found[1][:_MAX_WORDS] if found else ""


def recovery(device: str) -> str:
    """Return the next step for a group on a device that ``torn_device`` names."""
    return (
        "If that is its device, a power cut has torn LVM's last change, and what was before is still there: "
        f"pvck --dump metadata_search {device} lists it, pvck --repairtype metadata puts it back (see docs/lvm.md)"
    )


def no_such_volume(result: Result) -> bool:
    """Tell whether a command failed because the group has no volume of that name."""
    return bool(result.exit_code and re.search(_NO_VOLUME, _text(result)))


def says(raw: bytes) -> str:
    """Return what LVM said as one short line of printable text: its errors, or its warnings when these are all."""
    text = raw.decode("utf-8", "backslashreplace")
    lines = [line.strip().rstrip(".") for line in text.split("\n") if line.strip()]
    lines = list(dict.fromkeys(line for line in lines if not line.startswith(("File descriptor", "Run `", "See "))))
    errors = [line for line in lines if not line.startswith(("WARNING:", "VG with system ID"))]
    joined = "; ".join(errors or lines)
    printable = "".join(char if char.isprintable() else "?" for char in joined[: 2 * _MAX_WORDS])
    return printable if len(printable) <= _MAX_WORDS else printable[: _MAX_WORDS - 1] + "…"


def _text(result: Result) -> str:
    return result.errors.decode("utf-8", "replace")
