"""The console in a terminal of its own: first paint, opening the list of images, and from a key to its repaint.

Beside each stands an application of Textual alone that draws as many lines of the same length: what the toolkit and a
busy machine cost is in both."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import pytest

from tests.bench.bench_check import images
from tests.bench.kit import SCALE, Table

pytestmark = pytest.mark.bench

COLUMNS, ROWS = 80, 24
COUNT = max(200, round(10_000 * SCALE))
KEYS = 15
_QUIET_S = 0.3
"""A frame is over when nothing more has come for so long."""
_PATIENCE_S = 60.0
_BARE = """
import sys
from rich.segment import Segment
from textual.app import App
from textual.geometry import Size
from textual.screen import Screen
from textual.scroll_view import ScrollView
from textual.strip import Strip

COUNT = int(sys.argv[1])

class Lines(ScrollView, can_focus=True):
    cursor = 0

    def on_mount(self):
        self.virtual_size = Size(80, COUNT)

    def render_line(self, y):
        row = y + round(self.scroll_y)
        return Strip([Segment(f"{'>' if row == self.cursor else ' '} row {row:06} ".ljust(self.size.width, "x"))])

    def key_j(self):
        self.cursor += 1
        self.refresh()

class Second(Screen):
    def compose(self):
        yield Lines()

class Bare(App):
    def compose(self):
        yield Lines()

    def key_2(self):
        self.push_screen(Second())

Bare().run()
"""


class Window:
    """A program in a terminal."""

    def __init__(self, command: list[str]) -> None:
        self._master, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.began = time.perf_counter()
        self._process = subprocess.Popen(
            command, stdin=child, stdout=child, stderr=child, start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "LANG": "C.UTF-8"},
        )  # fmt: skip
        os.close(child)

    def until(self, text: str) -> float:
        """Seconds from the start until ``text`` was written."""
        seen = b""
        while text.encode() not in seen:
            if time.perf_counter() - self.began > _PATIENCE_S:
                raise AssertionError(f"{text} was not drawn, but {seen[-300:]!r}")
            seen = seen[-4096:] + self._read(_PATIENCE_S)
        return time.perf_counter() - self.began

    def settle(self, last: float = 0.0) -> float:
        """Read until nothing comes any more; when the last of it came."""
        while select.select([self._master], [], [], _QUIET_S)[0]:
            os.read(self._master, 65536)
            last = time.perf_counter()
        return last

    def press(self, key: str) -> float:
        """Seconds from a key to the end of the repaint that it makes."""
        start = time.perf_counter()
        os.write(self._master, key.encode())
        self._read(_PATIENCE_S)
        return self.settle(time.perf_counter()) - start

    def _read(self, patience_s: float) -> bytes:
        if not select.select([self._master], [], [], patience_s)[0]:
            raise AssertionError("nothing was drawn")
        return os.read(self._master, 65536)

    def close(self) -> None:
        """End the program."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        os.close(self._master)


@contextmanager
def window(command: list[str]) -> Iterator[Window]:
    """A program in a terminal, for as long as it is looked at."""
    shown = Window(command)
    try:
        yield shown
    finally:
        shown.close()


@pytest.fixture(scope="module")
def console(room: Path) -> list[str]:
    """The command that opens the console on a repository of many images."""
    images(room, COUNT)
    (room / "diskwright").mkdir()
    (room / "state-bench").rename(room / "diskwright" / "bench")
    return [sys.executable, "-m", "tui.cli.main", "--host", "bench", "--state", str(room / "diskwright"), "tui", "r"]


BARE = [sys.executable, "-c", _BARE, str(COUNT)]
_READY = f"OPT={COUNT}"


def test_first_paint(console: list[str], table: Table) -> None:
    """From the start of the process until the first page, or the first line, is there."""

    def ours() -> float:
        with window(console) as shown:
            return shown.until("1 Triage")

    def theirs() -> float:
        with window(BARE) as shown:
            return shown.until("row 000000")

    ours(), theirs()  # what is read from disk for the first time is not what is measured
    left, right = in_turn(ours, theirs, 7)
    report(table, "first paint of the console", left, right, 0.6)


def test_many_images(console: list[str], table: Table) -> None:
    """From the key to the list, and from a key in the list to its repaint."""

    def opening(command: list[str], ready: str) -> float:
        with window(command) as shown:
            shown.until(ready)
            shown.settle()
            return shown.press("2")

    left, right = in_turn(lambda: opening(console, _READY), lambda: opening(BARE, "row 000000"), 5)
    report(table, f"open the list of {COUNT:,} images", left, right, 0.3)
    with window(console) as mine, window(BARE) as bare:
        for shown, ready in ((mine, _READY), (bare, "row 000000")):
            shown.until(ready)
            shown.settle()
            shown.press("2")
        left, right = in_turn(lambda: mine.press("j"), lambda: bare.press("j"), KEYS)
    report(table, f"from a key to its repaint, {COUNT:,} images", left, right, 0.05)


def in_turn(ours: Callable[[], float], theirs: Callable[[], float], rounds: int) -> tuple[list[float], list[float]]:
    """Both in turn; nothing here is written that would have to reach the disk first."""
    left, right = [], []
    for _ in range(rounds):
        left.append(ours())
        right.append(theirs())
    return left, right


def report(table: Table, work: str, ours: list[float], theirs: list[float], budget_s: float) -> None:
    """The ratio to the bare toolkit, and the middle of ours against the budget."""
    table.compare(work, ours, "Textual alone, as many lines", theirs, None)
    middle = median(ours)
    table.state(f"{work}: median", f"{1000 * middle:.0f} ms", "", f"{1000 * median(theirs):.0f} ms",
                f"<= {1000 * budget_s:.0f} ms", middle <= budget_s)  # fmt: skip
