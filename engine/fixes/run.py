"""From a Fix to its execution: whose leases it needs, whether it is still true, what runs it.

A fix is verified by one look (``engine.survey``), under its leases. A process that inherits these leases runs the work
without another one: it reads only the tags again that the fix has read. Who depends on a tag is not asked again here,
for the executors that delete or overwrite do so themselves after they have announced it.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.data.model import Fix
from engine.errors import BadRequest, Refused, StaleFix, StorageError
from engine.fixes import adopt, clean, copy, create, import_image, merge, parts, rebuild, repair, sparsify
from engine.fixes.mend_record import mend_record
from engine.fixes.work import Work
from engine.formats.base import Repository
from engine.survey import kept, survey
from engine.tags import leasing
from engine.tags.context import Context
from engine.tags.freeing import freeing
from engine.triage.judge import judge
from engine.triage.propose import version_of
from engine.triage.rules import BY_CODE, LITTER_KINDS
from engine.triage.shape import Executor, Leases
from engine.triage.view import Graph, View

Accept = Callable[[Fix], None]
"""Is shown a fix as it is now, under its leases and before anything is done; raises what speaks against it."""
Runner = Callable[[Context, Repository, Work], None]


def lease_tags(fix: Fix) -> tuple[str, ...]:
    """Return the tags whose exclusive leases the fix needs, all taken before it is verified."""
    rule = BY_CODE.get(fix.rule)
    if not fix.target or rule is None or rule.leases is Leases.NONE:
        return ()
    return tuple(sorted(set(fix.images))) if rule.leases is Leases.IMAGES else (fix.target,)


def take_leases(context: Context, repository: Repository, fix: Fix) -> leasing.LeaseSet:
    """Take the leases of a fix, or raise ImageBusy naming who works there."""
    return leasing.take(context.doors, repository, lease_tags(fix))


def verify(context: Context, repository: Repository, fix: Fix, accept: Accept | None = None) -> Work:
    """Compute a fix again from what is there now, by one look; the caller holds the leases of ``lease_tags``.

    StaleFix says what has changed, Refused what it waits for. With ``accept`` a fix is not stale while the same rule
    offers the same plan for the same target; ``accept`` is shown it and may refuse. Nothing is written."""
    if fix.repository != repository.identity:
        raise Refused("this fix was computed from another repository", "Send it to the one it came from")
    if fix.rule not in RUNNERS:
        raise StaleFix(f"this version does not know the rule {fix.rule!r:.40}", "Check again on this host")
    view = survey.look(context, repository, deep=fix.deep, only=fix.target or None, mine=True)
    if kept.settled(context, view.scan, lease_tags(fix)):
        view = survey.look(context, repository, deep=fix.deep, only=fix.target or None, mine=True)
    found = _same(fix, judge(view).fixes, accept is not None)
    if found is None:
        if view.scan.unlisted:
            raise StorageError(f"fix {fix.id} cannot be verified: {view.scan.unlisted[0][1]}", "Check the storage")
        raise StaleFix(f"fix {fix.id} is out of date: {_what_changed(fix, view)}", "Check again")
    if found.id == fix.id and _promised(found) != _promised(fix):
        raise BadRequest(f"fix {fix.id} was edited", "Send a fix exactly as check returned it")
    work = work_of(context, repository, found, view)
    if accept is not None:
        accept(found)
    return work


def work_of(context: Context, repository: Repository, fix: Fix, view: View) -> Work:
    """Return the work for a fix of a view that was taken under the leases of the fix; Refused: it cannot run now, or
    not here."""
    _may_run_here(context, repository, fix)
    if fix.wait is not None:
        raise Refused(f"fix {fix.id} cannot run now: it waits for {fix.waits_for}", "Provide that and try again")
    return Work(fix, True, view.depths.lost.get(fix.target, ()), bool(Graph(view).children(fix.target)))


def _same(fix: Fix, offered: tuple[Fix, ...], changed_too: bool) -> Fix | None:
    for found in offered:
        if found.id == fix.id:
            return found
    if changed_too:
        for found in offered:
            if (found.rule, found.target, found.plan) == (fix.rule, fix.target, fix.plan):
                return found
    return None


def _promised(fix: Fix) -> tuple[object, ...]:
    """What whoever chose the fix was told, and its identity does not hold."""
    return fix.rule, lease_tags(fix), fix.plan, fix.risk


def _may_run_here(context: Context, repository: Repository, fix: Fix) -> None:
    if not fix.needs_srm or repository.manager is None:
        return
    manager = repository.manager.host()
    if manager != context.doors.ids.host_id:
        raise Refused(
            f"fix {fix.id} can only run on the host that manages the repository, {manager or 'and nobody does'}",
            "Run it there; or, when that host is certainly dead, diskwright srm take",
        )


def _what_changed(fix: Fix, view: View) -> str:
    graph = Graph(view)
    for name, version in fix.reads:
        kind, _, subject = name.partition(":")
        if kind == "tag":
            entry = graph.entry(subject)
            now = version_of(entry)
            if now != version:
                gone = entry is None or entry.tombstone
                return f"image {subject} is {'gone' if gone else f'now at generation {now}'}"
        elif kind == "dependants" and ",".join(graph.children(subject)) != version:
            return f"other images depend on {subject} now"
    return "its rule does not apply any more"


def execute(context: Context, repository: Repository, work: Work) -> None:
    """Run a fix to its end, verified first if it is not yet. The caller holds the leases of ``lease_tags``.

    Raises what went wrong; the reason is then also in the image's last_error where it could be
    written. Safe to repeat after any crash."""
    if work.verified and _unchanged(repository, work.fix):
        _may_run_here(context, repository, work.fix)
    else:
        work = verify(context, repository, work.fix)
    try:
        if BY_CODE[work.fix.rule].frees:
            freeing(repository, lambda: RUNNERS[work.fix.rule](context, repository, work))
            if repository.ballast is not None:
                repository.ballast.keep()  # what was freed may be the first room since it was used up
        else:
            RUNNERS[work.fix.rule](context, repository, work)
    finally:
        context.deactivate()


def _unchanged(repository: Repository, fix: Fix) -> bool:
    """Whether each tag that the fix has read still has the generation that it had."""
    tags = [(name.removeprefix("tag:"), version) for name, version in fix.reads if name.startswith("tag:")]
    return all(version_of(repository.tags.read(tag)) == version for tag, version in tags)


def _text(fix: Fix, key: str) -> str:
    value = fix.plan.get(key)
    if not isinstance(value, str):
        raise BadRequest(f"fix {fix.id} has no {key}", "Send a fix exactly as check returned it")
    return value


def _leftovers(kind: str) -> Runner:
    return lambda context, repository, work: clean.leftovers(repository, work.fix.target, kind)


def _litter(context: Context, repository: Repository, work: Work) -> None:
    clean.litter(repository, LITTER_KINDS)


def _lost(context: Context, repository: Repository, work: Work) -> None:
    clean.lost(repository, _text(work.fix, "name"))


def _quarantine(context: Context, repository: Repository, work: Work) -> None:
    clean.unnamed(repository, _text(work.fix, "volume"), _text(work.fix, "format"))


def _merge(context: Context, repository: Repository, work: Work) -> None:
    fix = work.fix
    above, way = _text(fix, "above"), _text(fix, "direction")
    if "base" not in fix.plan:
        merge.merge(context, repository, fix.target, above, way)
        return
    absorbing = way == "down"
    below = fix.images[1:-1] if absorbing else fix.images[1:]
    merge.merge_run(context, repository, above, below, _text(fix, "base"), absorbing)


def _replica(context: Context, repository: Repository, work: Work) -> None:
    rebuild.from_replica(context, repository, work.fix.target, _text(work.fix, "source"))


def _adopt_size(context: Context, repository: Repository, work: Work) -> None:
    size = work.fix.plan.get("size")
    repair.adopt_size(context, repository, work.fix.target, size if isinstance(size, int) else 0)


def _accept_written(context: Context, repository: Repository, work: Work) -> None:
    when = work.fix.plan.get("mtime_ns")
    repair.accept_written(context, repository, work.fix.target, when if isinstance(when, int) else 0)


def _salvage(context: Context, repository: Repository, work: Work) -> None:
    rebuild.salvage(context, repository, work.fix.target, work.lost)


def _sparsify(context: Context, repository: Repository, work: Work) -> None:
    if repository.constraints().hole_punching:
        sparsify.in_place(context, repository, work.fix.target)
    else:
        _flatten(context, repository, work)


def _flatten(context: Context, repository: Repository, work: Work) -> None:
    rebuild.flatten(context, repository, work.fix.target, work.has_dependants)


_EXECUTORS: dict[Executor, Runner] = {
    Executor.DELETE: lambda context, repository, work: clean.tag(context, repository, work.fix.target),
    Executor.SCRAP: _leftovers("scrap"),
    Executor.EVIDENCE: _leftovers("evidence"),
    Executor.ATTEMPT: _leftovers("attempt"),
    Executor.LOSSES: lambda context, repository, work: repair.accept_losses(context, repository, work.fix.target),
    Executor.RECORD: lambda context, repository, work: clean.damaged_record(repository, work.fix.target),
    Executor.MEND_RECORD: lambda context, repository, work: mend_record(context, repository, work.fix.target),
    Executor.LITTER: _litter,
    Executor.LOST: _lost,
    Executor.QUARANTINE: _quarantine,
    Executor.PART: lambda context, repository, work: parts.make(context, repository, _text(work.fix, "name")),
    Executor.LOCKS: lambda context, repository, work: parts.make_locks(context, repository, _text(work.fix, "name")),
    Executor.USES: lambda context, repository, work: parts.make(context, repository, _text(work.fix, "name")),
    Executor.PUT_BACK: lambda context, repository, work: repair.put_back(repository, work.fix.target),
    Executor.MERGE: _merge,
    Executor.CREATE: lambda context, repository, work: create.resume(context, repository, work.fix.target),
    Executor.COPY: lambda context, repository, work: copy.resume(context, repository, work.fix.target),
    Executor.IMPORT: lambda context, repository, work: import_image.resume(context, repository, work.fix.target),
    Executor.ADOPT: lambda context, repository, work: adopt.resume(context, repository, work.fix.target),
    Executor.REPLICA: _replica,
    Executor.SALVAGE: _salvage,
    Executor.HOLD: lambda context, repository, work: context.take_over(context, repository, work.fix.target),
    Executor.ADOPT_SIZE: _adopt_size,
    Executor.ACCEPT_WRITTEN: _accept_written,
    Executor.HEADER: lambda context, repository, work: repair.header(context, repository, work.fix.target),
    Executor.REDUCE: lambda context, repository, work: repair.reduce(context, repository, work.fix.target),
    Executor.LEAKS: lambda context, repository, work: repair.leaks(context, repository, work.fix.target),
    Executor.SPARSIFY: _sparsify,
    Executor.FLATTEN: _flatten,
}

RUNNERS: dict[str, Runner] = {
    rule.code: _EXECUTORS[rule.executor] for rule in BY_CODE.values() if rule.executor is not None
}
"""What runs the fixes of each rule."""
