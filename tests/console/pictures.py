"""Makes the pictures of the console: ``python -m tests.console.pictures [DIRECTORY]``.

The console is the real one, on a demo repository that is made for it in a temporary directory, and on a trace
of the simulator. They are SVG without anything that would be fetched.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.console.kit import idle, press
from tui.console.app import ConsoleApp, Options
from tui.console.site import Site
from tui.model.config import Config
from tui.model.tours import make_trace

SIZE = (120, 34)
PICTURES: dict[str, Sequence[str]] = {
    "triage": ("space", "space", "g", "down"),
    "why": ("g", "down", "w"),
    "plan": ("G", "up", "up", "up", "space", "p"),
    "images": ("2",),
}


def without_fetching(svg: str) -> str:
    """The picture with the fonts of whoever looks at it."""
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    return re.sub(r"font-family: ?[^;]*;", "font-family: ui-monospace, Menlo, Consolas, monospace;", svg)


async def draw(target: Path, home: Path) -> None:
    """All pictures, one console after the other."""
    state = str(home / "state" / "host-a")
    site = Site("host-a", state, time.time)
    for name, keys in PICTURES.items():
        app = ConsoleApp(site, Config(), Options(demo=name == "triage"))
        async with app.run_test(size=SIZE) as pilot:
            await idle(pilot)
            await idle(pilot)
            app.clear_notifications()
            await press(pilot, *keys)
            await idle(pilot)
            (target / f"{name}.svg").write_text(without_fetching(app.export_screenshot(title="diskwright tui")))
    trace = str(home / "trace.jsonl")
    make_trace(trace)
    app = ConsoleApp(Site("host-b", str(home / "other"), time.time), Config(), Options(trace=trace))
    async with app.run_test(size=SIZE) as pilot:
        await idle(pilot)
        await press(pilot, "right_curly_bracket")
        (target / "replay.svg").write_text(without_fetching(app.export_screenshot(title="diskwright tui --trace")))


def main(words: Sequence[str]) -> int:
    """Draw into the named directory, or into docs/pictures."""
    target = Path(words[0]) if words else Path(__file__).resolve().parents[2] / "docs" / "pictures"
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"XDG_DATA_HOME": f"{home}/data", "XDG_STATE_HOME": f"{home}/state", "TZ": "UTC"}
        asyncio.run(draw(target, Path(home)))
    for path in sorted(target.glob("*.svg")):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
