"""Rounds of live snapshots, resizes and merges on a real qemu-storage-daemon; somebody is killed at a random moment.

``python -m tests.live.rounds --rounds 1000 --seed 7`` (``make live``). In each round a guest writes numbered blocks,
one at a time, each flushed; a snapshot is taken meanwhile; the process of the verb, the machine, both, or nobody is
killed. Then the machine goes on or is restarted, and is killed in the end. Each sixth round merges a removed snapshot
into the disk instead; each sixth one merges one into a snapshot above it, below the disk; each sixth one gives the disk
another volume; each sixth one copies the disk into another repository, and another host may go on with that; each sixth
one makes the disk longer, beside a machine whose guest comes after that: NBD bears no other length. It is judged

* that the disk shows the state after the last acknowledged write, or after the one that was under way,
* that a snapshot that can be seen shows one state of a moment while the verb ran, and never another one later,
* that a snapshot into which another one is merged shows what it showed before,
* that a guest whose disk gets another volume goes on, whoever dies but its machine,
* that a copy shows one state of a moment while it was made, and that one which was begun can be finished,
* that the disk has its old length or the new one, and in the end the one that its machine had,
* that all this stays so when every fix that is offered has run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from engine.api import Engine
from engine.data.model import Fix
from engine.errors import Conflict, DiskwrightError, ImageBusy, StaleFix
from engine.host import merging
from engine.triage import rules
from tests.live import places
from tests.live.machine import BLOCK, Guest, Machine, numbers, state_after

BLOCKS = 8
FURTHER = 1 << 19
"""Where nothing is written but by the first machine of a disk."""
NOBODY, VERB, MACHINE, BOTH = "nobody", "verb", "machine", "both"
_PATIENCE_S = 60.0
_Answer = TypeVar("_Answer")


def patiently(call: Callable[[], _Answer]) -> _Answer:
    """Once more as long as a holder has yet to find out that its parent died, or a watchdog has done it meanwhile."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return call()
        except (ImageBusy, StaleFix):
            assert time.monotonic() < deadline
            time.sleep(0.05)


