"""From a Fix to its execution: whose leases it needs, whether it is still true, what runs it."""

from __future__ import annotations

from collections.abc import Callable

from engine.data.model import Fix
from engine.errors import BadRequest, Refused, StaleFix, StorageError
from engine.fixes import clean, copy, create, import_image, merge, rebuild, repair
from engine.formats.base import Repository
from engine.survey import survey
from engine.tags import leasing
from engine.tags.context import Context
from engine.triage.judge import judge
from engine.triage.rules_clean import LITTER_KINDS, REBUILDS
from engine.triage.view import Graph, View

Runner = Callable[[Context, Repository, Fix, View], None]


def lease_tags(fix: Fix) -> tuple[str, ...]:
    """Return the tags whose exclusive leases the fix needs, all taken before it is verified."""
    if not fix.target:
        return ()
    return tuple(sorted(set(fix.images))) if fix.rule == "M-CHAIN" else (fix.target,)


def take_leases(context: Context, repository: Repository, fix: Fix) -> leasing.LeaseSet:
    """Take the leases of ``lease_tags``, or raise ImageBusy naming who works there."""
    return leasing.take(context.doors, repository, lease_tags(fix))


def verify(context: Context, repository: Repository, fix: Fix) -> tuple[Fix, View]:
    """Return the same fix recomputed from what is there now, or raise StaleFix saying what changed. The caller holds
    the leases of ``lease_tags``."""
    if fix.repository != repository.identity:
        raise Refused("this fix was computed from another repository", "Send it to the one it came from")
    if fix.rule not in RUNNERS:
        raise StaleFix(f"this version does not know the rule {fix.rule!r:.40}", "Check again on this host")
    view = survey.look(context, repository, deep=fix.deep, only=fix.target or None, mine=True)
    for found in judge(view).fixes:
        if found.id == fix.id:
            if _promised(found) != _promised(fix):
                raise BadRequest(f"fix {fix.id} was edited", "Send a fix exactly as check returned it")
            _may_run_here(context, repository, found)
            return found, view
    if view.scan.unlisted:
        raise StorageError(f"fix {fix.id} cannot be verified: {view.scan.unlisted[0][1]}", "Check the storage")
    raise StaleFix(f"fix {fix.id} is out of date: {_what_changed(fix, view)}", "Check again")


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
            now = f"{entry.generation:x}" if entry else "-"
            if now != version:
                gone = entry is None or entry.tombstone
                return f"image {subject} is {'gone' if gone else f'now at generation {now}'}"
        elif kind == "dependants" and ",".join(graph.children(subject)) != version:
            return f"other images depend on {subject} now"
    return "its rule does not apply any more"


def execute(context: Context, repository: Repository, fix: Fix) -> None:
    """Verify and run a fix to its end. The caller holds the leases of ``lease_tags``.

    Raises what went wrong; the reason is then also in the image's last_error where it could be
    written. Safe to repeat after any crash."""
    found, view = verify(context, repository, fix)
    if found.waits_for:
        raise Refused(f"fix {fix.id} cannot run now: it waits for {found.waits_for}", "Provide that and try again")
    try:
        RUNNERS[found.rule](context, repository, found, view)
    finally:
        context.deactivate()


def _salvage(context: Context, repository: Repository, fix: Fix, view: View) -> None:
    rebuild.salvage(context, repository, fix.target, view.depths.lost.get(fix.target, ()))


def _flatten(context: Context, repository: Repository, fix: Fix, view: View) -> None:
    rebuild.flatten(context, repository, fix.target, bool(Graph(view).children(fix.target)))


def _merge(context: Context, repository: Repository, fix: Fix, view: View) -> None:
    merge.merge(context, repository, fix.target, _text(fix, "above"), _text(fix, "direction"))


def _text(fix: Fix, key: str) -> str:
    value = fix.plan.get(key)
    if not isinstance(value, str):
        raise BadRequest(f"fix {fix.id} has no {key}", "Send a fix exactly as check returned it")
    return value


def _litter(context: Context, repository: Repository, fix: Fix, view: View) -> None:
    clean.litter(repository, LITTER_KINDS)


RUNNERS: dict[str, Runner] = {
    "C-REMOVED": lambda context, repository, fix, view: clean.tag(context, repository, fix.target),
    "C-HIDDEN": lambda context, repository, fix, view: clean.tag(context, repository, fix.target),
    "B-PURGING": lambda context, repository, fix, view: clean.tag(context, repository, fix.target),
    "C-SCRAP": lambda context, repository, fix, view: clean.leftovers(context, repository, fix.target, "scrap"),
    "C-EVIDENCE": lambda context, repository, fix, view: clean.leftovers(context, repository, fix.target, "evidence"),
    "C-ATTEMPT": lambda context, repository, fix, view: clean.leftovers(context, repository, fix.target, "attempt"),
    "C-LOSSES": lambda context, repository, fix, view: repair.accept_losses(context, repository, fix.target),
    "C-RECORD": lambda context, repository, fix, view: clean.damaged_record(repository, fix.target),
    "C-LITTER": _litter,
    "C-LOST": lambda context, repository, fix, view: _ignore(clean.lost(repository, _text(fix, "name"))),
    "C-UNNAMED": lambda context, repository, fix, view: clean.unnamed(
        repository, _text(fix, "volume"), _text(fix, "format")
    ),
    "M-CHAIN": _merge,
    "B-CREATE": lambda context, repository, fix, view: create.resume(context, repository, fix.target),
    "B-COPY": lambda context, repository, fix, view: copy.resume(context, repository, fix.target),
    "B-IMPORT": lambda context, repository, fix, view: import_image.resume(context, repository, fix.target),
    "B-REPLICA": lambda context, repository, fix, view: rebuild.from_replica(
        context, repository, fix.target, _text(fix, "source")
    ),
    "B-SALVAGE": _salvage,
    "O-HEADER": lambda context, repository, fix, view: repair.header(context, repository, fix.target),
    "O-REDUCE": lambda context, repository, fix, view: repair.reduce(context, repository, fix.target),
    "O-LEAKS": lambda context, repository, fix, view: repair.leaks(context, repository, fix.target),
    **dict.fromkeys(REBUILDS, _flatten),
}


def _ignore(freed: int) -> None:
    assert freed >= 0
