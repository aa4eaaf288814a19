"""Commands about whole repositories: create, connect, list, constraints, the SRM role."""

from __future__ import annotations

import argparse

from engine.errors import DiskwrightError
from tui.cli.arguments import Parser, UsageError, key_values
from tui.cli.session import Handler, Session
from tui.text.amounts import compact
from tui.text.printable import printable, quoted
from tui.work.places import absolute

_FORMAT_HELP = "such as localfs-1.0, nfs-1.0, lvm-1.0"
_PARAMETERS_HELP = (
    "connection parameters; localfs takes path=DIRECTORY [one_host=yes]; nfs takes server=HOST export=/PATH "
    "[directory=BELOW] [options=timeo=600,...], or path=DIRECTORY in an NFSv4 mount of yours; "
    "lvm takes volume_group=NAME, and to make "
    "that group devices=/dev/sdb,/dev/sdc or files=/srv/one.img,/srv/two.img file_bytes=N [sector_bytes=4096]; give "
    "files again to connect; shared=true hosts=8 for a group that up to so many hosts use at once"
)


def add_create_repo(parser: Parser) -> None:
    parser.mixed = True
    parser.add_argument("format", metavar="FORMAT", help=_FORMAT_HELP)
    parser.add_argument("parameters", metavar="KEY=VALUE", nargs="*", help=_PARAMETERS_HELP)


def run_create_repo(session: Session, arguments: argparse.Namespace) -> int:
    given = absolute(key_values(arguments.parameters, "parameter"))
    session.engine.create_repository(arguments.format, given)
    session.out.document({"format": arguments.format, "parameters": given})
    words = " ".join(quoted(f"{key}={value}") for key, value in given.items())
    session.out.say(f"An empty repository was created. Next: diskwright connect NAME {arguments.format} {words}")
    return 0


def add_connect(parser: Parser) -> None:
    parser.mixed = True
    parser.add_argument("repo", metavar="REPO", help="the name it will have on this host")
    parser.add_argument("format", metavar="FORMAT", help=_FORMAT_HELP)
    parser.add_argument("parameters", metavar="KEY=VALUE", nargs="*", help=_PARAMETERS_HELP)

    parser.add_argument(
        "--accept-moved", action="store_true",
        help="it was moved, restored or cloned, and this is the one to use from now on; shows what differs",
    )  # fmt: skip


def run_connect(session: Session, arguments: argparse.Namespace) -> int:
    given = absolute(key_values(arguments.parameters, "parameter"))
    differing = session.engine.connect_storage_repository(
        arguments.repo, arguments.format, given, arguments.accept_moved
    )
    connection = session.engine.list_repositories()[arguments.repo]
    warnings = session.engine.host_warnings(arguments.repo)
    session.out.document(
        {"repository": arguments.repo, "format": connection.format, "parameters": given, "warnings": warnings}
        | ({"differs": differing} if arguments.accept_moved else {})
    )
    for text in differing:  # without the option nothing that had to be accepted
        session.out.say(f"{'Accepted' if arguments.accept_moved else 'Note'}: {printable(text)}.")
    for text in warnings:
        session.out.say(f"Warning: {printable(text)}.")
    session.out.say(f"Connected {printable(arguments.repo)}. Next: diskwright images {quoted(arguments.repo)}")
    return 0


def add_disconnect(parser: Parser) -> None:
    parser.add_argument("repo", metavar="REPO")


def run_disconnect(session: Session, arguments: argparse.Namespace) -> int:
    session.engine.disconnect_storage_repository(arguments.repo)
    session.out.document({"repository": arguments.repo, "connected": False})
    session.out.say(f"Disconnected {printable(arguments.repo)}; nothing in it was changed.")
    return 0


def add_repos(parser: Parser) -> None:
    del parser


def run_repos(session: Session, arguments: argparse.Namespace) -> int:
    del arguments
    rows, found = [], []
    connected = session.engine.list_repositories()
    away = session.engine.context.open_together(connected)
    for name, connection in sorted(connected.items()):
        total = free = 0
        problem = ""
        try:
            if name in away:
                raise away[name]
            total, free = session.engine.context.repository(name).space()
        except DiskwrightError as error:
            problem = error.message
        where = " ".join(f"{key}={value}" for key, value in connection.parameters.items())
        state = printable(problem) or "connected"
        room = "-" if problem else f"{compact(free)} of {compact(total)}"
        rows.append((printable(name), printable(connection.format), room, printable(where), state))
        found.append(
            {
                "name": name,
                "format": connection.format,
                "parameters": connection.parameters,
                "total_bytes": total,
                "free_bytes": free,
                "problem": problem,
            }
        )
    session.out.document({"host": session.host, "repositories": found})
    session.out.table(("NAME", "FORMAT", "FREE", "PARAMETERS", "STATE"), rows)
    if not rows:
        session.out.say("No repository is connected. Next: diskwright connect NAME FORMAT KEY=VALUE…")
    return 0


def add_constraints(parser: Parser) -> None:
    parser.add_argument("repo", metavar="REPO")


def run_constraints(session: Session, arguments: argparse.Namespace) -> int:
    found = session.engine.get_storage_repository_constraints(arguments.repo)._asdict()
    session.out.document(found)
    long = max(map(len, found))
    for name, value in found.items():
        shown = {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value
        session.out.line(f"{name:<{long}}  {printable(shown)}")
    return 0


def add_srm(parser: Parser) -> None:
    parser.add_argument(
        "action", choices=("take", "release", "status"), help="become the manager, give the role up, or tell who it is"
    )
    parser.add_argument("repo", metavar="REPO")
    parser.add_argument(
        "--dead",
        metavar="HOST",
        default="",
        help="take: that host, the manager or another, is dead for certain and stays so",
    )


def run_srm(session: Session, arguments: argparse.Namespace) -> int:
    repo = printable(arguments.repo)
    if arguments.dead and arguments.action != "take":
        raise UsageError("--dead goes with take only")
    if arguments.action == "take":
        session.engine.take_srm(arguments.repo, arguments.dead)
    elif arguments.action == "release":
        session.engine.release_srm(arguments.repo)
    manager = session.engine.get_srm(arguments.repo)
    session.out.document({"repository": arguments.repo, "manager": manager, "srm": manager == session.host})
    if manager:
        session.out.line(f"{printable(manager)} manages {repo}{' (this host)' if manager == session.host else ''}.")
    else:
        session.out.line(f"Nobody manages {repo}.")
        session.out.say(f"Nothing in it can be changed. Next: diskwright srm take {quoted(arguments.repo)}")
    return 0


HANDLERS = {
    "create-repo": Handler(add_create_repo, run_create_repo),
    "connect": Handler(add_connect, run_connect),
    "disconnect": Handler(add_disconnect, run_disconnect),
    "repos": Handler(add_repos, run_repos),
    "constraints": Handler(add_constraints, run_constraints),
    "srm": Handler(add_srm, run_srm),
}
