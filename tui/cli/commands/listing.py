"""images: what is in a repository, the worst first. One image is looked at by ``look``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from engine.data.model import ImageReport, is_id
from tui.cli.arguments import Parser
from tui.cli.render import Output
from tui.cli.session import Handler, Session, image_json, kind, running, shown_status
from tui.text.amounts import compact
from tui.text.printable import printable, quoted

SEVERITY = ("broken", "unknown", "degraded", "removed", "hidden", "optimized")
_ORDERS: dict[str, Callable[[ImageReport], tuple[object, ...]]] = {
    "severity": lambda image: (SEVERITY.index(_state(image)), image.name, image.id),
    "name": lambda image: (not image.name, image.name, image.id),
    "size": lambda image: (-image.size_bytes, image.name, image.id),
    "used": lambda image: (-image.used_bytes, image.name, image.id),
    "id": lambda image: (image.id,),
}
_NAME_COLUMNS = 20
_REASON_COLUMNS = 34
"""What is told of an image beside its reason goes rather than that the reason gets less."""


def add_images(parser: Parser) -> None:
    parser.add_argument("repo", metavar="REPO")
    parser.add_argument("--status", choices=SEVERITY, action="append", help="only these (repeatable)")
    parser.add_argument("--kind", choices=("disk", "snapshot"), help="only these")
    parser.add_argument("--name", metavar="GLOB", help="only images with such a name, as 'web-*'")
    parser.add_argument("--sort", choices=tuple(_ORDERS), default="severity", help="size and used: the largest first")
    parser.add_argument("--limit", metavar="N", type=int, help="at most so many")
    parser.add_argument("--wide", action="store_true", help="whole ids and reasons, and the strategy")
    parser.add_argument("--all", action="store_true", help="also hidden data, which something else still needs")


def run_images(session: Session, arguments: argparse.Namespace) -> int:
    out = session.out
    report = session.engine.inspect_repository(arguments.repo)
    every = report.images
    hidden = [finding for finding in report.findings if finding.kind == "unknown" and not is_id(finding.subject)]
    found = sorted((image for image in every if _wanted(image, arguments)), key=_ORDERS[arguments.sort])
    images = found if arguments.limit is None else found[: max(0, arguments.limit)]
    document: dict[str, Any] = {"repository": arguments.repo, "images": [image_json(image) for image in images]}
    if hidden:
        document["incomplete"] = [{"name": finding.subject, "reason": finding.text} for finding in hidden]
    out.document(document)
    if out.json_wanted:
        return 0
    _print(out, images, arguments.wide)
    if len(images) < len(found):
        out.say(f"{len(found) - len(images)} more; give a higher --limit.")
    for finding in hidden:
        out.say(f"There may be more: {printable(finding.text)}.")
    if not found:
        name = printable(arguments.repo)
        shown = any(not image.hidden for image in every)
        next_step = "none is like that" if shown else f"Next: diskwright create-disk {quoted(arguments.repo)} SIZE"
        out.say(f"{name} has no image. {next_step}" if not shown else f"Of the images of {name} {next_step}.")
    return 0


def _wanted(image: ImageReport, arguments: argparse.Namespace) -> bool:
    return (
        (arguments.all or not image.hidden)
        and (not arguments.status or _state(image) in arguments.status)
        and (arguments.kind is None or kind(image) == arguments.kind)
        and (arguments.name is None or fnmatchcase(image.name, arguments.name))
    )


def _state(image: ImageReport) -> str:
    return "hidden" if image.hidden else shown_status(image)


def _print(out: Output, images: Sequence[ImageReport], wide: bool) -> None:
    ids = {image.id: image.id for image in images} if wide else out.short([image.id for image in images])
    states = [_state(image) for image in images]
    rows = [
        (
            ids[image.id],
            out.status(state, usable=False),
            _name(image, wide),
            kind(image),
            compact(image.size_bytes),
            compact(image.used_bytes),
            str(image.strategy),
            printable(f"{running(image)}; {image.reason}" if image.busy else image.reason),
        )
        for image, state in zip(images, states, strict=True)
    ]
    heads = ("ID", "STATUS", "NAME", "KIND", "SIZE", "USED", "STRATEGY", "REASON")
    out.table(heads, rows, states, 1, frozenset({4, 5}), (6, 3, 5), whole=wide, least=_REASON_COLUMNS)


def _name(image: ImageReport, wide: bool) -> str:
    from tui.text.printable import cut

    name = printable(image.name) or "-"
    return name if wide else cut(name, _NAME_COLUMNS)


HANDLERS = {
    "images": Handler(add_images, run_images),
}
