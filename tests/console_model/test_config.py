"""The settings file: what it may say, and that a mistake costs one entry and a sentence."""

from __future__ import annotations

import string
from pathlib import Path

import pytest

from tests.console_model.conftest import Host
from tests.console_model.kit import clean, fix, view
from tui.view.plan import DEFAULT_RESERVE_SHARE
from tui.work import config
from tui.work.config import key_named, load

ACTS = ("queue", "plan", "run", "why")
THEMES = ("dark", "light")


def read(tmp_path: Path, text: str) -> config.Config:
    path = tmp_path / "console.toml"
    path.write_text(text, encoding="utf-8")
    return load(str(path), ACTS, THEMES)


def test_without_a_file_there_are_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The file need not exist; it is looked for where the XDG specification says."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    found = load()
    assert found.path == str(tmp_path / "diskwright" / "console.toml")
    assert (found.problems, found.reserve_share, found.keys) == ((), DEFAULT_RESERVE_SHARE, {})


def test_all_settings(tmp_path: Path):
    """Theme, reserve, signs, keys and priorities are read."""
    text = (
        'theme = "light"\nreserve = 5\nascii = true\n[keys]\nrun = "x"\nplan = ["p", "f2"]\n[priorities]\nclean = 1\n'
    )
    found = read(tmp_path, text)
    assert (found.theme, found.reserve_share, found.ascii, found.problems) == ("light", 0.05, True, ())
    assert found.keys == {"run": ("x",), "plan": ("p", "f2")}
    rows = found.prioritised(view([], [clean(1, 1), fix(2, "optimize")]).fixes)
    assert [row.priority for row in rows] == [1, 3]


def test_a_rule_counts_before_its_kind(tmp_path: Path):
    """One rule of a kind can have a priority of its own."""
    found = read(tmp_path, '[priorities]\nclean = 1\n"C-LITTER" = 4\n')
    rows = found.prioritised(view([], [clean(1, 1), clean(2, 1, rule="C-LITTER")]).fixes)
    assert [row.priority for row in rows] == [1, 4]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('\n[keys]\nquue = "q"\n', 3, ("quue", "did you mean queue")),
        ('them = "dark"\n', 1, ("them", "did you mean theme")),
        ('theme = "drak"\n', 1, ("theme", "known: dark, light")),
        ("[priorities]\nclaen = 1\n", 2, ("claen", "did you mean clean")),
        ("[priorities]\nclean = 9\n", 2, ("clean", "from 1 to 4")),
        ("\n\nreserve = 99\n", 3, ("reserve", "percentage")),
        ("[keys]\nrun = 7\n", 2, ("run", "not a key")),
        ('[keys]\nrun = "x"\nwhy = "x"\n', 3, ("why", "given to run already")),
        ('ascii = "yes"\n', 1, ("ascii", "true or false")),
        ("keys = 1\n", 1, ("keys", "section")),
    ],
)
def test_a_bad_entry_names_file_line_key_and_the_nearest_name(
    tmp_path: Path, text: str, line: int, words: tuple[str, str]
):
    """The rest of the file counts, and defaults stand in for what was wrong."""
    found = read(tmp_path, text)
    assert len(found.problems) == 1
    assert found.problems[0].startswith(f"{tmp_path}/console.toml, line {line}, {words[0]}: ")
    assert words[1] in found.problems[0]


@pytest.mark.parametrize("text", ["theme = ", "a = 1\na = 2\n", "\x00", "[" * 5000])
def test_a_file_that_cannot_be_read_costs_a_sentence(tmp_path: Path, text: str):
    """Defaults load whatever is in the file."""
    found = read(tmp_path, text)
    assert len(found.problems) == 1 and "nothing of it is used" in found.problems[0]


def test_a_directory_in_its_place(tmp_path: Path):
    """What is no file is told, not raised."""
    assert "cannot be read" in load(str(tmp_path)).problems[0]


def test_choices_on_the_screen_are_kept(host: Host):
    """The theme that was chosen is there after a restart."""
    assert config.choice(host.notes, "theme", "dark") == "dark"
    config.keep_choice(host.notes, "theme", "light")
    config.keep_choice(host.notes, "pane", "3")
    assert (config.choice(host.notes, "theme"), config.choice(host.notes, "pane")) == ("light", "3")


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("x", "x"), ("X", "X"), ("+", "plus"), ("%", "percent_sign"), ("-", "minus"), ("é", "é"), ("ctrl+x", "ctrl+x"),
        ("ctrl+shift+f5", "ctrl+shift+f5"), ("question_mark", "question_mark"), ("pagedown", "pagedown"),
        *((key, "") for key in ("nokey", "nokey+", "ctrl+", "hold+x", "f99", "x+", "shift+x", "ctrl+ctrl+x",
                                "digit_one", "LATIN SMALL LETTER A")),
    ],
)  # fmt: skip
def test_only_keys_are_keys(key: str, name: str):
    """What no keyboard sends is told instead of waited for, and each key has the name by which it arrives."""
    assert key_named(key) == name


def test_every_character_has_the_name_by_which_it_arrives():
    """As the console's library calls it."""
    from textual.keys import _character_to_key

    assert all(key_named(character) == _character_to_key(character) for character in string.printable.strip())
