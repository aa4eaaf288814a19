"""What is brought into a file of ours before its import is committed."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

from engine.verbs import spool
from sim.disk.files import SimFiles
from sim.disk.nodes import FileNode
from sim.disk.profiles import crash_states
from sim.disk.storage import SimStorage


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
