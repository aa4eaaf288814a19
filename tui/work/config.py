"""The operator's settings: a file that they write, and choices that the console keeps itself.

``~/.config/diskwright/console.toml``::

    theme = "dark"
    reserve = 2.5            # percent of the storage that plans keep free
    ascii = false

    [keys]                   # act = key, or a list of keys
    run = "r"

    [priorities]             # kind of fix or rule = 1 to 4
    C-REMOVED = 2

An entry that makes no sense is left out and told with file, line and the nearest right name.
"""

from __future__ import annotations

import os
import re
import tomllib
import unicodedata
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from engine.data.model import FixType
from tui.directories import user_directory
from tui.notes import Notes
from tui.text.printable import printable
from tui.view.fixes import FixRow
from tui.view.plan import DEFAULT_RESERVE_SHARE

_LIMIT_BYTES = 256 * 1024
_HELD = ("ctrl", "shift", "alt", "meta", "super", "hyper")
_NAMED = (
    "up", "down", "left", "right", "home", "end", "pageup", "pagedown", "insert", "delete", "backspace", "enter",
    "escape", "tab", "space", "slash", "backslash", "at", "minus", "plus", "underscore",
)  # fmt: skip
"""Keys that have no name in Unicode, or a shorter one than there."""
_SHORTER = {
    "solidus": "slash", "reverse_solidus": "backslash", "commercial_at": "at", "hyphen_minus": "minus",
    "plus_sign": "plus", "low_line": "underscore",
}  # fmt: skip
"""Names of Unicode for which the terminal's key has a shorter one."""
_SECTIONS = ("theme", "reserve", "ascii", "keys", "priorities")
_RULE = re.compile(r"[A-Z]-[A-Z]+\Z")
_MOST_PERCENT = 50


class Config(NamedTuple):
    """What the file says, with defaults for what it does not."""

    path: str = ""
    theme: str = ""
    """"" when it names none."""
    reserve_share: float = DEFAULT_RESERVE_SHARE
    ascii: bool = False
    keys: Mapping[str, tuple[str, ...]] = {}
    """Keys by act; only those that the file changes."""
    priorities: Mapping[str, int] = {}
    """By kind of fix or rule; only those that the file changes."""
    problems: tuple[str, ...] = ()
    """A sentence for each entry that was left out."""

    def prioritised(self, rows: tuple[FixRow, ...]) -> tuple[FixRow, ...]:
        """The rows with the priorities that the file gives; a rule's counts before a kind's."""
        if not self.priorities:
            return rows
        wanted = [self.priorities.get(row.rule, self.priorities.get(row.type, row.priority)) for row in rows]
        return tuple(row._replace(priority=value) for row, value in zip(rows, wanted, strict=True))


def default_path() -> str:
    """Where the file is looked for."""
    return os.path.join(user_directory("XDG_CONFIG_HOME", ".config"), "console.toml")


def load(path: str | None = None, acts: Collection[str] = (), themes: Collection[str] = ()) -> Config:
    """The settings. ``acts`` and ``themes``: the names that are known. Never raises: problems are in the result."""
    path = path or default_path()
    try:
        with open(path, "rb") as stream:
            raw = stream.read(_LIMIT_BYTES + 1)
    except FileNotFoundError:
        return Config(path)
    except (OSError, ValueError) as error:
        return Config(path, problems=(f"{printable(path)} cannot be read: {error}",))
    reader = _Reader(path, acts, themes)
    try:
        text = raw[:_LIMIT_BYTES].decode()
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        return Config(path, problems=(f"{printable(path)}: {printable(error)}; nothing of it is used",))
    return reader.read(text, data)


def key_named(text: str) -> str:
    """Return the name by which a terminal's key arrives: "slash" for "/", "X" for "X"; "" for what no key is called.

    A character or the name of one, or of a key without one, after any of ctrl, alt, shift and so on."""
    *held, name = text.split("+") if len(text) > 1 else (text,)
    if any(part not in _HELD for part in held) or len(set(held)) < len(held):
        return ""
    if len(name) == 1:
        name = _name_of(name)
    elif name not in _NAMED and not re.fullmatch(r"f([1-9]|1[0-9]|2[0-4])", name) and not _is_name(name):
        return ""
    if not name or ("shift" in held and len(name) == 1):  # with shift a letter is another letter
        return ""
    return "+".join((*held, name))


def _name_of(character: str) -> str:
    if character.isalnum():
        return character
    try:
        name = unicodedata.name(character).lower().replace("-", "_").replace(" ", "_")
    except ValueError:
        return ""
    return _SHORTER.get(name, name)


