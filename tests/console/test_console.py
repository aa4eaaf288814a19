"""The frame: pages, sizes, colours, help, palette, copying, exporting, errors."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import unicodedata
from pathlib import Path
from typing import cast

import pytest
from textual import events

from tests.console.kit import (
    NAMES,
    FixedSite,
    console,
    idle,
    press,
    running,
    sample_report,
    sample_view,
    screen_lines,
    screen_text,
    told,
)
from tests.console.test_lines import HOSTILE
from tui.console.app import ConsoleApp
from tui.console.dialogs.notice import Notice
from tui.console.draw import palette
from tui.console.pages.images.page import ImagesPage
from tui.console.pages.registry import make_page
from tui.console.pages.triage.page import TriagePage
from tui.console.pages.why.record import RecordPage
from tui.console.shell import Where
from tui.text.printable import printable
from tui.text.statuses import LOOKS
from tui.view.facts import Fact
from tui.view.gather import Names, with_report
from tui.view.snapshot import RepositoryView
from tui.work.config import Config, load


def site_of(tmp_path: Path) -> FixedSite:
    return FixedSite(tmp_path / "state", [sample_view()])


def key_character(key: str) -> str | None:
    """What a key with a name writes."""
    try:
        return unicodedata.lookup(key.replace("_", " "))
    except KeyError:
        return None


# -- sizes


async def test_resizing_keeps_the_cursor_and_the_filter(tmp_path: Path) -> None:
    """160x50, 80x24, 60x18 and back: right each time."""
    async with running(console(site_of(tmp_path)), (160, 50)) as pilot:
        await press(pilot, "slash", *"web", "enter", "down", "down")
        key = cast(TriagePage, pilot.app.page("triage")).table_widget.key
        for size in ((80, 24), (60, 18), (80, 24), (160, 50)):
            await pilot.resize_terminal(*size)
            await idle(pilot)
            text = screen_text(pilot.app)
            if size == (60, 18):
                assert "Need 80x24, have 60x18" in text and "BRK=3" in text and "Fixes" not in text
            else:
                assert "filter: web" in text
                assert cast(TriagePage, pilot.app.page("triage")).table_widget.key == key
            assert all(len(line) <= size[0] for line in screen_lines(pilot.app))


async def test_quit_works_when_the_terminal_is_too_small(tmp_path: Path) -> None:
    """q ends it."""
    app = console(site_of(tmp_path))
    async with running(app, (60, 18)) as pilot:
        await pilot.press("q")
        await pilot.pause()
        assert app._exit


@pytest.mark.parametrize("size", [(80, 24), (100, 30), (120, 40), (160, 50), (250, 60)])
@pytest.mark.parametrize("tab", ["1", "2", "3", "4"])
async def test_every_page_fits(size: tuple[int, int], tab: str, tmp_path: Path) -> None:
    """No line is too long, and the footer ends with help, commands and quit."""
    async with running(console(site_of(tmp_path)), size) as pilot:
        await press(pilot, tab)
        lines = screen_lines(pilot.app)
        assert all(len(line) <= size[0] for line in lines)
        assert lines[-1].endswith("? Help  : Cmd  q Quit")


async def test_panes_change_their_size_and_get_it_back(tmp_path: Path) -> None:
    """plus, underscore and esc."""
    async with running(console(site_of(tmp_path))) as pilot:
        before = screen_text(pilot.app)
        await press(pilot, "plus", "plus")
        assert screen_text(pilot.app) != before
        await press(pilot, "escape")
        assert screen_text(pilot.app) == before


# -- words and colours


async def test_statuses_differ_without_any_colour(tmp_path: Path) -> None:
    """Each has a sign and a code of its own in the plain text."""
    async with running(console(site_of(tmp_path))) as pilot:
        await press(pilot, "2")
        text = screen_text(pilot.app)
        for name in ("broken", "degraded", "optimized", "removed"):
            assert f"{LOOKS[name].sign} {LOOKS[name].code}" in text


async def test_no_color_leaves_attributes_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is broken is the only status that is reversed."""
    monkeypatch.setenv("NO_COLOR", "1")
    async with running(console(site_of(tmp_path))) as pilot:
        app = pilot.app
        segments = [segment for strip in app.screen._compositor.render_strips() for segment in strip if segment.style]
    assert segments and all(segment.style.color is None or segment.style.color.is_default for segment in segments)
    reversed_ones = [segment.text for segment in segments if segment.style.reverse]
    assert [text for text in reversed_ones if "BRK" in text]
    assert not [text for text in reversed_ones if "DEG" in text and "BRK" not in text]


