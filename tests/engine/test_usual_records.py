"""The short way to read a record is no other way: what it says is what the long one says."""

from __future__ import annotations

import json
from hashlib import blake2b

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data import decoding
from engine.data.decoding import decode
from engine.data.model import MAX_IMAGE_BYTES, OperationStatus, Strategy, VolumeFormat
from engine.data.records import Record, VolumeRef, canonical, encode
from engine.data.seen import Seen, Stamp
from engine.data.usual import usual
from engine.errors import Damaged, NotUnderstood
from tests.engine.kit import record, snapshotted

TAG, VOLUME = "1" * 32, "2" * 32
PLAIN = Record(
    TAG, True, True, 4096, True, VolumeRef(VOLUME, VolumeFormat.QCOW2, "3" * 32), Strategy.SPACE,
    last=OperationStatus("create_disk", "host.example.org", 1, 1, 100, "", 1.7e9, "make volume"),
    user_data={"name": "a disk"}, content="4" * 32, seen=Seen(VOLUME, 1, 0, Stamp(5, 1_700_000_000_000_000_000, 7)),
)  # fmt: skip


def sealed(body: bytes) -> bytes:
    return b"dw1 %d %s\n%s\n" % (len(body), blake2b(body, digest_size=16).hexdigest().encode(), body)


def outcome(raw: bytes) -> object:
    """What a record is said to be, with the types of all that is in it: 1, True and 1.0 are equal."""
    try:
        record = decode(raw, TAG)
    except (Damaged, NotUnderstood) as error:
        return type(error), error.message
    return record, repr(record)


def by_both(raw: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[object, object]:
    short = outcome(raw)
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "usual", lambda text, tag, decoder: None)
        return short, outcome(raw)


def is_usual(record: Record) -> bool:
    body = encode(record).partition(b"\n")[2][:-1].decode()
    return usual(body, record.id, decoding._DECODER) == record


@pytest.mark.parametrize(
    "fields",
    [
        {}, {"seen": None}, {"content": ""}, {"last": None}, {"mutable": False}, {"strategy": Strategy.PERFORMANCE},
        {"volume": VolumeRef(VOLUME, VolumeFormat.RAW, "")}, {"volume": VolumeRef(VOLUME, VolumeFormat.QCOW2, "")},
        {"user_data": None}, {"user_data": {"ä": [1, 2.5, {"b": None}]}}, {"strong": False}, {"digest": "ab12"},
        {"prepared_by": "host.example.org"}, {"epoch": 7, "write_epoch": 9}, {"size": MAX_IMAGE_BYTES},
    ],
)  # fmt: skip
def test_what_images_usually_are_is_told_at_a_glance(fields, monkeypatch):
    """Else a check of many would be slow, and nobody would notice."""
    plain = PLAIN._replace(**fields)
    assert is_usual(plain)
    short, long = by_both(encode(plain), monkeypatch)
    assert short == long == (plain, repr(plain))


def test_what_the_engine_writes_of_a_disk_and_a_snapshot_is_usual(engine):
    """Of real files, whose times have all their digits."""
    for image in snapshotted(engine):
        found = record(engine, "a", image)
        assert found.seen is not None and is_usual(found)


HOSTILE = [
    ('"size":4096', f'"size":{MAX_IMAGE_BYTES + 1}'), ('"size":4096', '"size":04096'), ('"size":4096', '"size":4096.0'),
    ('"size":4096', '"size":-1'), ('"epoch":1', '"epoch":1e3'), ('"epoch":1', f'"epoch":{1 << 63}'),
    ('"mutable":true', '"mutable":1'), ('"name"', '"\\ud800"'), ('{"name":"a disk"}', "NaN"),
    ('{"name":"a disk"}', '1,"volume":null'), ('{"name":"a disk"}', '{"name":"a disk"} '), ('{"name":"a disk"}', ""),
    ('{"name":"a disk"}', '{"a":1},"volume":{"format":"raw","id":"' + "9" * 32 + '","parent":""}'),
    ('{"name":"a disk"}', '"a\nb"'), ('{"name":"a disk"}', '{"a":1,"a":2}'), ('{"name":"a disk"}', "[" * 900),
    ('"format":"qcow2"', '"format":"raw"'), ('"when":1700000000.0', '"when":1e999'),
    ('"when":1700000000.0', '"when":1'),
    ('"percent":100', '"percent":101'), ('"percent":100', '"percent":-1'), ('"percent":100', '"percent":true'),
    (TAG, "5" * 32), (TAG, "A" * 32), (VOLUME, "../etc"), ('"digest":""', f'"digest":"{"a" * 129}"'),
    ('"stage":1', '"stage":-1'), ('"host.example.org"', '"h\\u00e4"'), ('"host.example.org"', "null"),
    ('"whole":true', '"whole":true,"zzz":1'), ('"lost":[]', '"lost":[[0,1]]'), ('"inode":5', '"inode":-5'),
    ('"purging":false', '"purging":true'), ('"absorbed_by":""', '"absorbed_by":"",  "added":1'),
    ('"whole":true,"write_epoch":0}', '"whole":true,"write_epoch":0} '),
]  # fmt: skip


@pytest.mark.parametrize("old, new", HOSTILE)
def test_a_stranger_learns_no_more_by_the_short_way(old, new, monkeypatch):
    """Values and texts that are nearly those of a usual record, with a right checksum."""
    body = encode(PLAIN).partition(b"\n")[2][:-1].decode()
    assert old in body
    short, long = by_both(sealed(body.replace(old, new).encode()), monkeypatch)
    assert short == long


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_both_ways_say_the_same_of_whatever_stands_in_a_field(data):
    """One or two fields, at the top or inside, hold any value of JSON, or are missing."""
    fields = json.loads(encode(PLAIN).partition(b"\n")[2])
    for _ in range(data.draw(st.integers(1, 2))):
        inside = [fields, *(value for value in fields.values() if isinstance(value, dict))]
        where = data.draw(st.sampled_from([one for one in inside if one]))
        name = data.draw(st.sampled_from(sorted(where)))
        if data.draw(st.booleans()):
            where[name] = data.draw(_values)
        else:
            del where[name]
    with pytest.MonkeyPatch.context() as patch:
        short, long = by_both(sealed(canonical(fields)), patch)
    assert short == long
