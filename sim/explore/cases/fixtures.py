"""Scenes: what is there when a story begins.

Images are small, but have all that matters: layers, zeros written over data, an odd size, two formats.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.data.model import VolumeFormat
from engine.data.records import VolumeRef
from engine.doors.files import FileHandle
from engine.tags import changes
from sim.disk.content import Content
from sim.disk.files import Fault, SimFiles
from sim.explore.cases.driver import FILES, KiB, MiB, Stage
from sim.explore.oracle.reference import Image, Model
from sim.hosts.crash import Crashed
from sim.hosts.processes import SimProcess
from sim.hosts.world import LVM, REPOSITORIES, on_server
from sim.lvm.volume_groups import DEVICE_ROOT

SIZE = 256 * KiB
ODD = SIZE - 700
BLOCK = 4 * KiB
_RAW = VolumeFormat.RAW


def data(number: int, length: int = BLOCK) -> bytes:
    """Bytes that are told apart from others."""
    return bytes((number * 37 + index * 11) % 251 + 1 for index in range(64)) * (length // 64)


# -- what there is


def nothing(stage: Stage) -> None:
    """Two empty repositories."""


def a_disk(stage: Stage, size: int = ODD, **options: Any) -> str:
    """A disk with data in two blocks."""
    stage.named["disk"] = stage.create("a", size, user_data={"name": "disk"}, **options)
    stage.write("a", disk(stage), 0, data(1))
    stage.write("a", disk(stage), 128 * KiB, data(2))
    return disk(stage)


def a_chain(stage: Stage, **options: Any) -> None:
    """A disk on its snapshot, with data in both and zeros over data."""
    a_disk(stage, **options)
    stage.named["snapshot"] = stage.snapshot("a", disk(stage), {"of": "disk"})
    stage.write("a", disk(stage), BLOCK, data(3))
    stage.write("a", disk(stage), 0, bytes(BLOCK))


def disk(stage: Stage) -> str:
    """Id of the disk."""
    return stage.named["disk"]


def snap(stage: Stage) -> str:
    """Id of the snapshot."""
    return stage.named["snapshot"]


def a_snapshot_in_b(stage: Stage) -> None:
    """The snapshot is whole in both repositories."""
    a_chain(stage)
    stage.copy(("a", snap(stage)), "b")
    stage.wait()


def a_removed_disk(stage: Stage) -> None:
    """A disk that was removed."""
    a_disk(stage)
    stage.remove("a", disk(stage))


def a_removed_snapshot(stage: Stage) -> None:
    """A removed snapshot with a disk on it."""
    a_chain(stage)
    stage.remove("a", snap(stage))


def a_raw_chain(stage: Stage) -> None:
    """As before, the lower volume raw and the larger one: it will be merged down."""
    a_chain(stage, strategy="performance")
    stage.remove("a", snap(stage))


def two_snapshots(stage: Stage) -> None:
    """Three layers; the one in the middle is removed, and another disk stands on the upper snapshot: merged up."""
    a_chain(stage)
    stage.named["second"] = stage.snapshot("a", disk(stage))
    stage.named["other"] = stage.create("a", SIZE, ("a", stage.named["second"]))
    stage.remove("a", snap(stage))


def a_committed_copy(stage: Stage) -> None:
    """A snapshot in a whose copy in b has yet to be made."""
    a_chain(stage)
    stage.copy(("a", snap(stage)), "b", auto_fix=False)


def a_raw_copy_with_shared_blocks(stage: Stage) -> None:
    """A raw snapshot whose raw copy has yet to be made, on a storage that can share blocks."""
    stage.world.storage.reflink = True
    a_disk(stage, strategy="performance")
    stage.named["snapshot"] = stage.snapshot("a", disk(stage))
    stage.copy(("a", snap(stage)), "b", strategy="performance", auto_fix=False)


def a_copy_with_windows(stage: Stage) -> None:
    """A copy that takes several checkpoints: the storage is slow."""
    stage.named["disk"] = stage.create("a", 6 * MiB)
    for chunk in range(3):
        stage.write("a", disk(stage), 2 * MiB * chunk, data(4 + chunk))
    stage.named["snapshot"] = stage.snapshot("a", disk(stage))
    stage.copy(("a", snap(stage)), "b", auto_fix=False)


def a_mutable_copy(stage: Stage) -> None:
    """A copy of a disk, committed."""
    a_disk(stage)
    stage.named["copy"] = stage.copy(("a", disk(stage)), "b", auto_fix=False)


def a_rewritten_source(stage: Stage) -> None:
    """A copy of a disk that was interrupted, and then the disk was written."""
    a_copy_of_a_disk_in_windows(stage)
    interrupted(stage, "b", "B-COPY", before="handle.write_at /srv/b/volumes", nth=8)
    stage.write("a", disk(stage), BLOCK, data(9))
    # The copy follows its source until it is whole.
    image = stage.image("a", disk(stage))
    stage.models = (stage.model.changed("b", stage.named["copy"], content=image.content),)


def a_copy_of_a_disk_in_windows(stage: Stage) -> None:
    """A copy of a disk that takes several checkpoints, committed."""
    stage.named["disk"] = stage.create("a", 4 * MiB)
    stage.write("a", disk(stage), 0, data(1))
    stage.write("a", disk(stage), 2 * MiB, data(2))
    stage.named["copy"] = stage.copy(("a", disk(stage)), "b", auto_fix=False)


def a_base_in_b(stage: Stage) -> None:
    """The first snapshot is in both, the second only in a: a difference with a common ancestor."""
    a_snapshot_in_b(stage)
    stage.named["second"] = stage.snapshot("a", disk(stage))


def an_unrelated_base_in_b(stage: Stage) -> None:
    """A disk in b that has some blocks in common."""
    a_chain(stage)
    stage.named["base"] = stage.create("b", SIZE - BLOCK)
    stage.write("b", stage.named["base"], 128 * KiB, data(2))
    stage.write("b", stage.named["base"], 64 * KiB, data(8))


def a_file(stage: Stage) -> None:
    """A raw file to import."""
    stage.give_file(f"{FILES}/source.raw", data(6, 64 * KiB) + bytes(64 * KiB) + data(7, 512))


def an_unfinished_import(stage: Stage) -> None:
    """An import, committed."""
    a_file(stage)
    stage.import_raw("a", f"{FILES}/source.raw", auto_fix=False)


def an_overlay_that_wants_to_be_flat(stage: Stage) -> None:
    """A disk on a snapshot, with the strategy performance."""
    a_chain(stage)
    stage.set_strategy("a", disk(stage), "performance")


def a_flat_disk_that_wants_the_other_format(stage: Stage) -> None:
    """A raw disk with the strategy space."""
    a_disk(stage, strategy="performance")
    stage.set_strategy("a", disk(stage), "space")


def a_wrong_header(stage: Stage) -> None:
    """The header of the disk's overlay names another base."""
    a_chain(stage)
    engine = stage.engine()
    repository = engine.context.repository("a")
    volume = changes.read(repository, disk(stage)).record.volume
    assert volume is not None
    engine.doors.images.set_backing(repository.layer(volume), "t-" + "0" * 32, VolumeFormat.QCOW2)