class Rounds:
    """Rounds of live snapshots; each leaves its repositories empty."""

    def __init__(
        self, folder: Path, seed: int, place: places.Place = places.LOCAL, world: places.World | None = None
    ) -> None:
        """``world``: of that place, else one of its own."""
        self._random = random.Random(seed)
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._place = place
        self._world = world if world is not None else place.world(folder / "world")
        self._longest_s = place.first_s
        self.counted: Counter[str] = Counter()

    def play(self) -> list[str]:
        """Play one round and say what went wrong."""
        engine = self._world.engine("host-a")
        strategy = self._random.choice(self._strategies())
        disk = engine.create_virtual_disk("a", self._place.size, options={"strategy": strategy})
        dies = self._random.choice([NOBODY, VERB, VERB, MACHINE, BOTH])
        try:
            problems = self._played(engine, disk, dies)
        finally:
            with contextlib.suppress(DiskwrightError):
                engine.teardown_image("a", disk)
            engine.close()
        return [f"{dies}, {strategy}: {problem}" for problem in problems]

    def _strategies(self) -> tuple[str, ...]:
        return ("space", "performance")

    def _played(self, engine: Engine, disk: str, dies: str) -> list[str]:
        entry = engine.prepare_image("a", disk, monitor=f"qmp:{self._folder / 'qmp'}")
        machine = Machine(self._folder, entry.path, entry.format)
        guest = Guest(machine, BLOCKS, 1)
        guest.wait_for(BLOCKS)
        before = guest.acknowledged
        acknowledged = self._acknowledged(lambda engine: engine.create_snapshot("a", disk), machine, dies)
        guest.look()
        after = guest.issued if acknowledged else None
        self.counted[f"{dies}: {'acknowledged' if acknowledged else 'not acknowledged'}"] += 1
        guest.wait_for(guest.acknowledged + 2)
        if dies == VERB and self._random.random() < 0.5:  # the same verb goes on, beside a machine without a holder
            if engine.list_unheld() and self._random.random() < 0.5:
                patiently(lambda: engine.prepare_image("a", disk, take_over=True))
            patiently(lambda: engine.create_snapshot("a", disk))
            after = None
            self.counted["went on"] += 1
            guest.wait_for(guest.acknowledged + 2)
        machine.kill()
        guest.end()
        problems = self._judge(engine, disk, before, after, guest)
        seen = self._snapshots(engine)
        for _ in engine.list_prepared():
            engine.teardown_image("a", disk)
        self._fix_all(engine)
        problems += self._judge(engine, disk, before, after, guest)
        if self._snapshots(engine) != seen:
            problems.append("a snapshot shows something else than before the fixes, or is gone")
        if left := [image.id for image in engine.inspect_repository("a").images if image.hidden]:
            problems.append(f"hidden data stays: {left}")
        for image in [disk, *seen]:
            engine.remove_image("a", image)
        self._fix_all(engine)
        return problems

    def _acknowledged(self, verb: Callable[[Engine], object], machine: Machine, dies: str) -> bool:
        """Whether a verb was acknowledged, in a process of its own."""
        start = time.monotonic()
        child = os.fork()
        if not child:
            try:
                verb(self._world.engine("host-a"))
                os._exit(0)
            except BaseException:  # noqa: BLE001 - nothing of the parent goes on in it
                if dies == NOBODY:
                    traceback.print_exc()
            os._exit(1)
        if dies != NOBODY:
            time.sleep(self._random.random() * self._longest_s * 1.1)
            if dies in (MACHINE, BOTH):
                machine.kill()
            if dies in (VERB, BOTH):
                os.kill(child, signal.SIGKILL)
        done = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        if dies == NOBODY:
            self._longest_s = time.monotonic() - start
        assert done or dies != NOBODY, "nobody died, and nothing was done"
        return done

    @staticmethod
    def _fix_all(engine: Engine, repository: str = "a") -> None:
        """Run what is offered until nothing of it is left; each once."""
        done: set[tuple[str, str]] = set()
        while True:
            offered = [fix for fix in engine.check_storage_repository(repository) if not fix.waits_for]
            fresh = [fix for fix in offered if (fix.rule, fix.target) not in done]
            if not fresh:
                return
            done.add((fresh[0].rule, fresh[0].target))
            with contextlib.suppress(DiskwrightError):
                engine.run_fix_here(repository, fresh[0])

    def _shown(self, engine: Engine, image: str, start: int = 0, repository: str = "a") -> list[int]:
        out = self._folder / "out.raw"
        patiently(lambda: engine.export_image(repository, image, str(out), "raw"))
        data = out.read_bytes()[start : start + BLOCKS * BLOCK]
        out.unlink()
        return numbers(data)

    def _snapshots(self, engine: Engine) -> dict[str, list[int]]:
        images = engine.inspect_repository("a").images
        shown = [one for one in images if not (one.mutable or one.hidden or one.removed)]
        return {one.id: self._shown(engine, one.id) for one in shown}

    def _judge_disk(self, engine: Engine, disk: str, guest: Guest) -> list[str]:
        shown = self._shown_of_disk(engine, disk)
        if shown in [state_after(number, BLOCKS) for number in range(guest.acknowledged, guest.issued + 1)]:
            return []
        return [f"the disk shows {shown}; {guest.acknowledged} writes were acknowledged"]

    def _judge(self, engine: Engine, disk: str, before: int, after: int | None, guest: Guest) -> list[str]:
        problems = self._judge_disk(engine, disk, guest)
        for image, found in self._snapshots(engine).items():
            moment = max(found)
            if found != state_after(moment, BLOCKS) or moment < before:
                problems.append(f"snapshot {image} shows {found}, after {before} acknowledged writes")
            if after is not None and moment > after:
                problems.append(f"snapshot {image} shows {found}, and was acknowledged before write {after + 1}")
        if after is not None and not self._snapshots(engine):
            problems.append("a snapshot was acknowledged, and is not there")
        return problems

    def _shown_of_disk(self, engine: Engine, disk: str) -> list[int]:
        for _ in engine.list_prepared():
            engine.teardown_image("a", disk)
        return self._shown(engine, disk)


