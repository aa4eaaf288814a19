"""What the world outside does: machines that outlive their holder, power cuts, other tools, backups, damage."""

import shutil
import subprocess

from tests.adversary.doors import processes
from tests.adversary.doors.damage import DAMAGES, record_of
from tests.adversary.oracle.contents import BLOCK, extent_bytes
from tests.adversary.oracle.findings import NotThere
from tests.adversary.oracle.model import Image
from tests.adversary.world import Action, Outcome, World


def _image(world: World, action: Action) -> Image:
    image = world.model.find(action["repo"], action["image"])
    if not image or not image.id:
        raise NotThere("the image is not there")
    return image


def holder_kill(world: World, action: Action) -> Outcome:
    """Kill the process that holds a machine's disk; the machine goes on."""
    if machine := world.machines.get(action["machine"]):
        processes.kill(machine.holder)
    return Outcome()


def machine_dies(world: World, action: Action) -> Outcome:
    """Kill a machine; its disk stays prepared."""
    if machine := world.machines.pop(action["machine"], None):
        machine.end(kill=True)
    return Outcome()


def teardown_under_machine(world: World, action: Action) -> Outcome:
    """Tear a disk down while its machine runs."""
    machine = world.machines.get(action["machine"])
    image = world.model.find(machine.repository, machine.image) if machine else None
    if not machine or not image:
        return Outcome()
    host = next(host for host in world.hosts if host.name == machine.host)
    done = host.run("teardown", machine.repository, image.id)
    machine.torn_down = done.code == 0
    return Outcome([done])


def grow(world: World, action: Action) -> Outcome:
    """Make a disk longer with qemu-img while it is prepared, and write into the new part."""
    image = _image(world, action)
    before, after = image.contents[0].size, image.contents[0].size + action["by"]
    first, count = before // BLOCK, min(4, action["by"] // BLOCK)
    with world.lock:
        number = world.model.next_write()
    source = world.file(".blocks")
    source.write_bytes(extent_bytes(number, first, count))
    script = (
        'qemu-img resize -q -f "$DISKWRIGHT_DISK_FORMAT" "$DISKWRIGHT_DISK" "$1" && '
        'exec qemu-io -f "$DISKWRIGHT_DISK_FORMAT" -c "write -s $2 $3 $4" -c flush "$DISKWRIGHT_DISK"'
    )
    words = ["sh", "-c", script, "sh", str(after), str(source), str(before), str(count * BLOCK)]
    done = world.host(action).run("prepare", action["repo"], image.id, "--", *words)

    def writes() -> None:
        if done.code == 0:
            content = image.contents[0].copy()
            content.size = after
            content.write(number, first, count, certain=True, durable=True)
            image.grown_from = before
            world.model.wrote(action["repo"], image.name, [content])

    return Outcome([done], writes=writes)


def power_cut(world: World, action: Action) -> Outcome:
    """Lose the power of the storage under a repository: every process ends, what was not flushed may be lost."""
    for machine in world.machines.values():
        machine.end(kill=True)
    world.machines.clear()
    for pid in processes.marked(str(world.directory)):
        processes.kill(pid)
    world.places[action["repo"]].cut()
    for image in world.model.repositories[action["repo"]].values():
        for content in image.contents:
            if content.torn and image.kind == "disk":
                image.hurt = image.hurt or "torn"
            content.cut()
    return Outcome()


def fill(world: World, action: Action) -> Outcome:
    """Fill the storage to its last byte."""
    world.places[action["repo"]].fill()
    return Outcome()


def backup(world: World, action: Action) -> Outcome:
    """Copy the repository's directory away."""
    away = world.directory / f"backup-of-{action['repo']}"
    shutil.rmtree(away, ignore_errors=True)
    subprocess.run(["cp", "-a", str(world.places[action["repo"]].root), str(away)], check=True)
    world.backups[action["repo"]] = world.model.saved(action["repo"])
    return Outcome()


def restore_backup(world: World, action: Action) -> Outcome:
    """Put the copy in the place of the repository, as one restores a backup."""
    repository = action["repo"]
    away, root = world.directory / f"backup-of-{repository}", world.places[repository].root
    if repository not in world.backups:
        return Outcome()
    world.teardown_all()
    shutil.rmtree(root)
    subprocess.run(["cp", "-a", str(away), str(root)], check=True)
    world.model.repositories[repository] = world.model.saved_copy(world.backups[repository])
    for images in world.model.repositories.values():
        for image in images.values():
            home, _, name = image.follows.partition("/")
            if home == repository and (source := world.model.find(repository, name)):
                image.contents += [one.copy() for one in source.contents]
    world.accept(repository)
    return Outcome()


def restore_locks(world: World, action: Action) -> Outcome:
    """Put an empty lock file in the place of the lock file, as a restore of single files does.

    Until somebody accepts it, hosts that know the other may refuse everything; at the end all of them do accept it."""
    locks = world.places[action["repo"]].root / "locks"
    locks.unlink()
    locks.touch()
    world.replaced.add(action["repo"])
    return Outcome()


def damage(world: World, action: Action) -> Outcome:
    """Damage one object of a repository (`what`), at a place in it that `at` chooses."""
    image = _image(world, action)
    hurts, strike = DAMAGES[action["what"]]
    root = world.places[action["repo"]].root
    volumes = [path for path in (root / "volumes").rglob("*") if path.is_file()]
    strike(root, image.id, action["at"])
    world.deleted |= {str(path) for path in volumes if not path.exists()}
    if hurts == "record":
        image.hurt = "record"
    if action["what"] == "locks-gone":  # it is made again by one host, and is another file for the others
        world.replaced.add(action["repo"])
    for other in world.model.repositories[action["repo"]].values() if hurts == "volume" else ():
        if other.family == image.family:
            other.hurt = "volume"
    return Outcome()


def record_away(world: World, action: Action) -> Outcome:
    """Take the record of an image away: it is being restored, and its data came first."""
    image = _image(world, action)
    record = record_of(world.places[action["repo"]].root, image.id)
    kept = world.file(".record")
    shutil.move(record, kept)
    world.away[f"{action['repo']}/{image.name}"] = (record, kept)
    return Outcome()


def record_back(world: World, action: Action) -> Outcome:
    """Bring the record back."""
    if moved := world.away.pop(f"{action['repo']}/{action['image']}", None):
        record, kept = moved
        record.parent.mkdir(exist_ok=True)
        shutil.move(kept, record)
    return Outcome()


_MACHINES = (holder_kill, machine_dies, teardown_under_machine)
_STORAGE = (grow, power_cut, fill, backup, restore_backup, restore_locks, damage, record_away, record_back)
OUTSIDE = {one.__name__: one for one in (*_MACHINES, *_STORAGE)}
