"""Machines by QMP, the monitor protocol of qemu and qemu-storage-daemon, on a socket of this host.

The protocol is the library's (qemu.qmp). A monitor serves one client: who comes second waits for its greeting, which
ends in a time-out. An answer may take long.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from qemu.qmp import ExecuteError, QMPClient, QMPError

from engine.doors.hypervisor import Job, Node
from engine.doors.images import Layer
from engine.errors import ToolFailed, ToolMissing

_CONNECT_S = 10.0
_ANSWER_S = 120.0
_LEAVE_S = 1.0
_ROUNDS = 5
_NO_NODE = "?"
"""No node has that name: those of a user begin with a letter, those of qemu with #."""
_NEXT = "Look whether the machine runs, and whether somebody else uses that monitor; a second one (-qmp) is best"

_Answer = TypeVar("_Answer")


class QmpMonitor:
    """One connection."""

    def __init__(self, path: str) -> None:
        logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)  # what is wrong is raised
        self._path = path
        self._client = QMPClient("diskwright")
        self._client.events.event_filter = lambda event: False  # nobody reads them, and a job may take hours
        self._loop = asyncio.new_event_loop()
        try:
            self._run(self._client.connect(path), _CONNECT_S, "answer")
        except BaseException:
            self.close()
            raise

    def _run(self, work: Coroutine[Any, Any, _Answer], seconds: float, doing: str) -> _Answer:
        try:
            return self._loop.run_until_complete(asyncio.wait_for(work, seconds))
        except ExecuteError as error:
            if error.error_class == "CommandNotFound":
                too_old = f"the machine at {self._path} is too old to {doing}: {error!s:.200}"
                raise ToolMissing(too_old, "Use a newer qemu") from error
            raise ToolFailed(f"the machine at {self._path} cannot {doing}: {error!s:.300}") from error
        except TimeoutError as error:
            raise ToolFailed(f"the machine at {self._path} did not {doing} within {seconds:.0f} s", _NEXT) from error
        except (QMPError, OSError, EOFError) as error:
            raise ToolFailed(f"the machine at {self._path} did not {doing}: {error!s:.200}", _NEXT) from error

    def _ask(self, command: str, doing: str, **arguments: Any) -> Any:
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        return self._run(self._client.execute(command, named or None), _ANSWER_S, doing)

    def _answer(self, command: str, doing: str, **arguments: Any) -> list[dict[str, Any]]:
        found = self._ask(command, doing, **arguments)
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise ToolFailed(f"the machine at {self._path} says what makes no sense: {found!r:.100}", _NEXT)
        return found

    def nodes(self) -> list[Node]:
        """Make one query, without what lies below each."""
        found = self._answer("query-named-block-nodes", "tell what it has open", flat=True)
        with self._sense():
            return [_node(item) for item in found]

    @contextlib.contextmanager
    def _sense(self) -> Iterator[None]:
        try:
            yield
        except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
            raise ToolFailed(
                f"the machine at {self._path} tells of its disks what makes no sense: {error!r:.200}"
            ) from error

    def jobs(self) -> dict[str, Job]:
        """Make one query."""
        found = self._answer("query-jobs", "tell which jobs it has")
        with self._sense():
            return {str(item["id"]): _job(item) for item in found}

    def add_overlay(self, name: str, layer: Layer, like: str) -> None:
        """Add one node; its backing stays away until the switch."""
        cache = self._cache(like)
        driver = "host_device" if layer.device else "file"
        file = {"driver": driver, "filename": layer.path, "cache": cache}
        self._ask(
            "blockdev-add", f"open {layer.path}",
            driver="qcow2", node_name=name, backing=None, cache=cache, file=file,
        )  # fmt: skip

    def _cache(self, node: str) -> dict[str, bool]:
        for item in self._answer("query-named-block-nodes", "tell what it has open", flat=True):
            if item.get("node-name") == node and isinstance(item.get("cache"), dict):
                return {key: bool(item["cache"].get(key)) for key in ("direct", "no-flush")}
        return {}

    def close_node(self, name: str) -> None:
        """Delete one node."""
        self._ask("blockdev-del", f"close {name}", node_name=name)

    def switch(self, node: str, overlay: str) -> None:
        """Make one blockdev-snapshot, which drains and flushes the node."""
        self._ask("blockdev-snapshot", "go on in the overlay", node=node, overlay=overlay)

    def grow(self, node: str, size: int) -> None:
        """Make one block_resize, after a look: it would make shorter as well, and cut off data."""
        have = next((found.size for found in self.nodes() if found.name == node), -1)
        if not 0 <= have <= size:
            raise ToolFailed(
                f"the machine at {self._path} has {node} of {have} bytes now, not to be made {size}", _NEXT
            )
        if have < size:
            self._ask("block_resize", "make the disk longer", node_name=node, size=size)

    def depth(self, node: str) -> int:
        """Make one query; it is 0 for each in one that tells nothing of what lies below."""
        nodes = self._answer("query-named-block-nodes", "tell what it has open")
        with self._sense():
            return next(int(item["backing_file_depth"]) for item in nodes if item["node-name"] == node)

    def pull(self, job: str, node: str, backing: str) -> None:
        """Make one block-stream, which writes a name of its own into the header unless it is told one."""
        nodes = self._answer("query-named-block-nodes", "tell what it has open")
        with self._sense():
            below = next(item["image"]["backing-image"] for item in nodes if item["node-name"] == node)
            base = below["backing-image"]["filename"] if "backing-image" in below else None
            stands_on = below.get("backing-filename", "")
        if stands_on != backing or (base is None) != (not backing):
            raise ToolFailed(f"the machine at {self._path} has {stands_on!r:.80} below, and not {backing!r}", _NEXT)
        kept = {} if base is None else {"base": base, "backing_file": backing}
        self._ask(
            "block-stream", "merge layers", job_id=job, device=node, auto_finalize=False, auto_dismiss=False, **kept
        )

    def finish(self, job: str) -> None:
        """Make one job-finalize."""
        self._ask("job-finalize", "end a merge", id=job)

    def write_back(self, node: str) -> None:
        """Have qemu flush it by its own tool, by the monitor for people: the one for programs has no such command.
        Where that is missing too (qemu-storage-daemon), ask to open it anew, on a node that cannot be: that is refused,
        after the flush that comes first (bdrv_reopen_multiple in block.c)."""
        try:
            self._ask("human-monitor-command", "write back", command_line=f"qemu-io {node} flush")
        except (ToolMissing, ToolFailed):
            anew = {"node-name": node, "driver": "qcow2", "file": _NO_NODE}
            with contextlib.suppress(ToolMissing, ToolFailed):
                self._ask("blockdev-reopen", "write back", options=[anew])

    def cancel(self, job: str) -> None:
        """Make one job-cancel."""
        with contextlib.suppress(ToolFailed):  # it has ended: jobs tells
            self._ask("job-cancel", "stop a job", id=job)

    def forget(self, job: str) -> None:
        """Make one job-dismiss."""
        self._ask("job-dismiss", "forget a job", id=job)

    def close(self) -> None:
        """Disconnect."""
        if self._loop.is_closed():
            return
        self._loop.run_until_complete(self._leave())
        self._loop.close()

    async def _leave(self) -> None:
        """Disconnect, and let the library end what it has under way: it starts more when it is interrupted."""
        with contextlib.suppress(Exception):  # whatever is the matter with it, we are going
            await asyncio.wait_for(self._client.disconnect(), _LEAVE_S)
        for _ in range(_ROUNDS):
            left = asyncio.all_tasks() - {asyncio.current_task()}
            if not left:
                return
            _, hung = await asyncio.wait(left, timeout=_LEAVE_S / _ROUNDS)
            for task in hung:
                task.cancel()


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
