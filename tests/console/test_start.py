"""What the console is told by the command line, the terminal and a browser's tab."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tui.cli.main import main
from tui.console.app import ConsoleApp


@pytest.mark.parametrize(
    ("driver", "given", "size"),
    [
        ("tui.console.web.driver:TabDriver", {"COLUMNS": "160", "ROWS": "50"}, (160, 50)),
        ("tui.console.web.driver:TabDriver", {"COLUMNS": "wide", "ROWS": "50"}, None),
    ],
)
def test_a_tab_opens_at_the_size_that_its_server_tells(
    driver: str, given: dict[str, str], size: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not at 80x24 until somebody resizes the window."""
    seen: dict[str, Any] = {}
    monkeypatch.setattr(ConsoleApp, "run", lambda self, **options: seen.update(options))
    monkeypatch.setenv("TEXTUAL_DRIVER", driver)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert main(["tui"]) == 0
    assert seen["size"] == size
