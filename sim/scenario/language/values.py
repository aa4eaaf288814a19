"""How each kind of value is written: from a node to plain data, or a ScenarioError that helps."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NoReturn

from engine.data.model import FixType
from sim.scenario.language import schema
from sim.scenario.language.fields import PIECE, Field
from sim.scenario.language.patterns import MAX_BYTES, Piece
from sim.scenario.language.source import Mapping, Node, Scalar, ScenarioError, Sequence, json_of, nearest, what

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")
_SIZE = re.compile(r"([0-9]{1,19})\s*(B|KiB|MiB|GiB|TiB)?\Z")
_UNITS = {None: 0, "B": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}
MAX_DISK_BYTES = 64 << 40
"""Larger sparse disks only make the simulation slow; what the engine refuses at once may be asked for."""
_MAX_COUNT = 1 << 20


class Reader:
    """Reads the values of one file."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._kinds: dict[str, Callable[[Node, Field], Any]] = {
            "new": lambda node, field: self.name(node),
            "image": lambda node, field: self.name(node),
            "name": lambda node, field: self.name(node),
            "repository": lambda node, field: self.name(node),
            "host": lambda node, field: self.name(node),
            "size": lambda node, field: self._size(node),
            "count": lambda node, field: self.count(node),
            "flag": lambda node, field: self._flag(node),
            "text": lambda node, field: self.text(node),
            "json": lambda node, field: json_of(self.path, node),
            "choice": lambda node, field: self.choice(node, field.choices),
            "words": lambda node, field: self.words(node),
            "rule": lambda node, field: self.choice(node, schema.RULES),
            "rules": lambda node, field: self._listed(node, (*schema.RULES, *map(str, FixType))),
            "states": lambda node, field: self._listed(node, schema.STATES),
            "snapshots": lambda node, field: self._snapshots(node),
            "content": lambda node, field: self._content(node),
            "ranges": lambda node, field: self._ranges(node),
            "seconds": lambda node, field: self.seconds(node),
            "lose": lambda node, field: self._lose(node),
            "room": lambda node, field: self._room(node),
        }

    # -- errors

    def wrong(self, node: Node, message: str) -> NoReturn:
        """Raise ScenarioError at a node."""
        raise ScenarioError(self.path, node.line, message)

    def expected(self, node: Node, wanted: str) -> NoReturn:
        """Raise ScenarioError saying what was expected and what is there."""
        self.wrong(node, f"expected {wanted}, found {what(node)}")

    # -- collections

    def mapping(self, node: Node, wanted: str) -> Mapping:
        if not isinstance(node, Mapping):
            self.expected(node, wanted)
        return node

    def sequence(self, node: Node, wanted: str) -> Sequence:
        if not isinstance(node, Sequence):
            self.expected(node, wanted)
        return node

    def fields(self, node: Node, known: dict[str, Field], of: str) -> tuple[dict[str, Any], dict[str, int]]:
        """The values of a mapping and their lines."""
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key, value in self.mapping(node, f"the fields of {of}: {', '.join(known)}").items:
            field = known.get(key.text)
            if field is None:
                self.wrong(key, f"{of} has no field {key.text!r:.60}; {nearest(key.text, list(known))}")
            values[key.text] = self._kinds[field.kind](value, field)
            lines[key.text] = key.line
        for name, field in known.items():
            if field.required and name not in values:
                self.wrong(node, f"{of} lacks {name}: {field.about}")
        return values, lines

    # -- single values

    def scalar(self, node: Node, wanted: str) -> Scalar:
        if not isinstance(node, Scalar) or node.kind == "null":
            self.expected(node, wanted)
        return node

    def text(self, node: Node) -> str:
        return self.scalar(node, "text").text

    def name(self, node: Node) -> str:
        text = self.scalar(node, "a name").text
        if not _NAME.match(text):
            self.expected(node, "a name of letters, digits, - and _")
        return text

    def count(self, node: Node) -> int:
        text = self.scalar(node, "a whole number").text
        if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) > _MAX_COUNT:
            self.expected(node, f"a whole number up to {_MAX_COUNT}")
        return int(text)

    def choice(self, node: Node, choices: tuple[str, ...]) -> str:
        text = self.scalar(node, f"one of {', '.join(choices)}").text
        if text not in choices:
            self.wrong(node, f"expected one of {', '.join(choices)}, found {text!r:.60}{_hint(text, choices)}")
        return text

    def words(self, node: Node) -> tuple[str, ...]:
        if isinstance(node, Scalar) and node.kind != "null":
            return (node.text,)
        return tuple(self.text(item) for item in self.sequence(node, "a list of words").items)

    def _listed(self, node: Node, choices: tuple[str, ...]) -> tuple[str, ...]:
        items = node.items if isinstance(node, Sequence) else (node,)
        return tuple(self.choice(item, choices) for item in items)

    def _snapshots(self, node: Node) -> dict[str, str]:
        """New names by the names of disks."""
        items = self.mapping(node, "disks with names for their snapshots, such as {web: web-monday}").items
        if not items:
            self.wrong(node, "no disk is named")
        return {self.name(disk): self.name(snapshot) for disk, snapshot in items}

    def _size(self, node: Node) -> int:
        match = _SIZE.match(self.scalar(node, "a size").text)
        if match is None:
            self.expected(node, "a size such as 4096, 64KiB or 3MiB")
        size = int(match[1]) << _UNITS[match[2]]
        if MAX_DISK_BYTES < size <= 1 << 53:
            self.wrong(node, f"{size} bytes are more than the {MAX_DISK_BYTES} that a scenario may use")
        return size

    def _flag(self, node: Node) -> bool:
        text = self.scalar(node, "true or false").text
        if text not in ("true", "false"):
            self.expected(node, "true or false")
        return text == "true"

    def seconds(self, node: Node) -> float:
        """Read a number of seconds, which may be negative."""
        try:
            number = float(self.scalar(node, "a number of seconds").text)
        except ValueError:
            self.expected(node, "a number of seconds")
        if not -1e9 < number < 1e9:
            self.expected(node, "a number of seconds below 10^9")
        return number

    def _lose(self, node: Node) -> str:
        text = self.scalar(node, "all, none or a number").text
        if text not in ("all", "none") and not (text.isascii() and text.isdigit() and len(text) < 10):
            self.expected(node, "all, none or a number")
        return text

    def _room(self, node: Node) -> int | None:
        return None if self.scalar(node, "bytes or plenty").text == "plenty" else self._size(node)

    # -- contents

    def piece(self, node: Node) -> Piece:
        values, _ = self.fields(node, PIECE, "a piece")
        return self.make_piece(node, values)

    def make_piece(self, node: Node, values: dict[str, Any]) -> Piece:
        piece = Piece(**{name: values[name] for name in PIECE if name in values})
        if piece.length * piece.times > MAX_BYTES:
            self.wrong(node, f"a piece may write up to {MAX_BYTES} bytes")
        if not piece.times or not piece.length:
            self.wrong(node, "a piece writes at least one byte, at least once")
        if piece.times > 1 and piece.every < piece.length:
            self.wrong(node, "times needs every, and every must not be less than length")
        return piece

    def _content(self, node: Node) -> dict[str, Any]:
        """{"pieces": […]}, {"as": name, "in": repository}, or {"saved": name}."""
        if isinstance(node, Sequence):
            return {"pieces": [self.piece(item) for item in node.items]}
        if isinstance(node, Mapping) and any(key.text == "pattern" for key, _ in node.items):
            return {"pieces": [self.piece(node)]}
        known = {"as": Field("image", ""), "in": Field("repository", ""), "saved": Field("name", "")}
        values, _ = self.fields(node, known, "content")
        if ("as" in values) == ("saved" in values) or ("in" in values and "as" not in values):
            self.expected(node, "a list of pieces, as: IMAGE, or saved: NAME")
        return values

    def _ranges(self, node: Node) -> list[tuple[int, int]]:
        found = []
        for item in self.sequence(node, "a list of [start, length]").items:
            pair = self.sequence(item, "[start, length]").items
            if len(pair) != 2:
                self.expected(item, "[start, length]")
            found.append((self._size(pair[0]), self._size(pair[1])))
        return found


def _hint(text: str, choices: tuple[str, ...]) -> str:
    near = nearest(text, [*choices])
    return f"; {near}" if near.startswith("did") else ""
