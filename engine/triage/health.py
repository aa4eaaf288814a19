"""Can an image be used, and is there a better representation of it? One sentence why.

Order of judgement: can the record be read, is everything below in order, is the data all
there, is it what it should be; then whether a better representation exists. A parent's trouble
is its own to mend; the images above it only say whose it is.
"""

from __future__ import annotations

from typing import NamedTuple

from engine.data.model import ImageReport, OperationStatus, Status, Strategy, VolumeFormat, aligned
from engine.data.records import Record, VolumeRef
from engine.formats.base import VolumeFacts, backing_name
from engine.tags.chains import contradiction
from engine.triage.view import Graph

MAX_CHAIN = 16
"""Deeper chains are worth flattening: opening one takes a millisecond per layer (measured: 17
layers open 4 to 5 times slower than one) and each layer is one more file that can be lost."""

OVERSIZE_FRACTION = 0.25
OVERSIZE_MIN_BYTES = 64 * 1024 * 1024
"""A representation is oversized when it occupies this much more than a fresh copy would."""

VERB_RULES = {"create_disk": "B-CREATE", "copy": "B-COPY", "import": "B-IMPORT", "create_snapshot": "B-SNAPSHOT"}


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


class Judge:
    """Judges the tags of one view, remembering what it found about chains."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
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
            looped = Health(Status.BROKEN, "its chain runs in a circle", "B-LOOP", tag, (f"loop at tag {tag}",))
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
        if below.status is Status.OPTIMIZED or below.reason.startswith("needs "):
            return below
        reason = f"needs image {below.culprit or tag}: {below.reason}"
        return below._replace(reason=reason, rule="B-BASE" if below.status is Status.BROKEN else "U-BASE")

    def _edge(self, record: Record, parent: str) -> Health | None:
        """What is wrong between an image and its base, if anything."""
        below = self.graph.record(parent)
        if below is None:
            return None  # the base's own trouble
        where = (f"tag {record.id} on tag {parent}",)
        if below.absorber not in ("", record.id):
            reason = f"its base {parent} is being merged into image {below.absorber}"
            return Health(Status.BROKEN, reason, "B-PARENT", record.id, where)
        if below.size > record.size and aligned(below.size) > aligned(record.size):
            return Health(Status.BROKEN, f"it is smaller than its base {parent}", "B-PARENT", record.id, where)
        return None

    def _own(self, tag: str) -> Health:
        entry = self.graph.entry(tag)
        unlisted = self.graph.view.scan.unlisted
        if entry is None and unlisted:
            where = tuple(name for name, _ in unlisted)
            return Health(Status.UNKNOWN, f"the base {tag} may be where nothing can be listed", "U-PARENT", tag, where)
        if entry is None or entry.tombstone:
            return Health(Status.BROKEN, f"the base {tag} is gone", "B-PARENT", tag, (f"no record of tag {tag}",))
        record = entry.record
        if record is not None and record.whole and record.volume is not None and not record.purging:
            return self._data(record, record.volume)
        where = (f"record {tag}, generation {entry.generation:x}",)
        if record is None:
            if entry.unreadable:
                return Health(Status.UNKNOWN, f"its record cannot be read: {entry.problem}", "U-RECORD", tag, where)
            return Health(Status.BROKEN, f"its record is damaged: {entry.problem}", "B-RECORD", tag, where)
        if record.purging:
            return Health(Status.BROKEN, "it is being deleted", "B-PURGING", tag, where)
        return self._unfinished(record, where)

    def _unfinished(self, record: Record, where: tuple[str, ...]) -> Health:
        verb = record.operation.verb if record.operation else "operation"
        rule = VERB_RULES.get(verb, "B-UNFINISHED")
        status = self.operation(record)
        share = f" at {status.percent} %" if status and status.percent >= 0 else ""
        reason = f"{verb} has not finished{share}"
        wait = self.graph.view.waits.get(record.id)
        if wait:
            reason += f"; it waits for {wait}"
        if status and status.last_error:
            reason += f"; last error: {status.last_error}"
        return Health(Status.BROKEN, reason, rule, record.id, where)

    def _data(self, record: Record, volume: VolumeRef) -> Health:
        view = self.graph.view
        facts = view.facts.get(volume.id)
        if facts is None:
            return FINE  # not looked at in this survey
        if facts.unreadable:
            return _of_data(Status.UNKNOWN, f"its data cannot be read: {facts.problem}", "U-DATA", record)
        if not facts.present:
            return _of_data(Status.BROKEN, "its data is gone: the volume is missing", "B-GONE", record)
        problem = facts.problem or contradiction(record, volume, facts)
        if problem:
            return _of_data(Status.BROKEN, f"its data is damaged: {problem}", "B-DATA", record)
        unreadable = view.depths.unreadable.get(record.id)
        if unreadable:
            reason = f"some of its data cannot be read: {unreadable[0]}"
            return _of_data(Status.UNKNOWN, reason, "U-READ", record, *unreadable[1:])
        wrong = view.depths.wrong.get(record.id)
        if wrong:
            return _of_data(Status.BROKEN, f"its data is wrong: {wrong}", "B-DIGEST", record)
        report = view.depths.checks.get(volume.id)
        if report and report.corruptions:
            text = f"its data is damaged: qemu-img check finds {report.corruptions} corruptions"
            return _of_data(Status.BROKEN, text, "B-CORRUPT", record, report.detail)
        return FINE

    def operation(self, record: Record) -> OperationStatus | None:
        """The last persisted operation: the progress line of the current attempt, or the record's."""
        line = self.graph.view.progress.get(record.id)
        return line.status if line else record.last

    def report(self, tag: str) -> ImageReport:
        """The judgement of one tag."""
        entry = self.graph.view.scan.tags[tag]
        health = self.health(tag)
        record = entry.record
        if record is None:
            return ImageReport(
                tag, health.status, _sentence(health.reason), health.rule, health.facts, False, 0, 0,
                Strategy.SPACE, False, False, None, "",
            )  # fmt: skip
        status, reason, rule, facts = health.status, health.reason, health.rule, health.facts
        if status is Status.OPTIMIZED and not record.strong:
            reason = "removed, and still holds space" if record.removed is not None else "hidden data"
        elif status is Status.OPTIMIZED:
            status, reason, rule, facts = self._better(record)
        return ImageReport(
            tag, status, _sentence(reason), rule, facts, record.mutable, record.size, self.graph.used_by(record),
            record.strategy, record.removed is not None and not record.strong,
            record.removed is None and not record.strong, self.operation(record), "", self.graph.lost(record),
        )  # fmt: skip

    def _better(self, record: Record) -> tuple[Status, str, str, tuple[str, ...]]:
        found = next(iter(degradations(self.graph, record)), None)
        if found is None:
            return Status.OPTIMIZED, "the best representation for what was asked", "", ()
        return Status.DEGRADED, f"usable, but {found.reason}", found.rule, found.facts


