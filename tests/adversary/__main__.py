"""The adversary's command: `python -m tests.adversary --minutes 3 --seed 7`.

Exit code 1: something is wrong; 2: wrong usage, or it cannot be tried here."""

import argparse
import contextlib
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.adversary.doors.guests import OnLvm, OnNfs
from tests.adversary.doors.labs import LabByCommand
from tests.adversary.doors.sites import Here, Site
from tests.adversary.known import KNOWN
from tests.adversary.oracle.findings import CannotTry
from tests.adversary.plots import PLOTS
from tests.adversary.shrinking import shrink
from tests.adversary.stories import Played, Stage, Story

FORMATS = ("local", "nfs", "lvm")
PLAIN = "plain"  # ordinary work with kills, nobody from outside


def run(
    stage: Stage, *, seconds: float, seed: int, plots: list[str], shrink_s: float, stop: bool = True
) -> list[Played]:
    """Tell one story after another until the time is over; return those that show something wrong, shrunk."""
    deadline = time.monotonic() + seconds
    wrong, at = [], 0
    while time.monotonic() < deadline:
        plot = plots[at % len(plots)]
        number, at = seed + at, at + 1
        began = time.monotonic()
        try:
            played = stage.tell(number, "" if plot == PLAIN else plot)
        except CannotTry as reason:
            _say(f"seed {number} {plot}: cannot be tried here: {reason}")
            continue
        spent = f"{len(played.story.rounds)} rounds, {len(played.log)} commands, {time.monotonic() - began:.0f} s"
        verdict = f"WRONG {played.findings[0]}" if played.findings else "quiet"
        _say(f"seed {number} {plot}: {spent}: {verdict}")
        for note in played.noted:
            _say(f"  noted: {note}")
        if played.findings:
            shrunk = shrink(played, stage.replay, shrink_s) if shrink_s else played
            _say(report(shrunk))
            wrong.append(shrunk)
            if stop:
                break
    return wrong


def programme(seed: int, *, known: bool = False, lacks: frozenset[str] = frozenset()) -> list[str]:
    """Return what is told in turn: the plots in an order that the seed says, without what the site lacks and what is
    known unless asked for, and ordinary work before every second one."""
    plots = [plot for plot in PLOTS if plot not in lacks and (known or plot not in KNOWN)]
    random.Random(seed).shuffle(plots)
    return [name for at, plot in enumerate(plots) for name in ((PLAIN, plot) if at % 2 == 0 else (plot,))] or [PLAIN]


def report(played: Played) -> str:
    """Return what was found, the story, and the commands that ran, for a person."""
    lines = ["--- what is wrong", *(f"WRONG {finding}" for finding in played.findings)]
    lines += [
        f"--- story (seed {played.story.seed}, {played.story.plot or PLAIN}); --replay FILE plays it again",
        played.story.dump().rstrip(),
    ]
    lines += ["--- commands (start, duration, host, exit code)", *(str(done) for done in played.log)]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.adversary", description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0, help="how long new stories are begun")
    parser.add_argument("--seed", type=int, default=None, help="of the first story; the next has the next number")
    parser.add_argument("--only", nargs="+", metavar="PLOT", choices=[PLAIN, *PLOTS], help="these alone")
    parser.add_argument("--known", action="store_true", help="also what is known to be wrong and not yet mended")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="play a story that was kept")
    parser.add_argument("--times", type=int, default=1, help="how often a story is played again at most")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="where the story goes that shows something wrong")
    parser.add_argument("--go-on", action="store_true", help="do not stop at the first finding")
    parser.add_argument(
        "--shrink", type=float, default=120.0, metavar="SECONDS", help="how long a story is made smaller"
    )
    parser.add_argument("--format", default="local", choices=FORMATS, help="storage; but for local, in a lab")
    parser.add_argument("--command", metavar="FILE", help="another diskwright than that beside this Python")
    parser.add_argument("--list", action="store_true", help="list the plots and what is known")
    options = parser.parse_args(arguments)
    if options.list:
        for name, plot in PLOTS.items():
            print(f"{name:24} {plot.about}" + (f" [known: {KNOWN[name]}]" if name in KNOWN else ""))
        return 0
    command = options.command or shutil.which("diskwright", path=f"{Path(sys.executable).parent}")
    if not command:
        parser.error("diskwright is not installed beside this Python")
    try:
        wrong = _play(options, command)
    except CannotTry as reason:
        parser.error(str(reason))
    if wrong and options.keep:
        options.keep.write_text(wrong[0].story.dump())
    return 1 if wrong else 0


def _play(options: argparse.Namespace, command: str) -> list[Played]:
    seed = options.seed if options.seed is not None else time.time_ns() % 1_000_000
    with tempfile.TemporaryDirectory(prefix="adversary-") as name, _site(options.format, command, Path(name)) as site:
        stage = Stage(Path(name), site)
        if options.replay:
            return _replay(stage, Story.load(options.replay.read_text()), options.times)
        if lacking := site.lacks.intersection(options.only or ()):
            raise CannotTry(f"on {options.format} there is no {' '.join(sorted(lacking))}")
        names = options.only or programme(seed, known=options.known, lacks=site.lacks)
        _say(f"seed {seed}, {options.minutes:g} minutes on {options.format}: {' '.join(names)}")
        return run(
            stage,
            seconds=options.minutes * 60,
            seed=seed,
            plots=names,
            shrink_s=options.shrink,
            stop=not options.go_on,
        )


@contextlib.contextmanager
def _site(kind: str, command: str, directory: Path) -> Iterator[Site]:
    if kind == "local":
        yield Here(command)
        return
    with tempfile.TemporaryDirectory(prefix="advlab-") as own:
        lab = LabByCommand(command, Path(own), 2 if kind == "nfs" else 1, nfs=kind == "nfs")
        try:
            yield OnNfs(lab, directory, command) if kind == "nfs" else OnLvm(lab, directory, command)
        finally:
            lab.close()


def _replay(stage: Stage, story: Story, times: int) -> list[Played]:
    for _ in range(times):
        played = stage.replay(story)
        if played.findings:
            _say(report(played))
            return [played]
    _say(f"quiet, {times} times")
    return []


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
