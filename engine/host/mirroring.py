"""A fresh flat volume for a disk while its machine runs: optimize, in which the machine moves the data.

(1) The holder hands over its leases, and a new one has them at once. (2) The fix is verified, the disk's record names
the fresh volume, which is made, and the machine opens it. (3) *The machine mirrors*, in a job that is named after that
volume: each write of its guest goes into both from here on, so the guest is never ahead. Whoever comes after us finds
the job, or that there is none any more, and begins anew. (4) A watchdog is started, and the note of the preparation
says between which volumes the disk is, until (7) is done; then the job is brought to where the guest waits and both
volumes read the same: PENDING. (5) The fresh volume is made durable; no path leads to the disk. (6) *The disk's record
says that it is on the fresh volume*: the seal. (7) The path leads there, and *the machine goes on in it*; the job is
forgotten, and what it has left is closed. (8) Another holder has the leases of what is left; the old volume is scrap,
and deleted.

Only between (4) and (7) can a record change without a lie: before, the fresh volume may lack what the guest was told is
durable, and after it the old one does. Whoever dies before (6), the record says the old volume, and the job is
cancelled: the guest goes on there. Whoever dies after (6), it is the fresh one, and the job is finished; a machine that
died has written into neither since both read the same. A machine that is started again between (5) and (7) finds no
path, rather than one that leads to what no record says any more.

The guest waits in PENDING for somebody who goes on. So the watchdog (``engine.host.live.watchdog``) outlives us, and
does what the record says (``settle``). Where that is dead too, whoever looks next finds the note, and starts another.
"""

from __future__ import annotations

import contextlib

from engine.data import monitors
from engine.data.amounts import human
from engine.data.model import Fix
from engine.data.records import Record, VolumeRef
from engine.doors.hypervisor import Monitor
from engine.errors import MAKE_ROOM, DiskwrightError, NoSpace, OutcomeUnknown, ToolFailed
from engine.fixes import rebuild
from engine.fixes import run as fixes
from engine.formats.base import Repository
from engine.gate import gate
from engine.gate.gate import Purpose
from engine.host import holding, jobs, machines, paths
from engine.host.live import switches
from engine.host.machines import Machine
from engine.host.state import HostState, Prepared
from engine.tags import chains, changes, leasing, target
from engine.tags.attempt import Attempt
from engine.tags.context import Context

_LOOK_AGAIN_S = 0.01
_ENDS_WITHIN_S = 60.0
"""The machine has that long to come to where its guest waits, and to end a job that it was told to end."""
_STAGES = ("make volume", "copy data", "replace")


def entry_of(context: Context, state: HostState, repository: Repository, fix: Fix) -> Prepared | None:
    """Return how the disk of a fix is prepared here whose machine can go on in another volume; None where it cannot."""
    if leasing.hosts_share(repository) or fix.deep:
        return None
    entry = machines.entry_of(context, state, repository, fix.target)
    return entry if entry is not None and monitors.waits(entry.monitor) else None


def run(context: Context, state: HostState, repo_id: str, entry: Prepared, fix: Fix) -> None:
    """Run an optimization of a running disk to its end. Stopped, it begins anew the next time.

    Refused or ToolFailed before anything is done when the monitor is gone or of another machine, or when the machine
    has other jobs under way. NoSpace when there is no room for a second volume. OutcomeUnknown when the disk is on
    another volume, and what was to follow failed."""
    repository = context.repository(repo_id)
    before = changes.read(repository, entry.image).record.volume
    try:
        _run(context, state, repo_id, entry, fix)
    except DiskwrightError as error:
        if not _is_done(context, state, repository, entry, before, error):
            raise
    finally:
        context.deactivate()


def _run(context: Context, state: HostState, repo_id: str, entry: Prepared, fix: Fix) -> None:
    repository, disk = context.repository(repo_id), entry.image
    with contextlib.closing(context.doors.hypervisors.connect(entry.monitor)) as monitor:
        links = chains.usable(repository, changes.read(repository, disk).record)
        machine = machines.find(repository, monitor, entry, links)
        machines.require_idle(machine, disk, _job(_begun(links[0].record)))
        machines.require_following(machine, disk)
        machines.require_as_long(machine, links[0].record)
        below = [link.tag for link in links[1:]]
        with (
            machines.held_anew(context, state, entry, repo_id),
            machines.handed_over(context, repository, entry, below) as leases,
        ):
            chains.unchanged(repository, links)
            entry = machines.hold(context, state, repository, entry, links, leases)
            _require_room(repository, fixes.verify(context, repository, fix).fix)
            _replace(context, state, repo_id, entry, machine, links, leases)


