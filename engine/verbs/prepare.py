"""prepare_image and teardown_image: an image as a path on this host, under a lease.

The lease outlives the command: a holder process inherits it. For writing, the image's own lease
is exclusive and every layer below is leased shared, so no fix can change the chain under a
running machine. A dead holder means not prepared: its leases are gone with it.
"""

from __future__ import annotations

import contextlib

from engine.data.model import VolumeFormat
from engine.data.records import Record
from engine.doors.leases import Lease
from engine.doors.processes import ProcessState
from engine.doors.shared_leases import TOKEN_PREFIX
from engine.errors import Conflict, DiskwrightError, Moved, NotFound, Refused, StorageError, from_os_error
from engine.formats.base import Repository, backing_name
from engine.gate import gate
from engine.gate.gate import Purpose
from engine.host.state import HostState, Prepared
from engine.tags import chains, changes, leasing
from engine.tags.context import Context
from engine.verbs.commit import committed

DISK_NAME = "disk"
_WAIT_S = 10.0


def prepare(context: Context, state: HostState, repo_id: str, image: str, writable: bool) -> Prepared:
    """Make the image usable on this host. Durable effects: the write epoch rises before anybody
    can write, and headers that do not say what the records say are rewritten first."""
    repository = context.repository(repo_id)
    record = context.visible(repo_id, image)
    _refuse_unusable(record, writable)
    _refuse_second(state, repository, image)
    links = chains.usable(repository, record, grown=True)
    below = [link.tag for link in links[1:]]
    own, rest = ([image], below) if writable else ([], [image, *below])
    with contextlib.ExitStack() as stack:
        stack.callback(context.deactivate)
        _mend_headers(context, repository, links)
        leases = stack.enter_context(leasing.take(context.doors, repository, own, rest))
        chains.usable(repository, context.visible(repo_id, image), grown=True)
        chains.unchanged(repository, links)  # and from here on nobody changes it
        if writable:
            gate.require(repository, image, links[0].volume, Purpose.HAND_OUT)
            if repository.extents is not None:
                repository.extents.make_room(links[0].volume, record.size)
            _claim(context, repository, image)
        path = _links(context, state, repository, links)
        entry = Prepared(
            repository.identity, image, context.doors.processes.own(), path, str(links[0].volume.format), writable
        )
        uses = _uses(stack, repository, links)
        with state.starting(context.connections[repo_id]):
            return _hold(context, state, entry, [*leases.leases.values(), *uses])


def _uses(stack: contextlib.ExitStack, repository: Repository, links: list[chains.Link]) -> list[Lease]:
    """Return the leases that keep the volumes active as long as the holder lives."""
    if repository.activation is None:
        return []
    found = []
    for link in links:
        use = repository.activation.hold(link.volume)
        stack.callback(use.release)
        found.append(use)
    return found


def _hold(context: Context, state: HostState, entry: Prepared, leases: list[Lease]) -> Prepared:
    """Hand the leases to a holder, which ends by itself when we die before the note that names it is saved."""
    tokens = [lease.token for lease in leases if lease.token.startswith(TOKEN_PREFIX)]
    arguments = [entry.image, state.prepared_note(entry), *map(str, context.doors.processes.own()), *tokens]
    try:
        log = state.task_log(f"holder-{entry.image}")
        process = context.doors.processes.spawn("engine.host.holder", arguments, leases, log)
    except OSError as error:
        raise from_os_error(error, f"start the holder of image {entry.image}") from error
    entry = entry._replace(process=process)
    try:
        state.save_prepared(entry)
    except DiskwrightError:
        context.doors.processes.kill(process)  # nobody would ever find it again
        raise
    return entry


def _refuse_unusable(record: Record, writable: bool) -> None:
    if writable and not record.mutable:
        raise Refused(f"image {record.id} is a snapshot", "Prepare it read-only, or create a disk based on it")
    if not record.whole:
        raise Refused(f"image {record.id} is not complete", "Run its mend fix first")


