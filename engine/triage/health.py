"""Can an image be used, and is there a better representation of it? One sentence why.

Order of judgement: can the record be read, is everything below in order, is the data all
there, is it what it should be; then whether a better representation exists. A parent's trouble
is its own to mend; the images above it only say whose it is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from engine.data.model import ImageReport, OperationStatus, Status, Strategy, VolumeFormat, aligned
from engine.data.records import Record, VolumeRef
from engine.doors.users import describe_users
from engine.formats.base import VolumeFacts, backing_name
from engine.tags.chains import contradiction, grown_to
from engine.triage import rules
from engine.triage.view import NO_DEPTHS, Depths, Graph

MAX_CHAIN = 16
"""Deeper chains are worth flattening: opening one takes a millisecond per layer (measured: 17
layers open 4 to 5 times slower than one) and each layer is one more file that can be lost."""

OVERSIZE_FRACTION = 0.25
OVERSIZE_MIN_BYTES = 64 * 1024 * 1024
"""A representation is oversized when it occupies this much more than a fresh copy would."""

VERB_RULES = {
    "create_disk": rules.B_CREATE,
    "copy": rules.B_COPY,
    "import": rules.B_IMPORT,
    "adopt": rules.B_ADOPT,
    "create_snapshot": rules.B_SNAPSHOT,
}
_CALLED = {"create_disk": "creation", "create_snapshot": "snapshot", "adopt": "adoption"}
"""What people call the operations that records name otherwise."""


class Health(NamedTuple):
    """Whether the data of a tag can be read."""

    status: Status
    """BROKEN, UNKNOWN, or OPTIMIZED for fine."""
    reason: str = ""
    rule: str = ""
    culprit: str = ""
    """The tag whose trouble it is."""
    facts: tuple[str, ...] = ()


FINE = Health(Status.OPTIMIZED)

_BEST = "the best representation for what was asked"


class Judge:
    """Judges the tags of one view, remembering what it found about chains."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._tags = graph.view.scan.tags
        self._facts = graph.view.facts
        self._known: dict[str, Health] = {}

    def health(self, tag: str) -> Health:
        """Whether the image that ``tag`` shows can be read, looking down its chain."""
        known = self._known.get(tag)
        if known is not None:
            return known
        path: list[str] = []
        while tag not in self._known and tag not in path:
            path.append(tag)
            own = self._own(tag)
            record = self.graph.record(tag)
            if own.status is not Status.OPTIMIZED or record is None or record.volume is None:
                self._known[tag] = own
            elif not record.volume.parent:
                self._known[tag] = FINE
            elif (edge := self._edge(record, record.volume.parent)) is not None:
                self._known[tag] = edge
            else:
                tag = record.volume.parent
        if tag not in self._known:
            looped = _health(rules.B_LOOP, tag, (f"loop at tag {tag}",))
            for item in path:
                self._known[item] = looped._replace(culprit=item)
            return self._known[path[0]]
        for item in reversed(path):
            if item not in self._known:
                self._known[item] = self._above(self._known[tag], tag)
            tag = item
        return self._known[tag]

    @staticmethod
    def _above(below: Health, tag: str) -> Health:
        if below.status is Status.OPTIMIZED or below.rule in (rules.B_BASE, rules.U_BASE):
            return below
        code = rules.B_BASE if below.status is Status.BROKEN else rules.U_BASE
        reason = rules.reason(code, image=below.culprit or tag, reason=below.reason)
        return below._replace(reason=reason, rule=code)

    def _edge(self, record: Record, parent: str) -> Health | None:
        """What is wrong between an image and its base, if anything."""
        below = self.graph.record(parent)
        if below is None:
            return None  # the base's own trouble
        where = (f"tag {record.id} on tag {parent}",)
        if below.absorber not in ("", record.id):
            return _health(rules.B_PARENT, record.id, where, "merged", base=parent, image=below.absorber)
        if below.size > record.size and aligned(below.size) > aligned(record.size):
            return _health(rules.B_PARENT, record.id, where, "larger", base=parent)
        return None

    def _own(self, tag: str) -> Health:
        entry = self._tags.get(tag)
        record = entry.record if entry is not None else None
        if record is not None and record.whole and record.volume is not None and not record.purging:
            if tag in self.graph.left_behind:
                return _of_data(rules.B_OLDER, record, image=self.graph.new_owner(record))
            return self._data(record, record.volume)
        unlisted = self.graph.view.scan.unlisted
        if entry is None and unlisted:
            where = tuple(name for name, _ in unlisted)
            return _health(rules.U_PARENT, tag, where, base=tag)
        if entry is None or entry.tombstone:
            return _health(rules.B_PARENT, tag, (f"no record of tag {tag}",), "gone", base=tag)
        where = (f"record {tag}, generation {entry.generation:x}",)
        if record is None:
            code = rules.U_RECORD if entry.unreadable else rules.U_VERSION if entry.foreign else rules.B_RECORD
            return _health(code, tag, where, problem=entry.problem, format=self.graph.view.format)
        if record.purging:
            return _health(rules.B_PURGING, tag, where)
        return self._unfinished(record, where)

    def _unfinished(self, record: Record, where: tuple[str, ...]) -> Health:
        verb = record.operation.verb if record.operation else "operation"
        code = VERB_RULES.get(verb, rules.B_UNFINISHED)
        status = self.operation(record)
        share = f" at {status.percent} %" if status and status.percent >= 0 else ""
        wait = self.graph.view.waits.get(record.id)
        rest = f"; it waits for {wait.text}" if wait else ""
        if status and status.last_error:
            rest += "; an operator stopped it" if status.stopped else f"; last error: {status.last_error}"
        return _health(code, record.id, where, verb=_CALLED.get(verb, verb), share=share, rest=rest)

    def _data(self, record: Record, volume: VolumeRef) -> Health:
        facts = self._facts.get(volume.id)
        if facts is None:
            return FINE  # not looked at in this survey
        if facts.unreadable:
            return _of_data(rules.U_DATA, record, problem=facts.problem)
        if not facts.present:
            return _of_data(rules.B_GONE, record)
        problem = facts.problem or contradiction(record, volume, facts)
        if problem:
            return _of_data(rules.B_DATA, record, problem=problem)
        depths = self.graph.view.depths
        return FINE if depths is NO_DEPTHS else self._deep(record, volume, depths)

    @staticmethod
    def _deep(record: Record, volume: VolumeRef, depths: Depths) -> Health:
        unreadable = depths.unreadable.get(record.id)
        if unreadable:
            return _of_data(rules.U_READ, record, *unreadable[1:], problem=unreadable[0])
        wrong = depths.wrong.get(record.id)
        if wrong:
            return _of_data(rules.B_DIGEST, record, problem=wrong)
        report = depths.checks.get(volume.id)
        if report and report.corruptions:
            return _of_data(rules.B_CORRUPT, record, report.detail, count=report.corruptions)
        return FINE

    def operation(self, record: Record) -> OperationStatus | None:
        """The last persisted operation: the progress line of the current attempt, or the record's."""
        line = self.graph.view.progress.get(record.id)
        return line.status if line else record.last

    def report(self, tag: str) -> ImageReport:
        """The judgement of one tag."""
        health = self.health(tag)
        record = self._tags[tag].record
        if record is None:
            return ImageReport(
                tag, health.status, rules.sentence(health.reason), health.rule, health.facts, False, 0, 0,
                Strategy.SPACE, False, False, None, "",
            )  # fmt: skip
        status, reason, rule, facts = health.status, health.reason, health.rule, health.facts
        if status is Status.OPTIMIZED and not record.strong:
            reason = "removed, and still holds space" if record.removed is not None else "hidden data"
        elif status is Status.OPTIMIZED:
            found = degradations(self.graph, record)
            reason = _BEST
            if found:
                worst = found[0]
                status, reason = Status.DEGRADED, f"usable, but {worst.reason}"
                rule, facts = worst.rule, worst.facts
        return ImageReport(
            tag, status, rules.sentence(reason), rule, facts, record.mutable, record.size, self.graph.used_by(record),
            record.strategy, record.removed is not None and not record.strong,
            record.removed is None and not record.strong, self.operation(record), "", self.graph.lost(record),
            record.name, record.remarks,
        )  # fmt: skip

    def is_settled(self, record: Record | None, report: ImageReport) -> bool:
        """Tell of an image, and of its report, that nothing can be done about it and nothing is to be told: what most
        of them are. Each offer and finding about one image asks for something that this excludes."""
        if record is None or record.volume is None or not record.strong or report.status is not Status.OPTIMIZED:
            return False
        if len(record.volumes()) > 1 or record.operation is not None or record.purging:
            return False
        facts = self._facts.get(record.volume.id)
        if facts is None or facts.in_use is not None:
            return facts is None
        header = facts.header
        return header is None or not (header.bitmaps or header.internal_snapshots)


