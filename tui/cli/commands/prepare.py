"""prepare and teardown: an image as a path, for a command or until it is torn down."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.data import monitors
from engine.errors import BadRequest, DiskwrightError, NotFound, StorageError, from_os_error
from tui.cli.arguments import IMAGE, Parser
from tui.cli.session import Handler, Session, absolute
from tui.text.printable import printable, quoted

if TYPE_CHECKING:
    from engine.host.state import Prepared

CANNOT_RUN = 126
NOT_FOUND = 127
SIGNAL_BASE = 128


def _is_device(path: str) -> bool:
    return stat.S_ISBLK(os.stat(path).st_mode)


def _qemu(prepared: Prepared) -> str:
    """Arguments for qemu-system: a disk of that image. It is locked by qemu too, and what is below it is found in the
    directory of the path alone."""
    name = f"disk-{prepared.image[:8]}"
    driver = "host_device" if _is_device(prepared.given) else "file"
    node = {
        "node-name": name,
        "driver": prepared.format,
        "read-only": not prepared.writable,
        "discard": "unmap",
        "file": {"driver": driver, "filename": prepared.given, "locking": "on"},
    }
    return f"-blockdev {quoted(json.dumps(node))} -device virtio-blk-pci,drive={name},serial={prepared.image[:20]}"


def _libvirt(prepared: Prepared) -> str:
    """The disk element of a domain. Owner and group are the repository's, and libvirt has to leave them."""
    from xml.sax.saxutils import quoteattr

    kind, attribute = ("block", "dev") if _is_device(prepared.given) else ("file", "file")
    return "\n".join(
        [
            f"<disk type='{kind}' device='disk'>",
            f"  <driver name='qemu' type='{prepared.format}' discard='unmap'/>",
            f"  <source {attribute}={quoteattr(prepared.given)}>",
            "    <seclabel model='dac' relabel='no'/>",
            "  </source>",
            "  <target dev='vda' bus='virtio'/>",
            f"  <serial>{prepared.image[:20]}</serial>",
            *([] if prepared.writable else ["  <readonly/>"]),
            "</disk>",
        ]
    )


HYPERVISORS: dict[str, Callable[[Prepared], str]] = {"qemu": _qemu, "libvirt": _libvirt}
"""What ``--print`` prints, by who reads it."""


def add_prepare(parser: Parser) -> None:
    parser.usage = "diskwright prepare [options] REPO IMAGE [-- COMMAND ...]"
    parser.add_argument("repo", metavar="REPO")
    parser.add_argument("image", metavar="IMAGE", help=IMAGE)
    parser.add_argument("--read-only", action="store_true", help="snapshots can be prepared only so")
    parser.add_argument(
        "--print", choices=tuple(HYPERVISORS), dest="hypervisor", help="the arguments or the XML instead of the path"
    )
    parser.add_argument(
        "--monitor", default="", metavar="MONITOR", help="how to speak to the machine: live snapshots need it"
    )
    _add_agent(parser)
    parser.add_argument(
        "--take-over", action="store_true", help="a machine has it open that lost its holder: give it a new one"
    )


def run_prepare(session: Session, arguments: argparse.Namespace) -> int:
    image = session.image(arguments.repo, arguments.image)
    if arguments.command:
        if arguments.take_over:
            raise BadRequest("--take-over is for a machine that runs already", "Leave the command out")
        if arguments.hypervisor:
            raise BadRequest("--print is for a machine that is started by hand", "Leave the command out")
        if arguments.monitor or arguments.agent:
            raise BadRequest("a command keeps its lease itself, so nothing is done beside it", "Leave --monitor out")
        return _run_command(session, arguments, image)
    named = arguments.image.lower() != image and session.names.having(arguments.repo, arguments.image) == [image]
    prepared = session.engine.prepare_image(
        arguments.repo,
        image,
        not arguments.read_only,
        arguments.take_over,
        _monitor(arguments.monitor, arguments.agent),
        arguments.image if named else "",
    )
    words = HYPERVISORS[arguments.hypervisor](prepared) if arguments.hypervisor else ""
    session.out.document(
        ({"print": words} if words else {})
        | {
            "repository": arguments.repo,
            "image": image,
            "path": prepared.given,
            "format": prepared.format,
            "writable": prepared.writable,
            "pid": prepared.process.pid,
            **({"monitor": prepared.monitor} if prepared.monitor else {}),
        }
    )
    session.out.line(words or printable(prepared.given))
    which = "" if prepared.writable else f" --path {quoted(prepared.path)}"
    session.out.say(
        f"Format {printable(prepared.format)}. "
        f"Prepared until: diskwright teardown {quoted(arguments.repo)} {image}{which}"
    )
    return 0


def _add_agent(parser: Parser) -> None:
    parser.add_argument(
        "--agent", default="", metavar="PATH", help="the socket of the guest agent of a machine with a QMP monitor"
    )


