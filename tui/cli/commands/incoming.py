"""import and adopt: a file becomes a disk, by a copy of its data; or files become images as they are, with chains."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from engine.data.adoption import Plan
from engine.data.amounts import human
from engine.data.model import VolumeFormat, packing_of
from engine.errors import DiskwrightError
from engine.verbs import spool
from tui.cli.arguments import Parser, UsageError, add_rate, add_verb_options
from tui.cli.commands.images import add_making, add_wait, answer
from tui.cli.session import Handler, Session, absolute, usable
from tui.text.printable import printable, quoted

if TYPE_CHECKING:
    from engine.host.state import Task

_INCOMPLETE = DiskwrightError.exit_code
_TABLES = 8
"""A file of an image is longer than the image by no more than this part."""


_FORMATS_HELP = (
    "raw, qcow2, vmdk, vhdx, vhd, vdi, ova:N (disk N of an archive), raw.xz or qcow2.xz (or .gz, .zst); never guessed"
)


def add_import(parser: Parser) -> None:
    parser.add_argument("repo", metavar="REPO", help="where to import it to")
    parser.add_argument(
        "file",
        metavar="FILE",
        help="an image file, no one that refers to others; - for standard input, which is waited for",
    )
    parser.add_argument("--format", metavar="FORMAT", required=True, help=_FORMATS_HELP)
    parser.add_argument("--verify", action="store_true", help="wait, then read the disk back and compare")
    parser.add_argument("--no-digest", action="store_true", help="do not compute the content digest on the way")
    add_rate(parser)
    add_making(parser)


def run_import(session: Session, arguments: argparse.Namespace) -> int:
    if arguments.verify and arguments.no_digest:
        raise UsageError("--verify compares digests", "Leave out --no-digest")
    data = session.user_data(arguments)
    with _within_reach(session, arguments.repo, arguments.file, arguments.format) as coming:
        made = session.engine.import_image(arguments.repo, coming.path, coming.format, data, session.options(arguments))
        coming.image = made
        arguments.wait = arguments.wait or arguments.verify or coming.spooled
        remarks = _remarks(session, arguments.repo, made)
        for remark in remarks:
            session.out.say(f"Note: {printable(remark)}.")
        code = answer(session, arguments, made, remarks=remarks)
    if arguments.verify and not code:
        session.engine.verify_image(arguments.repo, made)
        session.out.say("Read back: it is what was read from the file.")
    return code


def _remarks(session: Session, repo_id: str, image: str) -> list[str]:
    """What people should know of the file that was imported, before they rely on the disk."""
    try:
        return list(session.engine.get_image_status(repo_id, image).remarks)
    except DiskwrightError:
        return []  # the verb has succeeded; the record keeps them


class _Incoming:
    """A file to import, as the engine takes it."""

    def __init__(self, path: str, format: str, spooled: bool) -> None:
        self.path = path
        self.format = format
        self.spooled = spooled
        """It is ours, and goes when the import has ended."""
        self.image = ""
        """What is made of it, once that is committed."""


@contextlib.contextmanager
def _within_reach(session: Session, repo: str, file: str, format: str) -> Iterator[_Incoming]:
    """The file, brought into one of ours where it cannot be imported from where it is: standard input, and a qcow2 that
    is compressed as a whole. That file stays only for an import which has not ended."""
    packing = spool.packing_of(format)
    if file != "-" and packing is None:
        if packing_of(format) is not None:
            session.out.say("Unpacking it once, to learn how long it is; nothing is written meanwhile.")
        yield _Incoming(absolute(file), format, False)
        return
    doors = session.engine.doors
    largest = session.engine.get_storage_repository_constraints(repo).max_image_bytes
    place = os.path.abspath(os.environ.get("TMPDIR") or "/var/tmp")
    taken, path = f"{place}/diskwright-{doors.ids.new_id()}", ""
    ours: list[str] = []
    coming = _Incoming("", format, True)
    try:
        path = absolute(file) if file != "-" else taken
        if file == "-":
            stream = getattr(sys.stdin, "buffer", None)
            if stream is None:
                raise UsageError("there is no standard input", "Give it a file, or a program that writes the image")
            session.out.say(f"Taking standard input into {printable(path)}; TMPDIR says where that is.")
            ours.append(path)
            spool.of_stream(doors, stream.read, path, largest + largest // _TABLES)
        if packing is not None:
            unpacked = f"{taken}.{VolumeFormat.QCOW2}"
            session.out.say(f"Unpacking into {printable(unpacked)}; TMPDIR says where that is.")
            ours.append(unpacked)
            spool.unpacked(doors, path, packing, unpacked, largest + largest // _TABLES)
            path, coming.format = unpacked, VolumeFormat.QCOW2
        coming.path = doors.files.resolve(path)
        yield coming
    finally:
        _leave(session, repo, coming.image, ours)


def _leave(session: Session, repo: str, image: str, ours: list[str]) -> None:
    """Delete the files that are ours, but for that of an import which has not ended, as far as is known."""
    if image and not _has_ended(session, repo, image):
        session.out.say(f"{printable(ours[-1])} is what is imported: delete it when that has ended.")
        ours = ours[:-1]
    for path in ours:
        with contextlib.suppress(OSError):
            session.engine.doors.files.unlink(path)


def _has_ended(session: Session, repo: str, image: str) -> bool:
    try:
        return usable(session.engine.get_image_status(repo, image))
    except DiskwrightError:
        return False  # the file is all that the import could go on with


def add_adopt(parser: Parser) -> None:
    parser.add_argument(
        "repo", metavar="REPO", help="a repository on the same file system (localfs, nfs), or in the group"
    )
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        help="an image file, or a directory: all files in it, not those deeper; on LVM /dev/GROUP/VOLUME or /dev/GROUP",
    )
    parser.add_argument(
        "--format", metavar="FORMAT", required=True,
        help="raw or qcow2, of files that nothing stands on; that of a base is what stands on it says",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="print what would become of each file; change nothing")
    add_wait(parser)
    add_verb_options(parser)


def run_adopt(session: Session, arguments: argparse.Namespace) -> int:
    paths = [absolute(path) for path in arguments.paths]
    plan = session.engine.plan_adoption(arguments.repo, paths, arguments.format)
    out = session.out
    document: dict[str, Any] = {"repository": arguments.repo, **_json(plan), "images": []}
    if arguments.dry_run:
        _show(session, plan, {})
        out.document(document)
        return 0 if plan.images else _INCOMPLETE
    made = session.engine.adopt_images(arguments.repo, plan, session.options(arguments))
    _show(session, plan, made)
    out.flush()
    out.say("The files lose their old names one after the other: whatever used them by those has to be changed.")
    document["images"] = [{"image": image, "path": path} for path, image in made.items()]
    ids = list(made.values())
    tell = _followed if arguments.wait else _told
    return tell(session, arguments.repo, ids, document)


def _json(plan: Plan) -> dict[str, Any]:
    return {
        "plan": [item._asdict() | {"facts": list(item.facts)} for item in plan.images],
        "refused": [{"path": path, "reason": why} for path, why in plan.refused],
    }


def _show(session: Session, plan: Plan, ids: dict[str, str]) -> None:
    for item in plan.images:
        kind = "disk" if item.mutable else "snapshot"
        base = f", on {printable(item.base)}" if item.base else ""
        what = f"{kind} of {human(item.size)}, {item.format}{base}"
        session.out.line(f"{ids.get(item.path, 'becomes')}  {printable(item.path)}  {what}")
    for path, why in plan.refused:
        session.out.say(f"Stays as it is: {printable(path)}: {printable(why)}")


def _task(session: Session, images: list[str], but: Collection[str] = ()) -> Task | None:
    """A task of this host that works on one of the images, other than those ``but``."""
    tasks = session.engine.list_tasks()
    return next((task for task in tasks if task.id not in but and set(images) & set(task.images)), None)


def _told(session: Session, repo_id: str, images: list[str], document: dict[str, Any]) -> int:
    """Say who does what is left. The verb succeeded whatever this finds."""
    session.out.document(document)
    try:
        task = _task(session, images)
        done = task is None and all(usable(session.engine.get_image_status(repo_id, image)) for image in images)
    except DiskwrightError:
        return 0
    if task is not None:
        session.out.say(
            f"Committed; the work goes on in process {task.process.pid}: diskwright check {quoted(repo_id)}"
        )
    elif done:
        session.out.say("Committed and usable.")
    else:
        session.out.say(f"Committed. What is left are fixes: diskwright check {quoted(repo_id)}")
    return 0


def _followed(session: Session, repo_id: str, images: list[str], document: dict[str, Any]) -> int:
    from tui.cli.follow import INTERRUPTED, exit_code, follow_all

    try:
        failed = follow_all(session, lambda followed: _task(session, images, followed))
    except KeyboardInterrupt:
        session.out.document({**document, "detached": True})
        session.out.say(f"Detached, work goes on. Look: diskwright check {quoted(repo_id)}")
        return INTERRUPTED
    reports = {image: session.engine.get_image_status(repo_id, image) for image in images}
    for item in document["images"]:
        item["status"] = str(reports[item["image"]].status)
    session.out.document({**document, "detached": False})
    broken = [report for report in reports.values() if not usable(report)]
    if not broken:
        session.out.say(f"All {len(images)} are images now.")
        return 0
    session.out.say(f"diskwright: {len(broken)} of {len(images)} are not: {printable(broken[0].reason)}")
    return exit_code(failed[0].get("code")) if failed else _INCOMPLETE


HANDLERS = {"import": Handler(add_import, run_import), "adopt": Handler(add_adopt, run_adopt)}
