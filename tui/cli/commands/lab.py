"""``diskwright lab``: hosts with real LVM and NFS on this machine, to try out, to train and to crash."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from tui.cli.arguments import Parser, UsageError, parse_size
from tui.cli.render import OutputClosed
from tui.cli.session import Handler, Session, require
from tui.text.printable import printable

if TYPE_CHECKING:
    from sim.lab.client import Client

WITH_HOST = ("run", "console", "kill", "freeze", "thaw", "cut", "mend", "boot", "shutdown")
TESTS = ("torture", "powercut")
ACTIONS = ("up", "status", *WITH_HOST, "down", *TESTS)
WRONG = 1
"""Exit code of a test that found something."""


def add_lab(parser: Parser) -> None:
    parser.usage = "diskwright lab ACTION [HOST] [options] [-- COMMAND ...]"
    parser.mixed = True
    parser.add_argument("action", choices=ACTIONS, metavar="ACTION", help=", ".join(ACTIONS))
    parser.add_argument("target", metavar="HOST", nargs="?", help="a host of the lab, as host-a")
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)  # only to say what they lack
    parser.add_argument("--dir", metavar="DIR", help="where the lab is (default: $DISKWRIGHT_LAB, or one per user)")
    up = parser.add_argument_group("up")
    up.add_argument("--hosts", metavar="N", type=int, default=2, help="how many (default: 2)")
    up.add_argument("--nfs", action="store_true", help="also an NFS server, mounted at /srv/nfs on every host")
    up.add_argument("--disk", metavar="SIZE", default="2G", help="size of every disk (default: 2G)")
    up.add_argument("--memory", metavar="SIZE", default="512M", help="of each host (default: 512M)")
    tests = parser.add_argument_group("torture and powercut: in a lab of their own")
    tests.add_argument("--seed", metavar="N", type=int, help="repeats the choices (default: another each time)")
    tests.add_argument("--rounds", metavar="N", type=int, default=20, help="torture: how many (default: 20)")
    tests.add_argument(
        "--format", choices=("nfs", "lvm", "local"), default="nfs", help="torture: of the repositories (default: nfs)"
    )
    tests.add_argument("--states", metavar="N", type=int, default=60, help="powercut: how many (default: 60)")
    tests.add_argument(
        "--on", choices=("ext4", "xfs", "lvm"), default="ext4", help="powercut: what is cut off (default: ext4)"
    )
    tests.add_argument(
        "--kind", choices=("micro", "verbs"), help="powercut: small sequences, or verbs and fixes (default: both)"
    )
    other = parser.add_argument_group("other actions")
    other.add_argument("-i", "--input", action="store_true", help="run: pass standard input on to the command")
    other.add_argument("--keep", action="store_true", help="down: leave disks and consoles for the next up")


def run_lab(session: Session, arguments: argparse.Namespace) -> int:
    """The exit code of ``run`` is that of the command."""
    from sim.lab.client import Client, default_directory

    action: str = arguments.action
    if (action in WITH_HOST) != (arguments.target is not None):
        about = f"{action} needs a host" if action in WITH_HOST else f"{action} is for the whole lab"
        raise UsageError(about, "See diskwright lab --help")
    if arguments.words and action == "run":
        command = " ".join(arguments.words)
        raise UsageError("the command has to stand behind --", f"diskwright lab run {arguments.target} -- {command}")
    if arguments.words:
        raise UsageError(f"{action} takes one host, not also {arguments.words[0]!r:.60}", "See diskwright lab --help")
    if arguments.command and action != "run":
        raise UsageError(f"only run takes a command, not {action}")
    if action in TESTS:
        return (_torture if action == "torture" else _powercut)(session, arguments)
    client = Client(arguments.dir or default_directory())
    if action == "up":
        return _up(session, client, arguments)
    if action == "run":
        return _run(client, arguments)
    if action == "console":
        text = client.console(arguments.target)
        session.out.document({"host": arguments.target, "console": text})
        session.out.line("\n".join(printable(line) for line in text.splitlines()))
        return 0
    if action == "status":
        return _status(session, client)
    if action == "down":
        client.down(arguments.keep)
        session.out.document({"directory": client.directory, "running": False})
        session.out.say("The lab has ended" + ("; its disks are kept." if arguments.keep else " and is deleted."))
        return 0
    answer = client.ask(action, arguments.target)
    session.out.document(answer)
    session.out.say(f"{printable(answer['host'])}: {_DONE[action]}.")
    return 0


_DONE = {
    "kill": "killed; boot it again with the same disks",
    "shutdown": "switched off in good order",
    "boot": "runs",
    "freeze": "frozen until thaw",
    "thaw": "goes on",
    "cut": "its network cable is pulled until mend",
    "mend": "its network cable is plugged in",
}


def _up(session: Session, client: Client, arguments: argparse.Namespace) -> int:
    session.out.say(f"Booting {arguments.hosts} hosts{' and an NFS server' if arguments.nfs else ''}…")
    memory = f"{max(parse_size(arguments.memory) >> 20, 1)}M"
    client.up(arguments.hosts, arguments.nfs, parse_size(arguments.disk), memory)
    _status(session, client)
    session.out.say("Next: diskwright lab run host-a -- vgcreate lab /dev/ubda")
    return 0


def _status(session: Session, client: Client) -> int:
    answer = client.ask("status")
    session.out.document({"directory": client.directory, **answer})
    session.out.table(("HOST", "STATE", "ADDRESS", "ROLE", "DISKS"), [_row(host) for host in answer["hosts"]])
    if answer["nfs"]:
        session.out.line(f"NFS: {answer['nfs']} is /srv/nfs on every host")
    return 0


def _row(host: dict[str, Any]) -> tuple[str, ...]:
    state = f"{host['state']}, cut" if host["cut"] else host["state"]
    disks = " ".join(f"/dev/ubd{chr(97 + number)}" for number in range(len(host["disks"])))
    return (host["name"], state, host["address"], host["role"], disks)


def _run(client: Client, arguments: argparse.Namespace) -> int:
    from sim.lab import wire

    if not arguments.command:
        raise UsageError("run needs a command", "diskwright lab run HOST -- COMMAND")
    targets = {wire.OUT: sys.stdout, wire.ERR: sys.stderr}

    def tell(kind: int, data: bytes) -> None:
        stream = targets[kind]
        try:
            binary = getattr(stream, "buffer", None)
            if binary is None:
                stream.write(data.decode("utf-8", "backslashreplace"))
            else:
                binary.write(data)
            stream.flush()
        except BrokenPipeError:
            raise OutputClosed from None

    feed = None
    if arguments.input:
        feed = sys.stdin.fileno() if sys.stdin else os.open(os.devnull, os.O_RDONLY)
    return client.run(arguments.target, arguments.command, tell, feed)


# -- tests


def _seed(arguments: argparse.Namespace) -> int:
    import random

    return int(arguments.seed) if arguments.seed is not None else random.SystemRandom().randrange(1 << 32)


def _torture(session: Session, arguments: argparse.Namespace) -> int:
    from sim.trials.torture.torture import torture

    seed = _seed(arguments)
    require(arguments.rounds > 0, "there must be at least one round")
    session.out.say(f"Torture of {arguments.format}, seed {seed}, {arguments.rounds} rounds; booting…")
    result = torture(arguments.format, arguments.rounds, seed, lambda line: session.out.say(printable(line)))
    session.out.document(result._asdict())
    for text in result.wrong:
        session.out.line(f"WRONG  {printable(text)}")
    session.out.line(
        f"seed {seed}: {result.rounds} rounds, {result.operations} operations, {result.acknowledged} acknowledged, "
        f"{result.deaths} deaths, {result.freezes} freezes, {result.contents} contents compared: "
        f"{'WRONG' if result.wrong else 'all as it must be'}"
    )
    return WRONG if result.wrong else 0


def _powercut(session: Session, arguments: argparse.Namespace) -> int:
    from sim.lab.cluster import Cluster
    from sim.lab.lab import Lab
    from sim.trials.powercut import KINDS, cut

    seed = _seed(arguments)
    require(arguments.states > 0, "there must be at least one state")
    session.out.say(f"Power cuts on {arguments.on}, seed {seed}; booting…")
    reports = []
    with Lab() as lab:
        cluster = Cluster(lab, ["host-a"], memory="768M")
        cluster.up()
        for kind in [arguments.kind] if arguments.kind else KINDS:
            session.out.say(f"Recording {kind}, then judging {arguments.states} states…")
            reports.append(
                cut(
                    cluster.hosts[0], kind, arguments.on, arguments.states, seed,
                    tell=lambda line: session.out.say(printable(line)),
                )
            )  # fmt: skip
    session.out.document({"seed": seed, "reports": [report._asdict() for report in reports]})
    for report in reports:
        for text in report.wrong:
            session.out.line(f"WRONG  {printable(text)}")
        found = f"{len(report.wrong)} WRONG" if report.wrong else "all as it must be"
        if report.repaired:
            found += f" ({report.repaired} groups that LVM could not read were repaired first)"
        session.out.line(
            f"seed {seed}: {report.kind} on {report.on}, {report.states} states in {report.seconds:.0f} s: {found}"
        )
    return WRONG if any(report.wrong for report in reports) else 0


HANDLERS = {
    "lab": Handler(add_lab, run_lab),
}
