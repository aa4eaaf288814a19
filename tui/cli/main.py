"""The command ``diskwright``: finds the command, runs it, and turns every error into one sentence.

Only the module of the command at hand is imported: starting must cost little.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from engine.errors import DiskwrightError
from tui.cli.arguments import GLOBAL_FLAGS, GLOBAL_VALUES, Parser, UsageError
from tui.cli.render import Output, OutputClosed, flowed

if TYPE_CHECKING:
    from tui.cli.session import Handler

INTERNAL = 1
USAGE = 2
INTERRUPTED = 130
CLOSED = 141

_CRASH_LOG_BYTES = 4 * 1024 * 1024


class Run:
    """One run of the program: what is known for telling of errors, however early they come."""

    def __init__(self, words: list[str]) -> None:
        before = words[: words.index("--")] if "--" in words else words
        self.out = Output("--json" in before, "--no-color" not in before)
        self.words = before
        self.command = words[len(before) + 1 :]
        self.state = ""

    def run(self) -> int:
        """Find the command and run it; returns its exit code."""
        name, rest = _split(self.words)
        if "-h" in rest or "--help" in rest or name == "help":
            return self._help(rest if name == "help" else [name, *rest])
        if "--version" in rest:
            return self._version()
        if not name:
            return self._no_command()
        return self._dispatch(name, rest)

    def _dispatch(self, name: str, rest: list[str]) -> int:
        parser, handler = _parser(name)
        if self.command and name not in ("prepare", "lab"):
            rest = [*rest, "--", *self.command]
        arguments = parser.read(rest)
        arguments.command = self.command
        from tui.cli.session import Session, host_name, state_directory

        host = host_name(arguments.host)
        self.state = state_directory(arguments.state, host)
        session = Session(self.out, host, self.state)
        try:
            return handler.run(session, arguments)
        finally:
            session.close()

    def _help(self, names: list[str]) -> int:
        from tui.cli.help import top_help

        words = [word for word in names if word and not word.startswith("-")]
        text = _help_of(*words[:2]).rstrip("\n") if words else top_help()
        self.out.line(self._fitting(text))
        self.out.document({"help": text} | _schema(words))
        return 0

    def _fitting(self, text: str) -> str:
        """A help text as wide as lines may be."""
        return flowed(text, self.out.columns) if self.out.bounded else text

    def _version(self) -> int:
        from engine import __version__
        from engine.formats.registry import known_formats

        known = known_formats()
        self.out.line(f"diskwright {__version__} (on disk: {', '.join(known)})")
        self.out.document({"version": __version__, "formats": known})
        return 0

    def _no_command(self) -> int:
        from tui.cli.help import top_help

        if not self.words:
            self.out.say(self._fitting(top_help()))
            return USAGE
        raise UsageError("no command was given")

    # -- errors

    def failed(self, code: str, message: str, next_step: str, exit_code: int) -> int:
        """Tell an error once on each side: a sentence for people, a document for programs."""
        from tui.text.printable import printable

        if not self.out.answered:
            self.out.document({"error": {"code": code, "message": message, "next_step": next_step}})
        self.out.say("diskwright: " + printable(f"{message}. {next_step}." if next_step else f"{message}."))
        return exit_code

    def crashed(self) -> int:
        """An error nobody foresaw: keep the traceback for a report, tell one sentence."""
        import traceback

        text = traceback.format_exc()
        if os.environ.get("DISKWRIGHT_DEBUG", "") not in ("", "0"):
            self.out.say(text.rstrip("\n"))
        what = traceback.format_exception_only(*sys.exc_info()[:2])[-1].strip()
        path = _write_crash(self.state, text)
        where = f"The details are in {path}; report them" if path else "Set DISKWRIGHT_DEBUG=1 to see the details"
        return self.failed("internal", f"this should not have happened: {what[:300].rstrip('. ')}", where, INTERNAL)


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code. Never a traceback, never SystemExit."""
    if "_ARGCOMPLETE" in os.environ:
        from tui.cli import completion

        return completion.answer()
    run = Run(list(sys.argv[1:] if argv is None else argv))
    try:
        return _exit_code(run)
    except OutputClosed:
        _abandon_output()
        return CLOSED


def _exit_code(run: Run) -> int:
    try:
        code = run.run()
        run.out.flush()
    except DiskwrightError as error:
        code = run.failed(error.code, error.message, error.next_step, error.exit_code)
    except KeyboardInterrupt:
        code = run.failed("interrupted", "interrupted", "Work that was started goes on: diskwright tasks", INTERRUPTED)
    except OutputClosed:
        raise
    except UsageError as error:
        code = run.failed("usage", error.message, error.next_step, USAGE)
    except Exception:  # noqa: BLE001 - the last line of defence: told, kept in a file, never shown raw
        code = run.crashed()
    run.out.flush()
    return code


def _split(words: list[str]) -> tuple[str, list[str]]:
    """The command's name ("" for none) and all other words; global options may stand before it."""
    index = 0
    while index < len(words):
        word = words[index]
        if word in GLOBAL_VALUES:
            index += 2
        elif word in GLOBAL_FLAGS or word in ("-h", "--help", "--version") or _has_value(word):
            index += 1
        elif word.startswith("-") and len(word) > 1:
            raise UsageError(f"there is no option {word!r:.60} before the command")
        else:
            return word, words[:index] + words[index + 1 :]
    return "", words


def _has_value(word: str) -> bool:
    return word.startswith(("--host=", "--state="))


def _parser(name: str) -> tuple[Parser, Handler]:
    """The parser of one command, and its code."""
    from importlib import import_module

    from tui.cli.help import COMMANDS

    spec = COMMANDS.get(name)
    if spec is None:
        from difflib import get_close_matches

        near = get_close_matches(name, COMMANDS, 1)
        raise UsageError(
            f"there is no command {name!r:.60}", f"Did you mean {near[0]}" if near else "See diskwright --help"
        )
    handler: Handler = import_module(spec.module).HANDLERS[name]
    parser = Parser(name, f"{spec.summary[:1].upper()}{spec.summary[1:]}.", f"example:\n  {spec.example}")
    handler.add(parser)
    return parser, handler


def _help_of(name: str, action: str = "") -> str:
    """What a command says of itself, those of ``sim`` have parsers of their own; or what a topic is about."""
    from tui.cli.help import TOPICS

    if name in TOPICS:
        from tui.cli.topics import topic

        return topic(name)
    parser, handler = _parser(name)
    own = handler.help_of(action) if action and handler.help_of else ""
    return own or parser.format_help()


def _schema(words: list[str]) -> dict[str, Any]:
    """The schema of documents, where the help about them is asked for as one."""
    if words[:1] != ["json"]:
        return {}
    from tui.cli.schema import schema

    return {"schema": schema()}


def _write_crash(state: str, text: str) -> str:
    """Append a traceback to the crash log of this host; returns its path, "" when that is impossible."""
    if not state:
        return ""
    import time

    path = os.path.join(state, "crash.log")
    try:
        os.makedirs(state, exist_ok=True)
        full = os.path.exists(path) and os.path.getsize(path) > _CRASH_LOG_BYTES
        with open(path, "w" if full else "a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(map(repr, sys.argv))}\n{text}\n")
    except OSError:
        return ""
    return path


def _abandon_output() -> None:
    """Nothing may be written to a closed pipe at exit: the interpreter would complain."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError, AttributeError):
        return


if __name__ == "__main__":
    sys.exit(main())
