"""The terminal that the console is on, and the end of the console when that has gone or somebody asks for it.

Textual's driver hands what is to be shown to a thread through a queue of limited length. Where a terminal takes no
more (its window was closed, or it is jammed), that thread ends or hangs, and whoever writes then waits for ever. So an
error of writing is told as a hangup and nothing more is written; and a signal that means the end sets a limit to it.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import termios
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO, cast

from textual.app import App
from textual.drivers.linux_driver import LinuxDriver

ENDS_WITHIN_S = 1.5
"""A console that was told to end and has not by then is ended: nothing of an operator's is lost with it."""


class Screen:
    """What the driver writes to. Once that has failed, nothing more is written and the console is told to end."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lost = False

    def write(self, text: str) -> int:
        """Write, or nothing where nobody can see it."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Pass on what was written."""
        self._try(self._stream.flush)

    def fileno(self) -> int:
        """The descriptor of the terminal."""
        return self._stream.fileno()

    def _try(self, call: Callable[[], object]) -> None:
        if self._lost:
            return
        try:
            call()
        except OSError:
            self._lost = True
            _hang_up()


class TerminalDriver(LinuxDriver):
    """Textual's driver, whose threads outlive its terminal: an error of it is a hangup, and none of the program's."""

    def __init__(
        self, app: App[Any], *, debug: bool = False, mouse: bool = True, size: tuple[int, int] | None = None
    ) -> None:
        super().__init__(app, debug=debug, mouse=mouse, size=size)
        self._file = cast("Any", Screen(sys.__stderr__ or sys.stderr))

    def start_application_mode(self) -> None:
        """Set the terminal up."""
        try:
            super().start_application_mode()  # type: ignore[no-untyped-call]
        except termios.error:
            _hang_up()

    def run_input_thread(self) -> None:
        """Read keys until the console ends."""
        try:
            super().run_input_thread()
        except OSError:
            _hang_up()


def _hang_up() -> None:
    """Do as the kernel does where the terminal is this session's own."""
    os.kill(os.getpid(), signal.SIGHUP)


def end_on_signals(loop: AbstractEventLoop, end: Callable[[int], None]) -> None:
    """Call ``end`` with the exit code when SIGTERM or SIGHUP comes; the process is gone soon after, whatever it waits
    for. The handler runs also while the loop is stuck, so it takes no lock that the interrupted code may hold."""

    def ended(number: int, frame: object) -> None:
        del frame
        code = 128 + number
        _thread.start_new_thread(_end_late, (code,))
        with suppress(RuntimeError):  # the loop is closed: it is about to be over
            loop.call_soon_threadsafe(end, code)

    for number in (signal.SIGTERM, signal.SIGHUP):
        with suppress(ValueError):  # not in the main thread
            signal.signal(number, ended)


def _end_late(code: int) -> None:
    time.sleep(ENDS_WITHIN_S)
    os._exit(code)
