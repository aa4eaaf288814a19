"""Names as qemu takes them: a path, ``json:{…}``, or ``PROTOCOL:…``. Nothing is opened by them here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

_PROTOCOL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*):")
"""qemu takes what stands before the first colon as a protocol, if no slash is before it."""
_FILES = frozenset({"file", "host_device", "host_cdrom"})
_NETWORK = frozenset({
    "ftp", "ftps", "gluster", "gluster+rdma", "gluster+tcp", "http", "https", "iscsi", "iser", "nbd", "nbd+tcp", "nfs",
    "rbd", "sftp", "sheepdog", "ssh",
})  # fmt: skip
_HERE = re.compile(r"unix|socket|localhost|127\.|::1\b", re.IGNORECASE)
"""A server of this host, which may serve any file of it."""
_FORMATS = frozenset({"raw", "qcow2", "qcow", "qed", "vmdk", "vdi", "vhdx", "vpc", "luks", "parallels"})
_FILE_KEYS = frozenset({"filename", "path"})
_BYTE = re.compile(r"\\x([89a-f][0-9a-f])")
_MAX_DEPTH = 16


class Meant(NamedTuple):
    """What a name means."""

    path: str
    """Of a file, as it is written; "" where it is none."""
    words: str
    """The name as it is told; whole, however long it is."""
    alone: bool
    """It can mean no other file of this host than ``path``: none at all, where that is ""."""


def meant(name: str) -> Meant:
    """Return what a name means to qemu."""
    if name.startswith("json:"):
        path, alone = _of_json(name)
        return Meant(path, path or name, alone)
    match = _PROTOCOL.match(name)
    if match is None or "/" in name[: match.end()]:
        return Meant(name, name, True)
    protocol = match[1].lower()
    if protocol in _FILES:
        return Meant(_local(name[match.end() :]), name, True)
    return Meant("", name, protocol in _NETWORK and not _HERE.search(name))


def as_bytes(name: str) -> str:
    """Return a name of a header, in which bytes that are no UTF-8 are written with a backslash, as names of files have
    them."""
    return _BYTE.sub(lambda match: chr(0xDC00 + int(match[1], 16)), name)


def _local(rest: str) -> str:
    """The path of ``file:/x`` and of ``file:///x``."""
    return rest[2:] if rest.startswith("///") else rest


def _of_json(name: str) -> tuple[str, bool]:
    """The one file that a ``json:`` name describes, "" where it describes none, or several; and whether it can mean no
    other one."""
    try:
        data = json.loads(name[5:])
    except (ValueError, RecursionError):
        return "", False
    paths = set(_filenames(data, 0))
    path = paths.pop() if len(paths) == 1 else ""
    members = list(_members(data, 0))
    known = all(
        isinstance(value, str) and value in _NETWORK | _FORMATS | _FILES for key, value in members if key == "driver"
    )
    files = [value for key, value in members if key in _FILE_KEYS]
    if not known or len(files) > 1 or any(key == "backing" and value is not None for key, value in members):
        return path, False
    if path:
        return path, files == [path]
    remote = any(key == "driver" and value in _NETWORK for key, value in members)
    return "", remote and not files and not _HERE.search(name)


def _members(data: Any, depth: int) -> Iterator[tuple[str, Any]]:
    """All members at any depth, ``a.b`` as ``b``; one of a list or of what is too deep as ``backing``: not known."""
    if isinstance(data, dict) and depth <= _MAX_DEPTH:
        for key, value in data.items():
            yield key.rpartition(".")[2], value
            yield from _members(value, depth + 1)
    elif isinstance(data, (dict, list)):
        yield "backing", data


def _filenames(data: Any, depth: int) -> list[str]:
    if not isinstance(data, dict) or depth > _MAX_DEPTH:
        return []
    driver = data.get("driver", data.get("file.driver", "file"))
    found = []
    for key, value in data.items():
        if isinstance(value, str) and (key == "filename" or key.endswith(".filename")):
            local = isinstance(driver, str) and driver in _FILES
            inner = "" if value.startswith("json:") else meant(value).path
            found.append(inner if local or key != "filename" else "")
        elif isinstance(value, dict) and key != "backing":
            found += _filenames(value, depth + 1)
    return found
