"""Messages: they cover nothing, stay until they can have been seen, and can be read again."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.errors import NotFound
from tests.console.kit import FixedSite, console, press, running, sample_run, sample_view, screen_lines, screen_text
from tui.console.app import ConsoleApp
from tui.console.messages import NEWS_S, STANDS_S, Message, Messages
from tui.text.words import RunState


def site_of(tmp_path: Path) -> FixedSite:
    return FixedSite(tmp_path / "state", [sample_view()])


def status(app: ConsoleApp) -> str:
    """The line above the footer."""
    return screen_lines(app)[-2]


async def test_an_answer_stands_above_the_footer_until_the_next_key(tmp_path: Path) -> None:
    """It takes the place of the line of the page and of nothing else."""
    async with running(console(site_of(tmp_path))) as pilot:
        before = screen_lines(pilot.app)
        await press(pilot, "r")
        shown = screen_lines(pilot.app)
        assert shown[-2].startswith(" ! Run: the plan is empty, space queues") and shown[-2].endswith("12:00:00  M")
        assert shown[:-2] == before[:-2] and shown[-1] == before[-1]
        await press(pilot, "S", "S")
        assert screen_lines(pilot.app) == before


async def test_a_message_that_is_too_long_gets_another_line(tmp_path: Path) -> None:
    """All of its words are there, and the frame above still ends in its edge."""
    text = "one word after the other, and then so many more of them that a single line would have to cut it off"
    async with running(console(site_of(tmp_path))) as pilot:
        pilot.app.tell(text, "warning")
        await pilot.pause()
        *above, first, second, _ = screen_lines(pilot.app)
        assert f"{first.removeprefix(' ! ')} {second.strip().removesuffix('12:00:00  M').strip()}" == text
        assert above[-1].startswith("╰")


async def test_a_dialog_tells_it_in_its_edge(tmp_path: Path) -> None:
    """The page below is dimmed, so it would be missed there."""
    async with running(console(site_of(tmp_path))) as pilot:
        await press(pilot, "colon", *"redo", "enter")
        assert any("─ ! there is nothing to redo ─╯" in line for line in screen_lines(pilot.app))


async def test_all_messages_can_be_read_again(tmp_path: Path) -> None:
    """M lists them with their times, the newest first, and a click on the message does."""
    async with running(console(site_of(tmp_path))) as pilot:
        await press(pilot, "r", "s", "M")
        shown = screen_text(pilot.app)
        assert shown.index("12:00:00  ! Stop: nothing is running") < shown.index("12:00:00  ! Run: the plan is empty")
        await press(pilot, "escape", "s")
        await pilot.click("#status")
        await pilot.pause()
        assert "Messages of this session" in screen_text(pilot.app)


@pytest.mark.parametrize(
    ("warning", "asked", "age_s", "key", "stays"),
    [
        (False, True, 0.0, True, False),
        (False, False, STANDS_S / 2, True, True),
        (True, False, STANDS_S, True, False),
        (False, False, NEWS_S, False, False),
        (True, False, 100 * NEWS_S, False, True),
    ],
    ids=["answer-key", "news-key-too-soon", "warning-key", "news-old", "warning-old"],
)
def test_what_takes_a_message_away(warning: bool, asked: bool, age_s: float, key: bool, stays: bool) -> None:
    """Answers go with the next key; what nobody asked for stands a while first; a warning never goes by itself."""
    messages = Messages()
    messages.add(Message(100.0, "something", warning, asked))
    taken = messages.key_pressed(100.0 + age_s) if key else messages.time_passed(100.0 + age_s)
    assert taken is not stays and (messages.shown is not None) is stays
    assert messages.last is not None and messages.last.text == "something"


async def test_the_end_of_a_run_is_told_on_every_page(tmp_path: Path) -> None:
    """Whoever looks at something else hears of it, and of a failure as of a warning."""
    run = sample_run()
    site = FixedSite(tmp_path / "state", [sample_view()], [run])
    async with running(console(site)) as pilot:
        pilot.app.tick()
        site.fixed_runs = (run._replace(alive=False, state=RunState.FAILED, reason="1 done, 1 failed"),)
        pilot.app.tick()
        await pilot.pause()
        assert status(pilot.app).startswith(" ! Run 3f2a FAILED: 1 done, 1 failed")


def test_a_repository_that_is_not_connected_is_no_screen(tmp_path: Path) -> None:
    """The command says so; a console would look for it without end."""
    from tui.console.start import start

    session = SimpleNamespace(host="host-a", state=str(tmp_path / "state"))
    with pytest.raises(NotFound, match="nosuch is not connected"):
        start(session, Namespace(repo="nosuch"))  # type: ignore[arg-type]
