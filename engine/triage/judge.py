"""One view in, one report out: images with statuses, fixes in a safe order, findings."""

from __future__ import annotations

from engine.data.model import Finding, Fix, FixType, ImageReport, RepositoryReport, Risk, Wait, WaitKind
from engine.data.records import Record
from engine.triage import rules
from engine.triage.health import Health, Judge
from engine.triage.offers import cleaning, mending, merging, optimizing
from engine.triage.view import Graph, View


def judge(view: View) -> RepositoryReport:
    """Statuses, fixes and findings of a view. Fixes on tags that somebody works on are still in it."""
    graph = Graph(view)
    judged = Judge(graph)
    images: list[ImageReport] = []
    fixes: list[Fix] = []
    findings: list[Finding] = []
    for tag, entry in view.scan.tags.items():
        if entry.tombstone:
            continue
        report = judged.report(tag)
        images.append(report)
        if judged.is_settled(entry.record, report):
            continue
        if report.status == "unknown":
            findings.append(Finding("unknown", tag, report.reason, report.used_bytes))
        fixes += cleaning.of_tag(graph, tag, judged.health(tag).status == "optimized")
        if entry.record is None:
            fixes += mending.mend(judged, tag)
            continue
        findings += _of_others(graph, entry.record)
        fixes += mending.mend(judged, tag)
        fixes += optimizing.reduce(judged, tag, report)
        fixes += optimizing.accept_written(judged, tag, report)
        if entry.record.strong:
            fixes += optimizing.optimize(judged, tag, report)
        elif not entry.record.purging:
            fixes += merging.of_tag(judged, tag)
            findings += _kept_alive(graph, report)
    fixes = linked(graph, _without_guesses(graph, [*fixes, *cleaning.of_repository(graph)]))
    fixes = _not_in_the_place_of(judged, fixes)
    fixes = _after(list(mending.of_repository(graph)), fixes)
    findings += [Finding("unknown", name, problem) for name, problem in (*view.scan.unlisted, *view.scan.unread)]
    findings += [
        Finding("note", tag, f"hidden data kept for the copy {keeper.copy}: {keeper.text}")
        for tag, keeper in view.keepers.items()
    ]
    findings += [
        Finding("unknown", tag, f"could not be looked at more deeply: {reason}")
        for tag, reason in view.depths.failed.items()
    ]
    findings += [
        Finding("foreign", item.name, "not a name of this repository; left alone", item.size)
        for item in graph.litter("foreign")
    ]
    findings += [
        Finding("note", item.name, f"space waiting for host {item.host}, which may still write there", item.size)
        for item in graph.litter("parked")
    ]
    images.sort(key=lambda image: image.id)
    return RepositoryReport(tuple(images), tuple(in_order(fixes)), tuple(findings), view.total_bytes, view.free_bytes)


def _without_guesses(graph: Graph, fixes: list[Fix]) -> list[Fix]:
    """While the directory of the data is missing there is nothing to work on; while one cannot be listed nothing
    is cleaned or merged. A record that cannot be understood holds up what would have to know what it needs."""
    if any(part.held == "volumes" for part in graph.view.scan.missing):
        return []
    if graph.view.scan.unlisted:
        return [fix for fix in fixes if fix.type not in (FixType.CLEAN, FixType.MERGE) and fix.rule != rules.B_PURGING]
    bad = [tag for tag, entry in graph.view.scan.tags.items() if entry.problem]

    def held_up(fix: Fix) -> Fix:
        others = _in_the_way(graph, fix, bad) if rules.BY_CODE[fix.rule].all_records else []
        if not others:
            return fix
        text = f"the record of image {others[0]}, which cannot be understood now"
        return fix._replace(wait=Wait(WaitKind.RECORD, others[0], text))

    return [held_up(fix) for fix in fixes] if bad else fixes


def _not_in_the_place_of(judged: Judge, fixes: list[Fix]) -> list[Fix]:
    """While the volume of an image is gone from a volume group nothing is made there that could lie where it lay: LVM
    can put it back (vgcfgrestore) until then. But to mend that image, or to give it up, is an operator's decision."""
    graph = judged.graph
    if not graph.view.managed:
        return fixes
    gone = [tag for tag in graph.view.scan.tags if _is_gone(graph, judged.health(tag), tag)]

    def held_up(fix: Fix) -> Fix:
        makes = fix.rule in rules.REBUILDS or fix.rule in rules.UNFINISHED or fix.type is FixType.MERGE
        if not makes or fix.target in gone or fix.wait is not None:
            return fix
        text = f"the data of image {gone[0]}, which is gone from the volume group: something could be put in its place"
        return fix._replace(wait=Wait(WaitKind.DATA, gone[0], text))

    return [held_up(fix) for fix in fixes] if gone else fixes