async def test_ascii_where_the_terminal_has_no_more(tmp_path: Path) -> None:
    """Every page in pure ASCII."""
    async with running(console(site_of(tmp_path), unicode=False)) as pilot:
        for keys in (("1",), ("2",), ("3",), ("4",), ("1", "w"), ("escape", "question_mark")):
            await press(pilot, *keys)
            assert screen_text(pilot.app).isascii(), keys


async def test_the_theme_changes_and_is_kept(tmp_path: Path) -> None:
    """dark, light, high contrast, terminal, and around; the next console begins with it."""
    async with running(console(site_of(tmp_path))) as pilot:
        seen = []
        for _ in range(4):
            await press(pilot, "T")
            seen.append(pilot.app.palette.title)
        assert seen == ["light", "high contrast", "terminal colours", "dark"]
        await press(pilot, "T")
    again = console(site_of(tmp_path))
    assert again.palette.title == "light"
    assert console(site_of(tmp_path), theme="dark").palette.title == "dark"


async def test_hostile_names_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    """Escapes, markup, bidirectional controls, wide characters: nothing raw, nothing swallowed, all aligned."""
    hostile = with_report(sample_view(), sample_report(), Names(dict.fromkeys(NAMES, printable(HOSTILE)), {}))
    async with running(console(FixedSite(tmp_path / "state", [hostile]))) as pilot:
        for keys in (("1",), ("w",), ("escape", "space", "p"), ("escape", "2"), ("4",), ("0",)):
            await press(pilot, *keys)
            for strip in pilot.app.screen._compositor.render_strips():
                assert strip.cell_length == 80, keys
                assert all(character.isprintable() for character in strip.text), keys


async def test_an_opened_fact_is_shown_whole(tmp_path: Path) -> None:
    """However long its words, its path and its lines are."""
    async with running(console(site_of(tmp_path))) as pilot:
        page = RecordPage(Fact("volume", f"data: {'word ' * 30}end-of-fact", f"/srv/{'p' * 150}/end-of-path", "place"))
        page.act_reload = lambda: None  # type: ignore[method-assign]
        page._lines = (f'  "key": "{"v" * 170}end-of-line"',)
        pilot.app.open(page)
        await idle(pilot)
        text = screen_text(pilot.app).replace("│", "").replace("\n", "").replace(" ", "")
        assert "end-of-fact" in text and "end-of-path" in text and 'vend-of-line"' in text


# -- help and palette


async def test_help_is_searched_and_enter_runs(tmp_path: Path) -> None:
    """? lists the keys of the screen with a sentence each."""
    async with running(console(site_of(tmp_path))) as pilot:
        await press(pilot, "question_mark", *"images", "enter")
        assert isinstance(pilot.app.screen, ImagesPage)
        for act in pilot.app.page("triage").keys.acts:
            assert act.sentence.endswith("."), act.name
            assert act.label


@pytest.mark.parametrize("key", ["colon", "ctrl+p"])
async def test_the_palette_finds_an_act_by_words(key: str, tmp_path: Path) -> None:
    """What cleans is found by "make space", also from another page."""
    async with running(console(site_of(tmp_path))) as pilot:
        await press(pilot, "2", key, *"make space")
        assert "Clean fixes (triage)" in screen_text(pilot.app)
        await press(pilot, "down", "enter")
        assert isinstance(pilot.app.screen, TriagePage)


async def test_every_key_does_something_or_says_why_not(tmp_path: Path) -> None:
    """No key is dead, on any page, and none fails."""
    async with running(console(site_of(tmp_path))) as pilot:
        for name in ("triage", "images", "runs", "timeline"):
            for act in pilot.app.page(name).all_acts():
                if act.name in ("quit", "demo"):
                    continue
                pilot.app.show(Where(name))
                await idle(pilot)
                pilot.app.page(name).press(act)
                await idle(pilot)
                assert "this should not have happened" not in screen_text(pilot.app), (name, act.name)


