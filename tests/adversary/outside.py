"""What the world outside does: machines that outlive their holder, hosts that die, other tools, backups, damage."""

from tests.adversary.doors import processes
from tests.adversary.doors.damage import DAMAGES
from tests.adversary.doors.hosts import Host, Machine
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
        machine.hands.kill(machine.holder)
    return Outcome()


def machine_dies(world: World, action: Action) -> Outcome:
    """Kill a machine; its disk stays prepared."""
    if machine := world.machines.pop(action["machine"], None):
        machine.end(kill=True)
    return Outcome()


def machine_crashes(world: World, action: Action) -> Outcome:
    """Kill a machine that its manager will start again: its disk stays prepared, and nobody has the data open."""
    if machine := world.machines.get(action["machine"]):
        machine.hands.kill(machine.number)
    return Outcome()


def teardown_under_machine(world: World, action: Action) -> Outcome:
    """Tear a disk down while its machine runs."""
    machine = world.machines.get(action["machine"])
    image = world.model.find(machine.repository, machine.image) if machine else None
    if not machine or not image:
        return Outcome()
    done = world.host_of(machine).run("teardown", machine.repository, image.id)
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
    for host in world.hosts:
        host.hands.end_world(str(world.directory))
    world.places[action["repo"]].cut()
    world.reach()
    for image in world.model.repositories[action["repo"]].values():
        _cut(image)
    return Outcome()


def _cut(image: Image) -> None:
    """Note that what was not flushed may be lost."""
    image.checked = False
    for content in image.contents:
        if content.torn and image.kind == "disk":
            image.hurt = image.hurt or "torn"
        content.cut()


def host_dies(world: World, action: Action) -> Outcome:
    """Kill a host after some time, with all that it does and has in memory, and boot it again."""
    host = world.host(action)
    processes.pause(action["ms"] / 1000)
    world.site.kill(host.name)

    def writes() -> None:
        world.reach()
        _forget_machines(world, host)
        for images in world.model.repositories.values():
            for image in images.values():
                _cut(image)

    return Outcome(writes=writes)


def host_sleeps(world: World, action: Action) -> Outcome:
    """Let time stop for a host, in the middle of what it does, until the server has given its locks away. Its machines
    can write no more then, and end."""
    host = world.host(action)
    processes.pause(action["ms"] / 1000)
    for machine in _machines_of(world, host).values():
        machine.torn_down = True  # whatever it thinks when it wakes up
    world.site.sleep(host.name)

    def writes() -> None:
        for machine in _machines_of(world, host).values():
            machine.end(kill=True)
        _forget_machines(world, host)
        for images in world.model.repositories.values():
            for image in images.values():
                image.checked = False

    return Outcome(writes=writes)


def _machines_of(world: World, host: Host) -> dict[str, Machine]:
    return {name: one for name, one in list(world.machines.items()) if one.host == host.name}


def _forget_machines(world: World, host: Host) -> None:
    for name in _machines_of(world, host):
        del world.machines[name]


def fill(world: World, action: Action) -> Outcome:
    """Fill the storage to its last byte."""
    world.places[action["repo"]].fill()
    return Outcome()


def backup(world: World, action: Action) -> Outcome:
    """Copy the repository's directory away."""
    world.files(action["repo"]).back_up()
    world.backups[action["repo"]] = world.model.saved(action["repo"])
    return Outcome()


def restore_backup(world: World, action: Action) -> Outcome:
    """Put the copy in the place of the repository, as one restores a backup."""
    repository = action["repo"]
    if repository not in world.backups:
        return Outcome()
    world.teardown_all()
    world.files(repository).restore()
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
    world.files(action["repo"]).restore_locks()
    world.replaced.add(action["repo"])
    return Outcome()


def damage(world: World, action: Action) -> Outcome:
    """Damage one object of a repository (`what`), at a place in it that `at` chooses."""
    image = _image(world, action)
    hurts, _strike = DAMAGES[action["what"]]
    world.deleted |= set(world.files(action["repo"]).damage(action["what"], image.id, action["at"]))
    if hurts == "record":
        image.damaged("record")
    if action["what"] == "locks-gone":  # it is made again by one host, and is another file for the others
        world.replaced.add(action["repo"])
    for other in world.model.repositories[action["repo"]].values() if hurts == "volume" else ():
        if other.family == image.family:
            other.damaged("volume")
    return Outcome()


def record_away(world: World, action: Action) -> Outcome:
    """Take the record of an image away: it is being restored, and its data came first."""
    image = _image(world, action)
    files, whole = world.files(action["repo"]), bool(action.get("whole"))
    world.away[f"{action['repo']}/{image.name}"] = files.record_away(image.id, whole)
    return Outcome()


def record_back(world: World, action: Action) -> Outcome:
    """Bring the record back."""
    if moved := world.away.pop(f"{action['repo']}/{action['image']}", None):
        world.files(action["repo"]).record_back(*moved)
    return Outcome()


_MACHINES = (holder_kill, machine_dies, machine_crashes, teardown_under_machine, host_dies, host_sleeps)
_STORAGE = (grow, power_cut, fill, backup, restore_backup, restore_locks, damage, record_away, record_back)
OUTSIDE = {one.__name__: one for one in (*_MACHINES, *_STORAGE)}
