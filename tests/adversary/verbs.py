"""What users and operators do: the verbs, each run by the real command, with what its exit code says for the model."""

import json
from typing import Any

from tests.adversary.doors.hosts import Done, Machine
from tests.adversary.doors.kills import Kill
from tests.adversary.doors.machines import MachineError
from tests.adversary.oracle.contents import BLOCK, Content, extent_bytes, judge
from tests.adversary.oracle.findings import Finding
from tests.adversary.oracle.model import ABSENT, PRESENT, Change, Image, Said
from tests.adversary.world import Action, Before, Outcome, World


def _run(world: World, action: Action, *argv: str) -> Done:
    return world.host(action).run(*argv, kill=Kill.of(action), watch=world.places[action["repo"]].root)


def _the(world: World, action: Action, repository: str = "repo", image: str = "image") -> Image | None:
    found = world.model.find(action[repository], action[image])
    return found if found and found.id else None


def _options(action: Action) -> list[str]:
    options = ["--user-data", json.dumps({"name": action["as"]})]
    options += ["--strategy", action["strategy"]] if action.get("strategy") else []
    options += ["--wait"] if action.get("wait") else []
    return options + (["--no-auto-fix"] if action.get("later") else [])


def _states(said: Said) -> set[str]:
    return {PRESENT} if said is Said.DONE else {PRESENT, ABSENT}


def _image_of(done: Done) -> str:
    return str(done.output.get("image", "")) if done.code == 0 else ""


def _new(world: World, action: Action, done: Done, **what: Any) -> None:
    if done.said is not Said.NO:
        image = Image(action["as"], id=_image_of(done), states=_states(done.said), **what)
        world.model.add(action["repo"], image)


def create_disk(world: World, action: Action) -> Outcome:
    """Make a disk, empty or from a snapshot."""
    base = _the(world, action, image="base") if action.get("base") else None
    if action.get("base") and not base:
        return Outcome()
    argv = ["create-disk", action["repo"], str(base.contents[0].size if base else action["size"])]
    done = _run(world, action, *argv, *(["--base", base.id] if base else []), *_options(action))

    def makes(_before: Before) -> None:
        contents = [one.copy() for one in base.contents] if base else [Content(action["size"])]
        family, source = (base.family, f"{action['repo']}/{base.name}") if base else (action["as"], "")
        _new(world, action, done, kind="disk", contents=contents, family=family, source=source)

    return Outcome([done], makes=makes)


def import_file(world: World, action: Action) -> Outcome:
    """Import a file with numbered blocks, raw or qcow2, of any length in bytes."""
    path, content = world.file(".raw"), Content(action["size"])
    with path.open("wb") as file:
        for first, count in action["extents"]:
            with world.lock:
                write = world.model.next_write()
            file.seek(first * BLOCK)
            file.write(extent_bytes(write, first, count))
            content.write(write, first, count, certain=True, durable=True)
        file.truncate(action["size"])
    done = _run(world, action, "import", action["repo"], str(path), "--format", "raw", *_options(action))
    makes = lambda _before: _new(world, action, done, kind="disk", contents=[content], family=action["as"])  # noqa: E731
    return Outcome([done], makes=makes)


def write(world: World, action: Action) -> Outcome:
    """Write extents into a disk with `prepare -- qemu-io`, with or without a flush at the end."""
    image = _the(world, action)
    if not image:
        return Outcome()
    numbered, commands = [], []
    for first, count in action["extents"]:
        if first + count <= image.contents[0].size // BLOCK:
            with world.lock:
                number = world.model.next_write()
            source = world.file(".blocks")
            source.write_bytes(extent_bytes(number, first, count))
            numbered.append((number, first, count))
            commands += ["-c", f"write -s {source} {first * BLOCK} {count * BLOCK}"]
    mode = action.get("mode", "writeback")
    commands += ["-c", "flush"] if action.get("flush", True) else []
    script = 'mode=$1; shift; exec qemu-io -f "$DISKWRIGHT_DISK_FORMAT" -t "$mode" "$@" "$DISKWRIGHT_DISK"'
    done = _run(world, action, "prepare", action["repo"], image.id, "--", "sh", "-c", script, "sh", mode, *commands)
    durable = bool(action.get("flush", True)) and mode != "unsafe" and done.code == 0

    def writes() -> None:
        if done.said is Said.NO or not numbered:
            return
        changed = [one.copy() for one in image.contents]
        for one in changed:
            for number, first, count in numbered:
                one.write(number, first, count, certain=done.code == 0, durable=durable)
            if durable:
                one.flush()
            one.torn = one.torn or mode == "unsafe"
        if done.code == 0:
            image.follows = image.source = ""
        world.model.wrote(action["repo"], image.name, changed)

    return Outcome([done], writes=writes)


