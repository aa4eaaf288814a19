"""Jobs of a machine that we have started: waiting for one, with its progress and its limit, and giving one up."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from engine.doors.hypervisor import Job
from engine.errors import DiskwrightError, ToolFailed
from engine.host.machines import Machine
from engine.tags.attempt import Attempt

_LOOK_AGAIN_S = 0.2
_STALL_S = 300.0
_AT_ONCE_BYTES = 1 << 20
"""A machine moves less than that before it waits as long as its limit says, and tells of nothing (qemu: 512 KiB)."""
CANNOT = "Look at the machine; or stop it and tear the disk down, and run the fix then"


def ends_as(attempt: Attempt, machine: Machine, job: str, wanted: Sequence[str], told: int) -> bool:
    """Return when the job has one of these statuses, or has ended well before: False. ToolFailed when it has failed.
    ``told``: the rate at which it goes now, -1 for one that is not known."""
    found: Job | None = None

    def done() -> int:
        nonlocal found, told
        found = machine.monitor.jobs().get(job)
        if found is not None and found.status == "running" and (rate := attempt.context.rate()) != told:
            with contextlib.suppress(ToolFailed):  # it has come to its end
                machine.monitor.limit(job, rate)
            told = rate
        if found is None or found.status in wanted or found.ended:
            return -1
        attempt.checkpoint(0, min(99, found.done * 100 // found.total) if found.total > 0 else 0)
        return found.done

    wait(attempt, machine, done, _AT_ONCE_BYTES)
    if found is None or not found.ended:
        return found is not None
    machine.monitor.forget(job)
    if found.error:
        raise ToolFailed(f"the machine of image {attempt.tag} could not {attempt.verb}: {found.error:.200}", CANNOT)
    return "concluded" in wanted


def wait(attempt: Attempt, machine: Machine, left: Callable[[], int], at_once: int = 0) -> None:
    """Return when ``left`` is -1. Stopped, Superseded; ToolFailed when it is the same for too long, and for longer than
    ``at_once`` bytes take that are limited."""
    clock = attempt.context.doors.clock
    before, since = -1, clock.monotonic()
    while (now := left()) != -1:
        if now != before:
            before, since = now, clock.monotonic()
        rate = attempt.context.rate()
        patience = _STALL_S + (at_once / rate if rate else 0)
        if clock.monotonic() > since + patience:
            raise ToolFailed(
                f"the machine of image {attempt.tag} has written nothing of the {attempt.verb} for {patience:.0f} s",
                CANNOT,
            )
        attempt.check()
        clock.sleep(_LOOK_AGAIN_S)


def give_up(attempt: Attempt, machine: Machine, job: str) -> None:
    """Stop the job, as far as that works: it is found by whoever goes on."""
    clock = attempt.context.doors.clock
    with contextlib.suppress(DiskwrightError):
        deadline = clock.monotonic() + _STALL_S
        machine.monitor.cancel(job)
        while (found := machine.monitor.jobs().get(job)) is not None and clock.monotonic() < deadline:
            if found.ended:
                machine.monitor.forget(job)
                return
            clock.sleep(_LOOK_AGAIN_S)