def leaked_clusters(stage: Stage) -> None:
    """A cluster of the disk's volume has a reference count and nobody refers to it."""
    a_disk(stage)
    with volume_file(stage, "a", disk(stage)) as handle:
        table = int.from_bytes(handle.read_at(int.from_bytes(handle.read_at(48, 8), "big"), 8), "big")
        used = handle.stat().size // (64 * KiB)
        handle.truncate((used + 1) * 64 * KiB)
        handle.write_at(table + 2 * used, b"\0\1")
        handle.sync()


def a_damaged_snapshot(stage: Stage) -> None:
    """The data of the snapshot in a is gone; b has it whole."""
    a_snapshot_in_b(stage)
    engine = stage.engine()
    repository = engine.context.repository("a")
    volume = changes.read(repository, snap(stage)).record.volume
    assert volume is not None
    repository.remove_volume(volume.id, volume.format)


def a_shortened_disk(stage: Stage) -> None:
    """The end of a raw disk is gone."""
    a_disk(stage, strategy="performance")
    with volume_file(stage, "a", disk(stage)) as handle:
        handle.truncate(64 * KiB)
        handle.sync()
    hurt(stage, "a", disk(stage), 64 * KiB, ODD - 64 * KiB)


def a_salvaged_disk(stage: Stage) -> None:
    """The same after salvage: evidence is kept, losses are known."""
    a_shortened_disk(stage)
    stage.fix("a", "B-SALVAGE")


