"""Preparing the disks of a domain of libvirt before it starts, and tearing them down when it has ended.

libvirt calls a hook then, and gives it the definition of the domain. A disk is one of ours when its path is the stable
one of a prepared disk (``<run>/diskwright/disks/REPO/IMAGE/…``); what else a definition has is none of our business,
and no domain is kept from starting by it. What is torn down is told by the monitor with which it was prepared: a domain
that has run may have other paths by then. libvirt waits for a hook, so nothing here speaks to libvirt.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from engine.api import Engine
from engine.data.model import VolumeFormat, is_id
from engine.errors import BadRequest, DiskwrightError, NotFound, Refused
from engine.host import paths
from engine.host.state import Prepared

MOST_BYTES = 4 << 20
"""A definition has some kilobytes."""
_DISKS = "diskwright/disks"


class Wanted(NamedTuple):
    """A disk of ours in the definition of a domain."""

    path: str
    format: str
    """As the domain opens it."""
    repository: str
    """Its handle here, or the identity of the storage."""
    image: str
    """Its id or its name."""


def wanted(definition: bytes, run: str) -> list[Wanted]:
    """Return the disks of ours in a definition. ``run``: the directory below which their paths stand. BadRequest when
    it is no XML, too long, or has a document type: libvirt writes none, and entities may stand for anything."""
    if len(definition) > MOST_BYTES:
        raise BadRequest("the definition of the domain is longer than any is", "Look what calls the hook")
    try:
        disks = list(fromstring(definition, forbid_dtd=True).iterfind("./devices/disk"))
    except (ParseError, DefusedXmlException, ValueError, LookupError, RecursionError) as error:
        what = str(error) or type(error).__name__
        raise BadRequest(f"the definition of the domain is not understood: {what:.200}", "Look at it") from error
    found = []
    for disk in disks:
        source, driver = disk.find("source"), disk.find("driver")
        path = "" if source is None else source.get("file") or source.get("dev") or ""
        parts = path.removeprefix(f"{run}/{_DISKS}/").split("/")
        if run and path.startswith(f"{run}/{_DISKS}/") and len(parts) == 3:
            format = "raw" if driver is None else driver.get("type") or "raw"  # as libvirt takes it
            found.append(Wanted(path, format, parts[0], parts[1]))
    return found


def prepare(engine: Engine, disks: list[Wanted], monitor: str) -> None:
    """Prepare all of them, or none. One that was prepared for this domain and not torn down is, first: the domain has
    died, and what it left may have to be put right. Conflict when one is prepared for somebody else, ImageBusy when a
    machine has one open."""
    done: list[tuple[str, str]] = []
    try:
        for disk in disks:
            handle, image, name = _found(engine, disk)
            _tear_down(engine, handle, image, monitor)
            entry = engine.prepare_image(handle, image, True, monitor=monitor, name=name)
            done.append((handle, image))
            _require_same(entry, disk)
    except BaseException:
        for handle, image in done:
            with contextlib.suppress(DiskwrightError):  # the first trouble is the one to tell
                engine.teardown_image(handle, image)
        raise


def tear_down(engine: Engine, monitor: str) -> None:
    """Tear down what was prepared for a domain; the first trouble is raised when all was tried."""
    first: DiskwrightError | None = None
    handles = {one.identity: handle for handle, one in engine.list_repositories().items()}
    for entry in _entries(engine):
        if entry.monitor == monitor and entry.repository in handles:
            try:
                engine.teardown_image(handles[entry.repository], entry.image)
            except DiskwrightError as error:
                first = first or error
    if first is not None:
        raise first


def _entries(engine: Engine) -> list[Prepared]:
    return [entry for entry in (*engine.list_prepared(), *engine.list_unheld()) if entry.writable]


def _found(engine: Engine, disk: Wanted) -> tuple[str, str, str]:
    """Return the handle of the repository, the id of the image, and its name where the path has that."""
    connected = engine.list_repositories()
    handle = disk.repository
    if handle not in connected:
        handle = next((name for name, one in connected.items() if one.identity == disk.repository), "")
    if not handle:
        raise NotFound(f"there is no repository {disk.repository!r:.100} here, of {disk.path!r:.300}", "Connect it")
    if is_id(disk.image):
        return handle, disk.image, ""
    images = engine.inspect_repository(handle).images
    having = [one.id for one in images if one.name == disk.image and one.mutable and not one.removed | one.hidden]
    if len(having) != 1:
        raise NotFound(
            f"{len(having)} disks of {handle} have the name {disk.image!r:.100}, of {disk.path!r:.300}",
            "Define the domain with the id of the disk in the path",
        )
    return handle, having[0], disk.image


def _tear_down(engine: Engine, handle: str, image: str, monitor: str) -> None:
    mine = engine.list_repositories()[handle].identity, image, monitor
    if mine in [(entry.repository, entry.image, entry.monitor) for entry in _entries(engine)]:
        engine.teardown_image(handle, image)


def _require_same(entry: Prepared, disk: Wanted) -> None:
    """Return if the path of a domain leads to what was prepared, in the format as which it is opened."""
    folder, _, name = disk.path.rpartition("/")
    if not entry.names:
        raise Refused(
            f"no path to image {entry.image} stays the same on this host",
            "Have /run kept in memory (as a tmpfs): a boot has to clear it",
        )
    if folder not in entry.names:
        raise Refused(
            f"{disk.path!r:.300} does not lead to image {entry.image}", f"Define the domain with {entry.given}"
        )
    raw = entry.format == VolumeFormat.RAW
    names = (paths.NAMES[VolumeFormat.RAW],) if raw else (paths.NAMES[VolumeFormat.QCOW2], paths.SECOND)
    if name not in names or disk.format != entry.format:
        raise Refused(
            f"image {entry.image} is {entry.format}, and the domain would open {disk.path!r:.300} as {disk.format:.20}",
            f"Define it with {entry.given} and <driver name='qemu' type='{entry.format}'/>",
        )
