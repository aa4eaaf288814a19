"""What the world outside does to one image, as a sequence of rounds. Other work goes on beside it.

A plot is told by its own random numbers: sizes, places, moments, hosts and what is damaged differ from run to run.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.adversary.choices import a_kill, extents
from tests.adversary.doors.damage import DAMAGES
from tests.adversary.world import Action

Rounds = list[list[Action]]
MIB = 1 << 20


@dataclass(frozen=True)
class Plot:
    """A sequence of rounds, the storage that its repositories need, and whether other work may go on beside it."""

    make: Callable[[random.Random], Rounds]
    storage: str = "directory"
    alone: bool = False
    about: str = ""


class _Teller:
    """Tells actions about the repository `main` and the disk `plot`."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.size = rng.choice((2, 4, 8)) * MIB

    def act(self, verb: str, **what: object) -> Action:
        return {"do": verb, "repo": "main", "host": self.rng.randrange(2), **what}

    def disk(self, **what: object) -> Action:
        return self.act("create_disk", **({"as": "plot", "size": self.size, "wait": True} | what))

    def write(self, **what: object) -> Action:
        return self.act("write", **({"image": "plot", "extents": extents(self.rng, self.size), "flush": True} | what))

    def whole(self, count: int = 1, **what: object) -> Action:
        return self.write(extents=[[0, self.size // 4096]] * count, **what)

    def machine(self, name: str = "machine", **what: object) -> Action:
        return self.act("machine_start", image="plot", **({"as": name} | what))

    def machine_writes(self) -> Action:
        return self.act("machine_write", machine="machine", image="plot", extents=extents(self.rng, self.size))

    def snapshot(self, name: str) -> Action:
        return self.act("snapshot", image="plot", **{"as": name})

    def fix(self, *how: str, **what: object) -> Action:
        told = {"how": list(how) or ["--all"], "irreversible": True}
        return self.act("fix", **(told | what))

    def about(self, verb: str, image: str = "plot", **what: object) -> Action:
        return self.act(verb, image=image, **what)


def _teardown(rng: random.Random) -> Rounds:
    t = _Teller(rng)
    after = [t.snapshot("s"), t.about("remove"), t.about("strategy", strategy="performance"), t.machine("second")]
    second = rng.choice((after[0], after[0], after[1], after[3]))
    return [
        [t.disk()], [t.machine()], [t.machine_writes()], [t.act("teardown_under_machine", machine="machine")],
        [second], [t.machine_writes()], [t.fix()], [t.machine_writes()],
    ]  # fmt: skip


def _group(rng: random.Random) -> Rounds:
    """Two disks of different lengths; what freezes them is killed, and again after something was done about that."""
    t = _Teller(rng)
    disks = ["plot", "second"]
    written = [t.write(), t.about("write", "second", extents=extents(rng, t.size // 2), flush=True)]
    groups = [
        t.act("snapshot_group", images=rng.sample(disks, 2), kill=a_kill(rng, "group", 14), **{"as": name})
        for name in ("g", "h")
    ]
    then = rng.choice(([t.fix()], [t.fix("--type", "merge")], [t.about("remove", "g-second")], [t.write()], written))
    return [
        [t.disk(), t.disk(**{"as": "second", "size": t.size // 2})],
        written,
        groups[:1],
        then,
        groups[1:],
        [t.about("remove", rng.choice(("h-plot", "h-second", "g-plot")))],
        [t.fix(*rng.choice(((), ("--type", "clean"))))],
    ]


def _holder(rng: random.Random) -> Rounds:
    t = _Teller(rng)
    then: Rounds = rng.choice(
        (
            [[t.about("remove")], [t.fix()], [t.fix("--type", "clean")]],
            [[t.snapshot("s")], [t.machine_writes()]],
            [
                [t.snapshot("s")],
                [t.about("remove", "s")],
                [t.machine_writes()],
                [t.fix()],
                [t.machine_writes()],
            ],
            [[t.about("strategy", strategy="performance")], [t.fix()], [t.machine_writes()]],
        )
    )
    return [[t.disk()], [t.machine()], [t.machine_writes()], [t.act("holder_kill", machine="machine")], *then]


def _power_cut(rng: random.Random) -> Rounds:
    t = _Teller(rng)
    late = [t.about("digest", "s")] if rng.random() < 0.3 else []
    unseen = {"unseen": rng.random() < 0.8}  # who reads an image may make it durable by that
    return [
        [t.disk(strategy=rng.choice(("space", "performance")))],
        [t.write()],
        [t.write(mode=rng.choice(("unsafe", "unsafe", "writeback")), flush=False, **unseen)],
        [{**t.snapshot("s"), **unseen}],
        *([late] if late else []),
        [t.act("power_cut")],
    ]


def _grow(rng: random.Random) -> Rounds:
    t = _Teller(rng)
    then = rng.choice(([t.about("strategy", strategy="performance")], [t.snapshot("s")], [t.write()]))
    return [
        [t.disk()],
        [t.write()],
        [t.about("grow", by=rng.choice((4096, MIB, 8 * MIB)))],
        then,
        [t.fix()],
    ]


def _older_source(rng: random.Random) -> Rounds:
    t = _Teller(rng)
    t.size = 256 * MIB
    killed = {"whom": "runners", "written": rng.randrange(70, 160) * MIB}
    whole = t.act("machine_write", machine="machine", image="plot", extents=[[0, t.size // 4096]])
    running = rng.random() < 0.8  # a backup of a running machine's disk: no use of the disk is between it and the rest
    between = [] if running else [[t.act("machine_stop", machine="machine")], [t.machine()]]
    return [
        [t.disk(strategy="performance")],
        [t.machine()],
        [whole],
        *between,
        [t.act("backup")],
        [whole],
        [t.act("machine_stop", machine="machine")],
        [t.act("copy", repo="other", image="plot", strategy="performance", later=True, **{"as": "c", "from": "main"})],
        [t.fix("--type", "mend", repo="other", kill=killed)],
        [t.act("restore_backup")],
        [t.fix(repo="other")],
    ]


def _locks(rng: random.Random) -> Rounds:
    t = _Teller(rng)
    crash: Rounds = [[t.act("machine_crashes", machine="machine")]] if rng.random() < 0.5 else []
    machine, second = t.machine(host=0), t.machine("second", host=1)
    return [[t.disk()], [machine], *crash, [t.act("restore_locks")], [second], [t.snapshot("s")]]


def _damage(what: str) -> Callable[[random.Random], Rounds]:
    def make(rng: random.Random) -> Rounds:
        t = _Teller(rng)
        layers: Rounds = []
        for name in ("s1", "s2")[: rng.randint(1, 2)]:
            layers += [[t.write()], [t.snapshot(name)]]
        other = t.disk(**{"as": "bystander"})
        victim = rng.choice(("plot", "s1", "s1"))
        struck = t.about("damage", victim, what=what, at=rng.randrange(1, 1 << 20))
        removed: Rounds = [[t.about("remove", victim)]] if rng.random() < 0.3 else []
        return [[t.disk(), other], *layers, [t.write()], *removed, [struck]]

    return make


def _full(rng: random.Random) -> Rounds:
    t = _Teller(rng)
    t.size = 20 * MIB
    room = "no room to free room"
    first, second = [t.about("remove", "bystander")], [t.fix("--type", "clean", must=room)]
    data = [[0, 2048]]
    return [
        [t.disk(), t.disk(**{"as": "bystander"})],
        [t.write(extents=data), t.about("write", "bystander", extents=data, flush=True)],
        first,
        [t.act("fill")],
        second,
        [t.act("fill")],
        [t.about("remove", must=room)],
        [t.fix("--all", must=room)],
    ]


def _merges(rng: random.Random) -> Rounds:
    t = _Teller(rng)
    t.size = 8 * MIB
    moment = rng.choice([{"names": number} for number in range(1, 7)] + [{"written": 4096}, {"ms": 600}])
    killed = {"rule": "M-CHAIN", "irreversible": True, "kill": {"whom": "runners", **moment}}
    first, other = rng.choice([("s1", "s2")] * 3 + [("s2", "s1")])
    then = [[t.about("fix", other, rule="M-CHAIN", irreversible=True)]] if rng.random() < 0.8 else []
    return [
        [t.disk()],
        [t.write(extents=[[0, 1536]])],
        [t.snapshot("s1")],
        [t.write(extents=[[256, 256]])],
        [t.snapshot("s2")],
        [t.write(extents=[[512, 16]])],
        [t.about("remove", "s2")],
        [t.about("remove", "s1")],
        [t.about("fix", first, **killed)],
        *then,
        [t.fix()],
    ]


def _record_late(rng: random.Random) -> Rounds:
    t = _Teller(rng)
    victim = rng.choice(("plot", "plot", "s"))
    before = [[t.snapshot("s")]] if victim == "s" or rng.random() < 0.3 else []
    fixes = t.fix(irreversible=False)
    whole = victim == "plot" and rng.random() < 0.7  # what others stand on is put together again from them
    return [
        [t.disk()],
        [t.write()],
        *before,
        [t.about("record_away", victim, whole=whole)],
        [fixes],
        [t.about("record_back", victim)],
        [fixes],
    ]


def _host(event: str) -> Callable[[random.Random], Rounds]:
    """A host stops in the middle of what it does; the other one carries on, perhaps when locks have just been lost."""

    def make(rng: random.Random) -> Rounds:
        t = _Teller(rng)
        working = [
            t.machine_writes(),
            t.act("copy", host=1, repo="other", image="s", **{"as": "c", "from": "main"}),
            t.fix(host=1),
        ]
        after = rng.choice((0, 1, 11, 13, 16))
        carrying_on = [
            t.snapshot("later"),
            t.machine("second"),
            t.fix(),
            t.about("remove"),
            t.act("copy", repo="other", image="plot", **{"as": "d", "from": "main"}),
        ]
        stopped = t.act(event, host=1, ms=rng.randrange(3000))
        return [
            [t.disk(host=0, strategy=rng.choice(("space", "performance")))],
            [t.write(host=0)],
            [t.snapshot("s")],
            [t.machine(host=1)],
            [t.machine_writes()],
            [stopped, *rng.sample(working, 2), {**rng.choice(carrying_on), "host": 0, "after": after}],
            [t.write(host=0)],
            [t.fix(host=rng.randrange(2))],
        ]

    return make


PLOTS = {
    "group": Plot(_group, alone=True, about="two disks are frozen at one moment, and what does that is killed"),
    "teardown": Plot(_teardown, about="a disk is torn down while its machine runs"),
    "holder": Plot(_holder, about="the holder of a machine's disk is killed"),
    "power_cut": Plot(
        _power_cut, "ext4", about="a disk is written without a flush, a snapshot is taken, the power is lost"
    ),
    "power_cut_xfs": Plot(_power_cut, "xfs", about="the same on xfs"),
    "grow": Plot(_grow, about="a disk is made longer by another tool"),
    "older_source": Plot(_older_source, alone=True, about="a copy is interrupted, its source comes back from a backup"),
    "locks": Plot(_locks, about="the lock file is restored while a disk is prepared"),
    "full": Plot(_full, "small", alone=True, about="the storage is full, and something is to be removed"),
    "merges": Plot(_merges, alone=True, about="two removed snapshots; a merge is killed; the others run first"),
    "record_late": Plot(_record_late, about="fixes run while a record is away; then it comes back"),
    "host_dies": Plot(_host("host_dies"), alone=True, about="a host dies in its work, the other carries on, it boots"),
    "host_sleeps": Plot(_host("host_sleeps"), alone=True, about="a host loses its locks in its sleep, and wakes up"),
    **{f"damage_{what}".replace("-", "_"): Plot(_damage(what), about=f"damage: {what}") for what in DAMAGES},
}
