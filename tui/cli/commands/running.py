"""tasks: what runs and what is prepared on this host, and the machines that have that open."""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

from engine.data.amounts import human
from engine.host.state import Task
from tui.cli.arguments import Parser
from tui.cli.fixes import Names
from tui.cli.render import Output
from tui.cli.session import Handler, Session, machine_json
from tui.cli.watch import add_watch, shown
from tui.text.amounts import moment
from tui.text.printable import printable, quoted
from tui.view import live, machines
from tui.view.machines import MachineRow, MachineState


class _Now(NamedTuple):
    """What goes on at one moment."""

    tasks: list[tuple[Task, str]]
    """With the image that each works on now."""
    percents: list[int]
    """How far each of them has come, -1 where that is not known."""
    prepared: list[MachineRow]
    """Those that need somebody first."""
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
    images = [(task.repository, image) for task, image in tasks if image not in names]
    names |= {image: engine.name_of(handles.get(place, ""), image) for place, image in images}
    engine.list_prepared()  # forgets what nobody holds or uses
    noted = machines.noted(engine)
    places = dict.fromkeys(row.repository for row in noted if row.repository)
    rows = [row for row in noted if not row.repository]
    for place in places:
        rows += machines.seen(engine, place, [row for row in noted if row.repository == place])
    percents = {task.id: live.percent(engine, task) for task, _ in tasks}
    return _Now(tasks, [*percents.values()], list(machines.ordered(live.at_work(engine, rows, percents))), names)


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
                "percent": percent,
                "rate": task.rate,
                "log": task.log,
            }
            for (task, image), percent in zip(now.tasks, now.percents, strict=True)
        ],
        "prepared": [machine_json(row) for row in now.prepared if row.held],
        "unheld": [machine_json(row) for row in now.prepared if not row.held],
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
                live.what_of(task, percent) + (f", {human(task.rate)}/s" if task.rate else ""),
                moment(task.started),
            )
            for (task, image), percent in zip(now.tasks, now.percents, strict=True)
        ],
        give_up=(3,),
        least=19,
    )
    out.table(
        ("MACHINE", "REPOSITORY", "NAME", "IMAGE", "PREPARED", "SINCE", "HOLDER", "PATH"),
        [
            (
                row.in_brief,
                row.repository or "?",
                row.name or "-",
                row.image,
                f"{row.format}, {'read-write' if row.writable else 'read-only'}",
                moment(row.since) if row.since else "-",
                str(row.holder) if row.held else "dead",
                row.path,
            )
            for row in now.prepared
        ],
        give_up=(3, 5, 4),
        least=40,
    )
    for row in now.prepared:
        if row.state in (MachineState.UNHELD, MachineState.UNKNOWN) and not row.held:
            command = " ".join(map(quoted, machines.take_over_command(row)))
            out.say(
                f"Image {row.name or row.image} is in use at {row.path}, and its holder is dead. "
                f"Put a new one beside it: diskwright {command}"
            )
    if not now.tasks and not now.prepared:
        out.say("Nothing runs here, and no image is prepared.")


HANDLERS = {
    "tasks": Handler(add_tasks, run_tasks),
}
