"""The manager (SRM): who it is stands wherever a fix needs it, and the role never changes hands without a question."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.data.model import FixType
from tests.console.kit import (
    FixedSite,
    console,
    fix,
    idle,
    press,
    running,
    sample_report,
    sample_view,
    screen_text,
    told,
)


class ManagedEngine:
    """What the console calls of an engine, with a manager that changes."""

    def __init__(self, manager: str) -> None:
        self.manager = manager
        self.calls: list[tuple[str, ...]] = []

    def get_srm(self, repo_id: str) -> str:
        self.calls.append(("get", repo_id))
        return self.manager

    def take_srm(self, repo_id: str, dead_host: str = "") -> None:
        self.calls.append(("take", repo_id, dead_host))

    def release_srm(self, repo_id: str) -> None:
        self.calls.append(("release", repo_id))


class ManagedSite(FixedSite):
    """A repository on LVM whose fixes need the manager."""

    def __init__(self, state: Path, manager: str) -> None:
        report = sample_report()
        fixes = (fix(1, FixType.MEND, "B-COPY", 1, "Not finished", "broken", "optimized", needs_srm=True),)
        super().__init__(state, [sample_view(report=report._replace(fixes=fixes), srm=manager or "?")])
        self.managed = ManagedEngine(manager)

    @contextmanager
    def engine(self) -> Any:
        with super().engine() as engine:
            yield self.managed if hasattr(self, "managed") and self.asking else engine

    asking = False


async def test_a_fix_that_needs_another_host_names_it(tmp_path: Path) -> None:
    """In RUN ON, in the header, and when its key is pressed; nothing is queued."""
    site = ManagedSite(tmp_path / "state", "host-c")
    async with running(console(site)) as pilot:
        shown = screen_text(pilot.app)
        assert "SRM: host-c" in shown.splitlines()[1] and "host-c" in shown.splitlines()[4]
        await press(pilot, "space")
        assert "it needs the SRM, host-c" in told(pilot.app) and not site.decisions.queue


@pytest.mark.parametrize(
    ("manager", "answer", "call"),
    [
        ("", ("M",), ("take", "pool-nfs", "")),
        ("", ("enter",), None),
        ("host-a", ("U",), ("release", "pool-nfs")),
        ("host-a", ("escape",), None),
        ("host-c", (*"host-c", "enter"), ("take", "pool-nfs", "host-c")),
        ("host-c", ("enter",), None),
        ("host-c", (*"host-b", "enter", "escape"), None),
    ],
)
async def test_the_role_changes_only_after_the_answer(
    manager: str, answer: tuple[str, ...], call: tuple[str, ...] | None, tmp_path: Path
) -> None:
    """A key where nobody else is concerned; the name of the dead host typed where somebody is."""
    site = ManagedSite(tmp_path / "state", manager)
    async with running(console(site)) as pilot:
        site.asking = True
        await press(pilot, "0", "ctrl+s")
        await press(pilot, *answer)
        await idle(pilot)
        assert site.managed.calls == [("get", "pool-nfs"), *([call] if call else [])]


async def test_where_no_manager_is_needed_the_key_says_so(tmp_path: Path) -> None:
    """And nothing is asked."""
    site = FixedSite(tmp_path / "state", [sample_view()])
    async with running(console(site)) as pilot:
        await press(pilot, "0", "ctrl+s")
        assert "needs no manager" in told(pilot.app)