def a_strange_volume(stage: Stage) -> None:
    """A volume that no record names."""
    a_disk(stage)
    files = stage.engine().doors.files
    folder = f"{REPOSITORIES}/a/volumes/0f"
    files.make_directory(folder)
    with files.create(f"{folder}/{'0f' * 16}.raw") as handle:
        handle.write_at(0, data(1))
        handle.sync()
    files.sync_directory(folder)
    files.sync_directory(f"{REPOSITORIES}/a/volumes")
    stage.models = (stage.model.stray("0f" * 16, Content(0, ()).write(0, data(1))),)


def a_volume_in_quarantine(stage: Stage) -> None:
    """The same, moved to where it waits for a decision."""
    a_strange_volume(stage)
    stage.fix("a", "C-UNNAMED")


def a_damaged_record(stage: Stage) -> None:
    """The record of a disk is damaged; nothing depends on it."""
    a_disk(stage)
    stage.named["second"] = stage.create("a", SIZE)
    repository = stage.engine().context.repository("a")
    entry = repository.read_tag(disk(stage))
    assert entry is not None
    tag = disk(stage)
    with stage.engine().doors.files.open(
        f"{REPOSITORIES}/a/tags/{tag[:2]}/{tag}.{entry.generation:016x}", True
    ) as handle:
        handle.write_at(60, b"?")
        handle.sync()
    hurt(stage, "a", tag, 0, ODD)


def litter_of_all_kinds(stage: Stage) -> None:
    """What crashes leave: a temporary file, a superseded record, progress and digests of nobody."""
    a_snapshot_in_b(stage)
    files = stage.engine().doors.files
    root = f"{REPOSITORIES}/a"
    tag = disk(stage)
    entry = stage.engine().context.repository("a").read_tag(tag)
    assert entry is not None
    old = f"tags/{tag[:2]}/{tag}.{entry.generation - 1:016x}"
    for name in (f"tmp/{'ab' * 16}-record", old, f"progress/{tag}.99", f"digests/{'cd' * 16}"):
        with files.create(f"{root}/{name}") as handle:
            handle.write_at(0, b"left")
            handle.sync()
        files.sync_directory(f"{root}/{name}".rpartition("/")[0])


def an_unwanted_attempt(stage: Stage) -> None:
    """An optimisation was interrupted, and then the strategy was changed back."""
    an_overlay_that_wants_to_be_flat(stage)
    interrupted(stage, "a", "O-FLAT", before="handle.write_at /srv/a/volumes")
    stage.set_strategy("a", disk(stage), "space")


def a_replaced_volume(stage: Stage) -> None:
    """An optimisation ended, and the old volume is still there."""
    an_overlay_that_wants_to_be_flat(stage)
    interrupted(stage, "a", "O-FLAT", before="files.unlink /srv/a/volumes")


def a_begun_deletion(stage: Stage) -> None:
    """A clean was interrupted after there was no way back."""
    a_removed_disk(stage)
    interrupted(stage, "a", "C-REMOVED", before="files.unlink /srv/a/volumes")


def a_begun_merge(stage: Stage) -> None:
    """A merge down was interrupted while it copied."""
    a_raw_chain(stage)
    interrupted(stage, "a", "M-CHAIN", before="handle.sync /srv/a/volumes")


def two_that_stand_on_a_removed_one(stage: Stage) -> None:
    """Two disks on a raw snapshot that was removed, both to be flat; with the second gone the first is merged down."""
    a_chain(stage, strategy="performance")
    stage.named["second"] = stage.create("a", SIZE, ("a", snap(stage)))
    stage.set_strategy("a", stage.named["second"], "performance")
    stage.remove("a", snap(stage))


def one_that_stood_on_a_removed_one(stage: Stage) -> None:
    """The same; the second disk is flat already, and its overlay still there."""
    two_that_stand_on_a_removed_one(stage)
    interrupted(stage, "a", "O-FLAT", before="files.unlink /srv/a/volumes", target=stage.named["second"])


def two_disks_in_two(stage: Stage) -> None:
    """A disk in each repository, that in b the larger one."""
    a_disk(stage)
    stage.named["elsewhere"] = stage.create("b", SIZE)
    stage.write("b", stage.named["elsewhere"], BLOCK, data(8))


def a_volume_twice(stage: Stage) -> None:
    """The raw volume of a disk, and beside it the same once more, which no record names."""
    a_disk(stage, strategy="performance")
    with volume_file(stage, "a", disk(stage)) as handle:
        content = handle.read_at(0, SIZE)
    folder = f"{REPOSITORIES}/a/volumes/0f"
    files = stage.engine().doors.files
    files.make_directory(folder)
    with files.create(f"{folder}/{'0f' * 16}.raw") as handle:
        handle.write_at(0, content)