class Resizes(Rounds):
    """Rounds of live resizes."""

    def _strategies(self) -> tuple[str, ...]:
        return self._place.grown

    def _played(self, engine: Engine, disk: str, dies: str) -> list[str]:
        entry = engine.prepare_image("a", disk, monitor=f"qmp:{self._folder / 'qmp'}")
        machine = Machine(self._folder, entry.path, entry.format, guest=False)
        acknowledged = self._acknowledged(
            lambda engine: engine.resize_disk("a", disk, self._place.longer), machine, dies
        )
        self.counted[f"longer, {dies}: {'acknowledged' if acknowledged else 'not acknowledged'}"] += 1
        if dies == VERB and self._random.random() < 0.5:
            patiently(lambda: engine.resize_disk("a", disk, self._place.longer))
            acknowledged = True
            self.counted["longer, went on"] += 1
        if dies in (MACHINE, BOTH):
            for _ in engine.list_prepared():
                engine.teardown_image("a", disk)
            entry = patiently(lambda: engine.prepare_image("a", disk))
            machine = Machine(self._folder, entry.path, entry.format, guest=False)
        size = machine.size()
        start = size // BLOCK * BLOCK - BLOCKS * BLOCK
        machine.let_a_guest_in()
        guest = Guest(machine, BLOCKS, 1, start)
        guest.wait_for(BLOCKS)
        machine.kill()
        guest.end()
        recorded = engine.get_image_status("a", disk).size_bytes
        problems = (
            []
            if recorded in ((self._place.longer,) if acknowledged else (self._place.size, self._place.longer))
            else [f"it has {recorded} bytes"]
        )
        for _ in engine.list_prepared():
            engine.teardown_image("a", disk)
        self._fix_all(engine)
        if (recorded := engine.get_image_status("a", disk).size_bytes) != size or (
            acknowledged and size != self._place.longer
        ):
            problems.append(f"its machine had {size} bytes, and it has {recorded}")
        shown = self._shown(engine, disk, start)
        if shown not in [state_after(number, BLOCKS) for number in range(guest.acknowledged, guest.issued + 1)]:
            problems.append(f"the disk shows {shown}; {guest.acknowledged} writes were acknowledged")
        engine.remove_image("a", disk)
        self._fix_all(engine)
        return problems


class Merges(Rounds):
    """Rounds of live merges."""

    def _played(self, engine: Engine, disk: str, dies: str) -> list[str]:
        engine.set_strategy("a", disk, "space")
        entry = engine.prepare_image("a", disk, monitor=f"qmp:{self._folder / 'qmp'}")
        machine = Machine(self._folder, entry.path, entry.format)
        guest = Guest(machine, BLOCKS, 1)
        guest.wait_for(BLOCKS)
        snapshot = engine.create_snapshot("a", disk)
        guest.wait_for(guest.acknowledged + 3)
        engine.remove_image("a", snapshot)
        acknowledged = self._acknowledged(self.merge, machine, dies)
        problems = []
        if acknowledged and dies in (NOBODY, VERB):
            self._fix_all(engine)
            if len(engine.inspect_repository("a").images) != 1:
                problems.append("what was merged stays while the machine runs")
        self.counted[f"merge, {dies}: {'acknowledged' if acknowledged else 'not acknowledged'}"] += 1
        self._live_on(engine, disk, guest, dies, "merge")
        machine.kill()
        guest.end()
        problems += self._judge(engine, disk, 0, None, guest)
        self._fix_all(engine)
        problems += self._judge(engine, disk, 0, None, guest)
        if len(left := engine.inspect_repository("a").images) != 1:
            problems.append(f"there is more than the disk: {[image.id for image in left]}")
        engine.remove_image("a", disk)
        self._fix_all(engine)
        return problems

    def _live_on(self, engine: Engine, disk: str, guest: Guest, dies: str, work: str) -> None:
        """Let the guest write on; and where the verb has died now and then go on, with a new holder or without one."""
        guest.wait_for(guest.acknowledged + 2)
        if dies == VERB and self._random.random() < 0.5:
            if engine.list_unheld() and self._random.random() < 0.5:
                patiently(lambda: engine.prepare_image("a", disk, take_over=True))
            patiently(lambda: self.merge(engine))
            self.counted[f"{work}, went on"] += 1
            guest.wait_for(guest.acknowledged + 2)

    @staticmethod
    def merge(engine: Engine) -> None:
        for fix in engine.check_storage_repository("a"):
            if fix.rule == rules.M_CHAIN:
                engine.run_fix_here("a", fix)