def _is_done(
    context: Context,
    state: HostState,
    repository: Repository,
    entry: Prepared,
    before: VolumeRef | None,
    error: DiskwrightError,
) -> bool:
    """Whether the disk, its machine and its holder are on another volume in spite of an error. OutcomeUnknown when
    only the disk is for certain."""
    now: Prepared | None = None
    try:
        volume = changes.read(repository, entry.image).record.volume
        if volume is None or volume == before or volume.parent:  # a snapshot that somebody took has one
            return False
    except DiskwrightError:
        return False
    with contextlib.suppress(DiskwrightError):
        now = machines.noted(state, repository, entry.image)
        guarded = repository.activation is not None or repository.volumes.guarded(volume)
        if now is not None and not now.switch and guarded and now in state.prepared():
            return True
    if now is not None and now.switch:
        why, next_step = "whether its machine goes on there is not known", "Its watchdog sees to that as soon as it can"
    else:
        why, next_step = "no holder keeps others away from that", "Check: O-UNHELD tells what to do, if it still runs"
    raise OutcomeUnknown(f"image {entry.image} is on another volume, but {why}: {error.message}", next_step) from error


def _require_room(repository: Repository, fix: Fix) -> None:
    """A guest stands still, or fails, when the room is used up under it."""
    if not fix.cost.fits:
        needed = human(fix.cost.peak_extra_bytes)
        raise NoSpace(f"a second volume may need {needed}, and {repository.place} has less", MAKE_ROOM)


def _replace(
    context: Context,
    state: HostState,
    repo_id: str,
    entry: Prepared,
    machine: Machine,
    links: list[chains.Link],
    leases: leasing.LeaseSet,
) -> None:
    repository = context.repository(repo_id)
    with Attempt(context, repository, entry.image, "optimize", _STAGES, session=True) as attempt:
        before = _begun(links[0].record)
        record = attempt.claim(lambda record: rebuild.optimizing(context, record, False))
        fresh = _begun(record)
        assert fresh is not None
        if before is not None and before.id != fresh.id:
            _drop(attempt, machine, before)
        fresh = _mirror(attempt, machine, record, fresh)
        try:
            attempt.stage("replace")
            switching = switches.begin(context.doors, state, repo_id, entry, fresh.id, links[0].volume.id)
        except DiskwrightError:
            _drop(attempt, machine, fresh)
            raise
        _switch(attempt, state, repo_id, switching, machine, fresh, links)
        holding.end(context, entry)
        for tag in [tag for tag in leases.leases if tag != entry.image]:
            leases.leases.pop(tag).release()
        links = chains.load(repository, changes.read(repository, entry.image).record)
        machines.hold(context, state, repository, _of(entry, links), links, leases)
        record = attempt.finish(lambda record: record)
        if record.scrap:
            with contextlib.suppress(DiskwrightError):  # the machine has it open still: it is scrap, as check tells
                target.drop_scrap(attempt, record)


def _begun(record: Record) -> VolumeRef | None:
    """Return the volume that an optimization of a disk has begun to fill, None for none."""
    operation = record.operation
    return operation.attempt if operation is not None and operation.verb == "optimize" else None


def _job(volume: VolumeRef | None) -> str:
    return machines.node_name(volume) if volume is not None else ""


# -- both volumes read the same


def _mirror(attempt: Attempt, machine: Machine, record: Record, fresh: VolumeRef) -> VolumeRef:
    """Return the volume once the machine has brought all into it, and keeps it so."""
    monitor, rate = machine.monitor, -1  # a runner before this one may have limited it
    found = monitor.jobs().get(_job(fresh))
    if found is None or found.ended:
        _drop(attempt, machine, fresh)
        fresh, rate = target.ready(attempt, record), 0
        layer = gate.open_layer(attempt.repository, attempt.tag, fresh, Purpose.FILL)
        monitor.add_overlay(_job(fresh), layer, machine.top.name)
        attempt.stage("copy data")
        try:
            monitor.mirror(_job(fresh), machine.top.name, _job(fresh))
        except DiskwrightError:
            _close(monitor, _job(fresh))
            raise
    try:
        if not jobs.ends_as(attempt, machine, _job(fresh), ["ready", "pending"], rate):
            raise ToolFailed(f"the machine of image {attempt.tag} has lost the job that moves its data", jobs.CANNOT)
    except DiskwrightError:
        _drop(attempt, machine, fresh)
        raise
    return fresh