async def test_a_key_of_another_page_tells_where_it_works(tmp_path: Path) -> None:
    """Every key of every page on every page: it is an act there, moves there, or is told of. So is a stranger."""
    moves = {"up", "down", "left", "right", "j", "k", "g", "G", "enter", "escape", "space", "tab"}
    async with running(console(site_of(tmp_path))) as pilot:
        app = pilot.app
        tables = app.page_acts()
        keys = {act.key for acts in tables.values() for act in acts if act.key} - moves
        no_repository = "escape"  # closes what is said of a fact that stands in no storage
        opened = {"plan": ("1", "space", "p"), "why": ("1", "w"), "record": ("1", "w", "enter", no_repository)}
        for name in tables:
            await press(pilot, *opened.get(name, (str(list(tables).index(name) + 1),)))
            page = app.page_shown
            for key in sorted(keys | {"ß"}):
                character = key if len(key) == 1 else key_character(key)
                if page.keys.find(key) is not None:
                    continue
                app.messages.shown = None
                assert page.take_key(events.Key(key, character)), (name, key)
                assert "does nothing here" in told(app) and app.messages.shown is not None, (name, key)
            await press(pilot, "escape")
        await press(pilot, "1", "X")
        assert told(app) == "X does nothing here: it is Remove in Images (2), Discard in Runs (3)."
        await press(pilot, "w", "H")
        assert told(app) == "H does nothing here: it is Snooze in Triage (1)."
        await press(pilot, "ß")
        assert told(app) == "ß does nothing here; ? lists the keys that do."


async def test_keys_that_have_come_to_an_end_say_so(tmp_path: Path) -> None:
    """esc with nothing open, panes that cannot grow, moving what is first, a tour that nobody plays."""
    async with running(console(site_of(tmp_path))) as pilot:
        app = pilot.app
        await press(pilot, "escape")
        assert "Nothing is open" in told(app)
        await press(pilot, *["plus"] * 7)
        assert "as large as it can be" in told(app)
        await press(pilot, "escape", "g", "space", "g", "K")
        assert "it is the first of the queue" in told(app)
        await press(pilot, "ctrl+n")
        assert "no tour is played" in told(app)
        await press(pilot, "3", "left")
        assert "there is no run" in told(app)


async def test_without_a_repository_the_keys_of_pages_say_why_not(tmp_path: Path) -> None:
    """Nothing is looked for that is not there."""
    async with running(console(FixedSite(tmp_path / "state"))) as pilot:
        for key in ("1", "2", "3", "4", "R", "y"):
            await press(pilot, key)
            assert "no repository is connected: d makes one" in told(pilot.app), key


async def test_a_key_of_the_operators_works_as_it_was_written(tmp_path: Path) -> None:
    """A character of punctuation arrives by its name."""
    file = tmp_path / "console.toml"
    file.write_text('[keys]\nwhy = "%"\n')
    async with running(console(site_of(tmp_path), load(str(file), {"why"}))) as pilot:
        await press(pilot, "percent_sign")
        assert pilot.app.page_shown.tab == "why"


async def test_numbers_of_a_page_are_those_of_its_header(tmp_path: Path) -> None:
    """Removed images are counted apart; unfinished work of others is none of the runs."""
    async with running(console(site_of(tmp_path)), (160, 50)) as pilot:
        assert "Runs 0, other unfinished work 4" in screen_text(pilot.app)
        await press(pilot, "2")
        text = screen_text(pilot.app)
        assert "Images 21 and 1 removed" in text and "21 images" in text


async def test_no_key_has_two_meanings_on_a_page(tmp_path: Path) -> None:
    """And what destroys is upper case."""
    async with running(console(site_of(tmp_path))) as pilot:
        for name in ("triage", "images", "runs", "timeline", "first_run"):
            keys = [act.key for act in pilot.app.page(name).all_acts() if act.key]
            assert len(keys) == len(set(keys)), name
        discard = next(act for act in pilot.app.page("runs").ACTS if act.name == "discard")
        assert discard.key.isupper()


# -- taking things out


async def test_copying_says_what(tmp_path: Path) -> None:
    """y and then i, c, w or r."""
    async with running(console(site_of(tmp_path))) as pilot:
        app = pilot.app
        for key, expected in (
            ("i", "00000002" * 4),
            ("c", "diskwright fix pool-nfs 0000000000000002"),
            ("w", "Import"),
        ):
            await press(pilot, "y", key)
            assert expected in app.clipboard
            assert "Copied" in told(app)


@pytest.mark.parametrize(("key", "ending"), [("j", "json"), ("c", "csv"), ("t", "txt"), ("s", "svg")])
async def test_exports_are_written_and_their_path_told(key: str, ending: str, tmp_path: Path) -> None:
    """In a folder of the user's that nobody else can read, never over anything, with the whole path on the screen."""
    folder = tmp_path / "data" / "diskwright" / "exports"
    async with running(console(site_of(tmp_path)), (120, 30)) as pilot:
        await press(pilot, "e", key)
        found = list(folder.glob(f"*.{ending}"))
        assert len(found) == 1
        assert f"Written: {found[0]}" in told(pilot.app)
        assert folder.stat().st_mode & 0o077 == 0
        text = found[0].read_text()
        assert "mail-spool" in text
        if ending == "json":
            assert len(json.loads(text)) == 10


