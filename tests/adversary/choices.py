"""Chooses what happens: ordinary work of several hosts, with kills, by a seed and by what the model says is there."""

import random
from collections.abc import Sequence
from typing import Any

from tests.adversary.oracle.contents import BLOCK
from tests.adversary.oracle.model import ABSENT, PRESENT, REMOVED, Image
from tests.adversary.world import Action, World

SIZES = (1 << 20, 2 << 20, 4 << 20, (1 << 20) + 512, (2 << 20) + 3 * 512)
_WEIGHTS = {
    "create_disk": 3, "import_file": 2, "write": 7, "snapshot": 5, "copy": 4, "remove": 4, "restore": 2, "fix": 4,
    "fix_one": 3, "strategy": 2, "digest": 1, "stop": 1, "check": 1, "read": 3, "kill_runners": 2, "machine": 2,
    "machine_write": 4, "machine_stop": 2,
}  # fmt: skip
TO_HOSTS = ("host_dies", "host_sleeps", "power_cut")


def round_of(
    world: World, rng: random.Random, number: int, *, most: int = 4, beside: Sequence[Action] = ()
) -> list[Action]:
    """Choose the actions of one round, `beside` those that are in it. At most one writes into a disk; several may
    change an image."""
    actions: list[Action] = []
    for at in range(rng.randint(1, most)):
        empty = world.site.sparing and not any(world.model.repositories.values())
        weights = {"create_disk": 1, "import_file": 1} if empty else {**_WEIGHTS, **world.site.more}
        verb = rng.choices(list(weights), list(weights.values()))[0]
        action = _Chooser(world, rng, f"r{number}n{at}").choose(verb)
        if action and not _collides(action, [*beside, *actions]):
            actions.append(action)
    return actions


def _collides(action: Action, others: list[Action]) -> bool:
    if action["do"] in TO_HOSTS:
        return any(one["do"] in TO_HOSTS for one in others)
    if action["do"] not in ("write", "machine_write", "machine_start", "machine_stop"):
        return False
    mine = (action["repo"], action.get("image"))
    return any(
        one["do"] in ("write", "machine_write", "machine_start", "machine_stop")
        and (one["repo"], one.get("image")) == mine
        for one in others
    )


