"""The record that nearly every image has, told at a glance: whole, nothing under way, nothing lost or left over.

A check decodes all records of a repository, and this takes a third of the time. It is a shorter way and no other one:
what it takes ``decoding`` takes too, and makes the same of it; of all else it says nothing.
"""

from __future__ import annotations

import re
from json import JSONDecoder
from sys import intern

from engine.data.model import MAX_IMAGE_BYTES, OperationStatus, Strategy, VolumeFormat
from engine.data.records import Record, VolumeRef
from engine.data.seen import Seen, Stamp

_ID = "([0-9a-f]{32})"
_NUMBER = "(0|[1-9][0-9]{0,17})"
_TIME = "(0|[1-9][0-9]{0,18})"
"""In nanoseconds: since 2001 they have 19 digits."""
_WORDS = '"([ !#-\\[\\]-~]{0,256})"'
_FLAG = "(true|false)"
_JSON = r"([^\\]{1,1000})"
"""Without a backslash: half a surrogate pair is not in there; and too short to be nested too deep."""

_USUAL = re.compile(
    r'\{"absorbed_by":"",'
    rf'(?:"content":"{_ID}",)?'
    rf'"digest":{_WORDS},"digest_write_epoch":{_NUMBER},"epoch":{_NUMBER},"evidence":\[\],"id":"{_ID}",'
    rf'"last":(?:null|\{{"host":{_WORDS},"last_error":{_WORDS},"percent":(100|[1-9]?[0-9]|-1),"stage":{_NUMBER},'
    rf'"stage_name":{_WORDS},"stages":{_NUMBER},"verb":{_WORDS},"when":((?:0|[1-9][0-9]{{0,11}})\.[0-9]{{1,9}})\}}),'
    rf'"lost":\[\],"mutable":{_FLAG},"operation":null,"prepared_by":{_WORDS},"purging":false,"removed":null,"scrap":\[\],'
    rf'(?:"seen":\{{"epoch":{_NUMBER},"inode":{_NUMBER},"length":{_NUMBER},"mtime_ns":{_TIME},'
    rf'"volume":"{_ID}","write_epoch":{_NUMBER}\}},)?'
    rf'"size":{_NUMBER},"strategy":"(performance|space)","strong":{_FLAG},"user_data":{_JSON},'
    rf'"volume":\{{"format":"(?:(raw)","id":"{_ID}","parent":"|qcow2","id":"{_ID}","parent":"{_ID}?)"\}},'
    rf'"whole":true,"write_epoch":{_NUMBER}\}}'
)
_RAW, _QCOW2 = VolumeFormat.RAW, VolumeFormat.QCOW2
_STRATEGIES = {str(strategy): strategy for strategy in Strategy}


def usual(text: str, tag: str, decoder: JSONDecoder) -> Record | None:
    """Return the record of ``tag`` in the JSON ``text`` if it is a usual one, else None. ``decoder``: for user data."""
    found = _USUAL.fullmatch(text)
    if found is None:
        return None
    (
        content, digest, digest_write_epoch, epoch, id, host, last_error, percent, stage, stage_name, stages, verb,
        when, mutable, prepared_by, seen_epoch, inode, length, mtime_ns, seen_volume, seen_write_epoch, size, strategy,
        strong, json, raw, raw_id, qcow2_id, parent, write_epoch,
    ) = found.groups()  # fmt: skip
    try:
        user_data, end = decoder.raw_decode(json)
    except (ValueError, RecursionError):
        return None
    if end != len(json) or id != tag or len(digest) > 128 or int(size) > MAX_IMAGE_BYTES:
        return None
    volume = VolumeRef(raw_id, _RAW, "") if raw else VolumeRef(qcow2_id, _QCOW2, parent or "")
    seen = None
    if seen_volume is not None:
        stamp = Stamp(int(inode), int(mtime_ns), int(length))
        its = volume.id if seen_volume == volume.id else seen_volume  # one object: there are many of these
        seen = Seen(its, int(seen_epoch), int(seen_write_epoch), stamp)
    if type(user_data) is dict:
        user_data = {intern(key): value for key, value in user_data.items()}  # in all images the same
    last = None
    if host is not None:
        last = OperationStatus(
            intern(verb), intern(host), int(stage), int(stages), int(percent), last_error, float(when),
            intern(stage_name),
        )  # fmt: skip
    return Record(
        tag, strong == "true", mutable == "true", int(size), True, volume, _STRATEGIES[strategy], None, int(epoch),
        int(write_epoch), (), (), last, None, False, "", prepared_by, digest, int(digest_write_epoch), (), user_data,
        (), content or "", seen,
    )  # fmt: skip
