"""What qemu tells of its disks in answer to queries, whoever carries these to it.

Measured with qemu 7.2: it dies when it is asked which nodes it has while it keeps a stream job that has ended. So none
of ours is kept, and what was kept all the same comes first.
"""

from __future__ import annotations

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from engine.doors.hypervisor import OURS, Job, Node
from engine.errors import ToolFailed, ToolMissing

_NO_NODE = "?"
"""No node has that name: those of a user begin with a letter, those of qemu with #."""


class Qemu(ABC):
    """A machine that can be asked."""

    def __init__(self, who: str, next_step: str) -> None:
        """``who``: as errors call it; ``next_step``: for one that does not answer."""
        self.who = who
        self.next_step = next_step

    @abstractmethod
    def ask(self, command: str, doing: str, **arguments: Any) -> Any:
        """Return the answer to a command of QMP. ToolFailed, ToolMissing: it cannot do what it is asked for."""

    def answer(self, command: str, doing: str, **arguments: Any) -> list[dict[str, Any]]:
        """Return the answer to a query for several things."""
        found = self.ask(command, doing, **arguments)
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise ToolFailed(f"{self.who} says what makes no sense: {found!r:.100}", self.next_step)
        return found

    @contextlib.contextmanager
    def sense(self) -> Iterator[None]:
        """Raise ToolFailed for an answer of another shape than the body takes it for."""
        try:
            yield
        except (
            LookupError,
            TypeError,
            ValueError,
            AttributeError,
            StopIteration,
            OverflowError,
            RecursionError,
        ) as error:
            raise ToolFailed(f"{self.who} tells of its disks what makes no sense: {error!r:.200}") from error

    def nodes(self) -> list[Node]:
        """Make one query, without what lies below each."""
        found = self.named_nodes(flat=True)
        with self.sense():
            return [_node(item) for item in found]

    def named_nodes(self, **how: bool) -> list[dict[str, Any]]:
        """Return its nodes as it tells of them; ToolFailed where it would die of the question."""
        for name, job in Qemu.jobs(self).items():
            if job.kind == "stream" and job.ended:
                self.let_go(name)
        return self.answer("query-named-block-nodes", "tell what it has open", **how)

    def let_go(self, job: str) -> None:
        """Have a job that has ended kept no longer."""
        if not job.startswith(OURS):
            raise ToolFailed(
                f"{self.who} keeps the job {job!r:.80}, which has ended: asked for its disks it may die (qemu 7.2)",
                "Let it forget that job (job-dismiss)",
            )
        with contextlib.suppress(ToolFailed):  # it is kept no longer
            self.ask("job-dismiss", "forget a job", id=job)

    def jobs(self) -> dict[str, Job]:
        """Make one query."""
        found = self.answer("query-jobs", "tell which jobs it has")
        with self.sense():
            return {str(item["id"]): _job(item) for item in found}

    def depth(self, node: str) -> int:
        """Make one query; it is 0 for each in one that tells nothing of what lies below."""
        nodes = self.named_nodes()
        with self.sense():
            return next(int(item["backing_file_depth"]) for item in nodes if item["node-name"] == node)

    def is_shorter(self, node: str, size: int) -> bool:
        """Tell whether a node has to be made longer to have that size. ToolFailed when it is longer, or is none: qemu
        would make it shorter as well, and cut off data."""
        have = next((found.size for found in self.nodes() if found.name == node), -1)
        if not 0 <= have <= size:
            raise ToolFailed(f"{self.who} has {node} of {have} bytes now, not to be made {size}", self.next_step)
        return have < size

    def base(self, node: str, backing: str) -> str | None:
        """Return the file name of what the layer directly below a node stands on, None for nothing. ToolFailed when
        that is called something else than ``backing`` in its header."""
        nodes = self.named_nodes()
        with self.sense():
            below = next(item["image"]["backing-image"] for item in nodes if item["node-name"] == node)
            base = str(below["backing-image"]["filename"]) if "backing-image" in below else None
            stands_on = below.get("backing-filename", "")
        if stands_on != backing or (base is None) != (not backing):
            raise ToolFailed(f"{self.who} has {stands_on!r:.80} below, and not {backing!r}", self.next_step)
        return base

    def write_back(self, node: str) -> None:
        """Have qemu flush it by its own tool, by the monitor for people: the one for programs has no such command.
        Where that is missing too (qemu-storage-daemon), ask to open it anew, on a node that cannot be: that is refused,
        after the flush that comes first (bdrv_reopen_multiple in block.c)."""
        try:
            self.ask("human-monitor-command", "write back", command_line=f"qemu-io {node} flush")
        except (ToolMissing, ToolFailed):
            anew = {"node-name": node, "driver": "qcow2", "file": _NO_NODE}
            with contextlib.suppress(ToolMissing, ToolFailed):
                self.ask("blockdev-reopen", "write back", options=[anew])


def _node(item: dict[str, Any]) -> Node:
    image = item["image"]
    texts = item["node-name"], _path(image["filename"]), item["drv"], image.get("backing-filename", "")
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"a node that is called {texts[0]!r:.40}")
    name, path, format, backing = texts
    below, flushes = "backing_file" in item, not item["cache"]["no-flush"]
    return Node(name, path, format, not item["ro"], backing, int(image["virtual-size"]), below, flushes)


def _job(item: dict[str, Any]) -> Job:
    told = Job(item["type"], item["status"], item["current-progress"], item["total-progress"], item.get("error", ""))
    if not all(isinstance(value, kind) for value, kind in zip(told, (str, str, int, int, str), strict=True)):
        raise ValueError(f"a job {told!r:.100}")
    return told


def _path(filename: str) -> str:
    """Return the path in what qemu calls a file name: JSON where it was given more than a path."""
    if not filename.startswith("json:"):
        return filename
    described: Any = json.loads(filename.removeprefix("json:"))
    while isinstance(described, dict) and isinstance(described.get("file"), dict):
        described = described["file"]
    return str(described.get("filename", "")) if isinstance(described, dict) else ""
