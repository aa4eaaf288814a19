"""images: what is in a repository, the worst first. One image is looked at by ``look``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from engine.data.model import ImageReport, is_id
from tui.cli.arguments import Parser, count
from tui.cli.render import Output
from tui.cli.session import Handler, Session, image_json, kind, looked, running, shown_status
from tui.cli.watch import add_watch, shown
from tui.text.amounts import compact
from tui.text.printable import printable, quoted

if TYPE_CHECKING:
    from engine.api import Engine
    from tui.view.families import Family, Member

SEVERITY = ("broken", "unknown", "degraded", "removed", "hidden", "optimized")
_ORDERS: dict[str, Callable[[ImageReport], tuple[object, ...]]] = {
    "severity": lambda image: (SEVERITY.index(_state(image)), not image.name, image.name, image.id),
    "name": lambda image: (not image.name, image.name, image.id),
    "size": lambda image: (-image.size_bytes, image.name, image.id),
    "used": lambda image: (-image.used_bytes, image.name, image.id),
    "id": lambda image: (image.id,),
}
T = TypeVar("T")

_NAME_COLUMNS = 20
_REASON_COLUMNS = 34
"""What is told of an image beside its reason goes rather than that the reason gets less."""


def add_images(parser: Parser) -> None:
    parser.add_argument("repo", metavar="REPO", nargs="?", default="", help="default: all that are connected")
    only = f"only these (repeatable): {', '.join(SEVERITY)}"
    parser.add_argument("--status", choices=SEVERITY, metavar="STATUS", action="append", help=only)
    parser.add_argument("--kind", choices=("disk", "snapshot"), help="only these")
    parser.add_argument("--name", metavar="GLOB", help="only images with such a name, as 'web-*'")
    parser.add_argument("--sort", choices=tuple(_ORDERS), default="severity", help="size and used: the largest first")
    parser.add_argument("--limit", metavar="N", type=count, help="at most so many")
    parser.add_argument("--wide", action="store_true", help="whole ids and reasons, and the strategy")
    parser.add_argument(
        "--tree",
        action="store_true",
        help="families: what stands on what, own and shared bytes; --status, --kind and --name choose whole ones",
    )
    add_watch(parser)
    parser.add_argument("--all", action="store_true", help="also hidden data, which something else still needs")


def run_images(session: Session, arguments: argparse.Namespace) -> int:
    if arguments.tree:
        shown(
            session.out,
            arguments.watch,
            lambda: _trees(session, arguments),
            lambda found: _tree_json(arguments.repo, found),
            lambda found: _print_tree(session.out, found, not arguments.repo),
        )
        return 0
    shown(
        session.out,
        arguments.watch,
        lambda: _found(session, arguments),
        lambda found: _document(arguments.repo, found),
        lambda found: _print_found(session.out, arguments, found),
    )
    return 0


class _Found(NamedTuple):
    """What a look found."""

    images: list[tuple[ImageReport, str]]
    """Those to show, with the repository of each."""
    more: int
    """So many that would be shown too are over the limit."""
    nothing: str
    """Why there is none, "" where there is one."""
    hidden: list[tuple[str, str]]
    """What may hide images that could not be read, with the reason."""


def _found(session: Session, arguments: argparse.Namespace) -> _Found:
    """Images of the repository that is named, or of all; of those one that cannot be read hides the others' not."""
    images, hidden, any_there = list[tuple[ImageReport, str]](), list[tuple[str, str]](), False
    for repo_id, report in looked(session.engine, _named(arguments), session.engine.inspect_repository, hidden):
        any_there = any_there or any(not image.hidden for image in report.images)
        images += [(image, repo_id) for image in report.images if _wanted(image, arguments)]
        unread = [finding for finding in report.findings if finding.kind == "unknown" and not is_id(finding.subject)]
        hidden += [(finding.subject, finding.text) for finding in unread]
    images.sort(key=lambda item: _ORDERS[arguments.sort](item[0]))
    shown = images if arguments.limit is None else images[: arguments.limit]
    nothing = "" if images else _nothing(session.engine, arguments.repo, any_there)
    return _Found(shown, len(images) - len(shown), nothing, hidden)


def _named(arguments: argparse.Namespace) -> list[str] | None:
    return [arguments.repo] if arguments.repo else None


def _nothing(engine: Engine, repo_id: str, images: bool) -> str:
    """What is said where nothing is shown, although there may be repositories and images."""
    if not repo_id and not engine.list_repositories():
        return "No repository is connected. Next: diskwright connect NAME FORMAT KEY=VALUE…"
    if images:
        return f"Of the images of {printable(repo_id) or 'the connected repositories'} none is like that."
    there = f"{printable(repo_id)} has" if repo_id else "The connected repositories have"
    return f"{there} no image. Next: diskwright create-disk {quoted(repo_id) if repo_id else 'REPO'} SIZE"


def _document(repo_id: str, found: _Found) -> dict[str, Any]:
    images = [image_json(image) | ({} if repo_id else {"repository": place}) for image, place in found.images]
    document: dict[str, Any] = {"repository": repo_id, "images": images}
    if found.hidden:
        document["incomplete"] = [{"name": name, "reason": reason} for name, reason in found.hidden]
    return document


