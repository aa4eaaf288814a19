"""hook: libvirt prepares the disks of its domains before they start, and tears them down after."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile

from engine.data import monitors
from engine.errors import BadRequest, Conflict, NotFound, from_os_error
from tui.cli.arguments import Parser
from tui.cli.session import Handler, Session
from tui.text.printable import printable

DIRECTORY = "/etc/libvirt/hooks"
URI = "qemu:///system"
BEGIN, END = "prepare/begin", "release/end"
"""Operations of libvirt: before anything of a domain is made, and after all of it is gone."""
_MARK = "# Made by diskwright hook install; diskwright hook remove takes it away."
_MODE = 0o755
_SCRIPT = """\
#!/bin/sh
{mark}
# Prepares the disks of a domain before it starts, and tears them down when it has ended.
case "$2/$3" in {begin} | {end}) ;; *) exit 0 ;; esac
{python} -P -c "import tui.work.hooks" </dev/null 2>/dev/null ||
    {{ echo "diskwright is not where it was: its disks are not prepared" >&2; exit 0; }}
exec {words} hook --uri={uri} --state={state} --host={host} -- run "$1" "$2/$3"
"""


def add_hook(parser: Parser) -> None:
    parser.usage = "diskwright hook [options] install | remove"
    actions = parser.add_argument("action", choices=("install", "remove", "run"), metavar="install|remove")
    actions.help = "have libvirt call diskwright, or no longer"
    parser.add_argument("domain", nargs="?", default="", help=argparse.SUPPRESS)
    parser.add_argument("operation", nargs="?", default="", help=argparse.SUPPRESS)
    parser.add_argument("--directory", default=DIRECTORY, metavar="DIR", help=f"libvirt's hooks (default {DIRECTORY})")
    parser.add_argument("--uri", default=URI, help=f"of the libvirt that calls, for what is done later (default {URI})")


def run_hook(session: Session, arguments: argparse.Namespace) -> int:
    path = os.path.join(os.path.abspath(arguments.directory), "qemu.d", "diskwright")
    if arguments.action == "run":
        changed = _run(session, arguments)
    elif arguments.domain:
        raise BadRequest(f"{arguments.domain!r:.100} is too much", f"Use diskwright hook {arguments.action}")
    elif arguments.action == "install":
        monitors.parse(f"libvirt:{arguments.uri}/any")
        changed = _install(path, _script(session, arguments.uri))
        said = "Installed" if changed else "That is there already:"
        next_step = (
            "libvirt looks for hooks when it starts: restart its daemon, machines go on (systemctl restart libvirtd)"
        )
        session.out.say(f"{said} {printable(path)}. {next_step}.")
    else:
        changed = _remove(path)
        session.out.say(f"Removed {printable(path)}." if changed else f"There is no {printable(path)}.")
    session.out.document({"path": path, "installed": arguments.action != "remove", "changed": changed})
    return 0


def _script(session: Session, uri: str) -> str:
    state, host = os.path.split(session.state)
    values = {"python": sys.executable, "uri": uri, "state": state, "host": host}
    quoted = {name: shlex.quote(value) for name, value in values.items()}
    words = f"{quoted['python']} -P -m tui.cli.main"
    return _SCRIPT.format(mark=_MARK, begin=BEGIN, end=END, words=words, **quoted)


def _ours(path: str) -> str | None:
    """Return what we have written there, None where there is nothing. Conflict when it is of somebody else,
    StorageError when that cannot be told."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return None
    except (IsADirectoryError, UnicodeDecodeError):
        text = ""
    except OSError as error:
        raise from_os_error(error, f"read {path}") from error
    if _MARK not in text.split("\n")[:2]:
        raise Conflict(f"{printable(path)} was not made by diskwright", "Move it away first, if nobody needs it")
    return text


def _install(path: str, text: str) -> bool:
    """Write the script, whole or not at all, durable on return; return whether it was another one."""
    if _ours(path) == text and os.access(path, os.X_OK):
        return False
    folder = os.path.dirname(path)
    if not os.path.isdir(os.path.dirname(folder)):
        raise NotFound(
            f"there is no {printable(os.path.dirname(folder))}", "Install libvirt, or say where with --directory"
        )
    try:
        os.makedirs(folder, exist_ok=True)
        # libvirt runs whatever is executable there: this is not until it is whole
        descriptor, temporary = tempfile.mkstemp(prefix=".diskwright-", dir=folder)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(descriptor)
            os.rename(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        os.chmod(path, _MODE)
        for changed in (path, folder, os.path.dirname(folder)):
            _sync(changed)
    except OSError as error:
        raise from_os_error(error, f"write {path}") from error
    return True


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: str) -> bool:
    """Take the script away, durably; return whether there was one."""
    if _ours(path) is None:
        return False
    try:
        os.unlink(path)
        _sync(os.path.dirname(path))
    except OSError as error:
        raise from_os_error(error, f"remove {path}") from error
    return True


def _run(session: Session, arguments: argparse.Namespace) -> bool:
    """Do what is to be done at an operation of a domain, whose definition is at standard input; return whether it has
    disks of ours that were prepared."""
    from engine.assembly import real_doors
    from tui.work import hooks

    if arguments.operation not in (BEGIN, END):
        raise BadRequest("libvirt calls this", "Use diskwright hook install")
    monitor = f"libvirt:{arguments.uri}/{arguments.domain}"
    disks: list[hooks.Wanted] = []
    if arguments.operation == END:
        hooks.tear_down(session.engine, monitor)
    else:
        place = real_doors(session.host, session.state).files.run_place().path
        disks = hooks.wanted(sys.stdin.buffer.read(hooks.MOST_BYTES + 1), place)
    if disks:  # else it is another's, whom no trouble of ours may keep from starting
        hooks.prepare(session.engine, disks, str(monitors.parse(monitor)))
    return bool(disks)


HANDLERS = {"hook": Handler(add_hook, run_hook)}