def _health(code: str, culprit: str, facts: tuple[str, ...], case: str = "", **words: Any) -> Health:
    """What a rule says of a tag that cannot be read; ``words`` fill its blanks."""
    return Health(Status(rules.BY_CODE[code].status), rules.reason(code, case, **words), code, culprit, facts)


def _of_data(code: str, record: Record, *detail: str, **words: Any) -> Health:
    assert record.volume is not None
    return _health(code, record.id, (f"volume {record.volume.id}.{record.volume.format}", *detail), **words)


class Degradation(NamedTuple):
    """Why a usable image could be represented better."""

    rule: str
    reason: str
    facts: tuple[str, ...] = ()
    gains: int = 0


def _degraded(code: str, facts: tuple[str, ...] = (), gains: int = 0, **words: Any) -> Degradation:
    return Degradation(code, rules.reason(code, **words), facts, gains)


def degradations(graph: Graph, record: Record) -> list[Degradation]:
    """Everything that could be better about a usable image, most important first."""
    volume = record.volume
    if volume is None:
        return []
    view = graph.view
    if record.id in view.unheld:  # nothing else before it is settled
        by = describe_users(view.unheld[record.id])
        return [_degraded(rules.O_UNHELD, (f"volume {volume.id}",), users=by)]
    found = []
    facts = view.facts.get(volume.id)
    header = facts.header if facts else None
    if facts is not None and record.mutable and (size := grown_to(record, volume, facts)):
        where = (f"volume {volume.id}: {size} bytes", f"record: {record.size} bytes")
        return [_degraded(rules.O_GROWN, where, size=size, recorded=record.size)]  # the same
    # Nearly always the stamps are equal: that is told without a call.
    at_rest = facts is None or record.seen is None or facts.stamp == record.seen.stamp
    if not at_rest and record.seen is not None and (stamp := graph.written(record)) is not None:
        was, bytes_long = record.seen.stamp, f"{stamp.length} bytes, last written at {stamp.when}"
        where = (f"volume {volume.id}: {bytes_long}", f"at rest it was: {was.length} bytes, written at {was.when}")
        return [_degraded(rules.O_WRITTEN, where, when=stamp.when)]  # the same
    if header is not None and header.dirty:
        found.append(_degraded(rules.O_DIRTY, (f"volume {volume.id}",)))
    if volume.parent:
        if (depth := len(graph.chain(record))) > MAX_CHAIN or record.strategy is Strategy.PERFORMANCE:
            found.append(_too_deep(record, depth))
    elif volume.format is not wanted_format(record.strategy) and not graph.children(record.id):
        found.append(_degraded(rules.O_FORMAT, format=volume.format, strategy=record.strategy))
    if facts is not None and header is not None and (facts.backing_name is not None or volume.parent):
        found += _header_mismatch(graph, record, volume, facts.backing_name, header.backing_format)
    if facts is not None and facts.used >= OVERSIZE_MIN_BYTES:
        found += _oversize(graph, record, volume, facts)
    report = view.depths.checks.get(volume.id) if view.depths is not NO_DEPTHS else None
    if report and report.leaked_clusters:
        count = report.leaked_clusters
        found.append(_degraded(rules.O_LEAKS, (report.detail,), count * 65536, count=count))
    lost = graph.lost(record)
    if lost:
        count = sum(length for _, length in lost)
        found.append(_degraded(rules.D_LOST, count=count, ranges=len(lost)))
    return found


