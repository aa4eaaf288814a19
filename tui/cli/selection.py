"""Which fixes an operator means: by id, by kind, from a file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple

from engine.data.model import Fix, FixCost, FixType
from engine.errors import Ambiguous, BadRequest, NotFound
from engine.triage import rules
from tui.cli.arguments import Parser, UsageError, add_deep, fix_file
from tui.text.printable import quoted

_MIN_PREFIX = 4


def add_selectors(parser: Parser) -> None:
    parser.mixed = True
    parser.add_argument("repo", metavar="REPO")
    parser.add_argument("ids", metavar="ID", nargs="*", help="fixes as check prints them; the first digits do")
    parser.add_argument("--type", action="append", choices=[str(item) for item in FixType], help="repeatable")
    parser.add_argument("--all", action="store_true", help="every fix that can be undone")
    parser.add_argument(
        "--irreversible",
        action="store_true",
        help="also what cannot be undone: removed images deleted, images merged, data given up",
    )
    parser.add_argument(
        "--file",
        metavar="FILE",
        help="fixes as `check --json` printed them, here or on another host; -: standard input",
    )
    add_deep(parser)


class Choice(NamedTuple):
    """Which fixes the operator means."""

    named: tuple[Fix, ...]
    """Named one by one; empty when they are chosen by kind."""
    types: frozenset[str]
    """Kinds of fixes; all when nothing else was said."""
    irreversible: bool
    """What cannot be undone may be done."""
    every: bool = False
    """Chosen by ``--all``, which never means what cannot be undone."""
    rate: int = 0
    """Bytes per second that they may move; 0: as fast as it goes."""

    @property
    def by_kind(self) -> bool:
        """Whether fixes that turn up later are meant too."""
        return not self.named

    def of(self, fixes: Sequence[Fix]) -> list[Fix]:
        """The chosen ones of the fixes that check offers, in the order to run them in."""
        if self.named:
            return list(self.named)
        return [fix for fix in fixes if str(fix.type) in self.types and fix.rule not in rules.BY_ID_ONLY]

    def forbids(self, fix: Fix) -> bool:
        """Whether the fix cannot be undone, and nobody said that it may be done."""
        return fix.irreversible and not self.irreversible

    def skipped(self, fix: Fix) -> str:
        """Why a chosen fix is not run now, "" when it is."""
        if self.forbids(fix):
            return f"it cannot be undone ({fix.risk}): --irreversible runs it"
        return f"it waits for {fix.waits_for}" if fix.waits_for else ""


def chosen(arguments: argparse.Namespace, fixes: Sequence[Fix], everything: bool) -> Choice:
    """What the selectors mean among the fixes that check offers. ``everything``: no selector means all."""
    ways = [bool(arguments.ids), bool(arguments.all or arguments.type), arguments.file is not None]
    if sum(ways) > 1:
        raise UsageError("name fixes by id, by --all or --type, or by --file; not in two ways at once")
    if not any(ways) and not everything:
        raise UsageError(
            "no fix was named",
            f"diskwright check {quoted(arguments.repo)} lists them; --all means all that can be undone",
        )
    if arguments.ids:
        return Choice(tuple(_named(fixes, arguments.ids)), frozenset(), arguments.irreversible)
    if arguments.file is not None:
        given = _from_file(arguments.file)
        known = {fix.id: fix for fix in fixes}
        # What a stranger says a fix costs is not repeated; what it does is for the engine to verify.
        named = tuple(known.get(fix.id) or fix._replace(cost=FixCost()) for fix in given)
        return Choice(named, frozenset(), arguments.irreversible)
    types = frozenset(arguments.type) if arguments.type and not arguments.all else frozenset(map(str, FixType))
    return Choice((), types, arguments.irreversible, not arguments.type or arguments.all)


def _named(fixes: Sequence[Fix], texts: list[str]) -> list[Fix]:
    """The fixes with those ids or beginnings of ids, in the order of the check."""
    wanted = set()
    for text in texts:
        found = [fix.id for fix in fixes if len(text) >= _MIN_PREFIX and fix.id.startswith(text.lower())]
        if not found:
            raise NotFound(
                f"check offers no fix {text!r:.60} now",
                f"diskwright check lists them; give {_MIN_PREFIX} or more digits of an id",
            )
        if len(found) > 1:
            raise Ambiguous(f"{text} is the beginning of the fixes {', '.join(found[:8])}", "Give more digits")
        wanted.add(found[0])
    return [fix for fix in fixes if fix.id in wanted]


def _from_file(path: str) -> list[Fix]:
    """The fixes in a file."""
    data = fix_file(path)
    if isinstance(data, dict) and "fixes" in data:
        data = data["fixes"]
    items = [data] if isinstance(data, dict) else data
    if not isinstance(items, list) or not items:
        raise BadRequest("the file has no fix", "Give a fix, a list of fixes, or what check --json printed")
    return [Fix.from_json(item) for item in items]


def selection(arguments: argparse.Namespace) -> str:
    """The selectors as they were given, for the command to type next."""
    words = [f"--type {kind}" for kind in arguments.type or ()] if not arguments.all else []
    words += arguments.ids
    words += ["--file", quoted(arguments.file)] if arguments.file is not None else []
    words = words or ["--all"]
    return " ".join(words + ["--irreversible"] * arguments.irreversible + ["--deep"] * arguments.deep)
