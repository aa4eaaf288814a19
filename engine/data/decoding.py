"""What the bytes of a record mean. Records come from strangers: every field is checked, and whoever asks learns whether
it is damaged or of another version. What a record is, and how it is written, stands in ``records``.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any

from engine.data import kept, seen
from engine.data.model import (
    ADOPTED,
    ADOPTED_VOLUME,
    MAX_GROUP,
    MAX_IMAGE_BYTES,
    VERBS,
    OperationStatus,
    Strategy,
    VolumeFormat,
    is_id,
    is_import_format,
)
from engine.data.records import (
    MAGIC,
    MAX_REMARK_CHARACTERS,
    MAX_REMARKS,
    MOST,
    Operation,
    Record,
    VolumeRef,
    canonical,
)
from engine.data.usual import usual
from engine.errors import Damaged, DiskwrightError, NotUnderstood


def decode(raw: bytes, tag: str) -> Record:
    """Return the record in ``raw``, which was found under the name of ``tag``. Every field is checked: records come
    from strangers. Damaged says what is wrong; NotUnderstood that it is whole, and of another version."""
    head, newline, body = raw.partition(b"\n")
    parts = head.split(b" ")
    if not raw:
        raise Damaged("the record is empty")
    if not newline or parts[0] != MAGIC.encode():
        if newline and parts[0][:2] == b"dw" and parts[0][2:].isdigit():
            raise _of_version(raw, parts[0], tag)
        raise Damaged("the record does not start as one")
    if len(parts) != 3 or not parts[1].isdigit() or len(parts[1]) > 9 or len(body) < int(parts[1]):
        raise Damaged("the record is truncated")
    body = body[: int(parts[1])]
    if blake2b(body, digest_size=16).hexdigest().encode() != parts[2]:
        raise Damaged("the checksum of the record does not match")
    try:
        text = body.decode()
        record = usual(text, tag, _DECODER)
        if record is not None:
            return record
        data = _DECODER.decode(text)
        if b"\\ud" in body or b"\\uD" in body:
            canonical(data)  # half of a surrogate pair can be read and never be written again: ValueError
        record = _build(data)
    except (ArithmeticError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        # Its checksum is right: whoever wrote this meant it.
        what = f"a field of the record is not known here ({type(error).__name__}: {error!s:.100})"
        raise NotUnderstood(what, "Use the version of diskwright that wrote it") from None
    if record.id != tag:
        raise Damaged(f"the record says it is of {record.id}")
    return record


def _of_version(raw: bytes, version: bytes, tag: str) -> DiskwrightError:
    """Return what is the matter with a record that names another version. One that is a record of ours but for that
    word is damaged: no other version would have written it so."""
    what = f"the record has version {version[:20].decode()}, this program reads {MAGIC}"
    try:
        decode(MAGIC.encode() + raw[len(version) :], tag)
    except DiskwrightError:
        return NotUnderstood(what, "Use the version of diskwright that wrote it")
    return Damaged(f"{what}, and all else in it is as {MAGIC} has it")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} in a record")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{text:.20} in a record")  # it could be read, and never be written again
    return number


_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)
"""Made once: making one takes longer than reading a record with it."""


def _expect(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(what)


_FORMATS = {str(format): format for format in VolumeFormat}
_STRATEGIES = {str(strategy): strategy for strategy in Strategy}
"""Looked up before the class is called: a call costs as much as all that is around it."""


def _ref(data: Any) -> VolumeRef | None:
    if data is None:
        return None
    format = data["format"]
    ref = VolumeRef(data["id"], _FORMATS.get(format) or VolumeFormat(format), data["parent"])
    _expect(is_id(ref.id) and (ref.parent == "" or is_id(ref.parent)), "volume id")
    _expect(not ref.parent or ref.format is VolumeFormat.QCOW2, "a raw volume with a parent")
    return ref


def _refs(data: Any) -> tuple[VolumeRef, ...]:
    _expect(isinstance(data, list), "list of volumes")
    return tuple(ref for ref in map(_ref, data) if ref is not None)


def _whole_number(value: Any, what: str, limit: int = MOST) -> None:
    if type(value) is not int or not 0 <= value < limit:
        raise ValueError(what)


def _operation(data: Any) -> Operation | None:
    if data is None:
        return None
    known = {key: value for key, value in data.items() if key in Operation._fields and key != "extra"}
    extra = tuple((key, data[key]) for key in sorted(data.keys() - known.keys() - {"extra"}))
    known["attempt"] = _ref(known.get("attempt"))
    known["path_facts"] = tuple(known.get("path_facts", ()))
    known["pinned"] = tuple(known.get("pinned", ()))
    operation = Operation(**known, extra=extra)
    ids = ("made", "source", "source_repository", "source_content", "base", "other")
    for name in (*ids, "direction", "path", "source_format"):
        _expect(isinstance(getattr(operation, name), str), name)
    _expect(all(getattr(operation, name) == "" or is_id(getattr(operation, name)) for name in ids), "id in operation")
    _expect(all(is_id(volume) for volume in operation.pinned), "pinned")
    if operation.verb == "merge":
        _expect(operation.direction in ("down", "up", "fresh"), "direction")
        _expect(operation.direction != "fresh" or operation.attempt is not None, "a merge into no volume")
    known_format = operation.source_format in ("", ADOPTED, ADOPTED_VOLUME) or is_import_format(operation.source_format)
    _expect(known_format and "\0" not in operation.path, "imported file")
    for number in (operation.cursor, operation.source_write_epoch, operation.data_bytes, *operation.path_facts):
        _whole_number(number, "number in operation", 1 << 70)
    _expect(operation.verb in VERBS, f"operation {operation.verb!r:.40}")
    _expect(isinstance(operation.digest, bool), "digest")
    return operation


def _group(record: Record, operation: Operation) -> None:
    """What is true of each snapshot of a group: it has its data, and only the first one can say that it counts."""
    members = operation.pinned
    _expect(record.id in members[:MAX_GROUP] and len(members) == len(set(members)) <= MAX_GROUP, "group")
    _expect(record.whole and not record.mutable and record.volume is not None and is_id(operation.other), "group")
    _expect(not record.strong or (record.id == members[0] and record.removed is None), "group")


def _remarks(data: Any) -> tuple[str, ...]:
    if data == ():
        return ()
    _expect(isinstance(data, list) and len(data) <= MAX_REMARKS, "remarks")
    _expect(all(isinstance(text, str) and len(text) <= MAX_REMARK_CHARACTERS for text in data), "remarks")
    return tuple(data)


_DEFAULTS = [(name, Record._field_defaults.get(name)) for name in Record._fields[:-1]]
"""What a field is when it is missing; None where that is not allowed, and then found out."""

_FIELDS = frozenset(name for name, _ in _DEFAULTS)
_STATUS_DEFAULTS = [(name, OperationStatus._field_defaults.get(name)) for name in OperationStatus._fields]


def operation_status(data: Any) -> OperationStatus | None:
    """Return the status in ``data``, checked; used for records and for progress lines."""
    if data is None:
        return None
    status = OperationStatus._make([data.get(name, default) for name, default in _STATUS_DEFAULTS])
    for text in (status.verb, status.host, status.last_error, status.stage_name):
        if not isinstance(text, str) or len(text) > 4096:
            raise ValueError("text in status")
    _whole_number(status.stage, "stage")
    _whole_number(status.stages, "stages")
    _expect(isinstance(status.percent, int) and -1 <= status.percent <= 100 and type(status.stopped) is bool, "status")
    _expect(type(status.when) in (int, float), "when")
    return status


def _build(data: dict[str, Any]) -> Record:
    known = dict(data)
    known.pop("extra", None)
    unknown = known.keys() - _FIELDS
    extra = tuple((key, known.pop(key)) for key in sorted(unknown)) if unknown else ()
    known["volume"] = _ref(data["volume"])
    for name in ("scrap", "evidence"):
        known[name] = _refs(data[name]) if data.get(name, []) != [] else ()
    strategy = data["strategy"]
    known["strategy"] = _STRATEGIES.get(strategy) or Strategy(strategy)
    known["operation"] = _operation(data.get("operation"))
    known["last"] = operation_status(data.get("last"))
    known["remarks"] = _remarks(data.get("remarks", ()))
    known["seen"], known["kept"] = seen.from_json(data.get("seen")), kept.from_json(data.get("kept"))
    lost = data.get("lost", [])
    known["lost"] = tuple((int(start), int(length)) for start, length in lost) if lost != [] else ()
    # By position: keywords that come out of a JSON reader are compared letter by letter, all with all.
    record = Record._make([*[known.get(name, default) for name, default in _DEFAULTS], extra])
    _expect(is_id(record.id), "id")
    for flag in (record.strong, record.mutable, record.whole, record.purging):
        if flag is not True and flag is not False:
            raise ValueError("flag")
    _expect(not record.purging or not (record.strong and record.destroyed), "an image that was given up")
    _whole_number(record.size, "size", MAX_IMAGE_BYTES + 1)
    for number in (record.epoch, record.write_epoch, record.digest_write_epoch, *(n for r in record.lost for n in r)):
        _whole_number(number, "counter")
    _expect(record.absorbed_by == "" or is_id(record.absorbed_by), "absorbed_by")
    _expect(isinstance(record.prepared_by, str) and len(record.prepared_by) <= 256, "prepared_by")
    _expect(record.content == "" or is_id(record.content), "content")
    _expect(isinstance(record.digest, str) and len(record.digest) <= 128, "digest")
    if record.operation is not None and record.in_group:
        _group(record, record.operation)
    _expect(record.removed is None or type(record.removed) in (int, float), "removed")
    return record
