"""Every screen at two sizes, as text. What changed on a screen is a diff that can be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.console.kit import FixedSite, console, golden, press, running, sample_run, sample_view, screen_text

BOTH = ((80, 24), (160, 50))
ALL = (*BOTH, (100, 30), (250, 60))
SCREENS: dict[str, tuple[tuple[str, ...], tuple[tuple[int, int], ...]]] = {
    "triage": ((), ALL),
    "images": (("2",), ALL),
    "images-marked": (("2", "slash", *"!snap", "enter", "space", "space", "s"), BOTH),
    "runs": (("3",), BOTH),
    "timeline": (("4",), BOTH),
    "triage-queued": (("space", "space"), BOTH),
    "plan": (("space", "space", "down", "space", "p"), BOTH),
    "why": (("w",), BOTH),
    "triage-filter": (("slash", *"type:mend"), BOTH[:1]),
    "plan-confirm": ((*["down"] * 8, "space", "p", "r"), BOTH[:1]),
    "help": (("question_mark",), BOTH),
    "commands": (("colon",), BOTH[:1]),
    "repositories": (("0",), BOTH[:1]),
    "copy": (("y",), BOTH[:1]),
    "connect": (("c",), BOTH[:1]),
    "priority": (("P",), BOTH[:1]),
}
"""Keys, and the sizes at which the screen is looked at: most dialogs are the same at every size."""
CASES = [(name, size) for name, (_, sizes) in SCREENS.items() for size in sizes]


@pytest.mark.parametrize(("name", "size"), CASES, ids=[f"{name}-{size[0]}x{size[1]}" for name, size in CASES])
async def test_screen(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    """It looks as it was accepted, no line is too long, and the footer is whole."""
    site = FixedSite(
        tmp_path / "state", [sample_view(), sample_view("pool-2")], [sample_run()] if name == "runs" else []
    )
    async with running(console(site), size) as pilot:
        await press(pilot, *SCREENS[name][0])
        text = screen_text(pilot.app)
    golden(f"{name}-{size[0]}x{size[1]}", text)


@pytest.mark.parametrize("size", BOTH, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_first_run(size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is shown when nothing is connected."""
    monkeypatch.setenv("XDG_DATA_HOME", "/home/operator/.local/share")
    async with running(console(FixedSite(tmp_path / "state")), size) as pilot:
        golden(f"first-run-{size[0]}x{size[1]}", screen_text(pilot.app))
