"""What a shell offers while a command line is typed: commands, options, and what is there by name.

argcomplete does the shells' part: the shell runs ``diskwright`` with ``_ARGCOMPLETE`` set, ``main`` comes here before
anything else, and nothing is written but what is offered. What cannot be read offers nothing, and no error.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import Any, cast

from engine.data.model import FileFormat, Packing, VolumeFormat
from engine.errors import DiskwrightError
from tui.cli.arguments import GLOBAL_VALUES, Parser, add_global
from tui.cli.help import COMMANDS, TOPICS
from tui.cli.render import Output
from tui.cli.session import Session, host_name, state_directory

SHELLS = ("bash", "zsh", "fish")
_LINE = "COMP_LINE"

Offers = dict[str, str]
"""What is offered, with what is said about it where the shell shows that."""


def answer() -> int:
    """Offer what fits the line that the shell has put into the environment."""
    import argcomplete

    argcomplete.autocomplete(make_parser(os.environ.get(_LINE, "").split()), always_complete_options=False)
    return 0  # without what a shell gives there is nothing to complete


def script(shell: str) -> str:
    """What a shell reads to complete ``diskwright``."""
    from argcomplete.shell_integration import shellcode

    return shellcode(["diskwright"], shell=shell).strip() + "\n"


def make_parser(words: Iterable[str]) -> argparse.ArgumentParser:
    """A parser of everything. Only the command among ``words`` has its arguments: the others' modules cost time."""
    words = list(words)
    top = argparse.ArgumentParser(prog="diskwright", allow_abbrev=False)
    add_global(top)
    top.add_argument("--version", action="store_true", help="print the version, and the formats on disk")

    def command(**given: Any) -> argparse.ArgumentParser:
        name = str(given["prog"]).rpartition(" ")[2]
        parser = Parser(name, "", "")
        if name in COMMANDS and name in words:
            import_module(COMMANDS[name].module).HANDLERS[name].add(parser)
            _Offers(words).attach(parser, name)
        elif name == "help":
            parser.add_argument("topic", nargs="?", choices=(*TOPICS, *COMMANDS))
        return parser

    commands = top.add_subparsers(parser_class=cast(type[argparse.ArgumentParser], command))
    for name, item in COMMANDS.items():
        commands.add_parser(name, help=item.summary)
    commands.add_parser("help", help="what a command, or a topic, is about")
    return top


class _Offers:
    """What is there on this host, by what an argument is called in the help."""

    def __init__(self, words: list[str]) -> None:
        self._words = words

    @functools.cached_property
    def _session(self) -> Session:
        given = {word: after for word, after in itertools.pairwise(self._words) if word in GLOBAL_VALUES}
        given |= {word.partition("=")[0]: word.partition("=")[2] for word in self._words if "=" in word}
        host = host_name(given.get("--host"))
        return Session(Output(), host, state_directory(given.get("--state"), host))

    def attach(self, parser: argparse.ArgumentParser, command: str) -> None:
        """Have the arguments of a command offer what they may be."""
        known: dict[str, Callable[..., Offers]] = {
            "REPO": self._repositories,
            "REPO|RULE": self._repositories,
            "IMAGE": self._images_everywhere if command == "copy" else self._images,
            "DISK": self._images,
            "SNAPSHOT": self._images_everywhere,
            "FORMAT": {"export": self._formats_of_exports, "adopt": self._formats_of_volumes}.get(
                command, self._formats
            ),
        }
        if command in ("fix", "plan"):
            known["ID"] = self._fixes
        for action in parser._actions:
            words = action.metavar if isinstance(action.metavar, str) else ""
            if words in known and not (command == "connect" and words == "REPO"):
                action.completer = _quiet(known[words])  # type: ignore[attr-defined]

    def _repositories(self, **line: Any) -> Offers:
        return {name: connection.format for name, connection in self._session.engine.list_repositories().items()}

    def _images(self, **line: Any) -> Offers:
        return self._of(str(line["parsed_args"].repo), str(line["prefix"]))

    def _images_everywhere(self, **line: Any) -> Offers:
        found: Offers = {}
        for repo_id in self._session.engine.list_repositories():
            found |= self._of(repo_id, str(line["prefix"]))
        return found

    def _of(self, repo_id: str, prefix: str) -> Offers:
        """The images of a repository by their names, where those say which is meant; else, and on request, by ids."""
        images = self._session.engine.list_images(repo_id)
        names = [image.name for image in images]
        found = {}
        for image in images:
            about = f"{image.status}, {image.reason}"
            if image.name and names.count(image.name) == 1:
                found[image.name] = about
            if not image.name or names.count(image.name) > 1 or (prefix and image.id.startswith(prefix)):
                found[image.id] = about
        return found

    def _fixes(self, **line: Any) -> Offers:
        from tui.cli.fixes import called, names_of

        report = self._session.engine.inspect_repository(str(line["parsed_args"].repo))
        names = names_of(report.images)
        return {fix.id: f"{fix.type} {called(names, fix.target)}" for fix in report.fixes}

    def _formats(self, **line: Any) -> Offers:
        from engine.formats.registry import known_formats

        if hasattr(line["parsed_args"], "parameters"):
            return dict.fromkeys(known_formats(), "of repositories")
        packed = (f"{format}.{packing}" for format in VolumeFormat for packing in Packing)
        return dict.fromkeys((*VolumeFormat, *FileFormat, *packed), "of image files")

    def _formats_of_volumes(self, **line: Any) -> Offers:
        return dict.fromkeys(VolumeFormat, "of files that become volumes")

    def _formats_of_exports(self, **line: Any) -> Offers:
        from engine.verbs.export import FORMATS

        return dict.fromkeys(FORMATS, "of image files")


def _quiet(offer: Callable[..., Offers]) -> Callable[..., Offers]:
    def offers(**line: Any) -> Offers:
        try:
            return dict(_plain(offer(**line)))
        except DiskwrightError:
            return {}

    return offers


def _plain(found: Offers) -> Iterator[tuple[str, str]]:
    """Without what nobody could type, or a terminal should not get."""
    from tui.text.printable import printable

    for word, about in found.items():
        if word.isprintable():
            yield word, printable(about)
