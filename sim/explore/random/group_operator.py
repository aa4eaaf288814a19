"""Random runs with an operator who works with LVM's tools on the volume groups of the repositories."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

from engine.api import Engine
from engine.doors.images import Layer
from engine.errors import DiskwrightError
from engine.formats.lvm.metadata.layout import is_ours
from sim.disk.content import Content
from sim.disk.nodes import DataOp
from sim.explore.cases.driver import KiB, layers
from sim.explore.oracle.reference import Model
from sim.explore.random.acts import ON_A_GROUP
from sim.explore.random.machines import BLOCK
from sim.explore.random.operator import Meanwhile, Operator, with_images
from sim.explore.random.rounds import VolumeGroupRun
from sim.hosts.world import DEVICE, REPOSITORIES, World
from sim.lvm.group_model import EXTENT_BYTES, Group
from sim.lvm.volume_groups import METADATA, METADATA_FILE_BYTES, SimVolumeGroups, group_in

_FILLER = "filler"


class _Blocks(NamedTuple):
    """What is on the device of a group, LVM's metadata apart."""

    metadata: Content
    device: Content


class GroupOperator(Operator):
    """As ``Operator``, on LVM. What is put back is so block by block: the group has the same UUID, as with the snapshot
    of an array, and nothing tells; so it counts at once."""

    def __init__(self, world: World, hosts: Sequence[str]) -> None:
        super().__init__(world, hosts)
        self._blocks: dict[str, _Blocks] = {}

    # -- for ever

    def cut_short(self, model: Model, repo: str, disk: str, quarters: int) -> Meanwhile | None:
        """``lvreduce``; at least one extent is left. None: there is no more, or others have that volume too."""
        try:
            with self._engine() as engine:
                path = layers(engine, repo, disk)[0].path
                others = {layer.path for key in model.images if key != (repo, disk) for layer in _layers(engine, *key)}
                name, groups = path.rpartition("/")[2], _groups(engine)
                length = groups.report(repo).volumes[name].size * quarters // 4
                if path in others or groups.report(repo).volumes[name].size <= EXTENT_BYTES:
                    return None
                groups.resize(repo, name, max(length, EXTENT_BYTES))
                groups.sync(repo)
        except (DiskwrightError, OSError, KeyError):
            return None

        def hurt(models: tuple[Model, ...]) -> tuple[Model, ...]:
            lost = ((0, model.images[repo, disk].size),)
            return tuple(one.changed(repo, disk, hurt=lost) for one in models)

        return Meanwhile(f"the volume of {repo}/{disk[:6]} is cut to {length} bytes", at_once=hurt)

    def back_up(self, model: Model, repo: str) -> Meanwhile:
        """Take a snapshot of the array."""
        self._kept[repo], self._blocks[repo] = model, self._content(repo)
        return Meanwhile(f"{repo} is backed up")

    def restore(self, repo: str) -> Meanwhile | None:
        """Roll the array back."""
        kept = self._kept.get(repo)
        if kept is None:
            return None
        self._put(repo, self._blocks[repo])
        images = {key: image for key, image in kept.images.items() if key[0] == repo}
        return Meanwhile(
            f"{repo} is what it was at its backup",
            at_once=lambda known: tuple(with_images(model, repo, images) for model in known),
        )

    # -- for a round

    def fill(self, room: int) -> Meanwhile:
        """Have a volume of somebody else's that leaves so many extents of each group."""
        told = []
        with self._engine() as engine:
            for repo in engine.list_repositories():
                with contextlib.suppress(DiskwrightError):
                    report, groups = _groups(engine).report(repo), _groups(engine)
                    groups.create(repo, _FILLER, report.free - room // BLOCK * report.extent_bytes, [])
                    groups.sync(repo)
                    told.append(repo)

        def empty() -> list[str]:
            with self._engine() as engine:
                for repo in told:
                    _groups(engine).remove(repo, _FILLER)
                    _groups(engine).sync(repo)
            return []

        return Meanwhile(f"{room // BLOCK} extents are left", empty)

    def take_rights(self, repo: str, number: int, readable: bool) -> Meanwhile:
        """``lvchange --permission r`` of one volume of a repository."""
        names = [name for name in sorted(self._group(repo).volumes) if is_ours(name)]
        name = names[number % len(names)]
        self._change(repo, self._group(repo).permitted(name, True))

        def back() -> list[str]:
            for again in self._group(repo).volumes:
                self._change(repo, self._group(repo).permitted(again, False))
            return []

        return Meanwhile(f"{repo}/{name} may only be read", back)

    def clone_over(self, repo: str, other: str) -> Meanwhile:
        """``vgimportclone`` of a copy of another group, under the name of this one, which is away."""
        away = self._content(repo)
        copied = self._content(other)
        self._put(repo, copied._replace(metadata=_imported(copied.metadata, repo)))
        before = self._content(repo)

        def back() -> list[str]:
            touched = any(not now.same(then) for now, then in zip(self._content(repo), before, strict=True))
            self._put(repo, away)
            return [f"a clone of {other} in the place of {repo} was changed"] if touched else []

        return Meanwhile(f"a clone of {other} stands in the place of {repo}", back)

    # -- tools

    def _group(self, repo: str) -> Group:
        found = group_in(self._content(repo).metadata)
        assert found is not None
        return found

    def _change(self, repo: str, group: Group) -> None:
        self._put(repo, self._content(repo)._replace(metadata=_written(group)))

    def _content(self, repo: str) -> _Blocks:
        metadata, device = (self._world.storage.file(path)[1].content for path in _paths(repo))
        return _Blocks(metadata, device)

    def _put(self, repo: str, blocks: _Blocks) -> None:
        storage = self._world.storage
        for path, content in zip(_paths(repo), blocks, strict=True):
            inode, _ = storage.file(path)
            storage.change(inode, DataOp(0, "clone", 0, content.size, content), path)
            storage.sync(inode)


class OperatedGroupRun(VolumeGroupRun):
    """One run of a host with a volume group; half of the disks have more than one extent: one can be taken away."""

    operators = GroupOperator
    acts = ON_A_GROUP
    sizes = (64 * KiB, EXTENT_BYTES + 64 * KiB)


def _paths(repo: str) -> tuple[str, str]:
    return f"{REPOSITORIES}/{repo}/{METADATA}", f"{REPOSITORIES}/{repo}/{DEVICE}"


def _imported(metadata: Content, name: str) -> Content:
    """The metadata of a group as ``vgimportclone`` leaves them: another name, other UUIDs, another device."""
    group = group_in(metadata)
    assert group is not None
    fresh = f"clone-{group.uuid}"
    volumes = {
        called: volume._replace(uuid=fresh + volume.uuid.removeprefix(group.uuid))
        for called, volume in group.volumes.items()
    }
    devices = tuple((_paths(name)[1], extents) for _, extents in group.devices)
    return _written(group._replace(name=name, uuid=fresh, volumes=volumes, devices=devices))


def _written(group: Group) -> Content:
    return Content(0, ()).write(0, group.to_bytes()).truncate(METADATA_FILE_BYTES)


def _groups(engine: Engine) -> SimVolumeGroups:
    groups = engine.doors.volume_groups
    assert isinstance(groups, SimVolumeGroups)
    return groups


def _layers(engine: Engine, repo: str, image: str) -> list[Layer]:
    """Those of an image; none where it is gone."""
    with contextlib.suppress(DiskwrightError):
        return layers(engine, repo, image)
    return []