# -- errors


async def test_every_repository_is_looked_at_without_being_asked_for(tmp_path: Path) -> None:
    """The list tells of all; the one on the screen comes first, and none is scanned twice."""
    site = FixedSite(tmp_path / "state", [sample_view(), sample_view("pool-2")])
    async with running(console(site)) as pilot:
        assert list(site.views) == ["pool-nfs", "pool-2"] and site.scans == 2
        pilot.app.tick()
        await idle(pilot)
        assert site.scans == 2


async def test_an_error_in_a_call_is_a_dialog_and_the_console_lives(tmp_path: Path) -> None:
    """With a report that can be written."""
    async with running(console(site_of(tmp_path))) as pilot:
        app = pilot.app

        def bad() -> None:
            raise ZeroDivisionError("nobody foresaw this")

        app.do("bad", bad, lambda value: None, "It failed")
        await idle(pilot)
        assert isinstance(app.screen, Notice)
        assert "nobody foresaw this" in screen_text(app)
        await press(pilot, "e")
        reports = tmp_path.glob("data/diskwright/exports/*.txt")
        assert [path for path in reports if "ZeroDivisionError" in path.read_text()]
        await press(pilot, "2")
        assert isinstance(app.screen, ImagesPage)


async def test_an_error_of_a_key_is_a_dialog_and_the_console_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what fails in the console itself."""
    app = console(site_of(tmp_path))

    def bad(word: str) -> str:
        raise ZeroDivisionError("nobody foresaw this")

    monkeypatch.setattr(palette, "next_name", bad)
    async with running(app) as pilot:
        await press(pilot, "T")
        assert isinstance(app.screen, Notice)
        await press(pilot, "escape", "2")
        assert isinstance(app.screen, ImagesPage)


async def test_quitting_does_not_wait_for_storage_that_hangs(tmp_path: Path) -> None:
    """A scan that never comes back holds up neither keys nor the end."""
    site = site_of(tmp_path)
    never = threading.Event()
    app = console(site)
    async with app.run_test() as pilot:
        await pilot.pause()

        def hangs(name: str, deep: bool = False) -> RepositoryView:
            del name, deep
            never.wait()
            return site.view

        site.scan = hangs  # type: ignore[method-assign]
        await pilot.press("R")
        await pilot.press("2")
        await pilot.pause()
        assert isinstance(app.screen, ImagesPage)
        started = asyncio.get_running_loop().time()
        await pilot.press("q")
    assert asyncio.get_running_loop().time() - started < 1
    never.set()


# -- settings


async def test_keys_come_from_the_settings(tmp_path: Path) -> None:
    """And a wrong one is told with its line and the nearest right one, while all others work."""
    path = tmp_path / "console.toml"
    path.write_text('[keys]\nrescan = "f"\nrescam = "x"\n')
    settings = load(str(path), acts=("rescan", "quit"))
    assert "line 3" in settings.problems[0] and "rescan" in settings.problems[0]
    site = site_of(tmp_path)
    async with running(console(site, settings)) as pilot:
        assert "line 3" in told(pilot.app)
        scans = site.scans
        await press(pilot, "f")
        assert site.scans == scans + 1


async def test_clicks_do_what_keys_do(tmp_path: Path) -> None:
    """A row, a tab, and a key of the footer."""
    async with running(console(site_of(tmp_path))) as pilot:
        app = pilot.app
        await pilot.click("#fixes", offset=(10, 4))
        assert cast(TriagePage, app.page("triage")).table_widget.cursor == 2
        column = screen_lines(app)[1].index("2 Images")
        await pilot.click(offset=(column, 1))
        await idle(pilot)
        assert isinstance(app.screen, ImagesPage)
        column = screen_lines(app)[-1].index("? Help")
        await pilot.click(offset=(column, 23))
        await idle(pilot)
        assert "Keys of this screen" in screen_text(app)


def test_the_console_is_an_application(tmp_path: Path) -> None:
    """Settings and site are given to it; nothing is read from the environment but what terminals say."""
    assert isinstance(console(site_of(tmp_path), Config()), ConsoleApp)
    assert os.environ.get("NO_COLOR") is None


@pytest.mark.parametrize("name", ["", "plan", "why", "runs"])
async def test_what_is_being_opened_when_the_console_ends_is_no_error(name: str, tmp_path: Path) -> None:
    """The result of a call opens a dialog or a page at the moment at which the operator quits: neither gets widgets."""
    app = console(site_of(tmp_path))
    async with running(app):
        app.open(make_page(name) if name else Notice("Late", ["a result"]))
        app.exit()