# -- what another host does, if it can


def fix_if_offered(repo: str, rule: str) -> Callable[[Stage], None]:
    """Run the first fix of that rule that is offered and can run. Models stay as they are."""

    def run(stage: Stage) -> None:
        for fix in stage.engine().check_storage_repository(repo):
            if fix.rule == rule and not fix.waits_for:
                stage.engine().run_fix_here(repo, fix)
                return

    return run


def use_the_other_volume(stage: Stage) -> None:
    """What no verb does, but another program might: a record that names another volume, and the old one no more."""
    repository = stage.engine().context.repository("a")
    changes.change(repository, disk(stage), lambda record: record._replace(volume=VolumeRef("0f" * 16, _RAW, "")))


# -- helpers


def hurt(stage: Stage, repo: str, image: str, start: int, length: int) -> None:
    """From here on the model knows what is destroyed."""
    stage.models = (stage.model.changed(repo, image, hurt=((start, length),)),)


def volume_file(stage: Stage, repo: str, image: str) -> FileHandle:
    """The volume of an image, opened for writing."""
    repository = stage.engine().context.repository(repo)
    volume = changes.read(repository, image).record.volume
    assert volume is not None
    path = repository.layer(volume).path
    files = stage.engine().doors.files
    if path.startswith(DEVICE_ROOT):
        assert isinstance(files, SimFiles)
        return files.open_block(path, writable=True)
    return files.open(path, writable=True)


def interrupted(stage: Stage, repo: str, rule: str, before: str, nth: int = 1, target: str = "") -> None:
    """Run a fix until just before the nth effect that starts so, and kill its process."""
    count = 0
    if stage.world.format == LVM:
        before = _on_volumes(before)

    def hook(process: SimProcess, call: str, what: str) -> Fault:
        nonlocal count
        count += f"{call} {on_server(what)}".startswith(before)
        if count == nth:
            process.kill()
        return Fault.NONE

    engine = stage.world.host("one" if stage.world.sharing else "three")
    offered = engine.check_storage_repository(repo)
    fix = next(fix for fix in offered if fix.rule == rule and target in ("", fix.target))
    stage.world.process_of(engine).hook = hook
    try:
        engine.run_fix_here(repo, fix)
    except Crashed:
        return
    raise AssertionError(f"{rule} never came to {before}")


def _on_volumes(effect: str) -> str:
    """The same effect where volumes are logical ones."""
    call, _, path = effect.partition(" ")
    call = {"files.unlink": "volume_groups.remove"}.get(call, call)
    return f"{call} {path.replace(REPOSITORIES, '/dev', 1).replace('/volumes', '/dwv-')}"


def copy_onto_newcomer(stage: Stage) -> None:
    """If a snapshot is seen that nobody acknowledged, base a copy on it: then it must stay."""
    found = _newcomer(stage)
    if found is None:
        return
    image, model = found
    source = model.images["b", stage.named["elsewhere"]]
    copied = source._replace(user_data={})
    with stage.doing(model.made("a", None, copied)) as done:
        options = {"auto_fix": False, "image_hints": {stage.named["elsewhere"]: "b"}}
        made = stage.engine().copy_image("a", stage.named["elsewhere"], image, None, options)
        done(model.made("a", made, copied))


def base_on_newcomer(stage: Stage) -> None:
    """If a snapshot is seen that nobody acknowledged, make a disk on it: then it must stay."""
    found = _newcomer(stage)
    if found is None:
        return
    image, model = found
    content = model.images["a", image].content.truncate(SIZE)
    child = Image(SIZE, content, True, {})
    with stage.doing(model.made("a", None, child)) as done:
        done(model.made("a", stage.engine().create_virtual_disk("a", SIZE, image), child))


def _newcomer(stage: Stage) -> tuple[str, Model] | None:
    """A snapshot in a that is seen and was not acknowledged, and the model that knows it."""
    known = {image for _, image in stage.models[0].images}
    seen = [image.id for image in stage.engine().list_images("a") if not image.removed and image.id not in known]
    withs = [model for model in stage.models if model.unnamed]
    if not seen or not withs:
        return None
    ((repo, made),) = withs[0].unnamed
    return seen[0], withs[0]._replace(unnamed=()).made(repo, seen[0], made)
