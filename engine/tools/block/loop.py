"""Loop devices: files as block devices, for groups that live in files.

What is attached is the kernel's to tell; nothing is remembered here. Sectors of 4096 bytes make a
device behave as disks with such sectors do.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any, NamedTuple

from engine.errors import BadRequest, Conflict, NotFound, StorageError, ToolFailed, from_os_error
from engine.tools.local.command import CommandRunner, failure

PACKAGE = "mount (util-linux)"
SECTOR_BYTES = (512, 4096)
_PATIENCE_S = 60.0
_GOING_S = 10.0
"""udev opens a device for a moment whenever something happens to it, and LVM each one that it looks at."""
_LOOK_AGAIN_S = 0.05


class Attachment(NamedTuple):
    """A loop device over a file."""

    device: str
    sector_bytes: int
    direct: bool
    """The device reads and writes past the page cache of this host."""


class LoopDevices:
    """The loop devices of this host, by the files under them."""

    def __init__(self) -> None:
        self._commands = CommandRunner(PACKAGE)

    def create_file(self, path: str, size: int, exist_ok: bool = False) -> None:
        """Make a sparse file of ``size`` bytes (a multiple of 4096), durable. Conflict when the name is taken,
        unless ``exist_ok``: then what is there stays as it is."""
        _check_path(path)
        if size <= 0 or size % 4096:
            raise BadRequest(f"a device cannot have {size} bytes", "Use a multiple of 4096")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(descriptor, size)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except FileExistsError:
            if exist_ok:
                return
            raise Conflict(f"{path} is there already", "Use another name, or attach what is there") from None
        except OSError as error:
            raise from_os_error(error, f"make the file {path}") from error

    def find(self, path: str) -> list[Attachment]:
        """Return the devices that are attached to the whole of a file, in order of their names. NotFound: no such
        file."""
        _check_file(path)
        columns = "NAME,LOG-SEC,DIO,OFFSET,SIZELIMIT"
        arguments = ["losetup", "--list", "--json", "--output", columns, "--associated", path]
        result = self._commands.run(arguments, patience_s=_PATIENCE_S)
        if result.exit_code:
            raise failure("losetup", path, result)
        try:
            rows = json.loads(result.output)["loopdevices"] if result.output.strip() else []
            found = [_attachment(row) for row in rows if not _number(row["offset"]) and not _number(row["sizelimit"])]
        except (ValueError, KeyError, TypeError) as error:
            raise ToolFailed(f"losetup printed something unexpected about {path}: {error!s:.60}") from None
        return sorted(found)

    def attach(self, path: str, sector_bytes: int = 512, direct: bool = True) -> Attachment:
        """Return the device over the file, a new one when there is none, the first of several. With ``direct`` past the
        page cache where the file system can. Conflict when it is attached with other sectors."""
        if sector_bytes not in SECTOR_BYTES:
            raise BadRequest(f"a loop device cannot have sectors of {sector_bytes} bytes", "Use 512 or 4096")
        found = self.find(path)
        if found:
            if found[0].sector_bytes != sector_bytes:
                there = f"{found[0].device} with sectors of {found[0].sector_bytes} bytes"
                raise Conflict(f"{path} is attached as {there}", "Detach it first, or use it as it is")
            return found[0]
        arguments = ["losetup", "--find", "--nooverlap", "--show", "--sector-size", str(sector_bytes)]
        result = self._commands.run([*arguments, path], patience_s=_PATIENCE_S)
        device = result.output.decode("ascii", "replace").strip()
        if result.exit_code or not device.startswith("/dev/"):
            raise failure("losetup", path, result)
        if direct:
            # A command of its own: losetup leaves a device behind when only this step of an attachment fails.
            self._commands.run(["losetup", "--direct-io=on", device], patience_s=_PATIENCE_S)
        for attachment in self.find(path):
            if attachment.device == device:
                return attachment
        raise StorageError(f"{device} was attached to {path} and is gone again", "Try again")

    def detach(self, path: str) -> None:
        """Take all devices over the file away; success when there are none. StorageError when one is in use: the
        kernel takes it away by itself as soon as it is not."""
        for attachment in self.find(path):
            result = self._commands.run(["losetup", "--detach", attachment.device], patience_s=_PATIENCE_S)
            if result.exit_code and "No such device" not in result.words:
                raise failure("losetup --detach", attachment.device, result)
        left = self.find(path)
        deadline = time.monotonic() + _GOING_S
        while left and time.monotonic() < deadline:
            time.sleep(_LOOK_AGAIN_S)
            left = self.find(path)
        if left:
            names = ", ".join(attachment.device for attachment in left)
            raise StorageError(f"{names} over {path} is in use", "It goes when what uses it is closed")


def _attachment(row: dict[str, Any]) -> Attachment:
    device = row["name"]
    if not isinstance(device, str) or not device.startswith("/dev/"):
        raise ValueError(f"no device {device!r:.40}")
    return Attachment(device, _number(row["log-sec"]), bool(_number(row["dio"])))


def _number(value: Any) -> int:
    """Return a number that older versions print as text."""
    return int(value)


def _check_path(path: str) -> None:
    if not path.startswith("/") or "\0" in path or os.path.normpath(path) != path:
        raise BadRequest(f"{path!r:.200} cannot be a file for a device", "Use an absolute path without . and ..")


def _check_file(path: str) -> None:
    _check_path(path)
    if not os.path.isfile(path):
        raise NotFound(f"there is no file {path}", "Check the name")
