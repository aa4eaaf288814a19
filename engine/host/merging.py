"""A merge that the machine of the disk does while it runs: what is below is pulled into the layer above it.

(1) The holder hands over its leases, that of the layer below is taken too, and a new holder has all of them at once.
(2) The fix is verified, and the disk's record names the merge. (3) *The machine pulls*, in a job that is named after
the volume: whoever comes after us finds it, running, pending, ended, or gone because it was done or its machine has
died. (4) The file of the volume is asked whether all is in it, and made durable: what a machine has in its own caches
only is lost with it. (5) *The machine leaves out the layer below*, also in the header. (6) The disk's record says what
it stands on now: the seal. (7) Another holder has the leases of what is left; the layer below is hidden data that
nothing needs.

qemu syncs what it has pulled before the tables of the volume tell of it (as traced, 7.2), so a loss of power hides
nothing that was durable below; a machine that flushes nothing is refused, and one with lazy-refcounts is not known.
A layer further down is merged up into the snapshot above it in the same way: links[at] is that, or the disk. Its volume
is not written to by the guest; the machine opens it anew to write to it, by the name by which it has it open, so that
must lead there. Nobody else has the lease of that snapshot meanwhile. It shows the same throughout, with both volumes
and with its own.

What the guest sees is the same at each moment, with both layers and without the lower one. So whoever dies, the record
says what is durable, and the header is derived (``prepare`` rewrites it).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from engine.copying import ranges
from engine.data.amounts import human
from engine.data.model import Fix, Risk
from engine.errors import MAKE_ROOM, DiskwrightError, ImageBusy, NoSpace, Refused, StaleFix, ToolFailed
from engine.fixes import merge
from engine.fixes import run as fixes
from engine.fixes.work import Work
from engine.formats.base import Repository, backing_name
from engine.gate import gate
from engine.gate.gate import Purpose
from engine.host import holding, jobs, machines, mirroring, paths
from engine.host.machines import Machine
from engine.host.paths import EVERY
from engine.host.state import HostState, Prepared
from engine.survey import survey
from engine.tags import chains, changes, leasing
from engine.tags.attempt import Attempt
from engine.tags.context import Context
from engine.tags.leasing import LeaseSet
from engine.triage.judge import judge
from engine.triage.rules import B_COPY, BESIDE, C_HIDDEN, M_CHAIN


def entry_of(context: Context, state: HostState, repository: Repository, fix: Fix) -> Prepared | None:
    """Return how the disk is prepared here whose machine does a fix: a merge of what is below it or further down, or
    another volume for it. None where none does."""
    if fix.rule in BESIDE:
        return mirroring.entry_of(context, state, repository, fix)
    if fix.rule != M_CHAIN or not fix.images or leasing.hosts_share(repository):
        return None
    disks = [one for one in state.monitored(repository.identity) if survey.stands_on(repository, one, fix.images[0])]
    found = [machines.entry_of(context, state, repository, disk) for disk in disks]
    entries = [entry for entry in found if entry is not None and entry.monitor]
    return entries[0] if len(entries) == 1 else None


def take_leases(context: Context, state: HostState, repository: Repository, fix: Fix) -> LeaseSet:
    """Take the leases of a fix, or raise ImageBusy; none for what a running machine does: its holder has them."""
    if entry_of(context, state, repository, fix) is not None:
        return LeaseSet({})
    return fixes.take_leases(context, repository, fix)


def execute(context: Context, state: HostState, repo_id: str, fix: Fix) -> None:
    """Run a fix to its end, beside the machine of its disk where that does it."""
    repository = context.repository(repo_id)
    entry = entry_of(context, state, repository, fix)
    if entry is not None:
        run(context, state, repo_id, entry, fix)
        return
    with fixes.take_leases(context, repository, fix):
        fixes.execute(context, repository, Work(fix))


def kept_for(context: Context, repository: Repository, fix: Fix) -> tuple[str, str] | None:
    """Return the handle of the repository and the tag of what is kept for a copy, None where the fix is about no copy
    or nothing is."""
    entry = repository.tags.read(fix.target) if fix.rule == B_COPY else None
    operation = entry.record.operation if entry is not None and entry.record is not None else None
    if operation is None:
        return None
    for connection in context.connections.values():
        if connection.identity == operation.source_repository:
            kept = changes.read(context.repository(connection.repo_id), operation.source).record.kept
            return (connection.repo_id, operation.source) if kept is not None and kept.copy == fix.target else None
    return None


def after_copy(context: Context, state: HostState, repo_id: str, source: str) -> None:
    """Have the machine of a disk merge what was kept for a copy that is finished, and delete that: what was written
    between two backups. The lowest layer, which is all that the disk had before the first of them, is left for an
    operator."""
    repository = context.repository(repo_id)
    record = changes.read(repository, source).record
    if record.strong or record.volume is None or not record.volume.parent:
        return
    for rule in (M_CHAIN, C_HIDDEN):
        for fix in judge(survey.look(context, repository, only=source)).fixes:
            if (fix.rule, fix.target) != (rule, source) or fix.risk is Risk.LOSES_DATA:
                continue
            if rule == C_HIDDEN or entry_of(context, state, repository, fix) is not None:
                execute(context, state, repo_id, fix)


def run(context: Context, state: HostState, repo_id: str, entry: Prepared, fix: Fix) -> None:
    """Run what a running machine does to its end (``entry_of``).

    Of a merge of two layers what was moved so far stays when it is stopped. Refused or ToolFailed before anything is
    done when the monitor is gone or of another machine, or when the machine has other jobs under way. NoSpace when what
    is to be moved has no room."""
    if fix.rule in BESIDE:
        mirroring.run(context, state, repo_id, entry, fix)
        return
    repository, above, below = context.repository(repo_id), fix.images[0], fix.target
    merged = False
    try:
        with contextlib.closing(context.doors.hypervisors.connect(entry.monitor)) as monitor:
            links = chains.usable(repository, changes.read(repository, entry.image).record)
            at = next((at for at, link in enumerate(links[:-1]) if link.tag == above), -1)
            if at < 0 or links[at + 1].tag != below:
                raise StaleFix(f"image {above} does not stand on {below} any more", "Check again")
            found = machines.find(repository, monitor, entry, links)
            machine = found if at == 0 else _further_down(repository, entry, found, links[at])
            machines.require_idle(machine, entry.image, _own(machine, links[at:]))
            machines.require_following(machine, entry.image)
            _require_able(fix, machine)
            alone = [below] if at == 0 else [above, below]
            shared = [link.tag for link in links[1:] if link.tag not in alone]
            with (
                machines.held_anew(context, state, entry, repo_id),
                machines.handed_over(context, repository, entry, shared, alone) as leases,
            ):
                chains.unchanged(repository, links)
                entry = machines.hold(context, state, repository, entry, links, leases, merged=above)
                try:
                    _require_room(repository, fixes.verify(context, repository, fix).fix)
                    if repository.extents is not None:  # a snapshot has been made as short as its data
                        repository.extents.make_room(links[at].volume, links[at].record.size)
                    if at > 0:  # it opens that layer anew, by its name
                        paths.extend(context, entry.run, links, chains.layers(repository, links))
                    merge.beside_machine(
                        context,
                        repository,
                        below,
                        above,
                        lambda attempt: _merge(attempt, machine, (entry.run, *entry.names), links[at:]),
                    )
                except DiskwrightError:
                    if at > 0 and _has_ended(machine, links[at:]):  # others may use the snapshot as before
                        with contextlib.suppress(DiskwrightError):
                            _hold_less(context, state, repository, entry, leases, (), alone)
                    raise
                merged = True
                _hold_less(context, state, repository, entry, leases, [below], alone)
    except ImageBusy:
        if not merged:  # else another host came in between, for what is below, and the disk has a holder all the same
            raise
    finally:
        context.deactivate()


def _hold_less(
    context: Context,
    state: HostState,
    repository: Repository,
    entry: Prepared,
    leases: LeaseSet,
    gone: Sequence[str],
    alone: Sequence[str],
) -> None:
    """Have another holder, with the leases of what the machine has below its disk for it and for others, and none of
    what is ``gone``. Nobody had those of ``alone`` too."""
    holding.end(context, entry)
    machines.give_back(context, repository, leases, alone, [tag for tag in alone if tag not in gone])
    machines.hold(
        context, state, repository, entry, chains.load(repository, changes.read(repository, entry.image).record), leases
    )


def _further_down(repository: Repository, entry: Prepared, machine: Machine, link: chains.Link) -> Machine:
    """Return the machine as it writes to a layer below its disk, which does not change for that."""
    path = gate.open_layer(repository, link.tag, link.volume, Purpose.READ).path
    return machine._replace(top=machines.layer_of(machine, entry, link, path))


def _require_able(fix: Fix, machine: Machine) -> None:
    if not machine.top.flushes:
        raise Refused(
            f"the machine of image {fix.images[0]} flushes nothing (cache=unsafe): a loss of power would take with it "
            "what was durable below",
            "Stop the machine and tear the disk down first, or start it with another cache mode",
        )
    if fix.plan.get("direction") != "up":
        raise Refused(
            f"the merge of image {fix.target} was begun the other way, which no running machine can go on with",
            "Stop the machine and tear the disk down first",
        )


def _require_room(repository: Repository, fix: Fix) -> None:
    """A guest stands still, or fails, when the room is used up under it."""
    if not fix.cost.fits:
        needed = human(fix.cost.peak_extra_bytes)
        raise NoSpace(
            f"the merge may need {needed} more than it gives back, and {repository.place} has less", MAKE_ROOM
        )


def _own(machine: Machine, links: list[chains.Link]) -> str:
    """Return the name of our job. Of one that its manager has named only the record tells that it is ours, else ""."""
    job = machines.node_name(links[0].volume)
    name = machine.monitor.job_name(job, machine.top.name)
    return name if name == job or machines.pulls(links) else ""


def _has_ended(machine: Machine, links: list[chains.Link]) -> bool:
    """Whether it is known that the machine writes to the upper layer no more, or never did, for our job."""
    with contextlib.suppress(DiskwrightError):
        job = machine.monitor.jobs().get(
            machine.monitor.job_name(machines.node_name(links[0].volume), machine.top.name)
        )
        return job is None or job.ended
    return False


def _merge(attempt: Attempt, machine: Machine, runs: Sequence[str], links: list[chains.Link]) -> None:
    """Have it done. A node that was given a name stays open when nobody uses it any more: that is closed."""
    _pull(attempt, machine, links)
    if not links[0].record.mutable:
        _make_durable(attempt, links)  # its header: others may have it open when somebody could rewrite that
    names = [*EVERY, backing_name(links[1].tag)]
    paths = [f"{run}/{name}" for run in runs for name in names] + machines.own_paths_of(attempt.repository, links)[1:]
    backing = _backing(links)
    for node in machine.monitor.nodes():
        if node.name != machine.top.name and node.path in paths and node.backing == backing and not node.writable:
            with contextlib.suppress(ToolFailed):  # somebody uses it, or it is what is below this one: then it stays
                machine.monitor.close_node(node.name)


def _backing(links: list[chains.Link]) -> str:
    parent = links[1].volume.parent
    return backing_name(parent) if parent else ""


def _pull(attempt: Attempt, machine: Machine, links: list[chains.Link]) -> None:
    """Have the machine do it, or go on with it, or find that it is done."""
    monitor, backing = machine.monitor, _backing(links)
    job = monitor.job_name(machines.node_name(links[0].volume), machine.top.name)
    rate = -1  # a runner before this one may have limited it
    if job not in monitor.jobs() and not _done(machine, links, backing):
        monitor.pull(machines.node_name(links[0].volume), machine.top.name, backing)
        rate = 0
    try:
        pending = jobs.ends_as(attempt, machine, job, ["pending"], rate)
        if pending or _done(machine, links, backing):  # others may finish a job, too early
            jobs.wait(attempt, machine, lambda: _is_written(attempt, machine, links))
            _make_durable(attempt, links)
        if pending:
            monitor.finish(job)
            jobs.ends_as(attempt, machine, job, ["concluded"], 0)
    except DiskwrightError:
        jobs.give_up(attempt, machine, job)
        raise
    if not _done(machine, links, backing):
        raise ToolFailed(f"the machine of image {attempt.tag} has ended the merge, and has not merged", jobs.CANNOT)


def _done(machine: Machine, links: list[chains.Link], backing: str) -> bool:
    """Whether the disk stands on what is below the lower layer, as the machine tells now."""
    top = next((node for node in machine.monitor.nodes() if node.name == machine.top.name), None)
    return top is not None and top.backing == backing and machine.monitor.depth(top.name) == len(links) - 2


def _is_written(attempt: Attempt, machine: Machine, links: list[chains.Link]) -> int:
    """Return how many bytes of the layer below the file of the volume above does not tell that it has; -1 for none."""
    repository, images = attempt.repository, attempt.context.doors.images
    machine.monitor.write_back(machine.top.name)
    upper, lower = (gate.open_layer(repository, one.tag, one.volume, Purpose.READ) for one in links[:2])
    mine = ranges.exact(ranges.present_ranges(images.map_layer(upper, written=True)))
    shown = [extent for extent in images.map_layer(lower) if len(links) > 2 or not extent.zero]
    missing = ranges.subtract(ranges.exact(ranges.present_ranges(shown)), mine)
    return sum(length for _, length in missing) or -1


def _make_durable(attempt: Attempt, links: list[chains.Link]) -> None:
    layer = gate.open_layer(attempt.repository, attempt.tag, links[0].volume, Purpose.READ)
    gate.settle(attempt.context.doors, layer)
