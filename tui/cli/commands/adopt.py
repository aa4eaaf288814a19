"""adopt: files become images of a repository as they are, with their chains, and nothing is copied."""

from __future__ import annotations

import argparse
from typing import Any

from engine.data.adoption import Plan
from engine.data.amounts import human
from engine.errors import DiskwrightError
from tui.cli.arguments import Parser, add_verb_options
from tui.cli.session import Handler, Session, absolute, usable
from tui.text.printable import printable, quoted

_INCOMPLETE = DiskwrightError.exit_code


def add_adopt(parser: Parser) -> None:
    parser.add_argument("repo", metavar="REPO", help="a repository on the same file system, localfs or nfs")
    parser.add_argument(
        "paths", metavar="PATH", nargs="+", help="an image file, or a directory: all files in it, not those deeper"
    )
    parser.add_argument(
        "--format", metavar="FORMAT", required=True,
        help="raw or qcow2, of files that nothing stands on; that of a base is what stands on it says",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="print what would become of each file; change nothing")
    parser.add_argument("--wait", action="store_true", help="return when the work is done; Ctrl-C only detaches")
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
    return _followed(session, arguments.repo, ids, document) if arguments.wait else _told(session, arguments, document)


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


def _told(session: Session, arguments: argparse.Namespace, document: dict[str, Any]) -> int:
    session.out.document(document)
    session.out.say(f"Committed. What is left is a fix for each: diskwright check {quoted(arguments.repo)}")
    return 0


def _followed(session: Session, repo_id: str, images: list[str], document: dict[str, Any]) -> int:
    from tui.cli.follow import INTERRUPTED, Follower, exit_code, failures

    task = next((task for task in session.engine.list_tasks() if set(images) & set(task.images)), None)
    try:
        failed = failures(Follower(session, task).run()) if task is not None else []
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


HANDLERS = {"adopt": Handler(add_adopt, run_adopt)}
