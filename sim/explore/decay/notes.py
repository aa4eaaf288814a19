"""Objects of a host: what it notes for itself below its state directory, and the directories of that."""

from __future__ import annotations

import re

from sim.disk.nodes import FileNode
from sim.explore.decay.objects import Damage
from sim.hosts.processes import SimHost
from sim.hosts.trees import remove_tree

_LAST_DIGIT = re.compile(rb"\A[^\]]*([0-9])", re.DOTALL)
"""Of the first list, or of all: in a note about a process that is its number or when it was started."""


def damages(host: SimHost) -> list[Damage]:
    """Return every damage of the notes of a host: what cannot be read gives errors for a while."""
    found = []
    for path, _, node in host.state_storage.walk():
        if not f"{path}/".startswith(f"{host.state_directory}/"):
            continue
        name = path.removeprefix(host.state_directory).lstrip("/")
        if not isinstance(node, FileNode):
            found += [Damage(name, kind) for kind in ("tree", "unreadable")]
            continue
        found += [Damage(name, kind) for kind in ("gone", "unreadable")]
        if node.content.size:
            found += [Damage(name, kind) for kind in ("flip", "cut")]
        if name.endswith(".json") and _LAST_DIGIT.match(node.content.read(0, node.content.size)):
            found.append(Damage(name, "digit"))
    return found


def inflict(host: SimHost, damage: Damage) -> bytes:
    """Flip the first bit of a note, cut it in half, change one digit, or take it away; return what is there then. One
    that cannot be read stays as it is."""
    files, path = host.process("decay").files, f"{host.state_directory}/{damage.name}".rstrip("/")
    if damage.kind == "tree":
        remove_tree(files, path)
        if not damage.name:
            files.make_directory(path)
        return b""
    if damage.kind == "gone":
        files.unlink(path)
        return b""
    if not _is_file(host, path):
        return b""
    content = files.read_file(path, 1 << 20)
    if damage.kind == "flip":
        content = bytes([content[0] ^ 1]) + content[1:]
    elif damage.kind == "cut":
        content = content[: len(content) // 2]
    elif damage.kind == "digit":
        match = _LAST_DIGIT.match(content)
        assert match is not None
        content = content[: match.start(1)] + bytes([match[1][0] ^ 1]) + content[match.end(1) :]
    with files.open(path, writable=True) as handle:
        handle.truncate(len(content))
        handle.write_at(0, content)
    host.state_storage.settle()
    return content


def _is_file(host: SimHost, path: str) -> bool:
    return any(found == path and isinstance(node, FileNode) for found, _, node in host.state_storage.walk())
