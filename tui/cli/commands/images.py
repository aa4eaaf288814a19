"""Commands that make and change images: the verbs of the API."""

from __future__ import annotations

import argparse
import contextlib
from typing import Any

from engine.data.amounts import human
from engine.errors import DiskwrightError
from tui.cli.arguments import (
    IMAGE,
    Parser,
    UsageError,
    add_quiesce,
    add_rate,
    add_user_data,
    add_verb_options,
    json_argument,
    parse_rate,
    parse_size,
)
from tui.cli.render import json_text
from tui.cli.session import Handler, Session, absolute, renamed, usable
from tui.text.printable import printable, quoted


def add_wait(parser: Parser) -> None:
    """``--wait``, of commands that begin work."""
    parser.add_argument("--wait", action="store_true", help="return when the work is done; Ctrl-C only detaches")


def add_making(parser: Parser) -> None:
    """The options of commands that make an image, and begin work for that."""
    add_user_data(parser)
    add_wait(parser)
    add_verb_options(parser)


def answer(session: Session, arguments: argparse.Namespace, image: str, **more: Any) -> int:
    """The id on standard output at once, then what goes on with the image; ``--wait`` follows it."""
    session.out.line(image)
    session.out.flush()
    document: dict[str, Any] = {"repository": arguments.repo, "image": image, **more}
    session.tell_namesakes(arguments.repo, image, arguments.name)
    if arguments.wait:
        from tui.cli.follow import wait_for_image

        return wait_for_image(session, arguments.repo, image, document)
    session.out.document(document)
    _tell(session, arguments.repo, image)
    return 0


def _tell(session: Session, repo_id: str, image: str) -> None:
    """What goes on with an image that was just committed. The verb succeeded whatever this finds."""
    name = quoted(repo_id)
    try:
        task = session.task_on(repo_id, image)
        if task is not None:
            session.out.say(
                f"Committed; the work goes on in process {task.process.pid}: diskwright status {name} {image}"
            )
            return
        report = session.engine.get_image_status(repo_id, image)
    except DiskwrightError:
        return
    if usable(report):
        session.out.say("Committed and usable.")
    else:
        session.out.say(f"Committed, not usable yet: {printable(report.reason)}. Next: diskwright why {name} {image}")


def add_create_disk(parser: Parser) -> None:
    parser.add_argument("repo", metavar="REPO", help="where to create it")
    parser.add_argument("size", metavar="SIZE", help="bytes, or 100M, 10G, 1.5T (1K is 1024); 10GiB is 10G")
    parser.add_argument("--base", metavar="SNAPSHOT", help="start with the content of that snapshot")
    add_making(parser)


def run_create_disk(session: Session, arguments: argparse.Namespace) -> int:
    size = parse_size(arguments.size)
    base = session.names.anywhere(arguments.base, arguments.participating, arguments.repo) if arguments.base else None
    options = session.options(arguments)
    data = session.user_data(arguments)
    image = session.engine.create_virtual_disk(arguments.repo, size, base, data, options)
    return answer(session, arguments, image)


def add_create_snapshot(parser: Parser) -> None:
    parser.add_argument("repo", metavar="REPO")
    parser.add_argument("disk", metavar="DISK", help="the disk to freeze; it keeps its id")
    add_quiesce(parser)
    add_user_data(parser)
    add_verb_options(parser)


def run_create_snapshot(session: Session, arguments: argparse.Namespace) -> int:
    disk = session.image(arguments.repo, arguments.disk)
    data = session.user_data(arguments)
    image = session.engine.create_snapshot(arguments.repo, disk, data, session.options(arguments))
    session.out.line(image)
    session.out.document({"repository": arguments.repo, "image": image, "disk": disk})
    session.tell_namesakes(arguments.repo, image, arguments.name)
    return 0


def add_create_snapshot_group(parser: Parser) -> None:
    parser.add_argument("repo", metavar="REPO", help="where all of the disks are")
    parser.add_argument("disks", metavar="DISK", nargs="+", help="the disks to freeze; they keep their ids")
    add_quiesce(parser)
    add_user_data(parser)
    add_verb_options(parser)


def run_create_snapshot_group(session: Session, arguments: argparse.Namespace) -> int:
    disks = [session.image(arguments.repo, disk) for disk in arguments.disks]
    data = session.user_data(arguments)
    made = session.engine.create_snapshot_group(arguments.repo, disks, data, session.options(arguments))
    for disk in disks:
        session.out.line(made[disk])
    snapshots = [{"disk": disk, "image": made[disk]} for disk in disks]
    session.out.document({"repository": arguments.repo, "snapshots": snapshots})
    return 0


def add_copy(parser: Parser) -> None:
    parser.add_argument("repo", metavar="REPO", help="where to copy it to")
    parser.add_argument("image", metavar="IMAGE", help="an image of any connected repository")
    parser.add_argument("--base", metavar="IMAGE", help="an image of REPO: copy only the difference")
    parser.add_argument("--no-digest", action="store_true", help="do not compute the content digest on the way")
    parser.add_argument("--full", action="store_true", help="copy all bits when the base cannot be used")
    add_quiesce(parser)
    add_rate(parser)
    add_making(parser)


