"""Machines by QMP, the monitor protocol of qemu and qemu-storage-daemon, on a socket of this host.

The protocol is the library's (qemu.qmp). A monitor serves one client: who comes second waits for its greeting, which
ends in a time-out. An answer may take long.

A job that we start here is kept by nobody when it has ended (``qemu``): how it ended is heard from its event.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from qemu.qmp import ExecuteError, QMPClient, QMPError

from engine.data.model import VolumeFormat
from engine.doors.hypervisor import Job, Move
from engine.doors.images import Layer
from engine.errors import ToolFailed, ToolMissing
from engine.tools.hypervisor.qemu import Qemu

_CONNECT_S = 10.0
_ANSWER_S = 120.0
_LEAVE_S = 1.0
_ROUNDS = 5
_CANCELLED = "Operation canceled"
_MIRROR = "mirror"
_Answer = TypeVar("_Answer")


class QmpMonitor(Qemu):
    """One connection."""

    def __init__(self, path: str) -> None:
        logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)  # what is wrong is raised
        super().__init__(
            f"the machine at {path}",
            "Look whether the machine runs, and whether somebody else uses that monitor; a second one (-qmp) is best",
        )
        self._client = QMPClient("diskwright")
        self._client.events.event_filter = self._hear
        self._known: set[str] = set()
        """Jobs that it had since we speak to it."""
        self._ended: dict[str, Job] = {}
        """Those of them that have ended and were not forgotten."""
        self._loop = asyncio.new_event_loop()
        try:
            self._run(self._client.connect(path), _CONNECT_S, "answer")
        except BaseException:
            self.close()
            raise

    def _hear(self, event: Mapping[str, Any]) -> bool:
        """Note how a job ended. No event is kept: nobody reads them, and a job may take hours."""
        told = event.get("data")
        cancelled = event.get("event") == "BLOCK_JOB_CANCELLED"
        if (cancelled or event.get("event") == "BLOCK_JOB_COMPLETED") and isinstance(told, dict):
            name, why = told.get("device"), _CANCELLED if cancelled else str(told.get("error", ""))
            if name in self._known and told.get("type") != _MIRROR:  # that is kept, and can be asked for
                self._ended[name] = Job(str(told.get("type")), "concluded", error=why)
        return False

    def _run(self, work: Coroutine[Any, Any, _Answer], seconds: float, doing: str) -> _Answer:
        try:
            return self._loop.run_until_complete(asyncio.wait_for(work, seconds))
        except ExecuteError as error:
            if error.error_class == "CommandNotFound":
                too_old = f"{self.who} is too old to {doing}: {error!s:.200}"
                raise ToolMissing(too_old, "Use a newer qemu") from error
            raise ToolFailed(f"{self.who} cannot {doing}: {error!s:.300}") from error
        except TimeoutError as error:
            raise ToolFailed(f"{self.who} did not {doing} within {seconds:.0f} s", self.next_step) from error
        except (QMPError, OSError, EOFError) as error:
            raise ToolFailed(f"{self.who} did not {doing}: {error!s:.200}", self.next_step) from error

    def ask(self, command: str, doing: str, **arguments: Any) -> Any:
        """Wait for the answer at most two minutes."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        return self._run(self._client.execute(command, named or None), _ANSWER_S, doing)

    def jobs(self) -> dict[str, Job]:
        """Make one query, which tells of those that have not ended."""
        found = super().jobs()
        self._known.update(found)
        return {**self._ended, **found}

    def add_overlay(self, name: str, layer: Layer, like: str) -> None:
        """Add one node; its backing stays away until the switch."""
        cache = self._cache(like)
        driver = "host_device" if layer.device else "file"
        file = {"driver": driver, "filename": layer.path, "cache": cache}
        raw = {"size": layer.length} if layer.length else {}
        alone = raw if layer.format is VolumeFormat.RAW else {"backing": None}
        self.ask(
            "blockdev-add", f"open {layer.path}",
            driver=str(layer.format), node_name=name, cache=cache, file=file, **alone,
        )  # fmt: skip

    def _cache(self, node: str) -> dict[str, bool]:
        for item in self.named_nodes(flat=True):
            if item.get("node-name") == node and isinstance(item.get("cache"), dict):
                return {key: bool(item["cache"].get(key)) for key in ("direct", "no-flush")}
        return {}

    def close_node(self, name: str) -> None:
        """Delete one node."""
        self.ask("blockdev-del", f"close {name}", node_name=name)

    def switch(self, moves: Sequence[Move]) -> None:
        """Make one transaction, which drains and flushes all nodes before the first of them goes on. Who starts the
        machine anew is told by whoever does."""
        actions = [
            {"type": "blockdev-snapshot", "data": {"node": move.node, "overlay": move.overlay}} for move in moves
        ]
        self.ask("transaction", "go on in the overlay", actions=actions)

    def grow(self, node: str, size: int) -> None:
        """Make one block_resize."""
        if self.is_shorter(node, size):
            self.ask("block_resize", "make the disk longer", node_name=node, size=size)

    def job_name(self, job: str, node: str) -> str:
        """Return the name itself."""
        del node
        return job

    def pull(self, job: str, node: str, backing: str) -> None:
        """Make one block-stream, which writes a name of its own into the header unless it is told one."""
        base = self.base(node, backing)
        kept = {} if base is None else {"base": base, "backing_file": backing}
        self._known.add(job)
        self.ask("block-stream", "merge layers", job_id=job, device=node, auto_finalize=False, **kept)

    def mirror(self, job: str, node: str, target: str) -> None:
        """Make one blockdev-mirror. Zeros are written, too: nothing says that the target has them."""
        self.ask(
            "blockdev-mirror", "move a disk into another volume",
            job_id=job, device=node, target=target, sync="full", copy_mode="write-blocking",
            auto_finalize=False, auto_dismiss=False,
        )  # fmt: skip

    def complete(self, job: str) -> None:
        """Make one job-complete."""
        self.ask("job-complete", "come to the end of a mirror", id=job)

    def limit(self, job: str, rate: int) -> None:
        """Make one block-job-set-speed."""
        self.ask("block-job-set-speed", "limit a job", device=job, speed=rate)

    def finish(self, job: str) -> None:
        """Make one job-finalize."""
        self.ask("job-finalize", "end a job", id=job)

    def cancel(self, job: str) -> None:
        """Make one job-cancel."""
        with contextlib.suppress(ToolFailed):  # it has ended: jobs tells
            self.ask("job-cancel", "stop a job", id=job)

    def forget(self, job: str) -> None:
        """Forget it here, or make one job-dismiss."""
        if self._ended.pop(job, None) is None:
            self.ask("job-dismiss", "forget a job", id=job)

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
