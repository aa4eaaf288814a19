"""The evidence on disk behind a status: which record, which progress, which data; and their content on demand."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import NamedTuple

from engine.api import Engine
from engine.data import progress
from engine.data.model import require_id
from engine.data.records import Record, VolumeRef, encode
from engine.errors import DiskwrightError
from engine.formats.base import Repository, TagEntry, VolumeFacts
from engine.formats.files import layout
from engine.formats.lvm.metadata import layout as lvm_layout
from tui.text.amounts import compact, moment
from tui.text.printable import printable
from tui.view import live

_RAW_BYTES = 8 * 1024
_HEAD_BYTES = 128
_LINES = 4000


class Fact(NamedTuple):
    """One piece of evidence. Texts are printable."""

    kind: str
    """rule, record, progress, volume, lease; a ``rule`` is only known to the check and cannot be opened."""
    text: str
    path: str = ""
    """The file on this host that it is in, "" where there is none."""
    place: str = ""
    """Where in it: a field, a generation, a size."""
    key: str = ""
    """What ``open_fact`` looks for."""

    @property
    def line(self) -> str:
        """In one line."""
        where = " ".join(part for part in (self.path, self.place) if part)
        return f"{self.text}  [{where}]" if where else self.text


def facts_of(engine: Engine, repo_id: str, image: str) -> tuple[Fact, ...]:
    """The evidence about an image that is on disk now. Reads it: call it in a thread. Raises StorageError."""
    repository = engine.context.repository(repo_id)
    entry = repository.tags.read(require_id(image, "image"))
    if entry is None:
        return ()
    found = [_record_fact(repository, entry)]
    record = entry.record
    if record is not None:
        found += _progress_facts(repository, record)
        found += [_volume_fact(repository, volume, role) for volume, role in _volumes(record)]
    held = repository.leases.held(image)
    text = "somebody holds it" if held else "nobody holds it"
    return (*found, Fact("lease", f"lease: {text}", _path(repository, layout.LOCKS_FILE), "", image))


def _path(repository: Repository, inside: str) -> str:
    return printable(f"{repository.place}/{inside}") if repository.activation is None else ""


def _on_lvm(repository: Repository, volume: str) -> str:
    """Where a fact is that is in no file: a logical volume of a group."""
    return "" if repository.activation is None else printable(f"{volume} in {repository.place}, ")


def _record_fact(repository: Repository, entry: TagEntry) -> Fact:
    path = _path(repository, f"{layout.tag_shard(entry.id)}/{layout.tag_name(entry.id, entry.generation)}")
    record = entry.record
    where = _on_lvm(repository, lvm_layout.META)
    place = f"{where}generation {entry.generation:x}"
    if record is None:
        return Fact("record", f"record: {printable(entry.problem) or 'deleted for good'}", path, place, entry.id)
    words = ["visible" if record.strong else "not visible", "whole" if record.whole else "data not whole"]
    if record.operation is not None:
        operation = record.operation
        words.append(f"unfinished {printable(operation.verb)}")
        place = f"{where}operation.cursor {operation.cursor}, epoch {record.epoch}"
    elif record.removed is not None:
        words.append(f"removed {moment(record.removed)}")
        place = f"{where}removed"
    return Fact("record", f"record: {', '.join(words)}", path, place, entry.id)


def _progress_facts(repository: Repository, record: Record) -> Iterator[Fact]:
    if record.operation is None:
        return
    with contextlib.suppress(DiskwrightError):
        line = progress.decode(repository.progress.read(record.id, record.epoch))
        if line is not None:
            share = f"{line.status.percent} %" if line.status.percent >= 0 else "no %"
            when = moment(line.status.when)
            text = f"progress: {share}, saved {when} by {printable(line.status.host)}"
            path = _path(repository, layout.progress_path(record.id, record.epoch))
            place = f"{_on_lvm(repository, lvm_layout.META)}cursor {line.cursor}"
            yield Fact("progress", text, path, place, record.id)


def _volumes(record: Record) -> list[tuple[VolumeRef, str]]:
    found = [(record.volume, "data")] if record.volume else []
    if record.operation is not None and record.operation.attempt is not None:
        found.append((record.operation.attempt, "data being made"))
    found += [(volume, "older data") for volume in record.scrap]
    return found + [(volume, "damaged data, kept") for volume in record.evidence]


def _volume_fact(repository: Repository, volume: VolumeRef, role: str) -> Fact:
    path = _path(repository, layout.volume_path(volume.id, volume.format))
    where = _on_lvm(repository, lvm_layout.volume_name(volume.id))
    try:
        seen = repository.volumes.facts(volume.id, volume.format)
    except DiskwrightError as error:
        return Fact("volume", f"{role}: {printable(error.message)}", path, "", _volume_key(volume))
    return Fact(
        "volume", f"{role}: {_condition(seen)}", path, f"{where}{_size(seen)}".rstrip(", "), _volume_key(volume)
    )


def _condition(seen: VolumeFacts) -> str:
    if not seen.present:
        return "it is not there"
    return printable(seen.problem) or f"{seen.format}, in order as far as a look tells"


def _size(seen: VolumeFacts) -> str:
    return f"{compact(seen.length)} long, {compact(seen.used)} used" if seen.present else ""


def _volume_key(volume: VolumeRef) -> str:
    return f"{volume.id}.{volume.format}"


def grounded(rule: Fact, evidence: tuple[Fact, ...]) -> Fact:
    """A fact of a rule with the file it is from: the one it names, else the record, which rules go by first."""
    named = (fact for fact in evidence if fact.kind == "volume" and fact.key and fact.key in rule.text)
    source = next(named, None) or next((fact for fact in evidence if fact.kind == "record"), None)
    return source._replace(text=rule.text) if source is not None else rule


# -- opening one


def open_fact(engine: Engine, repo_id: str, fact: Fact) -> tuple[str, ...]:
    """What the evidence says itself, as lines that are safe for a terminal. Reads it; raises StorageError."""
    repository = engine.context.repository(repo_id)
    if fact.kind == "record":
        lines = _record_lines(engine, repository, fact)
    elif fact.kind == "progress":
        lines = _progress_lines(repository, fact)
    elif fact.kind == "volume":
        lines = _volume_lines(engine, repository, fact)
    elif fact.kind == "lease":
        lines = list(live.evidence(engine, repo_id, fact.key).lines)
    else:
        lines = [fact.text]
    return tuple(printable(line) for line in lines[:_LINES])


def _record_lines(engine: Engine, repository: Repository, fact: Fact) -> list[str]:
    entry = repository.tags.read(fact.key)
    if entry is None or entry.record is None:
        problem = entry.problem if entry is not None else "there is none any more"
        return [problem or "the image was deleted for good", *_dump(engine, fact.path)]
    head, _, body = encode(entry.record).partition(b"\n")
    return [head.decode(), *json.dumps(json.loads(body), indent=2, ensure_ascii=True).splitlines()]


def _progress_lines(repository: Repository, fact: Fact) -> list[str]:
    entry = repository.tags.read(fact.key)
    record = entry.record if entry else None
    line = repository.progress.read(fact.key, record.epoch) if record else None
    if line is None:
        return ["there is no progress any more: the work has ended"]
    try:
        return json.dumps(json.loads(line), indent=2, ensure_ascii=True).splitlines()
    except (ValueError, RecursionError):
        return [repr(line)]


def _volume_lines(engine: Engine, repository: Repository, fact: Fact) -> list[str]:
    parsed = layout.parse_volume_name(fact.key)
    if parsed is None:
        return [fact.text]
    seen = repository.volumes.facts(*parsed)
    lines = [f"{name}: {_plain(value)}" for name, value in seen._asdict().items() if name != "header"]
    if seen.header is not None:
        lines += [f"header.{name}: {_plain(value):.200}" for name, value in seen.header._asdict().items()]
    return [*lines, "", "Its first bytes:", *_dump(engine, fact.path, _HEAD_BYTES)]


def _plain(value: object) -> str:
    words = {None: "not known", True: "yes", False: "no", "": "-"}
    return words[value] if value is None or isinstance(value, bool) or value == "" else str(value)


def _dump(engine: Engine, path: str, limit: int = _RAW_BYTES) -> list[str]:
    """The beginning of a file as hexadecimal digits and letters."""
    if not path:
        return []
    try:
        with engine.doors.files.open(path) as handle:
            raw = handle.read_at(0, limit)
    except OSError as error:
        return [f"it cannot be read: {error.strerror}"]
    return [
        f"{start:08x}  {raw[start : start + 16].hex(' '):<47}  {_letters(raw[start : start + 16])}"
        for start in range(0, len(raw), 16)
    ]


def _letters(raw: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in raw)