def snapshot(world: World, action: Action) -> Outcome:
    """Freeze a disk: one moment of it, durable from now on."""
    image = _the(world, action)
    if not image:
        return Outcome()
    options = [one for one in _options(action) if one != "--wait"]
    done = _run(world, action, "create-snapshot", action["repo"], image.id, *options)

    def makes(before: Before) -> None:
        contents = before.and_now(action["repo"], image)
        for one in contents:
            one.flush()
        _new(world, action, done, kind="snapshot", contents=contents, family=image.family, hurt=image.hurt)
        if done.code == 0:  # whatever a snapshot speaks of is durable
            for one in image.contents:
                one.older = {} if len(contents) == 1 else one.older

    return Outcome([done], makes=makes)


def snapshot_group(world: World, action: Action) -> Outcome:
    """Freeze several disks, which have different lengths: one moment of all, durable from now on, or nothing."""
    disks = [one for name in action["images"] if (one := world.model.find(action["repo"], name)) and one.id]
    if len(disks) < len(action["images"]):
        return Outcome()
    named = json.dumps({"name": action["as"]})
    done = _run(
        world, action, "create-snapshot-group", action["repo"], *(one.id for one in disks), "--user-data", named
    )
    told = {one["disk"]: one["image"] for one in done.output["snapshots"]} if done.code == 0 else {}

    def makes(before: Before) -> None:
        for disk in disks if done.said is not Said.NO else ():
            contents = before.and_now(action["repo"], disk)
            for one in contents:
                one.flush()
            made = Image(
                f"{action['as']}-{disk.name}",
                "snapshot",
                told.get(disk.id, ""),
                contents,
                _states(done.said),
                disk.family,
            )
            made.hurt, made.group = disk.hurt, action["as"]
            world.model.add(action["repo"], made)
            if done.code == 0 and len(contents) == 1:
                for one in disk.contents:
                    one.older = {}

    return Outcome([done], makes=makes)


def copy(world: World, action: Action) -> Outcome:
    """Copy an image to another repository. A copy of a disk shows one moment of it, whole."""
    image = _the(world, action, "from", "image")
    base = _the(world, action, image="base") if action.get("base") else None
    if not image:
        return Outcome()
    argv = ["copy", action["repo"], image.id, *(["--base", base.id] if base else []), *_options(action)]
    done = _run(world, action, *argv)

    def makes(before: Before) -> None:
        follows = f"{action['from']}/{image.name}" if image.kind == "disk" else ""
        contents = before.and_now(action["from"], image) if follows else [one.copy() for one in image.contents]
        source = f"{action['from']}/{image.name}"
        family = base.family if base else action["as"]
        copied = Image(action["as"], image.kind, _image_of(done), contents, _states(done.said), family, source, follows)
        copied.hurt = image.hurt
        if image.kind == "snapshot":
            copied.id = image.id
            there = world.model.by_id(action["repo"], image.id)
            if there and (done.said is not Said.DONE or PRESENT in there.states):
                there.states |= copied.states if done.said is Said.MAYBE else set()
                return
        if done.said is not Said.NO:
            world.model.add(action["repo"], copied)

    return Outcome([done], makes=makes)


def _change(verb: str, world: World, action: Action) -> Outcome:
    image = _the(world, action)
    if not image:
        return Outcome()
    done = _run(world, action, verb, action["repo"], image.id)
    return Outcome([done], changes=[(action["repo"], image.name, Change(verb, done.said, done.began, done.ended))])


def remove(world: World, action: Action) -> Outcome:
    """Remove an image."""
    return _change("remove", world, action)


def restore(world: World, action: Action) -> Outcome:
    """Undo a removal."""
    return _change("restore", world, action)


def fix(world: World, action: Action) -> Outcome:
    """Run fixes: all, some types, or single ones by the image and rule that a check tells (`rule`, `image`)."""
    repository = action["repo"]
    how = list(action.get("how", ["--all"]))
    done = []
    if action.get("rule"):
        image = world.model.find(repository, action["image"])
        listed = world.host(action).run("check", repository)
        done.append(listed)
        offered = listed.output.get("fixes", []) if image else []
        how = [one["id"] for one in offered if one["rule"] == action["rule"] and image and one["target"] == image.id]
    if action.get("pick") is not None:  # one of those that are offered, whichever
        listed = world.host(action).run("check", repository)
        done.append(listed)
        offered = [one["id"] for one in listed.output.get("fixes", []) if one["risk"] != "loses data"]
        how = [offered[action["pick"] % len(offered)]] if offered else []
    if not how:
        return Outcome(done)
    how += ["--irreversible"] if action.get("irreversible") else []
    done.append(_run(world, action, "fix", repository, *how))
    return Outcome(done, cleans={repository})