def _of_data(status: Status, reason: str, rule: str, record: Record, *detail: str) -> Health:
    assert record.volume is not None
    return Health(status, reason, rule, record.id, (f"volume {record.volume.id}.{record.volume.format}", *detail))


class Degradation(NamedTuple):
    """Why a usable image could be represented better."""

    rule: str
    reason: str
    facts: tuple[str, ...] = ()
    gains: int = 0


def degradations(graph: Graph, record: Record) -> list[Degradation]:
    """Everything that could be better about a usable image, most important first."""
    volume = record.volume
    if volume is None:
        return []
    found = []
    facts = graph.view.facts.get(volume.id)
    header = facts.header if facts else None
    if header is not None and header.dirty:
        found.append(Degradation("O-DIRTY", "its qcow2 header says it was not closed", (f"volume {volume.id}",)))
    if volume.parent:
        found += _too_deep(record, len(graph.chain(record)))
    elif volume.format is not wanted_format(record.strategy) and not graph.children(record.id):
        found.append(Degradation("O-FORMAT", f"it is {volume.format} and {record.strategy} was asked for"))
    if header is not None:
        found += _header_mismatch(graph, volume, header.backing_name, header.backing_format)
    found += _oversize(graph, record, volume, facts)
    report = graph.view.depths.checks.get(volume.id)
    if report and report.leaked_clusters:
        text = f"{report.leaked_clusters} clusters of its volume are leaked"
        found.append(Degradation("O-LEAKS", text, (report.detail,), report.leaked_clusters * 65536))
    lost = graph.lost(record)
    if lost:
        count = sum(length for _, length in lost)
        found.append(Degradation("D-LOST", f"{count} bytes in {len(lost)} ranges are lost and read as zeros"))
    return found


def _too_deep(record: Record, depth: int) -> list[Degradation]:
    if record.strategy is Strategy.PERFORMANCE:
        return [Degradation("O-FLAT", f"it reads through {depth} layers and performance was asked for")]
    if depth > MAX_CHAIN:
        return [Degradation("O-DEPTH", f"its chain has {depth} layers, more than {MAX_CHAIN}")]
    return []


def wanted_format(strategy: Strategy) -> VolumeFormat:
    """The format of a flat image: qcow2 takes only the room it needs on every kind of storage,
    raw is the shortest way to the data."""
    return VolumeFormat.QCOW2 if strategy is Strategy.SPACE else VolumeFormat.RAW


def _header_mismatch(
    graph: Graph, volume: VolumeRef, name: str | None, backing_format: str | None
) -> list[Degradation]:
    parent = graph.record(volume.parent) if volume.parent else None
    expected = backing_name(volume.parent) if volume.parent else None
    expected_format = str(parent.volume.format) if parent and parent.volume else None
    if name == expected and (expected is None or expected_format is None or backing_format == expected_format):
        return []
    text = "the backing name in its header is not what its record says (it is derived and never followed)"
    return [Degradation("O-HEADER", text, (f"header: {name!r:.80} {backing_format!r:.20}",))]


def _oversize(graph: Graph, record: Record, volume: VolumeRef, facts: VolumeFacts | None) -> list[Degradation]:
    if facts is None or volume.parent or facts.thick:
        return []
    required = graph.view.depths.required.get(record.id)
    if required is None and volume.format is VolumeFormat.QCOW2:
        required = aligned(record.size) + aligned(record.size) // 1024 + (1 << 20)  # no more can be needed
    if required is None:
        return []
    over = facts.used - required
    if over < OVERSIZE_MIN_BYTES or over < required * OVERSIZE_FRACTION:
        return []
    return [Degradation("O-OVERSIZE", f"it occupies {over} bytes more than a fresh copy would", (), over)]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