def _drop(attempt: Attempt, machine: Machine, fresh: VolumeRef) -> None:
    """Have the machine do nothing more with a volume, as far as that works."""
    job, monitor = _job(fresh), machine.monitor
    with contextlib.suppress(DiskwrightError):
        if job in monitor.jobs():
            jobs.give_up(attempt, machine, job)
        if job in [node.name for node in monitor.nodes()]:
            _close(monitor, job)


def _close(monitor: Monitor, node: str) -> None:
    with contextlib.suppress(ToolFailed):  # somebody uses it
        monitor.close_node(node)


# -- the switch


def _switch(
    attempt: Attempt,
    state: HostState,
    repo_id: str,
    entry: Prepared,
    machine: Machine,
    fresh: VolumeRef,
    links: list[chains.Link],
) -> None:
    """Have the disk and its machine go on in the fresh volume, or raise and have both go on in the old one. Where
    neither can be had the watchdog stays."""
    context, old = attempt.context, links[0].volume.id
    failed: DiskwrightError | None = None
    try:
        _publish(attempt, entry, machine, fresh, chains.lost(links))
        settle(context, state, repo_id, entry, machine.monitor, fresh.id, old)
    except DiskwrightError as error:
        failed = error
        machine.monitor.close()  # it may be what is wrong, and serves one at a time
        try:
            take_up(context, state, repo_id, entry, fresh.id, old)
        except DiskwrightError:
            raise error from None
    if (switch := switches.of(entry)) is not None:
        context.doors.processes.terminate(switch.watchdog)
    now = changes.read(attempt.repository, attempt.tag).record
    if now.volume != fresh or (failed is not None and now.epoch != attempt.epoch):
        raise failed or ToolFailed(f"the machine of image {attempt.tag} could not go on in another volume", jobs.CANNOT)


def _publish(
    attempt: Attempt, entry: Prepared, machine: Machine, fresh: VolumeRef, lost: tuple[tuple[int, int], ...]
) -> None:
    """Do all up to the disk's record."""
    context, job = attempt.context, _job(fresh)
    found = machine.monitor.jobs().get(job)
    if found is None or found.status != "pending":
        machine.monitor.complete(job)
        _wait(context, machine.monitor, job, "pending")
    gate.settle(context.doors, gate.open_layer(attempt.repository, attempt.tag, fresh, Purpose.FILL))
    paths.take_away(context, entry.run)
    attempt.publish(lambda record: rebuild.on_another(record, fresh, "", lost=lost))


def _wait(context: Context, monitor: Monitor, job: str, status: str) -> None:
    """Return when a job has that status. ToolFailed when it has ended without it, or takes too long."""
    clock = context.doors.clock
    deadline = clock.monotonic() + _ENDS_WITHIN_S
    while (found := monitor.jobs().get(job)) is not None and found.status != status:
        if found.ended or clock.monotonic() > deadline:
            raise ToolFailed(f"the job {job} of the machine does not become {status}: {found.error:.200}", jobs.CANNOT)
        clock.sleep(_LOOK_AGAIN_S)
    if found is None:
        raise ToolFailed(f"the machine has lost the job {job}", jobs.CANNOT)


def take_up(context: Context, state: HostState, repo_id: str, entry: Prepared, fresh: str, old: str) -> None:
    """Settle what somebody has begun who is dead, or could not; of a machine that is dead, too, its path."""
    repository = context.repository(repo_id)
    try:
        monitor = context.doors.hypervisors.connect(entry.monitor)
    except DiskwrightError:
        volume = changes.read(repository, entry.image).record.volume
        if volume is None or gate.users(repository, volume):
            raise
        settle(context, state, repo_id, entry, None, fresh, old)
        return
    with contextlib.closing(monitor):
        if switches.noted(state, entry) is not None:  # who spoke to the machine until now may have done it
            settle(context, state, repo_id, entry, monitor, fresh, old)


def hold_there(context: Context, state: HostState, repo_id: str, disk: str, fresh: str) -> None:
    """Have a disk that is on its fresh volume held there: the holder that it has has the old one locked, and on LVM
    nothing else keeps the fresh one active when the machine is dead, and about to be started anew."""
    repository = context.repository(repo_id)
    entry, record = machines.noted(state, repository, disk), changes.read(repository, disk).record
    if entry is None or entry not in state.prepared() or record.volume is None or record.volume.id != fresh:
        return
    links = chains.usable(repository, record)
    with (
        machines.held_anew(context, state, entry, repo_id),
        machines.handed_over(context, repository, entry, [link.tag for link in links[1:]]) as leases,
    ):
        chains.unchanged(repository, links)
        if any(one.process == entry.process for one, _ in state.entries()):  # else it was torn down meanwhile
            machines.hold(context, state, repository, entry, links, leases)