def run_copy(session: Session, arguments: argparse.Namespace) -> int:
    image = session.names.anywhere(arguments.image, arguments.participating)
    base = session.image(arguments.repo, arguments.base) if arguments.base else None
    data = session.user_data(arguments)
    if data is None:
        data = _of_the_source(session, arguments, image)
    made = session.engine.copy_image(arguments.repo, image, base, data, session.options(arguments))
    return answer(session, arguments, made)


def _of_the_source(session: Session, arguments: argparse.Namespace, image: str) -> Any:
    """The user data of what is copied. A snapshot is the same everywhere; the copy of a disk, which has an id of its
    own, has its name with a mark."""
    hints = session.options(arguments).get("image_hints", {})
    places = [hints[image]] if image in hints else arguments.participating
    for repo_id in sorted(session.engine.list_repositories()) if places is None else places:
        with contextlib.suppress(DiskwrightError):  # the copy says what is wrong there
            report = session.engine.get_image_status(repo_id, image)
            data = session.engine.get_user_data(repo_id, image)
            return renamed(data, f"{report.name} (copy)") if report.name and report.mutable else data
    return None


def add_export(parser: Parser) -> None:
    parser.add_argument("repo", metavar="REPO")
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument("file", metavar="FILE", help="a file that does not exist yet; - for standard output (raw)")
    parser.add_argument(
        "--format", metavar="FORMAT", required=True,
        help="raw (exact original length), qcow2, qcow2-zstd (compressed), vmdk, vhdx, vhd or vdi",
    )  # fmt: skip
    add_quiesce(parser)
    add_rate(parser)


def run_export(session: Session, arguments: argparse.Namespace) -> int:
    from tui.cli.follow import Bar

    image = session.image(arguments.repo, arguments.image)
    if arguments.file == "-":
        return _stream(session, arguments, image)
    path = absolute(arguments.file)
    bar = Bar()

    def progress(percent: int) -> None:
        bar.percent(f"export {image[:8]}", percent)

    try:
        session.engine.export_image(arguments.repo, image, path, arguments.format, progress, _export_options(arguments))
    finally:
        bar.clear()
    session.out.document({"repository": arguments.repo, "image": image, "file": path, "format": arguments.format})
    session.out.say(f"Exported to {printable(path)}.")
    return 0


def _stream(session: Session, arguments: argparse.Namespace, image: str) -> int:
    """The image on standard output; what else is to be said goes to standard error."""
    if arguments.format != "raw":
        raise UsageError("standard output takes raw alone: other formats are not written in order", "Use --format raw")
    options = _export_options(arguments)
    session.out.bytes(lambda write: session.engine.stream_image(arguments.repo, image, write, options))
    return 0


