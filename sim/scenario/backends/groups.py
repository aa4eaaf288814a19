"""What an operator does to a volume group with LVM's own tools, in a scenario on the simulator."""

from __future__ import annotations

from typing import NamedTuple

from sim.disk.content import Content
from sim.disk.nodes import DataOp
from sim.disk.storage import SimStorage
from sim.hosts.world import DEVICE
from sim.lvm.group_model import Group
from sim.lvm.volume_groups import METADATA, METADATA_FILE_BYTES, group_in


class _Blocks(NamedTuple):
    metadata: Content
    device: Content


class SimGroupTools:
    """A ``GroupTools``."""

    def __init__(self, storage: SimStorage) -> None:
        self._storage = storage
        self._kept: dict[str, _Blocks] = {}

    def back_up(self, host: str, root: str, name: str, data: bool) -> None:
        """Keep what is on the devices of a group, whose directory ``root`` is."""
        self._kept[name] = _Blocks(*(self._storage.file(path)[1].content for path in _paths(root)))

    def put_back(self, host: str, root: str, name: str, data: bool) -> None:
        """Have it there again; without ``data`` what LVM knows alone."""
        for path, content in zip(_paths(root), self._kept[name], strict=True):
            if data or path.endswith(METADATA):
                self._put(path, content)

    def permit(self, host: str, root: str, volume: str, writable: bool) -> None:
        """Let a volume be written, or only be read."""
        path, _ = _paths(root)
        group = group_in(self._storage.file(path)[1].content)
        assert group is not None
        self._put(path, _written(group.permitted(volume, not writable)))

    def _put(self, path: str, content: Content) -> None:
        inode, _ = self._storage.file(path)
        self._storage.change(inode, DataOp(0, "clone", 0, content.size, content), path)
        self._storage.sync(inode)


def _paths(root: str) -> tuple[str, str]:
    return f"{root}/{METADATA}", f"{root}/{DEVICE}"


def _written(group: Group) -> Content:
    return Content(0, ()).write(0, group.to_bytes()).truncate(METADATA_FILE_BYTES)