def _is_name(name: str) -> bool:
    """Whether a character that is no letter and no digit is called so: those are called as they are written."""
    try:
        character = unicodedata.lookup(name.replace("_", " "))
    except KeyError:
        return False
    return len(character) == 1 and _name_of(character) == name


class _Reader:
    """Reads one file and collects what is wrong with it."""

    def __init__(self, path: str, acts: Collection[str], themes: Collection[str]) -> None:
        self._path = path
        self._acts = acts
        self._themes = themes
        self._text = ""
        self._problems: list[str] = []

    def read(self, text: str, data: dict[str, Any]) -> Config:
        self._text = text
        for name in data:
            if name not in _SECTIONS:
                self._problem(name, f"there is no setting {name!r:.60}", _SECTIONS)
        config = Config(
            path=self._path,
            theme=self._theme(data.get("theme", "")),
            reserve_share=self._reserve(data.get("reserve")),
            ascii=self._flag("ascii", data.get("ascii", False)),
            keys=self._keys(self._section(data, "keys")),
            priorities=self._priorities(self._section(data, "priorities")),
        )
        return config._replace(problems=tuple(self._problems))

    def _problem(self, key: str, what: str, known: Collection[str] = ()) -> None:
        near = get_close_matches(key, known, 1, 0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        self._problems.append(printable(f"{self._path}, line {self._line(key)}, {key}: {what}{hint}"))

    def _line(self, key: str) -> int:
        """The line that sets a key or opens a section; 1 when it cannot be found."""
        pattern = re.compile(rf"""\s*(?:\[\s*)?["']?{re.escape(key)}["']?\s*(?:=|\])""")
        lines = self._text.splitlines()
        return next((number for number, line in enumerate(lines, 1) if pattern.match(line)), 1)

    def _section(self, data: dict[str, Any], name: str) -> dict[str, Any]:
        found = data.get(name, {})
        if isinstance(found, dict):
            return found
        self._problem(name, "it is a section, not a value")
        return {}

    def _theme(self, value: Any) -> str:
        if isinstance(value, str) and (not value or not self._themes or value in self._themes):
            return value
        known = f"known: {', '.join(self._themes)}"
        self._problem("theme", f"there is no theme {value!r:.60}; {known}")
        return ""

    def _reserve(self, value: Any) -> float:
        if value is None:
            return DEFAULT_RESERVE_SHARE
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _MOST_PERCENT:
            return value / 100
        self._problem("reserve", f"{value!r:.60} is not a percentage from 0 to {_MOST_PERCENT}")
        return DEFAULT_RESERVE_SHARE

    def _flag(self, name: str, value: Any) -> bool:
        if isinstance(value, bool):
            return value
        self._problem(name, f"{value!r:.60} is not true or false")
        return False

    def _keys(self, data: dict[str, Any]) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        users: dict[str, str] = {}
        for act, value in data.items():
            keys = value if isinstance(value, list) else [value]
            if self._acts and act not in self._acts:
                self._problem(act, "there is no such act", self._acts)
            elif not keys or not all(isinstance(key, str) and key.strip() for key in keys):
                self._problem(act, f"{value!r:.60} is not a key or a list of keys")
            elif wrong := next((key for key in keys if not key_named(key)), ""):
                self._problem(act, f"{wrong!r:.60} is no key; write it as x, X, f5, ctrl+x, ? or question_mark")
            elif taken := next((key for key in keys if key_named(key) in users), ""):
                self._problem(act, f"the key {taken} is given to {users[key_named(taken)]} already")
            else:
                found[act] = tuple(map(key_named, keys))
                users |= dict.fromkeys(found[act], act)
        return found

    def _priorities(self, data: dict[str, Any]) -> dict[str, int]:
        kinds = [str(kind) for kind in FixType]
        found = {}
        for name, value in data.items():
            if name not in kinds and not _RULE.match(name):
                self._problem(name, "there is no such kind of fix or rule", kinds)
            elif type(value) is not int or value not in (1, 2, 3, 4):
                self._problem(name, f"{value!r:.60} is not a priority from 1 to 4")
            else:
                found[name] = value
        return found


# -- what the console keeps itself

_SETTINGS = "settings.json"


def choice(notes: Notes, name: str, default: str = "") -> str:
    """A choice that was made on the screen, such as the theme; ``default`` when none was made."""
    found = notes.glance(_SETTINGS, {}).get(name)
    return printable(found) if isinstance(found, str) else default


def keep_choice(notes: Notes, name: str, value: str) -> None:
    """Keep a choice over restarts. Raises StorageError."""
    notes.change(_SETTINGS, {}, lambda data: {**data, name: value} if data.get(name) != value else None)