def settle(
    context: Context, state: HostState, repo_id: str, entry: Prepared, monitor: Monitor | None, fresh: str, old: str
) -> None:
    """Have the machine of a disk, and its path, follow the disk's record, which does not change meanwhile: into the
    volume ``fresh`` when it says that, else back into ``old``. Idempotent; also of a machine that knows nothing of it,
    or is dead (no monitor).

    The record follows the machine where that cannot: it goes on in ``old`` then, and nothing was written since."""
    repository = context.repository(repo_id)
    record = changes.change(repository, entry.image, lambda now: _fenced(now, old))
    assert record.volume is not None
    if record.volume.id not in (fresh, old):
        switches.over(state, entry, entry.path, entry.format)  # somebody has gone on since
        return
    _lead(context, state, repository, entry, record)
    if monitor is not None:
        record = _end(context, state, repository, entry, monitor, record, fresh, old)
    now = _of(entry, chains.load(repository, record))
    switches.over(state, entry, now.path, now.format)


def _end(
    context: Context,
    state: HostState,
    repository: Repository,
    entry: Prepared,
    monitor: Monitor,
    record: Record,
    fresh: str,
    old: str,
) -> Record:
    """End the job as the record says, and return that as it is then."""
    assert record.volume is not None
    job, switched = machines.name_of(fresh), record.volume.id == fresh
    found = monitor.jobs().get(job)
    if found is not None and not found.ended:
        if switched and found.status == "pending":
            monitor.finish(job)
        else:
            monitor.cancel(job)
        _wait(context, monitor, job, "concluded")
        found = monitor.jobs().get(job)
    if found is not None:
        if switched and found.error:
            switched, record = False, _put_back(repository, record, old)
            _lead(context, state, repository, entry, record)
        monitor.forget(job)
    _close_what_is_left(repository, entry, monitor, record, job, old if switched else "")
    return record


def _fenced(record: Record, old: str) -> Record | None:
    """Return another generation of a record that was not changed: what its runner was writing then comes too late."""
    assert record.volume is not None
    return record._replace(epoch=record.epoch + 1) if record.volume.id == old else None


def _lead(context: Context, state: HostState, repository: Repository, entry: Prepared, record: Record) -> None:
    """Have the path of a disk lead to what its record says. One that was prepared anew since has that path, and leads
    it."""
    links = chains.load(repository, record)
    layers = chains.layers(repository, links)
    if switches.noted(state, entry) is not None:
        paths.renew(context, entry.run, links, layers)


def _of(entry: Prepared, links: list[chains.Link]) -> Prepared:
    return entry._replace(path=paths.of(entry.run, links), format=str(links[0].volume.format))


def _put_back(repository: Repository, record: Record, old: str) -> Record:
    """Have a disk be on its old volume, which its machine has not left."""

    def on_the_old_one(now: Record) -> Record | None:
        volume = next((one for one in now.scrap if one.id == old), None)
        if volume is None or now.volume != record.volume or record.volume is None:
            return None
        scrap = (*(one for one in now.scrap if one.id != old), record.volume)
        return now._replace(volume=volume, scrap=scrap, epoch=now.epoch + 1)

    return changes.change(repository, record.id, on_the_old_one)


def _close_what_is_left(
    repository: Repository, entry: Prepared, monitor: Monitor, record: Record, fresh: str, old: str
) -> None:
    """Have the machine close the volume in which it does not go on: ``old``, with what is below that, or the fresh one.
    A node that was given a name stays open when nobody uses it any more."""
    nodes = monitor.nodes()
    if not old:
        for _ in [node for node in nodes if node.name == fresh]:
            _close(monitor, fresh)
        return
    opened = machines.prepared_paths(entry)
    below: list[str] = []
    for volume in [one for one in record.scrap if one.id == old]:
        opened.append(gate.open_layer(repository, record.id, volume, Purpose.READ).path)
        with contextlib.suppress(DiskwrightError):
            links = chains.load(repository, record._replace(volume=volume))
            below = [machines.node_name(link.volume) for link in links[1:]]
    left = [node for node in nodes if node.path in opened or node.name in below]
    left.sort(key=lambda node: (not node.writable, below.index(node.name) if node.name in below else len(below)))
    for node in left:
        if machines.is_layer(node) and node.name != fresh:
            _close(monitor, node.name)
