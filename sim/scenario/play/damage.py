"""What happens to repositories behind the engine's back, by bad disks, wrong commands and strangers.

Everything is durable afterwards, as damage usually is.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from typing import Any

from engine.api import Engine
from engine.data.model import VolumeFormat, aligned
from engine.data.records import Record, canonical, encode, framed
from engine.doors.files import Files
from engine.doors.images import Layer
from engine.errors import DiskwrightError
from engine.tags import changes
from engine.tools.qemu.qcow2 import CLUSTER_BYTES, fresh_image
from sim.scenario.language.model import Step
from sim.scenario.language.patterns import chunks
from sim.scenario.play.names import NamedImage, Names

_FEATURES_OFFSET = 72  # incompatible features in a qcow2 header of version 3
_FLIPPED_AT = 5
_AUTOCLEAR_OFFSET, _EXTENSIONS_OFFSET = 88, 112
_BITMAPS_EXTENSION, _DIRTY, _GRANULARITY_BITS = 0x23852875, 1, 16
_FEATURES = {"dirty": 1 << 0, "corrupt": 1 << 1, "data-file": 1 << 2, "unknown-feature": 1 << 40}


def damage(names: Names, engine: Engine, step: Step) -> None:
    """Spoil an image as the step says."""
    image = names.of_step(step, "image")
    values, files = step.values, names.backend.files
    if "record" in values or values.get("delete") == "record":
        path = names.record_path(engine, image, step.line)
        if "delete" in values:
            folder = path.rpartition("/")[0]
            for entry in files.list_directory(folder):
                if entry.name.startswith(image.id):
                    _delete(files, f"{folder}/{entry.name}")
            return
        kind = values["record"]
        raw = files.read_file(path, 1 << 21)
        if kind in _REBUILT:
            record = names.record(engine, image, step.line)
            replace(files, path, _REBUILT[kind](record))
        else:
            replace(files, path, _RAW[kind](raw))
        return
    if "digests" in values:
        _flip(files, names.digests_path(engine, image, step.line))
        return
    path = names.data_path(engine, image, step.line)
    if "delete" in values:
        _delete(files, path)
    elif "text" in values:
        replace(files, path, values["text"].encode())
    elif "truncate" in values:
        with files.open(path, writable=True) as handle:
            handle.truncate(values["truncate"])
            handle.sync()
    elif "overwrite" in values or "written" in values:
        with files.open(path, writable=True) as handle:
            for start, data in chunks((values.get("overwrite") or values["written"])["pieces"]):
                handle.write_at(start, data)
            handle.sync()
    else:
        _damage_header(names, step, files, path)
    if "overwrite" in values or "header" in values:
        _unseen(engine, image)


def _unseen(engine: Engine, image: NamedImage) -> None:
    """Let the record not know what the data file looked like: a bad disk changes bytes, and no time of a file."""
    with contextlib.suppress(DiskwrightError):
        repository = engine.context.repository(image.repository)
        changes.change(repository, image.id, lambda record: record._replace(seen=None))


def _flip(files: Files, path: str) -> None:
    with files.open(path, writable=True) as handle:
        (byte,) = handle.read_at(_FLIPPED_AT, 1)
        handle.write_at(_FLIPPED_AT, bytes([byte ^ 1]))
        handle.sync()


def _damage_header(names: Names, step: Step, files: Files, path: str) -> None:
    with files.open(path, writable=True) as handle:
        if handle.read_at(0, 4) != b"QFI\xfb":
            raise names.impossible(step.line, "its data is raw and has no header")
        kind = step.values["header"]
        if kind == "backing":
            name = b"/etc/passwd"
            handle.write_at(1024, name)
            handle.write_at(8, (1024).to_bytes(8, "big") + len(name).to_bytes(4, "big"))
        else:
            features = int.from_bytes(handle.read_at(_FEATURES_OFFSET, 8), "big") | _FEATURES[kind]
            handle.write_at(_FEATURES_OFFSET, features.to_bytes(8, "big"))
        handle.sync()


def _with(record: Record, **fields: Any) -> bytes:
    """The record with fields of wrong types or meaning, and a checksum that is right."""
    import json

    data = json.loads(encode(record).partition(b"\n")[2])
    return framed(canonical({**data, **fields}))


def _with_volume(record: Record, **fields: Any) -> bytes:
    volume = {"id": record.volume.id, "format": str(record.volume.format), "parent": ""} if record.volume else {}
    return _with(record, volume={**volume, **fields})


_RAW: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda raw: b" ",  # an empty file would be a tombstone
    "truncated": lambda raw: raw[: len(raw) // 2],
    "zeros": lambda raw: bytes(len(raw)),
    "garbage": lambda raw: b"\x8f\x00garbage " * 40,
    "not-utf8": lambda raw: raw.replace(b'"id"', b'"\xff\xfe"'),
    "huge": lambda raw: raw + b" " * (1 << 20),
    "future-version": lambda raw: raw.replace(b"dw1 ", b"dw2 ", 1),
    "checksum": lambda raw: raw.replace(b'"mutable":', b'"mutable": '),
    "torn": lambda raw: raw[:512] + bytes(max(0, len(raw) - 512)),
}
_REBUILT: dict[str, Callable[[Record], bytes]] = {
    "wrong-type": lambda record: _with(record, size="big"),
    "unknown-field": lambda record: _with(record, colour="blue"),
    "other-image": lambda record: _with(record, id="0" * 31 + "1"),
    "loop": lambda record: _with_volume(record, parent=record.id, format="qcow2"),
    "raw-format": lambda record: _with_volume(record, format="raw"),
}


def replace(files: Files, path: str, data: bytes) -> None:
    """Have these bytes in a file that is there, durable."""
    with files.open(path, writable=True) as handle:
        handle.truncate(0)
        if data:
            handle.write_at(0, data)
        handle.sync()


def _delete(files: Files, path: str) -> None:
    files.unlink(path)
    files.sync_directory(path.rpartition("/")[0])


def add_file(names: Names, step: Step) -> None:
    """A file or link of a stranger."""
    files, values = names.backend.files, step.values
    path = f"{names.backend.root(values['in'])}/{values['path']}"
    folder = path.rpartition("/")[0]
    parts = values["path"].split("/")[:-1]
    for count in range(1, len(parts) + 1):
        with contextlib.suppress(FileExistsError):
            files.make_directory("/".join([names.backend.root(values["in"]), *parts[:count]]))
    if "link_to" in values:
        files.symlink(values["link_to"], path)
    else:
        with files.create(path) as handle:
            if "text" in values:
                handle.write_at(0, values["text"].encode())
            else:
                handle.truncate(values["length"])
            handle.sync()
    files.sync_directory(folder)


def make_file(names: Names, engine: Engine, step: Step) -> None:
    """An image file that no engine has made."""
    values, files = step.values, names.backend.files
    path = names.backend.scratch(values["as"])
    format = VolumeFormat(values.get("format", "raw"))
    pieces = chunks(values.get("content", {"pieces": []})["pieces"])
    with files.create(path) as handle:
        if format is VolumeFormat.RAW:
            for start, data in pieces:
                handle.write_at(start, data)
            handle.truncate(values["size"])
        else:
            backing = values.get("backing")
            fresh = fresh_image(aligned(values["size"]), backing, "raw" if backing else None)
            for offset, data in fresh.pieces:
                handle.write_at(offset, data)
            handle.truncate(fresh.length)
        handle.sync()
    if format is VolumeFormat.QCOW2 and pieces and not values.get("backing"):
        session = engine.doors.images.open_session([Layer(path, format)], True, False)
        try:
            for start, data in pieces:
                session.write(start, data)
            session.flush()
        finally:
            session.close()
    if "bitmap" in values:
        _add_bitmap(files, path, values["bitmap"].encode())
    names.files.add(values["as"])


def _add_bitmap(files: Files, path: str, name: bytes) -> None:
    """Give a qcow2 file that ``make_file`` made a persistent bitmap in which no bit is set."""
    with files.open(path, writable=True) as handle:
        first = -(-handle.stat().size // CLUSTER_BYTES)
        directory, table = first * CLUSTER_BYTES, (first + 1) * CLUSTER_BYTES
        entry = struct.pack(">QIIBBHI", table, 1, 0, _DIRTY, _GRANULARITY_BITS, len(name), 0) + name
        entry += bytes(-len(entry) % 8)
        extension = struct.pack(">IIIIQQ", _BITMAPS_EXTENSION, 24, 1, 0, len(entry), directory)
        handle.write_at(_EXTENSIONS_OFFSET, extension + handle.read_at(_EXTENSIONS_OFFSET, 256))
        handle.write_at(_AUTOCLEAR_OFFSET, (1).to_bytes(8, "big"))
        handle.write_at(2 * CLUSTER_BYTES + 2 * first, b"\0\1\0\1")  # both clusters are referred to once
        handle.write_at(directory, entry)
        handle.truncate(table + CLUSTER_BYTES)
        handle.sync()
