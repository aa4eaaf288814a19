"""What is on the devices of a simulated storage, told by the layout and without the engine's judgement."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from engine.data.model import VolumeFormat
from engine.errors import DiskwrightError
from engine.formats.files import layout as files_layout
from engine.formats.lvm.metadata import layout
from engine.formats.lvm.metadata.layout import HEADER_PAGES, LOG_BYTES, SLOTS, MetaHeader
from engine.formats.lvm.metadata.pages import PAGE_BYTES, is_blank
from engine.formats.lvm.metadata.progress import Log, read_log
from engine.formats.lvm.metadata.slots import Slot, read_slot
from sim.disk.content import Content
from sim.disk.nodes import FileNode
from sim.disk.storage import SimStorage
from sim.lvm.group_model import Group
from sim.lvm.volume_groups import METADATA, group_in

_REMEMBERED = 3000
OTHERS = "/others"
"""Where ``as_files`` has the volumes that are of no repository."""


class GroupContents(NamedTuple):
    """One group and what its volumes hold."""

    root: str
    """Directory of the device, ``/srv/<name>``."""
    group: Group | None
    header: MetaHeader | None
    slots: tuple[Slot, ...]
    """The slots that are in use."""
    logs: tuple[Log, ...]
    volumes: dict[str, Content]


def now(node: FileNode) -> Content:
    """What everybody reads."""
    return node.content


def durable(node: FileNode) -> Content:
    """What would survive a power cut for certain."""
    return node.durable


def disks(storage: SimStorage, of: Callable[[FileNode], Content] = now) -> Iterator[GroupContents]:
    """Every group of a storage with one device beside its metadata."""
    if not storage.devices:
        return
    nodes = {path: node for path, _, node in storage.walk() if isinstance(node, FileNode)}
    for path, node in nodes.items():
        if path.endswith(f"/{METADATA}"):
            root = path.removesuffix(f"/{METADATA}")
            device = next((nodes[other] for other in nodes if other.startswith(f"{root}/") and other != path), None)
            if device is not None:
                yield _disk(root, of(node), of(device))


_known: dict[tuple[Content, Content], GroupContents] = {}


def _disk(root: str, metadata: Content, device: Content) -> GroupContents:
    known = _known.get((metadata, device))
    if known is None:
        if len(_known) > _REMEMBERED:
            _known.clear()
        known = _known[metadata, device] = _read(root, metadata, device)
    return known._replace(root=root)  # a clone of it may stand elsewhere, or the same that was moved


def _read(root: str, metadata: Content, device: Content) -> GroupContents:
    group = group_in(metadata)
    if group is None:
        return GroupContents(root, None, None, (), (), {})
    volumes = {}
    for name, volume in group.volumes.items():
        content, position = Content(0, ()), 0
        for _, start, length in group.ranges(volume):
            content = _put(content, position, device, start, length)
            position += length
        volumes[name] = content.truncate(position)
    meta = volumes.get(layout.META)
    header = _header(meta) if meta is not None else None
    if meta is None or header is None:
        return GroupContents(root, group, None, (), (), volumes)
    return GroupContents(root, group, header, tuple(_slots(meta, header)), tuple(_logs(meta, header)), volumes)


def _put(whole: Content, position: int, source: Content, start: int, length: int) -> Content:
    for first, end, data, skip in source.runs:
        low, high = max(first, start), min(end, start + length)
        if low < high:
            at = position + low - start
            if isinstance(data, int):
                whole = whole.fill(at, high - low, data)
            else:
                whole = whole.write(at, data[skip + low - first : skip + high - first])
    return whole


def _header(meta: Content) -> MetaHeader | None:
    try:
        return layout.newest_header(meta.read(0, HEADER_PAGES * PAGE_BYTES), "")
    except DiskwrightError:
        return None


def _slots(meta: Content, header: MetaHeader) -> Iterator[Slot]:
    geometry = header.geometry
    for number in range(header.chunks * SLOTS):
        raw = meta.read(geometry.head_offset(number, 0), geometry.slot_bytes)
        if not is_blank(raw):

            def body(copy: int, length: int, slot: int = number) -> bytes:
                return meta.read(geometry.body_offset(slot, copy), length)

            slot = read_slot(number, raw, body, geometry)
            if slot.tag:
                yield slot


def _logs(meta: Content, header: MetaHeader) -> Iterator[Log]:
    for number in range(header.chunks * SLOTS):
        raw = meta.read(header.geometry.line_offset(number, 0), LOG_BYTES)
        if not is_blank(raw):
            log = read_log(number, raw)
            if log.tag:
                yield log


# -- the same as files


def as_files(storage: SimStorage, of: Callable[[FileNode], Content] = now) -> SimStorage:
    """A storage with the files that a repository of files would have in place of each group, everything durable: what
    compares states, and what looks for leftovers, need not know two layouts."""
    files = SimStorage()
    for disk in disks(storage, of):
        for path, content in _files(disk):
            _add(files, f"{disk.root}/{path}", content)
        for name, content in disk.volumes.items():
            if not layout.is_ours(name):
                _add(files, f"{OTHERS}{disk.root}/{name}", content)
    devices = {disk.root for disk in disks(storage, of)}
    for path, _, node in storage.walk():
        if isinstance(node, FileNode) and path.rpartition("/")[0] not in devices:
            _add(files, path, of(node))
    files.settle()
    return files


def _files(disk: GroupContents) -> Iterator[tuple[str, Content]]:
    if disk.group is None:
        return
    if disk.header is not None:
        about = [disk.group.system_id, disk.header.mode, disk.header.manager, str(disk.header.chunks)]
        yield "repository.json", _text(" ".join(about).encode())
    for slot in disk.slots:
        # What cannot be understood is told by its problem; it is no record.
        record = slot.content if not slot.problem else slot.problem.encode()
        yield files_layout.tag_shard(slot.tag) + "/" + files_layout.tag_name(slot.tag, slot.generation), _text(record)
    for log in disk.logs:
        line = files_layout.encode_slot(0, log.line) if log.line is not None else b""
        yield files_layout.progress_path(log.tag, log.epoch), _text(line)
    for name, content in disk.volumes.items():
        id, parsed = layout.parse_volume(name), layout.parse_tags(disk.group.volumes[name].tags)
        if name in (layout.META, layout.LEASES) or not layout.is_ours(name):
            continue
        if id is None or parsed is None:
            raw = parsed is not None and parsed[0] is VolumeFormat.RAW
            yield f"lost/{name}", content.truncate(parsed[1]) if parsed and raw else content
            continue
        format, size = parsed
        inside = content.truncate(size) if format is VolumeFormat.RAW else content
        yield files_layout.volume_path(id, format), inside
        yield files_layout.digests_path(id), _text(b"%d %d" % (content.size, size))


def _text(data: bytes) -> Content:
    return Content(0, ()).write(0, data)


def _add(files: SimStorage, path: str, content: Content) -> None:
    parts = path.split("/")
    for count in range(2, len(parts)):
        with contextlib.suppress(FileExistsError):
            files.make_directory("/".join(parts[:count]))
    inode = files.create(path)
    node = files.nodes[inode]
    assert isinstance(node, FileNode)
    files.nodes[inode] = node._replace(content=content, durable=content)
