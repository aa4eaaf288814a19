"""Every screen at two sizes, as text. What changed on a screen is a diff that can be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.console.kit import FixedSite, console, golden, press, running, sample_run, sample_view, screen_text

SIZES = [(80, 24), (160, 50)]
TABS = {"triage": (), "images": ("2",), "runs": ("3",), "timeline": ("4",)}
OTHERS = {
    "triage-queued": ("space", "space"),
    "triage-filter": ("slash", *"type:mend"),
    "plan": ("space", "space", "down", "space", "p"),
    "plan-confirm": ("down", "down", "down", "down", "down", "down", "down", "down", "down", "space", "p", "r"),
    "why": ("w",),
    "help": ("question_mark",),
    "commands": ("colon",),
    "repositories": ("0",),
    "copy": ("y",),
    "connect": ("c",),
    "priority": ("P",),
}


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("name", [*TABS, *OTHERS])
async def test_screen(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    """It looks as it was accepted, no line is too long, and the footer is whole."""
    site = FixedSite(
        tmp_path / "state", [sample_view(), sample_view("pool-2")], [sample_run()] if name == "runs" else []
    )
    async with running(console(site), size) as pilot:
        await press(pilot, *(TABS.get(name) or OTHERS.get(name) or ()))
        text = screen_text(pilot.app)
    golden(f"{name}-{size[0]}x{size[1]}", text)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_first_run(size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is shown when nothing is connected."""
    monkeypatch.setenv("XDG_DATA_HOME", "/home/operator/.local/share")
    async with running(console(FixedSite(tmp_path / "state")), size) as pilot:
        golden(f"first-run-{size[0]}x{size[1]}", screen_text(pilot.app))