class MergesFurtherDown(Merges):
    """Rounds of live merges of two layers that the disk stands on; the upper one is a snapshot that stays."""

    def _played(self, engine: Engine, disk: str, dies: str) -> list[str]:
        engine.set_strategy("a", disk, "space")
        lower, shown = self._written_to(engine, disk, FURTHER)
        upper, stays = self._written_to(engine, disk, 0)
        entry = engine.prepare_image("a", disk, monitor=f"qmp:{self._folder / 'qmp'}")
        machine = Machine(self._folder, entry.path, entry.format)
        guest = Guest(machine, BLOCKS, 100)
        guest.wait_for(99 + BLOCKS)
        engine.remove_image("a", lower)
        acknowledged = self._acknowledged(self.merge, machine, dies)
        self.counted[f"merge further down, {dies}: {'acknowledged' if acknowledged else 'not acknowledged'}"] += 1
        self._live_on(engine, disk, guest, dies, "merge further down")
        machine.kill()
        guest.end()
        problems = []
        for _ in range(2):
            problems += self._judge_disk(engine, disk, guest)
            for image, start, wanted in ((upper, 0, stays), (upper, FURTHER, shown), (disk, FURTHER, shown)):
                if (found := self._shown(engine, image, start)) != wanted:
                    problems.append(f"{image} shows {found} at {start}, and showed {wanted}")
            self._fix_all(engine)
        if len(left := engine.inspect_repository("a").images) != 2:
            problems.append(f"there is more than the disk and its snapshot: {[image.id for image in left]}")
        for image in (disk, upper):
            engine.remove_image("a", image)
            self._fix_all(engine)
        return problems

    def _written_to(self, engine: Engine, disk: str, start: int) -> tuple[str, list[int]]:
        """Have a machine write there; return a snapshot made at rest, which the next machine can open again to write
        to it, and what it shows there."""
        entry = engine.prepare_image("a", disk)
        machine = Machine(self._folder, entry.path, entry.format)
        guest = Guest(machine, BLOCKS, 1, start)
        guest.wait_for(BLOCKS)
        machine.kill()
        guest.end()
        engine.teardown_image("a", disk)
        snapshot = engine.create_snapshot("a", disk)
        return snapshot, self._shown(engine, snapshot, start)


class Rebuilds(Rounds):
    """Rounds of a disk that gets another volume while its machine runs, in one directory."""

    def _played(self, engine: Engine, disk: str, dies: str) -> list[str]:
        below = engine.create_snapshot("a", disk) if self._random.random() < 0.5 else None
        strategy = engine.get_image_status("a", disk).strategy
        engine.set_strategy("a", disk, "performance" if below or strategy != "performance" else "space")
        entry = engine.prepare_image("a", disk, monitor=f"qmp:{self._folder / 'qmp'}")
        machine = Machine(self._folder, entry.path, entry.format)
        guest = Guest(machine, BLOCKS, 1)
        guest.wait_for(BLOCKS)
        acknowledged = self._acknowledged(lambda engine: self.rebuild(engine, True), machine, dies)
        self.counted[f"rebuild, {dies}: {'acknowledged' if acknowledged else 'not acknowledged'}"] += 1
        problems = self._goes_on(guest) if dies in (NOBODY, VERB) else []
        if dies == VERB and self._random.random() < 0.5:
            with contextlib.suppress(Conflict):  # its watchdog has
                if engine.list_unheld():
                    patiently(lambda: engine.prepare_image("a", disk, take_over=True))
            patiently(lambda: self.rebuild(engine))
            self.counted["rebuild, went on"] += 1
            acknowledged = True
            problems += self._goes_on(guest)
        machine.kill()
        guest.end()
        problems += self._judge_disk(engine, disk, guest)
        if acknowledged and self._rebuilds(engine):
            problems.append("it was acknowledged, and is to be done still")
        self._fix_all(engine)
        problems += self._judge_disk(engine, disk, guest)
        if (left := engine.check_storage_repository("a")) or len(engine.inspect_repository("a").images) > 1 + bool(
            below
        ):
            problems.append(f"something is left: {[fix.rule for fix in left]}")
        if below and max(self._shown(engine, below)) > 0:
            problems.append("the snapshot below shows what was written later")
        for image in (disk, below):
            if image is not None:
                engine.remove_image("a", image)
        self._fix_all(engine)
        return problems

    @staticmethod
    def _goes_on(guest: Guest) -> list[str]:
        guest.look()
        wanted = guest.acknowledged + 3
        guest.wait_for(wanted)
        return [] if guest.acknowledged >= wanted else ["the guest waits for nobody"]

    @staticmethod
    def _rebuilds(engine: Engine) -> list[Fix]:
        return [fix for fix in engine.check_storage_repository("a") if fix.rule in rules.BESIDE]

    def rebuild(self, engine: Engine, some: bool = False) -> None:
        fixes = self._rebuilds(engine)
        assert fixes or not some, "none is offered, as its machine was dead before"
        for fix in fixes:
            engine.run_fix_here("a", fix)


