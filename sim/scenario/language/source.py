"""YAML with the place of everything in it. Nothing here knows what a scenario is.

Built from parse events and not by a loader: no tag makes an object, aliases are refused (a few of
them can mean gigabytes), a key stands once, nesting is limited. Whatever is wrong is a
``ScenarioError`` with file and line.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, NamedTuple, NoReturn

import yaml

MAX_BYTES = 1 << 20
MAX_DEPTH = 40
_TAGS = "tag:yaml.org,2002:"
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RESOLVER: Any = yaml.resolver.Resolver()
_TRUE = ("true", "yes", "on")


class ScenarioError(Exception):
    """A scenario that cannot be played as it is written."""

    def __init__(self, path: str, line: int, message: str) -> None:
        super().__init__(f"{path}:{line}: {message}")
        self.path = path
        self.line = line
        self.message = message


class Scalar(NamedTuple):
    """A single value as it is written."""

    text: str
    kind: str
    """str, int, float, bool, null, or another of YAML's own."""
    line: int


class Mapping(NamedTuple):
    """Keys with values, in order."""

    items: tuple[tuple[Scalar, Node], ...]
    line: int


class Sequence(NamedTuple):
    """A list."""

    items: tuple[Node, ...]
    line: int


Node = Scalar | Mapping | Sequence


def what(node: Node) -> str:
    """What a node is, for messages."""
    if isinstance(node, Mapping):
        return "a mapping"
    if isinstance(node, Sequence):
        return "a list"
    return "nothing" if node.kind == "null" else f"{node.text!r:.60}"


def nearest(word: str, known: list[str]) -> str:
    """A sentence that helps: the nearest known word, or all of them."""
    near = get_close_matches(word, known, 1, 0.5)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"


def load(path: str) -> Mapping:
    """The mapping that a file holds. ScenarioError, also when the file cannot be read."""
    try:
        with open(path, "rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ScenarioError(path, 1, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(raw) > MAX_BYTES:
        raise ScenarioError(path, 1, f"a scenario has up to {MAX_BYTES} bytes, this file has more")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ScenarioError(path, raw.count(b"\n", 0, error.start) + 1, "this is not UTF-8 text") from None
    return parse(path, text)


def parse(path: str, text: str) -> Mapping:
    """The mapping that ``text`` is."""
    try:
        root = _document(path, yaml.parse(text, Loader=_LOADER))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = min(mark.line, text.count("\n")) + 1 if mark else 1  # a mark may be behind the end
        raise ScenarioError(path, line, f"this is not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        at = getattr(error, "position", 0)
        reason = str(getattr(error, "reason", error)).splitlines()[0]
        raise ScenarioError(path, text.count("\n", 0, at) + 1, f"this is not YAML: {reason}") from None
    if not isinstance(root, Mapping):
        raise ScenarioError(path, root.line, f"a scenario is a mapping (title, steps, …); this is {what(root)}")
    return root


def _document(path: str, events: Iterator[Any]) -> Node:
    found: Node | None = None
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent) and found is not None:
            raise ScenarioError(path, _line(event), "a file holds one scenario; a second document begins")
        if isinstance(event, yaml.NodeEvent):
            found = _node(path, event, events, 0)
    if found is None:
        raise ScenarioError(path, 1, "the file is empty; a scenario begins with title:")
    return found


def _line(event: Any) -> int:
    line: int = event.start_mark.line
    return line + 1


def _node(path: str, event: Any, events: Iterator[Any], depth: int) -> Node:
    line = _line(event)
    if depth > MAX_DEPTH:
        raise ScenarioError(path, line, f"this is nested deeper than {MAX_DEPTH} levels")
    if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
        raise ScenarioError(
            path, line, "anchors and aliases (& and *) are not allowed: write it out, or quote the text"
        )
    if getattr(event, "tag", None) is not None:
        raise ScenarioError(path, line, f"tags (such as !!str) are not allowed: {event.tag!r:.60}")
    if isinstance(event, yaml.ScalarEvent):
        tag = _RESOLVER.resolve(yaml.ScalarNode, event.value, event.implicit)
        return Scalar(event.value, tag.removeprefix(_TAGS), line)
    if isinstance(event, yaml.SequenceStartEvent):
        return Sequence(tuple(_children(path, events, depth)), line)
    flat = list(_children(path, events, depth))
    items: list[tuple[Scalar, Node]] = []
    seen: dict[str, int] = {}
    for key, value in zip(flat[::2], flat[1::2], strict=True):
        if not isinstance(key, Scalar):
            raise ScenarioError(path, key.line, f"a key is a word, not {what(key)}")
        if key.text in seen:
            raise ScenarioError(path, key.line, f"{key.text!r:.60} stands here twice; first at line {seen[key.text]}")
        seen[key.text] = key.line
        items.append((key, value))
    return Mapping(tuple(items), line)


def _children(path: str, events: Iterator[Any], depth: int) -> Iterator[Node]:
    for event in events:
        if isinstance(event, yaml.CollectionEndEvent):
            return
        yield _node(path, event, events, depth + 1)


def json_of(path: str, node: Node) -> Any:
    """The value as JSON data. NaN and infinity are let through: the engine is to refuse them."""
    if isinstance(node, Mapping):
        return {key.text: json_of(path, value) for key, value in node.items}
    if isinstance(node, Sequence):
        return [json_of(path, item) for item in node.items]
    if node.kind == "null":
        return None
    if node.kind == "bool":
        return node.text.lower() in _TRUE
    if node.kind in ("int", "float"):
        return _number(path, node)
    return node.text


def _number(path: str, node: Scalar) -> Any:
    text = node.text.lower().replace("_", "")
    special = {".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf, ".nan": math.nan}
    if text in special:
        return special[text]
    try:
        return int(text, 0) if node.kind == "int" else float(text)
    except ValueError:
        _refuse(path, node, "a number as JSON has it (quote it if it is text)")


def _refuse(path: str, node: Node, wanted: str) -> NoReturn:
    raise ScenarioError(path, node.line, f"expected {wanted}, found {what(node)}")
