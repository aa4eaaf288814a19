"""tasks: what runs and what is prepared on this host."""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

from engine.data.amounts import human
from engine.host.state import Prepared, Task
from tui.cli.arguments import Parser
from tui.cli.fixes import Names, called
from tui.cli.render import Output
from tui.cli.session import Handler, Session
from tui.cli.watch import add_watch, shown
from tui.text.amounts import moment
from tui.text.printable import printable, quoted
from tui.text.words import doing


class _Now(NamedTuple):
    """What goes on at one moment."""

    tasks: list[tuple[Task, str]]
    """With the image that each works on now."""
    prepared: list[Prepared]
    unheld: list[Prepared]
    handles: dict[str, str]
    """Names of repositories here, by what they are."""
    names: Names


def add_tasks(parser: Parser) -> None:
    add_watch(parser)


def run_tasks(session: Session, arguments: argparse.Namespace) -> int:
    out, names = session.out, dict[str, str]()
    shown(
        out,
        arguments.watch,
        lambda: _look(session, names),
        lambda now: _document(session.host, now),
        lambda now: _print(out, now),
    )
    return 0


def _look(session: Session, names: dict[str, str]) -> _Now:
    """What goes on now. ``names`` is completed with what was not known before: one record is read for each."""
    engine = session.engine
    tasks = [(task, engine.task_image(task)) for task in engine.list_tasks()]
    handles = {connection.identity: name for name, connection in engine.list_repositories().items()}
    prepared, unheld = engine.list_prepared(), engine.list_unheld()
    images = [(task.repository, image) for task, image in tasks]
    images += [(entry.repository, entry.image) for entry in (*prepared, *unheld)]
    names |= {image: engine.name_of(handles.get(place, ""), image) for place, image in images if image not in names}
    return _Now(tasks, prepared, unheld, handles, names)


def _document(host: str, now: _Now) -> dict[str, Any]:
    return {
        "host": host,
        "tasks": [
            {
                "id": task.id,
                "repository": task.repo_id,
                "image": image,
                "name": now.names.get(image, ""),
                "verb": task.verb,
                "rule": task.rule,
                "pid": task.process.pid,
                "started": task.started,
                "rate": task.rate,
                "log": task.log,
            }
            for task, image in now.tasks
        ],
        "prepared": [
            {
                **_entry(entry, now),
                "format": entry.format,
                "writable": entry.writable,
                "pid": entry.process.pid,
            }
            for entry in now.prepared
        ],
        "unheld": [_entry(entry, now) for entry in now.unheld],
    }


def _entry(entry: Prepared, now: _Now) -> dict[str, Any]:
    return {
        "repository": now.handles.get(entry.repository, ""),
        "image": entry.image,
        "name": now.names.get(entry.image, ""),
        "path": entry.given,
    }


def _print(out: Output, now: _Now) -> None:
    out.table(
        ("PID", "REPOSITORY", "NAME", "IMAGE", "TASK", "SINCE"),
        [
            (
                str(task.process.pid),
                printable(task.repo_id),
                printable(now.names.get(image, "")) or "-",
                image or "-",
                doing(task.rule, printable(task.verb)) + (f", {human(task.rate)}/s" if task.rate else ""),
                moment(task.started),
            )
            for task, image in now.tasks
        ],
        give_up=(3,),
        least=19,
    )
    out.table(
        ("PID", "REPOSITORY", "NAME", "IMAGE", "PREPARED", "PATH"),
        [
            (
                str(entry.process.pid),
                printable(now.handles.get(entry.repository, "?")),
                printable(now.names.get(entry.image, "")) or "-",
                entry.image,
                f"{entry.format}, {'read-write' if entry.writable else 'read-only'}",
                printable(entry.given),
            )
            for entry in now.prepared
        ],
        give_up=(3,),
        least=40,
    )
    for entry in now.unheld:
        out.say(
            f"Image {called(now.names, entry.image)} is in use at {printable(entry.given)}, and its holder is dead. "
            f"Put a new one beside it: diskwright prepare {quoted(now.handles.get(entry.repository, 'REPO'))} "
            f"{entry.image} --take-over{'' if entry.writable else ' --read-only'}"
        )
    if not now.tasks and not now.prepared and not now.unheld:
        out.say("Nothing runs here, and no image is prepared.")


HANDLERS = {
    "tasks": Handler(add_tasks, run_tasks),
}
