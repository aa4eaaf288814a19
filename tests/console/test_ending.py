"""A console whose terminal has gone, or takes nothing more, is gone too."""

from __future__ import annotations

import errno
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from textual.app import App
from textual.containers import Horizontal
from textual.drivers.linux_driver import LinuxDriver
from textual.widgets import Input

from tests.console.kit import FixedSite, console, running, sample_view
from tests.console.terminal import COMMAND, Terminal
from tui.console.dialogs.fields import Form, FormField
from tui.console.terminal.driver import TerminalDriver

PATIENCE_S = 60.0
"""It is gone within two seconds; a busy machine may need longer to say so."""


def started(home: Path) -> tuple[subprocess.Popen[bytes], int]:
    """A console on a terminal of its own, and the terminal's other side."""
    ours, theirs = pty.openpty()
    environment = {**Terminal(home).environment, "TERM": "xterm-256color"}
    script = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", script, *COMMAND, "tui"],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    return process, ours


def read_until(terminal: int, text: bytes) -> None:
    shown = b""
    while text not in shown:
        shown += os.read(terminal, 65536)


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.2, 0.5])
def test_a_closed_terminal_ends_it(tmp_path: Path, after_s: float) -> None:
    """Whatever it was about to show when the window was closed."""
    process, terminal = started(tmp_path)
    try:
        read_until(terminal, b"\x1b[?1049h")
        time.sleep(after_s)
        os.close(terminal)
        assert process.wait(PATIENCE_S) in (128 + signal.SIGHUP, -signal.SIGHUP)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("call", ["run_input_thread", "start_application_mode"])
async def test_an_error_of_the_terminal_is_a_hangup(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """And no fault of the program's: it ended with exit code 1 when the terminal went at the wrong moment."""
    sent: list[tuple[int, int]] = []

    def lost(driver: LinuxDriver) -> None:
        raise termios.error(errno.EIO, "gone") if call == "start_application_mode" else OSError(errno.EIO, "gone")

    monkeypatch.setattr(LinuxDriver, call, lost)
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    getattr(TerminalDriver(App[None]()), call)()
    assert sent == [(os.getpid(), signal.SIGHUP)]


async def test_a_form_that_opens_while_the_console_ends_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its rows are there then, and the fields in them are not."""
    monkeypatch.setattr(Horizontal, "is_mounted", False)
    monkeypatch.setattr(Form, "set_up", lambda form: form.query_one("#field-9", Input))
    form = Form("t", [], [FormField("n")], "Do", lambda values: None, lambda done: None)
    async with running(console(FixedSite(tmp_path / "state", [sample_view()]))) as pilot:
        await pilot.app.push_screen(form)
        await pilot.pause()


@pytest.mark.slow
def test_a_jammed_terminal_does_not_keep_it(tmp_path: Path) -> None:
    """Nobody reads what it shows, so it waits for ever to show more; SIGTERM ends it all the same."""
    process, terminal = started(tmp_path)
    try:
        read_until(terminal, b"\x1b[?1049h")
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
