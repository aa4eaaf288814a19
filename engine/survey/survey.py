"""Looking at a repository: gathers the view that triage judges. Read-only, takes no locks.

Safe beside live work: volumes are listed before records, a suspect is looked at twice, and
whether somebody works on it is asked of the lease and never guessed from age. One object that
cannot be read never stops the survey.
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from engine.data import monitors, progress
from engine.data.model import Finding, Fix, RepositoryReport, VolumeFormat, Wait, WaitKind
from engine.data.records import Record, VolumeRef
from engine.data.seen import Stamp
from engine.doors.users import User
from engine.errors import DiskwrightError
from engine.formats.base import Repository, Scan, TagEntry, VolumeFacts
from engine.gate import gate
from engine.survey.kept import keepers
from engine.survey.near import near
from engine.tags import chains, changes, imports, leasing, seen, sources
from engine.tags.context import Context
from engine.tools.local.threads import collector_off, map_files
from engine.triage import rules
from engine.triage.health import Judge
from engine.triage.judge import judge
from engine.triage.offers import merging
from engine.triage.view import NO_DEPTHS, Depths, Graph, Replica, View, no_depths

_GROUP = 32
"""Volumes that one thread looks at in one go."""


def report(context: Context, repository: Repository, deep: bool = False) -> RepositoryReport:
    """Check the whole repository. Fixes on tags that somebody works on become findings."""
    with collector_off():
        view = look(context, repository, deep)
        return without_busy(context, repository, judge(view), view.monitored)


def look(
    context: Context, repository: Repository, deep: bool = False, only: str | None = None, mine: bool = False
) -> View:
    """Return a view of the repository. ``only`` limits the look to what is around one tag; where that is not known, or
    something is wrong there, to the data of its chain (records are all read).
    A deep look leaves out images that somebody works on; ``mine``: the caller holds the lease. Other repositories that
    are asked and do not answer are waited for once, and together."""
    with context.waiting_once():
        return _look(context, repository, deep, only, mine)


def _look(context: Context, repository: Repository, deep: bool, only: str | None, mine: bool) -> View:
    scan = near(repository, only) if only is not None else None
    facts = _facts(repository, scan, only, context.doors.clock.monotonic) if scan is not None else {}
    if scan is None or any(_suspects(scan.tags, facts)):
        scan = _with_those_named(repository.scan())
        if only is not None and _is_in_doubt(scan, only):
            only = None  # which data it is about is what is asked
        facts = _facts(repository, scan, only, context.doors.clock.monotonic)
        scan = _second_look(repository, scan, facts)
    context.open_named(_named_elsewhere(scan, only))
    total, free = repository.space()
    shared = repository.manager is not None and repository.constraints().shared
    view = View(
        repository=repository.identity,
        scan=scan,
        facts=facts,
        progress=_progress(repository, scan, only),
        replicas={},
        waits={},
        pending={},
        total_bytes=total,
        free_bytes=free,
        throughput=context.throughput(repository.identity),
        depths=NO_DEPTHS,
        deep=deep,
        managed=repository.manager is not None,
        shared=shared,
        format=repository.format,
        late_writers=_late_writers(repository, scan, facts, only) if shared else {},
        unheld=_unheld(repository, scan, only),
        handed_out=_handed_out(repository, scan) if shared else {},
        monitored={} if shared else _monitored(context, repository, scan, only),
        keepers=keepers(context, scan),
    )
    _sources(context, repository, view, only)
    if deep:
        view = view._replace(depths=_depths(context, repository, view, only, mine))
        if shared:
            view = view._replace(late_writers={**view.late_writers, **_late_writers_of_leaks(repository, view)})
    _replicas(context, view, only)
    return view


def _named_elsewhere(scan: Scan, only: str | None) -> Iterator[str]:
    """Return the repositories that will be asked: of sources, and of copies that hidden data is kept for."""
    for entry in scan.tags.values():
        record = entry.record
        if record is None or (record.operation is None and record.kept is None):
            continue  # nearly all
        if record.kept is not None and not record.strong:
            yield record.kept.repository
        if record.operation is not None and not record.whole and only in (None, record.id):
            yield record.operation.source_repository


def _monitored(context: Context, repository: Repository, scan: Scan, only: str | None) -> dict[str, bool]:
    """Return the images whose machines run here and can be told to work on them, and whether they can go on in another
    volume; and the layers below those that no other one of them needs, where they can write to them.
    Of those that are far from ``only`` none is asked for."""
    found: Counter[str] = Counter()
    able: dict[str, bool] = {}
    for image, monitor in context.monitored(repository.identity).items():
        chain = list(_chain_of(repository, image, scan.tags))
        near_it = only is None or image in scan.tags or only in [record.id for record in chain]
        if chain and near_it and gate.is_written(repository, chain[0].volume):
            found.update(record.id for record in chain)
            waits = monitors.waits(monitor)
            able |= {record.id: waits and record is chain[0] for record in (chain if waits else chain[:1])}
    return {tag: able[tag] for tag, machines in found.items() if machines == 1 and tag in able}


def stands_on(repository: Repository, image: str, tag: str) -> bool:
    """Tell whether an image is that tag, or needs it, as far as its chain can be read."""
    return any(record.id == tag for record in _chain_of(repository, image, {}))


def _chain_of(repository: Repository, image: str, known: Mapping[str, TagEntry]) -> Iterator[Record]:
    """Yield the records of a chain, top first, as far as they can be read."""
    seen: set[str] = set()
    with contextlib.suppress(DiskwrightError):
        while image and image not in seen:
            entry = known.get(image) or repository.tags.read(image)
            if entry is None or entry.record is None:
                return
            seen.add(image)
            yield entry.record
            image = entry.record.volume.parent if entry.record.volume else ""


def _with_those_named(scan: Scan) -> Scan:
    """Add the tags that a directory which cannot be listed must hold, because others are based on them: they have not
    vanished, they are unknown."""
    reasons = dict(scan.unlisted)
    tags = dict(scan.tags)
    for entry in scan.tags.values():
        for parent in entry.record.parents() if reasons and entry.record else ():
            reason = reasons.get(f"tags/{parent[:2]}")
            if reason is not None and parent not in tags:
                tags[parent] = TagEntry(parent, 0, None, reason, unreadable=True)
    return scan._replace(tags=tags) if reasons else scan


def without_busy(
    context: Context, repository: Repository, found: RepositoryReport, machines: Mapping[str, bool]
) -> RepositoryReport:
    """Take out the fixes of tags whose lease is held, and say who works there; and of what is left those that another
    one includes. What one of the ``machines`` that can be spoken to does itself, is left, once."""
    held: dict[str, str] = {}
    asked: set[str] = set()
    findings = list(found.findings)
    fixes: list[Fix] = []
    for fix in found.fixes:
        for tag in fix.images:
            if tag not in asked:
                asked.add(tag)
                if leasing.is_held(repository, tag):
                    held[tag] = leasing.holder(context.doors, repository, tag)
                    findings.append(Finding("busy", tag, f"in progress: {held[tag]}"))
        by_machine = rules.by_machine(fix.rule, fix.images, machines, fix.deep)
        if by_machine and leasing.is_worked_on(context.doors, repository, fix.images[0]):
            continue
        if by_machine or not any(tag in held for tag in fix.images):
            fixes.append(fix)
    images = tuple(image._replace(busy=held[image.id]) if image.id in held else image for image in found.images)
    return found._replace(images=images, fixes=tuple(merging.without_parts(fixes)), findings=tuple(findings))


def _is_in_doubt(scan: Scan, tag: str) -> bool:
    """Whether the record of a tag is damaged, or another one has the same volume as its data."""
    entry = scan.tags.get(tag)
    if entry is None or entry.record is None:
        return entry is not None and bool(entry.problem)
    volume = entry.record.volume
    others = (other.record for other in scan.tags.values() if other.record is not None and other.id != tag)
    return volume is not None and any(one.volume is not None and one.volume.id == volume.id for one in others)


def _facts(repository: Repository, scan: Scan, only: str | None, now: Callable[[], float]) -> dict[str, VolumeFacts]:
    named: dict[str, VolumeRef] = {}
    at_rest: dict[str, Stamp] = {}
    wanted = _chain_tags(scan, only) if only is not None else None
    for tag, entry in scan.tags.items():
        if entry.record is None or (wanted is not None and tag not in wanted):
            continue
        for volume in entry.record.volumes():
            named.setdefault(volume.id, volume)
        if entry.record.seen is not None:
            at_rest[entry.record.seen.volume] = entry.record.seen.stamp
    todo: list[VolumeRef] = []
    if only is None:
        todo = [named.pop(id) if id in named else VolumeRef(id, how, "") for id, how in scan.volumes.items()]
    todo += named.values()
    look = repository.volumes.facts

    def look_at(some: list[VolumeRef]) -> list[VolumeFacts]:
        return [look(one.id, one.format, scan.listing, at_rest.get(one.id)) for one in some]

    groups = [todo[start : start + _GROUP] for start in range(0, len(todo), _GROUP)]
    return {found.id: found for group in map_files(look_at, groups, len, now) for found in group}


def _chain_tags(scan: Scan, tag: str) -> set[str]:
    """Return the chain of a tag, and those that depend on it directly (a merge looks at both)."""
    found: set[str] = set()
    todo = [tag]
    for other, entry in scan.tags.items():
        if entry.record is not None and tag in entry.record.parents():
            todo.append(other)
    while todo:
        item = todo.pop()
        record_entry = scan.tags.get(item)
        if item in found or record_entry is None or record_entry.record is None:
            continue
        found.add(item)
        todo.extend(record_entry.record.parents())
    return found


def _second_look(repository: Repository, scan: Scan, facts: dict[str, VolumeFacts]) -> Scan:
    """Read tags again that look wrong: they may have changed while we looked."""
    tags = dict(scan.tags)
    volumes = {facts[id].id if id in facts else id: format for id, format in scan.volumes.items()}  # one text of each
    if not scan.unlisted and _unnamed(volumes, tags):
        with contextlib.suppress(DiskwrightError):
            tags = repository.tags.scan()
        for volume in _unnamed(volumes, tags):
            if not repository.volumes.facts(volume, volumes[volume]).present:
                del volumes[volume]
                facts.pop(volume, None)
    for tag in _suspects(tags, facts):
        with contextlib.suppress(DiskwrightError):  # what was seen first has to do
            _look_again(repository, tag, tags, facts)
    return scan._replace(volumes=volumes, tags=tags)


def _unnamed(volumes: dict[str, VolumeFormat], tags: dict[str, TagEntry]) -> list[str]:
    named = {volume.id for entry in tags.values() if entry.record for volume in entry.record.volumes()}
    return [volume for volume in volumes if volume not in named]


def _suspects(tags: dict[str, TagEntry], facts: dict[str, VolumeFacts]) -> Iterator[str]:
    """Tags that look wrong, as long as ``tags`` and ``facts`` say so."""
    for tag, entry in list(tags.items()):
        record = entry.record
        if record is not None and _suspect(record, tags, facts):
            yield tag


def _suspect(record: Record, tags: dict[str, TagEntry], facts: dict[str, VolumeFacts]) -> bool:
    found = facts.get(record.volume.id) if record.volume else None
    if found is not None and (not found.present or found.problem or found.unreadable):
        return True
    unlike = record.seen is not None and found is not None and found.stamp != record.seen.stamp  # rarely, and cheap
    if unlike and seen.written(record, found) is not None:
        return True
    return any(parent not in tags or tags[parent].tombstone for parent in record.parents())


def _look_again(repository: Repository, tag: str, tags: dict[str, TagEntry], facts: dict[str, VolumeFacts]) -> None:
    again = repository.tags.read(tag)
    if again is None:
        del tags[tag]
    elif again.generation != tags[tag].generation:
        tags[tag] = again
        for volume in again.record.volumes() if again.record else ():
            found = repository.volumes.facts(volume.id, volume.format)
            facts[volume.id] = found._replace(stamp=None)  # it is in use now: the next check will tell
    for parent in again.record.parents() if again and again.record else ():
        entry = repository.tags.read(parent) if parent not in tags or tags[parent].tombstone else None
        if entry is not None:
            tags[parent] = entry


def _progress(repository: Repository, scan: Scan, only: str | None) -> dict[str, progress.Progress]:
    found = {}
    for tag, entry in scan.tags.items():
        record = entry.record
        if record is None or record.operation is None or (only is not None and tag != only):
            continue
        with contextlib.suppress(DiskwrightError):
            line = progress.decode(repository.progress.read(tag, record.epoch))
            if line is not None:
                found[tag] = line
    return found


def _unheld(repository: Repository, scan: Scan, only: str | None) -> dict[str, tuple[User, ...]]:
    """Return who writes to images of which nobody has the lease. Asked about those that were prepared for writing and
    never torn down; about one image anyway, where asking is cheap."""
    found = {}
    for tag, entry in scan.tags.items():
        record = entry.record
        if record is None or record.volume is None or (only is not None and tag != only):
            continue
        if not record.prepared_by and (only is None or repository.activation is not None):
            continue
        with contextlib.suppress(DiskwrightError):  # what cannot be asked says so elsewhere
            if not repository.leases.held(tag):
                writers = [user for user in gate.users(repository, record.volume) if user.writes and user.known]
                if writers and not repository.leases.held(tag):
                    found[tag] = tuple(writers)
    return found


def _handed_out(repository: Repository, scan: Scan) -> dict[str, str]:
    """Return the other host that has handed out the data of a tag, of each whose lease nobody has."""
    found = {}
    with contextlib.suppress(DiskwrightError):  # whoever is about to change such data asks again
        users = repository.activation.handed_out_elsewhere() if repository.activation is not None else {}
        for tag, entry in scan.tags.items() if users else ():
            volumes = entry.record.volumes() if entry.record is not None else ()
            hosts = [user.host for volume in volumes for user in users.get(volume.id, ())]
            if hosts and not leasing.is_held(repository, tag):
                found[tag] = hosts[0]
    return found


def _late_writers(
    repository: Repository, scan: Scan, facts: dict[str, VolumeFacts], only: str | None
) -> dict[str, str]:
    """Return the host that may still write to it, of each volume that a fix would go on with or reduce."""
    asked: list[VolumeRef] = []
    for tag, entry in scan.tags.items():
        record = entry.record
        if record is None or (only is not None and tag != only):
            continue
        if record.operation is not None and record.operation.attempt is not None:
            asked.append(record.operation.attempt)
        known = facts.get(record.volume.id) if record.volume is not None and not record.mutable else None
        if record.volume is not None and known is not None and known.in_use is not None and known.in_use < known.length:
            asked.append(record.volume)
    return {volume.id: host for volume in asked if (host := gate.late_writer(repository, volume))}


def _late_writers_of_leaks(repository: Repository, view: View) -> dict[str, str]:
    """Return the host that may still write to it, of each volume whose leaks a fix would repair."""
    volumes = [entry.record.volume for entry in view.scan.tags.values() if entry.record is not None]
    leaking = {id for id, report in view.depths.checks.items() if report.leaked_clusters}
    asked = [volume for volume in volumes if volume and volume.id in leaking]
    return {volume.id: host for volume in asked if (host := gate.late_writer(repository, volume))}


def _sources(context: Context, repository: Repository, view: View, only: str | None) -> None:
    for tag, entry in view.scan.tags.items():
        record = entry.record
        if record is None or record.whole or record.operation is None or (only is not None and tag != only):
            continue
        if not record.operation.source:
            wait = _operators_part(context, repository, view, record)
            if wait is not None:
                view.waits[tag] = wait
            continue
        try:
            source, reason = sources.find(context, record.operation)
            if source is not None:
                view.pending[tag] = source.used_bytes()
        except DiskwrightError as error:
            source, reason = None, error.message
        if source is None:
            text = f"image {_called(record)} to copy from ({reason})"
            view.waits[tag] = Wait(WaitKind.SOURCE, record.operation.source, text)


def _is_whole(scan: Scan, base: str) -> bool:
    entry = scan.tags.get(base)
    return not base or (entry is not None and entry.record is not None and entry.record.whole)


def _operators_part(context: Context, repository: Repository, view: View, record: Record) -> Wait | None:
    """What an operation that copies from no image waits for, if it does."""
    operation = record.operation
    assert operation is not None
    named = operation.verb not in ("import", "adopt") or imports.is_named(context.imports, view.repository, record)
    if operation.verb == "adopt" and not record.strong and not named:
        return Wait(WaitKind.PATH, operation.path, _no_file_named(operation.path))  # to give the file back
    if operation.verb == "adopt" and not _is_whole(view.scan, operation.base):
        return Wait(WaitKind.BASE, operation.base, f"its base {operation.base}, which has to be taken over first")
    if gone := _gone_below(view.scan, operation.base):
        where = "its base" if gone == operation.base else "the base below its base,"
        return Wait(WaitKind.BASE, gone, f"{where} {gone}, which is gone")
    if named:
        return None
    if operation.verb == "adopt" and operation.attempt is not None:
        with contextlib.suppress(DiskwrightError):
            if gate.adoption(repository).taken(operation.attempt):
                return None  # what is left needs no path
    return Wait(WaitKind.PATH, operation.path, _no_file_named(operation.path))


def _no_file_named(path: str) -> str:
    return (
        f"an operator to name its file on this host (the record speaks of {path!r:.200}, and nobody named that here): "
        "run it where that was begun, or give its path: diskwright fix REPO FIX --path FILE"
    )


def _called(record: Record) -> str:
    """The source of an unfinished copy, with the name that the copy was given with its user data."""
    assert record.operation is not None
    return f"{record.name} ({record.operation.source})" if record.name else record.operation.source


def _is_gone(scan: Scan, base: str) -> bool:
    entry = scan.tags.get(base)
    if entry is None:
        return not scan.unlisted
    return entry.tombstone or (entry.record is not None and entry.record.destroyed)


def _gone_below(scan: Scan, base: str) -> str:
    """The first image from a base down that is gone, "" for none. What a chain that leads back would end in is said of
    the base."""
    return next((tag for tag in _downwards(scan, base) if _is_gone(scan, tag)), "")


def _downwards(scan: Scan, tag: str) -> Iterator[str]:
    """Itself, what it stands on, and so on, each once."""
    seen: set[str] = set()
    while tag and tag not in seen:
        yield tag
        seen.add(tag)
        entry = scan.tags.get(tag)
        volume = entry.record.volume if entry is not None and entry.record is not None else None
        tag = volume.parent if volume is not None else ""


def _replicas(context: Context, view: View, only: str | None) -> None:
    if len(context.connections) < 2:
        return
    judged = Judge(Graph(view))
    others = functools.cache(lambda: [other for other in context.reachable() if other[1].identity != view.repository])
    for tag, entry in view.scan.tags.items():
        record = entry.record
        if only is not None and tag != only:
            continue
        if record is None:
            if entry.damaged:
                view.replicas[tag] = _replicas_in(others(), tag)
        elif not record.mutable:
            health = judged.health(tag)
            if (health.rule and health.culprit == tag) or record.lost:
                view.replicas[tag] = _replicas_in(others(), tag)


def _replicas_in(others: Sequence[tuple[str, Repository]], snapshot: str) -> list[Replica]:
    """The repositories of ``others`` that have this snapshot whole and readable."""
    found = []
    for repo_id, repository in others:
        with contextlib.suppress(DiskwrightError):
            other = changes.read(repository, snapshot).record
            if not other.mutable and not chains.lost(chains.usable(repository, other)):
                found.append(Replica(repository.identity, repo_id, other.size, other.digest))
    return found


def _depths(context: Context, repository: Repository, view: View, only: str | None, mine: bool) -> Depths:
    from engine.survey.deep import look_deep  # it needs all that moves data, and a look usually is not deep

    judged = Judge(Graph(view))
    depths = no_depths()
    for tag in view.scan.tags if only is None else [*_downwards(view.scan, only)]:
        record = view.scan.tags[tag].record if tag in view.scan.tags else None
        if record is None or not record.whole or record.volume is None:
            continue
        if record.absorber or record.purging:
            continue  # its volume holds another image's data, or is being deleted
        if judged.health(tag).status != "optimized" or (not mine and leasing.is_held(repository, tag)):
            continue
        look_deep(context, repository, record, depths)
        if repository.activation is not None:
            repository.activation.deactivate()
    return depths
