"""The path of a prepared image: a directory of links by which qemu finds each layer beside the one above it.

A machine that has the disk open opens it again by its name when qemu makes it read-only or writable. So the name leads
to what the machine has open, until it has gone on elsewhere. The name of the disk tells its format, too: a snapshot
makes a qcow2 of a raw disk, and whoever opened that as raw, by the name that it had, would destroy it. That name is
gone then. A qcow2 disk has a second name, which leads to the same: a manager that knows the disk by the name by which
it is open would write other names into its definition with each snapshot, so it is told of the other one.
"""

from __future__ import annotations

import contextlib

from engine.data.model import VolumeFormat
from engine.doors.files import replace_link
from engine.doors.images import Layer
from engine.errors import from_os_error
from engine.formats.base import backing_name
from engine.tags import chains
from engine.tags.context import Context

NAMES = {VolumeFormat.QCOW2: "disk", VolumeFormat.RAW: "disk.raw"}
SECOND = "disk.2"
EVERY = (*NAMES.values(), SECOND)
"""Names that lead to the disk, or to nothing where its format is another."""


def make(context: Context, run: str, links: list[chains.Link], layers: list[Layer]) -> str:
    """Make the links in an empty run directory; return the path of the disk."""
    try:
        for name, layer in zip(_names(links), layers, strict=True):
            context.doors.files.symlink(layer.path, f"{run}/{name}")
        if links[0].volume.format is VolumeFormat.QCOW2:
            context.doors.files.symlink(layers[0].path, f"{run}/{SECOND}")
    except OSError as error:
        raise from_os_error(error, f"make the run directory of image {links[0].tag}") from error
    return of(run, links)


def of(run: str, links: list[chains.Link]) -> str:
    """Return the path of the disk in a run directory."""
    return f"{run}/{NAMES[links[0].volume.format]}"


def other(given: str, opened: str) -> str:
    """Return the name of a disk that will be qcow2 by which it is not open. ``given``: its path for a machine;
    ``opened``: the path by which one has it open."""
    name = NAMES[VolumeFormat.QCOW2]
    return f"{given.rpartition('/')[0]}/{SECOND if opened.rpartition('/')[2] == name else name}"


def renew(context: Context, run: str, links: list[chains.Link], layers: list[Layer]) -> None:
    """Have the links lead to other layers, the lowest first: whoever opens the disk meanwhile gets all of the chain
    that was, or all of the one that is, or nothing where its format is another now."""
    extend(context, run, links, layers)
    format = links[0].volume.format
    names = (NAMES[format], SECOND) if format is VolumeFormat.QCOW2 else (NAMES[format],)
    try:
        for name in names:
            replace_link(context.doors.files, layers[0].path, f"{run}/{name}")
        for name in sorted(set(EVERY) - set(names)):
            with contextlib.suppress(FileNotFoundError):
                context.doors.files.unlink(f"{run}/{name}")
    except OSError as error:
        raise from_os_error(error, f"renew the run directory of image {links[0].tag}") from error


def take_away(context: Context, run: str) -> None:
    """Have no name lead to the disk until they are renewed: nobody opens it meanwhile."""
    for name in EVERY:
        try:
            context.doors.files.unlink(f"{run}/{name}")
        except FileNotFoundError:
            continue
        except OSError as error:
            raise from_os_error(error, f"take the path {run}/{name} away") from error


def extend(context: Context, run: str, links: list[chains.Link], layers: list[Layer]) -> None:
    """Make the links for the layers below the disk; that of the disk stays."""
    try:
        for name, layer in reversed(list(zip(_names(links), layers, strict=True))[1:]):
            replace_link(context.doors.files, layer.path, f"{run}/{name}")
    except OSError as error:
        raise from_os_error(error, f"extend the run directory of image {links[0].tag}") from error


def _names(links: list[chains.Link]) -> list[str]:
    return [NAMES[links[0].volume.format], *(backing_name(link.tag) for link in links[1:])]