def _refuse_second(state: HostState, repository: Repository, image: str) -> None:
    for entry in state.prepared():
        if (entry.repository, entry.image) == (repository.identity, image):
            raise Conflict(
                f"image {image} is prepared on this host already, at {entry.path} (process {entry.process.pid})",
                "Use that path, or tear it down first",
            )


def _claim(context: Context, repository: Repository, image: str) -> None:
    def claimed(record: Record) -> Record:
        _refuse_unusable(record, True)
        if not record.strong:
            raise NotFound(f"image {image} was removed", "Restore it first")
        return record._replace(
            write_epoch=record.write_epoch + 1,
            prepared_by=context.doors.ids.host_id,
            last=committed(context, "prepare"),
        )

    changes.change(repository, image, claimed)


def _mend_headers(context: Context, repository: Repository, links: list[chains.Link]) -> None:
    """Rewrite headers that contradict the records, each under its own lease, before anybody opens them."""
    for link, below in zip(links, [*links[1:], None], strict=True):
        if link.volume.format is not VolumeFormat.QCOW2:
            continue
        facts = repository.volumes.facts(link.volume.id, link.volume.format)
        header = facts.header
        if header is None:
            problem = facts.problem or "it is not there"
            raise StorageError(f"the data of image {link.tag} cannot be used: {problem}", "Check the repository")
        expected = (backing_name(below.tag), str(below.volume.format)) if below else (None, header.backing_format)
        if (header.backing_name, header.backing_format) != expected:
            with leasing.take(context.doors, repository, [link.tag]):
                chains.rewrite_header(context.doors.images, repository, link.tag, link.volume)


def _links(context: Context, state: HostState, repository: Repository, links: list[chains.Link]) -> str:
    """Make the symbolic links by which qemu finds each layer beside the one above it; return the path of the disk."""
    try:
        run = state.make_run_directory(repository.identity, links[0].tag)
        names = [DISK_NAME, *(backing_name(link.tag) for link in links[1:])]
        for name, link in zip(names, links, strict=True):
            layer = gate.open_layer(repository, link.tag, link.volume, Purpose.READ)
            context.doors.files.symlink(layer.path, f"{run}/{name}")
    except OSError as error:
        raise from_os_error(error, f"make the run directory of image {links[0].tag}") from error
    return f"{run}/{DISK_NAME}"


def teardown(context: Context, state: HostState, repo_id: str, image: str) -> None:
    """Undo ``prepare`` on this host; success when the holder is dead already. Moved, after the holder has ended: what
    stands there now is another repository."""
    try:
        repository = context.repository(repo_id)
    except Moved as error:
        for entry in state.prepared():
            if (entry.repository, entry.image) == (context.connections[repo_id].identity, image):
                _end_holder(context, state, entry)
                error.message = f"image {image} is not prepared on this host any more, but {error.message}"
        raise
    mine = [entry for entry in state.prepared() if (entry.repository, entry.image) == (repository.identity, image)]
    if not mine:
        context.visible(repo_id, image)
        raise NotFound(f"image {image} is not prepared on this host", "diskwright tasks lists what is")
    entry = mine[0]
    _end_holder(context, state, entry)
    if repository.activation is not None:
        repository.activation.deactivate(every=True)
    if entry.writable:
        with contextlib.suppress(DiskwrightError):  # the lease decides; the mark is for messages
            changes.change(repository, image, lambda record: record._replace(prepared_by=""))


def _end_holder(context: Context, state: HostState, entry: Prepared) -> None:
    context.doors.processes.terminate(entry.process)
    deadline = context.doors.clock.monotonic() + _WAIT_S
    while context.doors.processes.state(entry.process) is not ProcessState.GONE:
        now = context.doors.clock.monotonic()
        if now > deadline + _WAIT_S:
            raise StorageError(
                f"the holder of image {entry.image}, process {entry.process.pid}, does not end", "Try again"
            )
        if now > deadline:
            context.doors.processes.kill(entry.process)
        context.doors.clock.sleep(0.005)
    state.forget_prepared(entry)
