"""prepare_image and teardown_image: an image as a path on this host, under a lease.

The lease outlives the command: a holder process inherits it. For writing, the image's own lease
is exclusive and every layer below is leased shared, so no fix can change the chain under a
running machine. The holder locks the data itself too: qemu's tools cannot write to a layer below, and another host is
refused although it may see another file of leases. A dead holder means not prepared; a machine that outlives it is
found by its own locks on the data (``engine.gate``), and can be taken over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from engine.data.model import VolumeFormat
from engine.data.records import Record
from engine.doors.users import User
from engine.errors import (
    BadRequest,
    Conflict,
    DiskwrightError,
    Moved,
    NotFound,
    NotUnderstood,
    Refused,
    StorageError,
    from_os_error,
)
from engine.formats.base import Repository, backing_name
from engine.gate import gate
from engine.gate.gate import Purpose
from engine.host import holding, paths
from engine.host.live import switches
from engine.host.state import HostState, Prepared
from engine.tags import chains, changes, leasing, seen, sessions
from engine.tags.context import Context

_HANDLE_DIGITS = 8


def prepare(
    context: Context,
    state: HostState,
    repo_id: str,
    image: str,
    writable: bool,
    take_over: bool = False,
    monitor: str = "",
    name: str = "",
) -> Prepared:
    """Make the image usable on this host. Durable effects: the write epoch rises before anybody
    can write, and headers that do not say what the records say are rewritten first.

    ``take_over``: a machine of this host has it open that lost its holder, and gets a new one. ``name``: of a disk,
    which it alone has."""
    with lent(context, state, repo_id, image, writable, take_over, monitor, name) as (entry, _):
        return entry


def take_over(state: HostState, context: Context, repository: Repository, image: str) -> None:
    """Prepare an image for the machine of this host that writes to it without a holder, as ``prepare`` does. Refused
    when there is none any more, ImageBusy when it runs elsewhere."""
    repo_id = next(name for name, one in context.connections.items() if one.identity == repository.identity)
    prepare(context, state, repo_id, image, writable=True, take_over=True)


@contextlib.contextmanager
def lent(
    context: Context,
    state: HostState,
    repo_id: str,
    image: str,
    writable: bool,
    take_over: bool = False,
    monitor: str = "",
    name: str = "",
) -> Iterator[tuple[Prepared, list[int]]]:
    """As ``prepare``, with the descriptors that a program has to inherit which must not lose the leases when the holder
    and this process die. They are open until the end of the block."""
    repository = context.repository(repo_id)
    if take_over:
        switches.see_to(context.doors, state, repository.identity, image)
    record = context.visible(repo_id, image)
    _refuse_unusable(record, writable)
    if monitor and not writable:
        raise BadRequest("a monitor is for a machine that writes", "Leave it out, or prepare a disk for writing")
    _refuse_second(state, repository, image, writable)
    links = chains.usable(repository, record, grown=True, written=True)
    below = [link.tag for link in links[1:]]
    own, rest = ([image], below) if writable else ([], [image, *below])
    with contextlib.ExitStack() as stack:
        stack.callback(context.deactivate)
        if not take_over:
            _mend_headers(context, repository, links)
        taken = stack.enter_context(leasing.take(context.doors, repository, own, rest))
        chains.usable(repository, context.visible(repo_id, image), grown=True, written=True)
        chains.unchanged(repository, links)  # and from here on nobody changes it
        if take_over:
            _require_machine(repository, image, links[0])
        else:
            gate.require(repository, image, links[0].volume, Purpose.HAND_OUT if writable else Purpose.LEND)
        if writable:
            if repository.extents is not None and not take_over:
                repository.extents.make_room(links[0].volume, record.size)
            _claim(context, repository, image)
        layers = chains.layers(repository, links)
        leases = [*taken.leases.values(), *holding.locks(stack, repository, links, writable, take_over)]
        with state.starting(context.connections[repo_id]):
            run = _run(context, state, repository, image, writable, take_over)
            path = paths.make(context, run, links, layers)
            known = _known(state, repository, image, take_over and writable)
            name = name or (known.names[-1].rpartition("/")[2] if known is not None and known.names else "")
            entry = Prepared(
                repository.identity, image, context.doors.processes.own(), path, str(links[0].volume.format), writable,
                monitor or (known.monitor if known is not None else ""),
                state.name_run_directory(run, context.connections[repo_id], image, name) if writable else (),
                known.since if known is not None else context.doors.clock.wall(),
                known.switch if known is not None else (),
            )  # fmt: skip
            entry = holding.start(context, state, entry, leases)
        yield entry, [int(lease.token.rpartition(":")[2]) for lease in leases]


def _require_machine(repository: Repository, image: str, top: chains.Link) -> None:
    """Return if a machine of this host has the image open."""
    used = gate.users(repository, top.volume)
    if not used:
        raise Refused(f"no machine uses image {image}", "Prepare it without taking over")
    elsewhere = [user for user in used if user.host or (repository.activation is None and not user.pid)]
    if elsewhere:
        raise gate.in_use(image, elsewhere)


def _refuse_unusable(record: Record, writable: bool) -> None:
    if writable and not record.mutable:
        raise Refused(f"image {record.id} is a snapshot", "Prepare it read-only, or create a disk based on it")
    if not record.whole:
        raise Refused(f"image {record.id} is not complete", "Run its mend fix first")


def _refuse_second(state: HostState, repository: Repository, image: str, writable: bool) -> None:
    for entry in state.prepared():
        if (entry.repository, entry.image) == (repository.identity, image) and (writable or entry.writable):
            raise Conflict(
                f"image {image} is prepared on this host already, at {entry.given} (process {entry.process.pid})",
                "Use that path, or tear it down first",
            )


def _claim(context: Context, repository: Repository, image: str) -> None:
    def claimed(record: Record) -> Record:
        _refuse_unusable(record, True)
        if not record.strong:
            raise NotFound(f"image {image} was removed", "Restore it first")
        return _remarked(repository, record)._replace(
            write_epoch=record.write_epoch + 1,
            prepared_by=context.doors.ids.host_id,
            content=context.doors.ids.new_id(),
            last=context.committed("prepare"),
        )

    changes.change(repository, image, claimed)


def _remarked(repository: Repository, record: Record) -> Record:
    """Return the record with a remark if its data was written to while nobody had it prepared: the machine may write to
    it all the same, and nothing could tell that afterwards."""
    assert record.volume is not None
    stamp = seen.written(record, repository.volumes.facts(record.volume.id, record.volume.format))
    if stamp is None:
        return record
    return seen.remarked(
        record, f"its data was written to at {stamp.when} while nobody had it prepared; a machine has used it since"
    )


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
        if (facts.backing_name, header.backing_format) != expected:
            with leasing.take(context.doors, repository, [link.tag]):
                _mend_header(context, repository, link)


def _mend_header(context: Context, repository: Repository, link: chains.Link) -> None:
    """Write to the volume so that nobody takes that for a write of a stranger; one of a stranger before stays told."""
    record = changes.read(repository, link.tag).record
    told = seen.written(record, repository.volumes.facts(link.volume.id, link.volume.format))
    if told is None:
        changes.change(repository, link.tag, lambda now: now._replace(seen=None))
    chains.rewrite_header(context.doors.images, repository, link.tag, link.volume)
    if told is None:
        changes.change(repository, link.tag, lambda now: seen.noted(repository, now))


def _run(
    context: Context, state: HostState, repository: Repository, image: str, writable: bool, take_over: bool
) -> str:
    """Make the run directory of an image: always of the same name where there can be one only."""
    name = image if writable else f"{image}.{context.doors.ids.new_id()[:_HANDLE_DIGITS]}"
    if take_over:
        for entry in _of(state.unheld(), repository.identity, image):
            if entry.writable == writable:
                name = entry.run.rpartition("/")[2]
    try:
        return state.make_run_directory(repository.identity, name)
    except OSError as error:
        raise from_os_error(error, f"make the run directory of image {image}") from error


def _known(state: HostState, repository: Repository, image: str, wanted: bool) -> Prepared | None:
    """Return how a disk was prepared that is taken over, None when nobody knows."""
    unheld = _of(state.unheld(), repository.identity, image) if wanted else []
    return next((entry for entry in unheld if entry.writable), None)


def _of(entries: list[Prepared], identity: str, image: str) -> list[Prepared]:
    return [entry for entry in entries if (entry.repository, entry.image) == (identity, image)]


def sweep(context: Context, state: HostState) -> None:
    """Forget what was prepared, lost its holder, and is used by nobody now. What cannot be asked stays."""
    for entry in state.unheld():
        repo_id = next((name for name, one in context.connections.items() if one.identity == entry.repository), "")
        with contextlib.suppress(DiskwrightError):
            if not repo_id or _ended(context.repository(repo_id), state, entry):
                state.forget_prepared(entry)


def _ended(repository: Repository, state: HostState, entry: Prepared) -> bool:
    """Return whether nobody on this host uses a prepared image any more. Other hosts know of that then, unless it is
    prepared here once more: the note of this one goes last."""
    record = _record(repository, entry.image)
    if record is None or record.volume is None:
        return True
    if _users(state, repository, entry):
        return False
    if repository.activation is None or record.volume.id not in repository.activation.end_unheld():
        return True
    return bool(_of(state.prepared(), repository.identity, entry.image))


def _record(repository: Repository, image: str) -> Record | None:
    try:
        return changes.read(repository, image).record
    except NotFound:
        return None


def _users(state: HostState, repository: Repository, entry: Prepared) -> list[User]:
    """Return who uses a prepared image on this host. Of one that is prepared for reading only its processes count, for
    others may have their own preparation; and what another host says that it does is its own. A holder that keeps
    others from a device has it open, and uses nothing."""
    holders = [one.process.pid for one in state.prepared()]
    record = _record(repository, entry.image)
    found = gate.users(repository, record.volume) if record is not None and record.volume is not None else []
    found = [user for user in found if user.pid not in holders]
    return [user for user in found if not user.host and (user.pid or entry.writable)]


def teardown(context: Context, state: HostState, repo_id: str, image: str, path: str = "") -> None:
    """Undo ``prepare`` on this host; success when the holder is dead already, also where this host has lost its note of
    it and others have it still. ``path``: which, when there are several.

    ImageBusy while a machine has it open. StorageError, after the holder has ended: what the machine wrote could not be
    made durable. Moved, after the holder has ended: what stands there now is another
    repository."""
    try:
        repository = context.repository(repo_id)
    except Moved as error:
        for entry in _of(state.prepared(), context.connections[repo_id].identity, image):
            if path in ("", entry.path, entry.given):
                _undo(context, state, entry)
                error.message = f"image {image} is not prepared on this host any more, but {error.message}"
        raise
    try:
        entry = _which(context, state, repo_id, image, path)
    except NotFound:
        if path or not _is_left(repository, image):
            raise
        _close_session(context, repository, image)
    else:
        _refuse_used(state, repository, entry)
        _undo(context, state, entry)
        if entry.writable:
            _close_session(context, repository, image)
    if repository.activation is not None:
        repository.activation.deactivate(every=True)


def _is_left(repository: Repository, image: str) -> bool:
    """Return whether other hosts are told that this one has handed an image out which nobody holds. ImageBusy while
    somebody has it open."""
    record = _record(repository, image)
    if repository.activation is None or record is None or record.volume is None or leasing.is_held(repository, image):
        return False
    before = record.volume.id in repository.activation.handed_out()
    if before and (used := [user for user in gate.users(repository, record.volume) if not user.host]):
        raise gate.in_use(image, used)
    return before


def _undo(context: Context, state: HostState, entry: Prepared) -> None:
    holding.end(context, entry)
    state.forget_prepared(entry)


def _close_session(context: Context, repository: Repository, image: str) -> None:
    """Close the session if its lease can be had; else whoever uses the content next does. A failed flush is told: the
    next one would succeed without the data."""
    try:
        with leasing.take(context.doors, repository, [image]):
            sessions.close(context.doors, repository, image)
    except sessions.NotDurable:
        raise
    except DiskwrightError:
        return


def _which(context: Context, state: HostState, repo_id: str, image: str, path: str) -> Prepared:
    """Return the preparation that is meant: a living one before those that lost their holder."""
    repository = context.repository(repo_id)
    entries = state.entries()
    alive = _of([entry for entry, held in entries if held], repository.identity, image)
    unheld = _of([entry for entry, held in entries if not held], repository.identity, image)
    mine = [entry for entry in (*alive, *unheld) if path in (entry.path, entry.given)] if path else alive or unheld
    if not mine:
        context.visible(repo_id, image)
        for note in state.not_understood():
            if image in note or repository.identity in note:
                raise NotUnderstood(
                    f"whether image {image} is prepared here is not known: the note {note} cannot be understood",
                    "Tear it down with the version of diskwright that prepared it. If the note is damaged, "
                    f"{_end_holder(image)}; then move the note away",
                )
        where = f" at {path!r:.200}" if path else ""
        next_step = "diskwright tasks lists what is"
        if leasing.is_held(repository, image):
            next_step = (
                f"It is in use ({leasing.holder(context.doors, repository, image)}): tear it down there. "
                f"If this host has lost its note of it, {_end_holder(image)}"
            )
        raise NotFound(f"image {image} is not prepared on this host{where}", next_step)
    if len(mine) > 1:
        raise Conflict(
            f"image {image} is prepared {len(mine)} times on this host",
            f"Say which with --path: {', '.join(entry.path for entry in mine)}",
        )
    return mine[0]


def _end_holder(image: str) -> str:
    return f"stop the machine and end the holder, the process with engine.host.holder {image} in its command line"


def _refuse_used(state: HostState, repository: Repository, entry: Prepared) -> None:
    """Raise ImageBusy while a machine has the image open that no other preparation can be for."""
    others = [one for one in _of(state.prepared(), repository.identity, entry.image) if one != entry]
    if others:
        return  # theirs or ours: nothing tells, and a holder stays in either case
    used: list[User] = []
    with contextlib.suppress(DiskwrightError):  # of storage that is away nothing can be told
        used = _users(state, repository, entry)
    if used:
        raise gate.in_use(entry.image, used)
