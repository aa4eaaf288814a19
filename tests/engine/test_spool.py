"""What is imported is durable before its import is committed, whoever wrote it."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest

from engine.doors.files import Space
from engine.errors import NoSpace
from engine.verbs import spool
from sim.disk.files import SimFiles
from sim.disk.nodes import FileNode
from sim.disk.profiles import crash_states
from sim.disk.storage import SimStorage
from sim.hosts.world import REPOSITORIES, World


def test_what_came_by_a_stream_is_durable_before_anything_is_committed():
    """An import that goes on after a loss of power knows the file by size and time, and would read zeros."""
    storage = SimStorage()
    files = SimFiles(storage)
    files.make_directory("/tmp")
    storage.settle()
    content = b"1" * 5000 + bytes(200 << 10) + b"2" * 300
    doors: Any = SimpleNamespace(files=files)
    spool.of_stream(doors, io.BytesIO(content).read, "/tmp/taken", 1 << 20)
    left = [
        {path: node.content.read(0, 1 << 20) for path, _, node in state.storage.walk() if isinstance(node, FileNode)}
        for state in crash_states(storage)
    ]
    assert left == [{"/tmp/taken": content}]


def test_a_stream_without_end_is_refused_before_the_place_is_full(monkeypatch: pytest.MonkeyPatch):
    """A place that is not ours alone keeps a twentieth of its room, and no file of ours."""
    files = SimFiles(SimStorage())
    files.make_directory("/tmp")
    free = [64 << 20]

    def taking(count: int) -> bytes:
        free[0] -= count
        return b"\1" * count

    monkeypatch.setattr(SimFiles, "space", lambda files, path: Space(200 << 20, free[0]))
    doors: Any = SimpleNamespace(files=files)
    with pytest.raises(NoSpace, match="'/tmp' is nearly full"):
        spool.of_stream(doors, taking, "/tmp/taken", 1 << 40)
    assert free[0] > 4 << 20 and files.list_directory("/tmp") == []


def test_an_imported_file_is_durable_before_its_import_is_committed():
    """The same holds for a file that somebody else has just written."""
    world = World()
    world.create("a")
    path = f"{REPOSITORIES}/in.raw"
    engine = world.host("one")
    with engine.doors.files.create(path) as handle:
        handle.write_at(0, b"1" * 65536)
    engine.doors.files.sync_directory(REPOSITORIES)
    assert any(path in left for left in world.storage.pending())
    engine.import_image("a", path, "raw", options={"auto_fix": False})
    assert not any(path in left for left in world.storage.pending())