def _monitor(text: str, agent: str) -> str:
    """The monitor with the paths of its sockets absolute; what is none is refused before anything is done."""
    path = text.removeprefix("qmp:")
    if path not in (text, ""):
        text = f"qmp:{absolute(path)}"
    found = monitors.parse(text) if text else None
    if agent:
        if not isinstance(found, monitors.Qmp) or found.agent:
            raise BadRequest(
                "--agent goes with a QMP monitor that does not tell it", "libvirt knows the agent of a domain itself"
            )
        found = monitors.parse(str(found._replace(agent=absolute(agent))))
    return str(found or "")


def add_attach(parser: Parser) -> None:
    parser.add_argument("repo", metavar="REPO")
    parser.add_argument("image", metavar="IMAGE", help="a disk that is prepared here")
    parser.add_argument(
        "monitor",
        metavar="MONITOR",
        help="qmp:PATH of the socket of a QMP monitor that nobody else uses, or libvirt:URI/DOMAIN",
    )
    _add_agent(parser)


def run_attach(session: Session, arguments: argparse.Namespace) -> int:
    image = session.image(arguments.repo, arguments.image)
    prepared = session.engine.attach_monitor(arguments.repo, image, _monitor(arguments.monitor, arguments.agent))
    session.out.document(
        {"repository": arguments.repo, "image": image, "path": prepared.given, "monitor": prepared.monitor}
    )
    session.out.say(f"The machine at {printable(prepared.monitor)} uses {image}; snapshots are taken beside it.")
    return 0


def _run_command(session: Session, arguments: argparse.Namespace, image: str) -> int:
    """Run the command, tear down whatever happens, and return the command's exit code."""
    path = ""
    try:
        with session.engine.lend_image(arguments.repo, image, not arguments.read_only) as (prepared, leases):
            path = prepared.path
            code = _call([word.replace("{}", path) for word in arguments.command], prepared, leases)
    except BaseException:
        if path:
            with contextlib.suppress(DiskwrightError):  # the first trouble is the one to tell
                session.engine.teardown_image(arguments.repo, image, path)
        raise
    try:
        session.engine.teardown_image(arguments.repo, image, path)
    except DiskwrightError as error:
        if code == 0:
            raise
        session.out.say(f"diskwright: {printable(str(error))}")
    return code


def _call(words: list[str], prepared: Prepared, leases: list[int]) -> int:
    """The exit code of a command that sees the image, and keeps its leases; 128 + n when signal n ended it.

    Signals that would end us are the command's to answer: it gets the terminal's Ctrl-C itself,
    and SIGTERM and SIGHUP are passed on, so that the image is torn down after it ended."""
    import signal
    import subprocess

    environment = {**os.environ, "DISKWRIGHT_DISK": prepared.path, "DISKWRIGHT_DISK_FORMAT": prepared.format}
    children: list[subprocess.Popen[bytes]] = []
    early: list[int] = []

    def pass_on(number: int, frame: object) -> None:
        del frame
        if number == signal.SIGINT:
            return
        if not children:
            early.append(number)  # the child may run before we know of it
        for child in children:
            child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        child = subprocess.Popen(words, env=environment, pass_fds=leases)
        children.append(child)
        for number in early:
            child.send_signal(number)
        code = child.wait()
    except FileNotFoundError:
        raise CommandNotRun(NotFound(f"there is no command {words[0]!r:.200}", "Check its name"), NOT_FOUND) from None
    except (OSError, ValueError) as error:
        failed = from_os_error(error, f"run {words[0]!r:.200}") if isinstance(error, OSError) else None
        raise CommandNotRun(failed or StorageError(f"cannot run {words[0]!r:.200}: {error}"), CANNOT_RUN) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else SIGNAL_BASE - code


class CommandNotRun(DiskwrightError):
    """The command could not be started; exit codes as a shell gives them."""

    code = "command-not-run"

    def __init__(self, cause: DiskwrightError, exit_code: int) -> None:
        super().__init__(cause.message, cause.next_step)
        self.exit_code = exit_code


def add_teardown(parser: Parser) -> None:
    parser.add_argument("repo", metavar="REPO")
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument("--path", default="", help="which, of an image that is prepared several times for reading")


def run_teardown(session: Session, arguments: argparse.Namespace) -> int:
    image = session.image(arguments.repo, arguments.image)
    session.engine.teardown_image(arguments.repo, image, arguments.path)
    session.out.document({"repository": arguments.repo, "image": image, "prepared": False})
    session.out.say(f"Torn down {image}.")
    return 0


HANDLERS = {
    "prepare": Handler(add_prepare, run_prepare),
    "attach": Handler(add_attach, run_attach),
    "teardown": Handler(add_teardown, run_teardown),
}
