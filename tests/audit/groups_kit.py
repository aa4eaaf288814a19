"""Helpers: volume groups of the simulator with volumes of others in them, and an audit of these."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from engine.audit.audit import audit
from engine.audit.group_tree import GroupTree
from engine.doors.volume_groups import VolumeGroup
from engine.tools.local.trees import RealTree
from engine.tools.qemu.qcow2 import fresh_image
from sim.disk.storage import SimStorage
from sim.hosts.world import LVM, World
from sim.lvm.volume_groups import SimDevice, SimVolumeGroups, make_device
from tests.audit.kit import MIB, Looked

EXTENT = 4 * MIB
_BLOCK = 4096


class Lvm:
    """LVM of one simulated host, with a group ``vg``; ``says`` changes what it reports of volumes, ``tags`` of groups:
    the simulator makes linear ones alone."""

    def __init__(self, extents: int = 200, *names: str) -> None:
        self.world = World(format=LVM)
        self.process = self.world.machine("one").process("direct")
        self.says: dict[str, dict[str, Any]] = {}
        self.tags: frozenset[str] = frozenset()
        self.calls: list[str] = []
        """What else was asked than to report and to read."""
        self.opened: list[str] = []
        for name in names or ("vg",):
            self.storage.make_directory(f"/srv/{name}")
            make_device(self.storage, f"/srv/{name}/device", extents * EXTENT)
            self.groups.create_group(name, [f"/srv/{name}/device"], self.groups.system_id)
        self.storage.settle()

    @property
    def storage(self) -> SimStorage:
        return self.world.storage

    @property
    def groups(self) -> SimVolumeGroups:
        return self.process.groups

    def report(self, group: str) -> VolumeGroup:
        found = self.groups.report(group)
        volumes = {name: one._replace(**self.says.get(name, {})) for name, one in found.volumes.items()}
        return found._replace(volumes=volumes, tags=self.tags)

    def open_device(self, path: str, writable: bool = False) -> SimDevice:
        assert not writable
        self.opened.append(path)
        return self.groups.open_device(path)

    def __getattr__(self, name: str) -> Any:
        self.calls.append(name)
        return getattr(self.groups, name)

    # -- volumes

    def raw(
        self, name: str, content: bytes = b"", extents: int = 2, group: str = "vg", tags: Sequence[str] = ()
    ) -> str:
        """A volume that begins with ``content``; what is behind it is what was on the device."""
        self.groups.create(group, name, extents * EXTENT, list(tags))
        self.write(name, 0, content, group)
        return name

    def image(
        self, name: str, backing: str = "", size: int = 8 * MIB, group: str = "vg", stated: str = "qcow2",
        tags: Sequence[str] = (), extents: int = 2,
    ) -> str:  # fmt: skip
        """A volume with a qcow2 image; what that stands on need not be there."""
        fresh = fresh_image(size, backing or None, stated if backing else None)
        content = bytearray(fresh.length)
        for offset, data in fresh.pieces:
            content[offset : offset + len(data)] = data
        return self.raw(name, bytes(content), extents, group, tags)

    def write(self, name: str, offset: int, content: bytes, group: str = "vg") -> None:
        assert offset % _BLOCK == 0
        if content:
            with self.groups.open_device(self.groups.activate(group, name), writable=True) as device:
                device.write_at(offset, content.ljust(-(-len(content) // _BLOCK) * _BLOCK, b"\0"))
        self.groups.deactivate(group, name)

    def look(
        self, vms: Path = Path(), complete: bool = True, groups: Sequence[str] = ("vg",),
        check: Any = None, places: Sequence[Path] = (),
    ) -> Looked:  # fmt: skip
        with ExitStack() as stack:
            trees: list[Any] = [stack.enter_context(closing(GroupTree(self, name))) for name in groups]
            trees += [stack.enter_context(closing(RealTree(str(path)))) for path in places]
            given = [stack.enter_context(closing(RealTree(str(vms))))] if vms != Path() else []
            report = audit(trees, given, complete and bool(given), check)
        return Looked(report, Path(f"/dev/{groups[0]}"))
