"""What can go wrong in a lab; all are the engine's operating errors, with its exit codes."""

from __future__ import annotations

from engine.errors import StorageError


class LabError(StorageError):
    """A host of the lab, or the lab itself, does not do what it should."""

    code = "lab-error"


class GuestDied(LabError):
    """The host died before the command ended, or is not running at all."""

    code = "guest-died"


class CommandFailed(LabError):
    """A command on a host of the lab ended with another exit code than 0."""

    code = "command-failed"


class CommandNotStarted(LabError):
    """There is no such command on the host, or it cannot be run; the exit code is a shell's."""

    code = "command-not-started"
    exit_code = 127
