"""log: the history of this host."""

from __future__ import annotations

import argparse
import contextlib

from engine.data.model import is_id
from engine.errors import DiskwrightError
from tui.cli.arguments import PREFIX_DIGITS, Parser, count
from tui.cli.render import Output
from tui.cli.session import Handler, Session
from tui.text.amounts import duration, moment
from tui.work import away
from tui.work.history import Entry, History

_LIMIT = 50
_REASON_COLUMNS = 24


def add_log(parser: Parser) -> None:
    parser.add_argument("repo", metavar="REPO", nargs="?", default="", help="only what was done there")
    parser.add_argument("image", metavar="IMAGE", nargs="?", default="", help="only this image, by name or id")
    parser.add_argument("--limit", metavar="N", type=count, default=_LIMIT, help=f"the last N (default: {_LIMIT})")


def run_log(session: Session, arguments: argparse.Namespace) -> int:
    notes = session.engine.notes
    with contextlib.suppress(DiskwrightError):  # the history is shown as far as it goes
        away.settle(notes)
    entries = sorted(History(notes).entries(), key=lambda entry: entry.when)  # what has ended was entered later
    called = _called(session, arguments.repo, arguments.image)
    found = [entry for entry in entries if _wanted(entry, arguments.repo, arguments.image, called)]
    shown = found[-arguments.limit :]
    session.out.document({"host": session.host, "entries": [entry._asdict() for entry in shown]})
    _print(session.out, shown)
    if len(shown) < len(found):
        session.out.say(f"{len(found) - len(shown)} more before; give a higher --limit.")
    if not found:
        session.out.say("Nothing like that was done on this host.")
    return 0


def _called(session: Session, repo: str, image: str) -> frozenset[str]:
    """The ids of the images that have that name now, whatever they were called before."""
    if image and not is_id(image):
        with contextlib.suppress(DiskwrightError):  # the names that the history noted are left
            return frozenset(session.names.having(repo, image))
    return frozenset()


def _wanted(entry: Entry, repo: str, image: str, called: frozenset[str]) -> bool:
    """An image may be gone by now, so that only the history can say which one is meant."""
    if repo and entry.repo_id != repo:
        return False
    ids = entry.image, entry.made
    by_id = len(image) >= PREFIX_DIGITS and any(id.startswith(image.lower()) for id in ids)
    by_name = image == entry.name or (entry.made and image == entry.text)
    return not image or by_id or bool(by_name) or not called.isdisjoint(ids)


def _print(out: Output, entries: list[Entry]) -> None:
    rows = [
        (
            moment(entry.when),
            f"{entry.user} ({entry.face})",
            entry.verb,
            entry.repo_id or "-",
            entry.name or entry.image[:8] or "-",
            duration(entry.seconds) if entry.seconds >= 1 else "-",
            entry.outcome + (f" ({entry.text})" if entry.text else ""),
        )
        for entry in entries
    ]
    out.table(
        ("WHEN", "WHO", "WHAT", "REPOSITORY", "IMAGE", "TIME", "RESULT"), rows, give_up=(5, 3, 1), least=_REASON_COLUMNS
    )


HANDLERS = {
    "log": Handler(add_log, run_log),
}
