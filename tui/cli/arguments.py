"""What a command line says: the parser, the options that several commands share, sizes and JSON."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from engine.errors import BadRequest, NotFound, from_os_error
from tui.cli.render import columns

_SIZE = re.compile(r"([0-9]{1,20})(?:\.([0-9]{1,9}))?([KMGTPE]?)(I?B)?\Z")
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50, "E": 60}
_SECTOR = 512
_MAX_INPUT_BYTES = 1 << 20
_MAX_FIX_FILE_BYTES = 64 << 20
_QUOTE = "Quote text as in '\"text\"'"
_VALID = "Give one JSON value"
_FIXES = "Give what diskwright check --json printed"

PREFIX_DIGITS = 4
"""So many digits of an id, or more, name an image."""
IMAGE = f"its name, its id, or the first {PREFIX_DIGITS} digits of that or more"
"""The help of an argument that names an image."""


class UsageError(Exception):
    """The command line cannot be understood; exit code 2."""

    def __init__(self, message: str, next_step: str = "See diskwright --help") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step


class Parser(argparse.ArgumentParser):
    """A parser that raises instead of ending the process, and measures the terminal without shutil."""

    def __init__(self, command: str, summary: str, example: str) -> None:
        wide = min(columns(sys.stdout), 120) - 2
        super().__init__(
            prog=f"diskwright {command}",
            description=summary,
            epilog=example,
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=wide, max_help_position=32),
            allow_abbrev=False,
        )
        self.mixed = False
        """Options may stand between the items of a list of arguments."""
        add_global(self)

    def error(self, message: str) -> NoReturn:
        """Raise UsageError; argparse would print its own words and exit."""
        raise UsageError(message, f"See {self.prog} --help")

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """The parsed arguments, or UsageError."""
        return self.parse_intermixed_args(words) if self.mixed else self.parse_args(words)


def add_global(parser: argparse.ArgumentParser) -> None:
    """Options that every command knows, before or after its name."""
    group = parser.add_argument_group("options of every command")
    group.add_argument("--json", action="store_true", help="one JSON document on standard output")
    group.add_argument("--host", metavar="NAME", help="name of this host (default: $DISKWRIGHT_HOST, the host name)")
    group.add_argument("--state", metavar="DIR", help="where this host keeps its notes (default: $DISKWRIGHT_STATE)")
    group.add_argument("--no-color", action="store_true", help="no colours (also: $NO_COLOR)")


GLOBAL_FLAGS = frozenset({"--json", "--no-color"})
GLOBAL_VALUES = frozenset({"--host", "--state"})


def add_verb_options(parser: argparse.ArgumentParser, auto_fix: bool = True) -> None:
    """Options of the API that every verb knows; ``auto_fix``: the verb commits work to be done."""
    group = parser.add_argument_group("options of the verb")
    if auto_fix:
        group.add_argument("--no-auto-fix", action="store_true", help="commit only; the work waits for a fix")
        group.add_argument("--strategy", metavar="WHAT", help="space (the default) or performance")
    group.add_argument(
        "--participating", metavar="REPO", action="append", help="look for images only here (repeatable)"
    )
    group.add_argument(
        "--hint", metavar="IMAGE=REPO", action="append", help="read that image from that repository (repeatable)"
    )
    group.add_argument("-o", metavar="KEY=VALUE", action="append", dest="option", help="any option of the API")


def add_user_data(parser: argparse.ArgumentParser) -> None:
    """``--name`` and ``--user-data`` of the verbs that make an image."""
    parser.add_argument("--name", metavar="NAME", help="what people call it; kept in its user data")
    parser.add_argument("--user-data", metavar="JSON", help="JSON text, @FILE, or - for standard input")


def add_deep(parser: argparse.ArgumentParser) -> None:
    """``--deep`` of the verbs that look."""
    parser.add_argument("--deep", action="store_true", help="read the data too: digests, qemu-img check, real sizes")


def add_rate(parser: argparse.ArgumentParser) -> None:
    """``--rate`` of the verbs that start work which moves data."""
    parser.add_argument("--rate", metavar="RATE", help="move so much in a second at most, as 50M; rate changes it")


def add_quiesce(parser: argparse.ArgumentParser) -> None:
    """``--quiesce`` of the verbs that take a snapshot of a disk whose machine runs."""
    parser.add_argument(
        "--quiesce", action="store_true", help="have the guest agent freeze its file systems for that, or do nothing"
    )


# -- values


def parse_rate(text: str | None) -> int:
    """Bytes per second: a size, or "off" for no limit (0), which None is too."""
    return 0 if text is None or text.strip().lower() == "off" else parse_size(text)


def parse_size(text: str) -> int:
    """Bytes of 512, 10G, 10GiB, 1.5T: binary units. A fraction that is no whole number of bytes is
    rounded up to 512. BadRequest for anything else; what an image can have is the engine's to say."""
    match = _SIZE.match(text.strip().upper())
    if match is None or (match[4] == "B" and match[3]):
        raise BadRequest(f"{text!r:.80} is not a size", "Write bytes, or a number with K, M, G, T (1K is 1024), as 10G")
    fraction = match[2] or ""
    scaled = int(match[1] + fraction) << _UNITS[match[3]]
    divisor: int = 10 ** len(fraction)
    if scaled % divisor == 0:
        return scaled // divisor
    return -(-scaled // (divisor * _SECTOR)) * _SECTOR


def count(text: str) -> int:
    """So many of something: 1 or more; else an error of argparse."""
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not a number from 1")
    return int(text)


def key_values(items: Sequence[str], what: str) -> dict[str, str]:
    """KEY=VALUE arguments as a dictionary; each key once."""
    found: dict[str, str] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise UsageError(f"{what} {item!r:.80} is not KEY=VALUE")
        if key in found:
            raise UsageError(f"{what} {key!r:.60} was given twice")
        found[key] = value
    return found


def parse_json(text: str, what: str, next_step: str) -> Any:
    """The value of a JSON text. NaN and Infinity are no JSON."""
    import json

    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BadRequest(f"{what} is not JSON: {reason}", next_step) from None


def json_argument(text: str, what: str) -> Any:
    """The JSON value of an argument: the text itself, ``@FILE``, or ``-`` for standard input."""
    if text == "-":
        return parse_json(_read_standard_input(what, _MAX_INPUT_BYTES), what, _VALID)
    if text.startswith("@"):
        return parse_json(read_text(text[1:], _MAX_INPUT_BYTES), f"{text[1:]!r:.200}", _VALID)
    return parse_json(text, what, _QUOTE)


def fix_file(path: str) -> Any:
    """What ``fix --file`` names, as JSON data."""
    if path == "-":
        return parse_json(_read_standard_input("standard input", _MAX_FIX_FILE_BYTES), "standard input", _FIXES)
    return parse_json(read_text(path, _MAX_FIX_FILE_BYTES), f"{path!r:.200}", _FIXES)


def read_text(path: str, limit: int) -> str:
    """A file of the operator as text; NotFound, BadRequest (too long, not UTF-8), StorageError."""
    try:
        with open(path, "rb") as stream:
            raw = stream.read(limit + 1)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path!r:.200}", "Give the right path") from None
    except ValueError:
        raise BadRequest(f"{path!r:.200} cannot be the name of a file") from None
    except OSError as error:
        raise from_os_error(error, f"read {path!r:.200}") from error
    return _decoded(raw, limit, f"{path!r:.200}")


def _read_standard_input(what: str, limit: int) -> str:
    if sys.stdin is None:
        raise BadRequest(f"{what} was to be read from standard input, which is closed")
    stream = getattr(sys.stdin, "buffer", None)
    raw = stream.read(limit + 1) if stream is not None else sys.stdin.read(limit + 1).encode()
    return _decoded(raw, limit, "standard input")


def _decoded(raw: bytes, limit: int, name: str) -> str:
    if len(raw) > limit:
        raise BadRequest(f"{name} is longer than {limit} bytes")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequest(f"{name} is not UTF-8 text") from None


def option_value(text: str) -> Any:
    """The value of ``-o KEY=VALUE``: JSON where it is JSON, else the text itself."""
    try:
        return parse_json(text, "option", _QUOTE)
    except BadRequest:
        return text