def _print_found(out: Output, arguments: argparse.Namespace, found: _Found) -> None:
    _print(out, found.images, arguments.wide, bool(arguments.repo))
    if found.more:
        out.say(f"{found.more} more; give a higher --limit.")
    for name, reason in found.hidden:
        out.say(f"There may be more{'' if arguments.repo else f' in {printable(name)}'}: {printable(reason)}.")
    if found.nothing:
        out.say(found.nothing)


def _wanted(image: ImageReport, arguments: argparse.Namespace) -> bool:
    return (
        (arguments.all or not image.hidden)
        and (not arguments.status or _state(image) in arguments.status)
        and (arguments.kind is None or kind(image) == arguments.kind)
        and (arguments.name is None or fnmatchcase(image.name, arguments.name))
    )


def _state(image: ImageReport) -> str:
    return "hidden" if image.hidden else shown_status(image)


def _print(out: Output, images: Sequence[tuple[ImageReport, str]], wide: bool, one: bool) -> None:
    """A table; ``one``: all are of one repository, which needs no column."""
    ids = {image.id: image.id for image, _ in images} if wide else out.short([image.id for image, _ in images])
    states = [_state(image) for image, _ in images]
    rows = [
        (
            ids[image.id],
            out.status(state, usable=False),
            "" if one else printable(place),
            _name(image, wide),
            kind(image),
            compact(image.size_bytes),
            compact(image.used_bytes),
            str(image.strategy),
            printable(f"{running(image)}; {image.reason}" if image.busy else image.reason),
        )
        for (image, place), state in zip(images, states, strict=True)
    ]
    heads = ("ID", "STATUS", "" if one else "REPOSITORY", "NAME", "KIND", "SIZE", "USED", "STRATEGY", "REASON")
    out.table(heads, rows, states, 1, frozenset({5, 6}), (7, 4, 6, 5), whole=wide, least=_REASON_COLUMNS)


def _name(image: ImageReport, wide: bool) -> str:
    from tui.text.printable import cut

    name = printable(image.name) or "-"
    return name if wide else cut(name, _NAME_COLUMNS)


# -- families


class _Trees(NamedTuple):
    """What a look at families found."""

    families: list[tuple[Family, str]]
    """Those that have an image which is asked for, with the repository of each."""
    nothing: str
    """Why there is none, "" where there is one."""
    unread: list[tuple[str, str]]
    """Repositories that could not be read, with the reason."""


def _trees(session: Session, arguments: argparse.Namespace) -> _Trees:
    """Families of the repository that is named, or of all."""
    from tui.view.families import families

    found: list[tuple[Family, str]] = []
    unread, any_there = list[tuple[str, str]](), False
    for repo_id, every in looked(session.engine, _named(arguments), partial(families, session.engine), unread):
        any_there = any_there or bool(every)
        found += [(family, repo_id) for family in every if any(_member_wanted(member, arguments) for member in family)]
    return _Trees(found, "" if found else _nothing(session.engine, arguments.repo, any_there), unread)


def _member_wanted(member: Member, arguments: argparse.Namespace) -> bool:
    return (
        (not arguments.status or member.state in arguments.status)
        and (arguments.kind is None or member.kind == arguments.kind)
        and (arguments.name is None or fnmatchcase(member.name, arguments.name))
    )


def _tree_json(repo_id: str, found: _Trees) -> dict[str, Any]:
    families = [
        {
            "own_bytes": sum(member.own_bytes for member in family),
            "images": [
                {
                    "id": member.id,
                    "name": member.name,
                    "status": str(member.state),
                    "kind": member.kind,
                    "size_bytes": member.size_bytes,
                    "own_bytes": member.own_bytes,
                    "shared_bytes": member.below_bytes,
                    "stands_on": member.parent,
                }
                for member in family
            ],
        }
        | ({} if repo_id else {"repository": place})
        for family, place in found.families
    ]
    document: dict[str, Any] = {"repository": repo_id, "families": families}
    if found.unread:
        document["incomplete"] = [{"name": name, "reason": reason} for name, reason in found.unread]
    return document


def _print_tree(out: Output, found: _Trees, several: bool) -> None:
    """A table; ``several``: with the repository of each family."""
    members = [member for family, _ in found.families for member in family]
    places = [place for family, place in found.families for _ in family]
    ids = out.short([member.id for member in members])
    rows = [
        (
            member.branch(out.unicode) + member.label,
            out.status(member.state, usable=False),
            printable(place) if several else "",
            member.kind,
            compact(member.size_bytes),
            compact(member.own_bytes),
            compact(member.below_bytes) if member.last else "-",
            ids[member.id],
        )
        for member, place in zip(members, places, strict=True)
    ]
    heads = ("NAME", "STATUS", "REPOSITORY" if several else "", "KIND", "SIZE", "OWN", "SHARED", "ID")
    out.table(heads, rows, [str(member.state) for member in members], 1, frozenset({4, 5, 6}), give_up=(3, 4))
    for name, reason in found.unread:
        out.say(f"There may be more in {printable(name)}: {printable(reason)}.")
    if found.nothing:
        out.say(found.nothing)
        return
    own = sum(member.own_bytes for member in members)
    out.say(f"{compact(own)} in all. SHARED: what an image reads besides, in the layers it stands on.")


HANDLERS = {
    "images": Handler(add_images, run_images),
}
