"""Small sequences of file operations, for the simulated storage and for real ones: what a real power cut leaves of
them must be among what the simulation says that it may leave.

Each works in a directory with one durable file ``old``, and yields after every operation.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from engine.doors.files import Files
from sim.disk.files import SimFiles
from sim.disk.nodes import DirectoryNode, FileNode
from sim.disk.profiles import PROFILES, crash_states
from sim.disk.storage import SimStorage

OLD = b"o" * 2048
Tree = frozenset[tuple[str, bytes | None]]
"""Path and content of each file, path and None of each directory."""
Workload = Callable[[Files, str], Iterator[None]]


def _new(files: Files, path: str, data: bytes, sync: bool) -> Iterator[None]:
    with files.create(path) as handle:
        yield
        handle.write_at(0, data)
        yield
        if sync:
            handle.sync()
            yield


def publish(files: Files, top: str) -> Iterator[None]:
    """As the engine publishes a record."""
    yield from _new(files, f"{top}/tmp", b"n" * 700, True)
    files.link(f"{top}/tmp", f"{top}/name")
    yield
    files.sync_directory(top)
    yield
    files.unlink(f"{top}/tmp")
    yield
    files.sync_directory(top)
    yield


def rename_of_what_was_not_synced(files: Files, top: str) -> Iterator[None]:
    """A new name for a file without a sync of either."""
    yield from _new(files, f"{top}/tmp", b"n" * 1024, False)
    files.rename(f"{top}/tmp", f"{top}/name")
    yield


def replacement_of_what_was_not_synced(files: Files, top: str) -> Iterator[None]:
    """The same over a file that is there, and its directory is synced."""
    yield from _new(files, f"{top}/tmp", b"n" * 1024, False)
    files.rename(f"{top}/tmp", f"{top}/old")
    yield
    files.sync_directory(top)
    yield


def careful_replacement(files: Files, top: str) -> Iterator[None]:
    """Content first, then the name."""
    yield from _new(files, f"{top}/tmp", b"n" * 1024, True)
    files.rename(f"{top}/tmp", f"{top}/old")
    yield
    files.sync_directory(top)
    yield


def overwrite(files: Files, top: str) -> Iterator[None]:
    """Overwrite the middle of a file."""
    with files.open(f"{top}/old", writable=True) as handle:
        handle.write_at(512, b"n" * 1024)
        yield
        handle.sync()
        yield


def append_and_sync_of_another(files: Files, top: str) -> Iterator[None]:
    """What is synced is not what was appended to."""
    with files.open(f"{top}/old", writable=True) as handle:
        handle.write_at(len(OLD), b"n" * 512)
        yield
    yield from _new(files, f"{top}/other", b"x" * 512, True)


def growing_and_shrinking(files: Files, top: str) -> Iterator[None]:
    """Sizes alone."""
    with files.open(f"{top}/old", writable=True) as handle:
        handle.truncate(8192)
        yield
        handle.sync()
        yield
        handle.truncate(1024)
        yield
        handle.sync()
        yield


def removal(files: Files, top: str) -> Iterator[None]:
    """A name goes."""
    files.unlink(f"{top}/old")
    yield
    files.sync_directory(top)
    yield


def directory_with_a_file(files: Files, top: str) -> Iterator[None]:
    """Each of three things has its own sync."""
    files.make_directory(f"{top}/sub")
    yield
    yield from _new(files, f"{top}/sub/file", b"n" * 512, True)
    files.sync_directory(f"{top}/sub")
    yield
    files.sync_directory(top)
    yield


def second_name(files: Files, top: str) -> Iterator[None]:
    """A link, and the first name goes; then another file is synced."""
    files.link(f"{top}/old", f"{top}/second")
    yield
    files.unlink(f"{top}/old")
    yield
    yield from _new(files, f"{top}/other", b"x" * 512, True)


def two_files(files: Files, top: str) -> Iterator[None]:
    """The second is synced."""
    yield from _new(files, f"{top}/one", b"1" * 512, False)
    yield from _new(files, f"{top}/two", b"2" * 512, True)
    files.sync_directory(top)
    yield


WORKLOADS: dict[str, Workload] = {
    function.__name__: function
    for function in (
        publish, rename_of_what_was_not_synced, replacement_of_what_was_not_synced, careful_replacement, overwrite,
        append_and_sync_of_another, growing_and_shrinking, removal, directory_with_a_file, second_name, two_files,
    )
}  # fmt: skip


def prepare(files: Files, top: str) -> None:
    """The directory and the file that is there before; not synced yet."""
    files.make_directory(top)
    with files.create(f"{top}/old") as handle:
        handle.write_at(0, OLD)


def legal(workload: Workload, profile: str) -> list[set[Tree]]:
    """What a power cut may leave, by number of operations that were done."""
    storage = SimStorage()
    files = SimFiles(storage)
    prepare(files, "/d")
    storage.settle()
    found = [_trees(storage, profile)]
    found += [_trees(storage, profile) for _ in workload(files, "/d")]
    return found


def _trees(storage: SimStorage, profile: str) -> set[Tree]:
    rules = PROFILES[profile]._replace(max_pending=12)
    return {_tree(state.storage) for state in crash_states(storage, rules)}


def _tree(storage: SimStorage) -> Tree:
    found: set[tuple[str, bytes | None]] = set()
    for path, _, node in storage.walk():
        if path.startswith("/d/"):
            if isinstance(node, FileNode):
                found.add((path[3:], node.content.read(0, node.content.size)))
            elif isinstance(node, DirectoryNode):
                found.add((path[3:], None))
    return frozenset(found)


def real_tree(top: str) -> Tree:
    """What is below a directory of this machine."""
    found: set[tuple[str, bytes | None]] = set()
    for folder, folders, names in os.walk(top):
        inside = os.path.relpath(folder, top)
        for name in folders:
            found.add((os.path.normpath(f"{inside}/{name}"), None))
        for name in names:
            with open(f"{folder}/{name}", "rb") as stream:
                found.add((os.path.normpath(f"{inside}/{name}"), stream.read()))
    return frozenset(found)


def shown(tree: Tree) -> str:
    """A tree in one line."""
    return ", ".join(f"{path}{'/' if data is None else f'={_content(data)}'}" for path, data in sorted(tree)) or "empty"


def _content(data: bytes) -> str:
    """Runs of equal bytes, as n1024 z512."""
    text, start = "", 0
    for end in range(1, len(data) + 1):
        if end == len(data) or data[end] != data[start]:
            text += f" {chr(data[start]) if data[start] else 'z'}{end - start}"
            start = end
    return text.strip() or "empty"