def _plain(verb: str, world: World, action: Action, *more: str) -> Outcome:
    image = _the(world, action)
    return Outcome([_run(world, action, verb, action["repo"], image.id, *more)]) if image else Outcome()


def strategy(world: World, action: Action) -> Outcome:
    """Value space or performance."""
    return _plain("strategy", world, action, action["strategy"])


def digest(world: World, action: Action) -> Outcome:
    """Read a snapshot whole."""
    return _plain("digest", world, action)


def stop(world: World, action: Action) -> Outcome:
    """Stop what runs on an image."""
    return _plain("stop", world, action)


def check(world: World, action: Action) -> Outcome:
    """Look, while others work."""
    return Outcome([_run(world, action, "check", action["repo"], *(["--deep"] if action.get("deep") else []))])


def read(world: World, action: Action) -> Outcome:
    """Export an image while others work: what comes out is one of its moments."""
    image = _the(world, action)
    if not image or image.hurt:
        return Outcome()
    path = world.file(".raw")
    done = _run(world, action, "export", action["repo"], image.id, str(path), "--format", "raw")
    outcome = Outcome([done])

    def makes(before: Before) -> None:
        if done.code == 0 and not world.in_use(action["repo"], image.name):
            fits, why = judge(before.and_now(action["repo"], image), path)
            if not fits:
                says = f"read beside other work: {why}"
                outcome.findings.append(Finding("content", action["repo"], image.name, says))
        path.unlink(missing_ok=True)

    outcome.makes = makes
    return outcome


def kill_runners(world: World, action: Action) -> Outcome:
    """Kill every process that works on its own, after some milliseconds."""
    for hands in {id(host.hands): host.hands for host in world.hosts}.values():
        hands.kill_runners(str(world.directory), action["ms"])
    return Outcome()


def machine_start(world: World, action: Action) -> Outcome:
    """Prepare a disk and start a machine on it."""
    image = _the(world, action)
    if not image or action["as"] in world.machines:
        return Outcome()
    done = _run(world, action, "prepare", action["repo"], image.id)
    if done.code or "path" not in done.output:
        return Outcome([done])
    told, hands = done.output, world.host(action).hands
    outcome = Outcome([done])
    others = [m for m in world.machines.values() if (m.repository, m.image) == (action["repo"], image.name)]
    for other in others:
        if not other.torn_down and not other.hands.wait_gone(other.holder, 0.0):
            says = f"{other.host} (process {other.holder}) and {done.host} (process {told['pid']}) both may write"
            outcome.findings.append(Finding("two writers", action["repo"], image.name, says))
    try:
        number = hands.machine_start(str(world.directory), told["path"], told["format"])
    except MachineError as error:
        world.host(action).run("teardown", action["repo"], image.id)
        outcome.note = str(error)
        return outcome
    with world.lock:
        world.machines[action["as"]] = Machine(action["repo"], image.name, done.host, told["pid"], hands, number)
    return outcome


def machine_write(world: World, action: Action) -> Outcome:
    """Let a machine write blocks, each durable when it is acknowledged."""
    machine = world.machines.get(action["machine"])
    image = world.model.find(machine.repository, machine.image) if machine else None
    if not machine or not image:
        return Outcome()
    written: list[tuple[int, int, int, bool]] = []
    for first, count in action["extents"]:
        if first + count <= image.contents[0].size // BLOCK:
            with world.lock:
                number = world.model.next_write()
            try:
                machine.write(number, first, count)
                written.append((number, first, count, True))
            except MachineError:
                written.append((number, first, count, False))

    def writes() -> None:
        content = image.contents[-1].copy()
        for number, first, count, certain in written:
            content.write(number, first, count, certain=certain, durable=certain)
        image.follows = image.source = ""
        world.model.wrote(machine.repository, machine.image, [content])

    return Outcome(writes=writes)


def machine_stop(world: World, action: Action) -> Outcome:
    """Shut a machine down, or kill it, and tear its disk down."""
    with world.lock:
        machine = world.machines.pop(action["machine"], None)
    if not machine:
        return Outcome()
    machine.end(kill=bool(action.get("dies")))
    image = world.model.find(machine.repository, machine.image)
    return Outcome([world.host_of(machine).run("teardown", machine.repository, image.id)] if image else [])


_ALL = (
    create_disk,
    import_file,
    write,
    snapshot,
    snapshot_group,
    copy,
    remove,
    restore,
    fix,
    strategy,
    digest,
    stop,
    check,
    read,
)
_MACHINES = (kill_runners, machine_start, machine_write, machine_stop)
VERBS = {one.__name__: one for one in (*_ALL, *_MACHINES)}
