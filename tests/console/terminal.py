"""A real terminal for the console: a tmux server of its own, with keys, sizes and what is on the screen."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.contracts.source import ROOT

PATIENCE_S = 60.0
COMMAND = [sys.executable, "-m", "tui.cli.main"]


class Terminal:
    """One window. ``home``: everything that this host remembers is below it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.socket = f"{home}/tmux"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("TMUX", "DISKWRIGHT"))},
            **{name: value for name, value in os.environ.items() if name == "DISKWRIGHT_TESTED_BY"},
            "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC", "HOME": str(home),
            "XDG_DATA_HOME": f"{home}/data", "XDG_STATE_HOME": f"{home}/state", "XDG_CONFIG_HOME": f"{home}/config",
            "DISKWRIGHT_HOST": "host-a",
        }  # fmt: skip
        self.environment.pop("NO_COLOR", None)

    def tmux(self, *words: str) -> str:
        command = ["tmux", "-S", self.socket, "-f", "/dev/null", *words]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True).stdout

    def start(self, *words: str, size: tuple[int, int] = (80, 24), **environment: str) -> None:
        """Begin a console at a prompt of its own; the prompt tells the exit code when it has ended."""
        given = [f"{name}={value}" for name, value in environment.items()]
        console = shlex.join(["env", *given, *COMMAND, "tui", *words])
        shell = f"echo BEFORE; {console}; echo ENDED $?; exec sleep 1000"
        width, height = map(str, size)
        self.tmux("new-session", "-d", "-s", "a", "-x", width, "-y", height, f"sh -c {shlex.quote(shell)}")

    def again(self, *words: str, size: tuple[int, int] = (80, 24)) -> None:
        """A new console in a new window, as after a restart."""
        self.close()
        self.start(*words, size=size)

    def keys(self, *keys: str) -> None:
        """Press keys, by tmux's names ("Space", "Escape", "Enter") or as they are."""
        for key in keys:
            self.tmux("send-keys", "-t", "a", *(("-l", key) if len(key) == 1 else (key,)))

    def screen(self) -> str:
        return self.tmux("capture-pane", "-t", "a", "-p")

    def coloured(self) -> str:
        return self.tmux("capture-pane", "-t", "a", "-p", "-e")

    def wait(self, *texts: str, gone: str = "", patience_s: float = PATIENCE_S) -> str:
        """The screen, once it has all of ``texts`` and not ``gone``."""
        deadline = time.monotonic() + patience_s
        while True:
            shown = self.screen()
            if all(text in shown for text in texts) and not (gone and gone in shown):
                return shown
            assert time.monotonic() < deadline, f"not on the screen: {texts} (gone: {gone!r})\n{shown}"
            time.sleep(0.03)

    def resize(self, width: int, height: int) -> None:
        self.tmux("resize-window", "-t", "a", "-x", str(width), "-y", str(height))

    def pid(self) -> int:
        """The process of the console."""
        shell = int(self.tmux("display-message", "-t", "a", "-p", "#{pane_pid}"))
        children = Path(f"/proc/{shell}/task/{shell}/children").read_text().split()
        return int(children[0])

    def run(self, *words: str, code: int = 0) -> str:
        """Run a command beside the console; its standard output."""
        done = subprocess.run(
            [*COMMAND, *words], env=self.environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == code, done
        return done.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))

    def close(self) -> None:
        subprocess.run(["tmux", "-S", self.socket, "kill-server"], capture_output=True, check=False)
        deadline = time.monotonic() + PATIENCE_S
        while os.path.exists(self.socket) and time.monotonic() < deadline:
            try:
                self.tmux("list-sessions")
            except subprocess.CalledProcessError:
                return
            time.sleep(0.02)
