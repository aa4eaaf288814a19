"""A real browser on a served console: tabs with keys and with what xterm.js has on its screen."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.console.terminal import COMMAND, Terminal
from tests.doors.children import Gate

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

PATIENCE_S = 60.0
SMALL = {"width": 720, "height": 432}
LARGE = {"width": 1440, "height": 900}
_SHOW = """() => {
    const terminal = window.session.terminal, buffer = terminal.buffer.active;
    return Array.from({length: terminal.rows}, (_, row) => buffer.getLine(row).translateToString(true)).join("\\n");
}"""
# textual.js keeps its terminal to itself; the first property that it sets is ours to see.
_CATCH = """Object.defineProperty(Object.prototype, "websocket_url", {set(value) {
    window.session = this;
    Object.defineProperty(this, "websocket_url", {value, writable: true});
}});"""


def chromium() -> str:
    """The browser of the system, "" where there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or ""


def free_port() -> int:
    """Below those that the kernel gives to whoever asks for any: nobody has it in the meantime."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(lowest // 2, lowest)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Served:
    """`diskwright tui --serve`, with all that its host remembers below ``home``."""

    def __init__(self, home: Path) -> None:
        self.host = Terminal(home)
        self.port = free_port()
        self.copying = Gate(home / "held", "qemu-nbd")
        """What copies data here goes through it."""
        self.process: subprocess.Popen[str] | None = None
        self.url = ""

    def start(self) -> None:
        command = [*COMMAND, "tui", "demo", "--serve", f"localhost:{self.port}"]
        self.process = subprocess.Popen(
            command, env=self.host.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().removeprefix("Open ").strip()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def consoles(self) -> list[int]:
        """The processes of its tabs."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def end(self, number: int = signal.SIGINT) -> int:
        """Its exit code, after a signal."""
        assert self.process is not None and self.process.stdout is not None
        os.kill(self.pid, number)
        code = self.process.wait(timeout=PATIENCE_S)
        self.process.stdout.close()
        self.process = None
        return code


class Tab:
    """One tab of a console."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.page: Page = context.new_page()
        self.page.add_init_script(_CATCH)
        self.page.goto(url)

    def screen(self) -> str:
        shown: str = self.page.evaluate(_SHOW) if self.page.evaluate("() => !!window.session") else ""
        return shown

    def keys(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def type(self, text: str) -> None:
        self.page.keyboard.type(text)

    def wait(self, *texts: str, gone: str = "") -> str:
        """The screen, once it has all of ``texts`` and not ``gone``."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            shown = self.screen()
            if all(text in shown for text in texts) and not (gone and gone in shown):
                return shown
            assert time.monotonic() < deadline, f"not on the screen: {texts} (gone: {gone!r})\n{shown}"
            self.page.wait_for_timeout(30)

    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        size: dict[str, int] = self.page.evaluate("() => ({x: session.terminal.cols, y: session.terminal.rows})")
        return size["x"], size["y"]

    def resize(self, viewport: Any) -> None:
        self.page.set_viewport_size(viewport)


def ended(pids: list[int]) -> bool:
    """Whether all of them are gone within the time that a test has."""
    deadline = time.monotonic() + PATIENCE_S
    while any(_alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.03)
    return True


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return False
    return state != "Z"