def extents(rng: random.Random, size: int, most: int = 3) -> list[list[int]]:
    """Choose up to `most` extents of blocks that lie whole in an image of that size."""
    blocks = max(1, size // BLOCK)
    chosen = []
    for _ in range(rng.randint(1, most)):
        first = rng.randrange(blocks)
        chosen.append([first, min(blocks - first, rng.choice((1, 2, 17, 64, 256)))])
    return chosen


def a_kill(rng: random.Random, whom: str, most: int = 6) -> dict[str, Any]:
    """Choose a moment to kill at: after some time, or at one of the first ``most`` changes of names there."""
    if rng.random() < 0.5:
        return {"whom": whom, "ms": rng.randrange(20, 400)}
    return {"whom": whom, "names": rng.randrange(1, most + 1)}


class _Chooser:
    """Chooses one action, with the images that it is about."""

    def __init__(self, world: World, rng: random.Random, name: str) -> None:
        self.world, self.rng, self.name = world, rng, name
        self.host = rng.randrange(2)
        self.repository = rng.choice(sorted(world.model.repositories))

    def choose(self, verb: str) -> Action | None:
        """Return the action, or None when there is nothing that it could be about."""
        action: Action | None = getattr(self, f"_{verb}")()
        if action is None:
            return None
        action = {"do": verb, "host": self.host, "repo": self.repository} | action
        if (
            verb in ("create_disk", "import_file", "copy", "write", "snapshot", "remove", "restore")
            and self.rng.random() < 0.25
        ):
            action["kill"] = a_kill(self.rng, "group")
        return action

    def _images(self, kind: str = "", state: str = PRESENT) -> list[Image]:
        images = self.world.model.repositories[self.repository].values()
        return [one for one in images if one.id and state in one.states and kind in ("", one.kind) and not one.hurt]

    def _one(self, kind: str = "", state: str = PRESENT) -> Action | None:
        images = self._images(kind, state)
        return {"image": self.rng.choice(images).name} if images else None

    def _full(self) -> bool:
        return (
            len([one for one in self.world.model.repositories[self.repository].values() if one.states != {ABSENT}])
            >= self.world.site.most_images
        )

    def _make(self) -> Action:
        return {
            "as": self.name,
            "strategy": self.rng.choice(("space", "space", "performance")),
            "wait": self.rng.random() < 0.4,
        }

    def _create_disk(self) -> Action | None:
        if self._full():
            return None
        snapshots = self._images("snapshot")
        based = {"base": self.rng.choice(snapshots).name} if snapshots and self.rng.random() < 0.5 else {}
        return self._make() | {"size": self.rng.choice(SIZES)} | based

    def _import_file(self) -> Action | None:
        if self._full():
            return None
        size = self.rng.choice((*SIZES, (1 << 20) + 1))
        return self._make() | {"size": size, "extents": extents(self.rng, size)}

    def _write(self) -> Action | None:
        disks = [one for one in self._images("disk") if not self.world.in_use(self.repository, one.name)]
        if not disks:
            return None
        disk = self.rng.choice(disks)
        return {"image": disk.name, "extents": extents(self.rng, disk.contents[0].size), "flush": True}

    def _snapshot(self) -> Action | None:
        return None if self._full() or not (one := self._one("disk")) else {"as": self.name} | one

    def _copy(self) -> Action | None:
        source = self.repository
        one = self._one()
        others = [name for name in self.world.model.repositories if name != source]
        if not one or not others:
            return None
        self.repository = self.rng.choice(others)
        if self._full():
            return None
        base = self._one() if self.rng.random() < 0.3 else None
        based = {"base": base["image"]} if base else {}
        later = {"later": True, "wait": False} if self.rng.random() < 0.2 else {}
        return {**self._make(), **later, **based, "from": source, **one}

    def _remove(self) -> Action | None:
        return self._one()

    def _restore(self) -> Action | None:
        return self._one(state=REMOVED)

    def _fix(self) -> Action:
        how = self.rng.choice(
            (["--all"], ["--all"], ["--type", "clean"], ["--type", "merge"], ["--type", "mend"], ["--type", "optimize"])
        )
        return {"how": how, "irreversible": self.rng.random() < 0.6, **self._killed()}

    def _fix_one(self) -> Action:
        return {"do": "fix", "pick": self.rng.randrange(12), "irreversible": self.rng.random() < 0.8, **self._killed()}

    def _killed(self) -> Action:
        return {"kill": a_kill(self.rng, self.rng.choice(("runners", "group")))} if self.rng.random() < 0.4 else {}

    def _strategy(self) -> Action | None:
        one = self._one()
        return one and one | {"strategy": self.rng.choice(("space", "performance"))}

    def _digest(self) -> Action | None:
        return self._one("snapshot")

    def _stop(self) -> Action | None:
        return self._one()

    def _check(self) -> Action:
        return {"deep": self.rng.random() < 0.3}

    def _read(self) -> Action | None:
        return self._one()

    def _kill_runners(self) -> Action:
        return {"ms": self.rng.randrange(500)}

    def _host_dies(self) -> Action:
        return {"ms": self.rng.choice((self.rng.randrange(500), self.rng.randrange(6000)))}

    _host_sleeps = _host_dies

    def _machine(self) -> Action | None:
        disk = self._one("disk")
        running = self.world.machines
        return None if not disk or len(running) > 2 else {"do": "machine_start", "as": self.name} | disk

    def _machine_write(self) -> Action | None:
        if not (chosen := self._a_machine()):
            return None
        name, size = chosen
        return {"machine": name, "image": self.world.machines[name].image, "extents": extents(self.rng, size)}

    def _machine_stop(self) -> Action | None:
        if not (chosen := self._a_machine()):
            return None
        name, _size = chosen
        return {"machine": name, "image": self.world.machines[name].image, "dies": self.rng.random() < 0.4}

    def _a_machine(self) -> tuple[str, int] | None:
        names = sorted(self.world.machines)
        if not names:
            return None
        name = self.rng.choice(names)
        machine = self.world.machines[name]
        self.repository = machine.repository
        image = self.world.model.find(machine.repository, machine.image)
        return (name, image.contents[0].size) if image else None
