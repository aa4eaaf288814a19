"""``diskwright sim fuzz``: random verbs of several hosts, random schedules, random faults; then peace.

One seed is one run: some rounds, in each of which two or three hosts act at once (schedules by priorities,
as PCT has it) while calls fail, processes are killed or frozen, clocks jump and the power goes; after each
round the storage is settled or its power is cut. What may then be found is computed by the reference
model, and compared. At the end faults stop: one host must bring everything in order, in bounded steps. What the hosts
share is a directory, one on a server (``--world nfs``), or a volume group on LVM (``--world lvm``: of one host, whose
processes act at once; ``--world lvm-shared``: of all, see ``sim.explore.random.shared``; ``lvm-watched``: of all, with
machines and watchdogs; ``lvm-operated``: of one host, beside whom somebody works with LVM's tools). With ``--world
versions`` they share a directory, and one has an older program than the others; so with ``versions-nfs`` and
``versions-lvm-shared``, and with ``versions-lvm`` the program of the one host is another one in some rounds. With
``groups`` and ``groups-nfs`` they often freeze several disks at one moment.

Everything that is left to chance comes from one tape, so the same seed gives the same trace. Exit
codes: 0 nothing found, 1 a violation, 2 a wrong request.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence

from engine.errors import BadRequest, DiskwrightError
from sim.arguments import Parser
from sim.explore.random.group_operator import OperatedGroupRun
from sim.explore.random.groups import GroupsRun, RemoteGroupsRun
from sim.explore.random.rounds import ROUNDS, RandomRun, RemoteRun, RunResult, VolumeGroupRun
from sim.explore.random.shared import SharedRun, WatchedRun
from sim.explore.random.versions import GroupVersionsRun, RemoteVersionsRun, SharedVersionsRun, VersionsRun
from sim.hosts.crash import Crashed
from sim.hosts.tape import Tape

COMMAND = "diskwright sim fuzz"
WORLDS: dict[str, type[RandomRun]] = {
    "files": RandomRun, "nfs": RemoteRun, "lvm": VolumeGroupRun, "lvm-shared": SharedRun, "lvm-watched": WatchedRun,
    "lvm-operated": OperatedGroupRun, "groups": GroupsRun, "groups-nfs": RemoteGroupsRun, "versions": VersionsRun,
    "versions-nfs": RemoteVersionsRun, "versions-lvm": GroupVersionsRun, "versions-lvm-shared": SharedVersionsRun,
}  # fmt: skip


def fuzz(seed: int, tape: Tape | None = None, rounds: int = ROUNDS, world: str = "files") -> RunResult:
    """Run one seed, or one recorded tape, in one of the ``WORLDS``."""
    tape = tape if tape is not None else Tape.seeded(seed)
    run = WORLDS[world](tape, rounds)
    try:
        problems = run.play()
    except (AssertionError, DiskwrightError, Crashed, OSError) as error:
        problems = [f"{type(error).__name__}: {error}"]
    lines = run.world.trace.lines
    return RunResult(seed, tuple(problems), tuple(run.told), run.world.trace.digest, len(lines), tuple(tape.values))


def shrunk(outcome: RunResult, seconds: float = 20.0, world: str = "files") -> RunResult:
    """A failure from a tape with fewer choices that are not 0."""
    deadline = time.monotonic() + seconds
    best = outcome
    step = max(1, len(best.tape) // 2)
    while step and time.monotonic() < deadline:
        position = 0
        while position < len(best.tape) and time.monotonic() < deadline:
            part = best.tape[position : position + step]
            if any(part):
                tried = (*best.tape[:position], *(0,) * len(part), *best.tape[position + step :])
                found = fuzz(outcome.seed, Tape(tried), world=world)
                if found.problems and len(found.tape) <= len(best.tape):
                    best = found
            position += step
        step //= 2
    return best


def main(argv: Sequence[str]) -> int:
    """Entry point of the command."""
    try:
        options = make_parser().parse_args(argv)
    except SystemExit as done:  # --help
        return int(done.code or 0)
    if not options.replay:
        return _fuzz_on(options)
    try:
        with open(options.replay, encoding="utf-8") as stream:
            data = json.load(stream)
        tape = Tape([int(value) for value in data["tape"]])
        outcome = fuzz(int(data["seed"]), tape, world=str(data.get("world", "files")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadRequest(f"{options.replay!r:.200} is no saved run: {error}", f"{COMMAND} saves one") from None
    _tell(options, outcome, *_lines(outcome))
    return 1 if outcome.problems else 0


def _fuzz_on(options: argparse.Namespace) -> int:
    started, seed, steps = time.monotonic(), options.seed, 0
    while time.monotonic() - started < options.seconds:
        outcome = fuzz(seed, world=options.world)
        steps += outcome.steps
        if outcome.problems:
            small = shrunk(outcome, world=options.world)
            name = options.save or f"fuzz-{seed}.json"
            with open(name, "w", encoding="utf-8") as stream:
                saved = {"seed": seed, "world": options.world, "tape": small.tape, "problems": small.problems}
                json.dump(saved, stream)
            _tell(options, small, *_lines(small), f"{COMMAND} --replay {name}")
            return 1
        if options.verbose and not options.json:
            _say(f"seed {seed}: {outcome.steps} steps, trace {outcome.digest}")
        seed += 1
    spent = time.monotonic() - started
    _tell(options, None, f"seeds {options.seed} to {seed - 1}: {steps} steps in {spent:.1f} s, nothing found")
    return 0


def _tell(options: argparse.Namespace, outcome: RunResult | None, *lines: str) -> None:
    if options.json:
        found = [] if outcome is None else list(outcome.problems)
        _say(json.dumps({"problems": found, "told": lines}, indent=1))
    else:
        _say(*lines)


def make_parser() -> Parser:
    """What the command understands."""
    parser = Parser(
        COMMAND,
        "Random verbs of several hosts under random schedules and faults, then recovery.",
        "exit codes: 0 nothing found, 1 a violation (the run is saved, and shrunk), 2 wrong usage",
    )
    parser.add_argument("--seconds", type=float, default=60.0, metavar="N", help="how long (default: 60)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="the first seed (default: 1)")
    parser.add_argument("--world", choices=tuple(WORLDS), default="files", help="what the hosts share (default: files)")
    parser.add_argument("--save", metavar="FILE", help="where a failing run goes (default: fuzz-SEED.json)")
    parser.add_argument("--replay", metavar="FILE", help="run a saved one again")
    parser.add_argument("--verbose", action="store_true", help="a line for each seed")
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    return parser


def _lines(outcome: RunResult) -> list[str]:
    return [*outcome.told, *(f"VIOLATION {problem}" for problem in outcome.problems), f"trace {outcome.digest}"]


def _say(*lines: str) -> None:
    for line in lines:
        print(line, flush=True)  # noqa: T201 - this is a command


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
