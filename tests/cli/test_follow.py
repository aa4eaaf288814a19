"""The progress line: what people asked for, and all that matters at 80 columns."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from engine.data.model import OperationStatus
from tui.cli import follow
from tui.text.printable import width


def test_the_progress_line_fits_and_names_the_verb(monkeypatch: pytest.MonkeyPatch):
    """An import is called so, although a mend does it, and the time left is not cut off at 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    work = OperationStatus("import", "host-a", 2, 3, 10, "", 5.0, "copying the data of the file")
    status = [SimpleNamespace(operation=work, size_bytes=1 << 40, name="web-db")]
    session: Any = SimpleNamespace(engine=SimpleNamespace(get_image_status=lambda repo, image: status[0]))
    task: Any = SimpleNamespace(verb="mend", rule="B-IMPORT", image="ab" * 16, repo_id="main", started=1.0)
    shown: list[str] = []
    follower = follow.Follower(session, task)
    monkeypatch.setattr(follower._bar, "show", shown.append)
    follower._show()
    now[0] = 60.0
    status[0] = SimpleNamespace(operation=work._replace(percent=40), size_bytes=1 << 40, name="n" * 60)
    follower._show()
    assert shown[-1].startswith(f"import {'n' * 9}…  2/3  ") and shown[-1].endswith(" left")
    assert width(shown[-1]) < 80, shown[-1]