def _too_deep(record: Record, depth: int) -> Degradation:
    if record.strategy is Strategy.PERFORMANCE:
        return _degraded(rules.O_FLAT, depth=depth)
    return _degraded(rules.O_DEPTH, depth=depth, most=MAX_CHAIN)


def wanted_format(strategy: Strategy) -> VolumeFormat:
    """The format of a flat image: qcow2 takes only the room it needs on every kind of storage,
    raw is the shortest way to the data."""
    return VolumeFormat.QCOW2 if strategy is Strategy.SPACE else VolumeFormat.RAW


def _header_mismatch(
    graph: Graph, record: Record, volume: VolumeRef, name: str | None, backing_format: str | None
) -> list[Degradation]:
    parent = graph.record(volume.parent) if volume.parent else None
    expected = backing_name(volume.parent) if volume.parent else None
    expected_format = str(parent.volume.format) if parent and parent.volume else None
    if name == expected and (expected is None or expected_format is None or backing_format == expected_format):
        return []
    if record.operation is not None and record.operation.verb == "merge" and record.operation.direction == "up":
        merged = backing_name(record.operation.base) if record.operation.base else None
        if name == merged:
            return []  # the machine has done it, and it is not recorded yet
    return [_degraded(rules.O_HEADER, (f"header: {name!r:.80} {backing_format!r:.20}",))]


def _oversize(graph: Graph, record: Record, volume: VolumeRef, facts: VolumeFacts) -> list[Degradation]:
    if volume.parent or facts.thick:
        return []
    required = graph.view.depths.required.get(record.id)
    if required is None and volume.format is VolumeFormat.QCOW2:
        required = aligned(record.size) + aligned(record.size) // 1024 + (1 << 20)  # no more can be needed
    if required is None:
        return []
    over = facts.used - required
    if over < OVERSIZE_MIN_BYTES or over < required * OVERSIZE_FRACTION:
        return []
    if volume.format is VolumeFormat.RAW and record.operation is None:  # what is unfinished goes on as it began
        return [_degraded(rules.O_ZEROS, gains=over, over=over)]
    return [_degraded(rules.O_OVERSIZE, gains=over, over=over)]
