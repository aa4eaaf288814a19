"""Names as qemu takes them: a path, ``json:{…}``, or ``PROTOCOL:…``. Nothing is opened by them here."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

_PROTOCOL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*):")
"""qemu takes what stands before the first colon as a protocol, if no slash is before it."""
_FILES = frozenset({"file", "host_device", "host_cdrom"})
_MAX_DEPTH = 16
_SHOWN = 200


class Meant(NamedTuple):
    """What a name means."""

    path: str
    """Of a file, as it is written; "" where it is none."""
    words: str
    """The name as it is told."""


def meant(name: str) -> Meant:
    """Return what a name means to qemu."""
    if name.startswith("json:"):
        path = _json_path(name[5:])
        return Meant(path, path or f"{name[:_SHOWN]}")
    match = _PROTOCOL.match(name)
    if match is None or "/" in name[: match.end()]:
        return Meant(name, name)
    if match[1].lower() in _FILES:
        return Meant(_local(name[match.end() :]), name)
    return Meant("", name[:_SHOWN])


def _local(rest: str) -> str:
    """The path of ``file:/x`` and of ``file:///x``."""
    return rest[2:] if rest.startswith("///") else rest


def _json_path(text: str) -> str:
    """The one file that a ``json:`` name describes; "" where it describes none, or several."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    found = set(_filenames(data, 0))
    return found.pop() if len(found) == 1 else ""


def _filenames(data: Any, depth: int) -> list[str]:
    if not isinstance(data, dict) or depth > _MAX_DEPTH:
        return []
    driver = data.get("driver", data.get("file.driver", "file"))
    found = []
    for key, value in data.items():
        if isinstance(value, str) and (key == "filename" or key.endswith(".filename")):
            inner = meant(value) if not value.startswith("json:") else Meant("", value)
            found.append(inner.path if driver in _FILES or key != "filename" else "")
        elif isinstance(value, dict) and key != "backing":
            found += _filenames(value, depth + 1)
    return found
