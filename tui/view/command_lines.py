"""The command line that does the same as an act of the console, and a session as a script."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import NamedTuple

from engine.errors import BadRequest
from tui.text.amounts import moment


def _with(arguments: dict[str, str], name: str) -> list[str]:
    return [f"--{name}", arguments[name]] if arguments.get(name) else []


def _named(arguments: dict[str, str]) -> list[str]:
    return _with(arguments, "name")


def _flags(arguments: dict[str, str], *names: str) -> list[str]:
    return [f"--{name}" for name in names if arguments.get(name.replace("-", "_"))]


_LINES: dict[str, Callable[[dict[str, str]], list[str]]] = {
    "demo": lambda a: ["demo"],
    "connect": lambda a: ["connect", a["repo"], a["format"], *shlex.split(a["parameters"])],
    "disconnect": lambda a: ["disconnect", a["repo"]],
    "create_repo": lambda a: ["create-repo", a["format"], *shlex.split(a["parameters"])],
    "repos": lambda a: ["repos"],
    "scan": lambda a: ["check", a["repo"]],
    "deep_scan": lambda a: ["check", a["repo"], "--deep"],
    "images": lambda a: ["images", a["repo"]],
    "tree": lambda a: ["images", a["repo"], "--tree"],
    "status": lambda a: ["status", a["repo"], a["image"]],
    "why": lambda a: ["why", a["repo"], a["image"]],
    "plan": lambda a: ["plan", a["repo"], *a.get("fixes", "").split()],
    "run": lambda a: ["fix", a["repo"], "--plan", a["plan"]],
    "fix": lambda a: ["fix", a["repo"], a["fix"]],
    "fix_type": lambda a: ["fix", a["repo"], "--type", a["type"]],
    "stop": lambda a: ["stop", a["repo"], a["image"]],
    "remove": lambda a: ["remove", a["repo"], a["image"]],
    "restore": lambda a: ["restore", a["repo"], a["image"]],
    "tasks": lambda a: ["tasks"],
    "create_disk": lambda a: ["create-disk", a["repo"], a.get("size", "10G"), *_named(a), *_with(a, "base")],
    "snapshot": lambda a: ["create-snapshot", a["repo"], a["image"], *_named(a), *_flags(a, "quiesce")],
    "snapshot_group": lambda a: [
        "create-snapshot-group",
        a["repo"],
        *a["images"].split(),
        *_named(a),
        *_flags(a, "quiesce"),
    ],
    "copy": lambda a: ["copy", a["repo"], a["image"], *_named(a), *_with(a, "base")],
    "rename": lambda a: ["rename", a["repo"], a["image"], a["name"]],
    "export": lambda a: ["export", a["repo"], a["image"], a["file"], "--format", a["format"]],
    "name_file": lambda a: ["fix", a["repo"], a["fix"], "--path", a["file"]],
    "adopt": lambda a: ["adopt", a["repo"], *shlex.split(a["files"]), "--format", a["format"]],
    "prepare": lambda a: ["prepare", a["repo"], a["image"], *_with(a, "monitor"), *_flags(a, "read-only", "take-over")],
    "attach": lambda a: ["attach", a["repo"], a["image"], a["monitor"]],
    "teardown": lambda a: ["teardown", a["repo"], a["image"], *_with(a, "path")],
    "rate": lambda a: ["rate", a["repo"], a["image"], a["rate"]],
    "accept_moved": lambda a: ["connect", a["repo"], a["format"], *shlex.split(a["parameters"]), "--accept-moved"],
    "take_srm": lambda a: ["srm", "take", a["repo"], *(["--dead", a["dead"]] if a.get("dead") else [])],
    "release_srm": lambda a: ["srm", "release", a["repo"]],
    "replay": lambda a: ["tui", "--trace", a["trace"]],
}
ACTS = tuple(_LINES)


def line(act: str, *, irreversible: bool = False, **arguments: str) -> str:
    """The command that does the same as an act, quoted for a shell; ``irreversible``: it does what cannot be undone,
    and says so. BadRequest for an act that has none,
    or when something that it is about is missing."""
    build = _LINES.get(act)
    if build is None:
        raise BadRequest(f"no command does what {act!r:.40} does", f"Known: {', '.join(ACTS)}")
    try:
        return shlex.join(["diskwright", *build(arguments), *["--irreversible"] * irreversible])
    except KeyError as error:
        raise BadRequest(f"the command for {act} needs {error.args[0]}") from None


class Entry(NamedTuple):
    """Something that was done."""

    when: float
    command: str
    note: str


class SessionLog:
    """What an operator did in one session, in order."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def add(self, when: float, command: str, note: str = "") -> None:
        """Remember an act by its command; ``note``: what came of it, in one line."""
        self.entries.append(Entry(when, command, note))

    def script(self, host: str) -> str:
        """The session as a script for a shell: it stops at the first command that fails."""
        lines = ["#!/bin/sh", f"# A session of diskwright on host {_comment(host)}.", "set -e"]
        for entry in self.entries:
            note = f"  {_comment(entry.note)}" if entry.note else ""
            lines += [f"# {moment(entry.when)}{note}", entry.command]
        return "\n".join(lines) + "\n"


def _comment(text: str) -> str:
    """Text that cannot end the comment it stands in."""
    return "".join(character if character.isprintable() else " " for character in text)
