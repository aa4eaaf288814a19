"""The one place where programs are run to their end.

Explicit environment, closed standard input, no shell, no time limit unless the caller sets one
(storage may be slow and a killed tool is worse than a slow one). A program runs in a process group
of its own: an interrupt from the keyboard is for us to handle, not for a tool in the middle of its work.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from engine.data.amounts import human
from engine.errors import MAKE_ROOM, NoSpace, StorageError, ToolFailed, ToolMissing
from engine.tools.local.environment import of_a_tool
from engine.tools.local.limits import Limits

if TYPE_CHECKING:
    import subprocess

RECENT_COMMANDS = 50
"""How many are kept for diagnosis."""

READ_WORDS_BYTES = 65536
"""How much of a standard error is looked at: the description of a long chain may come first."""

_MAX_WORDS = 300
_LAST_BREATH_S = 5.0
"""How long a killed program may take to go; one that the kernel holds for dead storage does not go."""


class Command(NamedTuple):
    """A program that was run."""

    arguments: tuple[str, ...]
    exit_code: int | None
    """None while it runs (servers stay so), negative when a signal ended it."""
    words: str
    """Standard error of the program, shortened."""


class Result(NamedTuple):
    """What a program left behind."""

    exit_code: int
    output: bytes
    words: str
    errors: bytes = b""
    """Standard error of the program, whole."""


class CommandRunner:
    """Runs programs of one package and remembers the last ones in ``recent``."""

    def __init__(self, package: str, variables: Sequence[str] = (), die_with_us: bool = False) -> None:
        """``package`` is the Debian package named when a program is missing, ``variables`` those of our
        environment that its programs see as well. ``die_with_us``: a program is killed when this process ends,
        however it ends: what it changes is ours to change only as long as we live."""
        self.package = package
        self.variables = tuple(variables)
        self.die_with_us = die_with_us
        self.recent: list[Command] = []

    def run(
        self,
        arguments: Sequence[str],
        inherit: Sequence[int] = (),
        patience_s: float | None = None,
        limits: Limits | None = None,
    ) -> Result:
        """Run to the end, with ``inherit`` as the only descriptors passed on. ToolMissing: not installed.

        Any exit code is returned; ``failure`` makes an error of it. After ``patience_s`` the program is killed:
        ToolFailed, and what it was to do is done or not.
        """
        import subprocess

        process = self._started(arguments, inherit, subprocess.PIPE, limits)
        try:
            output, errors = process.communicate(timeout=patience_s)
        except subprocess.TimeoutExpired:
            _give_up(process)
            self.remember(arguments, process.returncode, f"no answer within {patience_s:.0f} s")
            raise ToolFailed(
                f"{' '.join(arguments[:2])} did not answer within {patience_s:.0f} s",
                "Check that the storage answers, and that no other command holds its lock",
            ) from None
        except BaseException:
            _give_up(process)  # as subprocess.run does: whoever is interrupted leaves no process behind
            raise
        words = shortened(errors)
        self.remember(arguments, process.returncode, words)
        return Result(process.returncode, output, words, errors)

    def lines(
        self, arguments: Sequence[str], subject: str, limits: Limits | None = None
    ) -> Generator[bytes, None, None]:
        """Run, and yield what is printed line by line as it comes, whatever its length in all. Who closes this before
        the end ends the program. ToolFailed at the end where it failed (``failure``), ToolMissing."""
        errors = os.memfd_create("errors")
        try:
            process = self._started(arguments, (), errors, limits)
            try:
                assert process.stdout is not None
                yield from process.stdout
                process.wait()
            finally:
                _give_up(process)
            raw = os.pread(errors, READ_WORDS_BYTES, 0)
        finally:
            os.close(errors)
        self.remember(arguments, process.returncode, shortened(raw))
        if process.returncode:
            result = Result(process.returncode, b"", shortened(raw), raw)
            raise failure(" ".join(arguments[:2]), subject, result, limits)

    def _started(
        self, arguments: Sequence[str], inherit: Sequence[int], errors: int, limits: Limits | None
    ) -> subprocess.Popen[bytes]:
        """Start a program with its standard error going to ``errors``. ToolMissing, ToolFailed."""
        import subprocess

        passed = {name: os.environ[name] for name in self.variables if name in os.environ}
        try:
            process = subprocess.Popen(
                list(arguments),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=of_a_tool() | passed,
                pass_fds=tuple(inherit),
                process_group=self._group(),
            )
            if limits is not None:
                limits.confine(process)
            return process
        except FileNotFoundError:
            raise self.missing(arguments[0]) from None
        except OSError as error:
            raise ToolFailed(f"cannot run {arguments[0]}: {error.strerror}") from None

    def _group(self) -> int:
        """Return the process group to run a program in; 0: one of its own."""
        if not self.die_with_us:
            return 0
        from engine.tools.local import guardian

        return guardian.group()

    def remember(self, arguments: Sequence[str], exit_code: int | None, words: str) -> None:
        """Add a command to ``recent``."""
        self.recent.append(Command(tuple(arguments), exit_code, words))
        del self.recent[:-RECENT_COMMANDS]

    def missing(self, program: str) -> ToolMissing:
        """Return the error for a program that is not installed."""
        return ToolMissing(f"{program} is not installed", f"Install the package {self.package}")


def _give_up(process: subprocess.Popen[bytes]) -> None:
    """Kill the program, and wait for it only as long as a living one can take to go."""
    import subprocess

    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=_LAST_BREATH_S)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def failure(name: str, subject: str, result: Result, limits: Limits | None = None) -> StorageError:
    """Return the error for a program that failed: ``name`` such as "qemu-img map", ``subject`` what it worked on,
    ``limits`` what it was allowed to take."""
    if result.exit_code < 0:
        how = f"was ended by signal {-result.exit_code}"
    else:
        how = f"failed with exit code {result.exit_code}"
    message = f"{name} of {subject} {how}: {result.words or 'it said nothing'}"
    if "No space left on device" in result.words or "Disk quota exceeded" in result.words:
        return NoSpace(message, MAKE_ROOM)
    if limits is not None and limits.exceeded(result.exit_code, result.words):
        most = f"{human(limits.memory_bytes)} of memory and {limits.processor_s} s of a processor"
        return ToolFailed(message, f"It may take {most}: an image that needs more is damaged, or made to need it")
    return ToolFailed(message)


def shortened(raw: bytes) -> str:
    """Return a tool's standard error as one short line of printable text, without its own name and our ``json:`` names.

    Tools repeat names from images, which may be hostile, so nothing that is not printable is let through."""
    text = _without_descriptions(raw[:READ_WORDS_BYTES].decode("utf-8", "backslashreplace"))
    lines = [line.split(": ", 1)[1] if line.startswith("qemu-") and ": " in line else line for line in text.split("\n")]
    joined = "; ".join(line.strip() for line in lines if line.strip())
    printable = "".join(char if char.isprintable() else "?" for char in joined[: 2 * _MAX_WORDS])
    return printable if len(printable) <= _MAX_WORDS else printable[: _MAX_WORDS - 1] + "…"


def _without_descriptions(text: str) -> str:
    """Replace each quoted ``json:`` name, which is long and says nothing that the caller does not know."""
    parts = text.split("'json:{")
    return parts[0] + "".join("the image" + part.partition("}'")[2] for part in parts[1:])
