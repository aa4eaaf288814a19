"""Random runs with an operator who works with LVM's tools on the volume groups of the repositories."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from engine.api import Engine
from engine.data.model import FixType, Risk
from engine.doors.images import Layer
from engine.errors import DiskwrightError, NoSpace, StorageError
from engine.formats.lvm.metadata.layout import is_ours, volume_name
from engine.triage import rules
from sim.disk.content import Content
from sim.disk.nodes import DataOp
from sim.explore.cases.driver import KiB, layers
from sim.explore.oracle.reference import BELOW, OWN, USABLE, Key, Model
from sim.explore.random.acts import WITH_TOOLS_OF_LVM
from sim.explore.random.machines import BLOCK
from sim.explore.random.operator import Meanwhile, Operator, with_images
from sim.explore.random.rounds import VolumeGroupRun
from sim.hosts.world import DEVICE, REPOSITORIES, World
from sim.lvm.group_model import EXTENT_BYTES, Group
from sim.lvm.volume_groups import METADATA, METADATA_FILE_BYTES, SimVolumeGroups, group_in

_FILLER = "filler"
_CLUSTER = 64 * KiB


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

    def may_be_cut(self, model: Model) -> list[Key]:
        """Images of which all is known, whose own volume has an extent to give up and is open nowhere."""
        found = []
        with self._engine() as engine:
            for key, image in sorted(model.images.items()):
                known = not (image.removed or image.hurt or image.torn or image.cut or image.grown is not None)
                path = next((layer.path for layer in _layers(engine, *key)), "") if known else ""
                volume = _groups(engine).report(key[0]).volumes.get(path.rpartition("/")[2])
                if volume is not None and volume.size > EXTENT_BYTES and not volume.open:
                    found.append(key)
        return found

    def cut_short(self, model: Model, repo: str, image: str, quarters: int) -> Meanwhile | None:
        """``lvreduce``; at least one extent is left, and one is taken away. What stands on it has lost as much."""
        with self._engine() as engine:
            path = _layers(engine, repo, image)[0].path
            name, groups = path.rpartition("/")[2], _groups(engine)
            size = groups.report(repo).volumes[name].size
            length = max(EXTENT_BYTES, min(size * quarters // 4, size - EXTENT_BYTES))
            groups.resize(repo, name, length)
            groups.sync(repo)
        with self._engine() as engine:  # anew: what was open before has the length that it had
            above = [key for key in model.images if path in [layer.path for layer in _layers(engine, *key)]]
            lost = {key: tuple(_lost(engine, key, model.images[key].content)) for key in above}

        def hurt(models: tuple[Model, ...]) -> tuple[Model, ...]:
            for key, ranges in lost.items():
                whose = OWN if key == (repo, image) else BELOW
                models = tuple(one.changed(*key, hurt=ranges, cut=whose) for one in models)
            return models

        return Meanwhile(f"the volume of {repo}/{image[:6]} is cut to {length} bytes", at_once=hurt)

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

    def put_metadata_back(self, repo: str) -> Meanwhile | None:
        """``vgcfgrestore`` of what LVM kept at the backup, while data and records stay; where volumes are gone by that,
        somebody works on as far as he may, and puts the newest back, as he is told. None: there is no backup, or
        nothing is gone."""
        if repo not in self._blocks:
            return None
        newest, older = self._content(repo), self._blocks[repo].metadata
        self._put(repo, newest._replace(metadata=older))
        with self._engine() as engine:
            problems = _work_without(engine, repo, self._group(repo))
        self._put(repo, self._content(repo)._replace(metadata=newest.metadata))
        if problems is None:
            return None
        return Meanwhile(f"LVM's metadata of {repo} were those of its backup for a while", lambda: problems)

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

        return Meanwhile(f"{room // BLOCK} extents are left", empty, judge=_said_of_a_full_group)

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
        """``vgimportclone`` of a copy of another group, or of the backup of this one where there is one, under the name
        of this one, which is away."""
        away = self._content(repo)
        other = repo if repo in self._blocks else other
        copied = self._blocks[repo] if repo in self._blocks else self._content(other)
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
    acts = WITH_TOOLS_OF_LVM
    sizes = (64 * KiB, EXTENT_BYTES + 64 * KiB)

    def play(self) -> list[str]:
        """Then what is left of images that were cut is salvaged, which nobody does unasked."""
        return super().play() or self.salvage()

    def salvage(self) -> list[str]:
        """Save what there is of each image whose volume was cut; what is wrong with what it shows then."""
        for repo, image in sorted(key for key, one in self.models[0].images.items() if one.cut and not one.removed):
            with self._rescuer() as engine:
                offered = [fix for fix in engine.check_storage_repository(repo) if fix.target == image]
                for fix in offered:
                    if fix.rule == rules.B_SALVAGE and not fix.waits_for:
                        engine.run_fix_here(repo, fix)
            self.told.append(f"{repo}/{image[:6]} is salvaged")
        return self.look()


def _work_without(engine: Engine, repo: str, group: Group) -> list[str] | None:
    """Do in a repository what may be done while the group has not the volumes of all images; what is wrong with that.
    None: it has them."""
    repository = engine.context.repository(repo)
    named = {tag: entry.record.volume for tag, entry in repository.tags.scan().items() if entry.record}
    gone = {tag for tag, volume in named.items() if volume and volume_name(volume.id) not in group.volumes}
    whole = [image for image in engine.list_images(repo) if image.id in gone and image.status in USABLE]
    if not gone:
        return None
    problems = [f"{repo}/{image.id} is {image.status}, and its volume is not there" for image in whole]
    with contextlib.suppress(DiskwrightError):
        engine.create_virtual_disk(repo, BLOCK)
        problems.append(f"something was made in {repo} that may lie where what is gone from it lay")
    for fix in engine.check_storage_repository(repo):
        if fix.type is not FixType.CLEAN and not fix.waits_for and fix.risk is not Risk.LOSES_DATA:
            with contextlib.suppress(DiskwrightError):
                engine.run_fix_here(repo, fix)
    return problems


def _said_of_a_full_group(name: str, error: Exception | None) -> str:
    """That there is no room is said as that; and what frees room needs none."""
    if isinstance(error, NoSpace) and name.startswith(("remove", "strategy", "user data")):
        return f"{name} needs room in a full group: {error}"
    if isinstance(error, StorageError) and not isinstance(error, NoSpace):
        return f"{name} in a full group fails otherwise: {error}"
    return ""


def _lost(engine: Engine, key: Key, content: Content) -> Iterator[tuple[int, int]]:
    """What tools cannot read any more of an image, or read otherwise, a cluster at a time."""
    session = engine.doors.images.open_session(_layers(engine, *key), False, False)
    try:
        for start in range(0, content.size, _CLUSTER):
            wanted = content.read(start, min(_CLUSTER, content.size - start))
            try:
                there = session.read(start, len(wanted))
            except DiskwrightError:
                there = b""
            if there != wanted:
                yield start, len(wanted)
    finally:
        session.close()


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
