"""The nonce of a disk's content: new at each moment after which the content may be another, whatever counters say."""

from __future__ import annotations

import pytest

from engine.api import Engine
from engine.data.decoding import decode
from engine.data.records import Record, encode
from engine.errors import ImageBusy
from engine.tags import changes
from sim.hosts.world import World

SIZE = 65536


def record(engine: Engine, disk: str) -> Record:
    return changes.read(engine.context.repository("a"), disk).record


def made() -> tuple[World, Engine, str]:
    world = World()
    world.create("a", "b")
    engine = world.host("one")
    return world, engine, engine.create_virtual_disk("a", SIZE)


def test_each_session_begins_and_ends_with_another_nonce():
    """A backup made while a disk was prepared is neither what was there before nor what was there after."""
    _, engine, disk = made()
    seen = [record(engine, disk).content]
    for _ in range(2):
        engine.prepare_image("a", disk)
        seen.append(record(engine, disk).content)
        engine.teardown_image("a", disk)
        seen.append(record(engine, disk).content)
        assert not record(engine, disk).prepared_by
    assert seen[0] == "" and len(set(seen)) == 5


def test_a_session_that_nobody_tore_down_is_closed_before_its_content_is_copied():
    """The machine is gone with its holder: the copy begins with a nonce that no backup of the session has."""
    world, engine, disk = made()
    engine.prepare_image("a", disk)
    during = record(engine, disk).content
    world.bury("one")
    engine = world.host("one")
    copy = engine.copy_image("b", disk, options={"auto_fix": False})
    now = record(engine, disk)
    assert not now.prepared_by and now.content not in ("", during)
    operation = changes.read(engine.context.repository("b"), copy).record.operation
    assert operation is not None and operation.source_content == now.content


def test_a_session_is_closed_by_a_snapshot_too():
    """The disk goes on above what was frozen, and nobody has it prepared."""
    world, engine, disk = made()
    engine.prepare_image("a", disk)
    during = record(engine, disk).content
    world.bury("one")
    engine = world.host("one")
    engine.create_snapshot("a", disk)
    assert not record(engine, disk).prepared_by and record(engine, disk).content != during


def test_a_session_that_goes_on_is_not_closed():
    """Its lease says so, on every host."""
    world, engine, disk = made()
    engine.prepare_image("a", disk)
    before = record(engine, disk)
    with pytest.raises(ImageBusy):
        world.host("two").copy_image("b", disk)
    assert record(engine, disk) == before


def test_a_record_without_nonce_is_what_older_programs_write():
    """Byte for byte; and what is read back is equal with one."""
    _, engine, disk = made()
    old = record(engine, disk)
    assert old.content == "" and b'"content"' not in encode(old) and b"source_content" not in encode(old)
    engine.prepare_image("a", disk)
    new = record(engine, disk)
    assert decode(encode(new), disk) == new
