"""The manual page, made of the help and the parsers of all commands: ``python -m tui.cli.manual >diskwright.1``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterator
from importlib import import_module

from engine import __version__
from tui.cli.arguments import Parser, add_global
from tui.cli.help import COMMANDS, GROUPS, HEAD, TOPICS
from tui.cli.topics import topic


def page() -> str:
    """The manual page as roff."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield f'.TH DISKWRIGHT 1 "" "diskwright {__version__}" "User Commands"'
    yield ".SH NAME"
    yield "diskwright \\- a storage engine for the disk images of virtual machines"
    yield ".SH SYNOPSIS"
    yield ".B diskwright\n[\\fIoptions\\fR] \\fICOMMAND\\fR ..."
    yield ".SH DESCRIPTION"
    yield from _as_it_is(HEAD.partition("\n\n")[2])
    yield ".SH OPTIONS OF EVERY COMMAND"
    shared = argparse.ArgumentParser(add_help=False)
    add_global(shared)
    yield from _options(shared)
    for group in GROUPS:
        yield f".SH {_plain(group.upper())}"
        for name, item in COMMANDS.items():
            if item.group == group:
                yield from _command(name)
    for name, about in TOPICS.items():
        yield f".SH {_plain(name.upper())}"
        yield _plain(f"{about[:1].upper()}{about[1:]}.")
        yield from _as_it_is(topic(name))


def _command(name: str) -> Iterator[str]:
    item = COMMANDS[name]
    parser = Parser(name, item.summary, "")
    import_module(item.module).HANDLERS[name].add(parser)
    usage = " ".join(parser.format_usage().removeprefix("usage:").split())
    for shared in ("[-h]", "[--json]", "[--host NAME]", "[--state DIR]", "[--no-color]"):
        usage = usage.replace(f" {shared}", "", 1)
    yield f".SS {_plain(name)}"
    yield _plain(f"{item.summary[:1].upper()}{item.summary[1:]}.")
    yield f".PP\n.B {_plain(usage)}"
    yield from _options(parser, set(_shared_names()))
    yield ".PP"
    yield from _as_it_is(f"  {item.example}")


def _shared_names() -> Iterator[str]:
    shared = argparse.ArgumentParser()
    add_global(shared)
    for action in shared._actions:
        yield from action.option_strings


def _options(parser: argparse.ArgumentParser, without: Collection[str] = ()) -> Iterator[str]:
    for action in parser._actions:
        if action.help in (None, argparse.SUPPRESS) or set(action.option_strings) & {"-h", *without}:
            continue
        value = action.metavar or ("{" + ",".join(map(str, action.choices)) + "}" if action.choices else "")
        value = value if isinstance(value, str) else " ".join(value)
        names = ", ".join(action.option_strings)
        takes = f" {value}" if names and action.nargs != 0 else ""
        yield f".TP\n.B {_plain(f'{names}{takes}' if names else value)}"
        yield _plain(str(action.help))


def _as_it_is(text: str) -> Iterator[str]:
    yield ".nf"
    yield from (_plain(line) for line in text.rstrip().splitlines())
    yield ".fi"


def _plain(text: str) -> str:
    """Text that roff takes for nothing else."""
    words = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    return f"\\&{words}" if words.startswith((".", "'")) else words


if __name__ == "__main__":
    sys.stdout.write(page())