def _is_gone(graph: Graph, health: Health, tag: str) -> bool:
    if health.rule != rules.B_GONE or health.culprit != tag:
        return False
    record = graph.record(tag)
    return record is not None and record.volume is not None and graph.quarantined(record.volume) is None


def _after(parts: list[Fix], fixes: list[Fix]) -> list[Fix]:
    """Fixes of the repository itself, and the others, which wait for them: each needs leases and small files."""
    first = tuple(fix.id for fix in parts if fix.risk is Risk.REVERSIBLE)
    later = [fix._replace(depends_on=(*first, *fix.depends_on)) for fix in fixes] if first else fixes
    unlocks = tuple(sorted(fix.id for fix in later))
    return [*(fix._replace(unlocks=unlocks) if fix.id in first else fix for fix in parts), *later]


def _in_the_way(graph: Graph, fix: Fix, bad: list[str]) -> list[str]:
    """Return those of the tags with a bad record that may need what a fix is about."""
    doubts = graph.view.scan.doubts
    if doubts is None or not fix.target:
        return [tag for tag in bad if tag != fix.target]
    records = [graph.record(tag) for tag in fix.images]
    volumes = [volume.id for record in records if record is not None for volume in record.volumes()]
    found = {tag for subject in (*fix.images, *volumes) for tag in doubts.get(subject, ())}
    return [tag for tag in bad if tag in found and tag != fix.target]


def _of_others(graph: Graph, record: Record) -> list[Finding]:
    """What a volume holds that another program has put there, and that nothing here keeps."""
    facts = graph.view.facts.get(record.volume.id) if record.volume else None
    header = facts.header if facts is not None else None
    if header is None:
        return []
    held = ["dirty bitmaps"] if header.bitmaps else []
    if header.internal_snapshots:
        held.append(f"{header.internal_snapshots} internal snapshots")
    if not held:
        return []
    text = f"its volume holds {' and '.join(held)} of another program"
    return [Finding("note", record.id, f"{text}; nothing here uses them, and copies and rebuilds drop them")]


def _kept_alive(graph: Graph, report: ImageReport) -> list[Finding]:
    children = graph.children(report.id)
    if len(children) < 2:
        return []
    what = "removed image" if report.removed else "hidden data"
    text = f"{what} kept alive by {len(children)} images: {', '.join(children[:8])}"
    return [Finding("note", report.id, text, report.used_bytes)]


def linked(graph: Graph, fixes: list[Fix]) -> list[Fix]:
    """Fill in which fixes wait for which: an image is mended after its base, merged after its mend; and a snapshot
    changed after the mend of a disk whose older record has its data."""
    mends = {fix.target: fix.id for fix in fixes if fix.type is FixType.MEND}
    if not mends:
        return fixes
    needs: dict[str, tuple[str, ...]] = {}
    for fix in fixes:
        record = graph.record(fix.target)
        if record is None or fix.type is FixType.CLEAN:
            continue
        first = _needed(graph, record) | set(fix.images) | {disk for tag in fix.images for disk in graph.left(tag)}
        found = [mends[tag] for tag in sorted(first) if tag in mends and mends[tag] != fix.id]
        if found:
            needs[fix.id] = tuple(found)
    unlocks: dict[str, list[str]] = {}
    for fix_id, wanted in needs.items():
        for other in wanted:
            unlocks.setdefault(other, []).append(fix_id)
    return [
        fix._replace(depends_on=needs.get(fix.id, ()), unlocks=tuple(sorted(unlocks.get(fix.id, ()))))
        if fix.id in needs or fix.id in unlocks
        else fix
        for fix in fixes
    ]


def _needed(graph: Graph, record: Record) -> set[str]:
    """The image and all that it stands on, now or when its operation has ended."""
    found, todo = {record.id}, [record]
    while todo:
        for tag in set(todo.pop().parents()) - found:
            found.add(tag)
            if (below := graph.record(tag)) is not None:
                todo.append(below)
    return found


def in_order(fixes: list[Fix]) -> list[Fix]:
    """A safe order to run them in: what others depend on first, then mend, clean, merge, optimize;
    inside a type the cheapest first. What can lose data comes last."""

    def key(fix: Fix) -> tuple[bool, tuple[bool, int], int, int, str]:
        return (
            fix.risk is Risk.LOSES_DATA,
            rules.rank(fix.rule),
            len(fix.depends_on),
            fix.cost.read_bytes + fix.cost.write_bytes,
            fix.id,
        )

    return sorted(fixes, key=key)