class Copies(Rounds):
    """Rounds of copies of a running disk."""

    def _played(self, engine: Engine, disk: str, dies: str) -> list[str]:
        entry = engine.prepare_image("a", disk, monitor=f"qmp:{self._folder / 'qmp'}")
        machine = Machine(self._folder, entry.path, entry.format)
        guest = Guest(machine, BLOCKS, 1)
        guest.wait_for(BLOCKS)
        earlier = self._random.random() < 0.5  # then what is kept for the second one is merged by the machine
        if earlier:
            self._copy(engine, disk)
            guest.wait_for(guest.acknowledged + 3)
        before = guest.acknowledged
        acknowledged = self._acknowledged(lambda engine: self._copy(engine, disk), machine, dies)
        guest.look()
        after = guest.issued
        self.counted[f"copy, {dies}: {'acknowledged' if acknowledged else 'not acknowledged'}"] += 1
        guest.wait_for(guest.acknowledged + 2)
        if dies == VERB and self._random.random() < 0.5:  # another host goes on, beside the machine
            other = self._world.engine(self._place.other)
            patiently(lambda: self._fix_all(other, "b"))
            other.close()
            self.counted["copy, went on"] += 1
            guest.wait_for(guest.acknowledged + 2)
        machine.kill()
        guest.end()
        problems = self._judge(engine, disk, before, None, guest)
        self._fix_all(engine, "b")
        self._fix_all(engine)
        problems += self._judge(engine, disk, before, None, guest)
        copies = engine.inspect_repository("b").images
        if len(copies) not in (earlier + acknowledged, earlier + 1):
            problems.append(f"there are {len(copies)} copies")
        moments = []
        for image in copies:
            found = self._shown(engine, image.id, repository="b")
            moments.append(max(found))
            if found != state_after(max(found), BLOCKS) or max(found) > after:
                problems.append(f"a copy shows {found}, of writes up to {after}")
        if sum(moment < before for moment in moments) != earlier:
            problems.append(f"the copies are of {moments}, the last of which began after {before}")
        if len(left := engine.inspect_repository("a").images) != 1:
            problems.append(f"there is more than the disk: {[image.id for image in left]}")
        for repository, there in [("a", disk), *(("b", image.id) for image in copies)]:
            engine.remove_image(repository, there)
            self._fix_all(engine, repository)
        return problems

    @staticmethod
    def _copy(engine: Engine, disk: str) -> None:
        """As its task does it, in this process."""
        engine.copy_image("b", disk, options={"auto_fix": False})
        for fix in engine.check_storage_repository("b"):
            kept = merging.kept_for(engine.context, engine.context.repository("b"), fix)
            engine.run_fix_here("b", fix)
            if kept is not None:
                with contextlib.suppress(DiskwrightError):
                    merging.after_copy(engine.context, engine.state, *kept)


_KINDS = (Rounds, Resizes, Merges, MergesFurtherDown, Rebuilds, Copies)


def main(kinds_of_rounds: Sequence[type[Rounds]] = _KINDS) -> int:
    """Play as many rounds of these kinds as were asked for, and tell what went wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=1000)
    names = [kind.__name__ for kind in kinds_of_rounds]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--nfs", metavar="SERVER", help="on its export, in a guest of the lab")
    parser.add_argument("--lvm", metavar="GROUP", help="in groups of that name on disks of a guest of the lab")
    given = parser.parse_args()
    wrong, start = 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place = places.LOCAL
        if given.nfs:
            place = places.on_nfs(given.nfs, Path(folder).name)
        elif given.lvm:
            place = places.on_lvm(given.lvm)
        world = place.world(Path(folder, "world"))
        chosen = [kind for kind in kinds_of_rounds if kind.__name__ in given.only]
        kinds = [kind(Path(folder, kind.__name__), given.seed, place, world) for kind in chosen]
        for number in range(1, given.rounds + 1):
            for problem in kinds[number % len(kinds)].play():
                print(f"round {number} of seed {given.seed}: {problem}", flush=True)
                wrong += 1
            if number % (50 if place is places.LOCAL else 5) == 0:
                print(f"{number} rounds, {wrong} problems, {time.monotonic() - start:.0f} s", flush=True)
        places.leave(place, world)
    counted = sum((kind.counted for kind in kinds), Counter[str]())
    print(f"seed {given.seed}: {given.rounds} rounds, {wrong} problems; {dict(sorted(counted.items()))}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
