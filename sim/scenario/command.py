"""``diskwright sim run``: plays scenario files and tells what came of them."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from engine.errors import NotFound, from_os_error
from sim.arguments import Parser
from sim.scenario.language import parse
from sim.scenario.language.fields import BACKENDS
from sim.scenario.language.model import Scenario
from sim.scenario.language.source import ScenarioError
from sim.scenario.play.play import play
from sim.scenario.report import text
from sim.scenario.report.outcome import PASSED, VIOLATED, WRONG, Verdict

PROGRAM = "diskwright sim run"
EXIT_PASSED, EXIT_VIOLATED, EXIT_WRONG, EXIT_NOT_PLAYED = 0, 1, 2, 3
EXIT_CODES = f"""\
exit codes
  {EXIT_PASSED}  everything that can be played here passed (and something was played)
  {EXIT_VIOLATED}  an expectation was violated
  {EXIT_WRONG}  a scenario is wrong: a typo, an unknown verb, a step that cannot be; also wrong usage
  {EXIT_NOT_PLAYED}  nothing was played: all of it needs another backend
A wrong scenario comes before a violated one.
"""
_ENDINGS = (".yaml", ".yml")
_SHIPPED = "scenarios"
"""What paths to scenarios that come with the program begin with, wherever one is."""


def make_parser() -> Parser:
    """What the command understands."""
    parser = Parser(PROGRAM, "Play scenario files (scenarios/README.md describes them) on the engine.", EXIT_CODES)
    parser.add_argument(
        "paths",
        metavar="FILE|DIR",
        nargs="+",
        help="scenarios; of a directory all *.yaml below it; scenarios/…: those that come with the program, too",
    )
    parser.add_argument("--backend", choices=BACKENDS, default="sim", help="default: sim")
    parser.add_argument("--junit", metavar="OUT.xml", help="write JUnit XML")
    parser.add_argument("--trace", metavar="OUT.jsonl", help="write every event, with all effects, one JSON per line")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of ids and of what is left to chance")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("-q", "--quiet", action="store_true", help="verdicts only")
    parser.add_argument("-v", "--verbose", action="store_true", help="also the numbered effects of each step")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run it; returns the exit code. DiskwrightError: wrong usage, or something that this machine lacks."""
    try:
        arguments = make_parser().parse_args(list(argv))
    except SystemExit as done:  # --help
        return int(done.code or 0)
    verdicts = [_one(path, arguments) for path in _files(arguments.paths)]
    _write_results(arguments, verdicts)
    if arguments.json:
        sys.stdout.write(json.dumps(text.as_json(verdicts), indent=2) + "\n")
    elif len(verdicts) > 1:
        sys.stdout.write(text.summary(verdicts) + "\n")
    sys.stdout.flush()
    return _exit_code(verdicts)


def _exit_code(verdicts: Sequence[Verdict]) -> int:
    results = {verdict.result for verdict in verdicts}
    if WRONG in results:
        return EXIT_WRONG
    if VIOLATED in results:
        return EXIT_VIOLATED
    return EXIT_PASSED if PASSED in results else EXIT_NOT_PLAYED


def _files(paths: Sequence[str]) -> list[str]:
    """The scenario files, in order; NotFound for a path that is not there or a directory without any."""
    found: list[str] = []
    for path in map(_place, paths):
        if not os.path.isdir(path):
            found.append(path)
            continue
        below = sorted(
            os.path.join(folder, name)
            for folder, _, names in os.walk(path)
            for name in names
            if name.endswith(_ENDINGS)
        )
        if not below:
            raise NotFound(f"there is no scenario (*.yaml) in {path!r:.200}", "Name another directory, or a file")
        found += below
    return found


def _place(path: str) -> str:
    """Where a path leads: what is not there may be one of the scenarios that come with the program."""
    top, _, rest = path.partition("/")
    if top != _SHIPPED or os.path.lexists(path):
        return path
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for folder in (package, os.path.dirname(package)):  # of a wheel, of a checkout
        shipped = os.path.join(folder, _SHIPPED, rest)
        if os.path.exists(shipped):
            return os.path.normpath(shipped)
    return path


def _one(path: str, arguments: argparse.Namespace) -> Verdict:
    out = sys.stderr if arguments.json else sys.stdout
    called: dict[str, str] = {}

    def tell(event: dict[str, Any]) -> None:
        if not arguments.quiet:
            for line in text.event_lines(event, called, arguments.verbose):
                out.write(f"{line}\n")

    try:
        scenario: Scenario = parse.load(path)
    except ScenarioError as error:
        verdict = Verdict(path, os.path.basename(path), arguments.backend, WRONG, error.line, error.message)
    else:
        if not arguments.quiet:
            out.write(text.printable(f"{path}: {scenario.title}") + "\n")
        record = arguments.trace is not None
        verdict = play(scenario, arguments.backend, arguments.seed, tell, called=called, record=record)
    out.write(text.verdict_line(verdict) + "\n")
    return verdict


def _write_results(arguments: argparse.Namespace, verdicts: Sequence[Verdict]) -> None:
    wanted = ((arguments.junit, text.junit), (arguments.trace, text.trace))
    for path, tell in wanted:
        if path:
            try:
                with open(path, "wb") as stream:
                    stream.write(tell(verdicts))
            except (OSError, ValueError) as error:
                raise from_os_error(
                    error if isinstance(error, OSError) else OSError(str(error)), f"write {path!r:.200}"
                ) from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