def _export_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of an export; without a limit too, so that it can be limited while it goes on."""
    return {"rate": parse_rate(arguments.rate), "quiesce": arguments.quiesce}


def _add_image(parser: Parser) -> None:
    parser.add_argument("repo", metavar="REPO")
    parser.add_argument("image", metavar="IMAGE", help=IMAGE)


def add_remove(parser: Parser) -> None:
    _add_image(parser)
    add_verb_options(parser, auto_fix=False)


def run_remove(session: Session, arguments: argparse.Namespace) -> int:
    image = session.image(arguments.repo, arguments.image)
    session.engine.remove_image(arguments.repo, image, session.options(arguments))
    session.out.document({"repository": arguments.repo, "image": image, "removed": True})
    name = quoted(arguments.repo)
    session.out.say(
        f"Removed {image}; its space comes back with a clean fix (diskwright fix {name} --type clean --irreversible). "
        f"Until then: diskwright restore {name} {image}"
    )
    return 0


def add_restore(parser: Parser) -> None:
    _add_image(parser)
    add_verb_options(parser, auto_fix=False)


def run_restore(session: Session, arguments: argparse.Namespace) -> int:
    image = session.image(arguments.repo, arguments.image)
    there = _is_there(session, arguments.repo, image)
    session.engine.restore_image(arguments.repo, image, session.options(arguments))
    session.out.document({"repository": arguments.repo, "image": image, "removed": False})
    session.out.say(f"{image} was not removed: nothing was changed." if there else f"{image} is there again.")
    return 0


def _is_there(session: Session, repo_id: str, image: str) -> bool:
    """Whether it is an image now, and not a removed one."""
    with contextlib.suppress(DiskwrightError):
        session.engine.context.visible(repo_id, image)
        return True
    return False


def add_rename(parser: Parser) -> None:
    _add_image(parser)
    parser.add_argument("name", metavar="NAME", help="the new name; the rest of its user data stays")


def run_rename(session: Session, arguments: argparse.Namespace) -> int:
    image = session.image(arguments.repo, arguments.image)
    data = renamed(session.engine.get_user_data(arguments.repo, image), arguments.name)
    session.engine.rename_image(arguments.repo, image, data)
    session.out.document({"repository": arguments.repo, "image": image, "name": data["name"]})
    session.out.say(f"{image} is called {printable(data['name'])} now.")
    session.tell_namesakes(arguments.repo, image, data["name"])
    return 0


def add_user_data_command(parser: Parser) -> None:
    parser.add_argument("action", choices=("get", "set"))
    _add_image(parser)
    parser.add_argument("value", metavar="JSON", nargs="?", help="for set: JSON text, @FILE, or - for standard input")


def run_user_data_command(session: Session, arguments: argparse.Namespace) -> int:
    if arguments.action == "get":
        if arguments.value is not None:
            raise UsageError("user-data get takes no value", "See diskwright user-data --help")
        image = session.image(arguments.repo, arguments.image)
        data = session.engine.get_user_data(arguments.repo, image)
        session.out.document(data)
        session.out.line(json_text(data))
        return 0
    if arguments.value is None:
        raise UsageError("user-data set needs a value", "See diskwright user-data --help")
    data = json_argument(arguments.value, "user data")
    image = session.image(arguments.repo, arguments.image)
    session.engine.set_user_data(arguments.repo, image, data)
    session.out.document({"repository": arguments.repo, "image": image, "user_data": data})
    session.out.say(f"The user data of {image} was replaced.")
    return 0


def add_strategy(parser: Parser) -> None:
    _add_image(parser)
    parser.add_argument("strategy", metavar="WHAT", help="space or performance")


def run_strategy(session: Session, arguments: argparse.Namespace) -> int:
    image = session.image(arguments.repo, arguments.image)
    session.engine.set_strategy(arguments.repo, image, arguments.strategy)
    report = session.engine.get_image_status(arguments.repo, image)
    session.out.document({"repository": arguments.repo, "image": image, "strategy": report.strategy})
    session.out.say(f"{session.out.status(report.status)}: {printable(report.reason)}")
    return 0


def add_revert(parser: Parser) -> None:
    parser.add_argument("repo", metavar="REPO")
    parser.add_argument("disk", metavar="DISK", help=IMAGE)
    parser.add_argument("snapshot", metavar="SNAPSHOT", help="the snapshot to return to")


def run_revert(session: Session, arguments: argparse.Namespace) -> int:
    disk = session.image(arguments.repo, arguments.disk)
    to = session.image(arguments.repo, arguments.snapshot)
    name = session.engine.get_image_status(arguments.repo, disk).name
    data = {"name": f"{name or disk[:8]} (before revert)"}
    kept = session.engine.revert_disk(arguments.repo, disk, to, data)
    session.out.document({"repository": arguments.repo, "image": disk, "snapshot": to, "kept": kept})
    session.out.line(kept)
    session.out.say(
        f"Image {disk} is as snapshot {to} now. What it was is a removed snapshot: "
        f"diskwright restore {quoted(arguments.repo)} {kept}"
    )
    return 0


def add_resize(parser: Parser) -> None:
    parser.add_argument("repo", metavar="REPO")
    parser.add_argument("disk", metavar="DISK", help=IMAGE)
    parser.add_argument("size", metavar="SIZE", help="its new size, or +SIZE for so much more; as for create-disk")


def run_resize(session: Session, arguments: argparse.Namespace) -> int:
    disk = session.image(arguments.repo, arguments.disk)
    more = arguments.size.startswith("+")
    size = parse_size(arguments.size.removeprefix("+"))
    before = session.engine.get_image_status(arguments.repo, disk).size_bytes
    size += before if more else 0
    session.engine.resize_disk(arguments.repo, disk, size)
    session.out.document({"repository": arguments.repo, "image": disk, "size_bytes": size, "was_bytes": before})
    session.out.say(f"Image {disk} has {human(size)} now; it had {human(before)}.")
    return 0


def add_digest(parser: Parser) -> None:
    _add_image(parser)


def run_digest(session: Session, arguments: argparse.Namespace) -> int:
    image = session.image(arguments.repo, arguments.image)
    digest = session.engine.record_digest(arguments.repo, image)
    session.out.line(printable(digest))
    session.out.document({"repository": arguments.repo, "image": image, "digest": digest})
    return 0


HANDLERS = {
    "create-disk": Handler(add_create_disk, run_create_disk),
    "create-snapshot": Handler(add_create_snapshot, run_create_snapshot),
    "create-snapshot-group": Handler(add_create_snapshot_group, run_create_snapshot_group),
    "copy": Handler(add_copy, run_copy),
    "export": Handler(add_export, run_export),
    "remove": Handler(add_remove, run_remove),
    "restore": Handler(add_restore, run_restore),
    "rename": Handler(add_rename, run_rename),
    "user-data": Handler(add_user_data_command, run_user_data_command),
    "resize": Handler(add_resize, run_resize),
    "revert": Handler(add_revert, run_revert),
    "strategy": Handler(add_strategy, run_strategy),
    "digest": Handler(add_digest, run_digest),
}
