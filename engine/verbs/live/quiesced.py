"""A guest whose file systems stand still while a snapshot is taken of its disks, which then lacks nothing of a file.

The agent in the guest is asked first whether it answers: else nothing is done. (1) A note of this host tells who is
about to freeze the guest; (2) a watchdog is started (``engine.host.live.watchdog``); (3) *the guest is frozen*. (4)
What has to be of that moment happens. (5) *The guest is thawed.* (6) The watchdog is ended, the note removed.

Whoever dies after (3), the guest goes on: the watchdog of a process that is gone thaws it, and where that is killed too
the next check, attach or such a snapshot of this host does. In (5) the agent says how many file systems were frozen
until then: where none was, somebody else has thawed them, and what was taken meanwhile does not count.
"""

from __future__ import annotations

from engine.data import monitors
from engine.doors.processes import ProcessIdentity
from engine.errors import DiskwrightError, Refused, ToolFailed, from_os_error
from engine.host import machines
from engine.host.live import switches
from engine.host.state import HostState
from engine.tags.context import Context


class Guest:
    """The guest of the machine behind a monitor; one that nobody wants frozen ("") is left alone. It goes on at the end
    of its block, which is the innermost: before leases and a holder are seen to."""

    def __init__(self, context: Context, state: HostState, monitor: str) -> None:
        """Return if it can be frozen. Refused, or ToolFailed: its agent is not known, or does not answer."""
        self._doors, self._state, self._monitor = context.doors, state, monitor
        self._watchdog: ProcessIdentity | None = None
        self._failed: DiskwrightError | None = None
        if monitor:
            require_agent(monitor)
            machines.let_go(context.doors, state)
            if self._doors.hypervisors.frozen(monitor):
                raise Refused(
                    f"the file systems of the guest behind {monitor} are frozen already, by somebody else",
                    "Wait for that, or thaw them: guest-fsfreeze-thaw, virsh domfsthaw",
                )

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *error: object) -> None:
        self.thaw()

    def freeze(self) -> None:
        """Freeze it. What is raised was not done."""
        if not self._monitor:
            return
        self._state.note_frozen(self._monitor)
        try:
            self._watchdog = self._watched()
            if not self._doors.hypervisors.freeze(self._monitor):
                raise Refused(
                    f"the guest behind {self._monitor} has no file system that its agent can freeze",
                    "Take the snapshot without --quiesce",
                )
        except DiskwrightError:
            if self._watchdog is None:
                self._state.forget_frozen(self._monitor)
            self.thaw()
            raise

    def _watched(self) -> ProcessIdentity:
        ids, own = self._doors.ids, self._doors.processes.own()
        arguments = [machines.GUEST, ids.host_id, self._state.directory, self._monitor, *map(str, own)]
        try:
            log = self._state.task_log("watchdog-guest")
            return self._doors.processes.spawn(switches.WATCHDOG, arguments, [], log)
        except OSError as error:
            raise from_os_error(error, "start the watchdog of a guest") from error

    def thaw(self) -> None:
        """Let it go on; what goes wrong is told by ``require_frozen``, and the watchdog is left to it. Idempotent."""
        if self._watchdog is None:
            return
        watchdog, self._watchdog = self._watchdog, None
        try:
            thawed = machines.thaw(self._doors, self._monitor)
        except DiskwrightError as error:
            self._failed = error
            return
        if not thawed:
            self._failed = ToolFailed(
                f"the file systems of the guest behind {self._monitor} were thawed by somebody else before the "
                "snapshot was there: it does not count",
                "Take it again; its data is merged by a fix",
            )
        self._doors.processes.terminate(watchdog)
        self._state.forget_frozen(self._monitor)

    def require_frozen(self) -> None:
        """Return if it stood still from ``freeze`` to ``thaw``, else raise ToolFailed."""
        if self._failed is not None:
            raise self._failed


def require_agent(monitor: str) -> None:
    """Return if it is known how to speak to the agent in the guest of a machine. Refused."""
    if not monitors.has_agent(monitor):
        raise Refused(
            f"no guest agent is known for the machine at {monitor}",
            "Tell its socket: diskwright attach REPO IMAGE qmp:PATH --agent PATH; or leave --quiesce out",
        )
