"""What a machine does by itself, as its monitor tells of it; who does it is ``sim.hosts.machine``."""

from __future__ import annotations

from engine.doors.hypervisor import Job


class Work:
    """Work that a machine does by itself."""

    kind = ""

    def __init__(self) -> None:
        self.at = 0
        self.rate = 0
        self.status = "running"
        self.error = ""

    def told(self, total: int) -> Job:
        """As a monitor tells of it."""
        return Job(self.kind, self.status, self.at, total, self.error)


class Pull(Work):
    """A job that brings into a layer what shows of the one below."""

    kind = "stream"

    def __init__(self, node: str, backing: str) -> None:
        super().__init__()
        self.node = node
        self.backing = backing


class Mirror(Work):
    """A job that fills a node with what the top layer shows, and keeps both the same."""

    kind = "mirror"

    def __init__(self, target: str) -> None:
        super().__init__()
        self.target = target
        self.completing = False

    @property
    def mirrors(self) -> bool:
        """Whether what the guest writes goes into both."""
        return self.status in ("running", "ready")
