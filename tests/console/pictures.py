"""Makes the pictures and the film of the console: ``python -m tests.console.pictures [DIRECTORY]`` (``make pictures``).

The console is the real one, in a real terminal (tmux), on a demo repository that is made for it in a temporary
directory, and on a trace of the simulator. In the film it is really killed.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.console.svg import Frame, film, picture
from tests.console.terminal import Terminal
from tui.training.tours import make_trace

SIZE = (120, 34)
FILM_SIZE = (80, 24)
_LOOKS = 5
"""A screen that has looked the same so often is whole."""


class Picture(NamedTuple):
    """What is pressed for a picture, and what is on the screen then."""

    name: str
    keys: Sequence[str]
    there: Sequence[str]


PICTURES = (
    Picture("triage", ("Space", "Space", "k"), ("Plan 2 fixes",)),
    Picture("why", ("w",), ("Facts ",)),
    Picture("plan", ("Escape", "G", "k", "k", "k", "Space", "p"), ("VALID", "never")),
    Picture("images", ("Escape", "2"), ("[2 Images]", "Images 13 and 2 removed")),
)


def stills(terminal: Terminal, target: Path) -> None:
    """A screen of each page."""
    terminal.start("demo", size=SIZE, COLORTERM="truecolor")
    terminal.wait("Fixes 15")
    for still in PICTURES:
        _press(terminal, still.keys)
        terminal.wait(*still.there)
        (target / f"{still.name}.svg").write_text(picture(terminal.coloured(), "diskwright tui", SIZE))
    terminal.close()
    trace = str(terminal.home / "trace.jsonl")
    make_trace(trace)
    terminal.start("--trace", trace, size=SIZE, COLORTERM="truecolor")
    terminal.wait("REPLAY")
    _press(terminal, ("}",))
    terminal.wait("CRASH")
    (target / "replay.svg").write_text(picture(terminal.coloured(), "diskwright tui --trace", SIZE))
    terminal.close()


def _press(terminal: Terminal, keys: Sequence[str]) -> None:
    for key in keys:
        before = terminal.coloured()
        terminal.keys(key)
        _settled(terminal, before)


def _settled(terminal: Terminal, before: str) -> str:
    """The screen when it differs from ``before`` and has been the same for a while; each key here changes something."""
    last, same = before, 0
    for _ in range(300):
        shown = terminal.coloured()
        same = same + 1 if shown == last != before else 0
        if same == _LOOKS:
            return shown
        last = shown
        time.sleep(0.1)
    raise AssertionError(f"nothing changes on the screen\n{terminal.screen()}")


class Camera:
    """Takes the frames of the film."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.frames: list[Frame] = []

    def shot(self, caption: str, seconds: float, *there: str, gone: str = "") -> None:
        """The screen, once it has ``there``."""
        self.terminal.wait(*there, gone=gone)
        self.frames.append(Frame(self.terminal.coloured(), caption, seconds))

    def pressed(self, caption: str, seconds: float, key: str, *there: str) -> None:
        """The screen after a key, once it has ``there``."""
        _press(self.terminal, (key,))
        self.shot(caption, seconds, *there)


def record(terminal: Terminal) -> list[Frame]:
    """From the first look to a repair that outlives the console."""
    terminal.start("demo", COLORTERM="truecolor")
    camera = Camera(terminal)
    camera.shot("What is wrong, the worst first", 3.5, "Fixes 15", "Impact")
    camera.pressed("j: the next one. Below: why", 2.5, "j", "40 %")
    camera.pressed("w: the whole reason, and the evidence on disk", 4, "w", "Facts ", "lease")
    camera.pressed("esc: back", 0.7, "Escape", "[1 Triage]", "Impact")
    camera.pressed("space: queue the repair", 1.5, "Space", "Plan 1 fix")
    camera.pressed("space again: one more", 1.5, "Space", "Plan 2 fixes")
    camera.pressed("p: what the plan will do, in its order", 4, "p", "VALID", "Outcome", "esc Back")
    terminal.keys("r")
    camera.shot("r: run it, in a process of its own", 2.5, "RUNNING", "begins in process")
    os.kill(terminal.pid(), signal.SIGKILL)
    camera.frames.append(Frame("\n  $ kill -9 …", "The console is killed in the middle", 2))
    terminal.close()
    terminal.start("demo", COLORTERM="truecolor")
    camera.shot("diskwright tui: again", 1.5, "[1 Triage]", "Impact", "q Quit")
    terminal.keys("3")
    camera.shot("3: the run has gone on without it", 3.5, "2 of 2 done", gone="RUNNING")
    terminal.keys("1")
    camera.shot("1: two broken images less", 4, "BRK=2", "[1 Triage]", "Impact")
    terminal.close()
    return camera.frames


def slow_copies(terminal: Terminal) -> None:
    """Let each copy of data begin with a pause, or the film would miss it."""
    folder = terminal.home / "slow"
    folder.mkdir()
    script = folder / "qemu-nbd"
    script.write_text(f'#!/bin/sh\nPATH={os.environ["PATH"]}\nsleep 2\nexec qemu-nbd "$@"\n')
    script.chmod(0o755)
    terminal.environment["PATH"] = f"{folder}:{os.environ['PATH']}"


def main(words: Sequence[str]) -> int:
    """Draw into the named directory, or into docs/pictures."""
    target = Path(words[0]) if words else Path(__file__).resolve().parents[2] / "docs" / "pictures"
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        terminal = Terminal(Path(home))
        terminal.run("demo", "--json")
        try:
            stills(terminal, target)
            terminal.run("demo", "--fresh", "--json")
            slow_copies(terminal)
            (target / "film.svg").write_text(film(record(terminal), FILM_SIZE))
        finally:
            terminal.close()
    for path in sorted(target.glob("*.svg")):
        print(path, path.stat().st_size)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
