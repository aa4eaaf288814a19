"""The progress line: what people asked for, and all that matters at 80 columns."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from engine.data.model import OperationStatus
from tui.cli import follow, follow_run
from tui.text.printable import width
from tui.text.words import RunState
from tui.view.estimates import TimeRange


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


def test_a_step_that_does_not_come_on_is_told_once(monkeypatch: pytest.MonkeyPatch):
    """Beside the line of its progress, which says nothing of that."""
    step = SimpleNamespace(
        number=1, rule="M-CHAIN", type="merge", name="web", state=RunState.RUNNING, reason="", started=1.0, ended=0.0,
        space="", stage=1, stages=1, stage_name="merge", percent=41, rate=0.0, left=TimeRange(), pace="",
    )  # fmt: skip
    stuck = SimpleNamespace(**{**vars(step), "pace": "It has not come on for 8m: as it goes it does not converge."})
    seen = iter([(step, True), (stuck, True), (stuck, True), (stuck, False)])

    def look(*given: object) -> Any:
        now, alive = next(seen)
        return SimpleNamespace(steps=(now,), alive=alive, current=now)

    monkeypatch.setattr("tui.work.runs.get_run", look)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    said: list[str] = []
    session: Any = SimpleNamespace(out=SimpleNamespace(say=said.append))
    plan: Any = SimpleNamespace(repository="a")
    notes: Any = None
    follow_run._follow(session, notes, plan, "b")
    assert [text for text in said if text.startswith("slow")] == [
        "slow      1. It has not come on for 8m: as it goes it does not converge."
    ]
