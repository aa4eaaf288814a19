"""Which implementation a monitor is for. Each is imported when it is used: its library takes longer to import than a
verb takes, and is an optional dependency."""

from __future__ import annotations

from engine.doors.hypervisor import Monitor
from engine.errors import BadRequest, ToolMissing

QMP = "qmp:"


class Monitors:
    """The machines of this host: ``qmp:PATH`` of a Unix socket."""

    def connect(self, monitor: str) -> Monitor:
        """Negotiate; at most 10 s."""
        path = monitor.removeprefix(QMP)
        if not monitor.startswith(QMP) or not path.startswith("/"):
            raise BadRequest(f"{monitor!r:.200} is no monitor", "Use qmp:/PATH/OF/SOCKET, the path absolute")
        try:
            from engine.tools.hypervisor.qmp import QmpMonitor
        except ImportError as error:
            raise ToolMissing(
                "speaking to a machine needs the Python package qemu.qmp, which is not installed",
                "Install it: pip install 'diskwright[machines]'",
            ) from error
        return QmpMonitor(path)
