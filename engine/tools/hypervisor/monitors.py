"""Which implementation a monitor is for. Each is imported when it is used: its library takes longer to import than a
verb takes, and is an optional dependency."""

from __future__ import annotations

from engine.data import monitors
from engine.doors.hypervisor import Monitor
from engine.errors import ToolMissing


class Monitors:
    """The machines of this host: ``qmp:PATH`` of a Unix socket, ``libvirt:URI/DOMAIN``."""

    def connect(self, monitor: str) -> Monitor:
        """Negotiate; at most 10 s."""
        address = monitors.parse(monitor)
        if isinstance(address, monitors.Libvirt):
            from engine.tools.hypervisor.libvirt import LibvirtMonitor

            return LibvirtMonitor(address)
        try:
            from engine.tools.hypervisor.qmp import QmpMonitor
        except ImportError as error:
            raise ToolMissing(
                "speaking to a machine needs the Python package qemu.qmp, which is not installed",
                "Install it: pip install 'diskwright[machines]'",
            ) from error
        return QmpMonitor(address.path)

    def freeze(self, monitor: str) -> int:
        """Have the agent do it in at most a minute."""
        address = monitors.parse(monitor)
        if isinstance(address, monitors.Libvirt):
            from engine.tools.hypervisor import libvirt

            return libvirt.freeze(address)
        from engine.tools.hypervisor import agent  # with sockets

        return agent.freeze(address.agent)

    def thaw(self, monitor: str) -> int:
        """Have the agent do it in at most a minute."""
        address = monitors.parse(monitor)
        if isinstance(address, monitors.Libvirt):
            from engine.tools.hypervisor import libvirt

            return libvirt.thaw(address)
        from engine.tools.hypervisor import agent  # with sockets

        return agent.thaw(address.agent)

    def frozen(self, monitor: str) -> bool:
        """Ask the agent; at most 10 s."""
        address = monitors.parse(monitor)
        if isinstance(address, monitors.Libvirt):
            from engine.tools.hypervisor import libvirt

            return libvirt.frozen(address)
        from engine.tools.hypervisor import agent  # with sockets

        return agent.frozen(address.agent)
